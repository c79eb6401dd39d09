"""Stored videos: write frames, read any frame by its index.

A stored video is H.264 in MP4 with a constant rate, a keyframe every 12 frames and no B-frames. Frame n of the file is
therefore the frame at n / 24 s, and reading one frame decodes at most 12. Knows local files and PyAV. Does not
know blobs, tables or masks, nor files that this project did not write: `storage/videos/source_file.py` opens those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import av.container
import av.error
import av.filter
import av.video.frame
import av.video.stream
import cv2
import numpy as np

from storage.pixels import Rgb
from storage.records import FPS
from storage.videos.reader import CachedReader, FrameUnreadable
from storage.whole_files import complete

KEYFRAME_EVERY = 12  # frames: half a second, and the most that a random read decodes

BT709 = 1  # AVCOL_SPC_BT709
_THREADS = 2  # a fixed number, because the encoder's output depends on it


def write(path: Path, frames: Iterable[Rgb], fps: float = FPS, *, crf: int = 18) -> None:
    """Write frames as a stored video: H.264, a keyframe every 12 frames, no B-frames.

    frames: uint8 (H, W, 3) RGB, all of one size, H and W even.
    crf: quality of the encoder; 0 is nearly lossless, 18 looks lossless, 51 is the worst.
    Raises ValueError for odd or different sizes, or no frames.
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

    encode(path, converted(), height, width, fps, crf=crf, colours=BT709)


def frames(path: Path, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Rgb]]:
    """The frames of a stored video, all or at `indices`, one at a time: (frame_idx, uint8 (H, W, 3) RGB).

    Sorted indices are the fastest; keyframes let it skip gaps. Raises ValueError for an index outside the video.
    """
    with FrameReader(path, keep=1) as reader:
        for frame_idx in range(reader.frame_count) if indices is None else indices:
            yield frame_idx, reader.read(frame_idx)


def jpeg(rgb: Rgb, quality: int = 90) -> bytes:
    """A picture as JPEG. rgb: uint8 (H, W, 3). quality: 1 to 100."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"no JPEG can be made of {rgb.dtype} {rgb.shape}")
    return data.tobytes()


class FrameReader(CachedReader):
    """A stored video that is kept open. The next frame costs one decoded frame."""

    def __init__(self, path: Path, keep: int = 16) -> None:
        """Raises FrameUnreadable if this is not a stored video."""
        super().__init__(path.name, keep)
        try:
            self._container = av.open(str(Path(path).absolute()), metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            raise FrameUnreadable(f"{path}: {libav_message(error)}") from error
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
            raise FrameUnreadable(f"{path}: not a stored video: its rate or its frame count is missing")
        self._tick = 1 / (rate * time_base)  # time base units a frame
        self._start = self._stream.start_time or 0
        self._decoded = self._container.decode(self._stream)
        self._next = 0  # index of the frame that the decoder returns next

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
            self._next = self.frame_count + KEYFRAME_EVERY  # the next read must seek
            raise FrameUnreadable(f"{self._name}, frame {frame_idx}: {libav_message(error)}") from error
        self._next = self.frame_count + KEYFRAME_EVERY
        raise FrameUnreadable(f"{self._name}, frame {frame_idx}: missing from the file")

    def _release(self) -> None:
        self._container.close()


def _rgb(frame: av.video.frame.VideoFrame) -> Rgb:
    """uint8 (H, W, 3). Uses the colour matrix of the file; without one, BT.601, as libav does."""
    return cast(Rgb, frame.to_ndarray(format="rgb24"))


def encode(
    target: Path,
    pictures: Iterator[av.video.frame.VideoFrame],
    height: int,
    width: int,
    fps: float,
    *,
    crf: int,
    colours: int,
) -> None:
    """Write yuv420p pictures as H.264 in MP4 under a temporary name, then rename. An error leaves no file behind."""
    rate = Fraction(fps).limit_denominator(1001)
    options = {
        "crf": str(crf),
        "preset": "veryfast",
        "x264-params": f"keyint={KEYFRAME_EVERY}:min-keyint={KEYFRAME_EVERY}:scenecut=0:bframes=0:open-gop=0",
    }
    with complete(target) as partial:
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


def libav_message(error: BaseException) -> str:
    """The message of a libav error, in one line and without our paths."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
