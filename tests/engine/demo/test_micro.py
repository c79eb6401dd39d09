"""The checkpoint `micro`: the size of its files, its held-out clips and its benchmark."""

import json
import sys
from dataclasses import replace

import numpy as np

from benchmarks.micro import main
from engine.protocols.truth import Truth
from engine.synthetic import micro_clips, rendering
from model import checkpoints


def test_the_held_out_clips_keep_their_pixels():
    """Metrics measured on these clips can be compared only while the pixels stay.

    Compares sums with random signs and a tolerance: processors round about one pixel in a million differently.
    """

    def sum_of(values):
        signs = 2 * np.random.default_rng(0).integers(0, 2, values.size, np.int8) - 1
        return int((values.ravel().astype(np.int64) * signs).sum())

    clip = rendering.render(micro_clips.HELD_OUT_SEEDS, micro_clips.HELD_OUT_SCENE)
    assert clip.frames.shape == (16, 256, 256, 3) and clip.masks.shape == (16, 4, 256, 256)
    assert abs(sum_of(clip.frames) + 6992) < 100 and abs(sum_of(clip.masks) + 468) < 5


def test_the_held_out_clips_as_a_dataset_are_those_clips_to_the_byte():
    for number, video in enumerate(micro_clips.held_out(2).videos()):
        clip = rendering.render(micro_clips.HELD_OUT_SEEDS + number, micro_clips.HELD_OUT_SCENE)
        large = [k for k in range(clip.masks.shape[1]) if clip.masks[:, k].sum((1, 2)).max() >= 100]
        truths = Truth.all_of(video)
        assert list(truths) == [str(k) for k in large] and video.frame_idx == tuple(range(16))
        with video.open() as reader:
            for i in video.frame_idx:
                assert np.array_equal(reader.read(i), clip.frames[i])
                assert all(np.array_equal(truths[str(k)].masks[i], clip.masks[i, k]) for k in large)


def test_the_files_of_micro_are_below_20_mb():
    assert sum(file.stat().st_size for file in checkpoints.MICRO.iterdir()) <= 20e6


def test_the_benchmark_of_micro_prints_one_json_line(monkeypatch, capsys):
    monkeypatch.setattr(micro_clips, "HELD_OUT_SCENE", replace(micro_clips.HELD_OUT_SCENE, frames=3))
    monkeypatch.setattr(sys, "argv", ["benchmarks.micro", "--clips", "1", "--json"])
    main()
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == {"clips", "masklets", "jf_mask", "jf_3click", "jf_1click", "occlusion_accuracy"}
    assert figures["clips"] == 1 and figures["masklets"] >= 1
    assert all(0 <= value <= 100 for value in figures.values()) and figures["jf_mask"] > 20
