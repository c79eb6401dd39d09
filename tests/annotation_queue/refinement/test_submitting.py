"""What is submitted of a ticket that a model helped with: the masklet follows from the log of operations."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from annotation_queue.errors import LeaseLost
from annotation_queue.records import Kind, State, Submission
from storage import rle
from storage.records import Verdict
from tests.annotation_queue.refinement.refining import (
    ANN,
    FRAMES,
    draft,
    end,
    made_by,
    operation,
    refine,
)
from tests.annotation_queue.synthetic_queue import (
    SyntheticMedia,
    mask,
    track_ticket,
)

pytestmark = pytest.mark.server


def test_the_queue_builds_the_masklet_from_the_operations_up_to_the_last_one_that_was_seen(bench, tickets, model):
    client, ticket = bench
    info = SyntheticMedia(FRAMES).info
    refine(client, ticket, operation(1))
    refine(client, ticket, operation(2, "propagate", direction="forward", last=16))
    as_it_stands = draft(tickets, ticket, model)
    tickets.finish(ticket.ticket_id, ticket.lease_token, ANN, end(1, "o2"), video_of=info)
    made = made_by(tickets, ticket)
    assert made.rle == tuple(as_it_stands.masks[i].rle for i in made.frame_idx)
    assert made.score == tuple(as_it_stands.masks[i].score for i in made.frame_idx)
    assert (made.checkpoint, made.round, made.annotated_by) == ("disc-finder", 3, "ann")
    assert (made.click_count, made.edited_frame_count, made.parent_id) == (1, 1, ticket.masklet_id)
    last = json.loads(tickets.operations(ticket.ticket_id)[-1].payload)
    assert last["last_operation_id"] == "o2" and "masks" not in last
    again = tickets.finish(ticket.ticket_id, ticket.lease_token, ANN, end(1, "o2"), video_of=info)
    assert again.ticket.state is State.DONE, "a repeated answer is the same one"
    for number, seen, masks in ((2, "o1", {8}), (3, "", set())):
        back = tickets.unsubmit(ticket.ticket_id, ANN, operation_id=f"back-{number}", created_at="")
        tickets.finish(ticket.ticket_id, back.lease_token, ANN, end(number, seen), video_of=info)
        made = made_by(tickets, ticket)
        discs = {i for i, counts in zip(made.frame_idx, made.rle, strict=True) if counts == rle.encode(mask(i))}
        assert discs == masks, "operations after it do not count"
        assert [m.rle for _, m in sorted(draft(tickets, ticket, model).masks.items())] == list(made.rle)


def test_a_masklet_of_unknown_operations_is_refused_and_under_a_lost_lease_kept_as_a_branch(bench, tickets):
    client, ticket = bench
    refine(client, ticket, operation(1))
    with pytest.raises(ValueError, match="has no operation o9"):
        tickets.finish(ticket.ticket_id, ticket.lease_token, ANN, end(1, "o9"))
    assert tickets.ticket(ticket.ticket_id).state is State.LEASED
    with pytest.raises(ValueError, match="a submission has one of"):
        tickets.finish(ticket.ticket_id, ticket.lease_token, ANN, replace(end(1, "o1"), verdict=Verdict.REJECT))
    tickets.release(ticket.ticket_id, ticket.lease_token, ANN)
    for number, last in ((2, "o1"), (3, "o9")):
        with pytest.raises(LeaseLost):
            tickets.finish(ticket.ticket_id, ticket.lease_token, ANN, end(number, last))
    kept = [json.loads(o.payload) for o in tickets.operations(ticket.ticket_id, branch=True)]
    assert [each["last_operation_id"] for each in kept] == ["o1", "o9"] and "masklet" in kept[0]


def test_a_masklet_of_a_new_object_is_built_too(bench, tickets):
    client, ticket = bench
    info = SyntheticMedia(FRAMES).info
    tickets.release(ticket.ticket_id, ticket.lease_token, ANN)
    tickets.open_batch("c", [replace(track_ticket("blank", frame_count=FRAMES), masklet=None)])
    ticket = tickets.claim(ANN, [Kind.TRACK], claim_id="c2", ticket_id="blank")
    refine(client, ticket, operation(1))
    tickets.finish(ticket.ticket_id, ticket.lease_token, ANN, end(1, "o1"), video_of=info)
    made = made_by(tickets, ticket)
    assert made.frame_idx == tuple(range(0, FRAMES, 4)) and made.area_px[2] and sum(map(bool, made.area_px)) == 1
    assert made.prompt.startswith('{"frame_idx":8')


def test_submitted_masks_that_differ_from_the_draft_are_stored_with_the_operation(bench, tickets, model):
    client, ticket = bench
    refine(client, ticket, operation(1))
    as_it_stands = draft(tickets, ticket, model)
    made = replace(tickets.masklet(ticket.ticket_id), masklet_id="elsewhere")
    other = {4: rle.encode(mask(30)), 12: rle.empty(made.height, made.width)}
    masks = [other.get(i, as_it_stands.masks[i].rle) for i in made.frame_idx]
    areas = [rle.area(counts, made.height, made.width) for counts in masks]
    made = replace(made, rle=tuple(masks), area_px=tuple(areas))
    outcome = Submission(operation_id="end", created_at="", masklet=made)
    tickets.finish(ticket.ticket_id, ticket.lease_token, ANN, outcome)
    end = json.loads(tickets.operations(ticket.ticket_id)[-1].payload)
    assert end["masks"] == {str(i): counts.decode() for i, counts in other.items()}
    assert [m.rle for _, m in sorted(draft(tickets, ticket, model).masks.items())] == masks
    back = tickets.unsubmit(ticket.ticket_id, ANN, operation_id="back", created_at="")
    again = replace(outcome, operation_id="end-2")
    tickets.finish(ticket.ticket_id, back.lease_token, ANN, again)
    assert "masks" not in json.loads(tickets.operations(ticket.ticket_id)[-1].payload)  # the log has them already
