"""What the tracker remembers of one object, and what an answer reads of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from model.frame_masks import FrameMasks
from storage.records import Prompt

FORTH, BACK = 1, 2


Offsets = tuple[int, ...]  # frames back, one an item of memory; 0 for a conditioning frame's map


@dataclass
class RememberedFrame:
    """What one object remembers of one frame."""

    pointer: Tensor  # float (C,)
    features: Tensor | None  # bfloat16 (64, h, w); None where only the pointer can still be read
    answer: FrameMasks | None  # N = 1; None where nobody can ask for it any more
    prompt: Prompt | None = None  # what the conditioning frame was given


@dataclass
class ObjectMemory:
    """One object's state. A frame is in `conditioning` or in `tracked`, never in both."""

    direction: bytearray  # of every frame of the video: 0 until it is tracked, then FORTH or BACK, as it last was
    conditioning: dict[int, RememberedFrame] = field(default_factory=dict)
    tracked: dict[int, RememberedFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """The memories that an object reads on a frame. Objects with equal offsets can share a batch."""

    spatial_back: Offsets
    pointer_back: Offsets
    spatial: tuple[RememberedFrame, ...]
    pointers: tuple[RememberedFrame, ...]


def closest_frames(frames: Sequence[int], frame_idx: int, most: int | None) -> list[int]:
    """Which conditioning frames to read: the nearest on each side first, then the nearest; all if `most` is None."""
    if most is None or len(frames) <= most:
        return list(frames)
    before, after = [i for i in frames if i < frame_idx], [i for i in frames if i >= frame_idx]
    chosen = [*before[-1:], *after[:1]]
    rest = sorted((i for i in frames if i not in chosen), key=lambda i: abs(i - frame_idx))
    return [*chosen, *rest[: max(0, most - len(chosen))]]


def extends(new: Prompt, old: Prompt) -> bool:
    """Whether a prompt is an earlier one with further clicks."""
    return (
        old.mask_rle is None
        and new.box_xyxy == old.box_xyxy
        and len(new.points_xy) > len(old.points_xy)
        and new.points_xy[: len(old.points_xy)] == old.points_xy
        and new.labels[: len(old.labels)] == old.labels
    )
