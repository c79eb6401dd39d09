import json

import numpy as np
import pytest

from engine import synthetic
from engine.synthetic import Scene
from storage import video
from storage.formats import sav


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others():
    scene = Scene(height=64, width=80, frames=4)
    a, b, c = synthetic.render(3, scene), synthetic.render(3, scene), synthetic.render(4, scene)
    assert np.array_equal(a.frames, b.frames) and np.array_equal(a.masks, b.masks)
    assert not np.array_equal(a.frames, c.frames)


@pytest.mark.parametrize("seed", range(12))
def test_masks_of_different_objects_never_overlap_and_objects_differ_from_what_is_behind(seed):
    clip = synthetic.render(seed, Scene(height=64, width=64, frames=3, camouflage=0.0))
    assert clip.masks.sum(axis=1).max() <= 1
    assert clip.frames.shape == (3, 64, 64, 3)


def test_objects_move_and_leave_and_return():
    scene = Scene(height=96, width=96, frames=48, objects=(3, 3), leave=1.0)
    flips = 0
    for seed in range(6):
        seen = synthetic.render(seed, scene).masks.any(axis=(2, 3))
        flips += int((~seen[1:-1] & seen[:1] & seen[-1:]).any(axis=0).sum())
    assert flips >= 3  # some object is there, gone, and there again


def test_the_truth_beside_a_video_is_what_was_drawn(tmp_path):
    scene = Scene(height=64, width=96, frames=9, leave=0.0)
    (path,) = synthetic.write_videos(tmp_path, 1, scene, seed=2)
    clip = synthetic.render(2 * 1_000_003 + 1, scene)
    truth = sav.from_sav(json.loads((tmp_path / "clip_001.truth.json").read_text()))
    from storage import rle

    shown = [k for k in range(clip.masks.shape[1]) if clip.masks[::4, k].any()]
    assert len(truth) == len(shown)
    for row, k in zip(truth, shown, strict=True):
        for counts, frame in zip(row.rle, row.frame_idx, strict=True):
            assert np.array_equal(rle.decode(counts, 64, 96), clip.masks[frame, k])
    stored = np.stack([rgb for _, rgb in video.frames(path)])
    assert stored.shape == clip.frames.shape
    assert np.abs(stored.astype(int) - clip.frames).mean() < 12
