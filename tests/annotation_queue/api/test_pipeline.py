"""What leads see of the pipeline over HTTP, who may see it, and what a decision about the quarantine needs."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from annotation_queue.api.app import create_app
from annotation_queue.database import Database
from annotation_queue.pipeline_records import PoolUse, Workers
from annotation_queue.projects import Projects
from annotation_queue.records import Scope
from annotation_queue.refinement.timings import Timings
from annotation_queue.tickets.store import TicketStore
from tests.annotation_queue.pipelines import FakePipeline, failing, refused, waiting
from tests.annotation_queue.synthetic_queue import SyntheticMedia, add_people


@pytest.fixture
def pipeline(tmp_path):
    return FakePipeline(tmp_path)


@pytest.fixture
def timings():
    return Timings()


@pytest.fixture
def client(tmp_path, pipeline, timings):
    """Asks the application as a person, by a token."""
    database = Database(f"sqlite:///{tmp_path}/queue.db")
    accounts = add_people(database)
    app = create_app(TicketStore(database), SyntheticMedia(8), accounts=accounts, overview=pipeline, timings=timings)

    def of(name, scopes=None):
        token = accounts.issue_token(name, scopes)
        return TestClient(app, headers={"Authorization": f"Bearer {token}"})

    yield of
    database.close()


ACT = {"act_id": "a" * 32, "action": "release", "row_id": "row-1", "why": "needed"}


def test_a_lead_sees_the_pipeline_and_its_quarantine(client, pipeline):
    lea = client("lea")
    assert lea.get("/api/pipeline").json()["more"] == 0
    pipeline.rows.append(refused("row-1"))
    page = lea.get("/api/quarantine", params={"stage": "ingest", "undecided": True, "limit": 7}).json()
    assert [row["row_id"] for row in page["rows"]] == ["row-1"]
    assert pipeline.asked == {
        "stage": "ingest",
        "reason": None,
        "text": None,
        "undecided": True,
        "after": 0,
        "limit": 7,
    }


def test_a_decision_carries_the_name_of_the_lead_and_a_reason(client, pipeline):
    pipeline.rows.append(refused("row-1"))
    row = client("lea").post("/api/quarantine", json=ACT).json()
    assert [(act["by"], act["action"], act["why"]) for act in row["acts"]] == [("lea", "release", "needed")]
    for wrong in ({"why": ""}, {"action": "delete"}, {"act_id": "../x"}, {"row_id": "unknown"}):
        assert client("lea").post("/api/quarantine", json=ACT | wrong).status_code == 422, wrong


@pytest.mark.parametrize("name", ["ann", "vera", "pipeline"])
def test_only_leads_and_admins_see_it(client, name):
    asking = client(name)
    for path in ("/api/pipeline", "/api/pipeline/b", "/api/quarantine", "/docs/b/index.html"):
        assert asking.get(path).status_code == 403, path
    assert asking.post("/api/quarantine", json=ACT).status_code == 403


def test_a_token_that_may_only_annotate_decides_nothing(client, pipeline):
    pipeline.rows.append(refused("row-1"))
    lea = client("lea", [Scope.ANNOTATE])
    assert lea.get("/api/quarantine").status_code == 200
    assert lea.post("/api/quarantine", json=ACT).status_code == 403 and pipeline.rows[0].acts == ()


def test_data_docs_are_shown_with_our_style_and_load_nothing_from_elsewhere(client, pipeline):
    (pipeline.folder / "page.html").write_text(
        '<html><head><script src="https://cdn/x.js"></script><style>p{}</style>'
        '<link rel="stylesheet" href="https://cdn/x.css"></head>'
        "<body><p style=\"color: red\" onclick='x()'>61 %</p><img src='https://other/x.png'></body></html>"
    )
    (pipeline.folder / "secret.json").write_text("{}")
    lea = client("lea")
    answer = lea.get("/docs/b/page.html")
    style = '<link rel="stylesheet" href="/web/styles/data_docs.css">'
    assert answer.text == f"<html><head>{style}</head><body><p>61 %</p></body></html>"
    policies = answer.headers.get_list("content-security-policy")
    assert "default-src 'self'" in policies[-1] and "script-src 'none'; form-action 'none'" in policies
    assert lea.get("/docs/b/secret.json").status_code == lea.get("/docs/b/missing.html").status_code == 404


def test_a_server_without_a_pipeline_says_so(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/other.db")
    accounts = add_people(database)
    app = create_app(TicketStore(database), SyntheticMedia(8), accounts=accounts)
    lea = TestClient(app, headers={"Authorization": f"Bearer {accounts.issue_token('lea')}"})
    assert lea.get("/api/pipeline").status_code == 404
    database.close()


def metrics(client):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(client("pipeline", [Scope.READ]).get("/metrics").text)
        for sample in family.samples
    }


def test_prometheus_reads_the_pipeline_and_the_models_answers(client, pipeline, timings):
    pipeline.batches += [failing("3f9c0a11d2e4b567", "too few"), waiting("0" * 16)]
    pipeline.rows.append(refused("row-1"))
    pipeline.workers = Workers(
        url="http://airflow", scheduler_seen=9.0, pools=(PoolUse(name="gpu", slots=2, running=1, queued=5),)
    )
    timings.note("click", 0.3)
    found = metrics(client)
    assert found["masklets_pipeline_up", ()] == 1
    assert found["masklets_batches_waiting", (("stage", "publish"),)] == 2
    assert found["masklets_stages_failing", (("stage", "publish"),)] == 1
    assert found["masklets_quarantine_rows", (("reason", "too_short"), ("stage", "ingest"))] == 1
    assert found["masklets_promoted_checkpoint", (("checkpoint", "micro"), ("round", "0"))] == 1
    assert found["masklets_scheduler_seen_timestamp_seconds", ()] == 9
    assert found["masklets_pool_tasks", (("pool", "gpu"), ("state", "queued"))] == 5
    assert found["masklets_model_seconds_bucket", (("le", "0.35"), ("what", "click"))] == 1
    assert found["masklets_model_seconds_bucket", (("le", "0.2"), ("what", "click"))] == 0


def test_a_lead_of_some_projects_sees_nothing_of_the_pipeline_of_all(client, pipeline):
    lea = client("lea")
    lea.app.state.backend.accounts.projects = Projects({"street": frozenset({"lea"})})
    pipeline.batches.append(failing("3f9c0a11d2e4b567", "too few"))
    pipeline.rows.append(refused("row-1"))
    for path in ("/api/pipeline", "/api/pipeline/3f9c0a11d2e4b567", "/api/quarantine", "/docs/3f9c0a11d2e4b567/"):
        answer = lea.get(path)
        assert answer.status_code == 403 and "only an admin" in answer.text, path
    assert lea.post("/api/quarantine", json=ACT).status_code == 403 and not pipeline.rows[0].acts
    found = lea.get("/metrics").text
    assert "masklets_batches_waiting" not in found and "masklets_undelivered_batches" in found
    assert "masklets_batches_waiting" in client("pipeline", [Scope.READ]).get("/metrics").text


def test_a_store_that_is_away_costs_only_its_own_numbers(client, pipeline):
    pipeline.away = True
    found = metrics(client)
    assert found["masklets_pipeline_up", ()] == 0 and ("masklets_undelivered_batches", ()) in found
    assert ("masklets_released_files", ()) not in found


def test_the_metrics_need_a_token_of_an_overseer(client):
    assert client("vera").get("/metrics").status_code == 403
    assert TestClient(client("lea").app).get("/metrics").status_code == 401
