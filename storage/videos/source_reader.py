"""Reads frames of a video from anywhere, at 24 fps and upright, without writing a stored video.

Frame k is the source frame nearest to k / 24 s, as a player shows it: what `normalise.py` would store. Knows local
files and PyAV. Does not know limits, blobs or masks.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import av
import av.container
import av.error
import av.video.frame
import av.video.stream
import numpy as np
from cachetools import LRUCache, cached

from storage.pixels import Rgb
from storage.records import Refusal
from storage.videos.reader import CachedReader, FrameUnreadable
from storage.videos.source_file import (
    NO_DISPLAY_TIMES,
    Refused,
    frame_count_at_24,
    nearest_frames,
    opened,
    packets_of,
    timed,
)
from storage.videos.upright import Upright, deinterlaced, upright_hw
from storage.videos.video import libav_message


@dataclass(frozen=True)
class _Timeline:
    """When the frames of a source are shown, in ticks of its time base."""

    ticks: tuple[int, ...]  # (T,) ascending
    keyframes: tuple[int, ...]  # those that the decoder can start from, ascending
    source: tuple[int, ...]  # (frame count at 24 fps,) position in `ticks` of each frame
    times_s: tuple[float, ...]  # (N,) ascending, from the first frame: of each frame, also of two with one time


class SourceReader(CachedReader):
    """A source video that is kept open: reads any of its 24 fps frames by its index."""

    def __init__(self, path: Path, keep: int = 4) -> None:
        """Raises Refused for a file without frames, FrameUnreadable if its first frame does not decode."""
        super().__init__(path.name, keep)
        self._path = path
        self._line = _timeline(path)
        self.frame_count = len(self._line.source)
        self.source_s = self._line.times_s
        self._open()
        try:
            first = self._find(0)
            self.height, self.width, _ = upright_hw(first, self._stream)
            self._upright = Upright(self._stream, self.height, self.width, "rgb24")
            self._cache[0] = self._rgb(first)
        except BaseException:
            self._files.close()
            raise

    def _key(self, frame_idx: int) -> int:
        return self._line.source[frame_idx]

    def _decode(self, frame_idx: int) -> Rgb:
        try:
            return self._rgb(self._find(self._line.source[frame_idx]))
        except av.error.FFmpegError as error:
            raise FrameUnreadable(f"{self._name}, frame {frame_idx}: {libav_message(error)}") from error

    def _open(self) -> None:
        self._files = ExitStack()
        self._container, self._stream = self._files.enter_context(opened(self._path))
        self._decoded = _frames_of(self._container, self._stream)
        self._last: int | None = None  # ticks of the frame that the decoder returned last

    def _rgb(self, frame: av.video.frame.VideoFrame) -> Rgb:
        rgb = cast(Rgb, self._upright(frame).to_ndarray(format="rgb24"))
        rgb.flags.writeable = False
        return rgb

    def _find(self, at: int) -> av.video.frame.VideoFrame:
        """The source frame at a position of the timeline. Seeks only where this saves decoding."""
        wanted = self._line.ticks[at]
        start = self._line.keyframes[bisect_right(self._line.keyframes, wanted) - 1]
        if self._last is None or not start <= self._last < wanted:
            self._seek(start)
        if (frame := self._decode_until(wanted)) is None and start != self._line.keyframes[0]:
            self._seek(self._line.keyframes[0])  # after a seek to `start`, this frame does not decode
            frame = self._decode_until(wanted)
        if frame is None:
            raise FrameUnreadable(f"{self._name}: the frame at {self._seconds(wanted):.3f} s does not decode")
        return frame

    def _seek(self, ticks: int) -> None:
        """Goes to a keyframe. To the first one by opening the file again, because some formats have no index."""
        if ticks == self._line.keyframes[0]:
            self._files.close()
            self._open()
        else:
            self._container.seek(ticks, stream=self._stream)
            self._decoded = _frames_of(self._container, self._stream)

    def _decode_until(self, wanted: int) -> av.video.frame.VideoFrame | None:
        """The frame of this time; None if the decoder does not return it."""
        for frame, ticks in self._decoded:
            self._last = ticks
            if ticks >= wanted:
                return frame if ticks == wanted else None
        self._last = None
        return None

    def _seconds(self, ticks: int) -> float:
        return float((ticks - self._line.ticks[0]) * (self._stream.time_base or 0))

    def _release(self) -> None:
        self._files.close()


def _state(path: Path) -> tuple[int, int]:
    """Changes when the file changes; zeros for a missing file, which `opened` refuses."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


@cached(LRUCache(maxsize=64), key=lambda path: (path, *_state(path)), lock=threading.Lock())
def _timeline(path: Path) -> _Timeline:
    """The timeline of a file. Reads its packets, and decodes them only if they have no display times."""
    with opened(path) as (container, stream):
        found = [p for p in packets_of(container, stream) if p.size]
        packets = [p for p in found if not p.is_discard]
        base = float(stream.time_base or 0)
        decoded = container.format.name in NO_DISPLAY_TIMES or any(p.pts is None for p in packets)
    shown = [p.pts for p in packets if p.pts is not None]
    begins = next((p.pts for p in found if p.is_keyframe and p.pts is not None), None)
    if begins is not None:  # nothing before the first keyframe decodes
        shown = [ticks for ticks in shown if ticks >= begins]
    keyframes = [p.pts for p in packets if p.pts is not None and p.is_keyframe]
    order = [p.dts for p in packets if p.dts is not None]
    if any(later < earlier for earlier, later in pairwise(order)):
        raise Refused(Refusal.FAILED, f"{path.name}: its times go back, as in two files that were joined")
    if decoded:
        with opened(path) as (container, stream):
            shown = [ticks for _, ticks in _frames_of(container, stream)]
        keyframes = []
    if not shown:
        raise Refused(Refusal.UNREADABLE, f"{path.name}: no frame decodes")
    ticks = np.unique(np.asarray(shown, np.int64))
    times = (ticks - ticks[0]) * base
    source = nearest_frames(times, frame_count_at_24(times.tolist()))
    all_times = (np.sort(np.asarray(shown, np.int64)) - ticks[0]) * base
    starts = {int(ticks[0]), *keyframes}
    return _Timeline(tuple(ticks.tolist()), tuple(sorted(starts)), tuple(source.tolist()), tuple(all_times.tolist()))


def _frames_of(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator[tuple[av.video.frame.VideoFrame, int]]:
    """The frames in display order, with their times. Packets that do not decode are skipped: reads of them fail."""

    def decoded() -> Iterator[av.video.frame.VideoFrame]:
        for packet in packets_of(container, stream):
            with suppress(av.error.FFmpegError):
                yield from packet.decode()

    return deinterlaced(timed(decoded(), container, stream), stream, set())
