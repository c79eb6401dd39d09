"""Where a propagation ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotation_queue.draft import draft_of
from annotation_queue.refinement.segmenter import UNCHANGED_FRAMES, propagation
from storage.records import STRIDE
from tests.annotation_queue.synthetic_queue import HEIGHT, WIDTH, SyntheticModel, blank, candidate, mask

FRAMES = tuple(range(0, 48, STRIDE))


def draft(masklet):
    return draft_of((HEIGHT, WIDTH), FRAMES, masklet, [], {})


def frames(masklet, frame_idx, direction, made=(), stale=(), **bounds):
    begun = replace(draft(masklet), stale=set(stale))
    stretches = begun.stretches(frame_idx, {"direction": direction, **bounds})
    found = propagation(SyntheticModel(), "t", "video-0", begun, frame_idx, stretches, {m.frame_idx: m for m in made})
    return [mask.frame_idx for mask in found if mask is not None]


def test_a_propagation_goes_to_the_end_while_its_masks_differ():
    wrong = blank(candidate("m"))
    assert frames(wrong, 20, "both") == [24, 28, 32, 36, 40, 44, 16, 12, 8, 4, 0]
    assert frames(wrong, 20, "backward") == [16, 12, 8, 4, 0]


def test_a_propagation_stops_when_its_masks_no_longer_change():
    right = candidate("m")
    assert frames(right, 0, "both") == list(FRAMES[1 : 1 + UNCHANGED_FRAMES])


def test_a_propagation_stays_within_its_bounds():
    wrong = blank(candidate("m"))
    assert frames(wrong, 20, "forward", last=28) == [24, 28]
    assert frames(wrong, 20, "backward", last=12) == [16, 12]
    assert frames(wrong, 20, "both", first=16, last=24) == [24, 16]
    assert frames(wrong, 20, "forward", last=20) == []
    with pytest.raises(ValueError, match="ends at a frame"):
        frames(wrong, 20, "forward", last="here")


@pytest.mark.parametrize("cut", range(12))
def test_a_propagation_that_was_cut_off_goes_on_behind_what_it_has_made(cut):
    model, wrong, right = SyntheticModel(), blank(candidate("m")), candidate("m")
    whole = [24, 28, 32, 36, 40, 44, 16, 12, 8, 4, 0]
    made = [model._mask(i, mask(i)) for i in whole[:cut]]
    assert frames(wrong, 20, "both", made) == whole[cut:]
    unchanged = list(FRAMES[1 : 1 + UNCHANGED_FRAMES])
    made = [model._mask(i, mask(i)) for i in unchanged[:cut]]
    assert frames(right, 0, "forward", made) == unchanged[cut:], "it still ends where masks no longer change"


def test_a_propagation_goes_on_as_far_as_frames_are_stale():
    right = candidate("m")
    assert frames(right, 0, "forward", stale=[40]) == list(range(4, 44, STRIDE))
    assert frames(right, 44, "both", stale=[40]) == [40, 36, 32, 28, 24]
    made = [SyntheticModel()._mask(i, mask(i)) for i in range(4, 32, STRIDE)]
    assert frames(right, 0, "forward", made, stale=[40]) == [32, 36, 40]
