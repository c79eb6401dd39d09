"""Functions on masks, tested with masks that are small enough to draw as text."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model import masks


def drawn(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


SMALL = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@pytest.mark.parametrize(
    ("logits", "offset", "score"),
    [
        ([[9.0, 9.0], [-9.0, -9.0]], 1.0, 1.0),
        ([[9.0, 0.5], [-9.0, -9.0]], 1.0, 0.5),
        ([[9.0, -0.5], [0.5, -9.0]], 1.0, 1 / 3),
        ([[0.5, 0.5], [0.5, 0.5]], 1.0, 0.0),
        ([[0.5, 0.5], [0.5, 0.5]], 0.4, 1.0),
        ([[-1024.0, -1024.0], [-1024.0, -1024.0]], 1.0, 1.0),
    ],
    ids=["sure", "half", "third", "nothing sure", "smaller offset", "absent"],
)
def test_stability_is_the_overlap_of_a_stricter_and_a_looser_mask(logits, offset, score):
    assert masks.stability_score(torch.tensor([logits]), offset).tolist() == pytest.approx([score])


def test_stability_refuses_logits_of_another_shape():
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        masks.stability_score(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="got 0"):
        masks.stability_score(torch.zeros(1, 2, 2), 0)


@pytest.mark.parametrize(
    ("before", "min_area_px", "after"),
    [
        (["####..", "#.##..", "####.#"], 2, ["####..", "####..", "####.."]),
        (["####..", "#.##..", "####.#"], 1, ["####..", "#.##..", "####.#"]),
        (["#...", "...#", "...#"], 5, ["....", "...#", "...#"]),
        (["#.#", ".#.", "#.#"], 2, ["#.#", ".#.", "#.#"]),
        (["...", "..."], 9, ["...", "..."]),
        (["###", "###"], 9, ["###", "###"]),
        (["###", "#.#"], 9, ["###", "#.#"]),
    ],
    ids=["speck and hole", "nothing is below one", "specks alone", "diagonals touch", "empty", "full", "background"],
)
def test_cleaning_drops_specks_and_fills_holes(before, min_area_px, after):
    assert np.array_equal(masks.clean(drawn(*before), min_area_px), drawn(*after))


@given(SMALL, st.integers(0, 12))
def test_cleaning_twice_is_cleaning_once_and_never_empties(mask, min_area_px):
    once = masks.clean(mask, min_area_px)
    assert once.any() == mask.any()
    assert np.array_equal(masks.clean(once, min_area_px), once)


def test_the_largest_part_is_eight_connected():
    mask = drawn("##...", "..#..", "....#", "...#.")
    assert np.array_equal(masks.largest_part(mask), drawn("##...", "..#..", ".....", "....."))
    assert not masks.largest_part(np.zeros((2, 2), dtype=bool)).any()


@pytest.mark.parametrize(
    ("scores", "threshold", "kept"),
    [
        ([0.5, 0.9, 0.7], 0.5, [1, 2]),
        ([0.9, 0.5, 0.7], 0.5, [0, 2]),
        ([0.7, 0.7, 0.7], 0.5, [0, 2]),
        ([0.5, 0.9, 0.7], 0.8, [1, 2, 0]),
        ([], 0.5, []),
    ],
)
def test_suppression_keeps_the_best_of_each_group(scores, threshold, kept):
    overlap = np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.1], [0.0, 0.1, 1.0]])[: len(scores), : len(scores)]
    assert masks.nms(overlap, np.array(scores), threshold) == kept


def test_enlarging_cuts_at_zero():
    logits = torch.tensor([[[8.0, -8.0], [8.0, -8.0]], [[-1024.0, -1024.0], [-1024.0, -1024.0]]])
    large = masks.enlarge(logits, (6, 10))
    assert large.shape == (2, 6, 10) and large[0, :, :5].all() and not large[0, :, 5:].any() and not large[1].any()


def test_masks_of_other_types_or_sizes_are_refused():
    with pytest.raises(ValueError, match="float64"):
        masks.clean(np.zeros((2, 2)), 3)  # type: ignore[arg-type]  # the mistake that is tested
