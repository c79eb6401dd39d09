"""What finishing a ticket leads to, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from annotation_queue.errors import (
    LeaseLost,
    NotAllowed,
)
from annotation_queue.records import Kind, NewTicket, Person, QueuePolicy, Reason, Role
from annotation_queue.tickets.store import TicketStore
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    ANN,
    LEA,
    VERA,
    VICTOR,
    claim,
    finish,
    outcome,
    to_track,
)
from tests.annotation_queue.synthetic_queue import candidate, corrected, tickets


def test_accept_and_reject_settle_a_masklet(store):
    store.open_batch("b", tickets(2))
    assert finish(store, VERA, Verdict.ACCEPT).settled is Verdict.ACCEPT
    assert finish(store, VERA, Verdict.REJECT, Reason.DRIFT, Reason.DUPLICATE).settled is Verdict.REJECT
    accepted, rejected = store.batch_result("b").settled
    assert (accepted.masklet.verdict, accepted.masklet.verified_by) == ("accept", "vera")
    assert (rejected.masklet.verdict, rejected.reasons) == ("reject", (Reason.DRIFT, Reason.DUPLICATE))
    assert replace(accepted.masklet, verdict=None, verified_by=None) == tickets(1)[0].masklet


def test_refine_leads_to_a_correction_that_another_person_verifies(store):
    store.open_batch("b", tickets(1))
    both = Person(name="ann", roles=frozenset({Role.ANNOTATOR, Role.VERIFIER}))
    track = to_track(store)
    made = corrected(store.masklet(track.ticket_id), "better")
    result = store.finish(track.ticket_id, track.lease_token, both, outcome(masklet=made))
    verify = store.ticket(result.next_ticket_id)
    assert (verify.kind, verify.made_by, verify.attempt) == (Kind.VERIFY, "ann", 3)
    assert verify.previous_ticket_id == track.ticket_id
    assert claim(store, both, Kind.VERIFY) is None
    with pytest.raises(NotAllowed):
        claim(store, both, Kind.VERIFY, ticket_id=verify.ticket_id)
    maker_leads = replace(both, roles=frozenset({Role.LEAD}))
    with pytest.raises(NotAllowed, match="another person must verify"):
        claim(store, maker_leads, Kind.VERIFY, ticket_id=verify.ticket_id)
    assert finish(store, VICTOR, Verdict.ACCEPT).batch_drained
    (settled,) = store.batch_result("b").settled
    better = settled.masklet
    assert (better.parent_id, better.kind) == ("ticket-m0000", "manual") and better.masklet_id != "better"
    assert (better.annotated_by, better.verified_by, better.click_count) == ("ann", "victor", 0), "not what she says"


def test_after_unsure_only_a_lead_can_decide(store):
    store.open_batch("b", tickets(1))
    verify = store.ticket(finish(store, VERA, Verdict.UNSURE).next_ticket_id)
    assert verify.needs_lead
    assert claim(store, VICTOR) is None
    with pytest.raises(NotAllowed):
        claim(store, VICTOR, ticket_id=verify.ticket_id)
    assert finish(store, LEA, Verdict.ACCEPT).settled is Verdict.ACCEPT


def test_the_next_ticket_pins_the_frame_and_the_verdict(store):
    store.open_batch("b", tickets(2))
    pins = []
    for verdict in (Verdict.UNSURE, Verdict.REFINE):
        pins.append(json.loads(store.ticket(finish(store, VERA, verdict).next_ticket_id).payload)["pinned"])
    assert pins == [{"frame_idx": 8, "by": "vera", "reasons": [], "verdict": said} for said in ("unsure", "refine")]
    tied = TicketStore(store.database, policy=QueuePolicy(overlap=2, overlap_share=1.0), clock=store.clock)
    tied.open_batch("tie", tickets(1, prefix="tie"))
    finish(tied, VERA, Verdict.REFINE)
    verify = tied.ticket(finish(tied, VICTOR, Verdict.ACCEPT).next_ticket_id)
    pin = json.loads(verify.payload)["pinned"]
    assert verify.needs_lead and (pin["by"], pin["verdict"]) == ("victor", "accept")


def test_a_phase_1_masklet_has_no_parent_and_is_verified_by_another_person(store):
    store.open_batch("b", [NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")])
    finish(store, ANN, masklet=candidate("by-hand"))
    assert finish(store, VERA, Verdict.ACCEPT).batch_drained
    masklet = store.batch_result("b").settled[0].masklet
    assert (masklet.phase, masklet.kind, masklet.parent_id, masklet.annotated_by) == ("1", "manual", None, "ann")


def test_a_track_ticket_may_be_rejected_as_untrackable(store):
    store.open_batch("b", [NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")])
    assert finish(store, ANN, Verdict.REJECT, Reason.UNTRACKABLE).batch_drained
    (settled,) = store.batch_result("b").settled
    assert (settled.masklet, settled.decided_by, settled.reasons) == (None, "ann", (Reason.UNTRACKABLE,))


def test_a_select_ticket_leads_to_a_track_ticket(store):
    store.open_batch("b", [NewTicket(ticket_id="s", kind=Kind.SELECT, video_id="video-0")])
    picked = candidate("picked", frame_count=4)
    assert store.ticket(finish(store, ANN, masklet=picked).next_ticket_id).kind is Kind.TRACK


def test_finishing_twice_gives_the_same_answer_and_opens_one_ticket(store):
    store.open_batch("b", tickets(1))
    held = claim(store, VERA)
    refine = outcome(Verdict.REFINE)
    first = store.finish(held.ticket_id, held.lease_token, VERA, refine)
    assert store.finish(held.ticket_id, held.lease_token, VERA, refine) == first
    assert store.batch("b").total == 2
    with pytest.raises(LeaseLost):  # another answer to the same ticket
        store.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert [json.loads(o.payload)["verdict"] for o in store.operations(held.ticket_id)] == ["refine"]


def test_an_invalid_submission_changes_nothing(store):
    store.open_batch("b", tickets(1))
    held = claim(store, VERA)
    with pytest.raises(ValueError, match="reason"):
        store.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.REJECT))
    assert store.ticket(held.ticket_id) == held
    assert store.operations(held.ticket_id) == []


def test_a_verdict_is_stored_as_an_operation(store):
    store.open_batch("b", tickets(1))
    finish(store, VERA, Verdict.REJECT, Reason.DRIFT)
    (act,) = store.batch_result("b").operations
    assert (act.kind, act.person, act.frame_idx, act.seq) == ("verdict", "vera", 8, 1)
    assert json.loads(act.payload) == {"verdict": "reject", "reasons": ["drift"], "seconds": 2.5}
