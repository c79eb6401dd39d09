import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import micro as benchmark
from engine.demo import micro, synthetic, synthetic_videos
from engine.demo.scene import Scene
from model import checkpoints
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


def test_a_cut_shows_another_place_from_one_frame_to_the_next():
    def jump(clip):
        return np.abs(np.diff(clip.frames.astype(int), axis=0)).mean((1, 2, 3)).max()

    gone = 0
    for seed in range(6):
        scene = Scene(height=64, width=64, frames=12, stride=4)
        plain, cut = synthetic.render(seed, scene), synthetic.render(seed, replace(scene, cut=1.0))
        assert jump(cut) > 1.5 * jump(plain)
        assert cut.masks.sum(axis=1).max() <= 1 and cut.masks.any(axis=(2, 3)).any(axis=0).all()
        gone += int((plain.masks.any(axis=(2, 3)) & ~cut.masks.any(axis=(2, 3))).any())
    assert gone  # some of the objects are not in the other place


def test_the_held_out_clips_keep_their_pixels():
    """Or figures that were measured on them say nothing any more: sums with random signs, because processors round a
    pixel in a million otherwise.
    """

    def sum_of(values):
        signs = 2 * np.random.default_rng(0).integers(0, 2, values.size, np.int8) - 1
        return int((values.ravel().astype(np.int64) * signs).sum())

    clip = synthetic.render(micro.HELD_OUT, micro.HELD_OUT_SCENE)
    assert clip.frames.shape == (16, 256, 256, 3) and clip.masks.shape == (16, 4, 256, 256)
    assert abs(sum_of(clip.frames) + 6992) < 100 and abs(sum_of(clip.masks) + 468) < 5


def test_what_ships_of_micro_is_small():
    assert sum(file.stat().st_size for file in checkpoints.MICRO.iterdir()) <= 20e6


def test_the_benchmark_of_micro_prints_one_line_of_figures(monkeypatch, capsys):
    monkeypatch.setattr(micro, "HELD_OUT_SCENE", replace(micro.HELD_OUT_SCENE, frames=3))
    monkeypatch.setattr(sys, "argv", ["benchmarks.micro", "--clips", "1", "--json"])
    benchmark.main()
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == {"clips", "masklets", "jf_mask", "jf_3click", "jf_1click", "occlusion_accuracy"}
    assert figures["clips"] == 1 and figures["masklets"] >= 1
    assert all(0 <= value <= 100 for value in figures.values()) and figures["jf_mask"] > 20


def test_the_truth_beside_a_video_is_what_was_drawn(tmp_path):
    scene = Scene(height=64, width=96, frames=9, leave=0.0)
    (path,) = synthetic_videos.write_videos(tmp_path, 1, scene, seed=2)
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
