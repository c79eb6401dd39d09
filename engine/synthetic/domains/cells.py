"""Living cells under a phase-contrast microscope: grey, bright halos, transparent where they overlap, slow to deform.

A cell's true mask is its whole outline, even where another cell covers it: both are visible there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.synthetic.domains.drawing import Field, Rng, Size, clouds, drift, fill
from model.clips import Clip

_ANGLES = np.linspace(0, 2 * np.pi, 80, endpoint=False)


@dataclass(frozen=True)
class _Cell:
    """One cell. Arrays over time have the shape (T, ...)."""

    centre: NDArray[np.float64]  # (T, 2) px
    turn: NDArray[np.float64]  # (T,) radians
    radius: NDArray[np.float64]  # (T, 80) px, one for each angle
    inside: float  # grey levels relative to the background
    halo: float  # brightness of the ring around the cell, grey levels
    grain: Field  # the texture inside, around the centre
    nucleus: NDArray[np.float64]  # x, y, radius relative to the cell's radius

    def outline(self, i: int) -> NDArray[np.float64]:
        angle = _ANGLES + self.turn[i]
        around = np.stack([np.cos(angle), np.sin(angle)], 1) * self.radius[i][:, None]
        return np.asarray(around + self.centre[i])


def render(seed: int, size: Size) -> Clip:
    """The clip of a seed: frames uint8 (T, H, W, 3), masks bool (T, N, H, W). The same seed gives the same pixels."""
    rng = np.random.default_rng(seed)
    h, w = size.height, size.width
    cells = [_draw(rng, size) for _ in range(int(rng.integers(3, 7)))]
    plate = 128 + 9 * clouds(rng, h, w, 0.7 * size.side) + 2.5 * clouds(rng, h, w, 5.0, 2)
    debris = _debris(rng, size)
    focus = 0.7 + 0.25 * drift(rng, size.seconds, 20.0)  # the stage drifts through the focus
    frames = np.empty((size.frames, h, w, 3), np.uint8)
    masks = np.zeros((size.frames, len(cells), h, w), bool)
    for i in range(size.frames):
        picture: NDArray[np.float32] = plate + debris
        for n, cell in enumerate(cells):
            cover = fill(cell.outline(i), h, w)
            masks[i, n] = cover > 0.5
            if masks[i, n].any():
                picture = picture + _light_of(cell, i, cover, size)
        sharp = cv2.GaussianBlur(picture, (0, 0), float(np.clip(focus[i], 0.4, 1.2)))
        noisy = sharp + rng.standard_normal((h, w), np.float32) * 3.0
        frames[i] = np.clip(noisy, 0, 255).astype(np.uint8)[..., None]
    return Clip(frames, masks)


def _draw(rng: Rng, size: Size) -> _Cell:
    """A random cell: round or spread, mostly slow; one in six wanders out of the picture."""
    seconds, t = size.seconds, size.frames
    mean = size.side * float(rng.uniform(0.09, 0.19))
    stretch = float(rng.uniform(1.0, 1.9))
    radius = np.full((t, len(_ANGLES)), mean)
    radius = radius / np.sqrt((np.cos(_ANGLES) / stretch) ** 2 + (np.sin(_ANGLES) * stretch) ** 2)[None]
    for waves in range(2, 7):  # lamellae that slowly grow and shrink
        strength = mean * float(rng.uniform(0.2, 0.8)) / waves
        phase = rng.uniform(0, 2 * np.pi) + 0.6 * drift(rng, seconds, 9.0)
        radius = radius + strength * (0.5 + 0.5 * drift(rng, seconds, 6.0))[:, None] * np.cos(
            waves * _ANGLES[None] + phase[:, None]
        )
    start = rng.uniform(0.12, 0.88, 2) * (size.width, size.height)
    speed = rng.normal(0, 0.02, 2) * size.side
    if rng.random() < 1 / 6:
        speed = speed * 5
    sway = 0.05 * size.side * np.stack([drift(rng, seconds, 5.0), drift(rng, seconds, 5.0)], 1)
    return _Cell(
        centre=start + speed * (seconds - seconds[-1] / 2)[:, None] + sway,
        turn=rng.uniform(0, 2 * np.pi) + 0.5 * drift(rng, seconds, 12.0),
        radius=np.maximum(radius, 0.25 * mean),
        inside=float(rng.uniform(-14, 0)),
        halo=float(rng.uniform(50, 110)),
        grain=clouds(rng, 2 * size.side, 2 * size.side, float(rng.uniform(3, 7)), 2) * float(rng.uniform(4, 10)),
        nucleus=np.array([rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2), rng.uniform(0.3, 0.45)]),
    )


def _light_of(cell: _Cell, i: int, cover: Field, size: Size) -> Field:
    """What a cell adds to the light: darker inside, a bright halo outside that fades, a nucleus, grains."""
    h, w, width = size.height, size.width, max(1.5, 0.018 * size.side)
    wide = cv2.GaussianBlur(cover, (0, 0), width)
    halo = np.clip(wide - cover, 0, 1) * cell.halo * 2
    rim = np.clip(cover - wide, 0, 1) * -60.0
    x, y = cell.centre[i]
    side = cell.grain.shape[0]
    shift = np.array([[1, 0, x - side / 2], [0, 1, y - side / 2]])
    grain = cv2.warpAffine(cell.grain, shift, (w, h), flags=cv2.INTER_LINEAR)
    mean = float(cell.radius[i].mean())
    spot = np.zeros((h, w), np.float32)
    place = (round(x + cell.nucleus[0] * mean), round(y + cell.nucleus[1] * mean))
    cv2.circle(spot, place, max(1, round(cell.nucleus[2] * mean)), 1.0, -1, cv2.LINE_AA)
    disc = cv2.GaussianBlur(spot, (0, 0), width / 2)
    edge = np.abs(disc - cv2.GaussianBlur(disc, (0, 0), width / 2)) * 60
    return np.asarray(halo + rim + cover * (cell.inside + grain - 10 * disc + edge), np.float32)


def _debris(rng: Rng, size: Size) -> Field:
    """Specks and scratches on the plate. They have halos like cells, do not move, and have no true mask."""
    layer = np.zeros((size.height, size.width), np.float32)
    for _ in range(int(rng.integers(4, 14))):
        place = (int(rng.integers(size.width)), int(rng.integers(size.height)))
        cv2.circle(layer, place, int(rng.integers(1, max(2, size.side // 50))), float(rng.uniform(-50, 70)), -1)
    soft = cv2.GaussianBlur(layer, (0, 0), 1.2)
    return np.asarray(soft + (soft - cv2.GaussianBlur(layer, (0, 0), 4.0)), np.float32)
