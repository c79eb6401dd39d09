"""Simulated clicks land where an annotator's would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    (x, y), _ = simulated_clicks.first_click(mask)
    assert 22 <= x <= 26 and 7 <= y <= 11


def test_the_frames_edge_is_a_border_too():
    (x, y), _ = simulated_clicks.first_click(block(0, 0, 9, 9))
    assert (x, y) == (4, 4)


def test_nobody_clicks_an_absent_object():
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


@given(MASKS, MASKS, st.integers(0, 9))
def test_a_corrective_click_is_on_an_error_and_its_label_is_the_truth(pred, gt, seed):
    for rng in (None, np.random.default_rng(seed)):
        click = simulated_clicks.corrective_click(pred, gt, rng)
        if click is None:
            assert np.array_equal(pred, gt)
            continue
        (x, y), label = click
        assert pred[int(y), int(x)] != gt[int(y), int(x)] and label == gt[int(y), int(x)]


def test_training_clicks_reach_every_error():
    pred, gt = block(0, 0, 3, 1), block(2, 0, 5, 1)
    rng = np.random.default_rng(0)
    clicks = {simulated_clicks.corrective_click(pred, gt, rng) for _ in range(200)}
    assert clicks == {((0.0, 0.0), 0), ((1.0, 0.0), 0), ((3.0, 0.0), 1), ((4.0, 0.0), 1)}


def test_a_first_click_drawn_for_training_is_on_the_object():
    mask, rng = block(5, 3, 14, 10), np.random.default_rng(0)
    points = {simulated_clicks.first_click(mask, rng)[0] for _ in range(100)}
    assert len(points) > 30 and all(mask[int(y), int(x)] for x, y in points)


def test_a_hand_drawn_box_stays_close_and_in_the_frame():
    rng = np.random.default_rng(0)
    for _ in range(100):
        x0, y0, x1, y1 = simulated_clicks.jitter_box((0.0, 40.0, 400.0, 60.0), (60, 410), rng)
        assert 0 <= x0 <= 20 and 380 <= x1 <= 410 and 38 <= y0 <= 42 and 58 <= y1 <= 60


def test_a_hand_drawn_box_keeps_a_pixel():
    rng = np.random.default_rng(1)
    for _ in range(50):
        x0, y0, x1, y1 = simulated_clicks.jitter_box((29.0, 19.0, 30.0, 20.0), (20, 30), rng, relative=3.0)
        assert x1 - x0 >= 1 and y1 - y0 >= 1 and 0 <= x0 and x1 <= 30 and 0 <= y0 and y1 <= 20


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        simulated_clicks.corrective_click(block(0, 0, 1, 1), block(0, 0, 1, 1, (5, 5)))
