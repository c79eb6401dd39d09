"""Opening a ticket for another object of a video, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from annotation_queue.errors import (
    LeaseLost,
    NotAllowed,
)
from annotation_queue.records import Kind, Reason, State
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    ANDY,
    ANN,
    VERA,
    claim,
    make,
    new_id,
    outcome,
    to_track,
)
from tests.annotation_queue.synthetic_queue import verify_tickets


def begin_object(tickets, ticket, person=ANN, claim_id=None):
    return tickets.new_object(ticket.ticket_id, ticket.lease_token, person, claim_id=claim_id or new_id())


def test_a_person_who_lost_the_role_cannot_open_another_object(tickets):
    tickets.open_batch("b", verify_tickets(1, frame_count=8))
    held = to_track(tickets)
    with pytest.raises(NotAllowed, match="no role"):
        begin_object(tickets, held, replace(ANN, roles=VERA.roles))
    assert tickets.batch("b").total == 2
    assert tickets.finish(
        held.ticket_id, held.lease_token, replace(ANN, roles=VERA.roles), outcome(Verdict.REJECT, Reason.UNTRACKABLE)
    )


def test_another_object_is_a_new_ticket_leased_to_the_same_person(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held, claim_id = to_track(tickets), new_id()
    opened = begin_object(tickets, held, claim_id=claim_id)
    assert (opened.kind, opened.video_id, opened.batch_id) == (Kind.TRACK, held.video_id, "b")
    assert (opened.leased_by, opened.state, opened.masklet_id) == ("ann", State.LEASED, None)
    assert opened.ticket_id != held.ticket_id and tickets.ticket(held.ticket_id).leased_by == "ann", "both are held"
    assert begin_object(tickets, held, claim_id=claim_id) == opened, "the same request again opens nothing"
    assert tickets.claim(ANN, claim_id=claim_id) == opened, "as after a reload, which claims again what it held"
    assert (tickets.batch("b").total, tickets.batch("b").remaining) == (3, 2)
    verify = make(tickets, ANN, opened, "found")
    assert (verify.kind, verify.made_by) == (Kind.VERIFY, "ann")


def test_a_batch_drains_only_after_the_objects_that_were_opened_in_it(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held = to_track(tickets)
    opened = begin_object(tickets, held)
    tickets.finish(held.ticket_id, held.lease_token, ANN, outcome(Verdict.REJECT, Reason.UNTRACKABLE))
    assert not tickets.batch("b").drained
    tickets.finish(opened.ticket_id, opened.lease_token, ANN, outcome(Verdict.REJECT, Reason.OTHER))
    assert tickets.batch("b").drained
    counted = [row for row in tickets.stats().counts if row.state is State.DONE]
    assert sum(row.tickets for row in counted) == 3 and not [r for r in tickets.stats().counts if r.state is State.OPEN]


def test_opening_another_object_needs_the_lease_of_a_track_or_select_ticket(tickets, clock):
    tickets.open_batch("b", verify_tickets(2))
    looked_at = claim(tickets, VERA)
    with pytest.raises(NotAllowed, match="track or select ticket"):
        begin_object(tickets, looked_at, VERA)
    tickets.release(looked_at.ticket_id, looked_at.lease_token, VERA)
    held = to_track(tickets)
    with pytest.raises(NotAllowed, match="never held"):
        begin_object(tickets, held, ANDY)
    clock.now += tickets.lease_s + 1
    assert tickets.claim(ANDY, claim_id=new_id()).ticket_id == held.ticket_id
    with pytest.raises(LeaseLost):
        begin_object(tickets, held)
    assert tickets.batch("b").total == 3


def test_concurrent_requests_with_one_claim_id_open_one_object(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held, claim_id, opened = to_track(tickets), new_id(), []

    def ask():
        opened.append(begin_object(tickets, held, claim_id=claim_id).ticket_id)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4 and len(set(opened)) == 1 and tickets.batch("b").total == 3


def test_a_video_has_at_most_max_objects_tickets(tickets, monkeypatch):
    monkeypatch.setattr("annotation_queue.tickets.objects.MAX_OBJECTS", 3)
    tickets.open_batch("b", verify_tickets(1))
    held = to_track(tickets)  # the second ticket of the video
    begin_object(tickets, held)
    with pytest.raises(NotAllowed, match="no more objects"):
        begin_object(tickets, held)
