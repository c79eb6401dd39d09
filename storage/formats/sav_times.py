"""Where the masks of an SA-V annotation belong: which frame of the video at 24 fps shows what each mask was made on.

SA-V's masks are on every k-th frame of the video's file. An annotation may state the number of these frames and the
duration. It may also be made on a version of the video at another constant rate; then its masks are placed by time.
Import and datasets use this one rule. Knows numbers and times. Does not know files, masks or JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from storage.records import FPS, STRIDE, Video
from storage.videos.source_file import frame_count_at_24, is_variable, nearest_frames
from storage.wording import counted

MAX_STEP = 60  # frames between two annotated frames, at most
_OFF_GRID = 0.25  # of an interval: a frame that is further from every multiple of it is not on this grid


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What is known about the frames of a video."""

    frame_count: int  # at 24 fps
    source_s: Sequence[float] = ()  # (N,) s from the first frame, ascending, of each frame of the file; empty: unknown
    variable_rate: bool  # of the file

    @classmethod
    def of(cls, source_s: Sequence[float]) -> Timing:
        """Timing of a file whose frames have these times."""
        times = np.unique(source_s).tolist()
        return cls(frame_count=frame_count_at_24(times), source_s=source_s, variable_rate=is_variable(times))

    @property
    def duration_s(self) -> float:
        return self.frame_count / FPS


def timing_of(video: Video, source_s: Sequence[float]) -> Timing:
    """What is known of a stored video. A video of an earlier version has no times: at 24 fps, they are known."""
    if not source_s and not video.variable_rate and abs(video.source_fps - FPS) * video.duration_s < 0.5:
        source_s = [k / FPS for k in range(video.frame_count)]
    return Timing(frame_count=video.frame_count, source_s=source_s, variable_rate=video.variable_rate)


def placed(count: int, frame_count: int, duration_s: float, timing: Timing) -> dict[int, int]:
    """The place of each annotated frame in the video at 24 fps: annotated frame -> frame_idx, ascending.

    count: annotated frames.  frame_count, duration_s: as the annotation states them; 0 if it does not.
    An annotated frame that the video at 24 fps does not show is left out.
    Raises ValueError with the figures of both if they do not tell which frames were annotated.
    """
    at_24, source = timing.frame_count, len(timing.source_s)
    if duration_s and abs(math.ceil(duration_s * FPS / STRIDE - 1e-6) - math.ceil(at_24 / STRIDE)) > 1:
        annotated = counted(count, "annotated frame")
        raise ValueError(f"{annotated} in {duration_s:g} s, the video has {timing.duration_s:g} s")
    if not frame_count:
        return _by_measured_figures(count, timing)
    off_by_one = not timing.variable_rate and abs(frame_count - source) == 1  # readers differ about a last frame
    if source and (frame_count == source or off_by_one):
        return _on_every(_step(count, frame_count, timing.duration_s), count, range(source), timing)
    if duration_s and not timing.variable_rate:
        if not _lacks_frames(frame_count, frame_count / duration_s, timing):
            return frame_indices(count, frame_count, duration_s)
    elif duration_s and (numbers := _with_gaps(frame_count, duration_s / frame_count, timing)):
        return _on_every(_step(count, frame_count, duration_s), count, numbers, timing)
    elif abs(frame_count - at_24) <= 1:
        step = _step(count, frame_count, timing.duration_s)
        found = _on_every_at_24(step, count)
        # of a variable rate, a count near both does not tell whose frames are numbered
        if abs(frame_count - source) > 1 or found == _on_every(step, count, range(source), timing):
            return found
    stated = counted(frame_count, "frame") + (f" in {duration_s:g} s" if duration_s else "")
    raise ValueError(f"the times of its masks are unknown: {stated} annotated, the video has {_figures(timing)}")


def frame_indices(count: int, frame_count: int, duration_s: float) -> dict[int, int]:
    """`placed` by time alone, for a constant rate: every k-th of `frame_count` frames that take `duration_s`.

    k follows from the counts; of several, the one nearest to 6 annotated frames a second. One annotated frame may be
    missing or too many.
    Raises ValueError if no k fits.
    """
    rate, step = frame_count / duration_s, _step(count, frame_count, duration_s)
    at: dict[int, int] = {}
    for t in range(count):
        frame_idx = math.floor(t * step * FPS / rate + 0.5)
        shown = math.ceil(frame_idx * rate / FPS - 0.5 - 1e-6)  # the nearest frame; of two, the earlier
        if shown == t * step:
            at[t] = frame_idx
    return at


