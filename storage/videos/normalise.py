"""Source files become stored videos: judges a file by its complete decode, and writes it at 24 fps.

Knows local files and PyAV. Does not know blobs, tables or masks.
Every refusal is `Refused` with a typed reason; `storage/videos/video.py` shows the tree of errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import av
import av.container
import av.error
import av.video.frame
import av.video.stream

from storage.records import FPS, Refusal
from storage.videos.source_file import (
    NO_DISPLAY_TIMES,
    Refused,
    frame_count_at_24,
    is_encrypted,
    is_variable,
    opened,
    packets_of,
    spanned_s,
    timed,
)
from storage.videos.upright import ShapeChanged, Upright, deinterlaced, tone_curve, upright_hw
from storage.videos.video import BT709, encode, libav_message
from storage.wording import counted

Pictures = Iterator[av.video.frame.VideoFrame]

_MISSING_SHARE = 0.05  # share of the frames, or of the announced duration, that may be missing
_MISSING_S = 0.5  # a shorter missing end is always accepted


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a source. Sides are measured on the upright picture."""

    min_s: float = 1.0
    max_s: float = 14400.0
    min_side_px: int = 64
    max_side_px: int = 4096
    truncated: bool = False  # admit a video that is cut or broken, with the frames that decode


@dataclass(frozen=True, kw_only=True)
class Normalised:
    """A stored video, and the source time of each of its frames."""

    height: int
    width: int
    frame_count: int
    duration_s: float
    source_fps: float  # average of the source
    variable_rate: bool  # the source's frame intervals differed by more than rounding
    rotation: int  # degrees clockwise that were applied
    changes: tuple[str, ...]  # what was done to the picture and its times, such as "deinterlaced"
    timestamps: tuple[float, ...]  # (frame_count,) s from the first source frame, of the one that is shown
    source_s: tuple[float, ...]  # (N,) s from the first source frame, of every frame that was decoded, ascending
    start_s: float = 0.0  # time of the first source frame in its file, s


def normalise(
    source: Path,
    target: Path,
    *,
    limits: Limits | None = None,
    through: Callable[[Pictures], Pictures] = lambda pictures: pictures,
) -> Normalised:
    """Write `source` as constant 24 fps H.264: upright, square pixels, even sides, no sound.

    Frame k shows the source frame nearest to k / 24 s. An odd side loses its last row or column: cropping keeps all
    other pixels as they were, scaling would blur them. The bytes depend only on the source and the version of the
    library. The target appears under its name only when it is complete.
    through: sees the pictures before they are written, and may change them. yuv420p, as many as it is given.
    Raises Refused, with a reason.
    """
    limits = limits or Limits()
    with opened(source) as (container, stream):
        announced_s = _announced_s(container, stream)
        if announced_s is not None and announced_s > limits.max_s:
            raise Refused(Refusal.TOO_LONG, f"{source.name}: {announced_s:.1f} s, at most {limits.max_s:g} s")
        damage = _Damage()
        shown = _checked(_frames_of(container, stream, damage), container, stream, source.name, limits, damage)
        first = next(shown, None)
        if first is None and is_encrypted(source):
            raise Refused(Refusal.ENCRYPTED, f"{source.name}: its video is encrypted")
        if first is None:
            raise Refused(Refusal.UNREADABLE, f"{source.name}: no frame decodes")
        shown_height, shown_width, rotation = upright_hw(first.frame, stream)
        height, width = shown_height - shown_height % 2, shown_width - shown_width % 2
        colours = first.frame.colorspace or _BT601  # 0 is RGB, which is converted to BT.601
        if curve := tone_curve(first.frame):
            colours = BT709
            damage.changes.add(f"tone-mapped from {curve}")
        source_times: list[float] = []
        output_times: list[float] = []

        def resampled() -> Iterator[av.video.frame.VideoFrame]:
            upright = Upright(stream, height, width)
            for frame, time_s in _at_constant_rate(chain([first], shown), source_times):
                output_times.append(time_s)
                try:
                    yield upright(frame)
                except ShapeChanged as error:
                    raise Refused(Refusal.FAILED, f"{source.name}: {error}") from error
            _judge(source, source_times, _from_keyframe(announced_s, stream, damage), damage, limits)

        encode(target, through(resampled()), height, width, FPS, crf=18, colours=colours)
    intervals = len(source_times) - 1
    return Normalised(
        height=height,
        width=width,
        frame_count=len(output_times),
        duration_s=len(output_times) / FPS,
        source_fps=intervals / (source_times[-1] - source_times[0]),
        variable_rate=is_variable(source_times),
        rotation=rotation,
        changes=tuple(sorted(damage.changes)),
        timestamps=tuple(round(time_s, 6) for time_s in output_times),
        source_s=tuple(round(time_s, 6) for time_s in damage.source_s),
        start_s=round(damage.start_s, 6),
    )


