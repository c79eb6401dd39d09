"""Writes folders of labelled videos for tests, and opens a clip sampler on a dataset."""

import json

import cv2
import numpy as np

from engine.datasets import clip_sampler
from engine.datasets.clip_sampler import ClipSampler
from storage import rle
from storage.formats import sav_frames
from storage.records import STRIDE
from tests.storage import made_videos


def write_sav_frames(root, video, frame_count=10, listed="sav_val.txt"):
    """A video in the layout of SA-V's validation set: two overlapping objects, the second one absent in the middle."""
    for i in range(frame_count):
        path = root / sav_frames.PICTURES / video / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = np.full((96, 128, 3), 40, np.uint8)
        shade[20 + i : 60 + i, 20:60] = 200
        cv2.imwrite(str(path), shade)
        for name in ("000", "001") if i % STRIDE == 0 else ():
            mask = np.zeros((96, 128), np.uint8)
            if name == "000":
                mask[20 + i : 60 + i, 20:60] = 255
            elif i != STRIDE:
                mask[30 + i : 40 + i, 50:70] = 255
            path = root / sav_frames.MASKS / video / name / f"{i:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), mask)
    if listed:
        with (root / listed).open("a") as file:
            file.write(f"{video}\n")
    return root


def write_sav_note(path, numbers, frame_count, duration_s, height=made_videos.H, width=made_videos.W):
    """An SA-V annotation of `made_videos.numbered`: the mask of a frame is as wide as its number."""
    masks = []
    for number in numbers:
        mask = np.zeros((height, width), bool)
        mask[0, : number % width + 1] = True
        masks.append([{"size": [height, width], "counts": rle.encode(mask).decode()}])
    note = {"video_id": "v", "video_frame_count": float(frame_count), "video_duration": duration_s, "masklet": masks}
    path.write_text(json.dumps(note))


def forget_figures(path):
    """Removes the number of frames and the duration from an annotation."""
    note = json.loads(path.read_text())
    del note["video_frame_count"], note["video_duration"]
    path.write_text(json.dumps(note))


def sampler_of(data, frames, hardest=1.0):
    return ClipSampler(data, list(clip_sampler.index(data)), frames, hardest)
