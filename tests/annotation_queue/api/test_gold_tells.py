"""No answer of the API tells gold from real work, whatever a person does with the ticket."""

from __future__ import annotations

import pytest

from annotation_queue.api.app import create_app
from annotation_queue.database import Database
from annotation_queue.tickets import shown
from annotation_queue.tickets.store import TicketStore
from benchmarks import gold_tells
from benchmarks.gold_tells import SCENARIOS, tells

pytestmark = pytest.mark.server

# Routes that a person who annotates and verifies cannot use, or in which no ticket, video or count is named.
ELSEWHERE = {"/api/login", "/api/logout", "/api/me/keys", "/api/branches", "/api/batches", "/api/gold", "/api/people"}
ELSEWHERE |= {"/api/ontologies", "/api/audit", "/api/figures", "/api/stuck", "/api/campaign", "/metrics"}
ELSEWHERE |= {
    "/api/settled-videos",
    "/api/cards",
    "/api/acts",
    "/api/comments",
    "/api/kept",
    "/api/tickets/{ticket_id}/history",
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_gold_and_real_work_have_the_same_answers_field_by_field(scenario):
    assert tells(scenario) == []


@pytest.mark.parametrize("name", ["ticket", "finished", "masklet_json", "others", "recent", "history", "stats"])
def test_the_comparison_finds_what_is_shown_as_it_is(monkeypatch, name):
    monkeypatch.setattr(shown, name, lambda record, *_: record)
    assert any(tells(scenario) for scenario in (SCENARIOS[0], SCENARIOS[6])), f"the answers differ without {name}"


def test_every_route_that_such_a_person_can_use_is_compared(tmp_path, monkeypatch):
    database = Database(f"sqlite:///{tmp_path}/queue.db")
    routes = create_app(TicketStore(database), gold_tells.SmallVideos()).openapi()["paths"]
    database.close()
    asked = set()
    work = gold_tells.work

    def noting(client, tickets, scenario):
        held, answers = work(client, tickets, scenario)
        for name, _, _ in answers:
            path = name.split()[1].partition("?")[0]
            path = path.replace(held["ticket_id"], "{ticket_id}").replace(held["video_id"], "{video_id}")
            asked.add(path.replace("frames/4", "frames/{frame_idx}"))
        return held, answers

    monkeypatch.setattr(gold_tells, "work", noting)
    tells(SCENARIOS[0])
    rest = {path for path in routes if path not in asked}
    assert {path for path in rest if not any(path == at or path.startswith(f"{at}/") for at in ELSEWHERE)} == set()
