"""Rows that are right, for the tests to spoil."""

from __future__ import annotations

import numpy as np
import pytest

from storage import rle
from storage.records import Masklet, Video

H, W = 24, 32


@pytest.fixture
def video():
    def make(**changes) -> Video:
        values = {
            "video_id": "v1",
            "source_uri": "/in/v1.mp4",
            "source_sha256": "0" * 64,
            "video_key": f"videos/{changes.get('video_id', 'v1')}.mp4",
            "video_sha256": "0" * 64,
            "frames_key": "videos/v1.json",
            "height": H,
            "width": W,
            "frame_count": 12,
            "duration_s": 0.5,
            "source_fps": 24.0,
            "variable_rate": False,
            "rotation": 0,
            "split": "train",
            "batch_id": "b1",
        }
        return Video(**{**values, **changes})

    return make


@pytest.fixture
def masklet():
    def make(**changes) -> Masklet:
        masks = np.zeros((3, H, W), dtype=bool)
        masks[0, 2:8, 2:10] = masks[1, 3:9, 4:12] = True
        values = {
            "masklet_id": "m1",
            "video_id": "v1",
            "batch_id": "b1",
            "height": H,
            "width": W,
            "frame_idx": (0, 4, 8),
            "rle": tuple(rle.encode(mask) for mask in masks),
            "area_px": (48, 48, 0),
            "score": (0.9, 0.8, 0.7),
            "object_score": (5.0, 4.0, -3.0),
            "stability": (0.95, 0.9, 1.0),
            "kind": "auto",
            "phase": "auto",
            "round": 0,
            "checkpoint": "micro",
            "prompt": "{}",
            "verdict": "accept",
        }
        return Masklet(**{**values, **changes})

    return make
