"""Comments: who sees which, where a thread goes on, and that sending one twice stores one. On both databases."""

from __future__ import annotations

import json

import pytest

from annotation_queue.errors import NoSuchTicket, NotAllowed
from annotation_queue.records import NewComment, Reason, VideoInfo
from annotation_queue.rules import MAX_TEXT, check_comment, check_submission
from annotation_queue.tickets import comments
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    AMY,
    ANN,
    LEA,
    VALERIE,
    VERA,
    VICTOR,
    claim,
    finish,
    make,
    new_id,
    outcome,
    take_back,
    to_track,
    with_policy,
)
from tests.annotation_queue.synthetic_queue import track_ticket, verify_tickets

VIDEO = VideoInfo(video_id="v", height=100, width=200, frame_count=24, fps=24.0)


def new(text="the ear is missing", comment_id=None, **place):
    return NewComment(comment_id=comment_id or new_id(), text=text, created_at="2026-01-01T00:00:00Z", **place)


def write(tickets, ticket_id, by, text, comment_id=None):
    sent = new(text, comment_id)
    tickets.clock.advance(0.01)
    comments.check_may_write(tickets.database, ticket_id, by)
    return comments.add(tickets.database, ticket_id, by, sent, tickets.clock())


def texts(tickets, ticket_id, who):
    return [comment.text for comment in comments.read(tickets.database, ticket_id, who)]


def test_a_comment_that_is_sent_twice_is_stored_once(tickets):
    tickets.open_batch("b", verify_tickets(2))
    held = claim(tickets, VERA)
    first = write(tickets, held.ticket_id, VERA, "an ear", "c-1")
    assert write(tickets, held.ticket_id, VERA, "sent again", "c-1") == first
    assert texts(tickets, held.ticket_id, VERA) == ["an ear"]
    other = claim(tickets, VICTOR)
    for ticket_id, by in ((other.ticket_id, VICTOR), (held.ticket_id, LEA)):
        with pytest.raises(ValueError, match="another ticket or person"):
            write(tickets, ticket_id, by, "an ear", "c-1")


def test_a_thread_goes_on_in_the_tickets_that_follow(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    write(tickets, held.ticket_id, VERA, "the ear is missing")
    done = tickets.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.REFINE))
    track = claim(tickets, ANN)
    assert track.ticket_id == done.next_ticket_id and texts(tickets, track.ticket_id, ANN) == ["the ear is missing"]
    write(tickets, track.ticket_id, ANN, "which ear?")
    verify = make(tickets, ANN, track, "made")
    claim(tickets, VICTOR)
    assert texts(tickets, verify.ticket_id, VICTOR) == ["the ear is missing", "which ear?"]
    assert texts(tickets, held.ticket_id, VERA) == ["the ear is missing"], "what came after her answer is not shown"
    write(tickets, verify.ticket_id, LEA, "the left one")
    for ticket_id in (held.ticket_id, track.ticket_id, verify.ticket_id):
        assert len(texts(tickets, ticket_id, LEA)) == 3, "a lead sees the thread from everywhere"


def test_verifiers_of_one_ticket_do_not_see_each_other_s_comments_but_the_lead_s(tickets):
    tickets = with_policy(tickets, overlap=2, overlap_share=1.0)
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    write(tickets, held.ticket_id, VERA, "I would refine this")
    tickets.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.REFINE))
    write(tickets, held.ticket_id, LEA, "mind the ear")
    assert claim(tickets, VALERIE).ticket_id == held.ticket_id
    assert texts(tickets, held.ticket_id, VALERIE) == ["mind the ear"]
    assert texts(tickets, held.ticket_id, VERA) == ["I would refine this", "mind the ear"]


def test_annotators_who_make_the_same_masklet_do_not_see_each_other_s_comments(tickets):
    tickets = with_policy(tickets, makers=2, makers_share=1.0)
    tickets.open_batch("b", [track_ticket()])
    first = claim(tickets, ANN)
    write(tickets, first.ticket_id, ANN, "hers")
    make(tickets, ANN, first, "a")
    second = claim(tickets, AMY)
    assert second.ticket_id != first.ticket_id and texts(tickets, second.ticket_id, AMY) == []
    write(tickets, second.ticket_id, AMY, "of another")
    assert texts(tickets, first.ticket_id, LEA) == texts(tickets, second.ticket_id, LEA) == ["hers", "of another"]


