"""HOTA: cases that were worked out by hand, and the figures that the authors' code gives for the same tracks."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from validation import hota

H, W = 48, 64


def block(x: int | None, y: int = 10, side: int = 14) -> np.ndarray:
    """A mask, bool (H, W). None: an absent object."""
    mask = np.zeros((H, W), bool)
    if x is not None:
        mask[y : y + side, x : x + side] = True
    return mask


def track(*places: int | None, **kwargs: int) -> list[np.ndarray]:
    return [block(x, **kwargs) for x in places]


def scores(*videos) -> hota.Hota:
    found = hota.combined(hota.of_video(pred, gt) for pred, gt in videos)
    assert found
    return found


def test_the_same_tracks_under_other_names_score_one():
    found = scores(({"x": track(1, 2, None, 4)}, {"a": track(1, 2, None, 4)}))
    assert found == hota.Hota(hota=1.0, det=1.0, ass=1.0, loc=1.0)


def test_a_changed_identity_costs_association_and_not_detection():
    """One object, on 4 frames, followed by one track on 2 frames and by another one on 2: 2 / (4 + 2 - 2) each."""
    found = scores(({"x": track(1, 2, None, None), "y": track(None, None, 3, 4)}, {"a": track(1, 2, 3, 4)}))
    assert (found.det, found.loc) == (1.0, 1.0)
    assert found.ass == pytest.approx(0.5) and found.hota == pytest.approx(sqrt(0.5))


def test_a_mask_matches_at_the_thresholds_that_its_iou_reaches():
    """Moved by 4 of 14 px: IoU 140 / 252 = 0.556, which reaches 11 of the 19 thresholds."""
    found = scores(({"x": track(5, 5, 5)}, {"a": track(1, 1, 1)}))
    assert found.det == found.ass == found.hota == pytest.approx(11 / 19)
    assert found.loc == pytest.approx((11 * 140 / 252 + 8) / 19)  # 1 where nothing matches, as in the authors' code


def test_missed_and_invented_objects_cost_detection():
    """Of 6 true masks, 3 are found; 2 predicted masks are of nothing: 3 / 8."""
    gt = {"a": track(1, 2, 3), "b": track(40, 41, 42)}
    found = scores(({"x": track(1, 2, 3), "y": track(None, 20, 20, y=30)}, gt))
    assert found.det == pytest.approx(3 / 8) and found.ass == 1.0


# Two objects that cross; a track that changes from one to the other, one that comes late, one of nothing.
FIRST = (
    {
        "x": track(1, 4, 8, 14, 30, 24, 20, 15),
        "y": track(None, None, 32, 26, 20, 21, 26, 30),
        "z": track(None, 50, 50, None, None, 50, None, None, y=30),
    },
    {"a": track(1, 5, 9, 13, 17, 21, None, 29), "b": track(40, 37, 34, None, 28, 25, 22, 19)},
)
SECOND = ({"x": track(3, 3, 3)}, {"a": track(1, 2, 3), "b": track(30, 30, 30, y=25)})


@pytest.mark.parametrize(
    ("videos", "expected"),
    [  # trackeval 1.3.0: HOTA, DetA, AssA, LocA, each the mean over its thresholds
        ((FIRST,), (0.37638711168490024, 0.5077475903915868, 0.28147199216064567, 0.8523211809976518)),
        ((FIRST, SECOND), (0.44434666621576635, 0.4908270161241299, 0.40417237733027206, 0.8604371915207829)),
    ],
)
def test_the_scores_are_those_of_the_authors_code(videos, expected):
    found = scores(*videos)
    assert (found.hota, found.det, found.ass, found.loc) == pytest.approx(expected, abs=1e-9)


def test_without_any_mask_there_is_no_score_and_without_predictions_it_is_zero():
    assert hota.combined([]) is None
    assert hota.combined([hota.of_video({}, {"a": track(None, None)})]) is None
    assert scores(({}, {"a": track(1, 2)})).hota == 0.0
    assert scores(({"x": track(1, 2)}, {})).hota == 0.0


def test_tracks_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="tracks of 2 and of 3 frames"):
        hota.of_video({"x": track(1, 2)}, {"a": track(1, 2, 3)})