def _by_measured_figures(count: int, timing: Timing) -> dict[int, int]:
    """`placed` for an annotation that does not state its frames: they must fit those of the file, or those at 24 fps.

    The frames of the file come first: SA-V's masks are on these.
    """
    at_24, source = timing.frame_count, len(timing.source_s)
    if source and (step := _exact_step(count, source, timing.duration_s)):
        return _on_every(step, count, range(source), timing)
    alike = not timing.variable_rate and source == at_24  # the same frames: one more or less changes no place
    if alike and abs(math.ceil(at_24 / STRIDE) - count) <= 1:
        return _on_every_at_24(STRIDE, count)
    if source and (step := _exact_step(count, at_24, timing.duration_s)):
        return _on_every_at_24(step, count)
    what = f"{counted(count, 'annotated frame')} without 'video_frame_count'"
    raise ValueError(f"{what}, the video has {_figures(timing)}: which frames were annotated is unknown")


def _on_every(step: int, count: int, numbers: Mapping[int, int] | Sequence[int], timing: Timing) -> dict[int, int]:
    """Annotated frame t is frame t * step: its place is where the video at 24 fps shows this frame.

    If several frames at 24 fps show it, one that is a multiple of `STRIDE` is its place, otherwise the first.
    numbers: frame of the annotation -> position in `timing.source_s`.
    """
    times = np.asarray(timing.source_s, float)
    distinct = np.unique(times)
    shown_s = distinct[nearest_frames(distinct, timing.frame_count)]  # (frame_count,)
    at: dict[int, int] = {}
    for t in range(count):
        try:
            time_s = times[numbers[t * step]]
        except LookupError:  # no such frame
            continue
        first, end = (int(np.searchsorted(shown_s, time_s, side)) for side in ("left", "right"))
        aligned = first + -first % STRIDE
        if first < end:
            at[t] = aligned if aligned < end else first
    return at


def _on_every_at_24(step: int, count: int) -> dict[int, int]:
    return {t: t * step for t in range(count)}


def _with_gaps(frame_count: int, interval_s: float, timing: Timing) -> dict[int, int]:
    """The position in `source_s` of each of `frame_count` frames at a constant rate, without those that are missing.

    Empty if the frames of the file are not at this rate.
    """
    places = np.asarray(timing.source_s, float) / interval_s
    numbers = {int(place): n for n, place in enumerate(np.round(places))}
    constant = len(numbers) == len(places) <= frame_count and bool(np.abs(places - np.round(places)).max() <= _OFF_GRID)
    return numbers if constant else {}


def _lacks_frames(frame_count: int, rate: float, timing: Timing) -> bool:
    """Whether the file and the annotation have one constant rate and another number of frames.

    Some frames are then missing at an unknown place: an edit list may hide the first ones.
    rate: frames a second of the annotation.
    """
    times = np.unique(timing.source_s)
    if len(times) < 2:
        return False
    file_rate = (len(times) - 1) / float(times[-1] - times[0])
    by_rate = abs(rate / file_rate - 1) * len(times)  # frames of the difference that follow from another rate
    missing = abs(frame_count - len(times))
    return missing > 1 and by_rate < missing / 2


def _step(count: int, frame_count: int, duration_s: float) -> int:
    """k of every k-th frame. Raises ValueError if no k fits."""
    steps = [k for k in range(1, MAX_STEP + 1) if abs(math.ceil(frame_count / k) - count) <= 1]
    if not steps:
        every = f"every k-th of {counted(frame_count, 'frame')} in {duration_s:g} s"
        raise ValueError(f"{counted(count, 'annotated frame')} are not {every}")
    rate = frame_count / duration_s
    return min(steps, key=lambda k: (math.ceil(frame_count / k) != count, abs(k / rate - STRIDE / FPS)))


def _exact_step(count: int, frame_count: int, duration_s: float) -> int | None:
    """k if every k-th frame is exactly `count` frames; None if no k gives this number."""
    try:
        step = _step(count, frame_count, duration_s)
    except ValueError:
        return None
    return step if math.ceil(frame_count / step) == count else None


def _figures(timing: Timing) -> str:
    at_24 = f"{timing.frame_count} at {FPS} fps"
    if not timing.source_s:
        return f"{at_24} in {timing.duration_s:g} s"
    rate = " at a variable rate" if timing.variable_rate else ""
    return f"{len(timing.source_s)}{rate} in {timing.duration_s:g} s, {at_24}"
