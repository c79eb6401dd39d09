"""J and F: edge cases, and a comparison with an independent implementation of the official evaluator."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from storage import rle
from storage.iou import mask_iou
from validation import jf

H, W = 40, 60
EMPTY = np.zeros((H, W), dtype=bool)
FULL = np.ones((H, W), dtype=bool)


def square(y: int, x: int, side: int = 10) -> np.ndarray:
    mask = EMPTY.copy()
    mask[y : y + side, x : x + side] = True
    return mask


A, B, FAR = square(5, 5), square(5, 10), square(28, 45)


@pytest.mark.parametrize(
    ("pred", "gt", "j", "f"),
    [
        (A, A, 1.0, 1.0),
        (EMPTY, EMPTY, 1.0, 1.0),
        (FULL, FULL, 1.0, 1.0),
        (A, EMPTY, 0.0, 0.0),
        (EMPTY, A, 0.0, 0.0),
        (A, FAR, 0.0, 0.0),
        (A, B, 1 / 3, None),
        (A, square(6, 5), 90 / 110, 1.0),  # one pixel off: within the tolerance of ceil(0.008 * 72.1) = 1
        (FULL, EMPTY, 0.0, 1.0),  # neither has a boundary: DAVIS's evaluator gives 1, and so do we
    ],
)
def test_edges_of_j_and_f(pred, gt, j, f):
    assert mask_iou(pred, gt) == pytest.approx(j)
    if f is not None:
        assert jf.boundary_f(pred, gt) == pytest.approx(f)


def slow_boundary_f(pred: np.ndarray, gt: np.ndarray) -> float:
    """The same measure, pixel by pixel, from its definition."""

    def boundary(mask: np.ndarray) -> list[tuple[int, int]]:
        height, width = mask.shape
        found = []
        for y in range(height):
            for x in range(width):
                last_row, last_column = y == height - 1, x == width - 1
                if last_row and last_column:
                    continue
                neighbours = []
                if not last_column:
                    neighbours.append(mask[y, x + 1])
                if not last_row:
                    neighbours.append(mask[y + 1, x])
                if not last_row and not last_column:
                    neighbours.append(mask[y + 1, x + 1])
                if any(n != mask[y, x] for n in neighbours):
                    found.append((y, x))
        return found

    radius = math.ceil(0.008 * math.hypot(*pred.shape))
    a, b = boundary(pred), boundary(gt)
    if not a or not b:
        return float(len(a) == len(b))

    def share(points: list, others: list) -> float:
        near = sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in points)
        return near / len(points)

    precision, recall = share(a, b), share(b, a)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@given(
    st.integers(1, 12)
    .flatmap(lambda h: st.integers(1, 12).map(lambda w: (h, w)))
    .flatmap(lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape)))
)
@settings(deadline=None)
def test_f_agrees_with_its_definition(pair):
    pred, gt = pair
    assert jf.boundary_f(pred, gt) == pytest.approx(slow_boundary_f(pred, gt))
    assert 0 <= mask_iou(pred, gt) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_looking_only_where_boundaries_are_changes_nothing(seed):
    """The whole-image formula of the official evaluator, at a size where the tolerance is several pixels."""
    rng = np.random.default_rng(seed)
    shape = (240, 427)
    pred, gt = (cv2.GaussianBlur(rng.random(shape), (0, 0), 12) > 0.5 for _ in range(2))
    radius = math.ceil(0.008 * math.hypot(*shape))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    a, b = (jf._boundary(mask).astype(np.uint8) for mask in (pred, gt))
    precision = (a * cv2.dilate(b, disk)).sum() / a.sum()
    recall = (b * cv2.dilate(a, disk)).sum() / b.sum()
    assert jf.boundary_f(pred, gt) == pytest.approx(2 * precision * recall / (precision + recall))


def test_the_first_and_the_last_frame_do_not_count():
    metric = jf.of_masklet([EMPTY, A, A, EMPTY], [A, A, A, A])
    assert (metric.j, metric.f, metric.jf, metric.count) == (1.0, 1.0, 1.0, 2)


def test_frames_before_the_object_first_shows_do_not_count():
    """Three leading frames where both are empty, then a miss: 0, not 75."""
    metric = jf.of_masklet([EMPTY] * 6, [EMPTY, EMPTY, EMPTY, EMPTY, A, EMPTY])
    assert (metric.j, metric.f, metric.count) == (0.0, 0.0, 1)


def test_a_frame_counts_from_the_first_time_either_shows():
    metric = jf.of_masklet([EMPTY, EMPTY, A, A, EMPTY], [EMPTY, EMPTY, EMPTY, A, EMPTY])
    assert (metric.j, metric.count) == (0.5, 2)


def test_both_absent_after_the_first_appearance_agree_fully():
    metric = jf.of_masklet([A, A, EMPTY, A, A], [A, A, EMPTY, A, A])
    assert (metric.j, metric.f, metric.count) == (1.0, 1.0, 3)


def test_none_is_an_empty_mask():
    assert jf.of_masklet([None, A, None, None], [None, A, A, None]) == jf.of_masklet(
        [EMPTY, A, EMPTY, EMPTY], [EMPTY, A, A, EMPTY]
    )
    assert jf.of_masklet([None, None, A, None], [None, A, None, None]).j == 0.0


@pytest.mark.parametrize("gt", [[EMPTY] * 4, [A, EMPTY, EMPTY, A], [None] * 4, []])
def test_an_empty_truth_has_no_metric(gt):
    assert jf.of_masklet([A] * len(gt), gt) is None


def test_metrics_of_rle_are_those_of_the_masks():
    pred, gt = [A, A, B, EMPTY, A], [A, B, B, A, A]
    ours = jf.of_rle([rle.encode(m) for m in pred], [rle.encode(m) for m in gt], H, W)
    assert ours == jf.of_masklet(pred, gt)


def test_the_mean_is_over_masklets_not_videos():
    metrics = [jf.JF(j=1.0, f=0.8, count=3), jf.JF(j=0.0, f=0.2, count=90)]
    pooled = jf.mean(metrics)
    assert (pooled.j, pooled.f, pooled.jf, pooled.count) == (0.5, 0.5, 0.5, 2)
    assert jf.mean([]) is None


def test_masks_of_different_sizes_or_lengths_are_a_value_error():
    with pytest.raises(ValueError, match="2 predicted frames and 3"):
        jf.of_masklet([A, A], [A, A, A])
    with pytest.raises(ValueError, match="different sizes"):
        mask_iou(A, A[:-1])
    with pytest.raises(ValueError, match="bool"):
        jf.boundary_f(A.astype(np.uint8), A)
