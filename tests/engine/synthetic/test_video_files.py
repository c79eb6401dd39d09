"""Synthetic clips as files: the video and its annotation."""

import json

import numpy as np

from engine.synthetic import rendering, video_files
from engine.synthetic.scene import Scene
from storage import rle
from storage.formats import sav
from storage.videos import video


def test_the_annotation_beside_a_video_holds_the_drawn_masks(tmp_path):
    scene = Scene(height=64, width=96, frames=9, leave=0.0)
    (path,) = video_files.write_videos(tmp_path, 1, scene, seed=2)
    clip = rendering.render(2 * 1_000_003 + 1, scene)
    truth = sav.from_sav(json.loads((tmp_path / "clip_001.truth.json").read_text()))
    shown = [k for k in range(clip.masks.shape[1]) if clip.masks[::4, k].any()]
    assert len(truth) == len(shown)
    for row, k in zip(truth, shown, strict=True):
        for counts, frame in zip(row.rle, row.frame_idx, strict=True):
            assert np.array_equal(rle.decode(counts, 64, 96), clip.masks[frame, k])
    stored = np.stack([rgb for _, rgb in video.frames(path)])
    assert stored.shape == clip.frames.shape
    assert np.abs(stored.astype(int) - clip.frames).mean() < 12