def test_the_next_holder_of_a_correction_sees_what_the_one_before_wrote(tickets):
    tickets.open_batch("b", [track_ticket()])
    held = claim(tickets, ANN)
    write(tickets, held.ticket_id, ANN, "which object is meant?")
    tickets.release(held.ticket_id, held.lease_token, ANN)
    assert claim(tickets, AMY).ticket_id == held.ticket_id
    assert texts(tickets, held.ticket_id, AMY) == ["which object is meant?"]


def test_only_people_who_held_a_ticket_and_overseers_may_write(tickets, clock):
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    for ticket_id in (held.ticket_id, "no-such-ticket"):
        with pytest.raises(NotAllowed, match="never held"):
            comments.check_may_write(tickets.database, ticket_id, VICTOR)
    with pytest.raises(NoSuchTicket):
        write(tickets, "no-such-ticket", LEA, "where?")
    clock.advance(91)
    claim(tickets, VICTOR)
    write(tickets, held.ticket_id, VERA, "sent without a connection, and arrived late")
    assert len(texts(tickets, held.ticket_id, LEA)) == 1


def test_a_ticket_has_a_limit_of_comments(tickets, monkeypatch):
    monkeypatch.setattr(comments, "MOST", 2)
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    for n in range(2):
        write(tickets, held.ticket_id, VERA, "again", f"c-{n}")
    with pytest.raises(ValueError, match="at most 2 comments"):
        write(tickets, held.ticket_id, VERA, "again")
    write(tickets, held.ticket_id, VERA, "again", "c-1")


def test_comments_outlive_a_take_back(tickets):
    tickets.open_batch("b", verify_tickets(1))
    done = finish(tickets, VERA, Verdict.REFINE)
    write(tickets, done.next_ticket_id, LEA, "on a ticket that is taken back")
    back = take_back(tickets, done.ticket.ticket_id, VERA)
    assert texts(tickets, back.ticket_id, LEA) == ["on a ticket that is taken back"]
    assert texts(tickets, back.ticket_id, VERA) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": " \n"},
        {"text": "x" * (MAX_TEXT + 1)},
        {"comment_id": "a/b"},
        {"frame_idx": 24},
        {"frame_idx": 0, "x": 3.0},
        {"x": 3.0, "y": 3.0},
        {"frame_idx": 0, "x": 201.0, "y": 3.0},
        {"frame_idx": 0, "x": 3.0, "y": float("nan")},
    ],
    ids=str,
)
def test_a_malformed_comment_is_refused(wrong):
    with pytest.raises(ValueError):
        check_comment(new(**wrong), VIDEO)


def test_a_comment_at_the_limits_is_taken():
    check_comment(new("x" * MAX_TEXT, frame_idx=23, x=200.0, y=0.0), VIDEO)


def test_the_text_of_a_reason_reaches_the_corrector(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    sent = outcome(Verdict.REFINE, Reason.DRIFT)
    said = type(sent)(**vars(sent) | {"text": "it slides off at the wall"})
    tickets.finish(held.ticket_id, held.lease_token, VERA, said)
    track = claim(tickets, ANN)
    pinned = json.loads(track.payload)["pinned"]
    assert pinned["text"] == "it slides off at the wall" and pinned["verdict"] == "refine"
    (verdict,) = tickets.operations(held.ticket_id)
    assert json.loads(verdict.payload)["text"] == "it slides off at the wall"


def test_an_answer_without_a_text_has_no_such_key(tickets):
    to_track(_opened(tickets))
    (verdict,) = tickets.operations("ticket-0000")
    assert not {"text", "same_as"} & set(json.loads(verdict.payload))


def _opened(tickets):
    tickets.open_batch("b", verify_tickets(1))
    return tickets


def test_the_object_that_is_the_same_is_recorded(tickets):
    tickets.open_batch("b", verify_tickets(2))
    held = claim(tickets, VERA)
    said = type(outcome())(**vars(outcome(Verdict.REJECT, Reason.DUPLICATE)) | {"same_as": "ticket-m0001"})
    tickets.finish(held.ticket_id, held.lease_token, VERA, said)
    (verdict,) = tickets.operations(held.ticket_id)
    assert json.loads(verdict.payload)["same_as"] == "ticket-m0001"


@pytest.mark.parametrize(
    ("reason", "same_as"),
    [(Reason.DRIFT, "ticket-m0001"), (Reason.DUPLICATE, "ticket-m0000"), (Reason.DUPLICATE, "../m")],
)
def test_the_same_object_is_another_one_and_needs_its_reason(tickets, reason, same_as):
    held = claim(_opened(tickets), VERA)
    said = type(outcome())(**vars(outcome(Verdict.REJECT, reason)) | {"same_as": same_as})
    with pytest.raises(ValueError, match="same_as"):
        check_submission(held, said)
