"""Pure mask maths: stability, cleaning, duplicates.

Masks are bool (H, W) or (N, H, W) numpy arrays. Only `stability_score` and `enlarge` take tensors, because they work
on logits. Knows nothing of models, prompts or files.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from storage.pixels import Mask, Masks, check_mask
from storage.wording import counted


def stability_score(logits: Tensor, offset: float = 1.0) -> Tensor:
    """IoU of each mask with itself under a stricter and a looser threshold.

    logits: float (N, H, W), 0 is the decision boundary.
    offset: logit distance, > 0.
    Returns float (N,) in [0, 1]; 1 where the looser mask is empty, which SA-V stores for absent objects.
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


@torch.no_grad()
def enlarge(logits: Tensor, hw: tuple[int, int]) -> Masks:
    """Masks at a picture's size hw = (H, W): logits resized bilinearly, then cut at zero.

    logits: float (N, h, w). Returns bool (N, H, W). One mask is resized at a time, to bound memory; all leave the
    device together.
    """
    out = torch.empty((len(logits), *hw), dtype=torch.bool, device=logits.device)
    for row, one in enumerate(logits):
        large = F.interpolate(one[None, None].float(), size=hw, mode="bilinear", align_corners=False)
        torch.gt(large[0, 0], 0, out=out[row])
    found: Masks = out.cpu().numpy()
    return found


def clean(mask: Mask, min_area_px: int) -> Mask:
    """The mask without specks and holes smaller than `min_area_px`. A mask of specks only keeps the largest one.

    mask: bool (H, W). Specks are 8-connected parts of the object, holes are 8-connected parts of the background; the
    background's largest part is never a hole. Holes are filled first, so that the parts around them are not specks.
    """
    mask = check_mask(mask)
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
    mask = check_mask(mask)
    if not mask.any():
        return mask.copy()
    labels, areas = _parts(mask)
    return np.asarray(labels == 1 + int(np.argmax(areas[1:])), dtype=np.bool_)


def nms(ious: NDArray[np.float64], ranks: NDArray[np.float64], threshold: float) -> list[int]:
    """Non-maximum suppression: takes the best first, and drops those that overlap a kept one by more than `threshold`.

    ious: float (N, N), symmetric.  ranks: float (N,); ties go to the lower index.
    Returns the kept indices, best first.
    """
    if ious.shape != (len(ranks), len(ranks)):
        raise ValueError(f"ious must be (N, N) for {counted(len(ranks), 'rank')}, got {ious.shape}")
    kept: list[int] = []
    for index in np.argsort(-ranks, kind="stable"):
        if not kept or ious[index, kept].max() <= threshold:
            kept.append(int(index))
    return kept


def _parts(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """8-connected parts: labels (H, W), 0 outside, and the area of each label; label 0 counts the outside."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    found = np.asarray(labels, dtype=np.int32)
    return found, np.bincount(found.ravel(), minlength=count)
