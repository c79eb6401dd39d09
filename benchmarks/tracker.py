"""The tracker against transformers' own loop: same weights, video and objects, in one process, frame by frame in turn.

    python -m benchmarks.tracker [--quick] [--json] [--model tiny] [--image-size 512] [--objects 16] [--device cpu]

Speed and faithfulness are measured with random weights in the shapes of a published model, on noise that moves; they do
not depend on what the weights have learned. What economy costs in quality is measured with `micro`, on held-out clips.
Ratios are medians over frames, from the moment when all seven memories are there. `--quick` is smaller, and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from benchmarks import grids
from engine import evaluate, micro
from engine.synthetic import render
from model import feed, load, meta
from model.load import LoadedModel
from model.memory_reader import Economy
from model.tracker import FeatureCache, Tracker, TrackerConfig
from storage.records import Prompt
from validation import jf

ECONOMY = Economy(int8=True)


def published(name: str, image_size: int, device: str) -> LoadedModel:
    """Random weights in the shape of a published model."""
    torch.manual_seed(0)
    model = Sam2VideoModel(load.resized_config(meta.config_of(name), image_size))
    load.init_weights(model, 0, embedding_std=1.0)
    with torch.no_grad():  # every object is present: an absent one is less work for us than for the library
        model.mask_decoder.pred_obj_score_head.proj_out.bias += 5.0
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return load.wrap(torch.nn.Module.to(model, device=device, dtype=dtype), name=name)


def noise(side: int, frames: int) -> list[NDArray[np.uint8]]:
    """A picture of soft noise that moves by some pixels a frame."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (side // 8 + frames, side // 8 + frames, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return [np.ascontiguousarray(coarse[3 * i : 3 * i + side, 2 * i : 2 * i + side]) for i in range(frames)]


def prompts(objects: int, side: int) -> dict[str, Prompt]:
    """Boxes of an eighth of the side, spread over the frame."""
    rng = np.random.default_rng(1)
    found = {}
    for n in range(objects):
        x, y = (float(z) for z in rng.uniform(0, side * 7 / 8, 2))
        found[str(n)] = Prompt(frame_idx=0, box_xyxy=(x, y, x + side / 8, y + side / 8))
    return found


class Library:
    """transformers' session. Sessions never forget: their memory grows with the frames."""

    def __init__(self, loaded: LoadedModel, frames: list[NDArray[np.uint8]], given: dict[str, Prompt]) -> None:
        self._loaded = loaded
        hw = frames[0].shape[:2]
        self._session = Sam2VideoInferenceSession(
            video=feed.to_pixels(loaded, frames),
            video_height=hw[0],
            video_width=hw[1],
            inference_device=loaded.device,
            inference_state_device=loaded.device,
            video_storage_device=loaded.device,
            dtype=loaded.dtype,
        )
        numbers = []
        for number, prompt in enumerate(given.values()):
            clicks = feed.to_clicks(loaded, [prompt], hw)
            index = self._session.obj_id_to_idx(number)
            points = {"point_coords": clicks.xy[:, None].to(loaded.dtype), "point_labels": clicks.labels[:, None]}
            self._session.add_point_inputs(index, 0, points)
            numbers.append(number)
        self._session.obj_with_new_inputs = numbers

    def __call__(self, frame_idx: int) -> torch.Tensor:
        return self._loaded.model(self._session, frame_idx=frame_idx).pred_masks[:, 0].float()


