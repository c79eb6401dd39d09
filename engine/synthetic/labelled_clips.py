"""Synthetic clips as a labelled dataset in memory, so that every protocol can measure on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.datasets.labelled import Dataset, Entry, LabelledVideo
from engine.synthetic.domains.catalogue import DOMAINS, HELD_OUT
from engine.synthetic.domains.drawing import Size
from model.clips import Clip
from storage import rle

LEAST_PX = 100  # an object that never reaches this area is left out
AT_6_FPS = Size(frames=18, stride=4)  # three seconds


class _Frames:
    """Reads the frames of a clip as from a video file."""

    def __init__(self, frames: NDArray[np.uint8]) -> None:
        self._frames = frames

    def read(self, frame_idx: int) -> NDArray[np.uint8]:
        """uint8 RGB (H, W, 3)."""
        frame: NDArray[np.uint8] = self._frames[frame_idx]
        return frame


def held_out_of_domain(domain: str, clips: int, size: Size = AT_6_FPS) -> Dataset:
    """Held-out clips of a domain of `DOMAINS`, at 6 frames a second."""
    return dataset(f"held-out {domain}", clips, lambda n: DOMAINS[domain].render(HELD_OUT + n, size))


def dataset(name: str, clips: int, draw: Callable[[int], Clip]) -> Dataset:
    """Clips as held-out videos. draw: number of a clip -> clip."""
    entries = (Entry(f"clip-{n:03d}", "val", partial(_labelled, f"clip-{n:03d}", draw, n)) for n in range(clips))
    return Dataset(name, "synthetic", tuple(entries), "val")


def large_objects(clip: Clip) -> list[int]:
    """The numbers of the objects that reach LEAST_PX on some frame."""
    return [k for k in range(clip.masks.shape[1]) if clip.masks[:, k].sum((1, 2)).max() >= LEAST_PX]


def _labelled(video_id: str, draw: Callable[[int], Clip], number: int) -> LabelledVideo:
    clip = draw(number)
    t, _, h, w = clip.masks.shape
    large = large_objects(clip)
    shown = {k: [i for i in range(t) if clip.masks[i, k].any()] for k in large}

    @contextmanager
    def opened() -> Iterator[_Frames]:
        yield _Frames(clip.frames)

    return LabelledVideo(
        video_id=video_id,
        split="val",
        height=h,
        width=w,
        frame_count=t,
        frame_idx=tuple(range(t)),
        objects={str(k): {i: rle.encode(clip.masks[i, k]) for i in shown[k]} for k in large},
        edits={},
        frames=opened,
    )
