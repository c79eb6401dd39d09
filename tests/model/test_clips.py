"""How a training sample is cut from a clip."""

import dataclasses

import numpy as np
import pytest

from model import clips
from model.clips import Clip, SampleConfig, sample
from tests.model.training.small_training import squares


def test_a_mosaic_shows_the_clip_four_times_and_asks_for_one():
    config = SampleConfig(image_size=128, frames=3, objects=2, mosaic=1.0, colour_jitter=0.0, grayscale=0.0)
    clip = sample(squares(1), config, np.random.default_rng(2))
    quarters = [clip.frames[:, y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64)]
    assert all(np.array_equal(quarters[0], other) for other in quarters[1:])
    asked = [clip.masks[..., y : y + 64, x : x + 64].any() for y in (0, 64) for x in (0, 64)]
    assert sum(asked) == 1


def test_a_clip_may_run_backwards_frames_and_masks_alike():
    config = SampleConfig(image_size=64, frames=3, objects=2, time_reversal=0.0, colour_jitter=0.0, grayscale=0.0)
    for seed in range(4):
        there, back = (
            sample(squares(1), dataclasses.replace(config, time_reversal=p), np.random.default_rng(seed))
            for p in (0, 1)
        )
        assert np.array_equal(there.frames[::-1], back.frames) and not np.array_equal(there.frames, back.frames)
        assert np.array_equal(there.masks[::-1], back.masks)
    forwards = [
        np.array_equal(
            sample(squares(1), dataclasses.replace(config, time_reversal=0.5), np.random.default_rng(seed)).masks,
            sample(squares(1), config, np.random.default_rng(seed)).masks,
        )
        for seed in range(60)
    ]
    assert 18 < sum(forwards) < 42


def test_brightness_and_tone_may_jitter_by_different_amounts():
    clip = Clip(np.full((1, 8, 8, 3), (60, 120, 180), np.uint8), np.ones((1, 1, 8, 8), bool))
    config = SampleConfig(image_size=8, frames=1, objects=1, min_area_px=1, colour_jitter=0.3, grayscale=0.0)

    def spread(config):
        """The spread of the colours relative to their brightness: a change of brightness alone does not change it."""
        found = [sample(clip, config, np.random.default_rng(seed)).frames[0, 0, 0].astype(float) for seed in range(60)]
        return np.std([(colour.max() - colour.min()) / colour.mean() for colour in found])

    assert spread(dataclasses.replace(config, tone_jitter=0.0)) < 0.01 < spread(config)


def test_one_affine_map_moves_frames_and_masks_of_a_clip_and_strength_0_changes_nothing():
    plain = SampleConfig(image_size=128, frames=3, objects=2, colour_jitter=0.0, grayscale=0.0, horizontal_flip=0.0)
    turned = dataclasses.replace(plain, affine=1.0)
    clip = squares(1)
    for seed in range(6):
        before, after = (sample(clip, config, np.random.default_rng(seed)) for config in (plain, turned))
        for i in range(3):
            for n in range(2):  # the squares are bright, the background is dark
                inside = after.frames[i][after.masks[i, n]]
                assert inside.size == 0 or np.mean(inside[:, 0] > 180) > 0.9
        assert not np.array_equal(after.masks, before.masks)
    maps = []
    for i in range(3):  # the affine map of the clip, from the corners of a square that does not move
        still = Clip(np.repeat(clip.frames[:1], 3, 0), np.repeat(clip.masks[:1], 3, 0))
        maps.append(sample(still, turned, np.random.default_rng(9)).masks[i])
    assert np.array_equal(maps[0], maps[1]) and np.array_equal(maps[1], maps[2])
    again = sample(clip, dataclasses.replace(plain, affine=0.0), np.random.default_rng(3))
    assert np.array_equal(again.frames, sample(clip, plain, np.random.default_rng(3)).frames)


def test_a_turn_is_about_the_middle_and_shears_along_the_rows():
    masks = np.zeros((1, 1, 65, 65), bool)
    masks[..., 30:35, 50:55] = True  # right of the middle
    frames = np.zeros((1, 65, 65, 3), np.uint8)

    def centre(turn, shear):
        moved_frames, moved = clips._turned(frames, masks, turn, shear)
        assert tuple(moved_frames[0, 32, 32]) == (0, 0, 0)
        assert (tuple(moved_frames[0, 0, 0]) == clips._BEYOND) == (turn != 90)  # from outside the frame
        return np.argwhere(moved[0, 0]).mean(0)

    assert centre(90, 0) == pytest.approx([52, 32], abs=0.6)
    assert centre(45, 0) == pytest.approx([32 + 20 * 0.5**0.5, 32 + 20 * 0.5**0.5], abs=0.6)
    assert centre(0, 20) == pytest.approx([32, 52], abs=0.6)
    masks[:] = False
    masks[..., 10:15, 30:35] = True  # above it
    assert centre(0, 20) == pytest.approx([12, 32 + 20 * np.tan(np.deg2rad(20))], abs=0.6)


def test_samples_have_one_shape_and_repeat_objects_where_there_are_too_few():
    config = SampleConfig(image_size=128, frames=2, objects=5)
    got = sample(squares(2), config, np.random.default_rng(0))
    assert got.frames.shape == (2, 128, 128, 3) and got.masks.shape == (2, 5, 128, 128)
    empty = Clip(np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 1, 64, 64), bool))
    assert sample(empty, config, np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match="3 frames, the sample needs 4"):
        sample(squares(2), SampleConfig(frames=4), np.random.default_rng(0))


def with_a_place(seed):
    """Two squares, and a place without an object, in the corner."""
    clip = squares(seed)
    place = np.zeros_like(clip.masks[:, :1])
    place[..., 56:, 56:] = True
    masks = np.concatenate([place & ~clip.masks.any(1, keepdims=True), clip.masks], axis=1)
    return Clip(clip.frames, masks, np.array([False, True, True]))


def test_a_sample_has_its_objects_first_and_then_places_without_an_object():
    config = SampleConfig(image_size=64, frames=1, objects=3, rejected=2, horizontal_flip=0.0)
    got = sample(with_a_place(1), config, np.random.default_rng(0))
    assert got.objects.tolist() == [True, True, True, False, False]
    assert got.masks[0, 3:, 60:, 60:].all() and not got.masks[0, 3:, :50].any()
    plain = sample(with_a_place(1), dataclasses.replace(config, rejected=0), np.random.default_rng(0))
    assert plain.objects.tolist() == [True] * 3, "a place never stands in for an object"
    nowhere = sample(squares(1), config, np.random.default_rng(0))
    assert nowhere.masks.shape[1] == 5 and nowhere.objects.all(), "objects stand in for places"
    only = Clip(with_a_place(1).frames, with_a_place(1).masks, np.zeros(3, bool))
    assert sample(only, config, np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match="3 masks, but is_object has the shape"):
        Clip(only.frames, only.masks, np.zeros(2, bool))
