"""Labelled videos: what training and evaluation use, whatever the format on disk.

A dataset is a list of videos that are opened one at a time. Masks stay compressed and frames are decoded when they are
read, so only the list grows with the number of videos. Knows nothing about formats (`layouts`) or training clips
(`clip_sampler`).

Errors:
    DatasetError            one line: what is wrong with a dataset or with one of its videos
    └── NothingToTrainOn    no training video can give a clip (see `clip_sampler`)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from storage import rle
from storage.blobs.base import BlobMissing
from storage.formats import sav
from storage.pixels import PictureError
from storage.videos.reader import VideoError


class DatasetError(ValueError):
    """This is not a labelled dataset in a known format."""


# Errors of a video that cannot be used. Any other error is a bug, or the store is down: then the run must stop.
BAD_VIDEO = (DatasetError, PictureError, sav.SavError, rle.BadRle, VideoError, BlobMissing, OSError)


class Reader(Protocol):
    """Frames by their index."""

    def read(self, frame_idx: int) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, kw_only=True)
class LabelledVideo:
    """A video and the masks of its objects. An object is absent from an annotated frame if it has no mask there."""

    video_id: str
    split: str  # "train", "val" or "test"
    height: int
    width: int
    frame_count: int
    frame_idx: tuple[int, ...]  # annotated frames, ascending
    objects: Mapping[str, Mapping[int, bytes]]  # object -> frame_idx -> compressed counts
    edits: Mapping[str, int]  # object -> number of frames that an annotator edited; {} if unknown
    frames: Callable[[], AbstractContextManager[Reader]] = field(repr=False, compare=False)
    rejected: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)  # as `objects`: no object for people
    metadata: Mapping[str, str] = field(default_factory=dict)  # what the dataset says about the video, as text

    @contextmanager
    def open(self) -> Iterator[Reader]:
        """A reader: `read(frame_idx)` gives uint8 (H, W, 3) RGB and decodes only this frame."""
        with self.frames() as reader:
            yield reader

    def mask(self, name: str, frame_idx: int) -> NDArray[np.bool_]:
        """bool (H, W). Raises KeyError for an unknown object, BadRle for malformed counts."""
        return self._decoded(self.objects[name].get(frame_idx))

    def place(self, name: str, frame_idx: int) -> NDArray[np.bool_]:
        """As `mask`, for a name in `rejected`."""
        return self._decoded(self.rejected[name].get(frame_idx))

    def _decoded(self, counts: bytes | None) -> NDArray[np.bool_]:
        return rle.decode(counts, self.height, self.width) if counts else np.zeros((self.height, self.width), bool)

    def area_px(self, name: str) -> dict[int, int]:
        """The area of an object on each annotated frame, in pixels."""
        found = self.objects[name]
        return {i: rle.area(found[i], self.height, self.width) if i in found else 0 for i in self.frame_idx}


@dataclass(frozen=True)
class Entry:
    """A video of a dataset before it is opened."""

    video_id: str
    split: str | None  # None: known only after loading
    load: Callable[[], LabelledVideo]


@dataclass(frozen=True)
class Dataset:
    """Videos that are opened one at a time. Can be pickled for worker processes."""

    name: str
    kind: str  # "release", "SA-V" or "DAVIS"
    entries: tuple[Entry, ...] = field(repr=False)
    split: str | None = None  # only videos of this split; None: all

    def __len__(self) -> int:
        """Videos of all splits."""
        return len(self.entries)

    def load(self, number: int) -> LabelledVideo | None:
        """One video; None if it belongs to another split. Raises one of BAD_VIDEO if it cannot be used."""
        entry = self.entries[number]
        if self.split and entry.split and entry.split != self.split:
            return None
        video = entry.load()
        return video if self.split in (None, video.split) else None

    def videos(self) -> Iterator[LabelledVideo]:
        """The videos of the split. Raises one of BAD_VIDEO for a bad video: an evaluation must not skip any."""
        for number in range(len(self)):
            if (video := self.load(number)) is not None:
                yield video

    def only(self, split: str | None) -> Dataset:
        """The same dataset, limited to a split. None: all."""
        return replace(self, split=split)
