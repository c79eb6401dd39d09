"""What a synthetic clip shows: sizes, counts and probabilities. Also smooth random motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Rng = np.random.Generator


@dataclass(frozen=True)
class Scene:
    """What is drawn. Sizes in pixels, probabilities in [0, 1]."""

    height: int = 256
    width: int = 256
    frames: int = 8
    stride: int = 1  # 24 fps frames from one drawn frame to the next
    objects: tuple[int, int] = (2, 6)  # smallest and largest number of objects with true masks
    clutter: tuple[int, int] = (0, 4)  # shapes painted on the background, without true masks
    size: tuple[float, float] = (0.08, 0.30)  # object radius relative to the shorter side
    speed: float = 0.012  # typical motion a frame, relative to the shorter side
    leave: float = 0.2  # share of the objects that leave and return
    late: float = 0.0  # share of the objects that enter from outside after the first frame
    camouflage: float = 0.15  # share of the objects whose texture resembles the background
    look_alike: float = 0.15  # share of the objects with the texture of another object
    shadow: float = 0.4  # probability that objects cast shadows
    blur: float = 0.3  # probability that the whole clip is out of focus
    motion_blur: float = 0.15  # probability of motion blur over the whole clip
    noise: float = 6.0  # largest sensor noise, grey levels
    cut: float = 0.0  # probability of a cut to another place that shows some of the objects, and perhaps back
    contrast: float = 20.0  # wanted difference between an object's mean colour and the background's, grey levels


def wander(rng: Rng, t: int, frequency: float, stride: int) -> NDArray[np.float64]:
    """A smooth random path in about [-1, 1] over t frames, `stride` apart at 24 fps; `frequency` in cycles a second."""
    time = np.arange(t) * stride / 24
    path = np.zeros(t)
    for harmonic, weight in ((1, 1.0), (2.3, 0.4)):
        path += weight * np.sin(2 * np.pi * (frequency * harmonic * time + rng.random()))
    return path / 1.4
