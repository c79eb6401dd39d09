"""Corrects a mask with clicks: changes it only where the newest click asks for it, and as little as possible.

A model that is asked to refine a mask may ignore the click, or change the mask everywhere. So it is asked three ways
(with the memory and the mask, with the memory, with the clicks alone), which gives up to seven masks. Each is reduced
to its change at the clicks: the connected part that a positive click adds, or that a negative click removes. Of those
that obey the newest click, the smallest change is the answer. Source of the reduction: FocalClick's progressive merge
(Chen et al. 2022). Knows nothing of videos or of what an object remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Sam2VideoModel

from model import network
from model.network import Clicks, Decoded, Features

_NEAR = 1  # cells between a click and a change that it still asks for: the cells are coarser than a person's clicks
_PRESENT = 1e-3  # the least presence of an object that a person clicked on


@dataclass(frozen=True)
class Clicked:
    """Clicks on the grid of the mask logits. The last one is the newest."""

    cells: tuple[tuple[int, int], ...]  # row and column
    labels: tuple[int, ...]  # 1 adds to the mask, 0 removes from it


def on_grid(clicks: Clicks, image_size: int, grid: tuple[int, int]) -> list[Clicked]:
    """The clicks of each object as cells. image_size: of the model, px.  grid: height and width of the logits."""
    height, width = grid
    found = []
    rows = torch.cat([clicks.xy, clicks.labels[..., None].to(clicks.xy.dtype)], -1).tolist()  # one transfer
    for row in rows:
        cells = tuple(
            (
                min(max(int(y * height / image_size), 0), height - 1),
                min(max(int(x * width / image_size), 0), width - 1),
            )
            for x, y, _ in row
        )
        found.append(Clicked(cells, tuple(int(label) for _, _, label in row)))
    return found


def asked_change(old: NDArray[np.bool_], new: NDArray[np.bool_], clicked: Clicked) -> NDArray[np.bool_]:
    """Where the new mask differs from the old one in a way that a click asks for: bool (h, w).

    The 8-connected parts that are added at a positive click, and those that are removed at a negative click.
    """
    taken = np.zeros_like(old)
    for label, change in ((1, new & ~old), (0, old & ~new)):
        wanted = [cell for cell, of in zip(clicked.cells, clicked.labels, strict=True) if of == label]
        if not wanted or not change.any():
            continue
        _, parts = cv2.connectedComponents(change.astype(np.uint8), connectivity=8)
        for y, x in wanted:
            near = parts[max(0, y - _NEAR) : y + _NEAR + 1, max(0, x - _NEAR) : x + _NEAR + 1]
            taken |= np.isin(parts, near[near > 0])
    return taken


def smallest_change(
    old: NDArray[np.bool_], offered: Sequence[NDArray[np.bool_]], clicked: Clicked
) -> tuple[int, NDArray[np.bool_]]:
    """Which of the offered masks corrects the old one with the smallest change, and the cells that it changes.

    Only masks that obey the newest click count; if none does, the first one is taken.
    """
    at, label = clicked.cells[-1], clicked.labels[-1]
    changes = [asked_change(old, new, clicked) for new in offered]
    obeying = [n for n, change in enumerate(changes) if (old[at] != change[at]) == bool(label)]
    best = min(obeying, key=lambda n: int(np.count_nonzero(changes[n])), default=0)
    return best, changes[best]


def correct(
    model: Sam2VideoModel, features: Features, top: Tensor, clicks: Clicks, previous: Tensor, image_size: int
) -> Decoded:
    """The masks of B objects, corrected by their clicks. An object with a positive click is present.

    features, top: the frame without and with what is remembered of each object.  clicks: no boxes.
    previous: float (B, h, w), logits of the masks to correct.  image_size: of the model, px.
    """
    plain = network.without_memory(model, features)
    asked = [
        network.decode(model, features, top, clicks, previous, multimask=False),
        network.decode(model, features, top, clicks, multimask=True),
        network.decode(model, features, plain, clicks, multimask=True),
    ]
    logits = torch.cat([a.all_logits for a in asked], 1)  # (B, 7, h, w)
    old, *shown = (torch.cat([previous[:, None], logits], 1) > 0).transpose(0, 1).cpu().numpy()  # one transfer
    size = (int(logits.shape[-2]), int(logits.shape[-1]))
    chosen, changed = [], []
    for row, clicked in enumerate(on_grid(clicks, image_size, size)):
        best, change = smallest_change(old[row], [of[row] for of in shown], clicked)
        chosen.append(best)
        changed.append(change)
    rows, best_of = torch.arange(len(logits), device=logits.device), torch.tensor(chosen, device=logits.device)
    corrected = torch.where(torch.from_numpy(np.stack(changed)).to(logits.device), logits[rows, best_of], previous)
    score = torch.cat([a.object_score[:, None].expand_as(a.all_iou) for a in asked], 1)[rows, best_of]
    iou, pointers = torch.cat([a.all_iou for a in asked], 1), torch.cat([a.all_pointers for a in asked], 1)
    present = (corrected > 0).flatten(1).any(1)
    return Decoded(
        all_logits=corrected[:, None],
        all_iou=iou[rows, best_of][:, None],
        all_pointers=pointers[rows, best_of][:, None],
        logits=corrected,
        iou=iou[rows, best_of],
        object_score=torch.where(present, score.clamp(min=_PRESENT), score),
        pointer=torch.where(present[:, None], pointers[rows, best_of], model.no_object_pointer),
    )
