"""Metal parts on a conveyor belt, seen from above: look-alikes, hard reflections, parts that enter and leave.

All parts of a clip are of two or three kinds. Parts of one kind differ only in place and motion. The belt is dark
rubber with a pattern that moves with the parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.synthetic.domains.drawing import Field, Rng, Size, clouds, drift
from model.clips import Clip

_DETAIL = 4  # a part is drawn larger by this factor and then reduced, for smooth edges


@dataclass(frozen=True)
class _Kind:
    """A kind of part, drawn once: how much metal covers each pixel, and the height of its surface."""

    cover: Field
    height: Field


@dataclass(frozen=True)
class _Part:
    """One part on the belt. along, across: its place on frame 0, px. nudge: (T, 3) offsets of x, y and the angle."""

    kind: _Kind
    along: float
    across: float
    angle: float
    shade: float
    nudge: NDArray[np.float64]


def render(seed: int, size: Size) -> Clip:
    """The clip of a seed: frames uint8 (T, H, W, 3), masks bool (T, N, H, W). The same seed gives the same pixels."""
    rng = np.random.default_rng(seed)
    h, w, seconds = size.height, size.width, size.seconds
    speed = float(rng.uniform(0.05, 0.16)) * w * (1 if rng.random() < 0.5 else -1)  # px a second
    way = speed * seconds + 0.01 * w * drift(rng, seconds, 4.0)  # the motor's speed varies slightly
    kinds = [_draw_kind(rng, size) for _ in range(int(rng.integers(2, 4)))]
    parts = _lay_out(rng, kinds, size, way)
    belt = _rubber(rng, h, w + int(np.ptp(way)) + 8)
    glare = np.clip(clouds(rng, h, w, 0.8 * size.side), -1, 2)
    lamp = np.array([float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))])
    frames = np.empty((size.frames, h, w, 3), np.uint8)
    masks = np.zeros((size.frames, len(parts), h, w), bool)
    for i in range(size.frames):
        shift = np.array([[1, 0, way[i] - way.max()], [0, 1, 0]])
        light = cv2.warpAffine(belt, shift, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        for n, part in enumerate(parts):
            place = _place(part, i, float(way[i]))
            cover = cv2.warpAffine(part.kind.cover, place, (w, h), flags=cv2.INTER_LINEAR)
            seen = cover > 0.5
            if not seen.any():
                continue
            shadow = cv2.GaussianBlur(cover, (0, 0), 0.012 * size.side)
            light = light * (1 - 0.55 * np.roll(shadow, (3, 4), (0, 1)))
            surface = np.asarray(cv2.warpAffine(part.kind.height, place, (w, h), flags=cv2.INTER_LINEAR), np.float32)
            light = np.asarray(light * (1 - cover) + cover * _metal(surface, lamp, glare, part.shade), np.float32)
            masks[i, :n] &= ~seen
            masks[i, n] = seen
        grain = rng.standard_normal((h, w), np.float32) * 2.5
        frames[i] = np.clip((light + grain)[..., None] * (0.97, 1.0, 1.02), 0, 255).astype(np.uint8)
    return Clip(frames, masks)


def _draw_kind(rng: Rng, size: Size) -> _Kind:
    """A washer, a hexagonal nut, a bolt, a bracket or a gear, in the middle of a square."""
    radius = int(size.side * float(rng.uniform(0.11, 0.18)))
    side = 2 * (2 * radius + 4) * _DETAIL
    middle, r = side // 2, radius * _DETAIL
    flat = np.zeros((side, side), np.uint8)
    holes: list[tuple[int, int, int]] = []
    kind = str(rng.choice(["washer", "nut", "bolt", "bracket", "gear"]))
    if kind in ("nut", "gear"):
        teeth = 6 if kind == "nut" else int(rng.integers(9, 15))
        corners = np.arange(teeth if kind == "nut" else 4 * teeth)
        angle = corners * 2 * np.pi / len(corners)
        reach = np.where(corners % 4 < 2, 1.0, 0.8) if kind == "gear" else np.ones(len(corners))
        outline = middle + r * reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        cv2.fillPoly(flat, [outline.astype(np.int32)], 255)
        holes.append((middle, middle, int(r * rng.uniform(0.25, 0.5))))
    elif kind == "washer":
        cv2.circle(flat, (middle, middle), r, 255, -1)
        holes.append((middle, middle, int(r * rng.uniform(0.4, 0.6))))
    elif kind == "bolt":
        half = max(2, int(r * rng.uniform(0.16, 0.25)))
        cv2.rectangle(flat, (middle - r, middle - half), (middle + r, middle + half), 255, -1)
        cv2.rectangle(flat, (middle - int(1.3 * r), middle - 2 * half), (middle - r, middle + 2 * half), 255, -1)
    else:
        wide = max(2, int(r * rng.uniform(0.25, 0.35)))
        cv2.rectangle(flat, (middle - r, middle - r), (middle - r + 2 * wide, middle + r), 255, -1)
        cv2.rectangle(flat, (middle - r, middle + r - 2 * wide), (middle + r, middle + r), 255, -1)
        holes.append((middle - r + wide, middle - r + wide, max(2, wide // 2)))
    for x, y, hole in holes:
        cv2.circle(flat, (x, y), hole, 0, -1)
    cover = cv2.resize(flat, None, fx=1 / _DETAIL, fy=1 / _DETAIL, interpolation=cv2.INTER_AREA)
    inside = cv2.distanceTransform((cover > 127).astype(np.uint8), cv2.DIST_L2, 5)
    height = np.minimum(inside, 0.18 * radius).astype(np.float32)  # a bevel around a flat top
    brushed = cv2.blur(rng.standard_normal(height.shape, np.float32), (15, 1))
    return _Kind(np.asarray(cover / np.float32(255), np.float32), np.asarray(height + 0.6 * brushed, np.float32))


def _lay_out(rng: Rng, kinds: list[_Kind], size: Size, way: NDArray[np.float64]) -> list[_Part]:
    """Parts over the whole stretch of belt that passes the camera; at least one is visible on frame 0."""
    begin, end = -max(0.0, float(way.max())), size.width - min(0.0, float(way.min()))
    parts = []
    for n in range(int(rng.integers(4, 8))):
        nudged = rng.random() < 0.3  # a part that rolls and slips
        moves = np.stack([drift(rng, size.seconds, 3.0) for _ in range(3)], 1) * (
            0.04 * size.side,
            0.04 * size.side,
            0.5,
        )
        parts.append(
            _Part(
                kind=kinds[int(rng.integers(len(kinds)))],
                along=float(rng.uniform(0.2, 0.8) * size.width if n == 0 else rng.uniform(begin, end)),
                across=float(rng.uniform(0.15, 0.85) * size.height),
                angle=float(rng.uniform(0, 2 * np.pi)),
                shade=float(rng.uniform(0.8, 1.15)),
                nudge=moves if nudged else np.zeros_like(moves),
            )
        )
    return parts


def _place(part: _Part, i: int, way: float) -> NDArray[np.float64]:
    """The affine (2, 3) from the pixels of the part's kind to those of frame i."""
    middle = part.kind.cover.shape[0] / 2
    turn = part.angle + part.nudge[i, 2]
    m = np.array([[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0]])
    target = np.array([part.along + way + part.nudge[i, 0], part.across + part.nudge[i, 1]])
    m[:, 2] = target - m[:, :2] @ np.full(2, middle)
    return m


def _metal(height: Field, lamp: NDArray[np.float64], glare: Field, shade: float) -> Field:
    """The light from metal of this surface: dark and bright bevels, and the lamp's reflection."""
    slope_x, slope_y = cv2.Sobel(height, cv2.CV_32F, 1, 0), cv2.Sobel(height, cv2.CV_32F, 0, 1)
    lit = (slope_x * lamp[0] + slope_y * lamp[1]) * 16
    return np.asarray(np.clip(shade * (118 + 38 * glare) + lit, 20, 255), np.float32)


def _rubber(rng: Rng, height: int, width: int) -> Field:
    """A dark belt with ribs, stains and scratches."""
    ribs = 6 * np.sin(np.arange(width) * 2 * np.pi / float(rng.uniform(8, 18)))[None]
    belt = 52 + ribs + 9 * clouds(rng, height, width, 40.0, 3)
    for _ in range(int(rng.integers(3, 9))):
        ends = rng.integers(0, (width, height), (2, 2))
        cv2.line(belt, tuple(map(int, ends[0])), tuple(map(int, ends[1])), float(rng.uniform(35, 95)), 1, cv2.LINE_AA)
    return np.asarray(belt, np.float32)
