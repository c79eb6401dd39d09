"""Clips through the whole model with gradients, and the simulated annotator that prompts and corrects it.

The protocol of Ravi et al. 2024, appendix C.2. Some frames are prompted first (mask, click or box); the others read the
memory. Some frames get corrective clicks, drawn from the error region. Prompted and corrected frames condition all
others. All objects of a batch get the same kind of prompt on the same frames. Knows nothing of losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import Sam2VideoModel

from model import network
from model.network import Clicks, Decoded, FrameMemory
from model.training.parallel import Team
from model.training.recipe import Interaction


@dataclass(frozen=True)
class ClipAnswer:
    """One answer of the model, with the truth. frame: index in the clip. prompted: whether it answers a prompt."""

    frame: int
    prompted: bool
    decoded: Decoded
    target: Tensor  # float (B * N, S, S)


def answer_clips(
    model: Sam2VideoModel,
    pixels: Tensor,
    masks: Tensor,
    how: Interaction,
    generator: torch.Generator,
    team: Team = Team(),  # noqa: B008  frozen
    is_object: Tensor | None = None,
) -> list[ClipAnswer]:
    """The model's answers on B clips of N objects each, in the order in which they were made.

    pixels: float (B, T, 3, S, S), normalised.  masks: bool (B, T, N, S, S).  generator: on the CPU; draws all random
    numbers, for all processes of the team.  is_object: bool (B, N); False: the mask is a place where people saw no
    object, so it is clicked, and the truth is that nothing is there. Only in single frames. None: all are objects.
    A mask prompt is taken as it is, so its frame has no answer.
    """
    b, t, n = masks.shape[:3]
    features = network.encode_images(model, pixels.flatten(0, 1))
    owner = torch.arange(b, device=pixels.device).repeat_interleave(n)
    places = masks.to(pixels.dtype).transpose(1, 2).flatten(0, 1)  # (B * N, T, S, S)
    real = torch.ones(b * n, dtype=torch.bool, device=pixels.device) if is_object is None else is_object.flatten()
    targets = places * real[:, None, None, None]

    drawn = _draw_prompts(t, how, generator)
    answers: list[ClipAnswer] = []
    bank: dict[int, FrameMemory] = {}
    for frame in drawn.prompted + [i for i in range(t) if i not in drawn.prompted]:
        here = features.select(owner * t + frame)
        target = targets[:, frame]
        clicks: Clicks | None = None
        is_prompted = frame in drawn.prompted
        if is_prompted and drawn.kind == "mask":
            decoded, full = network.take_mask(model, here, target)
        else:
            if is_prompted:
                top = network.without_memory(model, here)
                clicks = drawn.prompt(places[:, frame], real, how, generator, team)
            else:
                top = _read_memory(model, here, bank, drawn.conditioning, frame, t)
            decoded = network.decode(model, here, top, clicks, multimask=drawn.kind != "box" or not is_prompted)
            answers.append(ClipAnswer(frame, is_prompted, decoded, target))
            for _ in range(how.correction_clicks if frame in drawn.corrected else 0):
                clicks = _corrected(model, clicks, decoded, target, how, generator, team)
                logits = decoded.logits.detach().clamp(-32, 32)
                decoded = network.decode(model, here, top, clicks, logits, multimask=clicks.xy.shape[1] == 1)
                answers.append(ClipAnswer(frame, True, decoded, target))
            full = network.upsample(model, decoded.logits)
        if t > 1:
            bank[frame] = network.encode_memory(model, here.top, full, decoded, binarise=False)
    return answers


@dataclass(frozen=True)
class _Prompts:
    """What is drawn for a clip: the kind of prompt, and the frames that are prompted and corrected."""

    kind: Literal["mask", "click", "box"]
    prompted: list[int]
    corrected: list[int]

    @property
    def conditioning(self) -> set[int]:
        return set(self.prompted) | set(self.corrected)

    def prompt(
        self, places: Tensor, is_object: Tensor, how: Interaction, generator: torch.Generator, team: Team
    ) -> Clicks:
        """The first clicks, or the boxes, on a frame. places: float (B * N, S, S).  is_object: bool (B * N,)."""
        if self.kind == "box":
            return _boxes(places, is_object, how.box_jitter, generator, team)
        return _clicks_in(places > 0.5, places, generator, team)


def _draw_prompts(t: int, how: Interaction, generator: torch.Generator) -> _Prompts:
    """Draws the prompts of a clip of T frames. A single frame gets no mask: it would have no answer."""
    draw = float(torch.rand((), generator=generator))
    if t == 1:
        draw = how.mask + (1 - how.mask) * draw
    kind: Literal["mask", "click", "box"] = "box"
    if draw < how.mask:
        kind = "mask"
    elif draw < how.mask + how.click:
        kind = "click"
    prompted = _first_and_others(t, how.prompted_frames, generator)
    corrected = [] if kind == "mask" else _first_and_others(t, how.corrected_frames, generator)
    return _Prompts(kind, prompted, corrected)


def _first_and_others(t: int, most: int, generator: torch.Generator) -> list[int]:
    """Frame 0 and up to `most` - 1 others, sorted; never all frames of a clip of two or more."""
    count = 1 + int(torch.randint(0, max(1, min(most, t - 1)), (), generator=generator))
    return sorted([0, *(1 + torch.randperm(t - 1, generator=generator)[: count - 1]).tolist()])


def _read_memory(
    model: Sam2VideoModel,
    here: network.Features,
    bank: dict[int, FrameMemory],
    conditioning: set[int],
    frame: int,
    t: int,
) -> Tensor:
    """The top map of a frame that is not prompted: reads the conditioning frames and the recent ones."""
    span = min(t, model.config.max_object_pointers_in_encoder)
    spatial = [(0, bank[i]) for i in sorted(conditioning) if i in bank]
    pointers = [(frame - i, bank[i].pointer) for i in sorted(conditioning) if i in bank]
    for back in range(1, span):
        memory = bank.get(frame - back)
        if memory is None or frame - back in conditioning:
            continue
        if back < model.num_maskmem:
            spatial.append((back, memory))
        pointers.append((back, memory.pointer))
    return network.attend_to_memory(model, here, spatial, pointers, pointer_span=span)


def _clicks_in(region: Tensor, target: Tensor, generator: torch.Generator, team: Team) -> Clicks:
    """One click for each object, uniform in its region, or anywhere if the region is empty. The truth labels it.

    region: bool (B, S, S).  target: float (B, S, S).
    """
    side = region.shape[-1]
    mass = (region.flatten(1).float() + 1e-7).cumsum(1)
    drawn = team.rand(len(region), 1, generator=generator).to(mass.device) * mass[:, -1:]
    at = torch.searchsorted(mass, drawn)[:, 0].clamp(max=side * side - 1)
    label = (target.flatten(1)[torch.arange(len(at), device=target.device), at] > 0.5).int()
    xy = torch.stack([at % side, torch.div(at, side, rounding_mode="floor")], 1).to(target.dtype)
    return Clicks(xy[:, None], label[:, None])


def _corrected(
    model: Sam2VideoModel,
    clicks: Clicks | None,
    decoded: Decoded,
    target: Tensor,
    how: Interaction,
    generator: torch.Generator,
    team: Team,
) -> Clicks:
    """The earlier clicks and one more, where the answer is wrong."""
    truth = target > 0.5
    wrong = (network.upsample(model, decoded.logits.detach()) > 0) != truth
    if float(torch.rand((), generator=generator)) < how.click_anywhere:
        wrong = truth
    more = _clicks_in(wrong, target, generator, team)
    if clicks is None:
        return more
    return Clicks(torch.cat([clicks.xy, more.xy], 1), torch.cat([clicks.labels, more.labels], 1))


def _boxes(target: Tensor, is_object: Tensor, jitter: float, generator: torch.Generator, team: Team) -> Clicks:
    """The jittered box of each object as two corner points.

    An absent object gets a negative click instead, and a place without an object a positive one.
    """
    batch, side = target.shape[0], target.shape[-1]
    nowhere = _clicks_in((target > 0.5) & ~is_object[:, None, None], target, generator, team)
    noise = (team.rand(batch, 4, generator=generator) * 2 - 1).to(target.device)
    lines = [(target > 0.5).any(axis) for axis in (1, 2)]  # columns and rows: bool (B, S)
    begin = [line.int().argmax(1) for line in lines]
    end = [side - line.flip(1).int().argmax(1) for line in lines]
    box = torch.stack([*begin, *end], 1).to(target.dtype)
    size = (box[:, 2:] - box[:, :2]).repeat(1, 2)
    box = (box + noise * (jitter * size).clamp(max=20)).clamp(0, side).to(target.dtype)
    present = lines[0].any(1) & is_object
    xy = torch.where(present[:, None, None], box.view(batch, 2, 2), nowhere.xy)
    labels = torch.stack([torch.where(present, 2, nowhere.labels[:, 0]), torch.where(present, 3, -10)], 1)
    return Clicks(xy, labels.int())
