"""Turns decoded frames into what a player shows: upright, square pixels, no combing, standard dynamic range.

Knows frames and filters of libav. Does not know files, times or limits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import cast

import av
import av.container
import av.error
import av.filter
import av.video.frame
import av.video.stream
import numpy as np

from storage.videos.reader import VideoError

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


#: AVColorTransferCharacteristic of a high dynamic range -> its name
_HDR = {16: "PQ", 18: "HLG"}
#: Options of libswscale's tone mapping (FFmpeg 7.1 and later), from the colours of the frame to BT.709.
_TO_SDR = ":out_transfer=bt709:out_primaries=bt709:out_color_matrix=bt709:intent=perceptual"
_WHITE_NITS = 203  # reference white in PQ. Source: ITU-R BT.2408
#: Filters for PQ that states no peak: they set the usual one, 1000 nits. libswscale assumes 10,000, which gives a dark
#: picture. It maps HLG with a peak of 1000 nits, and the conversion from PQ to HLG changes nothing below that.
_TO_1000_NITS = (
    ("sidedata", "mode=delete:type=MASTERING_DISPLAY_METADATA"),
    ("scale", "out_range=tv:out_transfer=arib-std-b67:intent=absolute_colorimetric"),
    ("format", "pix_fmts=yuv444p12le"),
)


class ShapeChanged(VideoError):
    """The picture changes its shape in the middle of the video."""


def _orientation(frame: av.video.frame.VideoFrame) -> tuple[int, bool]:
    """Degrees clockwise that make a frame upright (0, 90, 180, 270), and whether the frame is mirrored."""
    degrees = round(-frame.rotation / 90) * 90 % 360
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return degrees, False
    a, b, _, c, d = np.frombuffer(cast(bytes, matrix), dtype=np.int32)[:5].astype(np.int64)
    return degrees, bool(a * d - b * c < 0)


def upright_hw(frame: av.video.frame.VideoFrame, stream: av.video.stream.VideoStream) -> tuple[int, int, int]:
    """Height and width of the picture as a player shows it (upright, square pixels), and the degrees clockwise."""
    degrees, _ = _orientation(frame)
    width = round(frame.width * float(stream.sample_aspect_ratio or 1))
    height = frame.height
    if degrees in (90, 270):
        height, width = width, height
    return height, width, degrees


def tone_curve(frame: av.video.frame.VideoFrame) -> str | None:
    """The curve of a frame with a high dynamic range; None for a standard one."""
    return _HDR.get(frame.color_trc)


def _lacks_peak(frame: av.video.frame.VideoFrame) -> bool:
    """Whether a PQ frame does not say how bright its mastering display was, or states less than reference white."""
    if tone_curve(frame) != "PQ":
        return False
    display = frame.side_data.get("MASTERING_DISPLAY_METADATA")
    if display is None:
        return True
    values = np.frombuffer(cast(bytes, display), dtype=np.int32)  # AVMasteringDisplayMetadata
    peak, unit, stated = (int(values[at]) for at in (18, 19, 21))
    return not stated or unit <= 0 or peak < _WHITE_NITS * unit


def deinterlaced(
    timed: Iterable[tuple[av.video.frame.VideoFrame, int]], stream: av.video.stream.VideoStream, notes: set[str]
) -> Iterator[tuple[av.video.frame.VideoFrame, int]]:
    """Frames and their times, without combing. Interlaced frames are noted and filtered by bwdif, others kept.

    The filter looks one frame ahead, so that the time of each frame waits beside it. It starts at the first interlaced
    frame, and again where the size changes.
    """
    graph: av.filter.Graph | None = None
    waiting: deque[int] = deque()
    key: tuple[object, ...] = ()

    def ready() -> Iterator[tuple[av.video.frame.VideoFrame, int]]:
        with suppress(av.error.BlockingIOError, av.error.EOFError):
            while graph is not None:
                yield graph.vpull(), waiting.popleft()

    for frame, ticks in timed:
        now = frame.width, frame.height, frame.format.name
        if graph is not None and now != key:
            graph.vpush(None)
            yield from ready()
            graph = None
        if graph is None and frame.interlaced_frame:
            graph, key = _graph(frame, stream, [("bwdif", "mode=send_frame:deint=interlaced")]), now
            notes.add("deinterlaced")
        if graph is None:
            yield frame, ticks
            continue
        graph.vpush(frame)
        waiting.append(ticks)
        yield from ready()
    if graph is not None:
        graph.vpush(None)
        yield from ready()


class Upright:
    """Turns decoded frames into upright pictures of one size and format. Rebuilds its filters if the source changes."""

    def __init__(self, stream: av.video.stream.VideoStream, height: int, width: int, pix_fmt: str = "yuv420p") -> None:
        """height, width: of `upright_hw`, or one less, which loses the last row or column."""
        self._stream = stream
        self._pix_fmt = pix_fmt
        self._hw = height, width
        self._lacks_peak = False  # whether any frame did
        self._key: tuple[object, ...] = ()
        self._graph = av.filter.Graph()

    def __call__(self, frame: av.video.frame.VideoFrame) -> av.video.frame.VideoFrame:
        self._lacks_peak |= _lacks_peak(frame)  # H.264 may state the peak in some frames only: one tone for the others
        key = (frame.width, frame.height, frame.format.name, tone_curve(frame), self._lacks_peak, *_orientation(frame))
        if key != self._key:
            self._check_shape(frame)
            self._graph, self._key = self._build(frame), key
        self._graph.vpush(frame)
        return self._graph.vpull()

    def _check_shape(self, frame: av.video.frame.VideoFrame) -> None:
        """Raises ShapeChanged where scaling would squeeze the picture. Another size of the same shape is scaled."""
        height, width, _ = upright_hw(frame, self._stream)
        if abs(height * self._hw[1] - width * self._hw[0]) > 0.02 * height * self._hw[1]:
            at_s = f" at {frame.time:.2f} s" if frame.time is not None else ""
            raise ShapeChanged(f"{width} x {height} px{at_s}, the video began with {self._hw[1]} x {self._hw[0]}")

    def _build(self, frame: av.video.frame.VideoFrame) -> av.filter.Graph:
        height, width = self._hw
        steps = list(_FILTERS[_orientation(frame)])
        turned = frame.width, frame.height
        if _orientation(frame)[0] in (90, 270):
            turned = turned[::-1]
        sar = float(self._stream.sample_aspect_ratio or 1)
        if sar == 1 and turned[0] - width in (0, 1) and turned[1] - height in (0, 1):
            if turned != (width, height):
                steps.append(("crop", f"{width}:{height}:0:0:exact=1"))
        else:
            steps.append(("scale", f"{width}:{height}:flags=bicubic"))
        if self._lacks_peak and tone_curve(frame) == "PQ":
            steps += _TO_1000_NITS
        steps.append(("scale", "out_range=tv" + (_TO_SDR if tone_curve(frame) else "")))
        steps.append(("format", f"pix_fmts={self._pix_fmt}"))
        return _graph(frame, self._stream, steps)


def _graph(
    frame: av.video.frame.VideoFrame, stream: av.video.stream.VideoStream, steps: Sequence[tuple[str, str]]
) -> av.filter.Graph:
    """A chain of filters for frames like this one. steps: name and arguments of each."""
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=stream.time_base)
    filters = [graph.add(name, arguments or None) for name, arguments in steps]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    return graph
