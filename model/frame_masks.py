"""The tracker's answer on one frame: masks, estimated IoU and presence of N objects. Knows nothing of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import masks
from model.network import Decoded


class NotFinite(FloatingPointError):
    """The model's outputs are not finite."""


def check_finite(logits: Tensor, estimates: Sequence[Tensor], where: str = "") -> None:
    """Raises NotFinite if a number is NaN or infinite: a mask cut from NaN would only be empty. Reads once.

    logits: float (..., h, w).  estimates: float, of any shapes.  where: the end of the message.
    """
    flat = logits.flatten(-2)
    numbers = [flat.amax(-1), flat.amin(-1), *estimates]  # both keep NaN
    if not bool(torch.isfinite(torch.cat([each.flatten() for each in numbers])).all()):
        raise NotFinite(f"the model gave no numbers{where}")


@dataclass(frozen=True)
class Estimates:
    """The model's estimates of N masks, as numbers. For their meaning see `FrameMasks`."""

    iou: list[float]
    object_score: list[float]
    stability: list[float]


@dataclass(frozen=True)
class FrameMasks:
    """The masks of N objects on one frame. logits: float (N, h, w) at a quarter of the model's input size."""

    frame_idx: int
    object_ids: tuple[str, ...]
    logits: Tensor  # > 0 is object; all NO_OBJECT_LOGIT where the object is absent
    iou: Tensor  # float (N,), the model's own estimate in [0, 1]
    object_score: Tensor  # float (N,), > 0 is present

    def masks(self, hw: tuple[int, int]) -> NDArray[np.bool_]:
        """bool (N, H, W) at the video's size hw = (H, W): logits resized bilinearly, then cut at zero.

        Raises NotFinite if the model's numbers are NaN or infinite.
        """
        check_finite(self.logits, [self.iou, self.object_score], f" on frame {self.frame_idx}")
        return masks.enlarge(self.logits, hw)

    def estimates(self) -> Estimates:
        """All estimates as numbers; reads once."""
        return Estimates(*torch.stack([self.iou.float(), self.object_score.float(), self.stability()]).tolist())

    def stability(self, offset: float = 1.0) -> Tensor:
        """Stability score of each mask, float (N,) in [0, 1]; 1 where the object is absent."""
        return masks.stability_score(self.logits, offset)


def masks_of_one(frame_idx: int, object_id: str, decoded: Decoded, row: int) -> FrameMasks:
    """One object's masks: a row of what the decoder gave for several, copied so that the others can be freed."""
    one = slice(row, row + 1)
    return FrameMasks(
        frame_idx,
        (object_id,),
        decoded.logits[one].clone(),
        decoded.iou[one].clone(),
        decoded.object_score[one].clone(),
    )


def stack_masks(frame_idx: int, answers: Sequence[FrameMasks]) -> FrameMasks:
    """The masks of several answers on one frame as one answer, in their order."""
    return FrameMasks(
        frame_idx,
        tuple(object_id for answer in answers for object_id in answer.object_ids),
        torch.cat([answer.logits for answer in answers]),
        torch.cat([answer.iou for answer in answers]),
        torch.cat([answer.object_score for answer in answers]),
    )
