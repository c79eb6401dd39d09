"""Videos in and out: probe, normalise to constant 24 fps H.264, read frames by index, write.

Knows files on this machine and PyAV; knows nothing about blobs, tables or masks. A stored video has a constant rate, a
keyframe every 12 frames and no B-frames, so the n-th frame of the file is the frame at n / 24 s, and reading any one of
them decodes at most 12.

Errors:
    VideoError
    ├── Refused            this file is not a video that we take, with a typed reason
    └── FrameUnreadable    a stored video does not give this frame
"""

from __future__ import annotations

import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
import av.container
import av.error
import av.filter
import av.video.frame
import av.video.stream
import cv2
import numpy as np
from numpy.typing import NDArray

from storage.records import FPS, Refusal

Rgb = NDArray[np.uint8]  # (H, W, 3)
Progress = Callable[[int, int | None], None]  # frames written, frames expected

KEYFRAME_EVERY = 12  # frames: half a second, the most that a random read decodes

#: Demuxers that may open a source. Playlists (hls, concat, dash) are not among them: they would read other files.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,rm,ivf,h264,hevc,dv,wtv,nut,"
    "gif,apng,mp3,wav,flac,aac,aiff,amr,image2,png_pipe,jpeg_pipe,jpegls_pipe,webp_pipe,bmp_pipe,tiff_pipe,srt,webvtt"
)
_STILLS = frozenset({"gif", "apng", "image2"})
_THREADS = 2  # a fixed number: the encoder's output depends on it
_MISSING_SHARE = 0.05  # of the frames, or of the announced duration, that may be missing
_MISSING_S = 0.5  # and never a complaint about less than this


class VideoError(Exception):
    """Something is wrong with this video."""


class Refused(VideoError):
    """This file is not a video that we take."""

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class FrameUnreadable(VideoError):
    """A stored video does not give this frame."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a source may be. Sides are of the upright picture."""

    min_s: float = 1.0
    max_s: float = 600.0
    min_side_px: int = 64
    max_side_px: int = 4096


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a file says of itself, and what its first frame and its packet times show."""

    height: int  # px, upright
    width: int  # px, upright
    fps: float  # average
    frame_count: int | None  # None where the packets carry no times
    duration_s: float
    rotation: int  # degrees clockwise that make it upright: 0, 90, 180 or 270
    variable_rate: bool
    codec: str
    has_audio: bool


@dataclass(frozen=True, kw_only=True)
class Normalised:
    """A stored video, and where each of its frames came from."""

    height: int
    width: int
    frame_count: int
    duration_s: float
    source_fps: float  # average of the source
    variable_rate: bool  # the source's frame intervals differed by more than rounding
    rotation: int  # degrees clockwise that were applied
    timestamps: tuple[float, ...]  # (frame_count,) s from the source's first frame, of the source frame shown


def probe(path: Path) -> Probe:
    """Look at a video without decoding more than its first frame. Raises Refused."""
    with _opened(path) as (container, stream):
        first = next(_frames_of(container, stream, _Damage()), None)
        if first is None:
            raise Refused(Refusal.UNREADABLE, f"{path.name}: no frame decodes")
        height, width, rotation = _upright_hw(first, stream)
        codec, has_audio = stream.codec_context.name, bool(container.streams.audio)
        announced_s = _announced_s(container, stream)
        average = stream.average_rate
    with _opened(path) as (container, stream):
        times = sorted(
            float(packet.pts * packet.time_base)
            for packet in _packets(container, stream)
            if packet.pts is not None and packet.size and not packet.is_discard
        )
    fps = float(average) if average else (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else float(FPS)
    spanned_s = times[-1] - times[0] + 1 / fps if times else announced_s or 0.0
    return Probe(
        height=height,
        width=width,
        fps=fps,
        frame_count=len(times) or None,
        duration_s=announced_s or spanned_s,
        rotation=rotation,
        variable_rate=_is_variable(times),
        codec=codec,
        has_audio=has_audio,
    )


def normalise(
    source: Path, target: Path, *, limits: Limits | None = None, progress: Progress | None = None
) -> Normalised:
    """Write `source` as constant 24 fps H.264: upright, square pixels, even sides, no sound.

    Frame k shows the source frame nearest to k / 24 s. An odd side loses its last row or column: cropping keeps every
    other pixel as it was, scaling would blur them all. The bytes depend only on the source and the library's version.
    The file appears under its name when it is complete.
    Raises Refused, with a reason.
    """
    limits = limits or Limits()
    with _opened(source) as (container, stream):
        announced_s = _announced_s(container, stream)
        if announced_s is not None and announced_s > limits.max_s:
            raise Refused(Refusal.TOO_LONG, f"{source.name}: {announced_s:.1f} s, at most {limits.max_s:g} s")
        damage = _Damage()
        shown = _checked(_frames_of(container, stream, damage), stream, source.name, limits, damage)
        first = next(shown, None)
        if first is None:
            raise Refused(Refusal.UNREADABLE, f"{source.name}: no frame decodes")
        height, width, rotation = _upright_hw(first.frame, stream)
        colours = first.frame.colorspace or _BT601  # 0 is RGB, which is converted
        source_times: list[float] = []
        output_times: list[float] = []
        expected = round(announced_s * FPS) if announced_s else None

        def resampled() -> Iterator[av.video.frame.VideoFrame]:
            upright = _Upright(stream, height, width)
            for frame, time_s in _at_constant_rate(chain([first], shown), source_times):
                output_times.append(time_s)
                if progress:
                    progress(len(output_times), expected)
                yield upright(frame)
            _judge(source.name, source_times, announced_s, damage, limits)

        _encode(target, resampled(), height, width, FPS, crf=18, colours=colours)
    intervals = len(source_times) - 1
    return Normalised(
        height=height,
        width=width,
        frame_count=len(output_times),
        duration_s=len(output_times) / FPS,
        source_fps=intervals / (source_times[-1] - source_times[0]),
        variable_rate=_is_variable(source_times),
        rotation=rotation,
        timestamps=tuple(round(time_s, 6) for time_s in output_times),
    )


def write(path: Path, frames: Iterable[Rgb], fps: float = FPS, *, crf: int = 18) -> None:
    """Write frames as a stored video would be: H.264, a keyframe every 12, no B-frames.

    frames: uint8 (H, W, 3) RGB, all of one size, H and W even.
    crf: 0 is nearly lossless, 18 looks it, 51 is the worst.
    Raises ValueError for odd or differing sizes, or no frame at all.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("a video has at least one frame")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f"the sides of a stored video are even, not {height} x {width}")

    def converted() -> Iterator[av.video.frame.VideoFrame]:
        for rgb in chain([first], frames):
            if rgb.shape != (height, width, 3) or rgb.dtype != np.uint8:
                raise ValueError(f"frames are uint8 ({height}, {width}, 3), not {rgb.dtype} {rgb.shape}")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            yield frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")

    _encode(path, converted(), height, width, fps, crf=crf, colours=_BT709)


