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
from tests.annotation_queue.synthetic_queue import tickets


def test_a_ticket_is_visible_to_its_holder_its_finisher_and_overseers(store, clock):
    store.open_batch("b", tickets(2))
    held = claim(store, VERA)
    first, second = (t.ticket_id for t in tickets(2))
    boss, program = (Person(name=r.value, roles=frozenset({r})) for r in (Role.ADMIN, Role.PIPELINE))
    for who in (LEA, boss, program):
        assert store.may_see(who, second) and store.may_see_video(who, "video-1")
    assert store.may_see(VERA, first) and not store.may_see(VERA, second)
    assert store.may_see_video(VERA, "video-0") and not store.may_see_video(VERA, "video-1")
    assert not store.may_see(VICTOR, first) and not store.may_see_video(VICTOR, "video-0")
    store.finish(first, held.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert store.may_see(VERA, first) and store.may_see_video(VERA, "video-0")
    lost = claim(store, VERA)
    clock.advance(91)
    claim(store, VICTOR)
    assert not store.may_see(VERA, lost.ticket_id) and store.may_see(VICTOR, lost.ticket_id)


def test_the_ticket_list_shows_only_tickets_that_the_person_could_get(store):
    store.open_batch("b", [*tickets(2), NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")])
    held = claim(store, VERA)
    assert {t.ticket_id for t in store.tickets(seen_by=VICTOR)} == {"ticket-0001"}
    assert {t.ticket_id for t in store.tickets(seen_by=VERA)} == {held.ticket_id, "ticket-0001"}
    assert {t.ticket_id for t in store.tickets(seen_by=ANN)} == {"t"}
    assert len(store.tickets(seen_by=LEA)) == 3
