"""Synthetic clips: the same seed gives the same pixels, masks do not overlap, objects leave and return."""

from dataclasses import replace

import numpy as np
import pytest

from engine.synthetic import rendering
from engine.synthetic.scene import Scene


def test_the_same_seed_gives_the_same_pixels_and_another_seed_different_ones():
    scene = Scene(height=64, width=80, frames=4)
    a, b, c = rendering.render(3, scene), rendering.render(3, scene), rendering.render(4, scene)
    assert np.array_equal(a.frames, b.frames) and np.array_equal(a.masks, b.masks)
    assert not np.array_equal(a.frames, c.frames)


@pytest.mark.parametrize("seed", range(12))
def test_masks_of_different_objects_never_overlap(seed):
    clip = rendering.render(seed, Scene(height=64, width=64, frames=3, camouflage=0.0))
    assert clip.masks.sum(axis=1).max() <= 1
    assert clip.frames.shape == (3, 64, 64, 3)


def test_objects_move_and_leave_and_return():
    scene = Scene(height=96, width=96, frames=48, objects=(3, 3), leave=1.0)
    flips = 0
    for seed in range(6):
        seen = np.asarray(rendering.render(seed, scene).masks.any(axis=(2, 3)))
        flips += int((~seen[1:-1] & seen[:1] & seen[-1:]).any(axis=0).sum())
    assert flips >= 3  # an object is visible, hidden, and visible again


def test_a_cut_shows_another_place_from_one_frame_to_the_next():
    def jump(clip):
        return np.abs(np.diff(clip.frames.astype(int), axis=0)).mean((1, 2, 3)).max()

    gone = 0
    for seed in range(6):
        scene = Scene(height=64, width=64, frames=12, stride=4)
        plain, cut = rendering.render(seed, scene), rendering.render(seed, replace(scene, cut=1.0))
        assert jump(cut) > 1.5 * jump(plain)
        assert cut.masks.sum(axis=1).max() <= 1 and cut.masks.any(axis=(2, 3)).any(axis=0).all()
        gone += int((plain.masks.any(axis=(2, 3)) & ~cut.masks.any(axis=(2, 3))).any())
    assert gone  # some of the objects are not in the other place
