"""Where a propagation ends."""

from __future__ import annotations

import pytest

from annotation_queue.draft import draft_of
from annotation_queue.refinement.segmenter import UNCHANGED_FRAMES, propagation
from storage.records import STRIDE
from tests.annotation_queue.synthetic_queue import HEIGHT, WIDTH, SyntheticModel, blank, candidate

FRAMES = tuple(range(0, 48, STRIDE))


def draft(masklet):
    return draft_of((HEIGHT, WIDTH), FRAMES, masklet, [], {})


def frames(masklet, frame_idx, direction):
    found = propagation(SyntheticModel(), "t", "video-0", draft(masklet), frame_idx, direction)
    return [made.frame_idx for made in found if made is not None]


def test_a_propagation_goes_to_the_end_while_its_masks_differ():
    wrong = blank(candidate("m"))
    assert frames(wrong, 20, "both") == [24, 28, 32, 36, 40, 44, 16, 12, 8, 4, 0]
    assert frames(wrong, 20, "backward") == [16, 12, 8, 4, 0]


def test_a_propagation_stops_when_its_masks_no_longer_change():
    right = candidate("m")
    assert frames(right, 0, "both") == list(FRAMES[1 : 1 + UNCHANGED_FRAMES])


def test_a_frame_without_a_mask_cannot_be_propagated():
    with pytest.raises(ValueError, match="no mask"):
        frames(None, 20, "both")
