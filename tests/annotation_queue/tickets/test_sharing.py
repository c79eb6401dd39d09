"""Tickets that several people answer: several makers and several verdicts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotation_queue.errors import (
    NotAllowed,
    TooLate,
)
from annotation_queue.records import Kind, NewTicket, Reason, State
from annotation_queue.rules import is_in_share
from storage import iou
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    AMY,
    ANDY,
    ANN,
    LEA,
    VALERIE,
    VERA,
    VICTOR,
    claim,
    finish,
    outcome,
    take_back,
    with_policy,
)
from tests.annotation_queue.synthetic_queue import blank, candidate, corrected, verify_tickets


def to_make(tickets, makers):
    """A ticket store whose only ticket was sent back by Victor, and is made by so many people."""
    tickets = with_policy(tickets, makers=makers, makers_share=1.0)
    tickets.open_batch("b", verify_tickets(1))
    finish(tickets, VICTOR, Verdict.REFINE)
    return tickets


def submit(tickets, person, masklet):
    held = claim(tickets, person)
    return tickets.finish(held.ticket_id, held.lease_token, person, outcome(masklet=masklet))


def made_by(name, spots=0):
    """A disc on 8 annotated frames, on the last `spots` of them in another place."""
    disc = corrected(candidate(f"of-{name}", "video-0", 8 * 4), f"of-{name}")
    wrong, kept = blank(disc), len(disc.rle) - spots
    masks, areas = (*disc.rle[:kept], *wrong.rle[kept:]), (*disc.area_px[:kept], *wrong.area_px[kept:])
    return replace(disc, rle=masks, area_px=areas)


def test_of_several_masklets_of_one_object_the_closest_to_the_others_is_verified(tickets):
    tickets = to_make(tickets, 3)
    first = claim(tickets, ANN)
    done = submit_held(tickets, first, ANN, made_by("ann", spots=4))
    assert done.settled is None and not done.batch_drained
    assert claim(tickets, ANN) is None
    with pytest.raises(NotAllowed):
        claim(tickets, ANN, ticket_id=done.next_ticket_id)
    second = claim(tickets, ANDY)
    assert (second.ticket_id, second.kind) == (done.next_ticket_id, Kind.TRACK)
    assert second.masklet_id == first.masklet_id and second.made_by is None  # nobody sees what another one made
    told = ("kind", "payload", "phase", "attempt", "previous_ticket_id", "sent_back_by", "rework", "priority", "skill")
    assert [getattr(second, name) for name in told] == [getattr(first, name) for name in told]
    assert tickets.operations(second.ticket_id) == []
    submit_held(tickets, second, ANDY, made_by("andy"))
    assert claim(tickets, ANN) is None and claim(tickets, ANDY) is None
    assert tickets.figures().total.masklet_iou is None
    done = submit(tickets, AMY, made_by("amy", spots=1))
    verify = tickets.ticket(done.next_ticket_id)
    assert (verify.kind, verify.made_by) == (Kind.VERIFY, "amy")
    ann, andy, amy = made_by("ann", spots=4), made_by("andy"), made_by("amy", spots=1)
    people = {work.name: work for work in tickets.figures().people}
    assert people["ann"].masklet_iou == pytest.approx((iou.mean_iou(ann, andy) + iou.mean_iou(ann, amy)) / 2)
    assert people["amy"].masklet_iou == pytest.approx((iou.mean_iou(amy, andy) + iou.mean_iou(ann, amy)) / 2)
    assert people["amy"].masklet_iou > people["andy"].masklet_iou > people["ann"].masklet_iou
    assert people["amy"].agreement == 1.0
    finish(tickets, VERA, Verdict.ACCEPT)
    (settled,) = tickets.batch_result("b").settled
    assert (settled.masklet.masklet_id, settled.masklet.annotated_by) == (verify.masklet_id, "amy")
    assert tickets.batch("b").drained and tickets.batch("b").total == 5


def test_an_object_that_most_makers_call_untrackable_is_rejected(tickets):
    tickets = to_make(tickets, 3)
    assert finish(tickets, ANN, Verdict.REJECT, Reason.UNTRACKABLE).settled is None
    assert submit(tickets, ANDY, made_by("andy")).settled is None
    assert finish(tickets, AMY, Verdict.REJECT, Reason.UNTRACKABLE).settled is Verdict.REJECT
    (settled,) = tickets.batch_result("b").settled
    assert (settled.verdict, settled.reasons, settled.decided_by) == (Verdict.REJECT, (Reason.UNTRACKABLE,), "amy")
    assert {work.name: work.agreement for work in tickets.figures().people if work.name != "victor"} == {
        "amy": 0.5,
        "andy": 0.0,
        "ann": 0.5,
    }


def test_if_one_of_two_makers_rejects_the_other_ones_masklet_is_verified(tickets):
    tickets = to_make(tickets, 2)
    finish(tickets, ANN, Verdict.REJECT, Reason.UNTRACKABLE)
    verify = tickets.ticket(submit(tickets, ANDY, made_by("andy")).next_ticket_id)
    assert (verify.kind, verify.made_by, verify.needs_lead) == (Kind.VERIFY, "andy", False)
    assert tickets.figures().total.masklet_iou is None


@pytest.mark.parametrize("rejects", [False, True])
def test_a_maker_can_take_back_until_the_next_maker_begins(tickets, rejects):
    tickets = to_make(tickets, 2)
    before = tickets.figures()
    first = submit(tickets, ANN, made_by("ann"))
    back = take_back(tickets, first.ticket.ticket_id, ANN)
    assert without_time(tickets.figures()) == without_time(before) and tickets.batch("b").total == 2
    submit_held(tickets, back, ANN, made_by("ann", spots=1))
    between = tickets.figures()
    if rejects:
        last = finish(tickets, ANDY, Verdict.REJECT, Reason.UNTRACKABLE)
    else:
        last = submit(tickets, ANDY, made_by("andy"))
    with pytest.raises(TooLate):
        take_back(tickets, first.ticket.ticket_id, ANN)
    back = take_back(tickets, last.ticket.ticket_id, ANDY)
    assert without_time(tickets.figures()) == without_time(between)
    done = submit_held(tickets, back, ANDY, made_by("andy", spots=1))
    assert tickets.ticket(done.next_ticket_id).made_by == "ann"  # equally close: the first one
    assert tickets.figures().total.masklet_iou == 1.0


def test_a_maker_who_can_still_take_back_does_not_see_the_other_masklets(tickets):
    tickets = with_policy(tickets, makers=2, makers_share=1.0)
    tickets.open_batch("b", [verify_tickets(6)[0], verify_tickets(6)[5]])  # two objects of one video
    finish(tickets, VICTOR, Verdict.REFINE)
    submit(tickets, ANN, made_by("ann"))
    last = submit(tickets, ANDY, made_by("andy", spots=1))
    verify = tickets.ticket(last.next_ticket_id)
    assert verify.made_by == "ann"
    assert tickets.others("ticket-0005", seen_by=ANDY) == []
    assert [o.masklet_id for o in tickets.others("ticket-0005", seen_by=ANN)] == [verify.masklet_id]
    claim(tickets, VERA, ticket_id=verify.ticket_id)
    assert [o.masklet_id for o in tickets.others("ticket-0005", seen_by=ANDY)] == [verify.masklet_id]
    assert [o.masklet_id for o in tickets.others(last.ticket.ticket_id, seen_by=ANDY)] == ["ticket-m0005"]


def test_only_a_masklet_of_the_model_is_corrected_by_several_makers(tickets):
    tickets = with_policy(tickets, makers=2, makers_share=1.0)
    unknown = NewTicket(ticket_id="anything", kind=Kind.TRACK, video_id="video-0")  # nothing says which object
    made = replace(candidate("m", frame_count=8), annotated_by="somebody")
    tickets.open_batch("c", [unknown, NewTicket(ticket_id="made", kind=Kind.TRACK, video_id="video-0", masklet=made)])
    for _ in range(2):
        held = claim(tickets, ANN)
        done = submit_held(tickets, held, ANN, made_by(held.ticket_id))
        assert tickets.ticket(done.next_ticket_id).kind is Kind.VERIFY


def submit_held(tickets, held, person, masklet):
    return tickets.finish(held.ticket_id, held.lease_token, person, outcome(masklet=masklet))


def without_time(figures):
    """The figures but for the pace, and for who holds what."""
    to_do = (replace(b, open=b.open + b.leased, leased=0, per_hour=0, expected_s=None) for b in figures.batches)
    return replace(figures, at=0.0, batches=tuple(to_do))


def test_a_ticket_of_the_overlap_share_takes_several_verdicts(tickets):
    tickets = with_policy(tickets, overlap=3, overlap_share=1.0)
    tickets.open_batch("b", verify_tickets(1))
    first = finish(tickets, VERA, Verdict.ACCEPT)
    assert (first.settled, first.next_ticket_id, first.ticket.state) == (None, None, State.OPEN)
    assert claim(tickets, VERA) is None
    finish(tickets, VICTOR, Verdict.REJECT, Reason.DRIFT)
    last = finish(tickets, VALERIE, Verdict.ACCEPT)
    assert last.settled is Verdict.ACCEPT and last.batch_drained
    (settled,) = tickets.batch_result("b").settled
    assert (settled.verdict, settled.decided_by, settled.reasons) == (Verdict.ACCEPT, "valerie", ())
    figures = tickets.figures()
    assert figures.total.agreement == pytest.approx(1 / 3)  # of three pairs one agrees
    assert {work.name: work.agreement for work in figures.people} == {"valerie": 0.5, "vera": 0.5, "victor": 0.0}
    assert (figures.batches[0].done, figures.total.answers) == (1, 3)


def test_a_tie_of_verdicts_goes_to_a_lead(tickets):
    tickets = with_policy(tickets, overlap=2, overlap_share=1.0)
    tickets.open_batch("b", verify_tickets(1))
    finish(tickets, VERA, Verdict.ACCEPT)
    follower = tickets.ticket(finish(tickets, VICTOR, Verdict.REFINE).next_ticket_id)
    assert follower.needs_lead and follower.kind is Kind.VERIFY
    assert finish(tickets, LEA, Verdict.ACCEPT).settled is Verdict.ACCEPT


def test_one_of_several_verdicts_can_be_taken_back(tickets):
    tickets = with_policy(tickets, overlap=2, overlap_share=1.0)
    tickets.open_batch("b", verify_tickets(2))
    ticket_id = finish(tickets, VERA, Verdict.ACCEPT).ticket.ticket_id
    back = take_back(tickets, ticket_id, VERA)
    tickets.finish(ticket_id, back.lease_token, VERA, outcome(Verdict.REFINE))
    held = claim(tickets, VICTOR)
    assert held.ticket_id == ticket_id
    with pytest.raises(TooLate, match="another person holds"):
        take_back(tickets, ticket_id, VERA)
    settled = tickets.finish(ticket_id, held.lease_token, VICTOR, outcome(Verdict.REFINE))
    assert settled.next_ticket_id is not None and tickets.figures().total.agreement == 1.0
    back = take_back(tickets, ticket_id, VERA)  # the decision opens again
    assert tickets.figures().total.agreement is None
    again = tickets.finish(ticket_id, back.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert tickets.ticket(again.next_ticket_id).needs_lead and tickets.figures().total.agreement == 0.0


def test_the_overlap_share_depends_only_on_the_ticket_id():
    chosen = [i for i in range(4000) if is_in_share(f"ticket-{i}", 0.1)]
    assert 300 < len(chosen) < 500
    assert not any(is_in_share(f"ticket-{i}", 0.0) for i in range(100))
    assert all(is_in_share(f"ticket-{i}", 1.0) for i in range(100))
    assert set(chosen) < {i for i in range(4000) if is_in_share(f"ticket-{i}", 0.2)}
