"""How `micro`, the checkpoint that ships with the project, was made: its recipe, its clips and its held-out clips.

    python -m engine.micro train FOLDER      trains, or goes on; Ctrl-C or a kill loses at most 50 steps
    python -m engine.micro save FOLDER       writes model/micro from a finished run

`micro` stands in for a published SAM 2.1 checkpoint where none can be had; it never saw a real video.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from engine.synthetic import Scene, render
from model.clip_forward import Interaction
from model.clips import Clip
from model.load import Shape
from model.train import Recipe, Stage

SHAPE = Shape(dropout=0.0)
HELD_OUT = 1 << 40  # seeds of held-out clips begin here; training seeds are 62-bit hashes and never repeat one

_IMAGES = Interaction(mask=0.0, click=0.6, prompted_frames=1, corrected_frames=1, correction_clicks=2)
_CLIPS = Interaction(mask=0.5, click=0.3, corrected_frames=2, correction_clicks=2)
RECIPE = Recipe(
    stages=(
        Stage("images, 128 px", 1300, 128, frames=1, batch=16, lr=1e-3, warmup=100, interaction=_IMAGES),
        Stage("clips, 128 px", 850, 128, frames=5, batch=4, lr=1e-3, warmup=50, interaction=_CLIPS),
        Stage("clips, 256 px", 400, 256, frames=6, batch=2, lr=5e-4, warmup=30, final_lr=0.02, interaction=_CLIPS),
    ),
    seed=1,
    weight_decay=0.01,
)


@dataclass(frozen=True)
class Source:
    """The training clips of a stage: seed -> clip. A class, so that loader processes can carry it."""

    scene: Scene

    def __call__(self, seed: int) -> Clip:
        """Frames of one clip are 1 to 4 frames of 24 fps apart: slow and fast motion from the same scenes."""
        stride = int(np.random.default_rng(seed).integers(1, 5))
        return render(seed, replace(self.scene, stride=stride))


def source(stage: Stage) -> Source:
    """Clips drawn at the size that the stage trains at."""
    return Source(Scene(height=stage.image_size, width=stage.image_size, frames=stage.frames))
