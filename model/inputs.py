"""Turns frames, clicks and masks in video pixels into the model's square input.

The whole frame is stretched to the square, as in the released model. Knows nothing of what the network does with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.checkpoints import LoadedModel
from model.network import Clicks, Features
from storage import rle
from storage.pixels import Rgb
from storage.records import Prompt
from storage.wording import counted

BOX_LABELS = (2, 3)  # labels of the corners of a box in the prompt encoder


def to_pixels(loaded: LoadedModel, frames: Sequence[Rgb]) -> Tensor:
    """Frames as the image encoder takes them.

    frames: uint8 (H, W, 3) each, RGB, of any sizes.
    Returns float (B, 3, S, S), resized bilinearly with antialiasing and normalised.
    """
    mean, std = loaded.normalisation
    resized = []
    for frame in frames:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"a frame must be uint8 (H, W, 3), got {frame.dtype} {frame.shape}")
        tensor = torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None]  # a copy: frames may be read-only
        if tensor.shape[-2:] != (loaded.image_size, loaded.image_size):
            tensor = F.interpolate(
                tensor, size=(loaded.image_size,) * 2, mode="bilinear", align_corners=False, antialias=True
            )
        resized.append(tensor)
    pixels = torch.cat(resized).to(loaded.device).to(torch.float32) / 255
    return ((pixels - mean) / std).to(loaded.dtype)


def check_prompt(prompt: Prompt, hw: tuple[int, int]) -> None:
    """Raises ValueError, showing the value, if a prompt is empty, contradicts itself or is outside the frame."""
    height, width = hw
    if len(prompt.points_xy) != len(prompt.labels):
        raise ValueError(f"{counted(len(prompt.points_xy), 'point')} but {counted(len(prompt.labels), 'label')}")
    if any(label not in (0, 1) for label in prompt.labels):
        raise ValueError(f"labels must be 0 or 1, got {prompt.labels}")
    if prompt.mask_rle is not None and (prompt.points_xy or prompt.box_xyxy is not None):
        raise ValueError("a prompt is a mask, or points and a box, not both")
    if prompt.mask_rle is None and not prompt.points_xy and prompt.box_xyxy is None:
        raise ValueError("a prompt needs points, a box or a mask")
    for x, y in prompt.points_xy:
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f"point ({x}, {y}) is outside the {width}x{height} frame")
    if prompt.box_xyxy is not None:
        x0, y0, x1, y1 = prompt.box_xyxy
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ValueError(f"box {prompt.box_xyxy} is empty or outside the {width}x{height} frame")


def click_count(prompt: Prompt) -> int:
    """How many points the prompt encoder sees: a box counts as two."""
    return len(prompt.points_xy) + (0 if prompt.box_xyxy is None else 2)


def to_clicks(loaded: LoadedModel, prompts: Sequence[Prompt], hw: tuple[int, int]) -> Clicks:
    """Points and boxes of B prompts, all with the same `click_count`, box corners first.

    The points are float32 for every dtype of the model: half precision is coarser than a pixel.
    hw: height and width of the prompts' frame in px.
    """
    height, width = hw
    points, labels = [], []
    for prompt in prompts:
        corners = [] if prompt.box_xyxy is None else [prompt.box_xyxy[:2], prompt.box_xyxy[2:]]
        points.append([*corners, *prompt.points_xy])
        labels.append([*(BOX_LABELS if corners else ()), *prompt.labels])
    scale = torch.tensor([loaded.image_size / width, loaded.image_size / height])
    xy = torch.tensor(points, dtype=torch.float32) * scale
    return Clicks(xy.to(loaded.device), torch.tensor(labels, dtype=torch.int32, device=loaded.device))


def to_masks(loaded: LoadedModel, prompts: Sequence[Prompt], hw: tuple[int, int]) -> Tensor:
    """The masks of B mask prompts: float (B, S, S) in {0, 1}, resized with antialiasing and cut at one half."""
    height, width = hw
    side = loaded.image_size
    masks = []
    for prompt in prompts:
        if prompt.mask_rle is None:
            raise ValueError("the prompt has no mask")
        mask = torch.from_numpy(np.ascontiguousarray(rle.decode(prompt.mask_rle, height, width)))[None, None].float()
        if (height, width) != (side, side):
            small = F.interpolate(mask, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
            mask = (small >= 0.5).float()
        masks.append(mask[0])
    return torch.cat(masks).to(device=loaded.device, dtype=loaded.dtype)


def together(features: Sequence[Features]) -> Features:
    """The features of several images, each of batch 1, as one batch."""
    return Features(
        (torch.cat([f.high_res[0] for f in features]), torch.cat([f.high_res[1] for f in features])),
        torch.cat([f.top for f in features]),
        torch.cat([f.top_position for f in features]),
    )


def expand(features: Features, count: int) -> Features:
    """One image's features for `count` objects or prompts, without a copy."""
    fine, mid = features.high_res
    return Features(
        (fine.expand(count, -1, -1, -1), mid.expand(count, -1, -1, -1)),
        features.top.expand(count, -1, -1, -1),
        features.top_position.expand(count, -1, -1, -1),
    )