@dataclass
class _Damage:
    """What decoding shows of a file. Counts what went wrong: one broken packet is no reason to refuse a video."""

    changes: set[str] = field(default_factory=set)
    source_s: list[float] = field(default_factory=list)  # of every decoded frame, also of those that are skipped
    start_s: float = 0.0  # time of the first decoded frame in the file
    begins_s: float | None = None  # time of the first keyframe, before which nothing can be decoded

    packets: int = 0
    frames: int = 0
    broken: int = 0  # packets that did not decode, and frames that the decoder marked as corrupt
    repeated: int = 0  # frames whose time is not later than the time of the frame before
    last_s: float = 0.0  # duration of the last frame, as the file states it; 0 if unknown
    last: str = ""

    def note(self, error: BaseException | None) -> None:
        self.broken += 1
        self.last = libav_message(error) if error else "corrupt frame"


@dataclass(frozen=True)
class _Shown:
    """A decoded frame and when it is shown."""

    frame: av.video.frame.VideoFrame
    time_s: float  # from the first frame


def _frames_of(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, damage: _Damage
) -> Iterator[av.video.frame.VideoFrame]:
    """The frames of a stream in display order. Packets that do not decode are counted and skipped."""
    for packet in packets_of(container, stream):
        if damage.begins_s is None and packet.is_keyframe and packet.pts is not None:
            damage.begins_s = float(packet.pts * packet.time_base)
        damage.packets += packet.size > 0 and not packet.is_discard and damage.begins_s is not None
        try:
            decoded = packet.decode()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if damage.begins_s is not None:
                damage.note(error)
            continue
        for frame in decoded:
            damage.frames += 1
            if frame.is_corrupt:
                damage.note(None)
            damage.last_s = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
            yield frame


def _checked(
    decoded: Iterator[av.video.frame.VideoFrame],
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    name: str,
    limits: Limits,
    damage: _Damage,
) -> Iterator[_Shown]:
    """Frames with their times, which begin at zero and increase. Raises Refused at the first frame of a wrong size."""
    start_s: float | None = None
    last_s = -1.0
    for frame, ticks in deinterlaced(timed(decoded, container, stream), stream, damage.changes):
        if start_s is None:
            height, width, _ = upright_hw(frame, stream)
            if min(height, width) < limits.min_side_px:
                raise Refused(Refusal.TOO_SMALL, f"{name}: {width} x {height} px, sides at least {limits.min_side_px}")
            if max(height, width) > limits.max_side_px:
                raise Refused(Refusal.TOO_LARGE, f"{name}: {width} x {height} px, sides at most {limits.max_side_px}")
        at_s = float(ticks * (stream.time_base or 0))
        if start_s is None:
            start_s = at_s
            damage.start_s = 0.0 if container.format.name in NO_DISPLAY_TIMES else at_s
        time_s = at_s - start_s
        damage.source_s.append(max(time_s, last_s, 0.0))
        if time_s <= last_s:
            damage.repeated += 1  # shown twice, or the clock went back, as in two files that were joined
            continue
        if time_s > limits.max_s:
            raise Refused(Refusal.TOO_LONG, f"{name}: more than {limits.max_s:g} s")
        last_s = time_s
        yield _Shown(frame, time_s)


