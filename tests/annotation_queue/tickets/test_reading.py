"""Which tickets and videos a person may see, on SQLite and on PostgreSQL."""

from __future__ import annotations

from annotation_queue.records import Kind, NewTicket, Person, Role
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    ANN,
    LEA,
    VERA,
    VICTOR,
    claim,
    outcome,
)
from tests.annotation_queue.synthetic_queue import verify_tickets


def test_a_ticket_is_visible_to_its_holder_its_finisher_and_overseers(tickets, clock):
    tickets.open_batch("b", verify_tickets(2))
    held = claim(tickets, VERA)
    first, second = (t.ticket_id for t in verify_tickets(2))
    boss, program = (Person(name=r.value, roles=frozenset({r})) for r in (Role.ADMIN, Role.PIPELINE))
    for who in (LEA, boss, program):
        assert tickets.may_see(who, second) and tickets.may_see_video(who, "video-1")
    assert tickets.may_see(VERA, first) and not tickets.may_see(VERA, second)
    assert tickets.may_see_video(VERA, "video-0") and not tickets.may_see_video(VERA, "video-1")
    assert not tickets.may_see(VICTOR, first) and not tickets.may_see_video(VICTOR, "video-0")
    tickets.finish(first, held.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert tickets.may_see(VERA, first) and tickets.may_see_video(VERA, "video-0")
    lost = claim(tickets, VERA)
    clock.advance(91)
    claim(tickets, VICTOR)
    assert not tickets.may_see(VERA, lost.ticket_id) and tickets.may_see(VICTOR, lost.ticket_id)


def test_the_ticket_list_shows_only_tickets_that_the_person_could_get(tickets):
    tickets.open_batch(
        "b", [*verify_tickets(2), NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")]
    )
    held = claim(tickets, VERA)
    assert {t.ticket_id for t in tickets.find(seen_by=VICTOR)} == {"ticket-0001"}
    assert {t.ticket_id for t in tickets.find(seen_by=VERA)} == {held.ticket_id, "ticket-0001"}
    assert {t.ticket_id for t in tickets.find(seen_by=ANN)} == {"t"}
    assert len(tickets.find(seen_by=LEA)) == 3
