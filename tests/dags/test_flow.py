"""One batch through the real DAGs and the real engine: from a folder of videos to a release.

Candidates are the clips' own truth, written as parts before `auto_masklets` runs, so that no batch here needs a model.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowFailException
from sqlalchemy import select

from annotation_queue.client import QueueClient
from annotation_queue.records import Kind, Role
from engine import batches
from engine.batches import BatchStage
from engine.ingest import ingest
from engine.rounds import campaign, record, starting
from engine.services import Services, connect
from engine.serving import serve
from engine.synthetic import scene, video_files
from storage.dataset import parts, releases
from storage.formats import sav
from storage.records import Verdict, content_id
from tests.engine.true_releases import measured, release_of

SCENE = scene.Scene(height=64, width=64, frames=25, objects=(2, 2), clutter=(0, 0))
LEARNABLE = scene.Scene(height=96, width=128, frames=24, objects=(2, 3), clutter=(0, 0), size=(0.2, 0.35), leave=0.0)

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.server]


@contextmanager
def queue_of(s: Services) -> Iterator[None]:
    """The real queue over HTTP, in a thread."""
    server = uvicorn.Server(uvicorn.Config(serve.app(s), port=s.settings.queue.port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MASKLETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MASKLETS_QUEUE__PORT", str(port))
    monkeypatch.setenv("MASKLETS_INGEST__SOURCE", str(tmp_path / "videos"))
    monkeypatch.setenv("MASKLETS_INGEST__HELD_OUT_SHARE", "0.34")
    monkeypatch.setenv("MASKLETS_AIRFLOW__URL", "http://127.0.0.1:9")  # the queue cannot tell of drained batches
    with connect() as services:
        yield services


def states(bag: DagBag, dag_id: str, **conf: object) -> tuple[str, dict[str, list[str]]]:
    """Runs a DAG in this process and returns its state and its tasks' states."""
    run = bag.dags[dag_id].test(run_conf=conf)
    found: dict[str, list[str]] = {}
    for ti in sorted(run.get_task_instances(), key=lambda ti: (ti.task_id, ti.map_index)):
        found.setdefault(ti.task_id, []).append(str(ti.state))
    return str(run.state), found


def events() -> list[str]:
    """The names of the assets that were announced, oldest first; deletes the events."""
    return [name for name, _ in events_with_facts()]


def events_with_facts() -> list[tuple[str, dict[str, object]]]:
    """The assets that were announced, oldest first, each with the facts of its event; deletes the events."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        query = select(AssetModel.name, AssetEvent.extra).join(AssetEvent, AssetEvent.asset_id == AssetModel.id)
        found = [(name, extra) for name, extra in session.execute(query.order_by(AssetEvent.id))]
        session.query(AssetEvent).delete()
    return found


def propose_the_truth(s: Services, batch_id: str) -> int:
    """Writes each video's true masklets as its candidates, as `propagate` would have."""
    count = 0
    for video in s.tables.videos(where=f"batch_id == '{batch_id}'"):
        assert video.truth_key is not None
        truth = sav.from_sav(json.loads(s.blobs.read(video.truth_key)), video=video)
        rows = [
            replace(
                row,
                masklet_id=content_id(video.video_id, row.masklet_id, length=20),
                batch_id=batch_id,
                checkpoint="truth",
                split=video.split,
            )
            for row in truth
        ]
        parts.write_part(s.blobs, kind="candidates", batch_id=batch_id, video_id=video.video_id, rows=rows)
        count += len(rows)
    return count


