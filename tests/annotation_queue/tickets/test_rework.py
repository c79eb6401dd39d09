"""Masklets that a verifier sent back: who corrects them and who verifies them again."""

from __future__ import annotations

import pytest

from annotation_queue.errors import (
    NotAllowed,
)
from annotation_queue.records import Kind, NewTicket
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    ANDY,
    ANN,
    LEA,
    VERA,
    VICTOR,
    claim,
    finish,
    make,
    sent_back_twice,
    to_track,
    with_policy,
)
from tests.annotation_queue.synthetic_queue import verify_tickets


def test_rework_is_reserved_for_its_maker_for_a_limited_time(tickets, clock):
    again = sent_back_twice(tickets)
    assert tickets.ticket(again).rework
    assert claim(tickets, ANDY) is None
    with pytest.raises(NotAllowed):
        claim(tickets, ANDY, ticket_id=again)
    clock.advance(tickets.policy.rework_s + 1)
    assert claim(tickets, ANDY).ticket_id == again


def test_a_maker_gets_their_rework_before_more_urgent_tickets(tickets):
    again = sent_back_twice(tickets)
    urgent = NewTicket(ticket_id="urgent", kind=Kind.TRACK, video_id="video-0", phase="1", priority=9)
    tickets.open_batch("c", [urgent])
    assert claim(tickets, ANDY).ticket_id == "urgent"
    assert claim(tickets, ANN).ticket_id == again


def test_rework_is_not_reserved_for_a_maker_who_stopped_working(tickets, clock):
    tickets.open_batch("b", verify_tickets(1))
    make(tickets, ANN, to_track(tickets), "first")
    clock.advance(tickets.policy.rework_s + 1)
    finish(tickets, VICTOR, Verdict.REFINE)
    assert claim(tickets, ANDY) is not None


def test_a_lead_can_claim_a_reserved_ticket_by_its_id(tickets):
    again = sent_back_twice(tickets)
    assert claim(tickets, LEA, Kind.TRACK) is None
    assert claim(tickets, LEA, Kind.TRACK, ticket_id=again).ticket_id == again


def test_a_correction_is_verified_by_another_verifier(tickets):
    verify = make(tickets, ANN, claim(tickets, ANN, ticket_id=sent_back_twice(tickets)), "second")
    assert verify.sent_back_by == "victor" and verify.rework
    assert claim(tickets, VICTOR) is None
    with pytest.raises(NotAllowed):
        claim(tickets, VICTOR, ticket_id=verify.ticket_id)
    assert claim(tickets, VERA).ticket_id == verify.ticket_id


def test_the_same_verifier_may_judge_a_correction_if_the_policy_allows_it(tickets):
    tickets = with_policy(tickets, other_verifier=False)
    tickets.open_batch("b", verify_tickets(1))
    verify = make(tickets, ANN, to_track(tickets), "first")
    assert claim(tickets, VERA).ticket_id == verify.ticket_id
