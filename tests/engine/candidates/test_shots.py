"""Shots and windows: where they begin and end."""

import numpy as np
import pytest

from engine.candidates import shots

FRAMES = range(0, 96, 4)


def place(seed):
    """A textured place, uint8 (96, 160, 3)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (6, 10, 3)).repeat(16, 0).repeat(16, 1).astype(np.uint8)


def moving(frame_idx, cut):
    """A place that the camera pans over, and another one from frame `cut` on."""
    return np.roll(place(1 if frame_idx < cut else 2), frame_idx // 8, axis=1)


@pytest.mark.parametrize("cut", [16, 48, 88, 92])
def test_a_cut_begins_a_shot_wherever_it_is(cut):
    assert shots.glance(lambda i: moving(i, cut), FRAMES).cuts == (cut,)


def test_a_camera_that_moves_is_no_cut_and_every_frame_is_read_in_order():
    seen = []

    def read(frame_idx):
        seen.append(frame_idx)
        return moving(frame_idx, 1000)

    found = shots.glance(read, FRAMES)
    assert found.cuts == () and list(found.change) == list(FRAMES)
    assert list(dict.fromkeys(seen)) == seen[: len(FRAMES)] == list(FRAMES)
    assert found.change[0] == 0 and found.change[8] > found.change[4]


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("cuts", [[], [36], [4, 200]])
def test_windows_cover_each_shot_and_share_an_annotated_frame(step, cuts):
    found = shots.windows(range(0, 400, step), cuts, 49)
    assert {i for w in found for i in w.frames} == set(range(0, 400, step))
    assert max(w.frames[-1] - w.frames[0] for w in found) < 49
    for before, after in zip(found, found[1:], strict=False):
        shared = set(before.frames) & set(after.frames)
        assert after.continues == bool(shared) == (after.frames[0] not in cuts)
        assert shared in (set(), {after.frames[0]}) and all(i % 4 == 0 for i in shared)
    assert sum(not w.continues for w in found) == 1 + len(cuts)


def test_a_window_that_begins_between_two_annotated_frames_shares_an_annotated_one():
    first, second, third = shots.windows(range(0, 60), [37], 13)[-3:]
    assert (first.frames, second.frames, third.frames) == (range(24, 37), range(37, 49), range(48, 60))


def test_a_video_of_one_frame_is_one_window():
    assert shots.windows(range(0, 1), [], 480) == [shots.Window(range(0, 1), False)]
    assert shots.glance(lambda i: place(1), range(0, 1)) == shots.Glance((), {0: 0.0})
