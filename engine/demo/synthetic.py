"""Clips with ground truth, drawn by us: textured things that move, turn, deform, hide each other, leave and return.

Everything follows from a seed: the same seed and scene give the same pixels. The clips train `micro`, feed the demo and
stand for truth in the tests; they are no substitute for real video, and nothing measured on them is claimed of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model.clips import Clip
from storage import rle, video
from storage.formats import sav
from storage.records import FPS, STRIDE, Masklet, Video, content_id

Image = NDArray[np.uint8]
Rng = np.random.Generator


@dataclass(frozen=True)
class Scene:
    """What is drawn. Sizes in pixels, probabilities in [0, 1]."""

    height: int = 256
    width: int = 256
    frames: int = 8
    stride: int = 1  # drawn frames are this many 24 fps frames apart
    objects: tuple[int, int] = (2, 6)  # least and most objects with truth
    clutter: tuple[int, int] = (0, 4)  # things painted on the background, without truth
    size: tuple[float, float] = (0.08, 0.30)  # object radius relative to the shorter side
    speed: float = 0.012  # typical path length a frame, relative to the shorter side
    leave: float = 0.2  # share of the objects that leave and return
    camouflage: float = 0.15  # share of the objects whose texture resembles the background
    look_alike: float = 0.15  # share of the objects that wear another object's texture
    shadow: float = 0.4
    blur: float = 0.3  # probability of a soft focus over the whole clip
    motion_blur: float = 0.15  # probability of a smear along one direction
    noise: float = 6.0  # largest sensor noise, grey levels
    cut: float = 0.0  # probability of a cut to another place, where some of the objects are, and perhaps back
    contrast: float = (
        20.0  # least difference of mean colour, grey levels, that an object should have from what is behind
    )


def render(seed: int, scene: Scene) -> Clip:
    """The clip of a seed: frames uint8 (T, H, W, 3) and the visible mask of each object, bool (T, N, H, W)."""
    rng = np.random.default_rng(seed)
    h, w, t = scene.height, scene.width, scene.frames
    side = min(h, w)
    background = _texture(rng, 2 * max(h, w))
    for _ in range(int(rng.integers(scene.clutter[0], scene.clutter[1] + 1))):
        _paint_clutter(rng, background, side)
    camera = _camera(rng, scene, background.shape[0])
    places = [background] * t
    count = int(rng.integers(scene.objects[0], scene.objects[1] + 1))
    things: list[_Thing] = []
    for _ in range(count):
        things.append(_Thing.draw(rng, scene, background, [x.texture for x in things]))
    if t > 3 and rng.random() < scene.cut:
        _cut(rng, scene, places, camera, things)
    soft = float(rng.uniform(0.4, 1.2)) if rng.random() < scene.blur else 0.0
    smear = _smear(rng, side) if rng.random() < scene.motion_blur else None
    noise = float(rng.uniform(0, scene.noise))
    shadow = rng.random() < scene.shadow
    light = 1 + 0.12 * _wander(rng, t, 0.15, scene.stride)

    frames = np.empty((t, h, w, 3), np.uint8)
    masks = np.zeros((t, count, h, w), bool)
    for i in range(t):
        drawn = cv2.warpAffine(places[i], camera[i], (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        canvas = np.asarray(drawn, np.uint8)
        for n, thing in enumerate(things):  # back to front
            box, alpha, texture = thing.at(i, h, w)
            if box is None:
                continue
            x0, y0, x1, y1 = box
            if shadow:
                _cast_shadow(canvas, box, alpha, side)
            a = alpha[..., None].astype(np.uint16)
            under = canvas[y0:y1, x0:x1].astype(np.uint16)
            canvas[y0:y1, x0:x1] = ((texture.astype(np.uint16) * a + under * (255 - a) + 127) // 255).astype(np.uint8)
            covers = alpha > 127
            masks[i, :n, y0:y1, x0:x1] &= ~covers
            masks[i, n, y0:y1, x0:x1] = covers
        if soft:
            canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), soft), np.uint8)
        if smear is not None:
            canvas = np.asarray(cv2.filter2D(canvas, -1, smear), np.uint8)
        grain = rng.standard_normal((h, w, 1), np.float32) * noise if noise > 0.5 else 0.0
        frames[i] = np.clip(canvas * float(light[i]) + grain, 0, 255).astype(np.uint8)
    return Clip(frames, masks)


def _cut(rng: Rng, scene: Scene, places: list[Image], camera: list[NDArray[np.float64]], things: list[_Thing]) -> None:
    """Cuts to another place and perhaps back; an object is there too, elsewhere on the picture, or is not."""
    t, side = len(places), min(scene.height, scene.width)
    begin = int(rng.integers(1, t))
    end = int(rng.integers(begin + 1, t + 1)) if rng.random() < 0.6 else t
    there, moves = _texture(rng, places[0].shape[0]), _camera(rng, scene, places[0].shape[0])
    for i in range(begin, end):
        places[i], camera[i] = there, moves[i]
    for thing in things:
        gone = rng.random() < 0.5
        thing.centre[begin:end] += 10 * side if gone else rng.uniform(-0.3, 0.3, 2) * side


def _smear(rng: Rng, side: int) -> NDArray[np.float32]:
    """The kernel of a camera's motion blur: a short line, weights of sum 1."""
    reach = max(1, int(rng.uniform(0.006, 0.02) * side))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    way = rng.uniform(0, np.pi)
    along = np.array([np.cos(way), np.sin(way)]) * reach
    a, b = np.round(reach - along).astype(int), np.round(reach + along).astype(int)
    cv2.line(kernel, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), 1.0)
    return np.asarray(kernel / kernel.sum(), np.float32)


