"""Which clips a training step draws."""

import dataclasses

import pytest

from model.training import samples
from model.training.parallel import Team
from model.training.recipe import Recipe
from tests.model.test_clips import with_a_place
from tests.model.training.small_training import STAGE, squares


def test_a_share_of_the_steps_sees_single_frames():
    stage = dataclasses.replace(STAGE, steps=40, batch=2, images=0.5)
    drawn = samples.Samples(squares, stage, Recipe(stages=(stage,), seed=3), 0, 0, Team())
    lengths = [[len(drawn[2 * step + row][0]) for row in range(2)] for step in range(20)]
    assert all(a == b for a, b in lengths)  # all samples of one step
    assert {1, 3} == {a for a, _ in lengths} and 4 < sum(a == 1 for a, _ in lengths) < 16


@pytest.mark.parametrize(("steps", "begin", "workers"), [(8, 0, 0), (9, 0, 1), (90, 82, 0)])
def test_few_steps_are_drawn_without_a_loader_process(steps, begin, workers, monkeypatch):
    used = []

    def loader(drawn, *, num_workers, **options):
        used.append(num_workers)
        return [drawn[0]]

    monkeypatch.setattr(samples, "DataLoader", loader)
    stage = dataclasses.replace(STAGE, steps=steps)
    assert len(list(samples.batches(squares, stage, Recipe(stages=(stage,), seed=3), 0, begin, 1, Team()))) == 1
    assert used == [workers]


def test_seeds_of_different_places_differ():
    seeds = {samples.hash_seed(a, b, c) for a in range(3) for b in range(3) for c in range(200)}
    assert len(seeds) == 1800


@pytest.mark.parametrize(("images", "masks"), [(1.0, 5), (0.0, 2)])
def test_only_single_frames_have_places_without_an_object(images, masks):
    stage = dataclasses.replace(STAGE, images=images, rejected=3)
    pixels, drawn, is_object = samples.Samples(with_a_place, stage, Recipe(stages=(stage,), seed=3), 0, 0, Team())[0]
    assert drawn.shape[1] == masks and len(pixels) == len(drawn)
    assert is_object.tolist() == [True, True, False, False, False][:masks]
