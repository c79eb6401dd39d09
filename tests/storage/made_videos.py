"""Videos for the tests: frames that show their own index, and source files of many kinds."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

from storage.videos.normalise import Normalised

H, W = 64, 96
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (230, 230, 230)}
# What is known of a video of no content after it was normalised.
MADE = Normalised(
    height=24,
    width=32,
    frame_count=12,
    duration_s=0.5,
    source_fps=24.0,
    variable_rate=False,
    rotation=0,
    timestamps=(0.0,) * 12,
    source_s=(0.0,) * 12,
    changes=(),
)


def colours(count: int, height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
    """Frames of noise, uint8 (count, height, width, 3): no two seeds give the same bytes."""
    return np.random.default_rng(seed).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


def numbered(index: int, height: int = H, width: int = W) -> np.ndarray:
    """A frame that shows its index: eight blocks, light for the bits of `index` that are set."""
    rgb = np.full((height, width, 3), 40, dtype=np.uint8)
    for bit in range(8):
        if index >> bit & 1:
            rgb[height // 4 : 3 * height // 4, width * bit // 8 : width * (bit + 1) // 8] = 220
    return rgb


def number_of(rgb: np.ndarray) -> int:
    height, width = rgb.shape[:2]
    centre = rgb[height // 2 - 2 : height // 2 + 2].mean(axis=(0, 2))
    return sum(1 << bit for bit in range(8) if centre[int(width * (bit + 0.5) / 8)] > 130)


def corners(height: int = H, width: int = W) -> np.ndarray:
    """Red, green / blue, white: any turn or mirror shows."""
    rgb = np.zeros((height, width, 3), dtype=np.uint8)
    rgb[: height // 2, : width // 2] = COLOURS["red"]
    rgb[: height // 2, width // 2 :] = COLOURS["green"]
    rgb[height // 2 :, : width // 2] = COLOURS["blue"]
    rgb[height // 2 :, width // 2 :] = COLOURS["white"]
    return rgb


def corner_names(rgb: np.ndarray) -> list[str]:
    height, width = rgb.shape[:2]
    found = []
    for y, x in ((4, 4), (4, width - 5), (height - 5, 4), (height - 5, width - 5)):
        distances = {name: int(np.abs(rgb[y, x].astype(int) - colour).sum()) for name, colour in COLOURS.items()}
        found.append(min(distances, key=distances.__getitem__))
    return found


def make(
    path: Path,
    frames: list[np.ndarray],
    *,
    times_ms: list[int] | None = None,
    fps: int = 24,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int | None = None,
    hflip: bool = False,
    sar: Fraction | None = None,
    audio_s: float = 0.0,
    faststart: bool = False,
    last_ms: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """A source video. last_ms: the stated duration of its last frame. options: of the encoder."""
    flags = {"movflags": "+faststart"} if faststart else {}
    with av.open(str(path), "w", options=flags) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=fps, options=options or {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000) if times_ms else Fraction(1, fps)
        if sar:
            stream.codec_context.sample_aspect_ratio = sar
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=hflip)
        sound = container.add_stream("aac", rate=16000) if audio_s else None
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = times_ms[index] if times_ms else index
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        rest = stream.encode(None)
        for packet in rest:
            if last_ms and packet.pts == max(p.pts or 0 for p in rest):
                packet.duration = last_ms
        container.mux(rest)
        if sound:
            for index in range(int(audio_s * 16000 / 1024)):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 16000, index * 1024
                container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return path