def frames(path: Path, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Rgb]]:
    """The frames of a stored video, or those at `indices`, one at a time: (frame_idx, uint8 (H, W, 3) RGB).

    Sorted indices are the cheapest; gaps are skipped by keyframe. Raises ValueError for an index outside the video.
    """
    with FrameReader(path, keep=1) as reader:
        for frame_idx in range(reader.frame_count) if indices is None else indices:
            yield frame_idx, reader.read(frame_idx)


def frame_jpeg(path: Path, frame_idx: int, quality: int = 90) -> bytes:
    """One frame of a stored video as JPEG. quality: 1 to 100."""
    with FrameReader(path, keep=1) as reader:
        return jpeg(reader.read(frame_idx), quality)


def jpeg(rgb: Rgb, quality: int = 90) -> bytes:
    """A picture, uint8 (H, W, 3) RGB, as JPEG. quality: 1 to 100."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"no JPEG can be made of {rgb.dtype} {rgb.shape}")
    return data.tobytes()


class FrameReader:
    """A stored video held open: any frame by its index, the next one at the price of one.

    Safe to share between threads: one of them decodes at a time. The arrays are read-only, because it keeps the last
    `keep` of them.
    """

    def __init__(self, path: Path, keep: int = 16) -> None:
        self.path = path
        self._kept: OrderedDict[int, Rgb] = OrderedDict()
        self._keep = keep
        self._lock = threading.Lock()
        self._closed = False
        try:
            self._container = av.open(str(Path(path).absolute()), metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            raise FrameUnreadable(f"{path}: {_line(error)}") from error
        if not self._container.streams.video:
            self._container.close()
            raise FrameUnreadable(f"{path}: no video stream")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "SLICE"
        rate, time_base = self._stream.average_rate, self._stream.time_base
        self.frame_count = self._stream.frames
        self.height = self._stream.height
        self.width = self._stream.width
        if not rate or not time_base or not self.frame_count:
            self._container.close()
            raise FrameUnreadable(f"{path}: not a stored video, it does not say its rate or its frames")
        self._tick = 1 / (rate * time_base)  # time base units a frame
        self._start = self._stream.start_time or 0
        self._decoded = self._container.decode(self._stream)
        self._next = 0  # index of the frame that the decoder gives next

    def read(self, frame_idx: int) -> Rgb:
        """One frame, uint8 (H, W, 3) RGB, read-only.

        Raises ValueError for an index outside the video, FrameUnreadable where the file is damaged or closed.
        """
        if not 0 <= frame_idx < self.frame_count:
            raise ValueError(f"{self.path.name} has frames 0 to {self.frame_count - 1}, not {frame_idx}")
        with self._lock:
            if self._closed:  # decoding a closed container ends the process
                raise FrameUnreadable(f"{self.path.name}, frame {frame_idx}: the video was closed")
            if (kept := self._kept.get(frame_idx)) is not None:
                self._kept.move_to_end(frame_idx)
                return kept
            rgb = self._decode(frame_idx)
            rgb.flags.writeable = False
            self._kept[frame_idx] = rgb
            if len(self._kept) > self._keep:
                self._kept.popitem(last=False)
            return rgb

    def _decode(self, frame_idx: int) -> Rgb:
        try:
            if not 0 <= frame_idx - self._next < KEYFRAME_EVERY:
                self._container.seek(self._start + int(frame_idx * self._tick), stream=self._stream)
                self._decoded = self._container.decode(self._stream)
            for frame in self._decoded:
                if frame.pts is None:
                    continue
                at = round((frame.pts - self._start) / self._tick)
                self._next = at + 1
                if at == frame_idx:
                    return _rgb(frame)
                if at > frame_idx:
                    break
        except av.error.FFmpegError as error:
            self._next = self.frame_count + KEYFRAME_EVERY  # whatever comes next seeks
            raise FrameUnreadable(f"{self.path.name}, frame {frame_idx}: {_line(error)}") from error
        self._next = self.frame_count + KEYFRAME_EVERY
        raise FrameUnreadable(f"{self.path.name}, frame {frame_idx}: missing from the file")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# Opening and decoding what strangers made


@dataclass
class _Damage:
    """What went wrong while decoding: counted, because one bad packet is no reason to refuse a video."""

    packets: int = 0
    frames: int = 0
    broken: int = 0  # packets that did not decode, and frames that the decoder marks as corrupt
    repeated: int = 0  # frames whose time is not after that of the frame before
    last_s: float = 0.0  # how long the last frame is shown by its own account; 0 where it says nothing
    last: str = ""

    def note(self, error: BaseException | None) -> None:
        self.broken += 1
        self.last = _line(error) if error else "corrupt frame"


@dataclass(frozen=True)
class _Shown:
    """A decoded frame and when it is shown."""

    frame: av.video.frame.VideoFrame
    time_s: float  # from the first frame


Opened = tuple["av.container.InputContainer", "av.video.stream.VideoStream"]


@contextmanager
def _opened(path: Path) -> Iterator[Opened]:
    """The container and its video stream. Raises Refused: what libav says on the way is turned into the reason."""
    name = path.name
    try:
        if path.stat().st_size == 0:
            raise Refused(Refusal.UNREADABLE, f"{name}: zero bytes")
        container = av.open(
            str(path.absolute()),
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file", "format_whitelist": _FORMATS},
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise Refused(Refusal.UNREADABLE, f"{name}: {_line(error)}") from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        kinds = set(container.format.name.split(","))
        if not streams or kinds & _STILLS or any(kind.endswith("_pipe") for kind in kinds):
            raise Refused(Refusal.NO_VIDEO_STREAM, f"{name}: {container.format.name}, no video stream")
        stream = streams[0]
        if stream.codec_context is None or stream.time_base is None or not (stream.width and stream.height):
            raise Refused(Refusal.UNREADABLE, f"{name}: the video stream has no decoder or no size")
        stream.thread_type = "AUTO"
        yield container, stream


def _packets(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator[av.Packet[av.video.stream.VideoStream]]:
    """The packets of a stream until it ends or the file breaks off."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:
            return
        yield packet


