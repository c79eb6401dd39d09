"""The clips that `micro` was trained on, and its held-out clips, which show what a checkpoint has forgotten."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from engine.datasets.labelled import Dataset
from engine.synthetic import labelled_clips
from engine.synthetic.rendering import render
from engine.synthetic.scene import Scene
from model.clips import Clip

HELD_OUT_SEEDS = 1 << 40  # seeds of held-out clips begin here; training seeds are 62-bit hashes and never repeat one

ANYTHING = Scene()
LARGER = Scene(size=(0.14, 0.34), clutter=(0, 2), camouflage=0.05, look_alike=0.08, noise=4.0)
RICH = Scene(size=(0.10, 0.34), clutter=(0, 3), camouflage=0.05, look_alike=0.08, cut=0.1, objects=(2, 5))
RETURNING = replace(RICH, leave=0.4)
HELD_OUT_SCENE = replace(RICH, height=256, width=256, frames=16, stride=4)  # 2.7 s at 6 frames a second


@dataclass(frozen=True)
class StageClips:
    """The training clips of a stage: seed -> clip. A class, because worker processes need to pickle it."""

    scene: Scene

    def __call__(self, seed: int) -> Clip:
        """The clip of a seed. Its frames are 1 to 8 video frames (24 fps) apart, for slow and fast motion."""
        stride = int(np.random.default_rng(seed).integers(1, 9))
        return render(seed, replace(self.scene, stride=stride))


def held_out(count: int) -> Dataset:
    """The first `count` held-out clips. Their seeds are fixed. They show what a fine-tuned checkpoint has forgotten."""
    return labelled_clips.dataset("micro's held-out clips", count, lambda n: render(HELD_OUT_SEEDS + n, HELD_OUT_SCENE))