def _judge(source: Path, times: Sequence[float], announced_s: float | None, damage: _Damage, limits: Limits) -> None:
    """Raises Refused for a truncated, broken, encrypted or short video, which only a complete decode shows."""
    name = source.name
    if damage.broken > max(1, _MISSING_SHARE * damage.packets) and not _cut(limits, damage):
        detail = f"{name}: {damage.broken} of {counted(damage.packets, 'frame')} do not decode ({damage.last})"
        if is_encrypted(source):
            raise Refused(Refusal.ENCRYPTED, f"{name}: its video is encrypted")
        raise Refused(Refusal.TRUNCATED, detail)
    if damage.repeated > max(1, _MISSING_SHARE * damage.frames):
        detail = f"{name}: {damage.repeated} of {counted(damage.frames, 'frame')} are not after the frame before them"
        raise Refused(Refusal.FAILED, detail)
    span_s = spanned_s(times)
    ends_s = max(span_s, times[-1] + damage.last_s)  # a still at the end is one long frame
    if announced_s is not None and announced_s - ends_s > max(_MISSING_S, _MISSING_SHARE * announced_s):
        if len(times) > 1 and not _cut(limits, damage):
            detail = f"{name}: decoding ends at {ends_s:.2f} s of {announced_s:.2f} s"
            raise Refused(Refusal.TRUNCATED, detail)
    if len(times) < 2:
        raise Refused(Refusal.TOO_SHORT, f"{name}: one frame")
    if span_s < limits.min_s - 1e-6:
        raise Refused(Refusal.TOO_SHORT, f"{name}: {span_s:.2f} s, at least {limits.min_s:g} s")


def _cut(limits: Limits, damage: _Damage) -> bool:
    """Whether a cut or broken video is admitted. Its changes then say so."""
    if limits.truncated:
        damage.changes.add("released although frames are missing")
    return limits.truncated


def _from_keyframe(announced_s: float | None, stream: av.video.stream.VideoStream, damage: _Damage) -> float | None:
    """The announced duration without what precedes the first keyframe, as in a stream that was cut anywhere."""
    if announced_s is None or damage.begins_s is None or stream.start_time is None or stream.time_base is None:
        return announced_s
    missing_s = damage.begins_s - float(stream.start_time * stream.time_base)
    if missing_s <= 1 / FPS:
        return announced_s
    damage.changes.add(f"began at its first keyframe, {missing_s:.2f} s after its start")
    return announced_s - missing_s


def _announced_s(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> float | None:
    """The duration that the file states, from its first frame; None if it states none, or only that of its sound."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    begins_s = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
    if tag := stream.metadata.get("DURATION", ""):  # Matroska: 00:00:10.000000000
        try:
            hours, minutes, seconds = tag.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - begins_s  # counts from time zero
        except ValueError:
            return None
    if container.duration and not container.streams.audio:
        return container.duration / 1_000_000
    return None


def _at_constant_rate(
    shown: Iterator[_Shown], source_times: list[float]
) -> Iterator[tuple[av.video.frame.VideoFrame, float]]:
    """The frame nearest to every k / 24 s, and its time. Appends the time of every source frame to `source_times`.

    Of two equally near frames, takes the earlier. Keeps two frames in memory.
    """
    k = 0
    before: _Shown | None = None
    for now in shown:
        source_times.append(now.time_s)
        if before is not None:
            middle_s = (before.time_s + now.time_s) / 2
            while k / FPS <= middle_s + 1e-9:
                yield before.frame, before.time_s
                k += 1
        before = now
    if before is None:
        return
    count = frame_count_at_24(source_times)
    while k < count:
        yield before.frame, before.time_s
        k += 1


_BT601 = 6  # AVCOL_SPC_SMPTE170M, what libav converts RGB to
