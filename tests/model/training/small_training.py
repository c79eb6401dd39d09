"""Shared by tests of training: a tiny model, cheap clips, short recipes. Imported by child processes too.

Imports torch in functions only: fast tests use the clips and the recipes.
"""

import dataclasses
from pathlib import Path

import numpy as np

from model.clips import Clip
from model.training.recipe import Interaction, Recipe, TrainingStage

ROOT = Path(__file__).parents[3]

STAGE = TrainingStage(
    "tiny", 4, 64, frames=3, objects=2, batch=1, warmup=1, interaction=Interaction(mask=0.3, correction_clicks=1)
)

RECIPE = Recipe(stages=(STAGE,), seed=3)

TOGETHER = Recipe(  # for processes that train together
    stages=(
        dataclasses.replace(STAGE, steps=2, images=0.0, warmup=0, lr=1e-4),
        dataclasses.replace(STAGE, name="images", steps=2, images=1.0, warmup=0, lr=1e-4),
    ),
    seed=5,
)


def squares(seed):
    """Two bright squares that move over noise."""
    rng = np.random.default_rng(seed)
    t, side = 3, 64
    frames = rng.integers(0, 90, (t, side, side, 3), dtype=np.uint8)
    masks = np.zeros((t, 2, side, side), bool)
    for n, (x, y) in enumerate(rng.integers(2, 40, (2, 2))):
        for i in range(t):
            masks[i, n, y : y + 16, x + i : x + i + 16] = True
            frames[i][masks[i, n]] = (250, 200 - 100 * n, 90 * n)
    masks[:, 0] &= ~masks[:, 1]
    return Clip(frames, masks)


def coming_and_going(seed):
    """Like `squares`, but in every second clip one square disappears after the first frame."""
    clip = squares(seed)
    if seed % 2:
        clip.masks[1:, 0] = False
    return clip


def doubled(recipe):
    """The recipe with twice the clips in each step."""
    return dataclasses.replace(recipe, stages=tuple(dataclasses.replace(s, batch=2 * s.batch) for s in recipe.stages))


def tiny_shape(dropout=0.0):
    from model import architecture

    return architecture.Shape(
        image_size=128,
        embed_dim=16,
        blocks=(1, 1, 2, 1),
        decoder_mlp=64,
        memory_mlp=128,
        memory_layers=1,
        dropout=dropout,
    )


def new_model(dropout=0.0):
    from model import architecture

    model = architecture.build(tiny_shape(dropout))
    architecture.init_weights(model, 1)
    return model


def forgetful():
    """A model with dropout, whose random state is a part of the run."""
    return new_model(dropout=0.2)


def train(model, clips_of, recipe, folder, *, report=lambda progress: None, look=lambda model, step: None, **options):
    """The trainer in this process alone; `options` are those of RunOptions."""
    from model.training import trainer

    chosen = trainer.RunOptions(workers=0, **options)
    return trainer.train(model, clips_of, recipe, folder, chosen, report=report, look=look)
