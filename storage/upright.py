"""Turns decoded frames upright: rotation, mirroring, square pixels, even sides, one pixel format.

Knows frames and filters of libav. Does not know files, times or limits.
"""

from __future__ import annotations

from typing import cast

import av
import av.container
import av.error
import av.filter
import av.video.frame
import av.video.stream
import numpy as np

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


class Upright:
    """Turns decoded frames into upright pictures of one size and format. Rebuilds its filters if the source changes."""

    def __init__(self, stream: av.video.stream.VideoStream, height: int, width: int, pix_fmt: str = "yuv420p") -> None:
        """height, width: of `upright_hw`, or one less, which loses the last row or column."""
        self._stream = stream
        self._pix_fmt = pix_fmt
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
        if sar == 1 and turned[0] - width in (0, 1) and turned[1] - height in (0, 1):
            if turned != (width, height):
                steps.append(graph.add("crop", f"{width}:{height}:0:0:exact=1"))
        else:
            steps.append(graph.add("scale", f"{width}:{height}:flags=bicubic"))
        steps.append(graph.add("scale", "out_range=tv"))
        steps.append(graph.add("format", f"pix_fmts={self._pix_fmt}"))
        steps.append(graph.add("buffersink"))
        graph.link_nodes(*steps).configure()
        return graph