def _frames_of(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, damage: _Damage
) -> Iterator[av.video.frame.VideoFrame]:
    """The frames of a stream in the order they are shown; packets that do not decode are counted and skipped."""
    for packet in _packets(container, stream):
        damage.packets += packet.size > 0 and not packet.is_discard
        try:
            decoded = packet.decode()
        except (av.error.FFmpegError, OSError, ValueError) as error:
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
    stream: av.video.stream.VideoStream,
    name: str,
    limits: Limits,
    damage: _Damage,
) -> Iterator[_Shown]:
    """Frames with their times, from zero and increasing. Refuses at the first frame what is too large or too small."""
    interval_s = float(1 / stream.average_rate) if stream.average_rate else 1 / FPS
    start_s: float | None = None
    last_s = -1.0
    for frame in decoded:
        if start_s is None:
            height, width, _ = _upright_hw(frame, stream)
            if min(height, width) < limits.min_side_px:
                raise Refused(Refusal.TOO_SMALL, f"{name}: {width} x {height} px, sides at least {limits.min_side_px}")
            if max(height, width) > limits.max_side_px:
                raise Refused(Refusal.TOO_LARGE, f"{name}: {width} x {height} px, sides at most {limits.max_side_px}")
        at_s = frame.time
        if at_s is None:
            at_s = (start_s or 0.0) + (last_s + interval_s if start_s is not None else 0.0)
        if start_s is None:
            start_s = at_s
        time_s = at_s - start_s
        if time_s <= last_s:
            damage.repeated += 1  # the frame was already shown; or the clock went back, where two files became one
            continue
        if time_s > limits.max_s:
            raise Refused(Refusal.TOO_LONG, f"{name}: more than {limits.max_s:g} s")
        last_s = time_s
        yield _Shown(frame, time_s)


