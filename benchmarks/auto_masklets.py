"""How many objects that enter late do the auto-masklets find, and what does the search cost?

    python -m benchmarks.auto_masklets [--json] [--quick] [--clips 36] [--first 5] [--checkpoint micro]

Held-out synthetic clips of three seconds. Most of their objects enter after the first frame. An object is late if its
first mask of 100 px is on a later frame than the first one. It is found if the IoU of its true masklet and a candidate
is at least 0.5, all annotated frames together. `--json` prints one JSON line, `--quick` measures 2 clips.

late_recall: share of the late objects that the search finds.
frame0_recall: the same with SA-V's protocol, which searches the first frame only.
click_recall: the same if the model gets one true click on the first annotated frame that shows 100 px of the object.
first_recall: share of the other objects that the search finds; frame0_first_recall: with SA-V's protocol.
duplicate_share: share of the candidates whose IoU with another candidate of the clip is above 0.8.
propagation_overhead: frames times objects that the tracker propagated, over the same of the candidates alone. The pass
for the cycle IoU, which measures candidates and makes none, is not in it.
cpu_ratio: CPU time of the search over that of SA-V's protocol.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import replace

from engine.candidates import finders, finding
from engine.candidates.finding import Found
from engine.settings import AutoSettings
from engine.stages import propose
from engine.synthetic import labelled_clips, micro_clips, video_files
from engine.synthetic.rendering import render
from model import checkpoints, devices
from model.checkpoints import LoadedModel
from model.clips import Clip
from model.simulated_clicks import first_click
from model.tracker import Tracker
from storage import iou, rle
from storage.records import STRIDE, Masklet, Prompt

SCENE = replace(micro_clips.RICH, frames=72, objects=(3, 5), late=0.6, leave=0.0, cut=0.0)
FOUND, DUPLICATE = 0.5, 0.8
FIRST, CLIPS, QUICK = 5, 36, 2  # nothing of the search was chosen on these clips


def searched(loaded: LoadedModel, clip: Clip, name: str, settings: AutoSettings) -> Found:
    """The candidates of a clip, made as in the loop."""
    points = propose.grid(settings, loaded.image_size)
    return finding.find_candidates(
        video_files.video_of(clip, name),
        loaded,
        clip.frames.__getitem__,
        finders.grid_finder(loaded, points),
        propose.search(settings, loaded.image_size),
        checkpoint=loaded.name,
        round_number=0,
    )


def clicked(loaded: LoadedModel, clip: Clip, truth: Masklet, first: int, step: int) -> Masklet:
    """What the model makes of a true click on frame `first`."""
    hw = (truth.height, truth.width)
    frames = range(0, len(clip.frames), step)
    tracker = Tracker(loaded, lambda place: clip.frames[frames[place]], video_hw=hw, frame_count=len(frames))
    click = first_click(rle.decode(truth.rle[first // STRIDE], *hw))
    assert click is not None
    tracker.prompt("object", Prompt(frame_idx=first // step, points_xy=(click[0],), labels=(1,)))
    masks = {frames[a.frame_idx]: a.masks(hw)[0] for a in tracker.propagate(first // step, len(frames))}
    shown = [masks.get(i) for i in truth.frame_idx]
    return replace(
        truth,
        rle=tuple(rle.empty(*hw) if mask is None else rle.encode(mask) for mask in shown),
        area_px=tuple(0 if mask is None else int(mask.sum()) for mask in shown),
    )


def measure(loaded: LoadedModel, clips: int, first: int = FIRST) -> dict[str, float | int | str]:
    """The figures of some held-out clips. first: the number of the first one."""
    sums: Counter[str] = Counter()
    cpu = {"search": 0.0, "frame0": 0.0}
    settings = {"search": AutoSettings(), "frame0": AutoSettings(keyframe_s=0)}
    for number in range(first, first + clips):
        clip = render(micro_clips.HELD_OUT_SEEDS + number, SCENE)
        name = f"clip-{number:03d}"
        found = {}
        for way, chosen in settings.items():
            begun = time.process_time()
            found[way] = searched(loaded, clip, name, chosen)
            cpu[way] += time.process_time() - begun
        for truth in video_files.true_masklets(clip, name):
            large = [
                i for i, area in zip(truth.frame_idx, truth.area_px, strict=True) if area >= labelled_clips.LEAST_PX
            ]
            if not large:
                continue
            kind = "late" if large[0] else "first"
            sums[kind] += 1
            for way, made in found.items():
                sums[f"{way}_{kind}"] += any(iou.tube_iou(truth, m) >= FOUND for m in made.masklets)
            if kind == "late":
                step = propose.track_step(settings["search"], loaded.image_size)
                sums["click"] += iou.tube_iou(truth, clicked(loaded, clip, truth, large[0], step)) >= FOUND
        made = found["search"]
        rows = made.masklets
        sums["candidates"] += len(rows)
        sums["duplicates"] += sum(
            any(iou.tube_iou(row, other) > DUPLICATE for other in rows if other is not row) for row in rows
        )
        sums["propagated"] += made.object_frames
        sums["least"] += made.least_object_frames
        sums["keyframes"] += len(made.keyframes)
        if sys.stderr.isatty():
            print(f"{number + 1 - first} of {clips} clips", end="\r", file=sys.stderr, flush=True)

    def share(part: str, whole: str) -> float:
        return round(sums[part] / max(sums[whole], 1), 4)

    return {
        "checkpoint": loaded.name,
        "clips": clips,
        "first_clip": first,
        "late_objects": sums["late"],
        "late_recall": share("search_late", "late"),
        "frame0_recall": share("frame0_late", "late"),
        "click_recall": share("click", "late"),
        "first_recall": share("search_first", "first"),
        "frame0_first_recall": share("frame0_first", "first"),
        "candidates": sums["candidates"],
        "duplicate_share": share("duplicates", "candidates"),
        "propagation_overhead": share("propagated", "least"),
        "keyframes": sums["keyframes"],
        "cpu_ratio": round(cpu["search"] / cpu["frame0"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} clips")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--first", type=int, default=FIRST, help="the number of the first clip")
    parser.add_argument("--checkpoint", default="micro")
    asked = parser.parse_args()
    devices.set_threads(1)
    figures = measure(checkpoints.load(asked.checkpoint), QUICK if asked.quick else asked.clips, asked.first)
    print(json.dumps(figures) if asked.json else "\n".join(f"{k:22} {v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
