"""Fish in a pond from above: light dances on the ground, plants hide the fish, bodies bend and turn fast.

A fish's true mask is its visible part, without the pixels that leaves and other fish cover.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.synthetic.domains.drawing import Field, Rng, Size, clouds, drift, fill
from model.clips import Clip

_JOINTS = 24  # points along the spine
_STEP_S = 1 / 48  # time step of the simulated swimming
_MARGIN = 20  # px; how far a fish's shadow reaches beyond its body


@dataclass(frozen=True)
class _Fish:
    """One fish. spine: (T, _JOINTS, 2) px from nose to tail. width: (_JOINTS,) half width, px."""

    spine: NDArray[np.float64]
    width: NDArray[np.float64]
    colour: NDArray[np.float64]  # (3,)
    spots: Field  # a texture along and across the body, (_JOINTS * 4, 32)
    depth: float  # 0 at the surface, 1 at the ground: murky and dark


def render(seed: int, size: Size) -> Clip:
    """The clip of a seed: frames uint8 (T, H, W, 3), masks bool (T, N, H, W). The same seed gives the same pixels."""
    rng = np.random.default_rng(seed)
    h, w = size.height, size.width
    school = rng.uniform(0, 255, 3) * (1.0, 0.8, 0.5)  # fish of a school look alike
    swimmers = [_draw_fish(rng, size, school) for _ in range(int(rng.integers(2, 6)))]
    swimmers.sort(key=lambda fish: -fish.depth)  # the deepest is drawn first
    ground = _ground(rng, h, w)
    leaves, leaf_cover = _plants(rng, size)
    waves = [clouds(rng, h + 80, w + 80, 0.16 * size.side) for _ in range(2)]
    water = np.array([70.0, 105.0, 95.0]) * float(rng.uniform(0.8, 1.2))
    frames = np.empty((size.frames, h, w, 3), np.uint8)
    masks = np.zeros((size.frames, len(swimmers), h, w), bool)
    for i, second in enumerate(size.seconds):
        caustics = _caustics(waves, float(second), h, w)
        picture = ground * (0.75 + 0.5 * caustics)[..., None]
        for n, fish in enumerate(swimmers):
            outline = _outline(fish, i)
            x0, y0 = (int(v) for v in np.clip(np.floor(outline.min(axis=0)) - _MARGIN, 0, (w, h)))
            x1, y1 = (int(v) for v in np.clip(np.ceil(outline.max(axis=0)) + _MARGIN, 0, (w, h)))
            here = np.s_[y0:y1, x0:x1]
            if x1 <= x0 or y1 <= y0:
                continue
            cover = fill(outline - (x0, y0), y1 - y0, x1 - x0)
            moved = np.roll(cover, (int(6 + 8 * (1 - fish.depth)), 4), (0, 1))
            shadow = cv2.GaussianBlur(moved, (0, 0), 3.0) * (1 - cover)
            body = _body(fish, i, (x0, y0, x1, y1)) * (0.85 + 0.3 * caustics[here])[..., None]
            murk = 0.15 + 0.55 * fish.depth
            a = cover[..., None]
            under = picture[here] * (1 - 0.35 * shadow)[..., None]
            picture[here] = under * (1 - a) + a * (body * (1 - murk) + water * murk)
            masks[(i, slice(0, n), *here)] &= ~(cover > 0.5)
            masks[(i, n, *here)] = cover > 0.5
        sway = np.array([[1, 0, 3 * np.sin(second * 1.3)], [0, 1, 2 * np.cos(second * 0.9)]])
        plant = cv2.warpAffine(leaves, sway, (w, h), flags=cv2.INTER_LINEAR)
        above = cv2.warpAffine(leaf_cover, sway, (w, h), flags=cv2.INTER_LINEAR)
        picture = picture * (1 - above)[..., None] + plant * above[..., None]
        masks[i] &= ~(above > 0.5)
        grain = rng.standard_normal((h, w, 1), np.float32) * 2.5
        frames[i] = np.clip(cv2.GaussianBlur(picture, (0, 0), 0.6) + grain, 0, 255).astype(np.uint8)
    return Clip(frames, masks)


def _draw_fish(rng: Rng, size: Size, school: NDArray[np.float64]) -> _Fish:
    length = size.side * float(rng.uniform(0.35, 0.6))
    along = np.linspace(0, 1, _JOINTS)
    body = np.sin(np.pi * np.minimum(along / 0.8, 1.0)) ** 0.8 * (1 - 0.3 * along)
    tail = np.clip((along - 0.8) / 0.2, 0, 1) * 0.65
    width = length * float(rng.uniform(0.12, 0.18)) * np.maximum(np.maximum(body, tail), 0.12)
    alike = rng.random() < 0.6
    colour = school + rng.normal(0, 8, 3) if alike else rng.uniform(20, 235, 3)
    return _Fish(
        spine=_swim(rng, size, length),
        width=width,
        colour=np.clip(colour, 15, 240),
        spots=clouds(rng, _JOINTS * 4, 32, float(rng.uniform(5, 14)), 2) * float(rng.uniform(8, 35)),
        depth=float(rng.uniform(0, 1)),
    )


def _swim(rng: Rng, size: Size, length: float) -> NDArray[np.float64]:
    """The spine on each frame. A fish glides, beats its tail, and sometimes darts and turns suddenly."""
    seconds = np.arange(-2.0, float(size.seconds[-1]) + _STEP_S, _STEP_S)  # early, so that frame 0 has a bent body
    turns = 0.9 * drift(rng, seconds, 5.0)
    speed = length * (0.5 + 0.25 * drift(rng, seconds, 4.0))
    for _ in range(int(rng.integers(0, 3))):
        at = rng.uniform(0.2, max(0.3, float(seconds[-1])))
        burst = np.exp(-(((seconds - at) / 0.12) ** 2))
        turns = turns + burst * float(rng.choice([-1, 1])) * float(rng.uniform(5, 11))
        speed = speed + 2.5 * length * np.exp(-((np.maximum(seconds - at, 0) / 0.4) ** 2)) * (seconds >= at)
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(turns) * _STEP_S
    step = np.stack([np.cos(heading), np.sin(heading)], 1) * (speed * _STEP_S)[:, None]
    path = np.cumsum(step, axis=0)
    shown = seconds >= 0
    path += rng.uniform(0.25, 0.75, 2) * (size.width, size.height) - path[shown].mean(axis=0)
    walked = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    spine = np.empty((size.frames, _JOINTS, 2))
    beat = float(rng.uniform(1.5, 3.0))
    for i, second in enumerate(size.seconds):
        here = np.interp(second, seconds, walked)
        behind = here - np.linspace(0, length, _JOINTS)
        x, y = np.interp(behind, walked, path[:, 0]), np.interp(behind, walked, path[:, 1])
        along = np.linspace(0, 1, _JOINTS)
        bend = 0.07 * length * along**2 * np.sin(2 * np.pi * (beat * second - along))
        across = _normals(np.stack([x, y], 1))
        spine[i] = np.stack([x, y], 1) + bend[:, None] * across
    return spine


def _normals(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors across a line (P, 2)."""
    way = np.gradient(line, axis=0)
    way /= np.maximum(np.hypot(way[:, 0], way[:, 1]), 1e-6)[:, None]
    return np.stack([-way[:, 1], way[:, 0]], 1)


