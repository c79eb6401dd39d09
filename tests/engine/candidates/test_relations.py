"""Duplicates, parts and wholes, over space and time."""

from dataclasses import replace

import numpy as np

from engine.candidates import relations
from storage import rle
from tests.storage.rows import make_masklet

H, W, T = 40, 60, 6


def masklet(name, boxes, score=0.9):
    """A masklet of one box (x0, y0, x1, y1) a frame; None where it is absent."""
    masks = np.zeros((T, H, W), bool)
    for mask, box in zip(masks, boxes, strict=True):
        if box is not None:
            mask[box[1] : box[3], box[0] : box[2]] = True
    return make_masklet(
        masklet_id=name,
        height=H,
        width=W,
        frame_idx=tuple(range(0, 4 * T, 4)),
        rle=tuple(rle.encode(mask) for mask in masks),
        area_px=tuple(int(mask.sum()) for mask in masks),
        score=(score,) * T,
        object_score=(1.0,) * T,
        stability=(1.0,) * T,
    )


def moving(x, size, y=4):
    return [(x + 2 * i, y, x + 2 * i + size, y + size) for i in range(T)]


def names(rows):
    return [row.masklet_id for row in rows]


def test_of_two_masklets_of_one_object_the_better_one_stays():
    first, second = masklet("a", moving(4, 20), 0.7), masklet("b", moving(4, 19), 0.8)
    assert names(relations.without_duplicates([first, second], 0.8)) == ["b"]
    assert names(relations.without_duplicates([first, second], 0.95)) == ["a", "b"]


def test_a_masklet_that_lacks_frames_of_the_object_is_a_duplicate_of_the_complete_one():
    whole, piece = masklet("whole", moving(4, 20), 0.7), masklet("piece", [None] * 4 + moving(4, 20)[4:], 0.9)
    assert names(relations.without_duplicates([piece, whole], 0.8)) == ["whole"]


def test_objects_that_only_meet_for_a_moment_both_stay():
    first = masklet("first", moving(4, 12))
    second = masklet("second", [(30, 4 + 4 * i, 42, 16 + 4 * i) for i in range(5)] + [moving(4, 12)[5]])
    assert names(relations.without_duplicates([first, second], 0.8)) == ["first", "second"]


def test_a_part_stays_and_names_the_smallest_whole():
    part, whole = masklet("part", moving(8, 6, 8)), masklet("whole", moving(4, 20))
    room = masklet("room", moving(1, 32))
    beside = masklet("beside", [(46, 30, 56, 38)] * T)
    rows = [part, whole, room, beside]
    assert relations.without_duplicates(rows, 0.8) == rows
    found = relations.with_parents(rows, 0.8)
    assert [row.parent_id for row in found] == ["whole", "room", None, None]
    assert [replace(row, parent_id=None) for row in found] == rows
