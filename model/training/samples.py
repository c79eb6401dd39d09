"""Training samples: draws the batches of a stage, in loader processes or here.

Each sample follows from the recipe's seed and its index alone. Knows nothing of the model but its normalisation.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.clips import IMAGENET_MEAN, IMAGENET_STD, Clip, DrawClip, SampleConfig, sample
from model.training.parallel import Team
from model.training.recipe import Recipe, TrainingStage

FEW_STEPS = 8  # drawing their clips takes less time than starting a loader process


class NoObject(ValueError):
    """Twenty draws gave no clip with a visible object."""


def hash_seed(*parts: int) -> int:
    """One 62-bit seed from several numbers, well mixed."""
    words = np.random.SeedSequence([p & 0xFFFFFFFF for p in parts]).generate_state(2, np.uint32)
    return int(words[0]) << 30 | int(words[1]) >> 2


Batch = tuple[Tensor, Tensor, Tensor]  # pixels float (B, T, 3, S, S), masks bool (B, T, N, S, S), is_object bool (B, N)


class Samples(Dataset[Batch]):
    """The samples of a stage by index, from `first` on: a batch without its first dimension."""

    def __init__(
        self,
        source: DrawClip,
        stage: TrainingStage,
        recipe: Recipe,
        number: int,
        first: int,
        team: Team = Team(),  # noqa: B008  frozen
    ) -> None:
        self.source, self.stage, self.recipe, self.number, self.first = source, stage, recipe, number, first
        self.team = team
        self.config = SampleConfig(
            image_size=stage.image_size,
            frames=stage.frames,
            objects=stage.objects,
            time_reversal=recipe.time_reversal,
            horizontal_flip=recipe.horizontal_flip,
            colour_jitter=recipe.colour_jitter,
            tone_jitter=recipe.tone_jitter,
            mosaic=recipe.mosaic,
            affine=recipe.affine,
            min_area_px=max(12, stage.image_size**2 // 1600),
        )

    def __len__(self) -> int:
        return (self.stage.steps * self.stage.batch) - self.first

    def __getitem__(self, index: int) -> Batch:
        step, row = divmod(self.first + index, self.stage.batch)
        place = (
            step * self.team.size + self.team.rank
        ) * self.stage.batch + row  # index among the samples of all processes
        images = np.random.default_rng(hash_seed(self.recipe.seed, self.number, step, 11)).random() < self.stage.images
        config = replace(self.config, frames=1) if images else self.config
        if config.frames == 1:
            config = replace(config, rejected=self.stage.rejected)
        for attempt in range(20):
            seed = hash_seed(self.recipe.seed, self.number, place, attempt)
            clip = sample(self.source(seed), config, np.random.default_rng(seed + 1))
            if clip is not None:
                return to_pixels(clip), torch.from_numpy(clip.masks), torch.from_numpy(clip.objects)
        raise NoObject(f"twenty draws gave no clip with a visible object: sample {place} of {self.stage.name}")


def to_pixels(clip: Clip) -> Tensor:
    """A clip's frames as the model takes them: float (T, 3, S, S), normalised."""
    frames = torch.from_numpy(np.ascontiguousarray(clip.frames)).permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.tensor(IMAGENET_MEAN).view(3, 1, 1),
        torch.tensor(IMAGENET_STD).view(3, 1, 1),
    )
    return (frames - mean) / std


def batches(
    source: DrawClip, stage: TrainingStage, recipe: Recipe, number: int, begin: int, workers: int, team: Team
) -> Iterator[Batch]:
    """The batches of a stage from step `begin` of it.

    number: which stage of the recipe.  workers: loader processes; 0 draws in this one, as do the last FEW_STEPS.
    """
    if stage.steps - begin <= FEW_STEPS:
        workers = 0
    samples = Samples(source, stage, recipe, number, begin * stage.batch, team)
    loader: DataLoader[Batch] = DataLoader(
        samples,
        batch_size=stage.batch,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_prepare_loader,
        multiprocessing_context="spawn" if workers else None,  # the fork of a process with threads can hang forever
    )
    yield from loader


def _prepare_loader(_: int) -> None:
    """Prepares a loader process: one thread, and no Ctrl-C, because the trainer ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
