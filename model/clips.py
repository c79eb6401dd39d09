"""Clips of frames with the true masks of their objects, and how a training sample is cut from one.

Works on numpy arrays only. Knows nothing of weights or files: a renderer, a release or an SA-V folder gives clips
through a function from a seed to a `Clip`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.wording import counted

Frames = NDArray[np.uint8]  # (T, H, W, 3) RGB
Masks = NDArray[np.bool_]  # (T, N, H, W)

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]: what every SAM 2 checkpoint was trained with
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of one video and the visible part of each object on each of them.

    frames: uint8 (T, H, W, 3) RGB.  masks: bool (T, N, H, W); all False where an object is absent.
    is_object: bool (N,). False: the mask is a place where people saw no object; a click in it has no answer. None: all
    are objects.
    """

    frames: Frames
    masks: Masks
    is_object: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        t, n, h, w = self.masks.shape
        if self.frames.shape != (t, h, w, 3):
            raise ValueError(f"frames {self.frames.shape} and masks {(t, n, h, w)} differ in length or size")
        if self.is_object is not None and self.is_object.shape != (n,):
            raise ValueError(f"{counted(n, 'mask')}, but is_object has the shape {self.is_object.shape}")

    @property
    def objects(self) -> NDArray[np.bool_]:
        """Which of the masks are objects: bool (N,)."""
        return np.ones(self.masks.shape[1], np.bool_) if self.is_object is None else self.is_object


DrawClip = Callable[[int], Clip]  # seed -> clip; the same seed gives the same clip


@dataclass(frozen=True)
class SampleConfig:
    """How a training sample is cut from a clip (Ravi et al. 2024, appendix C.2)."""

    image_size: int = 256  # px, square
    frames: int = 8
    objects: int = 3
    rejected: int = 0  # places without an object, beside the objects
    min_area_px: int = 40  # at image_size; a smaller object on the first frame is not chosen
    time_reversal: float = 0.5  # probability
    horizontal_flip: float = 0.5
    colour_jitter: float = 0.15  # relative range of brightness, contrast and saturation
    tone_jitter: float | None = None  # of contrast and saturation; None: the same as colour_jitter
    grayscale: float = 0.05
    mosaic: float = 0.0  # probability that the picture is tiled 2 x 2 with itself, with the objects in one quarter only
    affine: float = 0.0  # strength of the turn and shear of a clip: 1 is the paper's, up to TURN and SHEAR; 0: off


TURN, SHEAR = 25.0, 20.0  # degrees, in both directions (Ravi et al. 2024, appendix C.2)
_BEYOND = (124, 116, 104)  # RGB outside a turned picture: ImageNet's mean, as in the released code


def sample(clip: Clip, config: SampleConfig, rng: np.random.Generator) -> Clip | None:
    """A training sample: consecutive frames at the model's size with exactly `config.objects` objects.

    Objects are chosen among those visible on the first frame; `config.rejected` places without an object follow. If
    there are too few, some repeat, and objects stand in for places, so that all samples have one shape. Returns None
    when no object is large enough on the first frame.
    """
    t = clip.frames.shape[0]
    if t < config.frames:
        raise ValueError(f"the clip has {counted(t, 'frame')}, the sample needs {config.frames}")
    start = int(rng.integers(0, t - config.frames + 1))
    order = np.arange(start, start + config.frames)
    if config.frames > 1 and rng.random() < config.time_reversal:
        order = order[::-1]
    frames = np.stack([_resize(clip.frames[i], config.image_size, cv2.INTER_AREA) for i in order])
    masks = np.stack([[_resize_mask(m, config.image_size) for m in clip.masks[i]] for i in order])
    if config.affine > 0:
        frames, masks = _turned(frames, masks, *(config.affine * np.array([TURN, SHEAR]) * rng.uniform(-1, 1, 2)))
    if rng.random() < config.mosaic:
        frames, masks = _mosaic(frames, masks, int(rng.integers(4)))
    is_large = masks[0].sum(axis=(1, 2)) >= config.min_area_px
    visible = np.flatnonzero(is_large & clip.objects)
    if visible.size == 0:
        return None
    chosen = rng.choice(visible, config.objects, replace=visible.size < config.objects)
    if config.rejected:
        places = np.flatnonzero(is_large & ~clip.objects)
        places = places if places.size else visible
        more = rng.choice(places, config.rejected, replace=places.size < config.rejected)
        chosen = np.concatenate([chosen, more])
    masks = masks[:, chosen]
    if rng.random() < config.horizontal_flip:
        frames, masks = frames[:, :, ::-1], masks[..., ::-1]
    return Clip(_jitter(frames, config, rng), np.ascontiguousarray(masks), clip.objects[chosen])


def _turned(frames: Frames, masks: Masks, turn: float, shear: float) -> tuple[Frames, Masks]:
    """The clip turned and sheared about its middle, all frames and masks by the same map. Degrees.

    Pixels from outside the picture belong to no object. Source: torchvision's RandomAffine as the released training
    code of SAM 2 uses it: shear along the rows only, no translation, no scaling.
    """
    side = frames.shape[1]
    a, b = np.deg2rad([turn, shear])
    cos, sin, middle = np.cos(a), np.sin(a), (side - 1) / 2
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, -np.tan(b)], [0.0, 1.0]])
    there = np.column_stack([linear, middle - linear @ [middle, middle]])

    def moved(image: NDArray[np.uint8], beyond: tuple[int, ...]) -> NDArray[np.uint8]:
        return np.asarray(cv2.warpAffine(image, there, (side, side), borderValue=beyond), np.uint8)

    placed = [[moved(mask.astype(np.uint8) * 255, (0,)) > 127 for mask in of_frame] for of_frame in masks]
    return np.stack([moved(frame, _BEYOND) for frame in frames]), np.stack(placed)


def _mosaic(frames: Frames, masks: Masks, quarter: int) -> tuple[Frames, Masks]:
    """The clip four times at half the size. One quarter has the true masks; the others show look-alikes.

    Source: the released fine-tuning code of SAM 2 and 2.1's release notes.
    """
    side = frames.shape[1]
    half, y, x = side // 2, quarter // 2 * (side // 2), quarter % 2 * (side // 2)
    small = np.stack([_resize(frame, half, cv2.INTER_AREA) for frame in frames])
    placed = np.zeros_like(masks)
    placed[..., y : y + half, x : x + half] = [[_resize_mask(mask, half) for mask in of_frame] for of_frame in masks]
    return np.tile(small, (1, 2, 2, 1)), placed


def _resize(image: NDArray[np.uint8], side: int, how: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(cv2.resize(image, (side, side), interpolation=how), np.uint8)


def _resize_mask(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    return np.asarray(_resize(mask.astype(np.uint8) * 255, side, cv2.INTER_AREA) > 127)


def _jitter(frames: Frames, config: SampleConfig, rng: np.random.Generator) -> Frames:
    tone = config.colour_jitter if config.tone_jitter is None else config.tone_jitter
    spread = np.array([config.colour_jitter, tone, tone])
    brightness, contrast, saturation = 1 + rng.uniform(-spread, spread)
    if rng.random() < config.grayscale:
        saturation = 0.0
    x = frames.astype(np.float32) * brightness
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
    x = grey[..., None] + (x - grey[..., None]) * saturation
    mean = grey.mean()
    return np.asarray(np.clip(mean + (x - mean) * contrast, 0, 255), np.uint8)
