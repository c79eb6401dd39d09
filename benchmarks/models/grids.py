"""Compares our point grids on one frame with transformers' way, which encodes the crop again for each batch of points.

Both use the same weights, crops, points and batches of 64, so the masks must be the same. Part of
`benchmarks.tracker`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import inputs, proposals
from model.checkpoints import LoadedModel
from model.image import ImagePredictor
from model.proposals import GridConfig, Scale

POINTS = 64  # a batch
QUICK = (Scale(crops_per_side=1, points_per_side=16), Scale(crops_per_side=2, points_per_side=4))


def measure(loaded: LoadedModel, frame: NDArray[np.uint8], *, quick: bool = False) -> dict[str, float]:
    """Measures both ways on one frame.

    grid_ratio: seconds of transformers' way over ours.  grid_points: number of points.  grid_max_abs_diff: largest
    difference between the logits.  grid_peak_growth_mb: largest growth of memory (of the process, or on the GPU) while
    ours answers a batch.
    frame: uint8 (H, W, 3).  quick: 320 points in 5 crops instead of 2,304 in 21.
    """
    config = GridConfig(scales=QUICK) if quick else GridConfig()
    hw = (frame.shape[0], frame.shape[1])
    ours = theirs = largest = grown = 0.0
    points = 0
    for scale in config.scales:
        for crop in proposals.crop_boxes(hw, scale.crops_per_side, config.crop_overlap):
            part = np.ascontiguousarray(frame[crop[1] : crop[3], crop[0] : crop[2]])
            asked = proposals.grid_points(scale.points_per_side, (0, 0, crop[2] - crop[0], crop[3] - crop[1]))
            batches = [asked[i : i + POINTS] for i in range(0, len(asked), POINTS)]
            begun = _now(loaded)
            predictor = ImagePredictor(loaded)
            predictor.set_image(part)
            ours += _now(loaded) - begun
            for batch in batches:
                with peak_mb(loaded) as peaks:
                    begun = _now(loaded)
                    mine = predictor.predict_points(batch)[1].logits.float()
                    between = _now(loaded)
                grown = max(grown, *peaks)
                resumed = _now(loaded)
                other = _library(loaded, part, batch)
                ours, theirs = ours + between - begun, theirs + _now(loaded) - resumed
                largest = max(largest, float((mine - other).abs().max()))
            points += len(asked)
    return {
        "grid_ratio": round(theirs / ours, 3),
        "grid_points": points,
        "grid_max_abs_diff": largest,
        "grid_peak_growth_mb": round(grown, 1),
    }


@contextmanager
def peak_mb(loaded: LoadedModel) -> Iterator[list[float]]:
    """A list that gets the growth of memory in the block, after it: its peak minus its size before, MB."""
    peaks: list[float] = []
    if loaded.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield peaks
        peaks.append((torch.cuda.max_memory_allocated() - before) / 2**20)
        return
    with suppress(OSError):  # if the kernel forbids it, the peak of the process's whole life counts
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM
    before_kb = _status_kb("VmRSS")
    yield peaks
    peaks.append((_status_kb("VmHWM") - before_kb) / 2**10)


def _status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _now(loaded: LoadedModel) -> float:
    if loaded.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.inference_mode()
def _library(loaded: LoadedModel, picture: NDArray[np.uint8], points_xy: NDArray[np.float64]) -> Tensor:
    """The logits of three masks for each point, by the library's own calls: float (N, 3, h, w)."""
    model, side = loaded.model, loaded.image_size
    embeddings = model.get_image_embeddings(inputs.to_pixels(loaded, [picture]))
    scale = np.array([side / picture.shape[1], side / picture.shape[0]])
    xy = torch.from_numpy(points_xy * scale).float()[None, :, None].to(loaded.device)  # (1, N, 1, 2)
    labels = torch.ones(xy.shape[:3], dtype=torch.int32, device=loaded.device)
    sparse, dense = model.prompt_encoder(input_points=xy, input_labels=labels, input_boxes=None, input_masks=None)
    logits = model.mask_decoder(
        image_embeddings=embeddings[-1],
        image_positional_embeddings=model.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
        high_resolution_features=embeddings[:-1],
    )[0]
    found: Tensor = logits[0].float()
    return found
