"""The draft: the masks of a track ticket as they follow from its operations. Pure.

Masks are never edited. An operation that makes masks (a click, a propagation) has a version: the masks that it made. A
draft follows from the ticket's masklet, its operations and their versions alone. So undo, a reload and another server
process all give the same masks without asking the model. Knows nothing about the model or the database.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import isfinite
from typing import Any

from pydantic import TypeAdapter

from storage import rle
from storage.records import Masklet, Operation, Prompt


@dataclass(frozen=True, kw_only=True)
class FrameMask:
    """The object's mask on one annotated frame."""

    frame_idx: int
    rle: bytes  # COCO counts at the video's size; all zero where the object is absent
    area_px: int
    score: float  # predicted IoU, the model's own estimate; 1 for a mask that a person drew
    object_score: float  # presence logit, > 0 is present
    stability: float

    def __post_init__(self) -> None:
        if not all(map(isfinite, (self.score, self.object_score, self.stability))):  # JSON has no NaN
            raise ValueError(f"frame {self.frame_idx}: the model's scores are not finite")


@dataclass(frozen=True, kw_only=True)
class Version:
    """The masks that one operation made, and the checkpoint that computed them."""

    operation_id: str
    frames: tuple[FrameMask, ...]  # in the order in which they were made
    checkpoint: str  # of the last one
    round: int
    complete: bool = True  # False: of a propagation that is under way, or was cut off: more frames may follow


VERSION: TypeAdapter[Version] = TypeAdapter(Version)
PROMPT: TypeAdapter[Prompt] = TypeAdapter(Prompt)
BY_HAND = "by hand"  # in place of a checkpoint: no model made a mask of the masklet


@dataclass
class Draft:
    """A track ticket's masks after some of its operations."""

    height: int
    width: int
    frame_idx: tuple[int, ...]  # the annotated frames
    masks: dict[int, FrameMask] = field(default_factory=dict)  # by frame; a frame without a mask yet is missing
    prompts: dict[int, Prompt] = field(default_factory=dict)  # by frame: its current clicks and box
    edited: set[int] = field(default_factory=set)  # frames that a person edited
    before: dict[int, FrameMask | None] = field(default_factory=dict)  # by edited frame: its mask before the first edit
    locked: set[int] = field(default_factory=set)
    stale: set[int] = field(default_factory=set)  # frames that a propagation did not reach, because it was stopped
    anchor: int | None = None  # the frame on which the model was prompted for the candidate
    checkpoint: str = BY_HAND  # that made the last masks of a model
    round: int = 0  # of that checkpoint

    def known(self, source: int | None = None) -> dict[int, FrameMask]:
        """The masks, by frame, that the others are tracked from.

        These are the edited and locked frames, the anchor and, if given, the frame `source`.
        """
        frames = self.edited | self.locked | {i for i in (self.anchor, source) if i is not None}
        return {i: self.masks[i] for i in sorted(frames) if i in self.masks}

    def stretch(self, frame_idx: int, *, forward: bool) -> tuple[int, ...]:
        """The frames that a propagation from `frame_idx` tracks: up to the next edited or locked one, in order."""
        if forward:
            order = [i for i in self.frame_idx if i > frame_idx]
        else:
            order = [i for i in reversed(self.frame_idx) if i < frame_idx]
        wall = next((n for n, i in enumerate(order) if i in self.edited or i in self.locked), len(order))
        return tuple(order[:wall])

    def stretches(self, frame_idx: int, payload: Mapping[str, Any]) -> list[tuple[int, ...]]:
        """The frames that a propagation from `frame_idx` may change: one way or two, in the order of tracking.

        payload: of its operation, see `rules.OPERATION_KINDS`. ValueError if a bound is no number.
        """
        direction, first, last = payload.get("direction", "both"), payload.get("first"), payload.get("last")
        for bound in (first, last):
            if bound is not None and not isinstance(bound, int):
                raise ValueError(f"a propagation ends at a frame, not at {bound!r:.80}")
        found = []
        if direction in ("forward", "both"):
            found.append(tuple(i for i in self.stretch(frame_idx, forward=True) if last is None or i <= last))
        if direction in ("backward", "both"):
            bound = last if direction == "backward" else first
            found.append(tuple(i for i in self.stretch(frame_idx, forward=False) if bound is None or i >= bound))
        return found


