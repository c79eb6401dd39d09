"""Compares the tracker with transformers' own loop: same weights, video and objects, frame by frame in one process.

    python -m benchmarks.tracker [--quick] [--json] [--model tiny] [--image-size 512] [--objects 16] [--device cpu]

Speed and equality of the logits are measured with random weights in the shapes of a published model, on moving noise:
they do not depend on training. The quality loss of economy is measured with `micro` on held-out clips. Ratios are
medians over the frames that are tracked with all seven memories. `--quick` measures less; the result says `"quick":
true`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from benchmarks.models import grids
from engine.protocols import annotator, first_frame
from engine.synthetic import labelled_clips, micro_clips
from engine.synthetic.rendering import render
from model import architecture, checkpoints, devices, inputs, memory_attention, meta_checkpoint, network
from model.checkpoints import LoadedModel
from model.fast.memory_reader import Economy, Window, can_read
from model.features import FeatureCache
from model.tracker import Tracker, TrackerConfig
from storage.iou import mask_iou
from storage.records import Prompt
from validation import jf

Way = tuple[LoadedModel, TrackerConfig]


def ways(loaded: LoadedModel, window: float | None = None) -> dict[str, Way]:
    """The ways of tracking to compare: exact, and economy if the model can use it (CPU, float32 weights).

    Economy computes in bfloat16. With `window` it also looks for an object only around its last mask.
    """
    found = {"exact": (loaded, TrackerConfig())}
    if can_read(loaded.model) and loaded.dtype == torch.float32:
        half = checkpoints.wrap(torch.nn.Module.to(copy.deepcopy(loaded.model), dtype=torch.bfloat16), name=loaded.name)
        found["economy"] = (half, TrackerConfig(economy=Economy(window_margin=window, window_least=2)))
    return found


def published(name: str, image_size: int, device: str) -> LoadedModel:
    """Random weights in the shape of a published model."""
    torch.manual_seed(0)
    model = Sam2VideoModel(architecture.resized_config(meta_checkpoint.config_of(name), image_size))
    architecture.init_weights(model, 0, embedding_std=1.0)
    with torch.no_grad():  # makes every object present: for an absent one we do less work than the library
        model.mask_decoder.pred_obj_score_head.proj_out.bias.add_(5.0)
    return checkpoints.wrap(torch.nn.Module.to(model, device=device, dtype=precision(device)), name=name)


def precision(device: str) -> torch.dtype:
    return torch.bfloat16 if device == "cuda" else torch.float32


def noise(side: int, frames: int) -> list[NDArray[np.uint8]]:
    """Coarse noise that moves by some pixels a frame: uint8 (side, side, 3) each."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (side // 8 + frames, side // 8 + frames, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return [np.ascontiguousarray(coarse[3 * i : 3 * i + side, 2 * i : 2 * i + side]) for i in range(frames)]


def prompts(objects: int, side: int) -> dict[str, Prompt]:
    """Box prompts at random places, an eighth of the side wide."""
    rng = np.random.default_rng(1)
    found = {}
    for n in range(objects):
        x, y = (float(z) for z in rng.uniform(0, side * 7 / 8, 2))
        found[str(n)] = Prompt(frame_idx=0, box_xyxy=(x, y, x + side / 8, y + side / 8))
    return found


def middle(reading: Any, economy: Economy, side: int) -> Window | None:
    """A fixed window of 0.4 of the side, if windows are used.

    Windows follow the masks, and the masks of random weights cover the whole frame.
    """
    begin, end = round(0.3 * side), round(0.7 * side)
    return None if economy.window_margin is None else (begin, begin, end, end)


class Library:
    """transformers' video session. It keeps everything, so its memory grows with the frames."""

    def __init__(self, loaded: LoadedModel, frames: list[NDArray[np.uint8]], given: dict[str, Prompt]) -> None:
        self._loaded = loaded
        hw = frames[0].shape[:2]
        self._session = Sam2VideoInferenceSession(
            video=inputs.to_pixels(loaded, frames),
            video_height=hw[0],
            video_width=hw[1],
            inference_device=loaded.device,
            inference_state_device=loaded.device,
            video_storage_device=loaded.device,
            dtype=loaded.dtype,
        )
        numbers = []
        for number, prompt in enumerate(given.values()):
            clicks = inputs.to_clicks(loaded, [prompt], hw)
            index = self._session.obj_id_to_idx(number)
            points = {"point_coords": clicks.xy[:, None].to(loaded.dtype), "point_labels": clicks.labels[:, None]}
            self._session.add_point_inputs(index, 0, points)
            numbers.append(number)
        self._session.obj_with_new_inputs = numbers

    def __call__(self, frame_idx: int) -> torch.Tensor:
        masks: torch.Tensor = self._loaded.model(self._session, frame_idx=frame_idx).pred_masks[:, 0]
        return masks.float()


