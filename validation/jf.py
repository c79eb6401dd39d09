"""J and F as SA-V and DAVIS measure them: region overlap and boundary agreement of masks with the truth.

Knows masks and RLE. Does not know videos, files or models. J and F are in [0, 1]; papers print them times 100.
Source: the SA-V evaluator (facebookresearch/sam2, `sav_dataset`), after vos-benchmark (Cheng) and davis2017-evaluation
(Perazzi et al. 2016, section 5); differs: written independently, dilates only around the boundaries, and gives `None`
instead of an assertion if the truth shows no object.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from storage import rle
from storage.iou import mask_iou
from storage.pixels import Mask, check_mask
from storage.wording import counted

TOLERANCE = 0.008  # of the image diagonal: the distance at which two boundaries still agree


@dataclass(frozen=True, kw_only=True)
class JF:
    """J and F of one masklet, or their means over many."""

    j: float
    f: float
    count: int  # frames of a masklet, masklets of a mean

    @property
    def jf(self) -> float:
        return (self.j + self.f) / 2


def tolerance_px(hw: tuple[int, ...]) -> int:
    """The distance at which the boundaries of two masks of this size still agree: 0.8 % of the diagonal."""
    return math.ceil(TOLERANCE * math.hypot(*hw))


def boundary_f(pred: Mask, gt: Mask, radius_px: int | None = None) -> float:
    """F1 of the boundary pixels of two masks, bool (H, W), each allowed a distance. Default: 0.8 % of the diagonal.

    1 if neither has a boundary, 0 if only one has. A mask that fills the frame has no boundary.
    """
    _check(pred, gt)
    window = _window(pred | gt)
    pred_edge, gt_edge = (_boundary(np.ascontiguousarray(mask[window])).view(np.uint8) for mask in (pred, gt))
    total_pred, total_gt = int(np.count_nonzero(pred_edge)), int(np.count_nonzero(gt_edge))
    if not total_pred or not total_gt:
        return float(total_pred == total_gt)
    disk = _disk(tolerance_px(pred.shape) if radius_px is None else radius_px)
    precision = int(np.count_nonzero(np.logical_and(pred_edge, cv2.dilate(gt_edge, disk)))) / total_pred
    recall = int(np.count_nonzero(np.logical_and(gt_edge, cv2.dilate(pred_edge, disk)))) / total_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def of_masklet(pred: Sequence[Mask | None], gt: Sequence[Mask | None]) -> JF | None:
    """J and F of a masklet, means over its frames without the first and the last one.

    pred, gt: (T,) masks bool (H, W) of the annotated frames; None is an empty mask.
    Skips the first and the last frame, as SA-V does: the first is given, the last follows DAVIS.
    Frames before the object appears in the truth or in the prediction do not count.
    Returns None if the truth is empty on all remaining frames: such a masklet has no J and F.
    Raises ValueError for different lengths or sizes.
    """
    _same_length(len(pred), len(gt))
    return _measure(zip(pred, gt, strict=True), len(gt))


def of_rle(pred: Sequence[bytes], gt: Sequence[bytes], height: int, width: int) -> JF | None:
    """`of_masklet` of compressed counts, decoded one frame at a time. Raises rle.BadRle as well."""
    _same_length(len(pred), len(gt))
    decoded = ((rle.decode(a, height, width), rle.decode(b, height, width)) for a, b in zip(pred, gt, strict=True))
    return _measure(decoded, len(gt))


def mean(of_masklets: Iterable[JF]) -> JF | None:
    """The mean over all masklets of all videos, each counting once, as SA-V pools. None without masklets."""
    pooled = list(of_masklets)
    if not pooled:
        return None
    count = len(pooled)
    return JF(j=sum(s.j for s in pooled) / count, f=sum(s.f for s in pooled) / count, count=count)


def _measure(frames: Iterable[tuple[Mask | None, Mask | None]], length: int) -> JF | None:
    js: list[float] = []
    fs: list[float] = []
    truth_seen = False
    for index, (pred, gt) in enumerate(frames):
        if index in (0, length - 1):
            continue
        in_pred, in_gt = pred is not None and bool(pred.any()), gt is not None and bool(gt.any())
        truth_seen |= in_gt
        if not js and not in_pred and not in_gt:
            continue
        if in_pred and in_gt:
            assert pred is not None and gt is not None
            js.append(mask_iou(pred, gt))
            fs.append(boundary_f(pred, gt))
        else:
            shown = pred if in_pred else gt
            js.append(float(in_pred == in_gt))
            fs.append(float(in_pred == in_gt) if shown is None else boundary_f(shown, np.zeros_like(shown)))
    if not truth_seen:
        return None
    return JF(j=sum(js) / len(js), f=sum(fs) / len(fs), count=len(js))


def _window(mask: Mask) -> tuple[slice, slice]:
    """The box around a mask with a margin of one pixel: it contains all boundary pixels."""
    sides = []
    for axis in (1, 0):
        (at,) = np.nonzero(mask.any(axis=axis))
        sides.append(slice(max(0, int(at[0]) - 1), int(at[-1]) + 2) if len(at) else slice(0, 1))
    return sides[0], sides[1]


def _boundary(mask: Mask) -> Mask:
    """Pixels that differ from their neighbour to the right, below, or to the right below: bool (H, W).

    Pixels of the last row and column are compared with the neighbours that exist; the last pixel has none.
    """
    edge = np.zeros_like(mask)
    edge[:, :-1] = mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def _disk(radius: int) -> NDArray[np.uint8]:
    """A filled disk, uint8 (2 radius + 1, 2 radius + 1)."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    inside: Mask = x * x + y * y <= radius * radius
    return inside.astype(np.uint8)


def _check(pred: Mask, gt: Mask) -> None:
    if check_mask(pred).shape != check_mask(gt).shape:
        raise ValueError(f"masks of different sizes: {pred.shape} and {gt.shape}")


def _same_length(pred: int, gt: int) -> None:
    if pred != gt:
        raise ValueError(f"{counted(pred, 'predicted frame')} and {counted(gt, 'true one')}")
