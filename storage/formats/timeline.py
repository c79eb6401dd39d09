"""The timeline of an export: which number and which time each annotated frame has.

    stored  the stored video at 24 fps: numbers are `frame_idx`, and times are `frame_idx` / 24 s
    source  the file that was handed in: its frames are counted from 0 in the order in which a player shows them, and
            times are those of the file

An annotated frame gets the number of the source frame that it shows, so no mask moves: its picture is the same in both.
At fewer than 6 source frames a second, several annotated frames show one source frame. Then the one that is nearest in
time is exported. Knows numbers and times. Does not know masks or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from storage.blobs.base import Blobs
from storage.formats.sav_times import Timing
from storage.records import FPS, STRIDE, Video
from storage.videos import frame_times
from storage.videos.source_file import nearest_frames, spanned_s
from storage.wording import counted


class Timeline(StrEnum):
    """Whose frame numbers and times an export has."""

    STORED = "stored"
    SOURCE = "source"


class TimelineUnknown(ValueError):
    """The frames of this timeline are not known."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One annotated frame of an export."""

    frame_idx: int  # in the stored video
    number: int  # on the timeline
    time_s: float  # on the timeline


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The frames of one video on a timeline."""

    timeline: Timeline
    annotated: tuple[Frame, ...]  # ascending
    frame_count: int  # of the whole video on the timeline
    duration_s: float
    repeats: int = 0  # annotated frames that are not exported: another one shows the same source frame


def of(video: Video, blobs: Blobs, timeline: Timeline) -> Frames:
    """The frames of a video. Raises TimelineUnknown for a video whose source frames were not kept, and BlobError."""
    if timeline is Timeline.STORED:
        return stored(video)
    times = frame_times.load(blobs, video.frames_key)
    if not times.source_s:
        raise TimelineUnknown(
            f"video {video.video_id}: an earlier version ingested it and kept no source frames: ingest it again"
        )
    shown: dict[int, int] = {}  # source frame -> frame_idx
    indices = range(0, video.frame_count, STRIDE)
    for frame_idx in indices:
        try:
            number = times.number(frame_idx)
        except ValueError as error:
            raise TimelineUnknown(f"video {video.video_id}: {error}") from None
        off_s = [abs(times.source_s[number] - k / FPS) for k in (shown.get(number, frame_idx), frame_idx)]
        if off_s[1] < off_s[0] - 1e-9 or number not in shown:
            shown[number] = frame_idx
    return Frames(
        timeline=timeline,
        annotated=tuple(
            Frame(frame_idx=frame_idx, number=number, time_s=round(times.start_s + times.source_s[number], 6))
            for number, frame_idx in shown.items()
        ),
        frame_count=len(times.source_s),
        duration_s=round(spanned_s(times.source_s), 6),
        repeats=len(indices) - len(shown),
    )


def stored(video: Video) -> Frames:
    """The frames of the stored video."""
    return Frames(
        timeline=Timeline.STORED,
        annotated=tuple(
            Frame(frame_idx=k, number=k, time_s=round(k / FPS, 6)) for k in range(0, video.frame_count, STRIDE)
        ),
        frame_count=video.frame_count,
        duration_s=float(video.duration_s),
    )


def positions(numbers: Sequence[int], timing: Timing) -> list[int]:
    """For each annotated frame of the stored video, the position in `numbers` of the source frame that it shows.

    numbers: source frames that an annotation has, strictly ascending. The inverse of `of`: where several annotated
    frames show one source frame, all of them get its position. The last annotated frame may be missing, because readers
    differ about a last frame.
    Raises ValueError with a line about the frames that are missing.
    """
    times = np.asarray(timing.source_s, float)
    distinct, first = np.unique(times, return_index=True)
    indices = range(0, timing.frame_count, STRIDE)
    shown = first[nearest_frames(distinct, timing.frame_count)[::STRIDE]].tolist()  # source frame of each annotated one
    at = {number: t for t, number in enumerate(numbers)}
    missing = [n for n, number in enumerate(shown) if number not in at]
    if missing and missing != [len(shown) - 1]:
        n = missing[0]
        raise ValueError(
            f"frame {shown[n]} is not annotated; of the {counted(len(indices), 'frame')} to be kept (those shown at 6 "
            f"a second), {len(indices) - len(missing)} can be"
        )
    return [at[number] for number in shown if number in at]
