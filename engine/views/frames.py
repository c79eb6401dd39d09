"""Frames and masks of a release's videos, and grids of pictures.

A frame shows the masks that were made on it: only annotated frames are drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np

from engine import pictures
from engine.pictures import Image
from storage import rle
from storage.dataset.releases import Release
from storage.pixels import Mask
from storage.records import Masklet, Video
from storage.videos.video import FrameReader

_GAP_PX = 6
_NAME = 40  # characters of a name in a caption
_LETTER_PX = 7.6  # widest average letter of a caption


@dataclass(frozen=True)
class Cell:
    """A picture with its caption."""

    image: Image
    caption: str


@contextmanager
def reader(release: Release, video: Video) -> Iterator[FrameReader]:
    """A reader of the stored video, closed after the block."""
    with FrameReader(release.blobs.fetch(video.video_key)) as opened:
        yield opened


def video_of(release: Release, video_id: str) -> Video:
    """The row of a video; opens only the files that may have it. Raises ValueError if there is none."""
    files = [file for file in release.files("videos") if file.video_id in (None, video_id)]
    found = [row for file in files for row in release.rows(Video, file) if row.video_id == video_id]
    if not found:
        raise ValueError(f"release {release.name} has no video {video_id!r:.120}")
    return min(found, key=lambda row: row.batch_id)


def masks(rows: Sequence[Masklet], frame_idx: int) -> list[Mask]:
    """The mask of each masklet on a frame, bool (H, W); empty where it has none. Raises BadRle."""
    return [mask_at(row, frame_idx) for row in rows]


def mask_at(row: Masklet, frame_idx: int) -> Mask:
    """bool (H, W). Raises BadRle."""
    if frame_idx not in row.frame_idx:
        return np.zeros((row.height, row.width), np.bool_)
    return rle.decode(row.rle[row.frame_idx.index(frame_idx)], row.height, row.width)


def busiest(rows: Sequence[Masklet]) -> int:
    """The frame that shows the most objects; of several, the one in the middle. 0 if no frame shows any."""
    shown = Counter(f for row in rows for f, area in zip(row.frame_idx, row.area_px, strict=True) if area)
    most = max(shown.values(), default=0)
    best = sorted(f for f, number in shown.items() if number == most)
    return best[len(best) // 2] if best else 0


def short_name(video: Video) -> str:
    """What a person calls the video: its name in its dataset, or the name of its file."""
    name = video.source_name or video.source_uri.rsplit("/", 1)[-1]
    return name if len(name) <= _NAME else f"{name[:_NAME]}..."


def made_by(checkpoints: Iterable[str]) -> str:
    """`by micro, by hand`: who made the masks, from the column `checkpoint`."""
    return ", ".join(name if name == "by hand" else f"by {name}" for name in checkpoints)


def grid(cells: Sequence[Cell], *, columns: int, width_px: int) -> Image:
    """Pictures in rows, with white gaps. Each is scaled into a cell of one size, none is stretched."""
    columns = min(columns, len(cells))
    height_px = max(round(cell.image.shape[0] * width_px / cell.image.shape[1]) for cell in cells)
    height_px = min(height_px, round(1.25 * width_px))
    rows = []
    for start in range(0, len(cells), columns):
        row = [_fitted(cell, width_px, height_px) for cell in cells[start : start + columns]]
        row += [np.full((height_px, width_px, 3), 255, np.uint8)] * (columns - len(row))
        rows.append(pictures.side_by_side(row, width_px=width_px, height_px=height_px, gap_px=_GAP_PX))
        rows.append(np.full((_GAP_PX, rows[0].shape[1], 3), 255, np.uint8))
    return np.concatenate(rows[:-1])


def _fitted(cell: Cell, width_px: int, height_px: int) -> Image:
    """The picture in the middle of a grey cell, with its caption."""
    high, wide = cell.image.shape[:2]
    scale = min(width_px / wide, height_px / high)
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    out = np.full((height_px, width_px, 3), 40, np.uint8)
    left, top = (width_px - size[0]) // 2, (height_px - size[1]) // 2
    out[top : top + size[1], left : left + size[0]] = pictures.scaled(cell.image, *size)
    most = int(width_px / _LETTER_PX)
    caption = cell.caption if len(cell.caption) <= most else f"{cell.caption[: most - 3]}..."
    return pictures.captioned(out, caption)


class Stored:
    """Frames of stored videos: keeps the last video open. A context manager: leaving it closes the video."""

    def __init__(self, opened: Callable[[str], AbstractContextManager[FrameReader]]) -> None:
        """opened: gives the reader of a video by its id."""
        self._opened = opened
        self._stack = ExitStack()
        self._now: tuple[str, FrameReader] | None = None

    def read(self, video_id: str, frame_idx: int) -> Image:
        """uint8 (H, W, 3) RGB. Raises ValueError for an unknown video or frame, BlobError, VideoError."""
        if self._now is None or self._now[0] != video_id:
            self._stack.close()
            self._now = video_id, self._stack.enter_context(self._opened(video_id))
        return self._now[1].read(frame_idx)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def of_releases(first: Release, second: Release) -> Stored:
    """The frames of the videos of two releases; those of the first where it has the video."""

    def opened(video_id: str) -> AbstractContextManager[FrameReader]:
        try:
            return reader(first, video_of(first, video_id))
        except ValueError:
            return reader(second, video_of(second, video_id))

    return Stored(opened)
