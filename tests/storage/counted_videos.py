"""Odd videos whose frames show a counter, and a release of one whose masks show the same counter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from storage import rle
from storage.blobs.folder import LocalBlobs
from storage.dataset.releases import Release
from storage.records import STRIDE, Masklet, Video
from storage.videos import frame_times, video
from storage.videos.normalise import Limits, Normalised, normalise
from tests.storage.made_videos import H, W, make, number_of, numbered
from tests.storage.rows import make_masklet, make_video
from tests.storage.videos.test_source_reader import cut_at_the_front, open_gop, variable, with_b_frames


def turned(path: Path) -> Path:
    """A portrait video that is stored lying on its side."""
    return make(path, [np.rot90(numbered(i, W, H), 1).copy() for i in range(60)], fps=30, rotation=-90)


def late_start(path: Path) -> Path:
    """The first frame is at 1.5 s."""
    return make(path, [numbered(i) for i in range(75)], times_ms=[1500 + 40 * i for i in range(75)])


def lost_frames(path: Path) -> Path:
    """30 frames a second, some of which are missing."""
    kept = [i for i in range(90) if i not in (3, 4, 5, 31, 77)]
    return make(path, [numbered(i) for i in kept], times_ms=[round(i * 1000 / 30) for i in kept])


def plain(fps: int, count: int) -> Callable[[Path], Path]:
    return lambda path: make(path, [numbered(i) for i in range(count)], fps=fps)


#: kind -> name of the file, and what makes it
ODD = {
    "variable rate": ("v.mp4", variable),
    "edit list": ("v.mp4", cut_at_the_front),
    "B-frames": ("v.mp4", with_b_frames),
    "open groups of pictures": ("v.mp4", open_gop),
    "AVI with B-frames": ("v.avi", with_b_frames),
    "rotation": ("v.mp4", turned),
    "late start": ("v.mkv", late_start),
    "lost frames": ("v.mp4", lost_frames),
    "25 fps": ("v.mp4", plain(25, 75)),
    "30 fps": ("v.mp4", plain(30, 90)),
    "60 fps": ("v.mp4", plain(60, 120)),
    "4 fps": ("v.mp4", plain(4, 12)),
}


def shown_by_opencv(path: Path) -> list[int]:
    """The counter of each frame, in the order in which OpenCV reads the file."""
    capture = cv2.VideoCapture(str(path))
    found = []
    while True:
        more, bgr = capture.read()
        if not more:
            capture.release()
            return found
        found.append(number_of(bgr))


def coded(number: int, height: int, width: int) -> np.ndarray:
    """A mask that shows a counter by its area. A second part and a hole make no polygon trivial."""
    mask = np.zeros((height, width), bool)
    mask[1:4, 1:4] = True
    mask[2, 2] = False
    mask[6, 1 : 2 + number % 50] = True
    mask[8, 1 : 2 + number // 50] = True
    return mask


def counter_of(mask: np.ndarray) -> int:
    return int(mask[6].sum()) - 1 + 50 * (int(mask[8].sum()) - 1)


class CountedRelease:
    """A release of one video, as ingest stores it, with one masklet: what exporters use of it."""

    name, digest = "release-0001", "0" * 64

    def __init__(self, root: Path, source: Path) -> None:
        self.blobs = LocalBlobs(root)
        made = normalise(source, root / "stored.mp4", limits=Limits(min_s=0.5, min_side_px=32))
        self.blobs.create("frames.json", frame_times.dump(made))
        self.video = _row(made, source)
        stored = [number_of(rgb) for _, rgb in video.frames(root / "stored.mp4")]
        self.counters = {k: stored[k] for k in range(0, made.frame_count, STRIDE)}
        self.masklet = _masklet(made, self.counters)

    def videos(self) -> list[Video]:
        return [self.video]

    def masklets(self, _: object) -> list[Masklet]:
        return [self.masklet]

    def iter_masklets(self) -> list[Masklet]:
        return [self.masklet]

    def masklet_counts(self) -> dict[str, int]:
        return {"v1": 1}

    def as_release(self) -> Release:
        return cast(Release, self)


def _row(made: Normalised, source: Path) -> Video:
    return make_video(
        source_uri=str(source),
        video_key="stored.mp4",
        frames_key="frames.json",
        height=made.height,
        width=made.width,
        frame_count=made.frame_count,
        duration_s=made.duration_s,
        source_fps=made.source_fps,
        variable_rate=made.variable_rate,
    )


def _masklet(made: Normalised, counters: dict[int, int]) -> Masklet:
    masks = [coded(counter, made.height, made.width) for counter in counters.values()]
    return make_masklet(
        height=made.height,
        width=made.width,
        frame_idx=tuple(counters),
        rle=tuple(map(rle.encode, masks)),
        area_px=tuple(int(mask.sum()) for mask in masks),
        score=(1.0,) * len(masks),
        object_score=(1.0,) * len(masks),
        stability=(1.0,) * len(masks),
    )
