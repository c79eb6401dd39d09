"""Renders synthetic clips with ground truth: textured objects that move, deform, hide each other, leave and return.

The same seed and scene always give the same pixels. The clips are for training `micro`, for the demo and for tests.
Metrics on them say nothing about real video.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.synthetic.objects import Thing, draw_outline
from engine.synthetic.scene import Image, Rng, Scene, wander
from engine.synthetic.textures import draw_texture
from model.clips import Clip


def render(seed: int, scene: Scene) -> Clip:
    """The clip of a seed: frames uint8 (T, H, W, 3) and the visible mask of each object, bool (T, N, H, W)."""
    rng = np.random.default_rng(seed)
    h, w, t = scene.height, scene.width, scene.frames
    side = min(h, w)
    background = draw_texture(rng, 2 * max(h, w))
    for _ in range(int(rng.integers(scene.clutter[0], scene.clutter[1] + 1))):
        _paint_clutter(rng, background, side)
    camera = _camera(rng, scene, background.shape[0])
    places = [background] * t
    count = int(rng.integers(scene.objects[0], scene.objects[1] + 1))
    things: list[Thing] = []
    for _ in range(count):
        things.append(Thing.draw(rng, scene, background, [x.texture for x in things]))
    if t > 3 and rng.random() < scene.cut:
        _cut(rng, scene, places, camera, things)
    soft = float(rng.uniform(0.4, 1.2)) if rng.random() < scene.blur else 0.0
    smear = _smear(rng, side) if rng.random() < scene.motion_blur else None
    noise = float(rng.uniform(0, scene.noise))
    shadow = rng.random() < scene.shadow
    light = 1 + 0.12 * wander(rng, t, 0.15, scene.stride)

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


def _cut(rng: Rng, scene: Scene, places: list[Image], camera: list[NDArray[np.float64]], things: list[Thing]) -> None:
    """Cuts to another place, and perhaps back. Half of the objects are there too, in another position."""
    t, side = len(places), min(scene.height, scene.width)
    begin = int(rng.integers(1, t))
    end = int(rng.integers(begin + 1, t + 1)) if rng.random() < 0.6 else t
    there, moves = draw_texture(rng, places[0].shape[0]), _camera(rng, scene, places[0].shape[0])
    for i in range(begin, end):
        places[i], camera[i] = there, moves[i]
    for thing in things:
        gone = rng.random() < 0.5
        thing.centre[begin:end] += 10 * side if gone else rng.uniform(-0.3, 0.3, 2) * side


def _smear(rng: Rng, side: int) -> NDArray[np.float32]:
    """A kernel for motion blur: a short line whose weights sum to 1."""
    reach = max(1, int(rng.uniform(0.006, 0.02) * side))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)]) * reach
    a, b = np.round(reach - along).astype(int), np.round(reach + along).astype(int)
    cv2.line(kernel, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), 1.0)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _camera(rng: Rng, scene: Scene, texture_side: int) -> list[NDArray[np.float64]]:
    """The camera's slow pan, zoom and roll: for each frame an affine (2, 3) from background pixels to frame pixels."""
    h, w, t = scene.height, scene.width, scene.frames
    centre = texture_side / 2
    shift = rng.uniform(0, 0.25) * min(h, w)
    pan_x, pan_y = shift * wander(rng, t, 0.15, scene.stride), shift * wander(rng, t, 0.15, scene.stride)
    zoom = 1 + rng.uniform(0, 0.12) * wander(rng, t, 0.1, scene.stride)
    roll = rng.uniform(0, 6) * wander(rng, t, 0.1, scene.stride)
    out = []
    for i in range(t):
        m = cv2.getRotationMatrix2D((centre, centre), float(roll[i]), float(zoom[i]))
        m[:, 2] += (w / 2 - centre + pan_x[i], h / 2 - centre + pan_y[i])
        out.append(np.asarray(m, np.float64))
    return out


def _paint_clutter(rng: Rng, background: Image, side: int) -> None:
    """Paints a shape on the background. It moves with the camera and has no true mask."""
    outline = draw_outline(rng, str(rng.choice(["ellipse", "box", "polygon", "blob"]))) * side * rng.uniform(0.05, 0.3)
    place = rng.uniform(0.2, 0.8, 2) * background.shape[0]
    layer = np.zeros(background.shape[:2], np.uint8)
    cv2.fillPoly(layer, [np.round(outline + place).astype(np.int32)], 255, cv2.LINE_AA)
    shade = background[layer > 127].astype(np.float32) * rng.uniform(0.5, 1.4) + rng.normal(0, 30, 3)
    background[layer > 127] = np.clip(shade, 0, 255).astype(np.uint8)


def _cast_shadow(canvas: Image, box: tuple[int, int, int, int], alpha: Image, side: int) -> None:
    """Darkens the pixels just below and to the right of an object. box: of the object in the frame."""
    step = max(2, side // 50)
    h, w = canvas.shape[:2]
    x0, y0 = min(box[0] + step, w), min(box[1] + step, h)
    x1, y1 = min(box[2] + step, w), min(box[3] + step, h)
    soft = cv2.blur(alpha[: y1 - y0, : x1 - x0], (2 * step + 1, 2 * step + 1)) if x1 > x0 and y1 > y0 else None
    if soft is not None:
        region = canvas[y0:y1, x0:x1]
        region[:] = (region * (1 - 0.45 * (soft[..., None] / 255.0))).astype(np.uint8)
