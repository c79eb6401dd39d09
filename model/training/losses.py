"""The losses of SAM 2: focal, dice, IoU and occlusion. Only the best of several masks gets gradients.

Pure functions of tensors. Source: Ravi et al. 2024, appendix C. Differs: masks are compared at twice the size of the
logits, since bilinear logits hold no more detail, and every term is a mean over the objects that it applies to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.training.parallel import Team
from model.training.recipe import LossWeights

_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss, as Lin et al. 2017 recommend


@dataclass(frozen=True)
class Losses:
    """One step's terms, unweighted, each a scalar tensor; `total` is weighted."""

    focal: Tensor
    dice: Tensor
    iou: Tensor
    occlusion: Tensor
    total: Tensor


def step_losses(
    logits: Tensor,
    iou: Tensor,
    object_score: Tensor,
    target: Tensor,
    weights: LossWeights,
    team: Team = Team(),  # noqa: B008  frozen
) -> Losses:
    """The losses of B objects on one frame.

    logits: float (B, K, h, w), K masks to choose from, before absence is applied.
    iou: float (B, K), the model's estimates.  object_score: float (B,) presence logit.
    target: float (B, S, S) in [0, 1].
    An absent object has no mask to learn: only its occlusion term counts.
    """
    target = target.to(logits.dtype)
    present = (target.flatten(1).amax(1) > 0.5).to(
        logits.dtype
    )  # at full size: halved below, a line of one pixel would be lost
    if target.shape[-1] > 2 * logits.shape[-1]:  # more detail than the logits have
        target = F.interpolate(target[:, None], scale_factor=0.5, mode="area")[:, 0]
    # Each present object has the same weight in every process: the mean over the team is the mean over all objects.
    share = present * team.size / team.total(present.sum()).clamp(min=1)
    size, rows = target.shape[-2:], torch.arange(logits.shape[0], device=logits.device)
    with torch.no_grad():  # the choice of the best mask needs no gradient
        full = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        true_iou = mask_iou((full > 0).to(target.dtype), target[:, None])
        if logits.shape[1] > 1:
            cost = weights.focal * focal_loss(full, target[:, None]) + weights.dice * dice_loss(full, target[:, None])
            best = cost.argmin(1)
        else:
            best = torch.zeros_like(rows)
    chosen = F.interpolate(logits[rows, best][:, None], size=size, mode="bilinear", align_corners=False)
    focal_term = (focal_loss(chosen, target[:, None])[:, 0] * share).sum()
    dice_term = (dice_loss(chosen, target[:, None])[:, 0] * share).sum()
    iou_term = ((iou - true_iou).abs().mean(1) * share).sum()
    occlusion_term = F.binary_cross_entropy_with_logits(object_score, present)
    total = (
        weights.focal * focal_term
        + weights.dice * dice_term
        + weights.iou * iou_term
        + weights.occlusion * occlusion_term
    )
    return Losses(focal_term, dice_term, iou_term, occlusion_term, total)


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Sigmoid focal loss (Lin et al. 2017), mean over the pixels: (B, K, H, W), (B, 1, H, W) -> (B, K)."""
    target = target.expand_as(logits)
    p = torch.sigmoid(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    miss = p + target - 2 * p * target
    weight = _ALPHA * target + (1 - _ALPHA) * (1 - target)
    return (weight * cross_entropy * miss**_GAMMA).flatten(2).mean(2)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice with one pixel of smoothing: (B, K, H, W), (B, 1, H, W) -> (B, K)."""
    p = torch.sigmoid(logits).flatten(2)
    target = target.expand_as(logits).flatten(2)
    return 1 - (2 * (p * target).sum(2) + 1) / (p.sum(2) + target.sum(2) + 1)


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of masks in {0, 1} with targets in [0, 1], the covered share of each cell; 1 where both are empty.

    a, b: float (..., H, W), broadcast. Returns float (...).
    """
    both = (a * b).flatten(-2).sum(-1)
    either = a.flatten(-2).sum(-1) + b.flatten(-2).sum(-1) - both
    return torch.where(either > 0, both / either.clamp(min=1e-6), torch.ones_like(both))
