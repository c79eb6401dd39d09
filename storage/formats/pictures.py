"""Videos that lie on disk as a folder of pictures, and masks that lie beside them as PNGs.

What DAVIS and SA-V's validation and test sets share. Knows nothing of object ids, image sets or splits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from storage.pixels import PictureError, Rgb

SUFFIXES = (".jpg", ".jpeg")


class PictureReader:
    """The frames of a video: reads a picture when it is asked for, and keeps the last `keep` of them."""

    def __init__(self, name: str, pictures: Sequence[Path], keep: int = 4) -> None:
        """pictures: (T,) in order."""
        self._name, self._pictures, self._keep = name, pictures, keep
        self._kept: OrderedDict[int, Rgb] = OrderedDict()

    def read(self, frame_idx: int) -> Rgb:
        """One frame, uint8 (H, W, 3) RGB, read-only. Raises ValueError outside the video, PictureError for damage."""
        if not 0 <= frame_idx < len(self._pictures):
            raise ValueError(f"{self._name} has frames 0 to {len(self._pictures) - 1}, not {frame_idx}")
        if frame_idx not in self._kept:
            bgr = cv2.imread(str(self._pictures[frame_idx]), cv2.IMREAD_COLOR)
            if bgr is None:
                raise PictureError(f"{self._pictures[frame_idx]}: not a picture")
            rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
            rgb.flags.writeable = False
            self._kept[frame_idx] = rgb
            if len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        return self._kept[frame_idx]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.clear()


def of_folder(folder: Path, name: str) -> tuple[tuple[Path, ...], int, int]:
    """The pictures of a video in order, their height and their width, from their headers.

    Raises PictureError: no pictures, one that is none, several sizes.
    """
    pictures = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not pictures:
        raise PictureError(f"{folder}: no pictures of the sequence {name}")
    width, height = _size(pictures[0])
    for path in pictures:
        if (size := _size(path)) != (width, height):
            raise PictureError(f"{path}: {_by(size[1], size[0])}, the sequence began with {_by(height, width)}")
    return tuple(pictures), height, width


def read_png(path: Path) -> tuple[NDArray[np.uint8], bool]:
    """The values of a mask, uint8 (H, W), and whether they are a palette's.

    Raises PictureError for what is no picture, and for one that is neither of a palette nor grey, 8 bits a pixel.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise PictureError(f"{path}: neither a palette image nor grey of 8 bits, but {image.mode}")
            return np.array(image).astype(np.uint8), image.mode == "P"
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow's word for a damaged PNG
        raise PictureError(f"{path}: not a picture ({str(error).splitlines()[0]})") from error


def check_size(path: Path, mask: NDArray[np.generic], height: int, width: int) -> None:
    """Raises PictureError for a mask that is not as large as the pictures of its video."""
    if mask.shape != (height, width):
        raise PictureError(f"{path}: {_by(*mask.shape)}, its pictures are {_by(height, width)}")


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header."""
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise PictureError(f"{path}: not a picture") from error


def _by(height: int, width: int) -> str:
    return f"{height} x {width}"
