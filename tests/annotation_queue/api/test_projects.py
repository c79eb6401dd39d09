"""A person of one project sees nothing of another, in no answer of the API: not even a name."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx
import pytest

from annotation_queue.api.app import create_app
from annotation_queue.client import QueueClient
from annotation_queue.database import Database
from annotation_queue.errors import NotAllowed
from annotation_queue.people.accounts import Accounts
from annotation_queue.projects import Projects
from annotation_queue.records import Kind, NewGold, PlannedPhase, Role, Stuck
from annotation_queue.tickets.store import TicketStore
from storage.records import Verdict
from tests.annotation_queue.annotators import claim, finish, new_id
from tests.annotation_queue.synthetic_queue import CHEAP, PASSWORD, SyntheticMedia, candidate, serving, verify_tickets

pytestmark = pytest.mark.server

PEOPLE = {
    "carl-cats": {Role.LEAD},
    "cora-cats": {Role.ANNOTATOR, Role.VERIFIER},
    "dirk-dogs": {Role.LEAD},
    "dora-dogs": {Role.ANNOTATOR, Role.VERIFIER},
    "admin": {Role.ADMIN},
    "pipeline": {Role.PIPELINE},
}
MEMBERS = Projects({name: frozenset(person for person in PEOPLE if person.endswith(name)) for name in ("cats", "dogs")})
PHASES = [
    PlannedPhase(
        phase="1", state="current", masklets=n, planned_masklets=9, retrainings=0, planned_retrainings=0, project=name
    )
    for n, name in enumerate(("cats", "dogs"))
]
STUCK = [
    Stuck(batch_id="b-cats", stage="collect", error="cats fail", since=1.0, project="cats"),
    Stuck(batch_id="b-dogs", stage="collect", error="dogs fail", since=1.0, project="dogs"),
    Stuck(batch_id="", stage="ingest", error="no such folder: /videos/dogs", since=1.0),
]


def work_of(name):
    """Two tickets with ids, masklets, videos, checkpoints and labels that name the project."""
    model = candidate("m", frame_count=8)
    return [
        replace(
            ticket,
            video_id=f"video-{name}",
            masklet=replace(
                model,
                masklet_id=f"{name}-m{n}",
                video_id=f"video-{name}",
                checkpoint=f"{name}-checkpoint",
                label=f"{name}-label",
            ),
        )
        for n, ticket in enumerate(verify_tickets(4, frame_count=8, prefix=name))
    ]


@pytest.fixture(scope="module")
def queue(tmp_path_factory):
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('queue')}/queue.db")
    tickets, accounts = TicketStore(database), Accounts(database, hasher=CHEAP, projects=MEMBERS)
    for name, roles in PEOPLE.items():
        accounts.add(name, roles, None if name == "pipeline" else PASSWORD)
    who = {person.name: MEMBERS.of(person) for person in accounts.list()}
    for name in ("cats", "dogs"):
        tickets.open_batch(f"b-{name}", work_of(name), project=name)
        gold = verify_tickets(1, frame_count=8, prefix=f"gold-{name}")[0]
        tickets.add_gold(f"b-{name}", [NewGold(ticket=gold, expected=Verdict.ACCEPT)], by=who["admin"])
        worker = who["cora-cats" if name == "cats" else "dora-dogs"]
        finish(tickets, worker, Verdict.ACCEPT, kind=Kind.VERIFY)
        claim(tickets, worker)
    app = create_app(tickets, SyntheticMedia(8), accounts=accounts, stuck=lambda: STUCK, campaign=lambda: PHASES)
    with serving(app) as url:
        yield url, app, accounts
    database.close()


def asked_by(queue, name):
    url, _, accounts = queue
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {accounts.issue_token(name)}"})


def get_routes(app):
    return [path for path, methods in app.openapi()["paths"].items() if "get" in methods]


def filled(path, name):
    words = {
        "ticket_id": f"{name}-0000",
        "batch_id": f"b-{name}",
        "video_id": f"video-{name}",
        "frame_idx": "0",
        "name": f"dora-{name}",
    }
    for word, value in words.items():
        path = path.replace(f"{{{word}}}", value)
    return path


@pytest.mark.parametrize("person", ["carl-cats", "cora-cats"])
def test_no_answer_contains_a_word_of_the_other_project(queue, person):
    plain = 0
    with asked_by(queue, person) as http:
        for route in get_routes(queue[1]):
            if "{version}" in route:  # the version of an ontology is a hash that only its tickets name
                continue
            for own in ("cats", "dogs"):
                answer = http.get(filled(route, own))
                if own == "dogs" and "{" in route:
                    assert answer.status_code in (403, 404), route
                    continue
                plain += answer.status_code == 200
                said = answer.content.replace(b"masklets_", b"")
                assert b"dogs" not in said, (route, answer.text[:500])
    assert plain > 20, "most routes answer"


def test_an_admin_gets_the_words_of_both_projects(queue):
    """So the comparison above can fail: these answers do name the other project."""
    with asked_by(queue, "admin") as http:
        for route in ("/api/tickets", "/api/cards", "/api/batches", "/api/gold", "/api/figures", "/api/people"):
            assert "cats" in http.get(route).text and "dogs" in http.get(route).text, route
        for route in ("/api/audit", "/api/stuck", "/api/campaign", "/api/stats", "/metrics"):
            assert "dogs" in http.get(route).text, route


FILTERS = [
    {"text": "dogs-0000"},
    {"text": "video-dogs"},
    {"person": "dora-dogs"},
    {"batch_id": "b-dogs"},
    {"checkpoint": "dogs-checkpoint"},
    {"label": "dogs-label"},
    {"verdict": "accept"},
    {"order": "score"},
    {"order": "agreement"},
    {"state": "open", "kind": "verify"},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_no_filter_of_the_list_leads_to_the_other_project(queue, filters):
    with asked_by(queue, "carl-cats") as http, asked_by(queue, "admin") as admin:
        assert "dogs" not in http.get("/api/cards", params=filters).text
        if filters.get("order") != "agreement":  # nobody shares a ticket here
            assert "dogs" in admin.get("/api/cards", params=filters).text


def test_the_list_and_the_figures_have_a_filter_for_the_project(queue):
    with asked_by(queue, "admin") as http, asked_by(queue, "carl-cats") as carl:
        for route in ("/api/cards", "/api/figures", "/api/batches", "/api/stats"):
            assert "dogs" not in http.get(route, params={"project": "cats"}).text, route
            assert carl.get(route, params={"project": "dogs"}).status_code == 403
            assert carl.get(route, params={"project": "cats"}).status_code == 200


COMMENT = {"comment_id": "c", "text": "hello", "created_at": "2026-01-01T00:00:00Z"}
CHANGES = [
    ("POST", "/api/tickets/claim", {"claim_id": "c1", "ticket_id": "dogs-0003"}),
    ("POST", "/api/tickets/claim", {"claim_id": "c2", "project": "dogs"}),
    ("POST", "/api/tickets/dogs-0001/end-lease", {"token": 1}),
    (
        "POST",
        "/api/tickets/dogs-0001/comments",
        {"comment_id": "c", "text": "hello", "created_at": "2026-01-01T00:00:00Z"},
    ),
    ("POST", "/api/batches/b-dogs/gold", {"tickets": []}),
    ("POST", "/api/people", {"name": "dora-dogs", "roles": ["lead"]}),
    ("POST", "/api/people", {"name": "new-dogs", "roles": ["annotator"]}),
    ("POST", "/api/people/dora-dogs/disable", {"disabled": True}),
    ("DELETE", "/api/people/dora-dogs/tokens", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES, ids=lambda value: str(value)[:40])
def test_a_lead_changes_nothing_of_another_project(queue, method, path, body):
    members = Projects({"cats": frozenset({"carl-cats"}), "dogs": frozenset({"dora-dogs", "new-dogs"})})
    with pytest.MonkeyPatch.context() as patch, asked_by(queue, "carl-cats") as http:
        patch.setattr(queue[2], "projects", members)
        answer = http.request(method, path, json=body)
        assert answer.status_code in (403, 404), answer.text
    with asked_by(queue, "admin") as admin:
        assert admin.get("/api/tickets/dogs-0001").json()["leased_by"] == "dora-dogs"


def test_an_act_of_a_lead_on_tickets_of_both_projects_touches_their_own_alone(queue):
    body = {"act_id": new_id(), "action": "prioritise", "ticket_ids": ["cats-0003", "dogs-0003"], "priority": 4}
    with asked_by(queue, "carl-cats") as http:
        results = http.post("/api/acts", json=body).json()
    assert {each["ticket_id"]: each["done"] for each in results} == {"cats-0003": True, "dogs-0003": False}
    assert "no ticket" in json.dumps(results)


def test_a_program_names_the_project_that_it_works_for(queue):
    with QueueClient(queue[0], token=queue[2].issue_token("cora-cats")) as cora:
        held = cora.claim([Kind.VERIFY], project="cats")
        assert held is not None and held.project == "cats"
        cora.release(held)
        assert cora.claim([Kind.VERIFY], project="") is None, "the unnamed project has no tickets"
        with pytest.raises(NotAllowed):
            cora.claim([Kind.VERIFY], project="dogs")


def test_the_page_learns_the_projects_of_its_person(queue):
    with asked_by(queue, "cora-cats") as cora, asked_by(queue, "admin") as admin:
        assert cora.get("/api/me").json()["projects"] == ["cats"]
        assert admin.get("/api/me").json()["projects"] == ["cats", "dogs"]
