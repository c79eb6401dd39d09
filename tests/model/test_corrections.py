"""Clicks that correct a tracked mask: what they change, and what they leave alone."""

import numpy as np
import pytest
import torch

from model import corrections
from model.corrections import Clicked
from model.network import Clicks
from model.tracker import TrackerConfig
from storage import rle
from storage.records import Prompt
from tests.model.library import HW, T, click, tracker_of

OLD = np.zeros((12, 12), bool)
OLD[2:6, 2:6] = True


def mask_with(*boxes, base=OLD, value=True):
    mask = base.copy()
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = value
    return mask


def test_a_positive_click_adds_the_part_that_it_is_in_and_nothing_else():
    new = mask_with((2, 6, 6, 8), (9, 9, 11, 11))  # grows at the click, and far from it
    change = corrections.asked_change(OLD, new, Clicked(((3, 7),), (1,)))
    assert np.array_equal(OLD ^ change, mask_with((2, 6, 6, 8)))


def test_a_positive_click_removes_nothing():
    new = mask_with((2, 6, 6, 8)) & ~mask_with((2, 2, 6, 4), base=np.zeros_like(OLD))
    change = corrections.asked_change(OLD, new, Clicked(((3, 7),), (1,)))
    assert np.array_equal(OLD ^ change, mask_with((2, 6, 6, 8)))


def test_a_negative_click_removes_the_part_that_it_is_in_and_adds_nothing():
    new = mask_with((2, 2, 4, 4), value=False) | mask_with((9, 9, 11, 11), base=np.zeros_like(OLD))
    change = corrections.asked_change(OLD, new, Clicked(((2, 2),), (0,)))
    assert np.array_equal(OLD ^ change, mask_with((2, 2, 4, 4), value=False))


def test_a_click_one_cell_beside_a_change_asks_for_it():
    new = mask_with((2, 6, 6, 8))
    assert corrections.asked_change(OLD, new, Clicked(((3, 8),), (1,))).any()
    assert not corrections.asked_change(OLD, new, Clicked(((3, 9),), (1,))).any()


def test_the_smallest_change_that_obeys_the_newest_click_is_taken():
    ignores, small, large = OLD, mask_with((2, 6, 6, 8)), mask_with((2, 6, 12, 12))
    clicked = Clicked(((3, 3), (3, 7)), (1, 1))
    best, change = corrections.smallest_change(OLD, [ignores, large, small], clicked)
    assert best == 2
    assert np.array_equal(OLD ^ change, small)


def test_if_no_mask_obeys_the_mask_stays_as_it_is():
    best, change = corrections.smallest_change(OLD, [OLD, mask_with((9, 9, 11, 11))], Clicked(((3, 8),), (1,)))
    assert best == 0 and not change.any()


def test_clicks_are_placed_on_the_grid_of_the_logits():
    clicks = Clicks(torch.tensor([[[0.0, 255.9], [130.0, 256.0]]]), torch.tensor([[1, 0]]))
    assert corrections.on_grid(clicks, 256, (64, 64)) == [Clicked(((63, 0), (63, 32)), (1, 0))]


def tracked(loaded, clip):
    """A tracker with one object that was prompted with its true mask, and its masks by frame."""
    frames, masks = clip
    tracker = tracker_of(loaded, frames, TrackerConfig(history_frames=None))
    tracker.prompt("a", Prompt(frame_idx=0, mask_rle=rle.encode(masks[0, 1])))
    return tracker, {answer.frame_idx: answer.logits[0] for answer in tracker.propagate(0, T)}


@pytest.mark.parametrize("label", [0, 1])
def test_a_click_changes_a_tracked_mask_in_its_own_direction_only(loaded, clip, label):
    tracker, before = tracked(loaded, clip)
    old = before[2] > 0
    y, x = (old if label == 0 else ~old).nonzero()[0].tolist()
    at = ((x + 0.5) * HW[1] / old.shape[1], (y + 0.5) * HW[0] / old.shape[0])
    answer = tracker.prompt("a", click(2, at, labels=(label,)))
    new = answer.logits[0] > 0
    assert (new ^ old).any()
    assert torch.equal(new & old, old if label else new)
    same = ~(new ^ old)
    assert torch.equal(answer.logits[0][same], before[2].clamp(-32, 32)[same])


def test_an_object_with_a_positive_click_is_present(doubtful, clip):
    tracker, before = tracked(doubtful, clip)
    for frame in range(1, T):
        answer = tracker.prompt("a", click(frame, (60.0, 50.0)), remember=False)
        assert bool(answer.masks(HW).any()) <= bool(answer.object_score[0] > 0)


def test_a_box_on_a_tracked_frame_starts_anew(loaded, clip):
    tracker, before = tracked(loaded, clip)
    box = Prompt(frame_idx=2, box_xyxy=(5.0, 5.0, 30.0, 30.0))
    redrawn = tracker.prompt("a", box).logits[0] > 0
    assert not torch.equal(redrawn & (before[2] > 0), before[2] > 0)