def accept_everything(s: Services) -> int:
    """One verifier accepts every ticket."""
    _, accounts = s.open_queue()
    accounts.add("vera", [Role.VERIFIER], "a long password")
    done = 0
    with QueueClient(s.settings.queue_url, username="vera", password="a long password") as client:
        while (ticket := client.claim([Kind.VERIFY])) is not None:
            client.finish(ticket, verdict=Verdict.ACCEPT)
            done += 1
    return done


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phase 1 until two masklets are published, then phase 2 with a retraining."""
    phases = [{"phase": "1", "masklets": 2}, {"phase": "2", "retrainings": 1}]
    monkeypatch.setenv("MASKLETS_CAMPAIGN__PHASES", json.dumps(phases))


def test_a_batch_goes_from_a_folder_to_a_release(plan: None, bag: DagBag, s: Services, tmp_path: Path) -> None:
    video_files.write_videos(tmp_path / "videos", 2, SCENE, seed=3)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"not a video")

    assert states(bag, "ingest") == ("success", {"plan": ["success"], "admit": ["success"]})
    assert states(bag, "ingest") == ("success", {"plan": ["success"], "admit": ["skipped"]})
    assert events() == ["videos"]
    (batch_id,) = batches.pending(s.blobs, BatchStage.PROPOSED)

    candidates = propose_the_truth(s, batch_id)
    with queue_of(s):
        state, tasks = states(bag, "auto_masklets")
        assert (state, tasks["propagate"], tasks["open_review"]) == ("success", ["skipped"], ["success"])
        assert events_with_facts() == [("candidates", {"batch": batch_id, "phase": "1"})]

        assert accept_everything(s) == candidates
        assert states(bag, "reconcile") == (
            "success",
            {"wake": ["success"], "report": ["success"]},
        )  # the queue could not reach Airflow
        assert events() == ["reviewed"]

        assert states(bag, "collect") == ("success", {"drained": ["success"], "collect_batch": ["success"]})
        assert states(bag, "collect") == ("success", {"drained": ["success"], "collect_batch": ["skipped"]})
        assert events() == ["collected"]
        assert states(bag, "publish") == ("success", {"pending": ["success"], "publish_batch": ["success"]})
        assert events() == ["release"]
        assert states(bag, "reconcile") == ("success", {"wake": ["success"], "report": ["success"]})
        assert events() == []

    (name,) = releases.names(s.blobs)
    assert releases.load(s.blobs, name).verify() == []
    assert [(of.state, of.masklets) for of in campaign.standing(s)] == [("done", candidates), ("current", 0)]
    state, tasks = states(bag, "retrain")  # far fewer masklets than a round is due for
    assert (state, set(sum(tasks.values(), []))) == ("success", {"skipped"})


def test_without_a_source_the_clock_finds_nothing_to_do(
    bag: DagBag, s: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASKLETS_INGEST__SOURCE")
    assert states(bag, "ingest") == ("success", {"plan": ["skipped"], "admit": ["skipped"]})


def test_a_missing_source_fails_at_once(bag: DagBag, s: Services) -> None:
    run = bag.dags["ingest"].test(run_conf={"source": "/no/such/folder"})
    tasks = {task.task_id: (str(task.state), task.try_number) for task in run.get_task_instances()}
    assert str(run.state) == "failed" and tasks["plan"] == ("failed", 1), "no retry"
    assert tasks["admit"][0] == "upstream_failed"


NOWHERE = record.Round("round-001-00000000", 1, "no-release", "/no/model", None, 0, 1, 1e-4, 1, None, 0.0, 1)


@pytest.mark.parametrize(
    ("task_id", "arguments", "error"),
    [
        (
            "start",
            {"params": {"release": "nothing", "steps": None, "lr": None, "parts": None, "seed": 1}},
            "NoSuchRelease",
        ),
        ("train", {"round_id": "round-001-ffffffff"}, "NoSuchRound"),
        ("train", {"round_id": NOWHERE.round_id}, "NoCheckpoint"),
        ("evaluate", {"round_id": "round-001-ffffffff"}, "NoSuchRound"),
        ("evaluate", {"round_id": NOWHERE.round_id}, "NoSuchRelease"),
        ("decide", {"round_id": NOWHERE.round_id}, "NoSuchRound"),
    ],
)
def test_a_round_fails_at_once_on_an_error_that_a_retry_cannot_fix(
    bag: DagBag, s: Services, task_id: str, arguments: dict, error: str
) -> None:
    s.blobs.create(f"rounds/{NOWHERE.round_id}/start.json", json.dumps(asdict(NOWHERE)).encode())
    with pytest.raises(AirflowFailException, match=error):
        bag.dags["retrain"].get_task(task_id).python_callable(**arguments)


@contextmanager
def person_in_airflow(option: str) -> Iterator[list[str]]:
    """Answers the question of a run of `retrain` by Airflow's own route. Gives the questions.

    `dag.test()` sleeps while a task waits for input; the answer comes then, so that nothing depends on the clock.
    Importing the route warns about a field of Airflow's.
    """
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
        from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail

    asked: list[str] = []
    waited: list[float] = []  # s
    sleep = time.sleep
    query = select(TaskInstance.run_id, HITLDetail).join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
    query = query.where(TaskInstance.task_id == "approve", TaskInstance.state == "awaiting_input")

    def answer(seconds: float) -> None:
        sleep(seconds)
        if threading.current_thread() is not threading.main_thread():  # Airflow's own threads sleep, too
            return
        waited.append(seconds)
        assert sum(waited) < 300, "Airflow has asked nobody for five minutes"  # a fault would hang all tests
        with create_session() as session:
            for run_id, question in session.execute(query).all():
                asked.append(f"{question.subject}\n{question.body}")
                said = UpdateHITLDetailPayload(chosen_options=[option], params_input={})
                user = SimpleAuthManagerUser(username="lea", role="admin")
                update_hitl_detail("retrain", run_id, "approve", said, user, session)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", answer)
        yield asked


def test_a_person_decides_in_airflow_whether_a_round_that_passed_is_promoted(
    bag: DagBag, s: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKLETS_ROUNDS__APPROVAL", "person")
    video_files.write_videos(tmp_path / "videos", 3, LEARNABLE, seed=5)
    ingest.admit(s)
    release_of(s, "release-0001")
    rejected = (1, "Reject", "skipped", "rejected by a person in Airflow")
    for seed, option, decision, reason in (rejected, (2, "Approve", "success", "approved by lea")):
        round_id = measured(s, starting.start(s, "release-0001", starting.Budget(seed=seed)))
        with person_in_airflow(option) as asked:
            state, tasks = states(bag, "retrain", release="release-0001", seed=seed)
        assert (state, tasks["approve"], tasks["approved"]) == ("success", ["success"], [decision])
        assert (tasks["conclude"], tasks["announce"]) == (["success"], [decision])
        (question,) = asked
        assert question.startswith(f"Promote the checkpoint of {round_id}?") and "- better: held-out J&F" in question
        result = record.result_of(s, round_id)
        assert result is not None and (result.promoted, result.waits) == (option == "Approve", False)
        assert result.reasons[0] == reason
    assert s.checkpoint().name == round_id
    assert events() == ["checkpoint"]

    retrain = bag.dags["retrain"]  # had the answer come by command before Airflow asked, it would not ask
    assert retrain.get_task("ask").python_callable(round_id, "waits") is False
    nobody = SimpleNamespace(xcom_pull=lambda **_: None)
    assert retrain.get_task("conclude").python_callable(round_id, "waits", ti=nobody) == "promoted"


def test_the_clock_wakes_the_round_that_is_due(bag: DagBag, s: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "due", lambda s: "release-0001")
    told = {}

    class Alias:
        def add(self, asset, extra):
            told[asset.name] = extra

    events = defaultdict(Alias)
    bag.dags["reconcile"].get_task("wake").python_callable(outlet_events=events)
    assert told == {"release": {"pending": ["release-0001"]}}


def test_a_stage_that_fails_to_answer_keeps_no_other_from_being_woken(
    bag: DagBag, s: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(s):
        raise RuntimeError("the registry is down\nfor good")

    monkeypatch.setattr(starting, "due", broken)
    batch_id = "0" * 16
    batches.mark(s.blobs, batch_id, BatchStage.INGESTED, {"videos": []})
    told = {}

    class Alias:
        def add(self, asset, extra):
            told[asset.name] = extra

    found = bag.dags["reconcile"].get_task("wake").python_callable(outlet_events=defaultdict(Alias))
    assert told == {"videos": {"pending": [batch_id]}}
    with pytest.raises(AirflowFailException, match="^release: the registry is down$"):
        bag.dags["reconcile"].get_task("report").python_callable(found)
