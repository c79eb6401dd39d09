"""What came after its lease was lost: why it was lost, and what its owner does with it. On SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from annotation_queue.errors import LeaseLost, TakenBack
from annotation_queue.leads.overseeing import Overseeing
from annotation_queue.records import Kind
from annotation_queue.tickets import operations
from storage.records import Verdict
from tests.annotation_queue.annotators import ANN, LEA, VERA, VICTOR, claim, outcome, prompt, to_track
from tests.annotation_queue.synthetic_queue import candidate, corrected, verify_tickets


def test_who_took_a_ticket_back_is_said_and_an_expired_lease_names_nobody(tickets, clock):
    tickets.open_batch("b", verify_tickets(2, frame_count=8))
    held = claim(tickets, VERA)
    tickets.end_lease(held.ticket_id, held.lease_token, by=LEA)
    said = []
    for late in (
        lambda: tickets.heartbeat(held.ticket_id, held.lease_token, VERA),
        lambda: tickets.release(held.ticket_id, held.lease_token + 0, VICTOR),
        lambda: tickets.held(held.ticket_id, held.lease_token, VERA),
        lambda: tickets.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.ACCEPT)),
    ):
        try:
            late()
        except TakenBack as error:
            said.append(str(error))
        except Exception as error:
            assert "never held" in str(error)
    assert len(said) == 3 and all(text.startswith("lea took this ticket back.") for text in said)
    again = claim(tickets, VERA)
    clock.advance(91)
    claim(tickets, VICTOR)
    claim(tickets, VICTOR)
    with pytest.raises(LeaseLost) as lost:
        tickets.heartbeat(again.ticket_id, again.lease_token, VERA)
    assert not isinstance(lost.value, TakenBack) and "took" not in str(lost.value)


def test_late_work_is_shown_to_its_owner_until_it_is_applied_or_dismissed(tickets):
    tickets.open_batch("b", verify_tickets(2, frame_count=8))
    track = to_track(tickets)
    tickets.append_operations(track.ticket_id, track.lease_token, ANN, [prompt("in-time")])
    tickets.end_lease(track.ticket_id, track.lease_token, by=LEA)
    assert not tickets.may_see_video(ANN, track.video_id)
    made = corrected(candidate("made", track.video_id, 8), "made")
    for send in (
        lambda: tickets.append_operations(
            track.ticket_id, track.lease_token, ANN, [prompt("late-1"), prompt("late-2")]
        ),
        lambda: tickets.finish(track.ticket_id, track.lease_token, ANN, outcome(masklet=made, operation_id="late-3")),
    ):
        with pytest.raises(TakenBack):
            send()
    assert [o.operation_id for o in tickets.kept(ANN)] == ["late-1", "late-2", "late-3"]
    assert '"masklet"' in tickets.kept(ANN)[-1].payload, "what was submitted can be looked at"
    assert tickets.kept(VERA) == [] and tickets.may_see_video(ANN, track.video_id)
    assert tickets.close_kept(VERA, ["late-1"], applied=False) == 0, "it is not hers"
    assert tickets.close_kept(ANN, ["late-1", "in-time"], applied=True) == 1
    assert tickets.close_kept(ANN, ["late-1"], applied=False) == 0, "a second time"
    assert [o.operation_id for o in tickets.kept(ANN)] == ["late-2", "late-3"]
    assert tickets.close_kept(ANN, ["late-2", "late-3"], applied=False) == 2
    assert tickets.kept(ANN) == [] and not tickets.may_see_video(ANN, track.video_id)
    assert len(tickets.branches()) == 3, "it stays in the log"
    assert claim(tickets, ANN, Kind.TRACK, ticket_id=track.ticket_id) is not None


def test_a_list_of_late_work_has_a_limited_length_and_begins_with_the_oldest(tickets, clock, monkeypatch):
    tickets.open_batch("b", verify_tickets(1))
    track = to_track(tickets)
    tickets.release(track.ticket_id, track.lease_token, ANN)
    late = [replace(prompt(), kind="stroke", payload=json.dumps({"a": "0" * size})) for size in (900, 300, 100)]
    for each in late:
        clock.advance(1)
        with pytest.raises(LeaseLost):
            tickets.append_operations(track.ticket_id, track.lease_token, ANN, [each])
    for most, shown in ((500, 1), (1300, 2), (1500, 3)):
        monkeypatch.setattr(operations, "SHOWN", most)
        for found in (tickets.kept(ANN), Overseeing(tickets).kept()):
            assert [o.operation_id for o in found] == [each.operation_id for each in late[:shown]]
