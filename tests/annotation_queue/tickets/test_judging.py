"""What tells whether verdicts come from looking, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotation_queue.records import NewGold, Reason
from annotation_queue.tickets.judging import ENOUGH, LAST
from storage.records import Verdict
from tests.annotation_queue.annotators import LEA, VALERIE, VERA, VICTOR, claim, outcome, take_back, with_policy
from tests.annotation_queue.synthetic_queue import verify_tickets


def judge(tickets, person, verdict, *, seconds, watched=1.0):
    held = claim(tickets, person)
    reasons = [Reason.OTHER] if verdict is Verdict.REJECT else []
    answer = replace(outcome(verdict, *reasons), seconds=seconds, watched=watched)
    tickets.finish(held.ticket_id, held.lease_token, person, answer)
    return held.ticket_id


def of(tickets, person):
    return next((row for row in tickets.figures().judging if row.person == person.name), None)


def careful(tickets, person, count):
    """Two accepts, then a masklet to refine, and so on; 6 s each, everything watched."""
    for n in range(count):
        judge(tickets, person, Verdict.REFINE if n % 3 == 2 else Verdict.ACCEPT, seconds=6.0)


def test_whoever_waves_everything_through_is_named_and_whoever_looks_is_not(tickets):
    tickets.open_batch("b", verify_tickets(3 * ENOUGH, frame_count=8))
    careful(tickets, VICTOR, ENOUGH)
    for _ in range(ENOUGH):
        judge(tickets, VERA, Verdict.ACCEPT, seconds=1.6, watched=0.4)
    hers, his = of(tickets, VERA), of(tickets, VICTOR)
    assert (hers.verdicts, hers.median_s, hers.accepts.right) == (ENOUGH, 1.6, ENOUGH)
    assert hers.watched == pytest.approx(0.4)
    assert hers.flags == (
        "a verdict takes 1.6 s, the others' 6.0 s",
        "only 40 % of the frames were on screen",
        "accepts 20 of 20, the others 70 %",
    )
    assert his.flags == () and (his.median_s, his.watched, his.accepts.right) == (6.0, 1.0, 14)
    assert tickets.figures().people[0].first_pass.right == ENOUGH, "which says nothing of care"


def test_a_few_verdicts_are_not_judged(tickets):
    tickets.open_batch("b", verify_tickets(ENOUGH, frame_count=8))
    for _ in range(ENOUGH - 1):
        judge(tickets, VERA, Verdict.ACCEPT, seconds=0.1, watched=0.0)
    assert of(tickets, VERA).flags == ()
    judge(tickets, VERA, Verdict.ACCEPT, seconds=0.1, watched=0.0)
    assert of(tickets, VERA).flags == (
        "a verdict takes 0.1 s: too short to watch a clip",
        "only 0 % of the frames were on screen",
        "accepts 20 of 20: always the same verdict",
    )


def test_only_the_last_verdicts_count_and_a_program_has_no_watched_share(tickets):
    tickets.open_batch("b", verify_tickets(LAST + 5, frame_count=4))
    for n in range(LAST + 5):
        judge(tickets, VERA, Verdict.ACCEPT, seconds=float(n), watched=None)
    hers = of(tickets, VERA)
    assert (hers.verdicts, hers.watched, hers.median_s) == (LAST, None, 5 + (LAST - 1) / 2)


def test_disagreement_with_the_others_is_named(tickets):
    tickets = with_policy(tickets, overlap=3, overlap_share=1.0)
    tickets.open_batch("b", verify_tickets(12, frame_count=4))
    for person, verdict in ((VERA, Verdict.REJECT), (VICTOR, Verdict.ACCEPT), (VALERIE, Verdict.ACCEPT)):
        for _ in range(12):
            judge(tickets, person, verdict, seconds=6.0)
    hers, his = of(tickets, VERA), of(tickets, VICTOR)
    assert (hers.agreement, hers.shared, hers.flags) == (0.0, 12, ("the others agree with 0 % of 12 shared verdicts",))
    assert (his.agreement, his.shared) == (0.5, 12)


def test_wrong_answers_to_gold_are_named_and_gold_is_among_the_last_verdicts(tickets):
    tickets = with_policy(tickets, gold_share=1.0)
    tickets.open_batch("b", [])
    known = [NewGold(ticket=t, expected=Verdict.REFINE) for t in verify_tickets(6, frame_count=4, prefix="gold")]
    tickets.add_gold("b", known, by=LEA)
    for n in range(6):
        last = judge(tickets, VERA, Verdict.ACCEPT if n else Verdict.REFINE, seconds=6.0)
    hers = of(tickets, VERA)
    assert (hers.verdicts, hers.gold.right, hers.gold.of, hers.flags) == (6, 1, 6, ("right on 1 of 6 gold tickets",))
    take_back(tickets, last, VERA)
    assert of(tickets, VERA).verdicts == 5
