"""Image mode: masks from prompts on one picture. Knows nothing of time, and nothing of which prompts find objects."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import inputs, masks, network
from model.checkpoints import LoadedModel
from model.fast.point_decoder import PointDecoder
from model.frame_masks import check_finite
from model.network import Clicks, Features
from storage.pixels import Rgb
from storage.records import Prompt

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ImageMasks:
    """The model's answers to N prompts. K is 3 where a prompt may be ambiguous (one click) and 1 otherwise."""

    logits: Tensor  # float (N, K, h, w) at a quarter of the model's input size, > 0 is object
    iou: Tensor  # float (N, K), the model's own estimate in [0, 1]
    object_score: Tensor  # float (N,), > 0 is present

    def best(self) -> Tensor:
        """The mask of the best estimated IoU of each prompt: float (N, h, w)."""
        return self.logits[torch.arange(len(self.logits), device=self.logits.device), self.iou.argmax(1)]

    def masks(self, hw: tuple[int, int]) -> NDArray[np.bool_]:
        """The best masks at the picture's size hw = (H, W): bool (N, H, W)."""
        return masks.enlarge(self.best(), hw)


class ImagePredictor:
    """Answers prompts on one picture at a time. The picture is encoded once."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._features: Features | None = None
        self._decoder: PointDecoder | None = None  # for grids of points on this picture
        self._hw = (0, 0)

    def set_image(self, rgb: Rgb) -> None:
        """rgb: uint8 (H, W, 3)."""
        with torch.inference_mode():
            pixels = inputs.to_pixels(self._loaded, [rgb])
            self._decoder = None
            self._features, self._hw = network.encode_images(self._loaded.model, pixels), (rgb.shape[0], rgb.shape[1])

    @torch.inference_mode()
    def predict(self, prompts: Sequence[Prompt], previous: Tensor | None = None) -> ImageMasks:
        """Masks for N prompts, one object each. Their frame_idx is ignored.

        Prompts of one kind go through the decoder together. A mask prompt is a hint from which the model draws anew.
        previous: float (N, h, w), the logits that each prompt refines; not allowed with mask prompts.
        If some prompts have three answers and others one, the one is repeated.
        Raises ValueError for an invalid prompt, or if there is no picture yet; NotFinite.
        """
        hw = self._shape()
        for prompt in prompts:
            inputs.check_prompt(prompt, hw)
        if not prompts:
            raise ValueError("no prompts")
        groups: dict[tuple[bool, int], list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            groups[prompt.mask_rle is not None, inputs.click_count(prompt)].append(index)
        if previous is not None and any(is_mask for is_mask, _ in groups):
            raise ValueError("a mask prompt has no previous logits: the mask is the hint")
        found: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        for (is_mask, _), indices in groups.items():
            chosen = [prompts[i] for i in indices]
            clicks: Clicks | None = None
            hint: Tensor | None = None
            if is_mask:
                full = inputs.to_masks(self._loaded, chosen, hw) * 20.0 - 10.0
                hint = network.low_logits(self._loaded.model, full)
            else:
                clicks = inputs.to_clicks(self._loaded, chosen, hw)
                if previous is not None:
                    hint = previous[indices].to(self._loaded.device).clamp(-32.0, 32.0)
            answer = self._decode(clicks, hint, len(chosen))
            for row, index in enumerate(indices):
                found[index] = (answer.logits[row], answer.iou[row], answer.object_score[row])
        most = max(len(iou) for _, iou, _ in found.values())
        ordered = [found[i] for i in range(len(prompts))]
        made = ImageMasks(
            torch.stack([logits.expand(most, -1, -1) for logits, _, _ in ordered]),
            torch.stack([iou.expand(most) for _, iou, _ in ordered]),
            torch.stack([score for _, _, score in ordered]),
        )
        check_finite(made.logits, [made.iou, made.object_score])
        return made

    @torch.inference_mode()
    def predict_points(
        self, points_xy: Floats, *, min_iou: float = 0.0, min_object_score: float = -math.inf
    ) -> tuple[NDArray[np.int64], ImageMasks]:
        """The clicks that were answered, int64 (M,), ascending, and three masks for each of them.

        points_xy: float (N, 2) in px of the picture, positive clicks.  min_iou, min_object_score: a click is answered
        only if its best estimates reach these; no mask is drawn for the others.  Raises NotFinite.
        """
        height, width = self._shape()
        assert self._features is not None
        scale = torch.tensor([self._loaded.image_size / width, self._loaded.image_size / height])
        xy = (torch.from_numpy(points_xy).float() * scale).to(self._loaded.device)
        labels = torch.ones(len(xy), 1, dtype=torch.int32, device=self._loaded.device)
        if self._decoder is None:
            self._decoder = PointDecoder(self._loaded.model, self._features)
        found = self._decoder.answer(Clicks(xy[:, None], labels), min_iou=min_iou, min_object_score=min_object_score)
        return found.rows, ImageMasks(found.logits, found.iou, found.object_score)

    def _shape(self) -> tuple[int, int]:
        if self._features is None:
            raise ValueError("no picture: call set_image first")
        return self._hw

    def _decode(self, clicks: Clicks | None, hint: Tensor | None, count: int) -> ImageMasks:
        assert self._features is not None
        features = inputs.expand(self._features, count)
        decoded = network.decode(
            self._loaded.model,
            features,
            network.without_memory(self._loaded.model, features),
            clicks,
            hint,
            multimask=clicks is None or clicks.xy.shape[1] <= 1,
        )
        return ImageMasks(decoded.all_logits, decoded.all_iou, decoded.object_score)
