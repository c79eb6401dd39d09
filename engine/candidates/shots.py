"""Shots and windows: where a video is cut, how much each frame changes, and the windows in which objects are searched.

A window never spans a cut. A long shot has several windows, each of which begins on the last frame of the one before.
Knows nothing of models and of objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector
from scenedetect.stats_manager import StatsManager

from storage.pixels import Rgb
from storage.records import FPS, STRIDE

_SIDE_PX = 256  # longer side of the pictures that are compared
_BACK = 2  # frames before and after a cut that it is compared with


@dataclass(frozen=True)
class Glance:
    """What a quick look at some frames of a video shows."""

    cuts: tuple[int, ...]  # the first frame of each shot but the first
    change: dict[
        int, float
    ]  # frame_idx -> mean difference to the frame before, in grey levels of hue, saturation, value


@dataclass(frozen=True)
class Window:
    """Consecutive frames of one shot."""

    frames: range  # frame_idx
    continues: bool  # its first frame is the last one of the window before

    @property
    def annotated(self) -> range:
        """Those of its frames on which masks are kept."""
        first = self.frames.start + -self.frames.start % STRIDE
        return range(first, self.frames.stop, STRIDE)


def glance(read: Callable[[int], Rgb], frames: range) -> Glance:
    """Looks at frames in their order, one in memory at a time.

    read: gives the frame of an index, uint8 (H, W, 3) RGB.
    """
    detector, stats = AdaptiveDetector(window_width=_BACK, min_scene_len=_BACK), StatsManager()
    detector.stats_manager = stats
    rate = FPS / frames.step
    cuts, change = [], {}
    # The detector decides about a frame when it has seen the next two: the last one is shown again
    for place in range(len(frames) + _BACK):
        time = FrameTimecode(place, rate)
        frame_idx = frames[min(place, len(frames) - 1)]
        found = detector.process_frame(time, _small(read(frame_idx)))
        cuts += [frames[cut.frame_num] for cut in found if cut.frame_num < len(frames)]
        if place < len(frames):
            change[frame_idx] = float(stats.get_metrics(time, ["content_val"])[0] or 0.0)
    return Glance(tuple(cuts), change)


def windows(frames: range, cuts: Sequence[int], longest: int) -> list[Window]:
    """The windows of a video, in order. cuts: first frames of shots, among `frames`.  longest: frames, at least 2.

    Windows of one shot share a frame, which is an annotated one.
    """
    step = frames.step
    reach = max(longest - 1, STRIDE)  # from the first frame of a window to its last one
    found = []
    for start, stop in zip((frames.start, *cuts), (*cuts, frames.stop), strict=True):
        begin = start
        while begin + reach < stop - step:
            end = (begin + reach) // STRIDE * STRIDE
            found.append(Window(range(begin, end + 1, step), begin > start))
            begin = end
        found.append(Window(range(begin, stop, step), begin > start))
    return found


def _small(rgb: Rgb) -> Rgb:
    """The picture as the detector compares it: small, and in the order BGR."""
    share = min(1.0, _SIDE_PX / max(rgb.shape[:2]))
    size = (max(1, round(rgb.shape[1] * share)), max(1, round(rgb.shape[0] * share)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)[..., ::-1], order="C")
