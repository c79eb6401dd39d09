"""Masks as polygons, for formats that have no masks, and polygons as masks.

A point is a corner of pixels: (0, 0) is the upper left corner of the picture, (W, H) the lower right. A mask becomes
one closed polygon, as such formats need it: parts and holes are joined by bridges, lines that are drawn there and back.
Such a polygon is not exact, so whoever writes one measures it: see `shape_of`. Source of how polygons are drawn:
pycocotools' `rleFrPoly`, by which a polygon along the edges of the pixels gives the mask again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import pycocotools.mask as coco
from numpy.typing import NDArray

from storage import iou, rle
from storage.pixels import Mask

Ring = NDArray[np.float64]  # (N, 2) xy of a closed polygon: the last point is joined with the first

TOLERANCE_PX = 0.75  # how far a simplified outline may be from the pixels: less than this keeps the steps of diagonals
LEAST_IOU = 0.95  # below this, the outline is not simplified


class BadPolygon(ValueError):
    """These points are no polygon."""


def shape_of(counts: bytes, height: int, width: int) -> tuple[Ring, float]:
    """The polygon of a mask that is not empty, and its IoU with the mask when it is drawn again.

    It is simplified by TOLERANCE_PX where that keeps an IoU of LEAST_IOU.
    """
    rings = outlines(rle.decode(counts, height, width))
    best: tuple[Ring, float] | None = None
    for tolerance_px in (TOLERANCE_PX, 0.0):
        ring = bridged([_simplified(ring, tolerance_px) for ring in rings])
        found = iou.rle_iou(drawn([ring], height, width), counts, height, width)
        if best is None or found > best[1]:
            best = ring, found
        if found >= LEAST_IOU:
            break
    assert best is not None
    return best


def drawn(rings: Iterable[Ring | Sequence[Sequence[float]]], height: int, width: int) -> bytes:
    """The mask of polygons that belong to one object, as compressed counts. What lies outside the picture is cut off.

    Raises BadPolygon for a polygon of fewer than 3 points, and for a point that is no finite number.
    """
    flat = []
    for ring in rings:
        points = np.asarray(ring, np.float64)
        if points.ndim != 2 or points.shape[0] < 3 or points.shape[1] != 2:
            raise BadPolygon(f"a polygon has at least 3 points (x, y), not {points.shape[0] if points.ndim else 0}")
        if not np.isfinite(points).all():
            raise BadPolygon("a point of the polygon is not a finite number")
        flat.append(np.clip(points, 0, (width, height)).reshape(-1).tolist())
    if not flat:
        raise BadPolygon("no polygon")
    counts: bytes = coco.merge(coco.frPyObjects(flat, height, width))["counts"]
    return counts


def outlines(mask: Mask) -> list[Ring]:
    """The edges of a mask, bool (H, W), along the sides of its pixels: a ring for each part and for each hole.

    Pixels that touch only at a corner belong to different parts. The largest ring comes first.
    """
    height, width = mask.shape
    inside = np.pad(mask, 1)
    here = inside[1:-1, 1:-1]
    sides = (  # is the neighbour absent; start and end of the side, so that the mask is on the right
        (~inside[:-2, 1:-1], (0, 0), (1, 0)),
        (~inside[1:-1, 2:], (1, 0), (1, 1)),
        (~inside[2:, 1:-1], (1, 1), (0, 1)),
        (~inside[1:-1, :-2], (0, 1), (0, 0)),
    )
    next_of: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for absent, (x0, y0), (x1, y1) in sides:
        for y, x in np.argwhere(here & absent).tolist():
            next_of.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    rings = []
    while next_of:
        start = next(iter(next_of))
        points, at, step = [], start, (0, 0)
        while True:
            choices = next_of[at]
            right = (at[0] - step[1], at[1] + step[0])  # a turn to the right stays at the same pixel
            follows = right if len(choices) > 1 and right in choices else choices[0]
            choices.remove(follows)
            if not choices:
                del next_of[at]
            turned = (follows[0] - at[0], follows[1] - at[1])
            if turned != step:
                points.append(at)
            at, step = follows, turned
            if at == start:
                break
        rings.append(np.array(points, np.float64))
    return sorted(rings, key=lambda ring: -abs(_area(ring)))


def bridged(rings: Sequence[Ring]) -> Ring:
    """One ring of several: each one is joined at the points that are nearest."""
    merged = rings[0]
    for ring in rings[1:]:
        off = ((merged[:, None] - ring[None]) ** 2).sum(-1)
        i, j = np.unravel_index(int(off.argmin()), off.shape)
        merged = np.concatenate([merged[: i + 1], ring[j:], ring[: j + 1], merged[i:]])
    return merged


def _simplified(ring: Ring, tolerance_px: float) -> Ring:
    if not tolerance_px:
        return ring
    found: Ring = cv2.approxPolyDP(ring.astype(np.float32), tolerance_px, True).reshape(-1, 2).astype(np.float64)
    return found if len(found) > 2 else ring


def _area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return math.fsum((x * np.roll(y, -1) - np.roll(x, -1) * y).tolist()) / 2
