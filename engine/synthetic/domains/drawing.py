"""Shared by the domains: the size of a clip, smooth random paths and fields, outlines that change slowly."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Field = NDArray[np.float32]  # (H, W)


@dataclass(frozen=True)
class Size:
    """The size of a clip. stride: distance between two drawn frames, in frames at 24 fps."""

    height: int = 240
    width: int = 320
    frames: int = 72
    stride: int = 1

    @property
    def side(self) -> int:
        """The shorter side, px."""
        return min(self.height, self.width)

    @property
    def seconds(self) -> NDArray[np.float64]:
        """The time of each frame, (T,)."""
        return np.arange(self.frames) * self.stride / 24


def drift(rng: Rng, seconds: NDArray[np.float64], period_s: float) -> NDArray[np.float64]:
    """A smooth random path in about [-1, 1] for each time, (T,): three sines with periods from `period_s` down."""
    path = np.zeros(len(seconds))
    for part, weight in ((1.0, 0.6), (1.7, 0.3), (3.1, 0.15)):
        path += weight * np.sin(2 * np.pi * (seconds * part / period_s + rng.random()))
    return path


def clouds(rng: Rng, height: int, width: int, cell_px: float, octaves: int = 1) -> Field:
    """Smooth noise with mean 0 and deviation 1. cell_px: size of the largest structures."""
    field = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(1.0, cell_px / 2**octave)
        grid = rng.standard_normal((int(height / step) + 3, int(width / step) + 3), np.float32)
        field += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), np.float32)


def fill(outline: NDArray[np.float64], height: int, width: int) -> Field:
    """How much of each pixel an outline (P, 2) in px covers, in [0, 1]."""
    drawn = np.zeros((height, width), np.uint8)
    cv2.fillPoly(drawn, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return np.asarray(drawn / np.float32(255), np.float32)