@contextmanager
def timed_parts(loaded: LoadedModel, spent: dict[str, float]) -> Iterator[None]:
    """Adds up the seconds of the model's modules while they run as modules."""
    parts = {
        "encoder": loaded.model.vision_encoder,
        "memory attention": loaded.model.memory_attention,
        "decoder": loaded.model.mask_decoder,
        "memory encoder": loaded.model.memory_encoder,
    }
    begun: dict[str, float] = {}
    hooks = []
    for name, module in parts.items():

        def before(*_: object, name: str = name) -> None:
            begun[name] = time.perf_counter()

        def after(*_: object, name: str = name) -> None:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - begun[name]

        hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def speed(loaded: LoadedModel, objects: int, frames: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Seconds a frame of the library's loop, ours exact and ours with economy; ratios are medians over full frames."""
    side = loaded.image_size
    pictures, given = noise(side, frames), prompts(objects, side)
    library = Library(loaded, pictures, given)
    runs: dict[str, Iterator[Any]] = {}
    for name, config in (("exact", TrackerConfig()), ("economy", TrackerConfig(economy=ECONOMY))):
        tracker = Tracker(loaded, pictures.__getitem__, video_hw=(side, side), frame_count=frames, config=config)
        tracker.prompt_all(given)
        if name == "economy":  # the masks of random weights fill the frame; windows are those of what was prompted
            cells = side // 16
            window = (cells * 3 // 8, cells * 3 // 8, cells * 6 // 8, cells * 6 // 8)  # a box and its margin twice
            tracker._window = lambda _, window=window: window  # type: ignore[method-assign, misc]
        runs[name] = tracker.propagate(0, frames)
    seconds: dict[str, list[float]] = defaultdict(list)
    spent: dict[str, dict[str, float]] = defaultdict(dict)
    largest = loudest = 0.0
    for frame_idx in range(frames):
        full = frame_idx >= min(loaded.model.num_maskmem, frames - 2)
        answers = {}
        for name in ("library", "exact", "economy"):
            _wait(loaded)
            begun = time.perf_counter()
            with timed_parts(loaded, spent[name] if full else {}):
                answers[name] = library(frame_idx) if name == "library" else next(runs[name]).logits.float()
            _wait(loaded)
            if full:
                seconds[name].append(time.perf_counter() - begun)
        largest = max(largest, float((answers["library"] - answers["exact"]).abs().max()))
        loudest = max(loudest, float(answers["library"].abs().max()))
        tell(f"frame {frame_idx + 1} of {frames}")
    counted = len(seconds["library"])
    ratios = {
        name: float(np.median(np.array(seconds["library"]) / np.array(seconds[name]))) for name in ("exact", "economy")
    }
    parts = {name: {part: round(s / counted, 4) for part, s in of.items()} for name, of in spent.items()}
    return {
        f"ratio_exact_{objects}": round(ratios["exact"], 3),
        f"ratio_economy_{objects}": round(ratios["economy"], 3),
        "max_abs_logit_diff": largest,
        "max_abs_logit": round(loudest, 3),
        "seconds_per_frame": {name: round(float(np.median(s)), 4) for name, s in seconds.items()},
        "module_seconds_per_frame": parts,
        "frames_timed": counted,
    }


def price(loaded: LoadedModel, clips: int) -> dict[str, float]:
    """What economy costs: mean IoU of its masks with the exact ones, and points of J&F against the truth."""
    overlaps: list[float] = []
    scores: dict[str, list[jf.Score | None]] = {"exact": [], "economy": []}
    for number in range(clips):
        clip = render(micro.HELD_OUT + number, micro.HELD_OUT_SCENE)
        t, hw = len(clip.frames), clip.frames.shape[1:3]
        shown = [n for n in range(clip.masks.shape[1]) if clip.masks[0, n].sum() >= micro.MIN_AREA_PX]
        if not shown:
            continue
        features = FeatureCache(loaded, clip.frames.__getitem__, size=t)
        made = {}
        for name, config in (("exact", TrackerConfig()), ("economy", TrackerConfig(economy=ECONOMY))):
            tracker = Tracker(loaded, features, video_hw=hw, frame_count=t, config=config)
            for n in shown:
                evaluate.prompt_object(tracker, str(n), 0, clip.masks[0, n], 0)
            made[name] = np.stack([answer.masks(hw) for answer in tracker.propagate(0, t)])  # (T, N, H, W)
            scores[name] += [jf.score_masklet(made[name][:, i], clip.masks[:, n]) for i, n in enumerate(shown)]
        both = (made["exact"] & made["economy"])[1:].sum((2, 3))
        either = (made["exact"] | made["economy"])[1:].sum((2, 3))
        overlaps += np.where(either > 0, both / np.maximum(either, 1), 1.0).ravel().tolist()
    points = {name: 50 * (mean.j + mean.f) for name, of in scores.items() if (mean := evaluate.pooled(of))}
    return {
        "economy_mean_iou": round(float(np.mean(overlaps)), 4),
        "economy_jf_drop": round(points["exact"] - points["economy"], 3),
        "jf_exact": round(points["exact"], 2),
        "price_clips": clips,
    }


def growth(loaded: LoadedModel, objects: int, frames: int) -> dict[str, float]:
    """By how many MB the process grows over the frames after the first hundred (a tenth, where there are fewer)."""
    side, most = loaded.image_size, 0.0
    pictures = noise(side, 16)
    for economy in (Economy(), ECONOMY):
        tracker = Tracker(
            loaded,
            lambda i: pictures[abs(i % 30 - 15)],
            video_hw=(side, side),
            frame_count=frames,
            config=TrackerConfig(economy=economy),
        )
        tracker.prompt_all(prompts(objects, side))
        settled = 0.0
        for answer in tracker.propagate(0, frames):
            if answer.frame_idx == min(100, frames // 5):
                settled = _resident_mb()
        most = max(most, _resident_mb() - settled)
    return {"rss_growth_mb": round(most, 1), "growth_frames": frames, "growth_objects": objects}


def click_latency(loaded: LoadedModel, count: int) -> dict[str, float]:
    """Milliseconds from a click to its mask on a frame that is encoded already: the 95th percentile."""
    side = 256
    picture = noise(side, 1)[0]
    features = FeatureCache(loaded, lambda _: picture)
    rng, taken = np.random.default_rng(2), []
    for n in range(count + 5):
        tracker = Tracker(loaded, features, video_hw=(side, side), frame_count=1)
        x, y = (float(z) for z in rng.uniform(0, side, 2))
        begun = time.perf_counter()
        tracker.prompt("it", Prompt(frame_idx=0, points_xy=((x, y),), labels=(1,))).masks((side, side))
        if n >= 5:
            taken.append(1e3 * (time.perf_counter() - begun))
    return {"click_p95_ms": round(float(np.percentile(taken, 95)), 1)}


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    about = {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    return about | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _wait(loaded: LoadedModel) -> None:
    if loaded.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="256 px, fewer frames and clips: within 45 seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON line, last")
    parser.add_argument("--model", choices=list(meta.SHAPES), default="tiny")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--objects", type=int, default=16)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    chosen = parser.parse_args()
    load.set_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or None)
    quick = chosen.quick
    side = min(256, chosen.image_size) if quick else chosen.image_size

    def tell(line: str) -> None:
        if sys.stderr.isatty():
            print(f"{line:40}", end="\r", file=sys.stderr, flush=True)

    large = published(chosen.model, side, chosen.device)
    figures: dict[str, Any] = speed(large, chosen.objects, 10 if quick else 12, tell)
    small = load.load("micro")
    tell("what economy costs")
    figures |= price(small, 4 if quick else 50)
    tell("memory")
    figures |= growth(small, chosen.objects, 60 if quick else 1000)
    tell("clicks and grids")
    figures |= click_latency(small, 40 if quick else 300)
    figures |= grids.measure(large, noise(side, 1)[0], quick=quick)
    figures |= {"model": chosen.model, "image_size": side, "objects": chosen.objects, "quick": quick}
    figures |= {"economy": asdict(ECONOMY), "machine": machine(chosen.device)}
    if chosen.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:26} {value}")


if __name__ == "__main__":
    main()