def _judge(name: str, times: Sequence[float], announced_s: float | None, damage: _Damage, limits: Limits) -> None:
    """Raises Refused for what only the whole decode shows: a truncated, broken or short video."""
    if damage.broken > max(1, _MISSING_SHARE * damage.packets):
        detail = f"{name}: {damage.broken} of {damage.packets} frames do not decode ({damage.last})"
        raise Refused(Refusal.TRUNCATED, detail)
    if damage.repeated > max(1, _MISSING_SHARE * damage.frames):
        detail = f"{name}: {damage.repeated} of {damage.frames} frames are not after the frame before them"
        raise Refused(Refusal.FAILED, detail)
    spanned_s = _spanned_s(times)
    ends_s = max(spanned_s, times[-1] + damage.last_s)  # a still ending is one long frame
    if announced_s is not None and announced_s - ends_s > max(_MISSING_S, _MISSING_SHARE * announced_s):
        if len(times) > 1:
            detail = f"{name}: decoding ends at {ends_s:.2f} s of {announced_s:.2f} s"
            raise Refused(Refusal.TRUNCATED, detail)
    if len(times) < 2:
        raise Refused(Refusal.TOO_SHORT, f"{name}: one frame")
    if spanned_s < limits.min_s - 1e-6:
        raise Refused(Refusal.TOO_SHORT, f"{name}: {spanned_s:.2f} s, at least {limits.min_s:g} s")


