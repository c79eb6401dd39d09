"""True masklets come back to their first mask, and another checkpoint follows them; wrong ones do not."""

import pytest

from model import checkpoints
from model.cycle import cycle_ious, followed_ious
from storage import rle


def test_a_true_masklet_comes_back_and_one_that_changes_the_object_does_not(clip):
    frames, masks = clip
    hw = masks.shape[2:]
    first, second = ([rle.encode(mask) for mask in masks[:4, n]] for n in (0, 1))
    swapped = [first[0], *second[1:]]
    short = [*second[:2], *(rle.empty(*hw) for _ in range(2))]  # it is tracked back from the second frame
    given = {"first": first, "swapped": swapped, "short": short}
    found = cycle_ious(checkpoints.load("micro"), lambda i: frames[i], hw, given)
    assert list(found) == ["first", "swapped", "short"]
    assert found["first"] > 0.6 and found["short"] > 0.6, found
    assert found["swapped"] < 0.2, found


def test_a_masklet_comes_back_to_the_frame_on_which_it_begins(clip):
    frames, masks = clip
    hw = masks.shape[2:]
    true, wrong = rle.encode(masks[0, 0]), rle.encode(masks[0, 1])
    late = [wrong, *(rle.encode(mask) for mask in masks[1:4, 0])]
    found = cycle_ious(checkpoints.load("micro"), lambda i: frames[i], hw, {"late": late}, first={"late": 1})
    assert found["late"] > 0.6, "the first frame is not looked at"
    ends = [true, *(rle.empty(*hw) for _ in range(3))]
    assert cycle_ious(checkpoints.load("micro"), lambda i: frames[i], hw, {"a": ends}, first={"a": 0}) == {"a": 0.0}


@pytest.mark.parametrize("after", [[], ["gone", "gone"]])
def test_a_masklet_without_a_later_frame_has_no_way_back(loaded, clip, after):
    frames, masks = clip
    hw = masks.shape[2:]
    given = {"one": [rle.encode(masks[0, 0]), *(rle.empty(*hw) for _ in after)]}
    assert cycle_ious(loaded, lambda i: frames[i], hw, given) == {"one": 0.0}


def test_a_checkpoint_follows_a_true_masklet_and_not_one_that_changes_the_object(clip):
    frames, masks = clip
    hw = masks.shape[2:]
    first, second = ([rle.encode(mask) for mask in masks[:4, n]] for n in (0, 1))
    given = {"first": first, "swapped": [first[0], *second[1:]], "late": [second[0], *first[1:]]}
    found = followed_ious(checkpoints.load("micro"), lambda i: frames[i], hw, given, first={"late": 1})
    assert list(found) == ["first", "swapped", "late"]
    assert found["first"] > 0.6 and found["late"] > 0.6, found
    assert found["swapped"] < 0.2, found


def test_a_masklet_is_followed_from_the_first_frame_that_shows_it_to_the_last_one(clip):
    frames, masks = clip
    hw = masks.shape[2:]
    true, empty = [rle.encode(mask) for mask in masks[:4, 0]], rle.empty(*hw)
    given = {"late": [empty, *true[1:]], "short": [*true[:2], empty, empty], "whole": true}
    found = followed_ious(checkpoints.load("micro"), lambda i: frames[i], hw, given)
    assert min(found.values()) > 0.6, found


def test_a_masklet_of_one_frame_disagrees_with_no_checkpoint(loaded, clip):
    frames, masks = clip
    given = {"one": [rle.encode(masks[0, 0])]}
    assert followed_ious(loaded, lambda i: frames[i], masks.shape[2:], given) == {"one": 1.0}
