"""Video files from anywhere: opens them safely and chooses the video stream.

A file is judged by its content, never by its name. Knows local files and PyAV. Does not know limits, rates or stored
videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import av.video.frame
import av.video.stream
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from storage.records import FPS, Refusal
from storage.videos.reader import VideoError
from storage.videos.video import libav_message

#: Demuxers that may open a source. Playlists (hls, concat, dash) are left out, because they read other files.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,rm,ivf,h264,hevc,dv,wtv,nut,"
    "gif,apng,mp3,wav,flac,aac,aiff,amr,image2,png_pipe,jpeg_pipe,jpegls_pipe,webp_pipe,bmp_pipe,tiff_pipe,srt,webvtt"
)

_MAX_MOOV = 1 << 26  # bytes
_STILLS = frozenset({"gif", "apng", "image2"})
NO_DISPLAY_TIMES = ("avi",)  # formats that store decode times only
_PICTURE_CODECS = ("mjpeg", "png", "webp", "bmp", "tiff", "gif")  # of covers that are not marked as such
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


class Refused(VideoError):
    """This file cannot become a stored video."""

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


Opened = tuple["av.container.InputContainer", "av.video.stream.VideoStream"]


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """The container and its video stream. Raises Refused; the message of libav becomes the detail."""
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
        raise Refused(Refusal.UNREADABLE, f"{name}: {libav_message(error)}") from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & _PICTURES]
        kinds = set(container.format.name.split(","))
        if not streams or kinds & _STILLS or any(kind.endswith("_pipe") for kind in kinds):
            raise Refused(Refusal.NO_VIDEO_STREAM, f"{name}: {container.format.name}, no video stream")
        stream = max(streams, key=_preference)  # of equals, the first
        if stream.codec_context is None or stream.time_base is None or not (stream.width and stream.height):
            raise Refused(Refusal.UNREADABLE, f"{name}: the video stream has no decoder or no size")
        stream.thread_type = "AUTO"
        yield container, stream


def is_encrypted(path: Path) -> bool:
    """Whether an MP4 file says that its video is encrypted: its sample entry is `encv`, with the scheme in `sinf`.

    Reads the box `moov` only. Source: ISO/IEC 14496-12, 8.12. False for other formats.
    """
    with path.open("rb") as file:
        while len(head := file.read(16)) >= 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            begin, header = file.tell() - len(head), 8
            if size == 1:
                size, header = int.from_bytes(head[8:], "big"), 16
            if kind == b"moov":
                file.seek(begin + header)
                moov = file.read(min(size, _MAX_MOOV) if size else _MAX_MOOV)
                return b"encv" in moov and b"sinf" in moov
            if size < header:  # 0: the last box
                return False
            file.seek(begin + size)
    return False


def _preference(stream: av.video.stream.VideoStream) -> tuple[bool, bool, int]:
    """Ranks video streams as ffmpeg does: the default one, then the largest. A picture, such as a cover, comes last."""
    codec = stream.codec_context
    film = stream.frames != 1 and (codec is None or codec.name not in _PICTURE_CODECS)
    return film, bool(stream.disposition & Disposition.default), stream.width * stream.height


def packets_of(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator[av.Packet[av.video.stream.VideoStream]]:
    """The packets of a stream until the stream or the file ends."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:
            return
        yield packet


def timed(
    frames: Iterable[av.video.frame.VideoFrame],
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
) -> Iterator[tuple[av.video.frame.VideoFrame, int]]:
    """Frames in display order, and when each is shown, in the time base of the stream.

    AVI stores no display times, and those that libav invents are wrong for B-frames. Its frames get the times at which
    the decoder returned them. A frame without a time follows its predecessor at the average rate.
    """
    rate, base = stream.average_rate or FPS, stream.time_base or Fraction(1, 1000)
    follows = 0
    for frame in frames:
        ticks = frame.dts if container.format.name in NO_DISPLAY_TIMES else frame.pts
        ticks = follows if ticks is None else ticks
        follows = ticks + round(1 / (rate * base))
        yield frame, ticks


def spanned_s(times: Sequence[float]) -> float:
    """Seconds from the first frame to the end of the last, which gets the average duration of a frame."""
    if len(times) < 2:
        return 0.0
    return (times[-1] - times[0]) * len(times) / (len(times) - 1)


def frame_count_at_24(times: Sequence[float]) -> int:
    """The number of frames of the video at 24 fps. times: s, ascending."""
    return max(1, round(spanned_s(times) * FPS))


def nearest_frames(times: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """For each of `count` frames at 24 fps, the source frame nearest to it; of two, the earlier.

    times: (N,) s from the first source frame, strictly ascending. Returns (count,) positions in `times`.
    """
    return np.searchsorted((times[:-1] + times[1:]) / 2 + 1e-9, np.arange(count) / FPS)


def is_variable(times: Sequence[float]) -> bool:
    """Whether frame intervals differ by more than a tenth of their median. Rounding to milliseconds differs by less."""
    if len(times) < 3:
        return False
    intervals = np.diff(np.asarray(times))
    middle = float(np.median(intervals))
    return bool(np.abs(intervals - middle).max() > max(0.1 * middle, 0.0021))
