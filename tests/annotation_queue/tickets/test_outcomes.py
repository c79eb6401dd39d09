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
from tests.annotation_queue.synthetic_queue import SyntheticMedia, candidate, corrected, verify_tickets


def test_accept_and_reject_settle_a_masklet(tickets):
    tickets.open_batch("b", verify_tickets(2))
    assert finish(tickets, VERA, Verdict.ACCEPT).settled is Verdict.ACCEPT
    assert finish(tickets, VERA, Verdict.REJECT, Reason.DRIFT, Reason.DUPLICATE).settled is Verdict.REJECT
    accepted, rejected = tickets.batch_result("b").settled
    assert (accepted.masklet.verdict, accepted.masklet.verified_by) == ("accept", "vera")
    assert (rejected.masklet.verdict, rejected.reasons) == ("reject", (Reason.DRIFT, Reason.DUPLICATE))
    assert replace(accepted.masklet, verdict=None, verified_by=None) == verify_tickets(1)[0].masklet


def test_refine_leads_to_a_correction_that_another_person_verifies(tickets):
    tickets.open_batch("b", verify_tickets(1))
    both = Person(name="ann", roles=frozenset({Role.ANNOTATOR, Role.VERIFIER}))
    track = to_track(tickets)
    made = corrected(tickets.masklet(track.ticket_id), "better")
    result = tickets.finish(track.ticket_id, track.lease_token, both, outcome(masklet=made))
    verify = tickets.ticket(result.next_ticket_id)
    assert (verify.kind, verify.made_by, verify.attempt) == (Kind.VERIFY, "ann", 3)
    assert verify.previous_ticket_id == track.ticket_id
    assert claim(tickets, both, Kind.VERIFY) is None
    with pytest.raises(NotAllowed):
        claim(tickets, both, Kind.VERIFY, ticket_id=verify.ticket_id)
    maker_leads = replace(both, roles=frozenset({Role.LEAD}))
    with pytest.raises(NotAllowed, match="another person must verify"):
        claim(tickets, maker_leads, Kind.VERIFY, ticket_id=verify.ticket_id)
    assert finish(tickets, VICTOR, Verdict.ACCEPT).batch_drained
    (settled,) = tickets.batch_result("b").settled
    better = settled.masklet
    assert (better.parent_id, better.kind) == ("ticket-m0000", "manual") and better.masklet_id != "better"
    assert (better.annotated_by, better.verified_by, better.click_count) == ("ann", "victor", 0), "not what she says"


@pytest.mark.parametrize("frame_idx", [-5, 48, 2**40])
def test_a_frame_that_the_video_does_not_have_is_rejected_with_its_answer(tickets, frame_idx):
    tickets.open_batch("b", verify_tickets(1))
    ticket = claim(tickets, VERA)
    answer = replace(outcome(Verdict.REFINE), frame_idx=frame_idx)
    with pytest.raises(ValueError, match=f"frame_idx must be between 0 and 47, not {frame_idx}"):
        tickets.finish(ticket.ticket_id, ticket.lease_token, VERA, answer, video_of=SyntheticMedia(48).info)
    if frame_idx != 48:
        with pytest.raises(ValueError, match=f"frame_idx must be between 0 and .*, not {frame_idx}"):
            tickets.finish(ticket.ticket_id, ticket.lease_token, VERA, answer)
    last = replace(answer, frame_idx=47)
    tickets.finish(ticket.ticket_id, ticket.lease_token, VERA, last, video_of=SyntheticMedia(48).info)
    pinned = json.loads(claim(tickets, ANN).payload)["pinned"]
    assert pinned["frame_idx"] == 47


def test_after_unsure_only_a_lead_can_decide(tickets):
    tickets.open_batch("b", verify_tickets(1))
    verify = tickets.ticket(finish(tickets, VERA, Verdict.UNSURE).next_ticket_id)
    assert verify.needs_lead
    assert claim(tickets, VICTOR) is None
    with pytest.raises(NotAllowed):
        claim(tickets, VICTOR, ticket_id=verify.ticket_id)
    assert finish(tickets, LEA, Verdict.ACCEPT).settled is Verdict.ACCEPT


def test_the_next_ticket_pins_the_frame_and_the_verdict(tickets):
    tickets.open_batch("b", verify_tickets(2))
    pins = []
    for verdict in (Verdict.UNSURE, Verdict.REFINE):
        pins.append(json.loads(tickets.ticket(finish(tickets, VERA, verdict).next_ticket_id).payload)["pinned"])
    assert pins == [{"frame_idx": 8, "by": "vera", "reasons": [], "verdict": said} for said in ("unsure", "refine")]
    tied = TicketStore(tickets.database, policy=QueuePolicy(overlap=2, overlap_share=1.0), clock=tickets.clock)
    tied.open_batch("tie", verify_tickets(1, prefix="tie"))
    finish(tied, VERA, Verdict.REFINE)
    verify = tied.ticket(finish(tied, VICTOR, Verdict.ACCEPT).next_ticket_id)
    pin = json.loads(verify.payload)["pinned"]
    assert verify.needs_lead and (pin["by"], pin["verdict"]) == ("victor", "accept")


def test_a_phase_1_masklet_has_no_parent_and_is_verified_by_another_person(tickets):
    tickets.open_batch("b", [NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")])
    finish(tickets, ANN, masklet=candidate("by-hand"))
    assert finish(tickets, VERA, Verdict.ACCEPT).batch_drained
    masklet = tickets.batch_result("b").settled[0].masklet
    assert (masklet.phase, masklet.kind, masklet.parent_id, masklet.annotated_by) == ("1", "manual", None, "ann")


def test_a_track_ticket_may_be_rejected_as_untrackable(tickets):
    tickets.open_batch("b", [NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")])
    assert finish(tickets, ANN, Verdict.REJECT, Reason.UNTRACKABLE).batch_drained
    (settled,) = tickets.batch_result("b").settled
    assert (settled.masklet, settled.decided_by, settled.reasons) == (None, "ann", (Reason.UNTRACKABLE,))


def test_a_select_ticket_leads_to_a_track_ticket(tickets):
    tickets.open_batch("b", [NewTicket(ticket_id="s", kind=Kind.SELECT, video_id="video-0")])
    picked = candidate("picked", frame_count=4)
    assert tickets.ticket(finish(tickets, ANN, masklet=picked).next_ticket_id).kind is Kind.TRACK


def test_finishing_twice_gives_the_same_answer_and_opens_one_ticket(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    refine = outcome(Verdict.REFINE)
    first = tickets.finish(held.ticket_id, held.lease_token, VERA, refine)
    assert tickets.finish(held.ticket_id, held.lease_token, VERA, refine) == first
    assert tickets.batch("b").total == 2
    with pytest.raises(LeaseLost):  # another answer to the same ticket
        tickets.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert [json.loads(o.payload)["verdict"] for o in tickets.operations(held.ticket_id)] == ["refine"]


def test_an_invalid_submission_changes_nothing(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    with pytest.raises(ValueError, match="reason"):
        tickets.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.REJECT))
    assert tickets.ticket(held.ticket_id) == held
    assert tickets.operations(held.ticket_id) == []


def test_a_verdict_is_stored_as_an_operation(tickets):
    tickets.open_batch("b", verify_tickets(1))
    finish(tickets, VERA, Verdict.REJECT, Reason.DRIFT)
    (act,) = tickets.batch_result("b").operations
    assert (act.kind, act.person, act.frame_idx, act.seq) == ("verdict", "vera", 8, 1)
    assert json.loads(act.payload) == {"verdict": "reject", "reasons": ["drift"], "seconds": 2.5, "watched": None}
