"""Intersection over union: tables of edge cases, and all forms agree with each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from storage import iou, rle
from storage.records import Masklet

H, W = 10, 10


def half(*, top: bool = False, left: bool = False) -> np.ndarray:
    """One half of the picture; an empty mask without a side."""
    mask = np.zeros((H, W), dtype=bool)
    if top:
        mask[:5] = True
    if left:
        mask[:, :5] = True
    return mask


EMPTY, TOP, LEFT, BOTTOM = half(), half(top=True), half(left=True), ~half(top=True)
PAIRS = [
    pytest.param(TOP, TOP, 1.0, id="the same"),
    pytest.param(TOP, LEFT, 25 / 75, id="a quarter shared"),
    pytest.param(TOP, BOTTOM, 0.0, id="disjoint"),
    pytest.param(TOP, EMPTY, 0.0, id="one empty"),
    pytest.param(EMPTY, EMPTY, 1.0, id="both empty"),
]


@pytest.fixture
def tube(masklet):
    """A masklet with these masks on these frames."""

    def make(masks: dict[int, np.ndarray]) -> Masklet:
        count = len(masks)
        made: Masklet = masklet(
            height=H,
            width=W,
            frame_idx=tuple(masks),
            rle=tuple(rle.encode(mask) for mask in masks.values()),
            area_px=tuple(int(mask.sum()) for mask in masks.values()),
            score=(1.0,) * count,
            object_score=(1.0,) * count,
            stability=(1.0,) * count,
        )
        return made

    return make


@pytest.mark.parametrize(("a", "b", "expected"), PAIRS)
def test_two_masks_that_are_empty_agree(a, b, expected):
    for x, y in ((a, b), (b, a)):
        assert iou.mask_iou(x, y) == pytest.approx(expected)
        assert iou.rle_iou(rle.encode(x), rle.encode(y), H, W) == pytest.approx(expected)


@pytest.mark.parametrize(("a", "b", "expected"), PAIRS)
def test_an_empty_mask_is_no_duplicate_of_another(a, b, expected):
    found = iou.mask_table(a[None], b[None])
    assert found == pytest.approx(expected if a.any() else 0.0)


@given(arrays(bool, (3, 5, 6)), arrays(bool, (2, 5, 6)))
def test_a_table_has_the_overlap_of_each_pair(a, b):
    table = iou.mask_table(a, b)
    for i in range(3):
        for j in range(2):
            both_empty = not a[i].any() and not b[j].any()
            assert table[i, j] == pytest.approx(0 if both_empty else iou.mask_iou(a[i], b[j]))
            assert iou.rle_iou(rle.encode(a[i]), rle.encode(b[j]), 5, 6) == pytest.approx(iou.mask_iou(a[i], b[j]))


def test_a_table_of_nothing_has_no_rows():
    assert iou.mask_table(np.zeros((0, H, W), dtype=bool), TOP[None]).shape == (0, 1)


def test_overlaps_of_boxes():
    boxes = np.array([[0, 0, 4, 4], [2, 2, 6, 6], [4, 0, 8, 4], [1, 1, 1, 3]], dtype=float)
    expected = np.eye(4)
    expected[0, 1] = expected[1, 0] = expected[1, 2] = expected[2, 1] = 4 / 28
    expected[3, 3] = 0  # an empty box overlaps nothing
    assert iou.box_table(boxes, boxes) == pytest.approx(expected)


def test_masks_and_boxes_of_other_types_or_sizes_are_a_value_error():
    with pytest.raises(ValueError, match="different sizes"):
        iou.mask_iou(TOP, TOP[:-1])
    with pytest.raises(ValueError, match="bool"):
        iou.mask_iou(TOP.astype(np.uint8), TOP)
    with pytest.raises(ValueError, match="one size"):
        iou.mask_table(TOP[None], TOP[None, :-1])
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        iou.box_table(np.zeros((2, 3)), np.zeros((2, 4)))
    for good, bad in ((0, 1), (1, 0)):
        with pytest.raises(rle.BadRle):
            iou.rle_iou([rle.encode(TOP), b"zzzz"][good], [rle.encode(TOP), b"zzzz"][bad], H, W)


FRAMES = [
    # a, b: frame_idx -> mask; the IoU of each frame that shows either; their mean; the tube IoU
    pytest.param({0: TOP, 4: TOP}, {0: TOP, 4: TOP}, {0: 1.0, 4: 1.0}, 1.0, 1.0, id="the same"),
    pytest.param({0: TOP, 4: TOP}, {0: TOP, 4: LEFT}, {0: 1.0, 4: 1 / 3}, 2 / 3, 75 / 125, id="one frame differs"),
    pytest.param({0: TOP}, {0: BOTTOM}, {0: 0.0}, 0.0, 0.0, id="disjoint"),
    pytest.param({0: TOP, 4: EMPTY}, {0: TOP, 4: EMPTY}, {0: 1.0}, 1.0, 1.0, id="absent in both"),
    pytest.param({0: TOP, 4: EMPTY}, {0: TOP, 4: TOP}, {0: 1.0, 4: 0.0}, 0.5, 0.5, id="absent in one"),
    pytest.param({0: TOP, 4: TOP}, {0: TOP}, {0: 1.0, 4: 0.0}, 0.5, 0.5, id="b lacks a frame"),
    pytest.param({0: TOP}, {0: TOP, 4: TOP}, {0: 1.0, 4: 0.0}, 0.5, 1.0, id="a lacks a frame"),
    pytest.param({0: TOP}, {4: TOP}, {0: 0.0, 4: 0.0}, 0.0, 0.0, id="no common frame"),
    pytest.param({0: EMPTY}, {0: EMPTY}, {}, 1.0, 0.0, id="never seen"),
]


@pytest.mark.parametrize(("a", "b", "frames", "mean", "together"), FRAMES)
def test_masklets_overlap_by_frame_on_average_and_as_tubes(tube, a, b, frames, mean, together):
    a, b = tube(a), tube(b)
    assert iou.frame_ious(a, b) == pytest.approx(frames)
    assert iou.frame_ious(b, a) == pytest.approx(frames)
    assert iou.mean_iou(a, b) == iou.mean_iou(b, a) == pytest.approx(mean)
    assert iou.tube_iou(a, b) == pytest.approx(together)


def test_masklets_of_two_sizes_have_no_frames_in_common(tube):
    a = tube({0: TOP})
    b = replace(a, height=20, width=5)
    assert iou.mean_iou(a, b) == 0.0
    with pytest.raises(ValueError, match="10 x 10 and of 20 x 5"):
        iou.frame_ious(a, b)
