"""MOSEv2's scores, with figures that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from validation import jf, mose

H, W = 300, 400  # diagonal 500: F allows ceil(0.008 * 500) = 4 px
EMPTY = np.zeros((H, W), bool)


def square(side: int, y: int = 50, x: int = 50) -> np.ndarray:
    mask = EMPTY.copy()
    mask[y : y + side, x : x + side] = True
    return mask


SMALL, MOVED = square(10), square(10, x=53)  # sqrt(100) * 0.1 = 1 px; moved by 3 px: J = 70 / 130


@pytest.mark.parametrize(
    ("pred", "gt", "same_as"),
    [
        (MOVED, SMALL, 1),  # a tenth of 10 px
        (square(25), square(25, x=54), 3),  # a tenth of 25 px, rounded up
        (square(90), square(90, x=55), 4),  # a tenth is 9 px: never more than F allows
        (SMALL, EMPTY, 4),  # without an object, the distance of F
    ],
)
def test_the_distance_follows_the_true_area(pred, gt, same_as):
    assert mose.adaptive_f(pred, gt) == jf.boundary_f(pred, gt, same_as)
    for other in (same_as - 1, same_as + 1):
        assert not gt.any() or mose.adaptive_f(pred, gt) != jf.boundary_f(pred, gt, other)


def test_a_small_object_needs_a_better_boundary_than_with_f():
    assert jf.boundary_f(MOVED, SMALL) == 1.0 > mose.adaptive_f(MOVED, SMALL)


def test_each_stretch_of_frames_counts_once():
    """Shown, gone for 1 frame, back for 2, gone for 2, back for 1; the first and the last frame are left out."""
    gt = [SMALL, SMALL, EMPTY, SMALL, SMALL, EMPTY, EMPTY, SMALL, SMALL]
    #               right  wrong  right  missed right  wrong  missed
    pred = [EMPTY, SMALL, SMALL, SMALL, EMPTY, EMPTY, SMALL, EMPTY, EMPTY]
    found = mose.of_masklet(pred, gt)
    assert (found.all.j, found.all.f, found.all.count) == (pytest.approx(3 / 7), pytest.approx(3 / 7), 7)
    assert found.gone.jf == pytest.approx((0 + 1 / 2) / 2) and found.gone.count == 2
    assert found.back.jf == pytest.approx((1 / 2 + 0) / 2) and found.back.count == 2


def test_an_object_that_is_absent_at_first_is_not_gone_but_its_appearance_counts_as_back():
    found = mose.of_masklet([EMPTY] * 5, [SMALL, EMPTY, EMPTY, SMALL, SMALL])
    assert found.gone is None and (found.back.jf, found.back.count) == (0.0, 1)
    assert found.all.j == pytest.approx(2 / 3)


def test_an_object_that_is_always_there_is_neither_gone_nor_back():
    found = mose.of_masklet([SMALL, MOVED, SMALL, SMALL], [SMALL] * 4)
    assert (found.gone, found.back) == (None, None)
    assert found.all.j == pytest.approx((70 / 130 + 1) / 2)
    assert found.all.f == pytest.approx((jf.boundary_f(MOVED, SMALL, 1) + 1) / 2)


def test_the_mean_is_over_the_masklets_that_have_the_score():
    always = mose.of_masklet([SMALL, MOVED, SMALL], [SMALL] * 3)
    leaves = mose.of_masklet([SMALL, SMALL, SMALL, SMALL], [SMALL, SMALL, EMPTY, EMPTY])
    assert always and leaves
    mean = mose.mean([always, leaves])
    assert mean.all.j == pytest.approx((70 / 130 + 1 / 2) / 2) and mean.all.count == 2
    assert (mean.gone.jf, mean.gone.count, mean.back) == (0.0, 1, None)
    assert mose.mean([]) is None


def test_too_few_frames_have_no_scores_and_different_lengths_are_refused():
    assert mose.of_masklet([SMALL] * 2, [SMALL] * 2) is None
    with pytest.raises(ValueError, match="2 predicted frames and 3 true ones"):
        mose.of_masklet([SMALL] * 2, [SMALL] * 3)
    with pytest.raises(ValueError, match="different sizes"):
        mose.of_masklet([SMALL[1:]] * 3, [SMALL] * 3)
