"""Intersection over union (IoU): of masks, of boxes, and of masklets over time. The one place for it.

Two empty masks have no union, so each function says what it gives for them:
- A comparison of one mask with one other gives 1: both say that the object is absent, so they agree.
- A table of every mask with every other gives 0: an empty mask is nobody's duplicate.

`model/training/losses.py` has its own IoU of tensors: it works in batches on the model's device and on shares of cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pycocotools.mask as coco
from numpy.typing import NDArray

from storage import rle
from storage.pixels import Boxes, Mask, Masks, box_of, check_mask
from storage.records import Masklet

Table = NDArray[np.float64]  # (N, M) in [0, 1]


def mask_iou(a: Mask, b: Mask) -> float:
    """IoU of two masks, bool (H, W), in [0, 1]; 1 if both are empty. Raises ValueError for another type or size."""
    if check_mask(a).shape != check_mask(b).shape:
        raise ValueError(f"masks of different sizes: {a.shape} and {b.shape}")
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def rle_iou(a: bytes, b: bytes, height: int, width: int) -> float:
    """`mask_iou` of compressed counts: 1 if both are empty. Raises BadRle for malformed counts."""
    areas = [rle.area(counts, height, width) for counts in (a, b)]  # of both: this also checks the counts
    if not any(areas):
        return 1.0
    left, right = ({"size": [height, width], "counts": counts} for counts in (a, b))
    return float(coco.iou([left], [right], [0])[0, 0])


def mask_table(a: Masks, b: Masks) -> Table:
    """IoU of every mask of `a` (N, H, W) with every mask of `b` (M, H, W); 0 where both are empty."""
    if a.ndim != 3 or b.ndim != 3 or a.shape[1:] != b.shape[1:]:
        raise ValueError(f"masks must be (N, H, W) of one size, got {a.shape} and {b.shape}")
    areas_a, areas_b = (np.count_nonzero(m, axis=(1, 2)).astype(np.float64) for m in (a, b))
    boxes_a, boxes_b = [box_of(m) for m in a], [box_of(m) for m in b]
    intersection = np.zeros((len(a), len(b)))
    for i, box in enumerate(boxes_a):
        for j, other in enumerate(boxes_b):
            if box is None or other is None:
                continue
            x0, y0, x1, y1 = max(box[0], other[0]), max(box[1], other[1]), min(box[2], other[2]), min(box[3], other[3])
            if x0 < x1 and y0 < y1:
                intersection[i, j] = np.count_nonzero(a[i, y0:y1, x0:x1] & b[j, y0:y1, x0:x1])
    return _ratio(intersection, areas_a, areas_b)


def box_table(a: Boxes, b: Boxes) -> Table:
    """IoU of every box of `a` (N, 4) with every box of `b` (M, 4), xyxy; 0 where both are empty."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != 4 or b.shape[1] != 4:
        raise ValueError(f"boxes must be (N, 4), got {a.shape} and {b.shape}")
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(bottom_right - top_left, 0, None).prod(-1)
    area_a, area_b = (np.clip(x[:, 2:] - x[:, :2], 0, None).prod(-1) for x in (a, b))
    return _ratio(intersection, area_a, area_b)


def frame_ious(a: Masklet, b: Masklet) -> dict[int, float]:
    """frame_idx -> IoU, ascending, of every frame that shows the object in `a` or in `b`; both of one size.

    A frame that one of them lacks counts as empty there, so its IoU is 0.
    """
    if (a.height, a.width) != (b.height, b.width):
        raise ValueError(f"masks of {a.height} x {a.width} and of {b.height} x {b.width}")
    seen_a, seen_b = a.shown(), b.shown()

    def of(f: int) -> float:
        if f not in seen_a or f not in seen_b:
            return 0.0
        return 1.0 if seen_a[f] == seen_b[f] else rle_iou(seen_a[f], seen_b[f], a.height, a.width)

    return {f: of(f) for f in sorted(seen_a.keys() | seen_b.keys())}


def mean_iou(a: Masklet, b: Masklet) -> float:
    """The mean of `frame_ious`, in [0, 1]; 1 if no frame shows an object. Masklets of different sizes give 0."""
    if (a.height, a.width) != (b.height, b.width):
        return 0.0
    ious = frame_ious(a, b)
    return sum(ious.values()) / len(ious) if ious else 1.0


def mean_table(a: Sequence[Masklet], b: Sequence[Masklet]) -> Table:
    """`mean_iou` of every masklet of `a` (N) with every masklet of `b` (M) of the same video. Raises BadRle.

    0 for masklets of different sizes, and where no frame shows an object: see above. All pairs of a frame at once.
    """
    seen_a, seen_b = [row.shown() for row in a], [row.shown() for row in b]
    total, frames = np.zeros((len(a), len(b))), np.zeros((len(a), len(b)))
    for f in sorted({f for seen in (*seen_a, *seen_b) for f in seen}):
        frames += np.logical_or.outer([f in seen for seen in seen_a], [f in seen for seen in seen_b])
        shown_a = [n for n, seen in enumerate(seen_a) if f in seen]
        shown_b = [n for n, seen in enumerate(seen_b) if f in seen]
        if shown_a and shown_b:
            left = [_checked(a[n], seen_a[n][f]) for n in shown_a]
            right = [_checked(b[n], seen_b[n][f]) for n in shown_b]
            total[np.ix_(shown_a, shown_b)] += coco.iou(left, right, [0] * len(right))
    same = np.array([[(x.height, x.width) == (y.height, y.width) for y in b] for x in a], bool).reshape(total.shape)
    return np.divide(total, frames, out=np.zeros_like(total), where=(frames > 0) & same)


def _checked(row: Masklet, counts: bytes) -> dict[str, object]:
    rle.area(counts, row.height, row.width)  # malformed counts crash pycocotools
    return {"size": [row.height, row.width], "counts": counts}


def tube_iou(a: Masklet, b: Masklet) -> float:
    """IoU of two masklets of one video with all frames together, in [0, 1]; 0 if no frame shows an object.

    Only the frames of `a` count: what `b` has on other frames is ignored.
    """
    own = set(a.frame_idx)
    areas_b = (area for f, area in zip(b.frame_idx, b.area_px, strict=True) if f in own)
    both = sum(shared_px(a, b).values())
    either = sum(a.area_px) + sum(areas_b) - both
    return both / either if either else 0.0


def shared_px(a: Masklet, b: Masklet) -> dict[int, float]:
    """frame_idx -> pixels that are in both masks, of the frames on which both masklets show their object."""
    seen_a, seen_b = a.shown(), b.shown()
    areas_a, areas_b = (dict(zip(m.frame_idx, m.area_px, strict=True)) for m in (a, b))
    shared = {}
    for f in seen_a.keys() & seen_b.keys():
        iou = rle_iou(seen_a[f], seen_b[f], a.height, a.width)
        shared[f] = iou * (areas_a[f] + areas_b[f]) / (1 + iou)
    return shared


def _ratio(
    intersection: NDArray[np.float64], size_a: NDArray[np.floating], size_b: NDArray[np.floating]
) -> NDArray[np.float64]:
    union = size_a[:, None].astype(np.float64) + size_b[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection, dtype=np.float64), where=union > 0)
