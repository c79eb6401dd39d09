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
from tests.annotation_queue.synthetic_queue import tickets


def begin_object(store, ticket, person=ANN, claim_id=None):
    return store.new_object(ticket.ticket_id, ticket.lease_token, person, claim_id=claim_id or new_id())


def test_a_person_who_lost_the_role_cannot_open_another_object(store):
    store.open_batch("b", tickets(1, frame_count=8))
    held = to_track(store)
    with pytest.raises(NotAllowed, match="no role"):
        begin_object(store, held, replace(ANN, roles=VERA.roles))
    assert store.batch("b").total == 2
    assert store.finish(
        held.ticket_id, held.lease_token, replace(ANN, roles=VERA.roles), outcome(Verdict.REJECT, Reason.UNTRACKABLE)
    )


def test_another_object_is_a_new_ticket_leased_to_the_same_person(store):
    store.open_batch("b", tickets(1))
    held, claim_id = to_track(store), new_id()
    opened = begin_object(store, held, claim_id=claim_id)
    assert (opened.kind, opened.video_id, opened.batch_id) == (Kind.TRACK, held.video_id, "b")
    assert (opened.leased_by, opened.state, opened.masklet_id) == ("ann", State.LEASED, None)
    assert opened.ticket_id != held.ticket_id and store.ticket(held.ticket_id).leased_by == "ann", "both are held"
    assert begin_object(store, held, claim_id=claim_id) == opened, "the same request again opens nothing"
    assert store.claim(ANN, claim_id=claim_id) == opened, "as after a reload, which claims again what it held"
    assert (store.batch("b").total, store.batch("b").remaining) == (3, 2)
    verify = make(store, ANN, opened, "found")
    assert (verify.kind, verify.made_by) == (Kind.VERIFY, "ann")


def test_a_batch_drains_only_after_the_objects_that_were_opened_in_it(store):
    store.open_batch("b", tickets(1))
    held = to_track(store)
    opened = begin_object(store, held)
    store.finish(held.ticket_id, held.lease_token, ANN, outcome(Verdict.REJECT, Reason.UNTRACKABLE))
    assert not store.batch("b").drained
    store.finish(opened.ticket_id, opened.lease_token, ANN, outcome(Verdict.REJECT, Reason.OTHER))
    assert store.batch("b").drained and store.drained_batches() == ["b"]
    counted = [row for row in store.stats().counts if row.state is State.DONE]
    assert sum(row.tickets for row in counted) == 3 and not [r for r in store.stats().counts if r.state is State.OPEN]


def test_opening_another_object_needs_the_lease_of_a_track_or_select_ticket(store, clock):
    store.open_batch("b", tickets(2))
    looked_at = claim(store, VERA)
    with pytest.raises(NotAllowed, match="track or select ticket"):
        begin_object(store, looked_at, VERA)
    store.release(looked_at.ticket_id, looked_at.lease_token, VERA)
    held = to_track(store)
    with pytest.raises(NotAllowed, match="never held"):
        begin_object(store, held, ANDY)
    clock.now += store.lease_s + 1
    assert store.claim(ANDY, claim_id=new_id()).ticket_id == held.ticket_id
    with pytest.raises(LeaseLost):
        begin_object(store, held)
    assert store.batch("b").total == 3


def test_concurrent_requests_with_one_claim_id_open_one_object(store):
    store.open_batch("b", tickets(1))
    held, claim_id, opened = to_track(store), new_id(), []

    def ask():
        opened.append(begin_object(store, held, claim_id=claim_id).ticket_id)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4 and len(set(opened)) == 1 and store.batch("b").total == 3


def test_a_video_has_at_most_max_objects_tickets(store, monkeypatch):
    monkeypatch.setattr("annotation_queue.tickets.objects.MAX_OBJECTS", 3)
    store.open_batch("b", tickets(1))
    held = to_track(store)  # the second ticket of the video
    begin_object(store, held)
    with pytest.raises(NotAllowed, match="no more objects"):
        begin_object(store, held)
