"""True masks of objects, kept compressed. The protocols prompt from them and measure against them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from engine.datasets.labelled import Dataset, LabelledVideo
from storage import rle
from storage.pixels import Mask
from storage.records import Masklet
from storage.wording import counted
from validation import jf

MOST_LOADED = 100  # videos that are loaded to list the splits of a dataset

Read = Callable[[int], NDArray[np.uint8]]  # frame_idx -> uint8 RGB (H, W, 3)


class NothingHeldOut(Exception):
    """No object of a held-out video is visible on a measured frame."""


def nothing_held_out(data: Dataset, most_frames: int | None) -> NothingHeldOut:
    """The error that says why a dataset has no object to measure.

    most_frames: largest number of annotated frames in a video of the split; None: the split has no video.
    """
    if most_frames is None and data.split:
        return NothingHeldOut(f"{data.name}: no video of the split {data.split}; there are: {_splits(data)}")
    if (most_frames or 0) < 3:  # the first and the last do not count
        return NothingHeldOut(f"{data.name}: fewer than 3 annotated frames: nothing to score")
    return NothingHeldOut(
        f"{data.name}: no object is visible between the first and the last annotated frame of a video of the split "
        f"{data.split or 'all'}"
    )


def _splits(data: Dataset) -> str:
    """Each split with its number of videos. Loads at most MOST_LOADED videos whose split only the annotation tells."""
    splits = Counter(entry.split for entry in data.entries if entry.split)
    unknown = [entry for entry in data.entries if not entry.split]
    splits.update(entry.load().split for entry in unknown[:MOST_LOADED])
    found = ", ".join(f"{split} ({count})" for split, count in sorted(splits.items())) or "no videos"
    rest = len(unknown) - MOST_LOADED
    return f"{found} and {counted(rest, 'video')} more" if rest > 0 else found


class Compressed(Sequence[Mask]):
    """A sequence of masks that are decoded on access: decoded masks of all objects may not fit in memory."""

    def __init__(self, counts: Sequence[bytes], height: int, width: int) -> None:
        self._counts, self._height, self._width = counts, height, width

    def __len__(self) -> int:
        return len(self._counts)

    @overload
    def __getitem__(self, index: int) -> Mask: ...
    @overload
    def __getitem__(self, index: slice) -> Compressed: ...
    def __getitem__(self, index: int | slice) -> Mask | Compressed:
        if isinstance(index, slice):
            return Compressed(self._counts[index], self._height, self._width)
        return rle.decode(self._counts[index], self._height, self._width)


@dataclass(frozen=True)
class Truth:
    """An object's true masks on the annotated frames, ascending. masks: bool (H, W) each."""

    frame_idx: tuple[int, ...]
    masks: Sequence[Mask]

    @staticmethod
    def of(masklet: Masklet) -> Truth:
        """The masks of a masklet that people verified."""
        return Truth(masklet.frame_idx, Compressed(masklet.rle, masklet.height, masklet.width))

    @staticmethod
    def all_of(video: LabelledVideo) -> dict[str, Truth]:
        """The masks of every object of a video."""
        hw = video.height, video.width
        nothing = rle.empty(*hw)
        return {
            name: Truth(video.frame_idx, Compressed([of.get(i, nothing) for i in video.frame_idx], *hw))
            for name, of in video.objects.items()
        }

    def measure(self, made: Sequence[bytes], hw: tuple[int, int]) -> jf.JF | None:
        """J and F of masks on the annotated frames from `first` on; on the frames before, the object has no mask.

        Like SA-V's evaluator, it leaves out the first and the last annotated frame of the video. The prompted frame of
        an object that enters later therefore counts. None if no counted frame shows the object.
        """
        return jf.of_masklet(self.with_nothing_before(made, hw), self.masks)

    def with_nothing_before(self, made: Sequence[bytes], hw: tuple[int, int]) -> Compressed:
        """Masks on the annotated frames from `first` on, and empty masks on the frames before."""
        return Compressed([*[rle.empty(*hw)] * (len(self.masks) - len(made)), *made], *hw)

    @property
    def first(self) -> int | None:
        """Index of the first annotated frame that shows the object; None if it is never visible."""
        return next((i for i, mask in enumerate(self.masks) if mask.any()), None)
