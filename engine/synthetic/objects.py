"""The moving objects of synthetic clips: their outlines, textures and motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.synthetic.scene import Image, Rng, Scene, wander
from engine.synthetic.textures import draw_texture, shaded

Polygon = NDArray[np.float64]  # (P, 2), unit size, around the origin


def draw_outline(rng: Rng, kind: str) -> Polygon:
    """The outline of a shape before it moves, radius about 1."""
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


_TEXTURE_PX = 128  # side of an object's texture
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
class Thing:
    """One object: its outline, its texture, and its motion on every frame, all drawn at random in advance."""

    parts: tuple[Polygon, ...]
    hole: Polygon | None
    swing: tuple[NDArray[np.float64], ...]  # one array (T,) a part, radians; the first part does not swing
    texture: Image
    radius: NDArray[np.float64]  # (T,) px
    centre: NDArray[np.float64]  # (T, 2) px
    turn: NDArray[np.float64]  # (T,) radians
    wobble: NDArray[np.float64]  # (T,) strength of the outline's deformation, relative to the radius
    wobble_k: int  # number of waves of the deformation around the outline
    squash: NDArray[np.float64]  # (T,) stretch along x; y gets the inverse

    @staticmethod
    def draw(rng: Rng, scene: Scene, background: Image, worn: Sequence[Image]) -> Thing:
        """A random object. worn: the textures of the objects drawn before, which a look-alike copies.

        The order of the random draws is part of the result: the held-out clips of `micro` depend on it.
        """
        t, side = scene.frames, min(scene.height, scene.width)
        kind = str(rng.choice(_KINDS))
        radius = side * float(np.exp(rng.uniform(*np.log(scene.size))))
        parts, swing, hole = _draw_shape(rng, kind, scene)
        texture = shaded(rng, _choose_texture(rng, scene, background, worn))
        centre = _draw_path(rng, scene)
        return Thing(
            parts=tuple(parts),
            hole=hole,
            swing=tuple(swing),
            texture=texture,
            radius=radius * (1 + rng.uniform(0, 0.2) * wander(rng, t, 0.2, scene.stride)),
            centre=centre,
            turn=rng.uniform(0, 2 * np.pi) + rng.uniform(0, 0.9) * wander(rng, t, 0.25, scene.stride),
            wobble=rng.uniform(0, 0.16) * wander(rng, t, rng.uniform(0.3, 1.0), scene.stride),
            wobble_k=int(rng.integers(2, 5)),
            squash=1 + rng.uniform(0, 0.25) * wander(rng, t, 0.4, scene.stride),
        )

    def at(self, i: int, h: int, w: int) -> tuple[tuple[int, int, int, int] | None, Image, Image]:
        """The object on frame i of size h, w: its box (x0, y0, x1, y1) inside the frame, or None if it is outside.

        With it the alpha, uint8 (y1 - y0, x1 - x0), and the colours, uint8 (y1 - y0, x1 - x0, 3), of that box.
        """
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
        # The texture moves with the object: the same rotation, zoom and shift map its pixels to the frame.
        zoom = self.radius[i] / (self.texture.shape[0] * 0.4)
        m = np.empty((2, 3))
        m[:, :2] = turn * zoom
        m[:, 2] = self.centre[i] - m[:, :2] @ np.full(2, self.texture.shape[0] / 2) - (x0, y0)
        size = (int(x1 - x0), int(y1 - y0))
        colours = cv2.warpAffine(self.texture, m, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return (int(x0), int(y0), int(x1), int(y1)), alpha, np.asarray(colours, np.uint8)


def _draw_shape(rng: Rng, kind: str, scene: Scene) -> tuple[list[Polygon], list[NDArray[np.float64]], Polygon | None]:
    """The outlines of an object's parts, how each one swings (radians a frame), and the outline of its hole."""
    t = scene.frames
    rest = {"ring": "blob", "limbs": "blob", "tail": "blob", "tool": "bar"}.get(kind, kind)
    parts, swing, hole = [draw_outline(rng, rest)], [np.zeros(t)], None
    if kind == "ring":
        parts = [draw_outline(rng, str(rng.choice(["ellipse", "box", "blob"])))]
        hole = parts[0] * rng.uniform(0.35, 0.65)
    if kind == "limbs":
        for at in rng.uniform(0, 2 * np.pi, int(rng.integers(1, 5))):
            limb = (draw_outline(rng, "bar") * [0.45, rng.uniform(0.8, 1.4)] + [1.1, 0]) @ _rotation(at).T
            parts.append(limb)
            swing.append(rng.uniform(0.2, 0.7) * wander(rng, t, rng.uniform(0.3, 1.2), scene.stride))
    if kind == "tail":
        for at in rng.uniform(0, 2 * np.pi, int(rng.integers(1, 4))):
            parts.append(_tail(rng) @ _rotation(at).T)
            swing.append(rng.uniform(0.1, 0.5) * wander(rng, t, rng.uniform(0.3, 1.2), scene.stride))
    if kind == "tool":
        parts.append(draw_outline(rng, str(rng.choice(["box", "ellipse", "polygon"]))) * 0.55 + [1.3, 0])
        swing.append(np.zeros(t))
    return parts, swing, hole


def _choose_texture(rng: Rng, scene: Scene, background: Image, worn: Sequence[Image]) -> Image:
    """A part of the background (camouflage), another object's texture (a look-alike), or a new one with contrast."""
    choice = rng.random()
    if choice < scene.camouflage:
        space = background.shape[0] - _TEXTURE_PX
        y, x = rng.integers(0, space, 2) if space > 0 else (0, 0)
        shade = rng.uniform(0.7, 1.35)
        patch = background[y : y + _TEXTURE_PX, x : x + _TEXTURE_PX]
        return np.asarray(np.clip(patch * shade, 0, 255), np.uint8)
    if choice < scene.camouflage + scene.look_alike and worn:
        return worn[int(rng.integers(len(worn)))]
    behind = np.array(cv2.mean(background)[:3])
    for _ in range(4):
        texture = draw_texture(rng, _TEXTURE_PX)
        if np.abs(np.array(cv2.mean(texture)[:3]) - behind).max() >= scene.contrast:
            break
    return texture


def _draw_path(rng: Rng, scene: Scene) -> NDArray[np.float64]:
    """The centre of an object on each frame, (T, 2) px."""
    h, w, t = scene.height, scene.width, scene.frames
    side = min(h, w)
    start = np.array([rng.uniform(0.1, 0.9) * w, rng.uniform(0.1, 0.9) * h])
    drift = rng.normal(0, scene.speed * side, 2) * (np.arange(t) - t / 2)[:, None] * 0.5 * scene.stride
    sway = rng.uniform(0, 0.2) * side
    path = start + drift + sway * np.stack([wander(rng, t, 0.3, scene.stride), wander(rng, t, 0.3, scene.stride)], 1)
    if rng.random() < scene.leave and t > 1:  # the object leaves over the nearest border and returns
        away = np.exp(-(((np.arange(t) - rng.uniform(0.3, 0.7) * t) / (0.14 * t + 1)) ** 2))
        edge = np.array([w * 0.9 if start[0] > w / 2 else -w * 0.9, 0.0])
        path = path + away[:, None] * edge
    if scene.late and rng.random() < scene.late:  # it comes in over the nearest side, and stays
        begun = np.arange(t) / t - rng.uniform(0.2, 0.6)
        outside = np.clip(1 - begun / 0.15, 0, None)
        path = path + outside[:, None] * np.array([w * 0.9 if start[0] > w / 2 else -w * 0.9, 0.0])
    return np.asarray(path)


def _rotation(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])
