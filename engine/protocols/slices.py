"""The slices that a true masklet belongs to: size, motion, gaps in visibility, entry, and its video's metadata.

A checkpoint may gain in the mean and lose on small or hidden objects, so the gate checks each slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engine.datasets.labelled import LabelledVideo
from storage import pixels, rle
from validation.gate import OF_MASKS

SMALL, LARGE = 0.01, 0.1  # limits of medium size: an object's largest area as a share of the frame
FAST = 0.25  # median motion between neighbouring annotated frames, relative to the square root of the object's area


def slices_of(video: LabelledVideo, name: str) -> tuple[str, ...]:
    """The slices of an object of a video, as "size=small". () for an object that is never visible.

    A column of the metadata with the name of a slice that follows from the masks is left out.
    """
    masks = {i: counts for i, counts in sorted(video.objects[name].items()) if rle.area(counts, *_hw(video))}
    if not masks:
        return ()
    return (
        f"size={_size(max(rle.area(counts, *_hw(video)) for counts in masks.values()), video)}",
        f"motion={_motion(masks, video)}",
        f"visible={_visible(tuple(masks), video.frame_idx)}",
        f"entry={'late' if min(masks) > video.frame_idx[0] else 'start'}",
        *(f"{column}={value}" for column, value in sorted(video.metadata.items()) if column not in OF_MASKS),
    )


def _hw(video: LabelledVideo) -> tuple[int, int]:
    return video.height, video.width


def _size(area_px: int, video: LabelledVideo) -> str:
    share = area_px / (video.height * video.width)
    return "small" if share < SMALL else "medium" if share < LARGE else "large"


def _motion(masks: Mapping[int, bytes], video: LabelledVideo) -> str:
    """How fast the centre of the object's box moves between neighbouring annotated frames."""
    places = []
    for i, counts in masks.items():
        mask = rle.decode(counts, *_hw(video))
        box = pixels.box_of(mask)
        assert box is not None  # the mask is not empty
        centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2
        places.append((video.frame_idx.index(i), centre, float(np.sqrt(np.count_nonzero(mask)))))
    ways = [
        float(np.linalg.norm(b - a)) / side
        for (n, a, side), (m, b, _) in zip(places, places[1:], strict=False)
        if m == n + 1
    ]
    return "fast" if ways and float(np.median(ways)) > FAST else "slow"


def _visible(shown: Sequence[int], annotated: Sequence[int]) -> str:
    """Whether the object is visible on all annotated frames from its first to its last."""
    between = [i for i in annotated if shown[0] <= i <= shown[-1]]
    return "always" if len(between) == len(shown) else "with gaps"