def effective(operations: Sequence[Operation]) -> list[Operation]:
    """The operations that count, in order: without undone ones, and without undo and redo themselves."""
    undone: set[str] = set()
    for operation in operations:
        if operation.kind not in ("undo", "redo"):
            continue
        about = json.loads(operation.payload).get("operation_id")
        if isinstance(about, str):  # a malformed undo changes nothing
            (undone.add if operation.kind == "undo" else undone.discard)(about)
    return [o for o in operations if o.operation_id not in undone and o.kind not in ("undo", "redo")]


def draft_of(
    hw: tuple[int, int],
    frame_idx: Sequence[int],
    masklet: Masklet | None,
    operations: Sequence[Operation],
    versions: Mapping[str, Version],
) -> Draft:
    """The draft that follows from a ticket's masklet, operations (in order) and versions (by operation_id).

    hw: size of the video, px. frame_idx: the annotated frames. masklet: None if a person begins from nothing.
    A malformed operation changes nothing.
    """
    draft = Draft(hw[0], hw[1], tuple(frame_idx))
    if masklet is not None:
        draft.masks = {m.frame_idx: m for m in frame_masks(masklet)}
        draft.checkpoint, draft.round = masklet.checkpoint, masklet.round
        malformed = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
        with contextlib.suppress(*malformed):  # the prompt names no frame of the masklet
            begun = json.loads(masklet.prompt)["frame_idx"]
            draft.anchor = begun if draft.masks[begun].area_px else None
    done = effective(operations)
    spared: dict[object, set[object]] = {}  # by stopped propagation
    for operation in done:
        if operation.kind == "stop":
            payload = json.loads(operation.payload)
            with contextlib.suppress(TypeError):  # malformed
                spared.setdefault(payload.get("operation_id"), set()).add(payload.get("spare"))
    for operation in done:
        version = versions.get(operation.operation_id)
        if version is not None and (spare := spared.get(operation.operation_id)):
            frames = tuple(mask for mask in version.frames if mask.frame_idx not in spare)
            version = replace(version, frames=frames, complete=False)
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            _apply(draft, operation, version)
    return draft


def frame_masks(masklet: Masklet) -> list[FrameMask]:
    """The masks of a masklet, one a frame."""
    columns = zip(
        masklet.frame_idx,
        masklet.rle,
        masklet.area_px,
        masklet.score,
        masklet.object_score,
        masklet.stability,
        strict=True,
    )
    return [
        FrameMask(frame_idx=i, rle=counts, area_px=area, score=score, object_score=present, stability=stability)
        for i, counts, area, score, present, stability in columns
    ]


def drawn(frame_idx: int, counts: bytes, hw: tuple[int, int]) -> FrameMask:
    """A mask that a person drew. counts: COCO counts; an empty mask says that the object is absent."""
    area = rle.area(counts, *hw)
    return FrameMask(
        frame_idx=frame_idx,
        rle=counts,
        area_px=area,
        score=1.0,
        object_score=10.0 if area else -10.0,
        stability=1.0,
    )


def masklet_of(draft: Draft, *, video_id: str, batch_id: str, phase: str) -> Masklet:
    """The masklet that a draft is. A frame without a mask counts as empty.

    Its id and the fields that `with_origin` fills in are neutral.
    """
    nothing = drawn(0, rle.empty(draft.height, draft.width), (draft.height, draft.width))
    masks = [draft.masks.get(i, nothing) for i in draft.frame_idx]
    count = len(masks)
    return Masklet(
        masklet_id="",
        video_id=video_id,
        batch_id=batch_id,
        height=draft.height,
        width=draft.width,
        frame_idx=draft.frame_idx,
        rle=tuple(mask.rle for mask in masks),
        area_px=tuple(mask.area_px for mask in masks),
        score=(1.0,) * count,
        object_score=(0.0,) * count,
        stability=(1.0,) * count,
        kind="manual",
        phase=phase,
        round=0,
        checkpoint="",
        prompt="{}",
    )


def changed_masks(draft: Draft, made: Masklet) -> dict[int, bytes]:
    """The masks of a masklet that differ from the draft, by frame. A frame without a mask counts as empty."""
    nothing = rle.empty(draft.height, draft.width)
    masks = dict(zip(made.frame_idx, made.rle, strict=True))
    before = {i: mask.rle for i, mask in draft.masks.items()}
    frames = sorted(masks.keys() | before.keys())
    return {i: masks.get(i, nothing) for i in frames if masks.get(i, nothing) != before.get(i, nothing)}


