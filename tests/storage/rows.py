"""Valid rows of the tables. A test changes the fields that it is about."""

from __future__ import annotations

import numpy as np

from storage import rle
from storage.records import Masklet, Video

H, W = 24, 32


def make_video(video_id: str = "v1", **changes: object) -> Video:
    values: dict[str, object] = {
        "video_id": video_id,
        "source_uri": f"/in/{video_id}.mp4",
        "source_sha256": "0" * 64,
        "video_key": f"videos/{video_id}.mp4",
        "video_sha256": "0" * 64,
        "frames_key": f"videos/{video_id}.frames.json",
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
    return Video(**{**values, **changes})  # type: ignore[arg-type]  # the fields are of many types


def make_masklet(masklet_id: str = "m1", video_id: str = "v1", batch_id: str = "b1", **changes: object) -> Masklet:
    """Three annotated frames: a block that moves, and is gone in the last one."""
    masks = np.zeros((3, H, W), dtype=bool)
    masks[0, 2:8, 2:10] = True
    masks[1, 3:9, 4:12] = True
    values: dict[str, object] = {
        "masklet_id": masklet_id,
        "video_id": video_id,
        "batch_id": batch_id,
        "height": H,
        "width": W,
        "frame_idx": (0, 4, 8),
        "rle": tuple(rle.encode(mask) for mask in masks),
        "area_px": tuple(int(mask.sum()) for mask in masks),
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
    return Masklet(**{**values, **changes})  # type: ignore[arg-type]  # the fields are of many types