# ---------------------------------------------------------------------------------------------------------- textures


def _texture(rng: Rng, side: int) -> Image:
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
    """Lines of letters, as on signs, shirts and screens."""
    side, colour = texture.shape[0], tuple(int(c) for c in rng.integers(0, 256, 3))
    size = float(rng.uniform(0.4, 1.4))
    for y in range(int(20 * size), side, int(rng.uniform(28, 70) * size)):
        count = int(rng.integers(3, 3 + max(1, int(side / (20 * size)))))
        letters = "".join(chr(c) for c in rng.integers(65, 91, count))
        at = (int(rng.integers(0, side // 2)), y)
        cv2.putText(texture, letters, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 2, cv2.LINE_AA)


def _noise(rng: Rng, side: int, roughness: float) -> NDArray[np.float32]:
    """Smooth noise in [0, 1]: octaves of random grids whose weight falls as frequency ** -roughness."""
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
    """Colours a field in [0, 1] by a random ramp; the colours of a ramp share a mood, as real things do."""
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


# ------------------------------------------------------------------------------------------------------------ motion


def _wander(rng: Rng, t: int, frequency: float, stride: int) -> NDArray[np.float64]:
    """A smooth random path in about [-1, 1] over t frames, `stride` apart at 24 fps; `frequency` in cycles a second."""
    time = np.arange(t) * stride / 24
    path = np.zeros(t)
    for harmonic, weight in ((1, 1.0), (2.3, 0.4)):
        path += weight * np.sin(2 * np.pi * (frequency * harmonic * time + rng.random()))
    return path / 1.4


def _camera(rng: Rng, scene: Scene, texture_side: int) -> list[NDArray[np.float64]]:
    """One affine a frame from the background's pixels to the frame's: slow pan, zoom and roll."""
    h, w, t = scene.height, scene.width, scene.frames
    centre = texture_side / 2
    shift = rng.uniform(0, 0.25) * min(h, w)
    pan_x, pan_y = shift * _wander(rng, t, 0.15, scene.stride), shift * _wander(rng, t, 0.15, scene.stride)
    zoom = 1 + rng.uniform(0, 0.12) * _wander(rng, t, 0.1, scene.stride)
    roll = rng.uniform(0, 6) * _wander(rng, t, 0.1, scene.stride)
    out = []
    for i in range(t):
        m = cv2.getRotationMatrix2D((centre, centre), float(roll[i]), float(zoom[i]))
        m[:, 2] += (w / 2 - centre + pan_x[i], h / 2 - centre + pan_y[i])
        out.append(np.asarray(m, np.float64))
    return out


# ------------------------------------------------------------------------------------------------------------ shapes

Polygon = NDArray[np.float64]  # (P, 2), unit size, around the origin


def _outline(rng: Rng, kind: str) -> Polygon:
    """The resting outline of a shape, radius about 1."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    if kind == "ellipse":
        return np.stack([np.cos(angle), np.sin(angle) * rng.uniform(0.4, 1)], 1)
    if kind == "box":
        power = rng.uniform(4, 14)  # a superellipse: from round to sharp corners
        radius = (np.abs(np.cos(angle)) ** power + np.abs(np.sin(angle)) ** power) ** (-1 / power)
        return np.stack([np.cos(angle) * radius, np.sin(angle) * radius * rng.uniform(0.25, 1)], 1) * 0.85
    if kind == "polygon":
        corners = int(rng.integers(3, 7))
        turn = np.sort(rng.uniform(0, 1, corners) * 0.6 + np.arange(corners)) * 2 * np.pi / corners
        return np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(0.7, 1.15, (corners, 1))
    if kind == "star":
        points = int(rng.integers(4, 8))
        turn = np.arange(2 * points) * np.pi / points
        radius = np.where(np.arange(2 * points) % 2 == 0, 1.15, rng.uniform(0.4, 0.75))
        return np.stack([np.cos(turn) * radius, np.sin(turn) * radius], 1)
    if kind == "bar":
        return np.array([[-1.5, -0.12], [1.5, -0.12], [1.5, 0.12], [-1.5, 0.12]]) * [1, rng.uniform(0.8, 2.2)]
    radius = np.ones_like(angle)  # a blob
    for k in range(2, 7):
        radius += rng.normal(0, 0.3 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.25, None)
    return np.stack([np.cos(angle) * radius, np.sin(angle) * radius], 1)


_KINDS = ("ellipse", "box", "polygon", "star", "bar", "blob", "blob", "blob", "ring", "limbs", "limbs", "tail", "tool")


def _tail(rng: Rng) -> Polygon:
    """A thin bent strip that begins inside the body and tapers outside."""
    along = np.linspace(0, 1, 14)
    way = np.cumsum(rng.uniform(-0.35, 0.35) + rng.normal(0, 0.12, 14))
    line = np.cumsum(np.stack([np.cos(way), np.sin(way)], 1), 0) * rng.uniform(0.08, 0.14) + [0.6, 0]
    width = rng.uniform(0.05, 0.13) * (1 - 0.6 * along)
    across = np.stack([-np.sin(way), np.cos(way)], 1) * width[:, None]
    return np.concatenate([line + across, (line - across)[::-1]])


@dataclass(frozen=True)
class _Thing:
    """One object: its outline, texture and everything that changes over time, all drawn beforehand."""

    parts: tuple[Polygon, ...]
    hole: Polygon | None
    swing: tuple[NDArray[np.float64], ...]  # radians a frame, one a part; the first part does not swing
    texture: Image
    radius: NDArray[np.float64]  # (T,) px
    centre: NDArray[np.float64]  # (T, 2) px
    turn: NDArray[np.float64]  # (T,) radians
    wobble: NDArray[np.float64]  # (T,) relative
    wobble_k: int
    squash: NDArray[np.float64]  # (T,)

    @staticmethod
    def draw(rng: Rng, scene: Scene, background: Image, worn: Sequence[Image]) -> _Thing:
        h, w, t = scene.height, scene.width, scene.frames
        side = min(h, w)
        kind = str(rng.choice(_KINDS))
        radius = side * float(np.exp(rng.uniform(*np.log(scene.size))))
        rest = {"ring": "blob", "limbs": "blob", "tail": "blob", "tool": "bar"}.get(kind, kind)
        parts, swing, hole = [_outline(rng, rest)], [np.zeros(t)], None
        if kind == "ring":
            parts = [_outline(rng, str(rng.choice(["ellipse", "box", "blob"])))]
            hole = parts[0] * rng.uniform(0.35, 0.65)
        if kind == "limbs":
            for at in rng.uniform(0, 2 * np.pi, int(rng.integers(1, 5))):
                limb = (_outline(rng, "bar") * [0.45, rng.uniform(0.8, 1.4)] + [1.1, 0]) @ _rotation(at).T
                parts.append(limb)
                swing.append(rng.uniform(0.2, 0.7) * _wander(rng, t, rng.uniform(0.3, 1.2), scene.stride))
        if kind == "tail":
            for at in rng.uniform(0, 2 * np.pi, int(rng.integers(1, 4))):
                parts.append(_tail(rng) @ _rotation(at).T)
                swing.append(rng.uniform(0.1, 0.5) * _wander(rng, t, rng.uniform(0.3, 1.2), scene.stride))
        if kind == "tool":
            parts.append(_outline(rng, str(rng.choice(["box", "ellipse", "polygon"]))) * 0.55 + [1.3, 0])
            swing.append(np.zeros(t))
        texture_side = 128
        choice = rng.random()
        if choice < scene.camouflage:
            y, x = (
                rng.integers(0, background.shape[0] - texture_side, 2) if background.shape[0] > texture_side else (0, 0)
            )
            shade = rng.uniform(0.7, 1.35)
            patch = background[y : y + texture_side, x : x + texture_side]
            texture = np.clip(patch * shade, 0, 255).astype(np.uint8)
        elif choice < scene.camouflage + scene.look_alike and worn:
            texture = worn[int(rng.integers(len(worn)))]
        else:
            behind = np.array(cv2.mean(background)[:3])
            for _ in range(4):
                texture = _texture(rng, texture_side)
                if np.abs(np.array(cv2.mean(texture)[:3]) - behind).max() >= scene.contrast:
                    break
        texture = _shaded(rng, texture)
        start = np.array([rng.uniform(0.1, 0.9) * w, rng.uniform(0.1, 0.9) * h])
        drift = rng.normal(0, scene.speed * side, 2) * (np.arange(t) - t / 2)[:, None] * 0.5 * scene.stride
        sway = rng.uniform(0, 0.2) * side
        path = (
            start + drift + sway * np.stack([_wander(rng, t, 0.3, scene.stride), _wander(rng, t, 0.3, scene.stride)], 1)
        )
        if rng.random() < scene.leave and t > 1:  # a bump that carries it over the nearest border and back
            away = np.exp(-(((np.arange(t) - rng.uniform(0.3, 0.7) * t) / (0.14 * t + 1)) ** 2))
            edge = np.array([w * 0.9 if start[0] > w / 2 else -w * 0.9, 0.0])
            path = path + away[:, None] * edge
        return _Thing(
            parts=tuple(parts),
            hole=hole,
            swing=tuple(swing),
            texture=texture,
            radius=radius * (1 + rng.uniform(0, 0.2) * _wander(rng, t, 0.2, scene.stride)),
            centre=path,
            turn=rng.uniform(0, 2 * np.pi) + rng.uniform(0, 0.9) * _wander(rng, t, 0.25, scene.stride),
            wobble=rng.uniform(0, 0.16) * _wander(rng, t, rng.uniform(0.3, 1.0), scene.stride),
            wobble_k=int(rng.integers(2, 5)),
            squash=1 + rng.uniform(0, 0.25) * _wander(rng, t, 0.4, scene.stride),
        )

    def at(self, i: int, h: int, w: int) -> tuple[tuple[int, int, int, int] | None, Image, Image]:
        """Where it is on frame i: the box x0, y0, x1, y1 inside the frame, its alpha (h, w) and colours (h, w, 3)."""
        turn = _rotation(float(self.turn[i]))
        scale = self.radius[i] * np.array([self.squash[i], 1 / self.squash[i]])

        def place(outline: Polygon, swing: float) -> Polygon:
            bent = outline @ _rotation(swing).T if swing else outline
            angle = np.arctan2(bent[:, 1], bent[:, 0])
            bent = bent * (1 + self.wobble[i] * np.cos(self.wobble_k * angle))[:, None]
            return np.asarray((bent * scale) @ turn.T + self.centre[i])

        placed = [place(p, float(s[i])) for p, s in zip(self.parts, self.swing, strict=True)]
        points = np.concatenate(placed)
        x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
        x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + 2, (w, h))
        nothing = np.zeros((0, 0), np.uint8)
        if x1 <= x0 or y1 <= y0:
            return None, nothing, nothing
        alpha = np.zeros((y1 - y0, x1 - x0), np.uint8)

        def fill(outline: Polygon, value: int) -> None:
            fixed = np.round((outline - (x0, y0)) * 16).astype(np.int32)
            cv2.fillPoly(alpha, [fixed], value, cv2.LINE_AA, 4)

        for outline in placed:
            fill(outline, 255)
        if self.hole is not None:
            fill(place(self.hole, 0.0), 0)
        # The texture is glued to the thing: the same similarity carries the texture's pixels to the frame's.
        zoom = self.radius[i] / (self.texture.shape[0] * 0.4)
        m = np.empty((2, 3))
        m[:, :2] = turn * zoom
        m[:, 2] = self.centre[i] - m[:, :2] @ np.full(2, self.texture.shape[0] / 2) - (x0, y0)
        size = (int(x1 - x0), int(y1 - y0))
        colours = cv2.warpAffine(self.texture, m, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return (int(x0), int(y0), int(x1), int(y1)), alpha, np.asarray(colours, np.uint8)


def _shaded(rng: Rng, texture: Image) -> Image:
    """A texture that is lit from one side, as round things are."""
    side, way, depth = texture.shape[0], rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.4)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / (side / 2) - 1
    light = 1 + depth * (x * np.cos(way) + y * np.sin(way)).astype(np.float32)
    return np.asarray(cv2.multiply(texture, cv2.merge([light] * 3), dtype=cv2.CV_8U), np.uint8)


def _rotation(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def _paint_clutter(rng: Rng, background: Image, side: int) -> None:
    """Paints a flat thing on the background: it moves with the camera and has no truth."""
    outline = _outline(rng, str(rng.choice(["ellipse", "box", "polygon", "blob"]))) * side * rng.uniform(0.05, 0.3)
    place = rng.uniform(0.2, 0.8, 2) * background.shape[0]
    layer = np.zeros(background.shape[:2], np.uint8)
    cv2.fillPoly(layer, [np.round(outline + place).astype(np.int32)], 255, cv2.LINE_AA)
    shade = background[layer > 127].astype(np.float32) * rng.uniform(0.5, 1.4) + rng.normal(0, 30, 3)
    background[layer > 127] = np.clip(shade, 0, 255).astype(np.uint8)


def _cast_shadow(canvas: Image, box: tuple[int, int, int, int], alpha: Image, side: int) -> None:
    """Darkens what lies just below and to the right of a thing."""
    step = max(2, side // 50)
    h, w = canvas.shape[:2]
    x0, y0 = min(box[0] + step, w), min(box[1] + step, h)
    x1, y1 = min(box[2] + step, w), min(box[3] + step, h)
    soft = cv2.blur(alpha[: y1 - y0, : x1 - x0], (2 * step + 1, 2 * step + 1)) if x1 > x0 and y1 > y0 else None
    if soft is not None:
        region = canvas[y0:y1, x0:x1]
        region[:] = (region * (1 - 0.45 * (soft[..., None] / 255.0))).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------- videos on disk


def write_videos(
    folder: Path, count: int, scene: Scene, *, seed: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Writes clips as mp4 files, each with its truth beside it as SA-V JSON (clip_001.mp4, clip_001.truth.json).

    A clip that is there stays. progress: called with the number done and the count.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(1, count + 1):
        path = folder / f"clip_{number:03d}.mp4"
        paths.append(path)
        if not path.exists():
            clip = render(seed * 1_000_003 + number, scene)
            path.with_suffix(".truth.json").write_text(json.dumps(truth_of(clip, path.stem)))
            temporary = path.with_name(f".{path.name}")
            video.write(temporary, clip.frames)
            temporary.replace(path)
        if progress:
            progress(number, count)
    return paths


def truth_of(clip: Clip, name: str) -> dict[str, object]:
    """The true masklets of a 24 fps clip as an SA-V annotation; objects that are never seen are left out."""
    t, n, h, w = clip.masks.shape
    indices = range(0, t, STRIDE)
    about = Video(
        video_id=name,
        source_uri=name,
        source_sha256="",
        video_key="",
        video_sha256="",
        frames_key="",
        height=h,
        width=w,
        frame_count=t,
        duration_s=t / FPS,
        source_fps=FPS,
        variable_rate=False,
        rotation=0,
        split="train",
        batch_id="",
    )
    rows = []
    for k in range(n):
        areas = tuple(int(clip.masks[i, k].sum()) for i in indices)
        if not any(areas):
            continue
        rows.append(
            Masklet(
                masklet_id=content_id(name, str(k)),
                video_id=name,
                batch_id="",
                height=h,
                width=w,
                frame_idx=tuple(indices),
                rle=tuple(rle.encode(clip.masks[i, k]) for i in indices),
                area_px=areas,
                score=(1.0,) * len(areas),
                object_score=tuple(1.0 if area else -1.0 for area in areas),
                stability=(1.0,) * len(areas),
                kind="manual",
                phase="1",
                round=0,
                checkpoint="truth",
                prompt="{}",
            )
        )
    return dict(sav.to_sav(about, rows))
