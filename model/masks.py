"""Pure mask maths: stability, cleaning, boxes, overlaps, duplicates.

Masks are bool (H, W) or (N, H, W) numpy arrays, boxes are xyxy in pixels with exclusive right and bottom edges. Only
`stability_score` and `enlarge` take tensors, because they work on logits. Knows nothing of models, prompts or files.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Mask = NDArray[np.bool_]  # (H, W)
Masks = NDArray[np.bool_]  # (N, H, W)
Boxes = NDArray[np.float64]  # (N, 4) xyxy


def stability_score(logits: Tensor, offset: float = 1.0) -> Tensor:
    """IoU of each mask with itself under a stricter and a looser threshold.

    logits: float (N, H, W), 0 is the decision boundary.
    offset: logit distance, > 0.
    Returns float (N,) in [0, 1]; 1 where the looser mask is empty too, as SA-V stores for absent objects.
    Raises ValueError if logits is not 3-D or offset is not positive.
    Source: Kirillov et al. 2023, appendix B; differs: empty masks give 1, not NaN.
    """
    if logits.ndim != 3:
        raise ValueError(f"logits must be (N, H, W), got {tuple(logits.shape)}")
    if offset <= 0:
        raise ValueError(f"offset must be positive, got {offset}")
    strict = (logits > offset).flatten(1).sum(1)
    loose = (logits > -offset).flatten(1).sum(1)
    return torch.where(loose > 0, strict / loose.clamp(min=1), torch.ones_like(strict, dtype=torch.float32)).float()


def enlarge(logits: Tensor, hw: tuple[int, int]) -> Masks:
    """Masks at a picture's size hw = (H, W): logits resized bilinearly, then cut at zero.

    logits: float (N, h, w). Returns bool (N, H, W). One mask at a time, to bound memory.
    """
    out = np.zeros((len(logits), *hw), dtype=np.bool_)
    for row, one in enumerate(logits):
        large = F.interpolate(one[None, None].float(), size=hw, mode="bilinear", align_corners=False)
        out[row] = (large[0, 0] > 0).cpu().numpy()
    return out


def clean(mask: Mask, min_area_px: int) -> Mask:
    """The mask without specks and holes smaller than `min_area_px`; a mask of specks alone keeps the largest.

    mask: bool (H, W). Specks are 8-connected parts of the object, holes are 8-connected parts of the background; the
    background's largest part is never a hole. Holes are filled first, so that a pierced part is not taken for specks.
    """
    mask = _as_mask(mask)
    if min_area_px <= 1 or not mask.any() or mask.all():
        return mask.copy()
    labels, areas = _parts(~mask)
    hole = areas < min_area_px
    hole[0] = hole[1 + int(np.argmax(areas[1:]))] = False
    filled = mask | hole[labels]
    labels, areas = _parts(filled)
    keep = areas >= min_area_px
    keep[0], keep[1 + int(np.argmax(areas[1:]))] = False, True
    return np.asarray(keep[labels], dtype=np.bool_)


def largest_part(mask: Mask) -> Mask:
    """The largest 8-connected part of a mask; all False for an empty one."""
    mask = _as_mask(mask)
    if not mask.any():
        return mask.copy()
    labels, areas = _parts(mask)
    return np.asarray(labels == 1 + int(np.argmax(areas[1:])), dtype=np.bool_)


def box_of(mask: Mask) -> tuple[int, int, int, int] | None:
    """The tightest box (x0, y0, x1, y1) around a mask, right and bottom exclusive; None for an empty mask."""
    mask = _as_mask(mask)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks in [0, 1]; 1 if both are empty."""
    if a.shape != b.shape:
        raise ValueError(f"masks differ in shape: {a.shape} and {b.shape}")
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def mask_iou(a: Masks, b: Masks) -> NDArray[np.float64]:
    """IoU of every mask of `a` (N, H, W) with every mask of `b` (M, H, W).

    Returns float (N, M) in [0, 1]; 0 where both are empty, so that empty masks are nobody's duplicates.
    """
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


def box_iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """IoU of every box of `a` (N, 4) with every box of `b` (M, 4), xyxy. Returns float (N, M) in [0, 1]."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != 4 or b.shape[1] != 4:
        raise ValueError(f"boxes must be (N, 4), got {a.shape} and {b.shape}")
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(bottom_right - top_left, 0, None).prod(-1)
    area_a, area_b = (np.clip(x[:, 2:] - x[:, :2], 0, None).prod(-1) for x in (a, b))
    return _ratio(intersection, area_a, area_b)


def nms(overlap: NDArray[np.float64], scores: NDArray[np.float64], threshold: float) -> list[int]:
    """Non-maximum suppression: the best first, dropping what overlaps a kept one by more than `threshold`.

    overlap: float (N, N), symmetric. scores: float (N,); ties go to the lower index.
    Returns the kept indices, best first.
    """
    if overlap.shape != (len(scores), len(scores)):
        raise ValueError(f"overlap must be (N, N) for {len(scores)} scores, got {overlap.shape}")
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if not kept or overlap[index, kept].max() <= threshold:
            kept.append(int(index))
    return kept


def _parts(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """8-connected parts: labels (H, W), 0 outside, and the area of each label; label 0 counts the outside."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    found = np.asarray(labels, dtype=np.int32)
    return found, np.bincount(found.ravel(), minlength=count)


def _ratio(
    intersection: NDArray[np.float64], size_a: NDArray[np.floating], size_b: NDArray[np.floating]
) -> NDArray[np.float64]:
    union = size_a[:, None].astype(np.float64) + size_b[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection, dtype=np.float64), where=union > 0)


def _as_mask(mask: Mask) -> Mask:
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"a mask must be bool (H, W), got {mask.dtype} {mask.shape}")
    return mask
