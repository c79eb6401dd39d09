"""Thumbnails: a whole frame with its mask, small. Pure: a frame as JPEG and a mask in, a JPEG out.

`portraits` has the pictures that are cut to the object.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.pixels import Mask, Rgb
from storage.videos.video import jpeg

WIDTH_PX = 320
FILL, LINE = (165, 123, 255), (214, 196, 255)  # RGB; as on the page
TINT = 0.38  # how much of the object's pixels is its colour
QUALITY = 82


def thumbnail(frame: bytes, mask: Mask | None) -> bytes:
    """The thumbnail as JPEG, WIDTH_PX wide. frame: JPEG. mask: bool (H, W) of this frame, or None.

    Raises ValueError if the frame is no picture.
    """
    bgr = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError("the frame is not a picture")
    height, width = bgr.shape[:2]
    small = _resized(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), WIDTH_PX, max(1, round(height * WIDTH_PX / width)))
    return jpeg(small if mask is None else _marked(small, mask), QUALITY)


def _marked(small: Rgb, mask: Mask) -> Rgb:
    """The picture with the mask tinted and outlined. mask: of the picture before it was made small."""
    share = _resized(mask.astype(np.float32), small.shape[1], small.shape[0])[..., None]
    out = (small * (1 - TINT * share) + np.array(FILL) * TINT * share).astype(np.uint8)
    contours, _ = cv2.findContours((share[..., 0] > 0.25).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, contours, -1, LINE, 1, cv2.LINE_AA)
    return np.asarray(out, np.uint8)


def _resized(image: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), image.dtype)
