"""The log of operations and its branches, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from annotation_queue.errors import (
    LeaseLost,
    NotAllowed,
)
from annotation_queue.records import Kind, NewTicket, Submission
from annotation_queue.rules import SHORT, check_operation
from annotation_queue.tickets import operations, store
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    ANN,
    LEA,
    VERA,
    claim,
    outcome,
    prompt,
    to_track,
)
from tests.annotation_queue.synthetic_queue import corrected, verify_tickets


def test_operations_are_stored_in_order_with_their_person_and_ticket(tickets):
    tickets.open_batch("b", verify_tickets(1))
    track = to_track(tickets)
    sent = [prompt(frame_idx=4 * i) for i in range(3)]
    appended = tickets.append_operations(track.ticket_id, track.lease_token, ANN, sent)
    assert (appended.stored, appended.repeated, appended.seq) == (3, 0, 3)
    kept = tickets.operations(track.ticket_id)
    assert [(o.operation_id, o.seq, o.frame_idx) for o in kept] == [
        (o.operation_id, i, o.frame_idx) for i, o in enumerate(sent, start=1)
    ]
    assert {(o.person, o.batch_id, o.video_id, o.masklet_id) for o in kept} == {
        ("ann", "b", "video-0", track.masklet_id)
    }


def test_an_operation_sent_twice_is_stored_once(tickets):
    tickets.open_batch("b", verify_tickets(1))
    track = to_track(tickets)
    one, two = prompt(), prompt()
    tickets.append_operations(track.ticket_id, track.lease_token, ANN, [one])
    appended = tickets.append_operations(track.ticket_id, track.lease_token, ANN, [one, two, two])
    assert (appended.stored, appended.repeated, appended.seq) == (1, 2, 2)
    assert len(tickets.operations(track.ticket_id)) == 2


def test_an_operation_id_belongs_to_one_ticket(tickets):
    tickets.open_batch("b", verify_tickets(2))
    first, second = to_track(tickets), to_track(tickets)
    one = prompt()
    tickets.append_operations(first.ticket_id, first.lease_token, ANN, [one])
    with pytest.raises(ValueError, match="another ticket"):
        tickets.append_operations(second.ticket_id, second.lease_token, ANN, [one])


def test_operations_sent_after_the_lease_was_lost_are_stored_as_a_branch(tickets, clock):
    tickets.open_batch("b", verify_tickets(1))
    track = to_track(tickets)
    early, late = prompt(), prompt()
    tickets.append_operations(track.ticket_id, track.lease_token, ANN, [early])
    clock.advance(91)
    assert claim(tickets, LEA, Kind.TRACK).ticket_id == track.ticket_id
    for _ in range(2):  # again: still lost, still kept once
        with pytest.raises(LeaseLost):
            tickets.append_operations(track.ticket_id, track.lease_token, ANN, [early, late])
    assert [o.operation_id for o in tickets.operations(track.ticket_id)] == [early.operation_id]
    assert [o.operation_id for o in tickets.operations(track.ticket_id, branch=True)] == [late.operation_id]
    again = tickets.append_operations(track.ticket_id, track.lease_token, ANN, [early])  # acknowledged before: still is
    assert again.repeated == 1


def test_a_masklet_submitted_after_the_lease_was_lost_is_stored_in_its_branch(tickets, clock):
    tickets.open_batch("b", verify_tickets(1))
    track = to_track(tickets)
    clock.advance(91)
    other = claim(tickets, LEA, Kind.TRACK)
    made = corrected(tickets.masklet(track.ticket_id), "late")
    with pytest.raises(LeaseLost):
        tickets.finish(track.ticket_id, track.lease_token, ANN, outcome(masklet=made))
    (kept,) = tickets.operations(track.ticket_id, branch=True)
    assert json.loads(kept.payload)["masklet"]["rle"] == [counts.decode() for counts in made.rle]
    assert tickets.ticket(track.ticket_id) == other


def test_operations_stay_when_their_lease_ends(tickets):
    tickets.open_batch("b", verify_tickets(1))
    track = to_track(tickets)
    tickets.append_operations(track.ticket_id, track.lease_token, ANN, [prompt()])
    tickets.release(track.ticket_id, track.lease_token, ANN)
    again = claim(tickets, LEA, Kind.TRACK)
    tickets.append_operations(again.ticket_id, again.lease_token, LEA, [prompt()])
    assert [(o.person, o.seq) for o in tickets.operations(track.ticket_id)] == [("ann", 1), ("lea", 2)]


def test_a_prompt_that_the_phase_forbids_rejects_the_whole_request(tickets):
    payload = '{"prompts": ["box"]}'
    track = NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="2", payload=payload)
    tickets.open_batch("b", [track])
    held = claim(tickets, ANN)
    box = replace(prompt(), payload='{"box_xyxy": [1, 2, 3, 4]}')
    with pytest.raises(NotAllowed, match="phase 2 does not allow click"):
        tickets.append_operations("t", held.lease_token, ANN, [box, prompt()])
    assert tickets.operations("t") == []
    assert tickets.append_operations("t", held.lease_token, ANN, [box]).stored == 1


def test_a_ticket_takes_a_limited_number_of_operations(tickets, monkeypatch):
    monkeypatch.setattr(store, "MAX_OPERATIONS", 3)
    tickets.open_batch("b", verify_tickets(1))
    track = to_track(tickets)
    lease = (track.ticket_id, track.lease_token, ANN)
    first = [prompt(), prompt()]
    tickets.append_operations(*lease, first)
    with pytest.raises(ValueError, match="at most 3 operations, not 4"):
        tickets.append_operations(*lease, [prompt(), prompt()])
    assert tickets.append_operations(*lease, [prompt()]).seq == 3
    assert tickets.append_operations(*lease, first).repeated == 2
    made = corrected(tickets.masklet(track.ticket_id), "made")
    tickets.finish(*lease, Submission(operation_id="end", created_at="", masklet=made))  # work is never locked in


def test_payloads_are_parsed_while_others_may_write(tickets, monkeypatch):
    tickets.open_batch("b", verify_tickets(1))
    track = to_track(tickets)

    def check(operation):
        with ThreadPoolExecutor(1) as other:  # another person's request
            other.submit(tickets.heartbeat, track.ticket_id, track.lease_token, ANN).result(timeout=60)
        check_operation(operation)

    monkeypatch.setattr(store, "check_operation", check)
    assert tickets.append_operations(track.ticket_id, track.lease_token, ANN, [prompt()]).stored == 1


def test_a_full_ticket_takes_only_short_operations(tickets, monkeypatch):
    monkeypatch.setattr(operations, "FULL", 3 * SHORT)
    tickets.open_batch("b", verify_tickets(1))
    track = to_track(tickets)
    lease = (track.ticket_id, track.lease_token, ANN)
    for _ in range(2):
        tickets.append_operations(
            *lease, [replace(prompt(), kind="stroke", payload=json.dumps({"a": "0" * 2 * SHORT}))]
        )
    with pytest.raises(ValueError, match="take at most"):
        tickets.append_operations(*lease, [replace(prompt(), kind="stroke", payload=json.dumps({"a": "0" * SHORT}))])
    assert tickets.append_operations(*lease, [prompt()]).seq == 3
    made = corrected(tickets.masklet(track.ticket_id), "made")
    tickets.finish(*lease, Submission(operation_id="end", created_at="", masklet=made))


def test_a_list_of_branches_has_a_limited_length(tickets, clock, monkeypatch):
    monkeypatch.setattr(operations, "SHOWN", 500)
    tickets.open_batch("b", verify_tickets(1))
    track = to_track(tickets)
    tickets.release(track.ticket_id, track.lease_token, ANN)
    late = [replace(prompt(), kind="stroke", payload=json.dumps({"a": "0" * size})) for size in (100, 100, 300, 900)]
    for each in late:
        clock.advance(1)
        with pytest.raises(LeaseLost):
            tickets.append_operations(track.ticket_id, track.lease_token, ANN, [each])
    assert [o.operation_id for o in tickets.branches(10)] == [late[3].operation_id]  # at least one
    monkeypatch.setattr(operations, "SHOWN", 1500)
    assert [o.operation_id for o in tickets.branches(10)] == [each.operation_id for each in reversed(late)]
    assert [o.operation_id for o in tickets.branches(2)] == [late[3].operation_id, late[2].operation_id]


def test_how_much_was_watched_is_in_the_log_of_a_verdict(tickets):
    tickets.open_batch("b", verify_tickets(2))
    for watched in (0.75, None):
        held = claim(tickets, VERA)
        answer = replace(outcome(Verdict.ACCEPT), watched=watched)
        tickets.finish(held.ticket_id, held.lease_token, VERA, answer)
        (verdict,) = tickets.operations(held.ticket_id)
        assert json.loads(verdict.payload)["watched"] == watched
