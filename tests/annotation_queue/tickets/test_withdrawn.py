"""A withdrawn video: its tickets are rejected, its batch drains without them, and it is closed."""

from __future__ import annotations

import json

import pytest

from annotation_queue.errors import LeaseLost, NoSuchBatch, NoSuchVideo, TooLate
from annotation_queue.leads.history import read
from annotation_queue.records import NewGold, Reason
from annotation_queue.tickets import withdrawn
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    ANN,
    LEA,
    VERA,
    VICTOR,
    claim,
    finish,
    make,
    outcome,
    take_back,
    to_track,
    with_policy,
)
from tests.annotation_queue.synthetic_queue import candidate, verify_tickets

NO = (Verdict.REJECT, Reason.NOT_AN_OBJECT)


def reject(tickets, video_id, batch_id="b"):
    return withdrawn.reject(
        tickets.database, batch_id, video_id, by=LEA, why="its video was withdrawn", now=tickets.clock()
    )


def test_the_tickets_of_a_withdrawn_video_are_rejected_and_the_batch_drains_without_them(tickets):
    tickets.open_batch("b", verify_tickets(6))  # two of video-0, one of each other
    tickets.open_batch("c", verify_tickets(1, prefix="other"))
    held = claim(tickets, VERA)
    assert (held.video_id, reject(tickets, "video-0"), reject(tickets, "video-0")) == ("video-0", 2, 0)
    with pytest.raises(LeaseLost, match="lea took this ticket back"):
        tickets.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.ACCEPT))
    with tickets.database.read() as c:
        assert [json.loads(act.detail)["said"] for act in read(c, held.ticket_id).acts] == ["its video was withdrawn"]
    assert (tickets.batch("b").remaining, tickets.batch("c").remaining) == (4, 1)
    for _ in range(4):
        one = claim(tickets, VERA, batch_id="b")
        tickets.finish(one.ticket_id, one.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert [batch.batch_id for batch in tickets.batches(drained=True)] == ["b"]
    settled = {one.ticket_id: (one.verdict, one.decided_by) for one in tickets.batch_result("b").settled}
    assert settled["ticket-0000"] == settled["ticket-0005"] == (Verdict.REJECT, "lea")
    progress = [(p.batch_id, p.open, p.leased, p.done) for p in tickets.figures().batches]
    assert progress == [("b", 0, 0, 6), ("c", 1, 0, 0)]
    with pytest.raises(NoSuchBatch):
        reject(tickets, "video-0", "another")


def test_the_last_tickets_of_a_batch_drain_it(tickets):
    tickets.open_batch("b", verify_tickets(2))
    finish(tickets, VERA, *NO)
    assert reject(tickets, "video-1") == 1 and tickets.batch("b").drained


def test_nobody_takes_back_an_answer_about_a_withdrawn_video(tickets):
    tickets.open_batch("b", verify_tickets(2))
    answered = finish(tickets, VERA, *NO).ticket
    assert reject(tickets, answered.video_id) == 0
    with pytest.raises(TooLate):
        take_back(tickets, answered.ticket_id, VERA)


def test_a_verdict_needs_no_video_and_a_masklet_does(tickets):
    def gone(video_id):
        raise NoSuchVideo(f"no admitted video {video_id!r}")

    tickets.open_batch("b", verify_tickets(1))
    track = to_track(tickets)
    with pytest.raises(NoSuchVideo):
        tickets.finish(track.ticket_id, track.lease_token, ANN, outcome(masklet=candidate("m")), video_of=gone)
    verify = make(tickets, ANN, track, "made")
    held = claim(tickets, VICTOR, ticket_id=verify.ticket_id)
    done = tickets.finish(held.ticket_id, held.lease_token, VICTOR, outcome(Verdict.ACCEPT), video_of=gone)
    assert done.batch_drained


def test_gold_about_a_withdrawn_video_is_dealt_no_more_and_ends_no_warm_up(tickets):
    tickets.open_batch("b", verify_tickets(2))
    gold = [NewGold(ticket=ticket, expected=Verdict.ACCEPT) for ticket in verify_tickets(6, prefix="gold")]
    tickets.add_gold("b", [gold[0], gold[5], gold[1]], by=LEA)  # two about video-0
    warming = with_policy(tickets, gold_share=0.0, warmup_tickets=3)
    answered = finish(warming, VERA, Verdict.ACCEPT).ticket
    held = claim(warming, VERA)
    assert [answered.video_id, held.video_id] == ["video-0", "video-1"]
    assert claim(warming, VICTOR).video_id == "video-0"
    assert reject(tickets, "video-0") == 1, "the real one"
    assert [one.video_id for one in tickets.gold()] == ["video-1"]
    with pytest.raises(TooLate, match="withdrawn"):
        take_back(tickets, answered.ticket_id, VERA)
    assert claim(warming, VICTOR).video_id == "video-1", "the last gold"
    warming.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert claim(warming, VERA).ticket_id == "ticket-0001", "the warm-up ends with the last gold"
