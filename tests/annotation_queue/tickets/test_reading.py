"""Which tickets and videos a person may see, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from sqlalchemy import insert, select

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.errors import NoSuchMasklet
from annotation_queue.records import Kind, NewTicket, Person, Role, State
from annotation_queue.tickets import reading
from annotation_queue.tickets.store import TicketStore
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


def test_the_ticket_list_shows_a_person_only_the_tickets_that_they_hold(tickets):
    """Gold is in no list before it is dealt: with a list of what a claim may give, they would know it."""
    tickets.open_batch(
        "b", [*verify_tickets(2), NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")]
    )
    held = claim(tickets, VERA)
    assert tickets.find(seen_by=VICTOR) == [] and tickets.find(seen_by=ANN) == []
    assert [t.ticket_id for t in tickets.find(seen_by=VERA)] == [held.ticket_id]
    assert tickets.find(seen_by=VERA, state=State.OPEN) == []
    assert len(tickets.find(seen_by=LEA)) == 3


STATES = (State.OPEN, State.DONE, State.OPEN, State.LEASED)


def in_states(tickets, count, batch_id="b", begin=0, states=STATES):
    """Adds verify and track tickets in every state and lane: open, leased by Vera or Ann, done."""
    kinds = (Kind.VERIFY, Kind.TRACK)
    holder = {Kind.VERIFY: "vera", Kind.TRACK: "ann"}
    rows = [
        {
            "ticket_id": f"t{n:05d}",
            "batch_id": batch_id,
            "kind": (kind := kinds[n % 2]).value,
            "video_id": "v",
            "phase": "auto",
            "priority": n % 3,
            "payload": "{}",
            "needs_lead": False,
            "attempt": 1,
            "created_at": n // 7,
            "ordinal": n % 11,
            "state": (state := states[n // 2 % len(states)]).value,
            "lease_token": 0,
            "reasons": "",
            "lane": ("", "skill:thin", "")[n % 3],
            "leased_by": holder[kind] if state is State.LEASED else None,
            "reserved_for": "victor" if n % 5 == 0 else None,
        }
        for n in range(begin, begin + count)
    ]
    with tickets.database.write() as c:
        c.execute(insert(schema.tickets), rows)


def test_the_ticket_list_is_in_its_order_whatever_is_asked_for(tickets):
    in_states(tickets, 120)
    in_states(tickets, 60, batch_id="other", begin=120)
    with tickets.database.read() as c:
        rows = list(c.execute(select(schema.tickets)))
    rows.sort(key=lambda r: (-r.priority, r.created_at, r.ordinal, r.ticket_id))
    batch_ids, people = (None, "b", "other", "missing"), (LEA, VERA, VICTOR, ANN)
    choices = product((None, *Kind), (None, *State), batch_ids, (3, 500), people)
    for kind, state, batch_id, limit, who in choices:
        asked = {"kind": kind, "state": state, "batch_id": batch_id, "limit": limit, "seen_by": who}
        expected = [
            row.ticket_id
            for row in rows
            if kind in (None, row.kind)
            and state in (None, row.state)
            and batch_id in (None, row.batch_id)
            and (who is LEA or (row.state == State.LEASED and row.leased_by == who.name))
        ]
        expected = expected if who is LEA else sorted(expected)
        assert [t.ticket_id for t in tickets.find(**asked)] == expected[:limit], asked


@pytest.mark.parametrize("who", [LEA, VERA, ANN], ids=lambda who: who.name)
@pytest.mark.parametrize("state", [None, State.OPEN, State.DONE])
def test_the_cost_of_the_ticket_list_does_not_grow_with_the_queue(tmp_path, who, state):
    database = Database(f"sqlite:///{tmp_path}/queue.db")
    tickets = TicketStore(database)

    def steps():
        """How many hundreds of instructions SQLite takes for the list."""
        taken = []
        with database.read() as c:
            connection = c.connection.dbapi_connection
            connection.set_progress_handler(lambda: taken.append(1), 100)
            reading.tickets(c, kind=None, state=state, batch_id=None, limit=10, seen_by=who)
            connection.set_progress_handler(None, 0)
        return len(taken)

    in_states(tickets, 400)
    few = steps()
    in_states(tickets, 7600, begin=400, states=STATES[:2])  # a person holds few tickets, however many there are
    assert steps() <= few + 20
    database.close()


def test_the_candidate_of_a_part_is_another_object_than_its_whole_and_corrects_nothing(tickets):
    whole, part = (ticket for ticket in verify_tickets(6) if ticket.video_id == "video-0")
    assert whole.masklet and part.masklet
    of_whole = replace(part.masklet, parent_id=whole.masklet.masklet_id)
    tickets.open_batch("b", [whole, replace(part, masklet=of_whole)])
    for ticket, other in ((whole, part), (part, whole)):
        assert [o.masklet_id for o in tickets.others(ticket.ticket_id)] == [other.masklet.masklet_id]
    with pytest.raises(NoSuchMasklet):
        tickets.masklet_json(part.ticket_id, before=True)


def test_the_others_of_a_video_are_those_that_share_frames_with_the_ticket(tickets):
    first, second, later = (ticket for ticket in verify_tickets(11) if ticket.video_id == "video-0")
    assert first.masklet and second.masklet and later.masklet
    later = replace(later, masklet=replace(later.masklet, frame_idx=tuple(i + 400 for i in first.masklet.frame_idx)))
    anywhere = NewTicket(ticket_id="select", kind=Kind.SELECT, video_id="video-0")
    tickets.open_batch("b", [first, second, later, anywhere])
    shown = {one: [o.masklet_id for o in tickets.others(one)] for one in (first.ticket_id, later.ticket_id, "select")}
    assert shown[first.ticket_id] == [second.masklet.masklet_id] and shown[later.ticket_id] == []
    assert len(shown["select"]) == 3
