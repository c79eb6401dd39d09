"""Small pictures of tickets: the frame in which the object is largest, with its mask, whole or cut to the object.

Pure: a frame as JPEG and a masklet in, a JPEG out.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from storage import rle
from storage.pixels import Mask, Rgb, box_of
from storage.records import Masklet
from storage.video import jpeg

WIDTH_PX = 320  # of a whole frame
SIDE_PX = 160  # of a square that is cut to the object
MARGIN = 1.4  # side of the cut, as a multiple of the longer side of the object's box
LEAST_PX = 24  # side of the cut, px of the video: a tiny object keeps some surroundings
FILL, LINE = (165, 123, 255), (214, 196, 255)  # RGB; as on the page
TINT = 0.38  # how much of the object's pixels is its colour
QUALITY = 82


def best_frame(masklet: Masklet) -> int:
    """The frame_idx on which the object is largest; the first one if it is on none."""
    return masklet.frame_idx[masklet.area_px.index(max(masklet.area_px))]


def thumbnail(frame: bytes, masklet: Masklet | None, frame_idx: int, *, cut: bool) -> bytes:
    """The thumbnail as JPEG. frame: JPEG of this frame. cut: only the object, if it is there, and a square."""
    bgr = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f"frame {frame_idx} is not a picture")
    picture, mask = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), None
    if masklet is not None and frame_idx in masklet.frame_idx:
        counts = masklet.rle[masklet.frame_idx.index(frame_idx)]
        mask = rle.decode(counts, masklet.height, masklet.width)
        if mask.shape != picture.shape[:2]:
            mask = _resized(mask.astype(np.uint8), picture.shape[1], picture.shape[0], cv2.INTER_NEAREST).astype(
                np.bool_
            )
    if cut:
        picture, mask = _cut(picture, mask)
    width = SIDE_PX if cut else WIDTH_PX
    small = _resized(picture, width, max(1, round(picture.shape[0] * width / picture.shape[1])), cv2.INTER_AREA)
    if mask is not None:
        small = _marked(small, mask)
    return jpeg(small, QUALITY)


def _cut(picture: Rgb, mask: Mask | None) -> tuple[Rgb, Mask | None]:
    """A square around the object; around the middle without one. Beyond the frame, its border is repeated."""
    height, width = picture.shape[:2]
    box = None if mask is None else box_of(mask)
    if box is None:
        side, middle = min(height, width), (width // 2, height // 2)
    else:
        x0, y0, x1, y1 = box
        side, middle = max(LEAST_PX, round(MARGIN * max(x1 - x0, y1 - y0))), ((x0 + x1) // 2, (y0 + y1) // 2)
    columns = np.clip(np.arange(side) + middle[0] - side // 2, 0, width - 1)
    rows = np.clip(np.arange(side) + middle[1] - side // 2, 0, height - 1)
    place = np.ix_(rows, columns)
    cut: Rgb = picture[place]
    return cut, None if mask is None else mask[place]


def _marked(small: Rgb, mask: Mask) -> Rgb:
    """The picture with the mask tinted and outlined. mask: of the picture before it was made small."""
    share = _resized(mask.astype(np.float32), small.shape[1], small.shape[0], cv2.INTER_AREA)[..., None]
    out = (small * (1 - TINT * share) + np.array(FILL) * TINT * share).astype(np.uint8)
    contours, _ = cv2.findContours((share[..., 0] > 0.25).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, contours, -1, LINE, 1, cv2.LINE_AA)
    return np.asarray(out, np.uint8)


def _resized(image: NDArray[Any], width: int, height: int, how: int) -> NDArray[Any]:
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), image.dtype)
