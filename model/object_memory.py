"""What the tracker remembers of one object: which frames it keeps, and which of them an answer reads.

Knows nothing of the network, of pixels or of other objects; tensors are only stored and handed out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from model.frame_masks import FrameMasks
from storage.records import Prompt

Offsets = tuple[int, ...]  # frames back, one for each remembered frame; 0 for the map of a conditioning frame
_FORWARD, _BACKWARD = 1, 2


@dataclass
class RememberedFrame:
    """What one object remembers of one frame."""

    pointer: Tensor  # float (C,)
    features: Tensor | None  # bfloat16 (64, h, w), the memory map; None where only the pointer can still be read
    answer: FrameMasks | None  # of this object alone; None once no correction can ask for it
    prompt: Prompt | None = None  # the prompt of a conditioning frame, or the mask of a recalled one


@dataclass(frozen=True, kw_only=True)
class MemoryLimits:
    """How much of the past an object keeps and reads."""

    maps: int  # memory maps that a frame reads: one of a conditioning frame, the others of recent frames
    pointer_span: int  # frames from which object pointers are read
    max_conditioning: int | None  # conditioning frames that a frame reads; None: all
    history_frames: int | None  # tracked frames to keep on both sides of the last one, for corrections; None: all


@dataclass(frozen=True)
class Reading:
    """The remembered frames that an object reads for one answer. Objects with equal offsets can share a batch."""

    spatial_back: Offsets
    pointer_back: Offsets
    spatial: tuple[RememberedFrame, ...]  # their memory maps are read
    pointers: tuple[RememberedFrame, ...]  # their object pointers are read

    @property
    def offsets(self) -> tuple[Offsets, Offsets]:
        """What readings of one batch must have in common."""
        return self.spatial_back, self.pointer_back


@dataclass
class ObjectMemory:
    """One object's memory. A frame is in `conditioning` or in `tracked`, never in both.

    conditioning: the frames that a person prompted or corrected.  tracked: the recent frames that were only tracked.
    """

    direction: bytearray  # for each frame of the video: how it was last tracked; 0 if it was not
    conditioning: dict[int, RememberedFrame] = field(default_factory=dict)
    tracked: dict[int, RememberedFrame] = field(default_factory=dict)

    @classmethod
    def of_video(cls, frame_count: int) -> ObjectMemory:
        """An empty memory for a video of this many frames."""
        return cls(bytearray(frame_count))

    def copy(self) -> ObjectMemory:
        """A second memory with the same past. Changes of one do not reach the other; tensors are shared."""
        conditioning, tracked = ({i: replace(m) for i, m in of.items()} for of in (self.conditioning, self.tracked))
        return ObjectMemory(bytearray(self.direction), conditioning, tracked)

    # Read

    def reading(self, frame_idx: int, limits: MemoryLimits, *, reverse: bool) -> Reading:
        """What an answer on this frame reads when the video is tracked in this direction."""
        sign = -1 if reverse else 1
        conditioning = {i: frame for i, frame in self.conditioning.items() if i != frame_idx}
        chosen = _closest(sorted(conditioning), frame_idx, limits.max_conditioning)
        spatial = [(0, conditioning[i]) for i in chosen]
        for back in range(limits.maps - 1, 0, -1):
            other = frame_idx - sign * back
            frame = self.tracked.get(other)
            if frame is None and other not in chosen:
                frame = conditioning.get(other)
            if frame is not None and frame.features is not None:
                spatial.append((back, frame))
        pointers = [(sign * (frame_idx - i), frame) for i, frame in conditioning.items() if sign * (frame_idx - i) >= 0]
        for back in range(1, limits.pointer_span):
            frame = self.tracked.get(frame_idx - sign * back)
            if frame is not None:
                pointers.append((back, frame))
        return Reading(
            tuple(back for back, _ in spatial),
            tuple(back for back, _ in pointers),
            tuple(frame for _, frame in spatial),
            tuple(frame for _, frame in pointers),
        )

    def reading_of_correction(self, frame_idx: int, limits: MemoryLimits) -> Reading | None:
        """What a prompt on a tracked frame reads; None if the frame was not tracked: the prompt starts the object."""
        way = self.direction[frame_idx]
        return self.reading(frame_idx, limits, reverse=way == _BACKWARD) if way else None

    def refined_mask(self, prompt: Prompt) -> Tensor | None:
        """The mask that a prompt refines, as logits (1, h, w); None if it starts anew or the mask was forgotten."""
        frame = self.tracked.get(prompt.frame_idx)
        if frame is None:
            frame = self.conditioning.get(prompt.frame_idx)
            if frame is None or frame.prompt is None or not _extends(prompt, frame.prompt):
                return None
        return None if frame.answer is None else frame.answer.logits.clamp(-32.0, 32.0)

    # Write

    def add_conditioning(self, frame_idx: int, frame: RememberedFrame) -> None:
        """Remembers a prompted frame, in place of what was known of it."""
        self.tracked.pop(frame_idx, None)
        self.conditioning[frame_idx] = frame

    def add_tracked(self, frame_idx: int, frame: RememberedFrame, limits: MemoryLimits, *, reverse: bool) -> None:
        """Remembers a tracked frame and forgets what the frames around it can no longer read."""
        self.tracked[frame_idx] = frame
        self.direction[frame_idx] = _BACKWARD if reverse else _FORWARD
        if limits.history_frames is None:
            return
        maps = max(limits.maps - 1, limits.history_frames)
        pointers = max(limits.pointer_span - 1, maps)
        for other in list(self.tracked):
            distance = abs(other - frame_idx)
            if distance > pointers:
                del self.tracked[other]
            elif distance > maps:
                self.tracked[other].features = None
            if distance > limits.history_frames and other in self.tracked:
                self.tracked[other].answer = None

    def restart_from(self, known: Mapping[int, bytes], asked: Iterable[int], keep: Collection[int]) -> None:
        """Forgets the tracked frames, except those of `keep` and those recalled with the same mask as in `known`.

        known: COCO counts by frame.  asked: the frames that count as tracked forward from now on.
        """
        for frame_idx, frame in list(self.tracked.items()):
            recalled = None if frame.prompt is None or frame.features is None else frame.prompt.mask_rle
            if frame_idx not in keep and (recalled is None or recalled != known.get(frame_idx)):
                del self.tracked[frame_idx]
        self.direction[:] = bytes(len(self.direction))
        for frame_idx in asked:
            self.direction[frame_idx] = _FORWARD

    def holds(self, frame_idx: int) -> bool:
        """Whether anything of this frame is remembered."""
        return frame_idx in self.tracked or frame_idx in self.conditioning


def _closest(frames: Sequence[int], frame_idx: int, most: int | None) -> list[int]:
    """The conditioning frames to read: the nearest on each side first, then the nearest; all if `most` is None."""
    if most is None or len(frames) <= most:
        return list(frames)
    before, after = [i for i in frames if i < frame_idx], [i for i in frames if i >= frame_idx]
    chosen = [*before[-1:], *after[:1]]
    rest = sorted((i for i in frames if i not in chosen), key=lambda i: abs(i - frame_idx))
    return [*chosen, *rest[: max(0, most - len(chosen))]]


def _extends(new: Prompt, old: Prompt) -> bool:
    """Whether a prompt is an earlier one with further clicks."""
    return (
        old.mask_rle is None
        and new.box_xyxy == old.box_xyxy
        and len(new.points_xy) > len(old.points_xy)
        and new.points_xy[: len(old.points_xy)] == old.points_xy
        and new.labels[: len(old.labels)] == old.labels
    )
