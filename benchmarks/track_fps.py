"""What tracking through fewer frames costs: the setting `auto.track_fps`.

    python -m benchmarks.track_fps [--json] [--checkpoint micro] [--clips 4]

Held-out clips of each domain, 40 frames at 24 frames a second. The true masks of the first frame are tracked through
all frames, every second one or every fourth one. Measured on every fourth frame: J&F as SA-V measures it, mean IoU with
the truth, the share of masks with an IoU above 0.75, and the CPU time over that of tracking through all frames.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from engine.protocols.annotator import GOOD
from engine.synthetic.domains.catalogue import DOMAINS, HELD_OUT
from engine.synthetic.domains.drawing import Size
from model import checkpoints, devices
from model.checkpoints import LoadedModel
from model.clips import Clip
from model.tracker import Tracker
from storage import rle
from storage.iou import mask_iou
from storage.pixels import Mask
from storage.records import FPS, STRIDE, Prompt
from validation import jf

SIZE = Size(height=240, width=320, frames=40)
RATES = (24, 12, 6)
SMALLEST_PX = 100


def tracked(loaded: LoadedModel, clip: Clip, step: int) -> list[tuple[list[Mask], list[Mask]]]:
    """The masks of each object on every fourth frame, tracked through every `step`-th frame, and the true ones."""
    frames = range(0, len(clip.frames), step)
    hw = (clip.frames.shape[1], clip.frames.shape[2])
    objects = [i for i in range(clip.masks.shape[1]) if clip.masks[0, i].sum() >= SMALLEST_PX]
    if not objects:
        return []
    tracker = Tracker(loaded, lambda place: clip.frames[frames[place]], video_hw=hw, frame_count=len(frames))
    tracker.prompt_all({str(i): Prompt(frame_idx=0, mask_rle=rle.encode(clip.masks[0, i])) for i in objects})
    found: list[tuple[list[Mask], list[Mask]]] = [([], []) for _ in objects]
    for answer in tracker.propagate(0, len(frames)):
        frame_idx = frames[answer.frame_idx]
        if frame_idx % STRIDE == 0:
            for (made, true), mask, i in zip(found, answer.masks(hw), objects, strict=True):
                made.append(mask)
                true.append(clip.masks[frame_idx, i])
    return found


def measure(loaded: LoadedModel, domain: str, clips: int) -> dict[str, dict[str, float]]:
    """By frames a second: J&F (0 to 100), mean IoU, share of right masks, CPU time over that of 24 frames a second."""
    drawn = [DOMAINS[domain].render(HELD_OUT + number, SIZE) for number in range(clips)]
    seconds: dict[int, float] = {}
    figures: dict[str, dict[str, float]] = {}
    for rate in RATES:
        begun = time.process_time()
        made = [each for clip in drawn for each in tracked(loaded, clip, FPS // rate)]
        seconds[rate] = time.process_time() - begun
        every = [iou for masks, truth in made for iou in list(map(mask_iou, masks, truth))[1:]]
        mean = jf.mean(score for masks, truth in made if (score := jf.of_masklet(masks, truth)) is not None)
        figures[str(rate)] = {
            "jf": round(100 * mean.jf, 1) if mean else 0.0,
            "iou": round(float(np.mean(every)), 3),
            "right": round(float(np.mean(np.array(every) > GOOD)), 3),
            "masks": len(every),
            "cpu_ratio": round(seconds[rate] / seconds[RATES[0]], 2),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--checkpoint", default="micro")
    parser.add_argument("--clips", type=int, default=4, help="of each domain")
    asked = parser.parse_args()
    devices.set_threads(1)
    loaded = checkpoints.load(asked.checkpoint)
    found = {domain: measure(loaded, domain, asked.clips) for domain in DOMAINS}
    table = {"checkpoint": loaded.name, "clips": asked.clips, "domains": found}
    print(json.dumps(table) if asked.json else json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
