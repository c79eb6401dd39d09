"""The general set of a round: what is measured, and what is replayed."""

from collections import Counter

import numpy as np

from engine.datasets.clip_sampler import ClipSampler
from engine.rounds import general, recipes
from engine.rounds.general import WithReplay
from model.clips import Clip

STAGE = recipes.QUICK.stages[-1]


def plain(value):
    def draw(seed: int) -> Clip:
        return Clip(np.full((1, 4, 4, 3), value, np.uint8), np.ones((1, 1, 4, 4), bool))

    return draw


def test_a_share_of_the_clips_is_replayed_and_follows_from_the_seed():
    draw = WithReplay(plain(1), plain(2), 0.25)
    seen = [int(draw(seed).frames[0, 0, 0, 0]) for seed in range(2000)]
    assert 0.22 < Counter(seen)[2] / 2000 < 0.28
    assert seen[:50] == [int(draw(seed).frames[0, 0, 0, 0]) for seed in range(50)]


def test_the_synthetic_set_replays_clips_that_it_does_not_measure(s):
    measured = next(general.held_out(s, general.MICRO).videos())
    drawn = general.training_clips(s, general.MICRO, STAGE)(7)
    assert drawn.frames.shape == (STAGE.frames, STAGE.image_size, STAGE.image_size, 3)
    with measured.open() as reader:
        assert not any(np.array_equal(reader.read(0), frame) for frame in drawn.frames)


def test_a_release_is_replayed_from_its_training_videos_and_measured_on_the_held_out_ones(s, true_release):
    assert {video.split for video in general.held_out(s, true_release.name).videos()} == {"val"}
    sampler = general.training_clips(s, true_release.name, STAGE)
    assert isinstance(sampler, ClipSampler)
    assert {of[0].number for of in sampler.places} <= {
        n for n, entry in enumerate(sampler.data.entries) if entry.split == "train"
    }
