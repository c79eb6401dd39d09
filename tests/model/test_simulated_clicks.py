"""Simulated clicks are where an annotator would click."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from model import simulated_clicks

MASKS = arrays(bool, (6, 8))


def block(x0, y0, x1, y1, hw=(20, 30)):
    mask = np.zeros(hw, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_the_first_click_is_the_centre_of_the_object():
    assert simulated_clicks.first_click(block(5, 3, 14, 10)) == ((9.0, 6.0), 1)


def test_the_first_click_goes_to_the_thickest_part():
    mask = block(0, 9, 30, 10) | block(20, 4, 29, 15)
    click = simulated_clicks.first_click(mask)
    assert click is not None
    x, y = click[0]
    assert 22 <= x <= 26 and 7 <= y <= 11


def test_the_frames_edge_is_a_border_too():
    assert simulated_clicks.first_click(block(0, 0, 9, 9)) == ((4, 4), 1)


def test_an_absent_object_has_neither_click_nor_box():
    assert simulated_clicks.first_click(block(0, 0, 0, 0)) is None
    assert simulated_clicks.box_of(block(0, 0, 0, 0)) is None


@pytest.mark.parametrize(
    ("pred", "gt", "click"),
    [
        (block(0, 0, 0, 0), block(5, 3, 14, 10), ((9.0, 6.0), 1)),
        (block(5, 3, 14, 10), block(0, 0, 0, 0), ((9.0, 6.0), 0)),
        (block(0, 0, 10, 9), block(0, 0, 19, 9), ((14.0, 4.0), 1)),
        (block(0, 0, 19, 9), block(0, 0, 10, 9), ((14.0, 4.0), 0)),
        (block(0, 0, 9, 9) | block(20, 10, 23, 13), block(9, 0, 10, 9) | block(20, 10, 23, 13), ((4.0, 4.0), 0)),
    ],
    ids=["missed", "all spilled", "half missed", "half spilled", "the larger error"],
)
def test_a_corrective_click_is_the_centre_of_the_largest_error(pred, gt, click):
    assert simulated_clicks.corrective_click(pred, gt) == click


@given(MASKS, MASKS)
def test_a_corrective_click_is_on_an_error_and_its_label_is_the_truth(pred, gt):
    click = simulated_clicks.corrective_click(pred, gt)
    if click is None:
        assert np.array_equal(pred, gt)
    else:
        (x, y), label = click
        assert pred[int(y), int(x)] != gt[int(y), int(x)] and label == gt[int(y), int(x)]


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        simulated_clicks.corrective_click(block(0, 0, 1, 1), block(0, 0, 1, 1, (5, 5)))
