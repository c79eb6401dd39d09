"""Videos that lie on disk as a folder of pictures, and masks that lie beside them as PNGs.

What DAVIS has in common with SA-V's validation and test sets. Does not know object ids, image sets or splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from storage.errors import first_line
from storage.pixels import PictureError, Rgb
from storage.videos.reader import CachedReader

SUFFIXES = (".jpg", ".jpeg", ".png")
# Pillow raises SyntaxError for a damaged PNG, and DecompressionBombError for one that claims to be huge
_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True, kw_only=True)
class PictureVideo:
    """One video on disk; no picture is decoded yet."""

    name: str
    height: int
    width: int
    pictures: tuple[Path, ...]  # (T,) in order

    def check_size(self, path: Path, mask: NDArray[np.generic]) -> None:
        """Raises PictureError for a mask of another size than the pictures."""
        if mask.shape != (self.height, self.width):
            raise PictureError(f"{path}: {_by(*mask.shape)}, its pictures are {_by(self.height, self.width)}")


class PictureReader(CachedReader):
    """The frames of a video: decodes a picture when it is read."""

    def __init__(self, name: str, pictures: Sequence[Path], keep: int = 4) -> None:
        """pictures: (T,) in order."""
        super().__init__(name, keep)
        self._pictures = pictures
        self.frame_count = len(pictures)

    def _decode(self, frame_idx: int) -> Rgb:
        return _read_rgb(self._pictures[frame_idx])

    def _release(self) -> None:
        """Each picture is closed once it is read."""


def open_folder(folder: Path, name: str) -> PictureVideo:
    """The pictures of a video; their size comes from their headers.

    Raises PictureError for a folder without pictures, a file that is not a picture, and pictures of several sizes.
    """
    pictures = in_order(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not pictures:
        raise PictureError(f"{folder}: no pictures of the sequence {name} ({', '.join(SUFFIXES)})")
    for path, other in pairwise(pictures):
        if path.stem == other.stem:
            raise PictureError(f"{other}: a second picture of the frame {path.name}")
    width, height = _size(pictures[0])
    for path in pictures:
        if (size := _size(path)) != (width, height):
            raise PictureError(f"{path}: {_by(size[1], size[0])}, the sequence began with {_by(height, width)}")
    return PictureVideo(name=name, height=height, width=width, pictures=tuple(pictures))


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Paths by name, with numbers compared as numbers: 2.jpg before 10.jpg. Leaves out hidden files, as macOS adds."""

    def by_number(path: Path) -> tuple[list[tuple[int, str]], Path]:
        parts = re.findall(r"[0-9]+|[^0-9]+", path.stem)
        return [(int(part), "") if part[0] in "0123456789" else (-1, part) for part in parts], path

    return sorted((path for path in paths if not path.name.startswith(".")), key=by_number)


def read_png(path: Path) -> tuple[NDArray[np.uint8], bool]:
    """The values of a mask, uint8 (H, W), and whether they are indices of a palette.

    Raises PictureError for a file that is not a picture, and for a picture without a palette or 8 bits of grey.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise PictureError(f"{path}: neither a palette image nor grey of 8 bits, but {image.mode}")
            return np.array(image).astype(np.uint8), image.mode == "P"
    except _UNREADABLE as error:
        raise PictureError(f"{path}: not a picture ({first_line(error)})") from error


def _read_rgb(path: Path) -> Rgb:
    """A whole picture, as stored: masks have no EXIF orientation, so that of a picture is not applied either."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise PictureError(f"{path}: not 8 bits a channel, but {image.mode}")
            return np.array(image.convert("RGB"))
    except _UNREADABLE as error:
        raise PictureError(f"{path}: not a whole picture ({first_line(error)})") from error


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header."""
    try:
        with Image.open(path) as image:
            return image.size
    except _UNREADABLE as error:
        raise PictureError(f"{path}: not a picture") from error


def _by(height: int, width: int) -> str:
    return f"{height} x {width}"