def with_origin(draft: Draft, made: Masklet, base: Masklet | None) -> Masklet:
    """A submitted masklet with the fields that follow from the draft: scores, checkpoint, round, prompt and split.

    A mask that differs from the draft counts as drawn by a person. base: the ticket's own masklet.
    """
    hw, masks = (draft.height, draft.width), list[FrameMask]()
    for frame_idx, counts in zip(made.frame_idx, made.rle, strict=True):
        known = draft.masks.get(frame_idx)
        masks.append(known if known is not None and known.rle == counts else drawn(frame_idx, counts, hw))
    first = min(draft.prompts.values(), key=lambda prompt: prompt.frame_idx, default=None)
    begun = "{}" if first is None else PROMPT.dump_json(first, exclude_none=True).decode()
    return replace(
        made,
        score=tuple(min(1.0, max(0.0, mask.score)) for mask in masks),
        object_score=tuple(mask.object_score for mask in masks),
        stability=tuple(min(1.0, max(0.0, mask.stability)) for mask in masks),
        checkpoint=draft.checkpoint,
        round=draft.round,
        prompt=begun if base is None else base.prompt,
        split="train" if base is None else base.split,
    )


def _apply(draft: Draft, operation: Operation, version: Version | None) -> None:
    payload, frame = json.loads(operation.payload), operation.frame_idx
    hw = (draft.height, draft.width)
    if operation.kind == "lock" and frame is not None:
        (draft.locked.add if payload.get("on", True) else draft.locked.discard)(frame)
    elif operation.kind == "absent":
        nothing = rle.empty(*hw)
        for i in draft.frame_idx:
            if payload["first"] <= i <= payload["last"] and i not in draft.locked:
                _edit(draft, i)
                draft.masks[i] = drawn(i, nothing, hw)
                draft.prompts.pop(i, None)
    elif operation.kind == "stroke" and frame is not None:
        counts = payload["mask_rle"].encode()
        if problem := rle.problem(counts, *hw):
            raise ValueError(problem)
        _edit(draft, frame)
        draft.masks[frame] = drawn(frame, counts, hw)
        draft.prompts.pop(frame, None)
    elif operation.kind == "submit":
        for i, counts in payload.get("masks", {}).items():  # masks that did not follow from the operations before
            if not rle.problem(counts.encode(), *hw):
                draft.masks[int(i)] = drawn(int(i), counts.encode(), hw)
    elif operation.kind == "clear" and frame is not None:
        _forget(draft, frame)
    elif operation.kind == "prompt" and frame is not None and version is not None:
        draft.prompts[frame] = prompt_of(frame, payload)
        _edit(draft, frame)
    elif operation.kind == "propagate" and frame is not None and version is not None and not version.complete:
        draft.stale |= set(chain(*draft.stretches(frame, payload)))
    if version is not None:
        draft.masks |= {m.frame_idx: m for m in version.frames}
        draft.stale -= {m.frame_idx for m in version.frames}
        if version.frames:
            draft.checkpoint, draft.round = version.checkpoint, version.round


def _edit(draft: Draft, frame: int) -> None:
    """A person edits a frame. To be called before its mask changes."""
    if frame not in draft.edited:
        draft.before[frame] = draft.masks.get(frame)
    draft.edited.add(frame)
    draft.stale.discard(frame)


def _forget(draft: Draft, frame: int) -> None:
    """Takes all edits of a frame back: its mask is again the one from before the first of them, or none."""
    draft.prompts.pop(frame, None)
    if frame not in draft.edited:
        return
    draft.edited.discard(frame)
    mask = draft.before.pop(frame)
    if mask is None:
        draft.masks.pop(frame, None)
    else:
        draft.masks[frame] = mask


def prompt_of(frame_idx: int, payload: Mapping[str, Any]) -> Prompt:
    """The payload of a prompt operation as a Prompt. Raises ValueError if it is malformed."""
    try:
        points = tuple((float(x), float(y)) for x, y in payload.get("points_xy") or ())
        labels = tuple(int(label) for label in payload.get("labels") or ())
        box = payload.get("box_xyxy")
        corners = None if box is None else tuple(float(v) for v in box)
        mask = payload.get("mask_rle")
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"not a prompt: {json.dumps(payload)[:120]}") from None
    finite = all(map(isfinite, chain(*points, corners or ())))
    if not finite or len(points) != len(labels) or (corners is not None and len(corners) != 4):
        raise ValueError(f"not a prompt: {json.dumps(payload)[:120]}")
    return Prompt(
        frame_idx=frame_idx,
        points_xy=points,
        labels=labels,
        box_xyxy=corners,
        mask_rle=mask.encode() if isinstance(mask, str) else None,
    )
