"""Simulated prompts: what an annotator would click, made from a ground-truth mask.

Pure numpy and OpenCV. Masks are bool (H, W); points are pixel centres (x, y); a label is 1 inside the object and 0
outside. Evaluation asks for centres (no random generator), training for uniform draws (a generator). Source: the SAM 2
paper, appendix C.2 and the evaluation protocol of section 6.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from model.masks import largest_part
from storage import pixels
from storage.pixels import Mask

Click = tuple[tuple[float, float], int]  # ((x, y), label)
Box = tuple[float, float, float, float]  # xyxy, right and bottom exclusive


def first_click(gt: Mask, rng: np.random.Generator | None = None) -> Click | None:
    """A positive click: the centre of the object, or a uniform pixel of it if a generator is given.

    Returns None if the object is absent.
    """
    if not gt.any():
        return None
    return (_centre(gt) if rng is None else _draw(gt, rng)), 1


def corrective_click(pred: Mask, gt: Mask, rng: np.random.Generator | None = None) -> Click | None:
    """The click that corrects a prediction: positive where it misses the object, negative where it spills over.

    Without a generator: the centre of the largest connected error region, missed or spilled. With one: a pixel drawn
    uniformly from all errors. Returns None if there is no error.
    """
    if pred.shape != gt.shape:
        raise ValueError(f"masks differ in shape: {pred.shape} and {gt.shape}")
    missed, spilled = gt & ~pred, pred & ~gt
    if not missed.any() and not spilled.any():
        return None
    if rng is not None:
        xy = _draw(missed | spilled, rng)
        return xy, int(gt[int(xy[1]), int(xy[0])])
    largest_missed, largest_spilled = largest_part(missed), largest_part(spilled)
    if np.count_nonzero(largest_missed) >= np.count_nonzero(largest_spilled):
        return _centre(largest_missed), 1
    return _centre(largest_spilled), 0


def box_of(mask: Mask) -> Box | None:
    """The tightest box around the object; None if it is absent."""
    box = pixels.box_of(mask)
    return None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3]))


def jitter_box(
    box_xyxy: Box,
    hw: tuple[int, int],
    rng: np.random.Generator,
    *,
    relative: float = 0.1,
    limit_px: float = 20.0,
) -> Box:
    """A hand-drawn box: each edge moves by up to `relative` of the side, at most `limit_px`, within the frame.

    hw: height and width of the frame in px. The box stays at least one pixel wide and high.
    """
    x0, y0, x1, y1 = box_xyxy
    height, width = hw
    reach = np.minimum(relative * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0]), limit_px)
    moved = np.array(box_xyxy) + rng.uniform(-1.0, 1.0, 4) * reach
    x0, x1 = _span(moved[0], moved[2], width)
    y0, y1 = _span(moved[1], moved[3], height)
    return x0, y0, x1, y1


def _span(low: float, high: float, size: int) -> tuple[float, float]:
    low = float(np.clip(low, 0, size - 1))
    return low, float(np.clip(high, low + 1, size))


def _centre(mask: Mask) -> tuple[float, float]:
    """The pixel farthest from the mask's border, the middle one of several; the frame's edge counts as border."""
    padded = np.pad(mask, 1).astype(np.uint8)
    distance = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5))[1:-1, 1:-1]
    ridge = np.argwhere(distance == distance.max())
    y, x = ridge[int(np.argmin(((ridge - ridge.mean(axis=0)) ** 2).sum(axis=1)))]
    return float(x), float(y)


def _draw(mask: Mask, rng: np.random.Generator) -> tuple[float, float]:
    pixels: NDArray[np.int64] = np.flatnonzero(mask)
    y, x = divmod(int(rng.choice(pixels)), mask.shape[1])
    return float(x), float(y)
