"""What a ticket's operations and versions make of its masks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from annotation_queue.draft import Draft, FrameMask, Version, draft_of, drawn, frame_masks, prompt_of
from storage import rle
from storage.records import STRIDE, Operation, Prompt
from tests.annotation_queue.synthetic_queue import HEIGHT, WIDTH, blank, candidate, mask

HW = (HEIGHT, WIDTH)
FRAMES = tuple(range(0, 48, STRIDE))
WRONG = blank(candidate("m"))
RIGHT = rle.encode(mask(8))


def act(number, kind, frame_idx=None, **payload):
    return Operation(
        operation_id=f"o{number}",
        ticket_id="t",
        batch_id="b",
        video_id="video-0",
        masklet_id="m",
        person="ann",
        kind=kind,
        frame_idx=frame_idx,
        payload=json.dumps(payload),
        created_at="2026-01-01T00:00:00Z",
        seq=number,
    )


def version(number, *frames):
    made = tuple(drawn(i, rle.encode(mask(i)), HW) for i in frames)
    return Version(operation_id=f"o{number}", frames=made, checkpoint="c", round=1)


def draft(*operations, versions=(), masklet=WRONG):
    return draft_of(HW, FRAMES, masklet, operations, {v.operation_id: v for v in versions})


def test_without_operations_a_draft_is_the_masklet():
    found = draft()
    assert found.masks == {m.frame_idx: m for m in frame_masks(WRONG)}
    assert (found.edited, found.locked, found.prompts, found.anchor) == (set(), set(), {}, 0)
    assert draft(masklet=None).masks == {}


def test_each_operation_changes_the_masks_that_it_names():
    click = act(1, "prompt", 8, points_xy=[[76, 230]], labels=[1])
    found = draft(
        click,
        act(2, "stroke", 12, mask_rle=rle.encode(mask(12)).decode()),
        act(3, "lock", 16),
        act(4, "absent", first=16, last=24),
        act(5, "lock", 28),
        act(6, "lock", 28, on=False),
        versions=[version(1, 8)],
    )
    assert found.masks[8].rle == RIGHT and found.prompts[8].points_xy == ((76.0, 230.0),)
    assert found.masks[12].rle == rle.encode(mask(12)) and found.masks[12].score == 1.0
    assert found.masks[16].area_px == 600, "a locked frame stays"
    assert found.masks[20].area_px == found.masks[24].area_px == 0 and found.masks[20].object_score < 0
    assert found.edited == {8, 12, 20, 24} and found.locked == {16}


def test_what_is_forgotten_leaves_the_mask_from_before():
    click = act(1, "prompt", 8, points_xy=[[76, 230]], labels=[1])
    again = act(2, "prompt", 8, points_xy=[[1, 1]], labels=[1])
    stroke, absent = act(3, "stroke", 8, mask_rle=RIGHT.decode()), act(4, "absent", first=4, last=12)
    clear, made = act(9, "clear", 8), [version(1, 8), replace(version(2, 12), operation_id="o2")]
    for edits in ([click], [click, again], [stroke], [absent], [click, stroke, absent], [stroke, again]):
        found = draft(*edits, clear, versions=made)
        assert found.masks[8] == draft().masks[8] and 8 not in found.edited | found.prompts.keys(), edits
        nothing = draft(*edits, clear, versions=made, masklet=None)
        assert 8 not in nothing.masks, "without a masklet, there was none before"
    tracked, spread = act(5, "propagate", 4, direction="forward"), replace(version(5, 8, 12), operation_id="o5")
    found = draft(tracked, click, clear, versions=[*made, spread])
    assert found.masks[8].rle == RIGHT, "the mask of the propagation before the click"
    assert draft(tracked, clear, versions=[spread]).masks[8].rle == RIGHT, "nothing to forget"
    assert draft(click, clear, act(10, "undo", operation_id="o9"), versions=made).masks[8].rle == RIGHT


def test_undo_takes_an_operation_back_and_redo_restores_it():
    click, stroke = act(1, "prompt", 8, points_xy=[[1, 1]], labels=[1]), act(2, "absent", first=8, last=8)
    undo = act(3, "undo", operation_id="o2")
    assert draft(click, stroke, versions=[version(1, 8)]).masks[8].area_px == 0
    assert draft(click, stroke, undo, versions=[version(1, 8)]).masks[8].rle == RIGHT
    again = draft(click, stroke, undo, act(4, "redo", operation_id="o2"), versions=[version(1, 8)])
    assert again.masks[8].area_px == 0
    nothing = draft(click, stroke, undo, act(4, "undo", operation_id="o1"), versions=[version(1, 8)])
    assert nothing.masks == draft().masks and nothing.edited == set()


def test_a_prompt_without_a_version_changes_no_mask():
    assert draft(act(1, "prompt", 8, points_xy=[[1, 1]], labels=[1])).masks == draft().masks


@pytest.mark.parametrize(
    "operation",
    [
        act(1, "stroke", 8),
        act(1, "stroke", 8, mask_rle="not run lengths"),
        act(1, "stroke", 8, mask_rle=7),
        act(1, "absent", first="a", last=None),
        replace(act(1, "stroke", 8), payload="{}"),
        act(1, "undo", operation_id=[]),
        act(1, "redo", operation_id={}),
        act(1, "stop", operation_id={}, spare=[]),
    ],
)
def test_a_malformed_operation_changes_nothing(operation):
    assert draft(operation).masks == draft().masks


@pytest.mark.parametrize("prompt", ["", "[]", '"x"', '{"frame_idx": []}', '{"frame_idx": 3}', "[" * 10**5])
def test_a_masklet_with_a_malformed_prompt_has_no_anchor(prompt):
    found = draft(masklet=replace(WRONG, prompt=prompt))
    assert found.anchor is None and found.masks == draft().masks


@pytest.mark.parametrize("field", ["score", "object_score", "stability"])
def test_a_mask_with_scores_that_are_not_finite_is_refused(field):
    with pytest.raises(ValueError, match="finite"):
        FrameMask(**(vars(drawn(8, RIGHT, HW)) | {field: float("nan")}))


@pytest.mark.parametrize(
    "payload",
    [
        {"points_xy": [[1]]},
        {"points_xy": [[1, 2]], "labels": []},
        {"points_xy": [[1, float("nan")]], "labels": [1]},
        {"points_xy": [[1, 2]], "labels": [float("inf")]},
        {"box_xyxy": [1, 2]},
        {"box_xyxy": [1, 2, 3, float("inf")]},
        {"box_xyxy": [1, 2, 3, 10**400]},
    ],
)
def test_a_malformed_prompt_is_refused(payload):
    with pytest.raises(ValueError, match="not a prompt"):
        prompt_of(0, payload)


def test_a_stretch_ends_before_the_next_edited_or_locked_frame():
    found = draft(act(1, "lock", 36), act(2, "stroke", 8, mask_rle=RIGHT.decode()))
    assert found.stretch(20, forward=True) == (24, 28, 32)
    assert found.stretch(20, forward=False) == (16, 12)
    assert found.stretch(44, forward=True) == ()
    assert sorted(found.known(20)) == [0, 8, 20, 36]


def test_a_stop_spares_a_frame_that_was_locked_before_its_mask_came():
    tracked, stop = act(1, "propagate", 8, direction="forward"), act(2, "stop", operation_id="o1", last=12, spare=16)
    found = draft(tracked, stop, act(3, "lock", 16), versions=[version(1, 12, 16, 20)])
    assert found.masks[16] == draft().masks[16] and found.locked == {16}
    assert [found.masks[i].rle for i in (12, 20)] == [rle.encode(mask(i)) for i in (12, 20)]


def test_frames_that_a_stopped_propagation_did_not_reach_are_stale():
    tracked, stop = act(1, "propagate", 8, direction="both", first=4), act(2, "stop", operation_id="o1", last=12)
    made = version(1, 12, 16)
    assert draft(tracked, versions=[made]).stale == set(), "it came to its end"
    rest = {4, *range(20, 48, STRIDE)}
    assert draft(tracked, stop, versions=[made]).stale == rest
    assert draft(tracked, versions=[replace(made, complete=False)]).stale == rest, "cut off"
    later = [act(3, "stroke", 24, mask_rle=RIGHT.decode()), act(4, "propagate", 24, direction="forward", last=32)]
    assert draft(tracked, stop, *later, versions=[made, version(4, 28, 32)]).stale == rest - {24, 28, 32}
    assert draft(tracked, stop, act(5, "undo", operation_id="o1"), versions=[made]).stale == set()


def test_a_draft_without_masks_has_nothing_to_track_from():
    found = Draft(HEIGHT, WIDTH, FRAMES)
    assert found.known() == {} and found.stretch(0, forward=True) == FRAMES[1:]


def test_a_prompt_is_read_from_an_operation_s_payload():
    assert prompt_of(4, {"box_xyxy": [1, 2, 3, 4]}) == Prompt(frame_idx=4, box_xyxy=(1.0, 2.0, 3.0, 4.0))
