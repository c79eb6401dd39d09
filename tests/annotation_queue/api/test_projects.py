"""A person of one project sees nothing of another, in no answer of the API: not even a name."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from annotation_queue.api.app import create_app
from annotation_queue.client import QueueClient
from annotation_queue.database import Database
from annotation_queue.errors import NotAllowed
from annotation_queue.people.accounts import Accounts
from annotation_queue.projects import Projects
from annotation_queue.records import Kind, NewGold, PlannedPhase, Role, Stuck
from annotation_queue.tickets.ontologies import Ontologies
from annotation_queue.tickets.store import TicketStore
from storage.ontology import ObjectClass, Ontology, Picture
from storage.records import Verdict
from tests.annotation_queue.annotators import claim, finish, new_id
from tests.annotation_queue.pipelines import FakePipeline
from tests.annotation_queue.synthetic_queue import (
    CHEAP,
    PASSWORD,
    SyntheticMedia,
    SyntheticModel,
    candidate,
    serving,
    verify_tickets,
)

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
PICTURE = Picture(media_type="image/png", base64=base64.b64encode(b"\x89PNG and so on").decode())
ONTOLOGIES = {
    name: Ontology(name=name, classes=(ObjectClass(name=f"{name}-label"),), pictures={f"{name}.png": PICTURE})
    for name in ("cats", "dogs")
}


def work_of(name):
    """Four tickets with ids, masklets, videos, checkpoints, labels and an ontology that name the project."""
    model = candidate("m", frame_count=8)
    return [
        replace(
            ticket,
            video_id=f"video-{name}",
            payload=json.dumps({"ontology": ONTOLOGIES[name].version}),
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
        Ontologies(database, tickets.clock).add(ONTOLOGIES[name])
        tickets.open_batch(f"b-{name}", work_of(name), project=name)
        gold = verify_tickets(1, frame_count=8, prefix=f"gold-{name}")[0]
        tickets.add_gold(f"b-{name}", [NewGold(ticket=gold, expected=Verdict.ACCEPT)], by=who["admin"])
        worker = who["cora-cats" if name == "cats" else "dora-dogs"]
        finish(tickets, worker, Verdict.ACCEPT, kind=Kind.VERIFY)
        claim(tickets, worker)
    app = create_app(
        tickets,
        SyntheticMedia(8),
        accounts=accounts,
        stuck=lambda: STUCK,
        campaign=lambda: PHASES,
        segmenter=SyntheticModel(),
        overview=FakePipeline(tmp_path_factory.mktemp("docs")),
    )
    with serving(app) as url:
        yield url, app, accounts
    database.close()


def asked_by(queue, name):
    url, _, accounts = queue
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {accounts.issue_token(name)}"})


def routes(app, *, reading):
    """Method and path of every route that reads, or of every route that changes something."""
    every = [(method, path) for path, methods in app.openapi()["paths"].items() for method in methods]
    assert {method for method, _ in every} == {"get", "put", "post", "delete"}
    return [(method, path) for method, path in every if (method == "get") == reading]


def filled(path, name):
    person = f"{'cora' if name == 'cats' else 'dora'}-{name}"
    words = {
        "ticket_id": f"{name}-0001",  # this person holds it
        "batch_id": f"b-{name}",
        "video_id": f"video-{name}",
        "frame_idx": "0",
        "version": ONTOLOGIES[name].version,
        "name": f"{name}.png" if "picture" in path else person,
        "token_id": "0" * 12,
    }
    for word, value in words.items():
        path = path.replace(f"{{{word}}}", value)
    return path


@pytest.mark.parametrize("person", ["carl-cats", "cora-cats"])
def test_no_answer_contains_a_word_of_the_other_project(queue, person):
    plain = 0
    with asked_by(queue, person) as http:
        for _, route in routes(queue[1], reading=True):
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


NOW = "2026-01-01T00:00:00Z"
OPERATION = {
    "operation_id": "o",
    "kind": "prompt",
    "created_at": NOW,
    "frame_idx": 4,
    "payload": '{"points_xy": [[10.5, 20.0]], "labels": [1]}',
}
ACCEPT = {"operation_id": "o3", "created_at": NOW, "verdict": "accept"}
PERSON = {"name": "dora-dogs", "roles": ["lead"]}
# What a lead of the cats would send to change something of the dogs, by route. Of these routes, some name nothing.
NAMES_NOTHING = {"/api/login", "/api/logout", "/api/me/keys", "/api/live"}
SENT: dict[str, list[Any]] = {
    "post /api/people": [PERSON, {"name": "new-dogs", "roles": ["annotator"]}],
    "post /api/people/{name}/disable": [{"disabled": True}],
    "post /api/people/{name}/tokens": [{}],
    "delete /api/people/{name}/tokens": [None],
    "delete /api/people/{name}/tokens/{token_id}": [None],
    "post /api/tickets/claim": [
        {"claim_id": "c1", "ticket_id": "dogs-0003"},
        {"claim_id": "c2", "project": "dogs"},
        {"claim_id": "c3", "batch_id": "b-dogs"},
    ],
    "post /api/tickets/{ticket_id}/operations": [{"token": 1, "operations": [OPERATION]}],
    "post /api/tickets/{ticket_id}/refine": [{"token": 1, "operation": OPERATION}],
    "post /api/tickets/{ticket_id}/warm": [{"token": 1}],
    "post /api/tickets/{ticket_id}/objects": [{"token": 1, "claim_id": "c4"}],
    "post /api/tickets/{ticket_id}/heartbeat": [{"token": 1}],
    "post /api/tickets/{ticket_id}/release": [{"token": 1}],
    "post /api/tickets/{ticket_id}/end-lease": [{"token": 1}],
    "post /api/tickets/{ticket_id}/finish": [{"token": 1, "outcome": ACCEPT}],
    "post /api/tickets/{ticket_id}/unsubmit": [{"operation_id": "o2", "created_at": NOW}],
    "post /api/tickets/{ticket_id}/comments": [{"comment_id": "c", "text": "hello", "created_at": NOW}],
    "put /api/batches/{batch_id}": [{"tickets": []}],
    "post /api/batches/{batch_id}/gold": [{"tickets": []}],
    "post /api/batches/{batch_id}/close-settled": [None],
    "post /api/batches/{batch_id}/withdraw": [{"video_id": "video-dogs", "why": "x"}],
    "put /api/ontologies": [{"classes": [{"name": "x"}]}],
    "post /api/acts": [{"act_id": "a" * 16, "action": "assign", "ticket_ids": ["dogs-0003"], "to": "carl-cats"}],
    "post /api/comments": [{"act_id": "a" * 16, "ticket_ids": ["dogs-0003"], "text": "hello", "created_at": NOW}],
    "post /api/me/kept/close": [{"operation_ids": ["late"], "applied": False}],
    "post /api/kept/close": [{"operation_ids": ["late"], "applied": False}],
    "post /api/quarantine": [{"act_id": "a" * 16, "action": "seen", "row_id": "row-1", "why": "known"}],
}


def changed(answer):
    """What an answer says was changed; empty if it was refused or nothing was there to change."""
    if answer.status_code >= 400 or answer.status_code == 204 and answer.request.method == "POST":
        return []
    said = answer.json()
    return [each for each in said if each["done"]] if isinstance(said, list) else [said] * (said != {"closed": 0})


def test_a_lead_changes_nothing_of_another_project_by_any_route(queue, monkeypatch):
    known = {f"{method} {path}" for method, path in routes(queue[1], reading=False) if path not in NAMES_NOTHING}
    assert set(SENT) == known, "a new route needs a row"
    members = Projects({"cats": frozenset({"carl-cats"}), "dogs": frozenset({"dora-dogs", "new-dogs"})})
    monkeypatch.setattr(queue[2], "projects", members)
    with asked_by(queue, "carl-cats") as http:
        for route, bodies in SENT.items():
            method, path = route.split()
            for body in bodies:
                answer = http.request(method, filled(path, "dogs"), json=body)
                assert answer.status_code != 422 and changed(answer) == [], (route, body, answer.text)
    with asked_by(queue, "admin") as admin:
        held, last = (admin.get(f"/api/tickets/dogs-{n}").json() for n in ("0001", "0003"))
        assert (held["leased_by"], last["state"]) == ("dora-dogs", "open")
        for branch in (False, True):
            assert admin.get("/api/tickets/dogs-0001/operations", params={"branch": branch}).json() == []


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
