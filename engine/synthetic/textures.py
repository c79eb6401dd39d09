"""Random textures for synthetic clips."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.synthetic.scene import Image, Rng


def draw_texture(rng: Rng, side: int) -> Image:
    """A square texture: noise at many scales, stripes, checks, marble, dots or a gradient, in two to four colours."""
    kind = rng.choice(["noise", "noise", "noise", "stripes", "checks", "marble", "dots", "gradient", "flat"])
    if kind == "stripes" or kind == "checks":
        y, x = np.mgrid[0:side, 0:side].astype(np.float32)
        angle, period = rng.uniform(0, np.pi), rng.uniform(5, 40)
        u = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
        if kind == "checks":
            u = u * np.sin((y * np.cos(angle) - x * np.sin(angle)) * 2 * np.pi / period)
        field = np.clip(u * rng.uniform(1, 6), -1, 1) * 0.5 + 0.5
        field = 0.85 * field + 0.15 * _noise(rng, side, 1.2)
    elif kind == "marble":
        x = np.arange(side, dtype=np.float32)[None] / side
        field = 0.5 + 0.5 * np.sin(2 * np.pi * (x * rng.uniform(1, 8) + rng.uniform(1, 5) * _noise(rng, side, 1.3)))
    elif kind == "dots":
        field = _noise(rng, side, 1.5) * 0.3
        radius = max(1, int(rng.uniform(1.5, 6)))
        for x, y in rng.integers(0, side, (int(side * side / (radius * radius * rng.uniform(12, 40))), 2)):
            cv2.circle(field, (int(x), int(y)), radius, float(rng.uniform(0.6, 1.0)), -1, cv2.LINE_AA)
    elif kind == "gradient":
        y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
        angle = rng.uniform(0, 2 * np.pi)
        field = np.clip((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5, 0, 1)
        field = 0.8 * field + 0.2 * _noise(rng, side, 1.6)
    elif kind == "flat":
        field = 0.5 + 0.12 * (_noise(rng, side, 1.4) - 0.5)
    else:
        field = _noise(rng, side, rng.uniform(0.6, 2.0))
    texture = _colour(rng, np.clip(field, 0, 1).astype(np.float32))
    if rng.random() < 0.12:
        _write_text(rng, texture)
    return texture


def _write_text(rng: Rng, texture: Image) -> None:
    """Writes lines of random letters, as on signs, shirts and screens."""
    side, colour = texture.shape[0], tuple(int(c) for c in rng.integers(0, 256, 3))
    size = float(rng.uniform(0.4, 1.4))
    for y in range(int(20 * size), side, int(rng.uniform(28, 70) * size)):
        count = int(rng.integers(3, 3 + max(1, int(side / (20 * size)))))
        letters = "".join(chr(c) for c in rng.integers(65, 91, count))
        at = (int(rng.integers(0, side // 2)), y)
        cv2.putText(texture, letters, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 2, cv2.LINE_AA)


def _noise(rng: Rng, side: int, roughness: float) -> NDArray[np.float32]:
    """Smooth noise in [0, 1]: a sum of random grids; the weight of each grid is frequency ** -roughness."""
    field = np.zeros((side, side), np.float32)
    cells = 2 + int(rng.integers(0, 3))
    weight = 1.0
    while cells < side:
        grid = rng.standard_normal((cells, cells), np.float32)
        field += weight * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        cells *= 2
        weight *= 2.0**-roughness
    field -= field.min()
    return field / max(float(field.max()), 1e-6)


def _colour(rng: Rng, field: NDArray[np.float32]) -> Image:
    """Maps a field in [0, 1] to 2 to 4 random colours of similar hue, saturation and brightness."""
    stops = int(rng.integers(2, 5))
    base = rng.uniform(0, 180)
    hsv = np.stack(
        [
            (base + rng.normal(0, rng.choice([6, 25, 70]), stops)) % 180,
            np.clip(rng.uniform(0, 220) + rng.normal(0, 35, stops), 0, 255),
            np.clip(rng.uniform(30, 235) + rng.normal(0, rng.uniform(10, 70), stops), 5, 250),
        ],
        axis=1,
    ).astype(np.uint8)
    rgb = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0].astype(np.float32)
    ramp = np.stack([np.interp(np.linspace(0, stops - 1, 256), np.arange(stops), rgb[:, c]) for c in range(3)], 1)
    index = (field * 255).astype(np.uint8)
    return np.asarray(cv2.LUT(cv2.merge([index] * 3), ramp.astype(np.uint8)[None]), np.uint8)


def shaded(rng: Rng, texture: Image) -> Image:
    """The texture lit from one side, as on a round object."""
    side, way, depth = texture.shape[0], rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.4)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / (side / 2) - 1
    light = 1 + depth * (x * np.cos(way) + y * np.sin(way)).astype(np.float32)
    return np.asarray(cv2.multiply(texture, cv2.merge([light] * 3), dtype=cv2.CV_8U), np.uint8)