def _outline(fish: _Fish, i: int) -> NDArray[np.float64]:
    spine = fish.spine[i]
    across = _normals(spine) * fish.width[:, None]
    return np.concatenate([spine + across, (spine - across)[::-1]])


def _body(fish: _Fish, i: int, box: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """The colours of a fish inside a box (x0, y0, x1, y1) of the frame, (y1 - y0, x1 - x0, 3).

    Each quad between two joints has the spots of its place on the body.
    """
    picture = np.empty((box[3] - box[1], box[2] - box[0], 3), np.float32)
    picture[:] = fish.colour
    spine, across = fish.spine[i] - box[:2], _normals(fish.spine[i])
    strips = 6
    for j in range(_JOINTS - 1):
        for k in range(strips):
            a, b = 2 * k / strips - 1, 2 * (k + 1) / strips - 1
            quad = np.stack(
                [
                    spine[j] + across[j] * fish.width[j] * a,
                    spine[j] + across[j] * fish.width[j] * b,
                    spine[j + 1] + across[j + 1] * fish.width[j + 1] * b,
                    spine[j + 1] + across[j + 1] * fish.width[j + 1] * a,
                ]
            )
            light = 1.12 - 0.45 * ((a + b) / 2) ** 2  # a round back
            shade = (fish.colour + float(fish.spots[4 * j, 4 * k])) * light
            cv2.fillConvexPoly(picture, np.round(quad).astype(np.int32), tuple(float(c) for c in shade))
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.8), np.float32)


def _ground(rng: Rng, h: int, w: int) -> NDArray[np.float32]:
    """Gravel and mud."""
    mud = 0.5 + 0.12 * clouds(rng, h, w, 60.0, 3) + 0.10 * clouds(rng, h, w, 5.0)
    return np.asarray(mud[..., None] * np.array([128.0, 132.0, 96.0]) * float(rng.uniform(0.7, 1.1)), np.float32)


def _plants(rng: Rng, size: Size) -> tuple[NDArray[np.float32], Field]:
    """Leaves of water lilies and blades of grass above the fish: their colours (H, W, 3), and what they cover."""
    h, w = size.height, size.width
    colours, cover = np.zeros((h, w, 3), np.float32), np.zeros((h, w), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        middle = (int(rng.integers(w)), int(rng.integers(h)))
        axes = (int(size.side * rng.uniform(0.07, 0.16)), int(size.side * rng.uniform(0.06, 0.14)))
        begin = int(rng.integers(360))
        green = tuple(float(c) for c in rng.normal((70, 130, 55), 15))
        cv2.ellipse(colours, middle, axes, begin, 12, 348, green, -1, cv2.LINE_AA)
        cv2.ellipse(cover, middle, axes, begin, 12, 348, 1.0, -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 9))):
        foot, reach = rng.uniform(0, (w, h)), rng.normal(0, 0.35 * size.side, 2)
        bow = rng.normal(0, 0.1 * size.side, 2)
        t = np.linspace(0, 1, 20)[:, None]
        blade = np.round(foot + reach * t + bow * t * (1 - t) * 4).astype(np.int32)
        green = tuple(float(c) for c in rng.normal((60, 110, 45), 15))
        thick = int(rng.integers(2, max(3, size.side // 40)))
        cv2.polylines(colours, [blade], False, green, thick, cv2.LINE_AA)
        cv2.polylines(cover, [blade], False, 1.0, thick, cv2.LINE_AA)
    return colours, np.asarray(np.clip(cover, 0, 1), np.float32)


def _caustics(waves: list[Field], second: float, h: int, w: int) -> Field:
    """Bright lines of light on the ground: where two moving waves cancel. In [0, 1]."""
    moved = []
    for n, wave in enumerate(waves):
        x, y = 40 + 18 * np.cos(second * 0.7 + 2 * n), 40 + 18 * np.sin(second * 0.9 + 3 * n)
        shift = np.array([[1, 0, -x], [0, 1, -y]])
        moved.append(cv2.warpAffine(wave, shift, (w, h), flags=cv2.INTER_LINEAR))
    return np.asarray(np.exp(-(((moved[0] + moved[1]) / 0.45) ** 2)), np.float32)
