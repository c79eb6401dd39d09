"""Grids on one frame against the same points one prompt batch at a time, with the picture encoded for each batch.

The peer is transformers' way of asking a model for points on a picture without keeping its embedding: every batch of 64
points encodes its crop again. Same weights, crops, points and batches; the masks must be the same. Part of
`benchmarks.tracker`.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import feed, image
from model.image import GridConfig, ImagePredictor, Scale
from model.load import LoadedModel

POINTS = 64  # a batch
QUICK = (Scale(crops_per_side=1, points_per_side=16), Scale(crops_per_side=2, points_per_side=4))


def measure(loaded: LoadedModel, frame: NDArray[np.uint8], *, quick: bool = False) -> dict[str, float]:
    """`grid_ratio`: seconds of the peer over ours; how many points; the largest difference between the two's logits.

    frame: uint8 (H, W, 3).  quick: 320 points in 5 crops instead of 2,304 in 21.
    """
    config = GridConfig(scales=QUICK) if quick else GridConfig()
    hw = (frame.shape[0], frame.shape[1])
    ours = theirs = largest = 0.0
    points = 0
    for scale in config.scales:
        for crop in image.crop_boxes(hw, scale.crops_per_side, config.crop_overlap):
            part = np.ascontiguousarray(frame[crop[1] : crop[3], crop[0] : crop[2]])
            asked = image.grid_points(scale.points_per_side, (0, 0, crop[2] - crop[0], crop[3] - crop[1]))
            batches = [asked[i : i + POINTS] for i in range(0, len(asked), POINTS)]
            begun = time.perf_counter()
            predictor = ImagePredictor(loaded)
            predictor.set_image(part)
            mine = [predictor.predict_points(batch)[1].logits for batch in batches]
            between = time.perf_counter()
            other = [_library(loaded, part, batch) for batch in batches]
            ours, theirs = ours + between - begun, theirs + time.perf_counter() - between
            largest = max([largest, *(float((a - b).abs().max()) for a, b in zip(mine, other, strict=True))])
            points += len(asked)
    return {"grid_ratio": round(theirs / ours, 3), "grid_points": points, "grid_max_abs_diff": largest}


@torch.inference_mode()
def _library(loaded: LoadedModel, picture: NDArray[np.uint8], points_xy: NDArray[np.float64]) -> Tensor:
    """Three masks for each point by the library's own calls: float (N, 3, h, w)."""
    model, side = loaded.model, loaded.image_size
    embeddings = model.get_image_embeddings(feed.to_pixels(loaded, [picture]))
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
    return logits[0].float()