@contextmanager
def timed_parts(loaded: LoadedModel, ours: bool, spent: dict[str, float]) -> Iterator[None]:
    """Adds the seconds of the model's four parts to `spent`. ours: time our functions instead of the modules.

    Measures nothing on a GPU: it is still computing when a part returns.
    """
    model = loaded.model
    parts: dict[str, tuple[Any, str]] = {
        "encoder": (network, "encode_images") if ours else (model.vision_encoder, "forward"),
        "memory attention": (memory_attention.MemoryAttention, "read") if ours else (model.memory_attention, "forward"),
        "decoder": (model.mask_decoder, "forward"),
        "memory encoder": (model.memory_encoder, "forward"),
    }

    def timed(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **words: Any) -> Any:
            begun = time.perf_counter()
            answer = work(*args, **words)
            spent[part] = spent.get(part, 0.0) + time.perf_counter() - begun
            return answer

        return run

    with ExitStack() as stack:
        for part, (owner, name) in parts.items() if loaded.device.type == "cpu" else ():
            stack.enter_context(mock.patch.object(owner, name, timed(part, getattr(owner, name))))
        yield


def speed(compared: dict[str, Way], objects: int, frames: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Seconds a frame of the library's loop and of each of our ways; ratios are medians over full frames."""
    loaded = compared["exact"][0]
    side = loaded.image_size
    pictures, given = noise(side, frames), prompts(objects, side)
    library = Library(loaded, pictures, given)
    runs: dict[str, Iterator[Any]] = {}
    for name, (model, config) in compared.items():
        tracker = Tracker(model, pictures.__getitem__, video_hw=(side, side), frame_count=frames, config=config)
        tracker.prompt_all(given)
        runs[name] = tracker.propagate(0, frames)
    seconds: dict[str, list[float]] = defaultdict(list)
    spent: dict[str, dict[str, float]] = defaultdict(dict)
    largest = loudest = 0.0
    for frame_idx in range(frames):
        full = frame_idx >= min(loaded.model.num_maskmem, frames - 2)
        answers = {}
        for name in ("library", *runs):
            _wait(loaded)
            begun = time.perf_counter()
            model = loaded if name == "library" else compared[name][0]
            timing = timed_parts(model, name != "library", spent[name] if full else {})
            with timing, mock.patch.object(memory_attention, "search_window", middle):
                answers[name] = library(frame_idx) if name == "library" else next(runs[name]).logits.float()
            _wait(loaded)
            if full:
                seconds[name].append(time.perf_counter() - begun)
        largest = max(largest, float((answers["library"] - answers["exact"]).abs().max()))
        loudest = max(loudest, float(answers["library"].abs().max()))
        tell(f"frame {frame_idx + 1} of {frames}")
    counted = len(seconds["library"])
    ratios = {name: float(np.median(np.array(seconds["library"]) / np.array(seconds[name]))) for name in runs}
    parts = {name: {part: round(s / counted, 4) for part, s in of.items()} for name, of in spent.items()}
    return {
        **{f"ratio_{name}_{objects}": round(ratio, 3) for name, ratio in ratios.items()},
        "max_abs_logit_diff": largest,
        "max_abs_logit": round(loudest, 3),
        "seconds_per_frame": {name: round(float(np.median(s)), 4) for name, s in seconds.items()},
        "module_seconds_per_frame": parts,
        "frames_timed": counted,
    }


def price(compared: dict[str, Way], clips: int) -> dict[str, float]:
    """The quality loss of economy: mean IoU of its masks with the exact ones, and J&F points against the truth.

    {} if the model cannot use economy.
    """
    if "economy" not in compared:
        return {}
    overlaps: list[float] = []
    metrics: dict[str, list[jf.JF | None]] = {"exact": [], "economy": []}
    for number in range(clips):
        clip = render(micro_clips.HELD_OUT_SEEDS + number, micro_clips.HELD_OUT_SCENE)
        t, hw = len(clip.frames), clip.frames.shape[1:3]
        shown = [n for n in range(clip.masks.shape[1]) if clip.masks[0, n].sum() >= labelled_clips.LEAST_PX]
        if not shown:
            continue
        made = {}
        for name, (loaded, config) in compared.items():
            tracker = Tracker(loaded, clip.frames.__getitem__, video_hw=hw, frame_count=t, config=config)
            for n in shown:
                annotator.prompt_object(tracker, str(n), 0, clip.masks[0, n], 0)
            made[name] = np.stack([answer.masks(hw) for answer in tracker.propagate(0, t)])  # (T, N, H, W)
            metrics[name] += [
                jf.of_masklet(list(made[name][:, i]), list(clip.masks[:, n])) for i, n in enumerate(shown)
            ]
        pairs = zip(*(of[1:].reshape(-1, *hw) for of in (made["exact"], made["economy"])), strict=True)
        overlaps += [mask_iou(a, b) for a, b in pairs]
    points = {name: 50 * (mean.j + mean.f) for name, of in metrics.items() if (mean := first_frame.pooled(of))}
    return {
        "economy_mean_iou": round(float(np.mean(overlaps)), 4),
        "economy_jf_drop": round(points["exact"] - points["economy"], 3),
        "jf_exact": round(points["exact"], 2),
        "price_clips": clips,
    }


def growth(compared: dict[str, Way], objects: int, frames: int) -> dict[str, float]:
    """Growth of memory (of the process, or on the GPU) after the first 100 frames, MB.

    Below 500 frames it counts after the first fifth.
    """
    side, most = compared["exact"][0].image_size, 0.0
    pictures = noise(side, 16)
    for loaded, config in compared.values():
        tracker = Tracker(
            loaded,
            lambda i: pictures[abs(i % 30 - 15)],
            video_hw=(side, side),
            frame_count=frames,
            config=config,
        )
        tracker.prompt_all(prompts(objects, side))
        settled = 0.0
        for answer in tracker.propagate(0, frames):
            if answer.frame_idx == min(100, frames // 5):
                settled = _held_mb(loaded)
        most = max(most, _held_mb(loaded) - settled)
    return {"rss_growth_mb": round(most, 1), "growth_frames": frames, "growth_objects": objects}


def click_latency(loaded: LoadedModel, count: int) -> dict[str, float]:
    """Time from a click to its mask on a frame that is already encoded: the 95th percentile, ms."""
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
    """The machine of the measurement."""
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    about = {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    return about | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _held_mb(loaded: LoadedModel) -> float:
    if loaded.device.type == "cuda":
        return torch.cuda.memory_allocated() / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _wait(loaded: LoadedModel) -> None:
    if loaded.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="128 px, fewer frames, clips and objects: ends within 45 seconds"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON line, last")
    parser.add_argument("--model", choices=list(meta_checkpoint.SHAPES), default="tiny")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--objects", type=int, default=16)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--window", type=float, help="economy looks only around the last mask, in its box enlarged by this share"
    )
    chosen = parser.parse_args()
    devices.set_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or None)
    quick = chosen.quick
    side = min(128, chosen.image_size) if quick else chosen.image_size

    def tell(line: str) -> None:
        if sys.stderr.isatty():
            print(f"{line:40}", end="\r", file=sys.stderr, flush=True)

    large = published(chosen.model, side, chosen.device)
    figures: dict[str, Any] = speed(ways(large, chosen.window), chosen.objects, 10 if quick else 12, tell)
    small = checkpoints.load("micro", device=chosen.device, dtype=precision(chosen.device))
    tell("quality of economy")
    compared = ways(small, chosen.window)
    figures |= price(compared, 2 if quick else 50)
    tell("memory")
    figures |= growth(compared, min(4, chosen.objects) if quick else chosen.objects, 40 if quick else 1000)
    tell("clicks and grids")
    figures |= click_latency(small, 40 if quick else 300)
    if quick:  # at 128 px encoding costs almost nothing, so the grids' ratio would say nothing
        large = published(chosen.model, min(256, chosen.image_size), chosen.device)
    figures |= grids.measure(large, noise(large.image_size, 1)[0], quick=quick)
    figures |= {"model": chosen.model, "image_size": side, "objects": chosen.objects, "quick": quick}
    figures |= {"ways": {name: {"dtype": str(of.dtype), **asdict(config)} for name, (of, config) in compared.items()}}
    figures |= {"machine": machine(chosen.device)}
    if chosen.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:26} {value}")


if __name__ == "__main__":
    main()
