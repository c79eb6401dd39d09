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
from tests.annotation_queue.synthetic_queue import tickets


def test_rework_is_reserved_for_its_maker_for_a_limited_time(store, clock):
    again = sent_back_twice(store)
    assert store.ticket(again).rework
    assert claim(store, ANDY) is None
    with pytest.raises(NotAllowed):
        claim(store, ANDY, ticket_id=again)
    assert again not in {t.ticket_id for t in store.tickets(seen_by=ANDY)}
    clock.advance(store.policy.rework_s + 1)
    assert again in {t.ticket_id for t in store.tickets(seen_by=ANDY)}
    assert claim(store, ANDY).ticket_id == again


def test_a_maker_gets_their_rework_before_more_urgent_tickets(store):
    again = sent_back_twice(store)
    urgent = NewTicket(ticket_id="urgent", kind=Kind.TRACK, video_id="video-0", phase="1", priority=9)
    store.open_batch("c", [urgent])
    assert claim(store, ANDY).ticket_id == "urgent"
    assert claim(store, ANN).ticket_id == again


def test_rework_is_not_reserved_for_a_maker_who_stopped_working(store, clock):
    store.open_batch("b", tickets(1))
    make(store, ANN, to_track(store), "first")
    clock.advance(store.policy.rework_s + 1)
    finish(store, VICTOR, Verdict.REFINE)
    assert claim(store, ANDY) is not None


def test_a_lead_can_claim_a_reserved_ticket_by_its_id(store):
    again = sent_back_twice(store)
    assert claim(store, LEA, Kind.TRACK) is None
    assert claim(store, LEA, Kind.TRACK, ticket_id=again).ticket_id == again


def test_a_correction_is_verified_by_another_verifier(store):
    verify = make(store, ANN, claim(store, ANN, ticket_id=sent_back_twice(store)), "second")
    assert verify.sent_back_by == "victor" and verify.rework
    assert claim(store, VICTOR) is None
    with pytest.raises(NotAllowed):
        claim(store, VICTOR, ticket_id=verify.ticket_id)
    assert claim(store, VERA).ticket_id == verify.ticket_id


def test_the_same_verifier_may_judge_a_correction_if_the_policy_allows_it(store):
    store = with_policy(store, other_verifier=False)
    store.open_batch("b", tickets(1))
    verify = make(store, ANN, to_track(store), "first")
    assert claim(store, VERA).ticket_id == verify.ticket_id
