"""Do more clicks on a tracked frame make its mask better? Mean IoU after 0 to 5 corrective clicks.

    python -m benchmarks.clicks [--json] [--clips 12] [--checkpoint micro]

Each object of a held-out clip is prompted with its mask on the first frame that shows it, and tracked to the end. Then
every fifth tracked frame is corrected, each from the same memory, with one click after another in the middle of the
largest error. Three ways are compared: a correction of the tracked mask (as the tracker does, see `model.corrections`),
a new answer from the memory and the clicks, and a new answer from the clicks alone (as transformers does).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np

from engine.protocols import annotator
from engine.synthetic import labelled_clips, micro_clips
from engine.synthetic.rendering import render
from model import checkpoints
from model.checkpoints import LoadedModel
from model.clips import Clip
from model.features import FeatureCache
from model.tracker import Tracker, TrackerConfig
from storage import rle
from storage.iou import mask_iou
from storage.pixels import Mask
from storage.records import Prompt

CLICKS = 5
EVERY = 5  # every fifth frame is corrected
WAYS = {"correction": (True, True), "memory": (True, False), "clicks": (False, False)}


def corrections(loaded: LoadedModel, clip: Clip, memory: bool, feed_back: bool) -> Iterator[list[float]]:
    """For each object and each examined frame: the IoU after 0, 1, ... CLICKS clicks."""
    t, n, h, w = clip.masks.shape
    features = FeatureCache(loaded, clip.frames.__getitem__, size=t)
    config = TrackerConfig(history_frames=None, feed_back=feed_back)
    for k in range(n):
        first = next((i for i in range(t) if clip.masks[i, k].sum() >= labelled_clips.LEAST_PX), None)
        if first is None:
            continue
        tracker = Tracker(loaded, features, video_hw=(h, w), frame_count=t, config=config)
        tracker.prompt("object", Prompt(frame_idx=first, mask_rle=rle.encode(clip.masks[first, k])))
        tracked = {answer.frame_idx: answer.masks((h, w))[0] for answer in tracker.propagate(first, t)}
        for frame in range(first + EVERY, t, EVERY):
            truth = clip.masks[frame, k]
            if truth.sum() < labelled_clips.LEAST_PX:
                continue
            corrected = tracker
            if not memory:
                corrected = Tracker(loaded, features, video_hw=(h, w), frame_count=t, config=config)
            else:
                tracker.copy("object", "corrected")

            def ask(prompt: Prompt, of: Tracker = corrected) -> Mask:
                answer: Mask = of.prompt("corrected", prompt).masks((h, w))[0]
                return answer

            ious = [mask_iou(tracked[frame], truth)]
            for _, mask in annotator.click_on(ask, frame, truth, CLICKS, tracked[frame]):
                ious.append(mask_iou(mask, truth))
            if memory:
                tracker.remove("corrected")
            yield ious + [ious[-1]] * (CLICKS + 1 - len(ious))


def measure(loaded: LoadedModel, clips: int) -> dict[str, dict[str, object]]:
    """Mean IoU by clicks, and the share of frames that are worse after three clicks, for each way."""
    found: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    for number in range(clips):
        clip = render(micro_clips.HELD_OUT_SEEDS + number, micro_clips.HELD_OUT_SCENE)
        for name, (memory, feed_back) in WAYS.items():
            found[name] += corrections(loaded, clip, memory, feed_back)
    return {
        name: {
            "frames": len(ious),
            "iou_by_clicks": [round(float(v), 3) for v in np.mean(ious, axis=0)],
            "worse_after_3": round(float(np.mean([of[3] < of[0] - 0.005 for of in ious])), 3),
        }
        for name, ious in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--checkpoint", default="micro")
    asked = parser.parse_args()
    loaded = checkpoints.load(asked.checkpoint)
    found = {"checkpoint": asked.checkpoint, "clips": asked.clips, **measure(loaded, asked.clips)}
    if asked.json:
        print(json.dumps(found))
        return
    for name in WAYS:
        print(name, found[name])


if __name__ == "__main__":
    main()