def _announced_s(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> float | None:
    """How long the file says the video is, from its first frame; None where it says nothing, or only of its sound."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    begins_s = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
    if tag := stream.metadata.get("DURATION", ""):  # Matroska: 00:00:10.000000000
        try:
            hours, minutes, seconds = tag.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - begins_s  # it counts from the file's zero
        except ValueError:
            return None
    if container.duration and not container.streams.audio:
        return container.duration / 1_000_000
    return None


def _spanned_s(times: Sequence[float]) -> float:
    """From the first frame to the end of the last, which lasts as long as the frames did on average."""
    if len(times) < 2:
        return 0.0
    return (times[-1] - times[0]) * len(times) / (len(times) - 1)


def _is_variable(times: Sequence[float]) -> bool:
    """Whether frame intervals differ by more than a tenth of their median, which rounding to milliseconds does not."""
    if len(times) < 3:
        return False
    intervals = np.diff(np.asarray(times))
    middle = float(np.median(intervals))
    return bool(np.abs(intervals - middle).max() > max(0.1 * middle, 0.0021))


def _at_constant_rate(
    shown: Iterator[_Shown], source_times: list[float]
) -> Iterator[tuple[av.video.frame.VideoFrame, float]]:
    """The frame nearest to every k / 24 s, and its time. Appends the time of every source frame to `source_times`.

    Two frames as near as each other: the earlier. Holds two frames.
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
    count = max(1, round(_spanned_s(source_times) * FPS))
    while k < count:
        yield before.frame, before.time_s
        k += 1


# Pictures


_BT709 = 1  # AVCOL_SPC_BT709
_BT601 = 6  # AVCOL_SPC_SMPTE170M, what libav converts RGB to

#: Filters that make a picture upright: degrees clockwise, mirrored -> filters.
#: Source: what FFmpeg's `fftools/ffmpeg_filter.c` inserts for a display matrix.
_FILTERS: dict[tuple[int, bool], tuple[tuple[str, str], ...]] = {
    (0, False): (),
    (0, True): (("vflip", ""),),
    (90, False): (("transpose", "clock"),),
    (90, True): (("transpose", "cclock_flip"),),
    (180, False): (("hflip", ""), ("vflip", "")),
    (180, True): (("hflip", ""),),
    (270, False): (("transpose", "cclock"),),
    (270, True): (("transpose", "clock_flip"),),
}


def _orientation(frame: av.video.frame.VideoFrame) -> tuple[int, bool]:
    """Degrees clockwise that make a frame upright (0, 90, 180, 270), and whether it is mirrored as well."""
    degrees = round(-frame.rotation / 90) * 90 % 360
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return degrees, False
    a, b, _, c, d = np.frombuffer(cast(bytes, matrix), dtype=np.int32)[:5].astype(np.int64)
    return degrees, bool(a * d - b * c < 0)


def _upright_hw(frame: av.video.frame.VideoFrame, stream: av.video.stream.VideoStream) -> tuple[int, int, int]:
    """Height and width of the stored picture (upright, square pixels, even), and the rotation in degrees clockwise."""
    degrees, _ = _orientation(frame)
    width = round(frame.width * float(stream.sample_aspect_ratio or 1))
    height = frame.height
    if degrees in (90, 270):
        height, width = width, height
    return height - height % 2, width - width % 2, degrees


class _Upright:
    """Turns decoded frames into yuv420p of one size, upright. Builds its filters again when the source changes size."""

    def __init__(self, stream: av.video.stream.VideoStream, height: int, width: int) -> None:
        self._stream = stream
        self._hw = height, width
        self._key: tuple[object, ...] = ()
        self._graph = av.filter.Graph()

    def __call__(self, frame: av.video.frame.VideoFrame) -> av.video.frame.VideoFrame:
        key = (frame.width, frame.height, frame.format.name, *_orientation(frame))
        if key != self._key:
            self._graph, self._key = self._build(frame), key
        self._graph.vpush(frame)
        return self._graph.vpull()

    def _build(self, frame: av.video.frame.VideoFrame) -> av.filter.Graph:
        height, width = self._hw
        graph = av.filter.Graph()
        graph.threads = 1
        steps = [
            graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=self._stream.time_base
            )
        ]
        turned = frame.width, frame.height
        for name, argument in _FILTERS[_orientation(frame)]:
            steps.append(graph.add(name, argument or None))
            turned = turned[::-1] if name == "transpose" else turned
        sar = float(self._stream.sample_aspect_ratio or 1)
        if sar == 1 and (turned[0] - turned[0] % 2, turned[1] - turned[1] % 2) == (width, height):
            if turned != (width, height):
                steps.append(graph.add("crop", f"{width}:{height}:0:0:exact=1"))
        else:
            steps.append(graph.add("scale", f"{width}:{height}:flags=bicubic"))
        steps.append(graph.add("scale", "out_range=tv"))
        steps.append(graph.add("format", "pix_fmts=yuv420p"))
        steps.append(graph.add("buffersink"))
        graph.link_nodes(*steps).configure()
        return graph


def _rgb(frame: av.video.frame.VideoFrame) -> Rgb:
    """uint8 (H, W, 3). The file's own colour matrix; one that says none is taken as BT.601, as libav does."""
    return cast(Rgb, frame.to_ndarray(format="rgb24"))


def _encode(
    target: Path,
    pictures: Iterator[av.video.frame.VideoFrame],
    height: int,
    width: int,
    fps: float,
    *,
    crf: int,
    colours: int,
) -> None:
    """Write yuv420p pictures as H.264 in MP4 under a temporary name, then rename. Leaves nothing behind on an error."""
    rate = Fraction(fps).limit_denominator(1001)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    options = {
        "crf": str(crf),
        "preset": "veryfast",
        "x264-params": f"keyint={KEYFRAME_EVERY}:min-keyint={KEYFRAME_EVERY}:scenecut=0:bframes=0:open-gop=0",
    }
    try:
        container_options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(str(partial.absolute()), "w", format="mp4", options=container_options) as container:
            stream = container.add_stream("libx264", rate=rate, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = _THREADS
            stream.codec_context.time_base = 1 / rate
            stream.codec_context.colorspace = colours
            stream.codec_context.color_range = 1  # AVCOL_RANGE_MPEG
            for index, picture in enumerate(pictures):
                picture.pts = index
                picture.time_base = 1 / rate
                picture.pict_type = 0  # the encoder decides
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _line(error: BaseException) -> str:
    """What a libav error says, in one line and without our paths."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
