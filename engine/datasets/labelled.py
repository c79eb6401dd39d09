"""Labelled videos, wherever they are: a release of our store, a folder in one of SA-V's layouts, a DAVIS root.

Training and evaluation take a `Dataset` and know nothing of formats. A dataset is a list of videos that are opened one
at a time: masks stay compressed, frames are decoded when they are read, and nothing but the list grows with the number
of videos. `ClipSource` makes a trainer's clips of one.

Errors:
    DatasetError            one line: what is wrong with a dataset or with one of its videos
    └── NothingToTrainOn    no training video has a run of frames that begins with an object large enough to learn from
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
from storage.video import VideoError


class DatasetError(ValueError):
    """This is not a labelled dataset that we can open."""


# What a video that cannot be used raises: anything else is a bug. A blob that cannot be reached is not the video's.
BAD_VIDEO = (DatasetError, PictureError, sav.SavError, rle.BadRle, VideoError, BlobMissing, OSError)


class Reader(Protocol):
    """Frames by their index."""

    def read(self, frame_idx: int) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, kw_only=True)
class LabelledVideo:
    """A video and the masks of its objects. An object is absent from an annotated frame that has no mask of it."""

    video_id: str
    split: str  # "train", "val" or "test"
    height: int
    width: int
    frame_count: int
    frame_idx: tuple[int, ...]  # annotated frames, ascending
    objects: Mapping[str, Mapping[int, bytes]]  # object -> frame_idx -> compressed counts
    edits: Mapping[str, int]  # object -> frames that an annotator edited, where that is known
    frames: Callable[[], AbstractContextManager[Reader]] = field(repr=False, compare=False)

    @contextmanager
    def open(self) -> Iterator[Reader]:
        """The frames: `read(frame_idx)` gives uint8 (H, W, 3) RGB. Nothing is decoded before it is read."""
        with self.frames() as reader:
            yield reader

    def mask(self, name: str, frame_idx: int) -> NDArray[np.bool_]:
        """bool (H, W). Raises KeyError for an object that the video has not, BadRle for malformed counts."""
        counts = self.objects[name].get(frame_idx)
        return rle.decode(counts, self.height, self.width) if counts else np.zeros((self.height, self.width), bool)

    def area_px(self, name: str) -> dict[int, int]:
        """The pixels of an object on each annotated frame."""
        found = self.objects[name]
        return {i: rle.area(found[i], self.height, self.width) if i in found else 0 for i in self.frame_idx}


@dataclass(frozen=True)
class Entry:
    """A video of a dataset before it is opened."""

    video_id: str
    split: str | None  # None: only its annotation says
    load: Callable[[], LabelledVideo]


@dataclass(frozen=True)
class Dataset:
    """Videos to be opened one at a time. Can be pickled, so that processes may share it."""

    name: str
    kind: str  # "release", "SA-V" or "DAVIS"
    entries: tuple[Entry, ...] = field(repr=False)
    split: str | None = None  # the only one that is given; None: all

    def __len__(self) -> int:
        """Videos of all splits."""
        return len(self.entries)

    def load(self, number: int) -> LabelledVideo | None:
        """One video; None where it is of another split. Raises one of BAD_VIDEO for one that cannot be used."""
        entry = self.entries[number]
        if self.split and entry.split and entry.split != self.split:
            return None
        video = entry.load()
        return video if self.split in (None, video.split) else None

    def videos(self) -> Iterator[LabelledVideo]:
        """The videos of the split. Raises one of BAD_VIDEO for one that cannot be used: an exam leaves none out."""
        for number in range(len(self)):
            if (video := self.load(number)) is not None:
                yield video

    def only(self, split: str | None) -> Dataset:
        """The same videos, those of a split."""
        return replace(self, split=split)


# ---------------------------------------------------------------------------------------------------- clips to train on
