"""Simulated prompts for evaluation: what an annotator would click or draw, made from a ground-truth mask.

Masks are bool (H, W); points are pixel centres (x, y); a label is 1 inside the object and 0 outside. Training draws its
clicks in `clip_forward`. Source: the SAM 2 paper, the evaluation protocol of section 6.
"""

from __future__ import annotations

import cv2
import numpy as np

from model.masks import largest_part
from storage import pixels
from storage.pixels import Mask

Click = tuple[tuple[float, float], int]  # ((x, y), label)
Box = tuple[float, float, float, float]  # xyxy, right and bottom exclusive


def first_click(gt: Mask) -> Click | None:
    """A positive click on the centre of the object; None if the object is absent."""
    return (_centre(gt), 1) if gt.any() else None


def corrective_click(pred: Mask, gt: Mask) -> Click | None:
    """The click that corrects a prediction: the centre of the largest connected error region.

    Positive where the prediction misses the object, negative where it covers other pixels. Returns None if there is no
    error. Raises ValueError if the masks differ in shape.
    """
    if pred.shape != gt.shape:
        raise ValueError(f"masks differ in shape: {pred.shape} and {gt.shape}")
    missed, spilled = gt & ~pred, pred & ~gt
    if not missed.any() and not spilled.any():
        return None
    largest_missed, largest_spilled = largest_part(missed), largest_part(spilled)
    if np.count_nonzero(largest_missed) >= np.count_nonzero(largest_spilled):
        return _centre(largest_missed), 1
    return _centre(largest_spilled), 0


def box_of(mask: Mask) -> Box | None:
    """The tightest box around the object; None if it is absent."""
    box = pixels.box_of(mask)
    return None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3]))


def _centre(mask: Mask) -> tuple[float, float]:
    """The pixel farthest from the mask's border, the middle one of several; the frame's edge counts as border."""
    padded = np.pad(mask, 1).astype(np.uint8)
    distance = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5))[1:-1, 1:-1]
    ridge = np.argwhere(distance == distance.max())
    y, x = ridge[int(np.argmin(((ridge - ridge.mean(axis=0)) ** 2).sum(axis=1)))]
    return float(x), float(y)
