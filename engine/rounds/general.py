"""What a round must not forget: a fixed general set, which is measured and may be replayed in training.

"micro": the synthetic clips that `micro` was trained and measured on. Otherwise a release, an SA-V folder or a DAVIS
root: its training videos are replayed, its held-out ones measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from engine.datasets import clip_sampler, layouts
from engine.datasets.clip_sampler import ClipSampler
from engine.datasets.labelled import Dataset
from engine.services import Services
from engine.synthetic import micro_clips
from model.clips import Clip, DrawClip
from model.training.recipe import TrainingStage

MICRO = "micro"
MEASURED_CLIPS = 6  # of the synthetic ones


def held_out(s: Services, name: str) -> Dataset:
    """The videos of the general set to measure on. Raises DatasetError, NoSuchRelease."""
    if name == MICRO:
        return micro_clips.held_out(MEASURED_CLIPS)
    return layouts.open_dataset(name, blobs=s.blobs, split="val")


def training_clips(s: Services, name: str, stage: TrainingStage) -> DrawClip:
    """Draws clips of the general set for a stage. Raises DatasetError, NoSuchRelease, NothingToTrainOn."""
    if name == MICRO:
        return clips_of_micro(stage)
    data = layouts.open_dataset(name, blobs=s.blobs, split="train")
    return ClipSampler(data, list(clip_sampler.index(data)), stage.frames)


def clips_of_micro(stage: TrainingStage) -> DrawClip:
    """Draws synthetic clips as `micro` was trained on, at the size of a stage."""
    side = stage.image_size
    return micro_clips.StageClips(replace(micro_clips.RETURNING, height=side, width=side, frames=stage.frames))


@dataclass(frozen=True)
class WithReplay:
    """Draws clips of new masklets, and a share of older ones. Can be pickled for loader processes."""

    new: DrawClip
    old: DrawClip
    share: float  # of the clips that are old

    def __call__(self, seed: int) -> Clip:
        """The clip of a seed."""
        return (self.old if np.random.default_rng((seed, 1)).random() < self.share else self.new)(seed)
