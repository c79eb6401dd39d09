"""What a masklet shows of its own quality: numbers from its scores and its masks, without the video or the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from storage import rle
from storage.iou import mask_iou
from storage.pixels import Mask
from storage.records import Masklet

Numbers = NDArray[np.float64]

SIDE = 48  # samples along each side of the square in which the masks of a masklet are compared
FEATURES = (
    "seed_score",  # the model's own estimate on the frame where it was found
    "seed_agreement",  # of other clicks inside the seed, see `model.proposals.agreement`; 0 if the grid did not ask
    "cycle_iou",  # of the first mask and the one that tracking back arrives at, see `model.cycle`
    "last_iou",  # of the masklet and what the checkpoint before makes of its first mask; -1 if not compared
    "score_mean",  # estimated IoU, over the frames that show the object
    "score_p10",  # the 10th percentile
    "score_min",
    "stability_mean",
    "stability_p10",
    "stability_min",
    "presence_mean",  # presence logit, over all frames
    "presence_margin",  # how near it comes to 0, where the model cannot tell
    "visible_share",  # of the frames
    "flips",  # changes between visible and absent, a pair of neighbouring frames
    "size",  # square root of the mean share of the frame that the object covers
    "size_change",  # standard deviation of the logarithm of its area
    "area_jump",  # largest absolute change of that logarithm between neighbouring frames
    "fragments",  # connected fragments, mean
    "fragments_max",
    "loose_share",  # area outside of the largest fragment, mean
    "border_share",  # of the visible frames: the object touches the border of the picture
    "shape_mean",  # IoU of the masks of neighbouring frames, each moved so that its box is centred
    "shape_min",
    "motion",  # distance between the centres of the boxes of neighbouring frames, in sides of the largest box; mean
    "frames",  # annotated frames
)


def table_of(masklets: Sequence[Masklet]) -> Numbers:
    """The features of masklets, float64 (N, len(FEATURES)), finite."""
    return np.array([features_of(masklet) for masklet in masklets]).reshape(len(masklets), len(FEATURES))


def features_of(masklet: Masklet) -> tuple[float, ...]:
    """The features of one masklet, in the order of FEATURES; all finite. Raises BadRle for malformed masks.

    A masklet that is never visible has 0 for everything about its masks.
    """
    area = np.array(masklet.area_px, dtype=np.float64)
    shown = np.flatnonzero(area)
    presence = np.array(masklet.object_score)
    visible = area > 0
    seed = json.loads(masklet.prompt)
    numbers: dict[str, float] = {
        "seed_score": float(seed.get("seed_score", masklet.score[0])),
        "seed_agreement": float(seed.get("seed_agreement", 0.0)),
        "cycle_iou": float(seed.get("cycle_iou", 0.0)),
        "last_iou": float(seed.get("last_iou", -1.0)),
        **_spread("score", np.array(masklet.score)[shown]),
        **_spread("stability", np.array(masklet.stability)[shown]),
        "presence_mean": float(presence.mean()),
        "presence_margin": float(np.abs(presence).min()),
        "visible_share": len(shown) / len(area),
        "flips": float(np.mean(visible[1:] != visible[:-1])) if len(area) > 1 else 0.0,
        "frames": float(len(area)),
    }
    numbers |= _of_masks(masklet, area, shown)
    return tuple(np.nan_to_num(np.array([numbers[name] for name in FEATURES])).tolist())


def _spread(name: str, values: Numbers) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys((f"{name}_mean", f"{name}_p10", f"{name}_min"), 0.0)
    return {
        f"{name}_mean": float(values.mean()),
        f"{name}_p10": float(np.percentile(values, 10)),
        f"{name}_min": float(values.min()),
    }


def _of_masks(masklet: Masklet, area: Numbers, shown: NDArray[np.intp]) -> dict[str, float]:
    """The features of the masks on the frames `shown`."""
    height, width = masklet.height, masklet.width
    spans = [rle.spans(masklet.rle[i], height, width) for i in shown]
    boxes = np.array([_box(of, height) for of in spans]).reshape(-1, 4)  # x0 y0 x1 y1, the last ones included
    side = float((boxes[:, 2:] - boxes[:, :2]).max() + 1) if len(boxes) else 1.0
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    small = [_sampled(of, centre, side, height, width) for of, centre in zip(spans, centres, strict=True)]
    fragments = [_fragments(mask) for mask in small]
    neighbours = [k for k, (i, j) in enumerate(pairwise(shown)) if j == i + 1]
    logs = np.log(area[shown])
    alike = [mask_iou(small[k], small[k + 1]) for k in neighbours]
    moved = [float(np.linalg.norm(centres[k + 1] - centres[k])) / side for k in neighbours]
    on_border = (boxes[:, :2].min(1) == 0) | (boxes[:, 2] == width - 1) | (boxes[:, 3] == height - 1)
    return {
        "size": float(np.sqrt(area[shown].mean() / (height * width))) if len(shown) else 0.0,
        "size_change": float(logs.std()) if len(shown) else 0.0,
        "area_jump": max((abs(float(logs[k + 1] - logs[k])) for k in neighbours), default=0.0),
        "fragments": float(np.mean([count for count, _ in fragments])) if fragments else 0.0,
        "fragments_max": float(max((count for count, _ in fragments), default=0)),
        "loose_share": float(np.mean([loose for _, loose in fragments])) if fragments else 0.0,
        "border_share": float(on_border.mean()) if len(boxes) else 0.0,
        "shape_mean": float(np.mean(alike)) if alike else 0.0,
        "shape_min": min(alike, default=0.0),
        "motion": float(np.mean(moved)) if moved else 0.0,
    }


def _box(spans: NDArray[np.int64], height: int) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1 of an object, the last ones included."""
    first, last = spans[:, 0], spans[:, 1] - 1
    if (first // height != last // height).any():  # a run into the next column touches the lower and the upper border
        top, bottom = 0, height - 1
    else:
        top, bottom = int((first % height).min()), int((last % height).max())
    return int(first[0] // height), top, int(last[-1] // height), bottom


def _sampled(spans: NDArray[np.int64], centre_xy: Numbers, side: float, height: int, width: int) -> Mask:
    """The mask in the square of this centre and side (px), at SIDE x SIDE points; nothing is decoded."""
    step = (np.arange(SIDE) + 0.5) / SIDE * side - side / 2
    x, y = (np.rint(centre + step).astype(np.int64) for centre in centre_xy)
    place = x[None, :] * height + y[:, None]
    inside: Mask = np.searchsorted(spans.ravel(), place, side="right") % 2 == 1
    inside &= ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
    return inside


def _fragments(mask: Mask) -> tuple[int, float]:
    """The number of connected fragments, and the share of the area that is outside of the largest one."""
    count, _, figures, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    areas = figures[1:count, cv2.CC_STAT_AREA]
    return count - 1, 1 - float(areas.max() / areas.sum()) if count > 1 else 0.0
