"""The streaming tracker: many objects through one video in one batch, with bounded memory.

A frame is encoded once for all objects. An object remembers its conditioning frames (those that a person prompted or
corrected, at any time) and the few tracked frames that the next one reads. It forgets all others. With the same weights
the masks equal those of transformers' own session, with these intended differences:

- A frame that is corrected after it was tracked becomes a conditioning frame, as in training. The library lets the next
  propagation overwrite it. The correction reads the memory and, with `TrackerConfig.feed_back`, changes the mask only
  where the clicks ask for it (`model.corrections`). It does not read the frame's own earlier memory.
- Objects do not influence each other. In the library, a prompt for one object changes how the other objects' masks of
  that frame are remembered.
- The library remembers every frame. After a change of direction it therefore also reads frames that were tracked in the
  other direction. `TrackerConfig.history_frames = None` does the same.

Knows nothing of files, tickets or training. The steps of the network are in `network`, what an object remembers in
`object_memory`, how memories are read in `memory_attention`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from model import corrections, devices, inputs, network
from model.checkpoints import LoadedModel
from model.fast.memory_reader import Economy
from model.features import FeatureCache, FrameSource
from model.frame_masks import FrameMasks, masks_of_one, stack_masks
from model.memory_attention import MemoryAttention
from model.network import Decoded, Features, FrameMemory
from model.object_memory import MemoryLimits, ObjectMemory, Offsets, Reading, RememberedFrame
from storage.records import Prompt
from storage.wording import counted

_Item = TypeVar("_Item")


class NoPrompt(Exception):
    """Nothing to track: no object has been prompted."""


@dataclass(frozen=True, kw_only=True)
class TrackerConfig:
    """What the tracker keeps and how it answers."""

    history_frames: int | None = 0  # tracked frames to keep on both sides of the last one, for corrections; None: all
    feed_back: bool = True  # refining clicks correct the mask that they refine; see `corrections` for tracked frames
    max_conditioning: int | None = None  # conditioning frames that a frame reads, the closest ones; None: as trained
    # Objects that pass the network at once, which bounds scratch memory. None: the fastest number, 4 on a CPU (their
    # activations fit into its cache) and 64 on a GPU.
    object_batch: int | None = None
    lookahead: int = 1  # frames that the image encoder takes at once, at least 1
    economy: Economy = Economy()  # work to leave out, on a CPU only; nothing by default


@dataclass(frozen=True)
class _Asked:
    """A prompt for one object, and what its answer reads."""

    object_id: str
    prompt: Prompt
    reading: Reading | None  # None: the prompt starts the object
    previous: Tensor | None  # logits (1, h, w) of the mask that the prompt refines

    @property
    def kind(self) -> tuple[object, ...]:
        """What prompts of one batch must have in common."""
        return (
            self.prompt.mask_rle is not None,
            inputs.click_count(self.prompt),
            self.reading and self.reading.offsets,
            self.previous is None,
            self.prompt.box_xyxy is None,
        )


class Tracker:
    """Tracks any number of objects through one video.

        tracker = Tracker(loaded, reader.read, video_hw=(720, 1280), frame_count=300)
        tracker.prompt("cat", Prompt(frame_idx=0, points_xy=((640, 360),), labels=(1,)))
        for frame in tracker.propagate(0, 300):
            frame.masks((720, 1280))

    frames: a callable that gives the RGB frame of an index, or a FeatureCache shared with other trackers.
    video_hw: height and width of the frames in px. frame_count: frames of the whole video, however few are tracked.
    Not safe for use by two threads at once.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        frames: FrameSource | FeatureCache,
        *,
        video_hw: tuple[int, int],
        frame_count: int,
        config: TrackerConfig | None = None,
    ) -> None:
        config = config or TrackerConfig()
        if frame_count < 1 or min(video_hw) < 1:
            raise ValueError(
                f"a video has at least one frame and one pixel, got {counted(frame_count, 'frame')} of {video_hw}"
            )
        if config.lookahead < 1 or (config.object_batch is not None and config.object_batch < 1):
            raise ValueError(f"object_batch and lookahead must be at least 1, got {config}")
        self._batch = config.object_batch or (4 if loaded.device.type == "cpu" else 64)
        self._loaded, self._model = loaded, loaded.model
        self._features = (
            frames if isinstance(frames, FeatureCache) else FeatureCache(loaded, frames, size=config.lookahead + 2)
        )
        self._hw, self._frame_count, self._config = video_hw, frame_count, config
        self._objects: dict[str, ObjectMemory] = {}
        trained = self._model.config
        most = config.max_conditioning
        if most is None and trained.max_cond_frame_num > 0:
            most = trained.max_cond_frame_num
        self._limits = MemoryLimits(
            maps=self._model.num_maskmem,
            pointer_span=min(frame_count, trained.max_object_pointers_in_encoder),  # a short video scales the offsets
            max_conditioning=most,
            history_frames=config.history_frames,
        )
        self._memory = MemoryAttention(loaded, config.economy, self._limits.pointer_span)

    @property
    def object_ids(self) -> tuple[str, ...]:
        """The objects in the order of their first prompts."""
        return tuple(self._objects)

    @property
    def reach(self) -> int:
        """How many tracked frames before it a frame reads, at most."""
        return self._limits.maps - 1

    def prompt(self, object_id: str, prompt: Prompt, *, remember: bool = True) -> FrameMasks:
        """Prompts one object, new or known, on one frame; see `prompt_all`."""
        return self.prompt_all({object_id: prompt}, remember=remember)

    def prompt_all(self, prompts: Mapping[str, Prompt], *, remember: bool = True) -> FrameMasks:
        """Prompts objects on one frame, in one batch, and gives their masks there.

        The frame becomes a conditioning frame of each object; without `remember` nothing is kept. A prompt holds all
        the clicks of the frame: it replaces an earlier one of the same object and frame. Clicks that extend the earlier
        ones, or that correct a tracked frame, refine the existing mask; other ones start anew.
        Raises ValueError, showing the value, for an invalid prompt or a frame outside the video.
        """
        frames = {prompt.frame_idx for prompt in prompts.values()}
        if len(frames) != 1:
            raise ValueError(f"prompts of one call must be on one frame, got frames {sorted(frames)}")
        (frame_idx,) = frames
        self._check_frame(frame_idx)
        for prompt in prompts.values():
            inputs.check_prompt(prompt, self._hw)
        groups: dict[tuple[object, ...], list[_Asked]] = defaultdict(list)
        for object_id, prompt in prompts.items():
            asked = self._asked(object_id, prompt)
            groups[asked.kind].append(asked)
        answers: dict[str, FrameMasks] = {}
        for group in groups.values():
            for part in _parts(group, self._batch):
                answers |= self._answer(frame_idx, part, remember)
        return stack_masks(frame_idx, [answers[object_id] for object_id in prompts])

    def propagate(
        self, start: int, stop: int, *, reverse: bool = False, objects: Sequence[str] | None = None
    ) -> Iterator[FrameMasks]:
        """Tracks through `range(start, stop)`, or `range(start, stop, -1)` in reverse, one frame at a time.

        Gives the masks of all objects (or of `objects`) on each frame, conditioning frames included. A frame before an
        object's first prompt is tracked too: the prompt is known. The caller may stop and go on at any frame.
        Raises NoPrompt if there is no object, ValueError for an unknown object or a frame outside the video.
        """
        ids = self.object_ids if objects is None else tuple(objects)
        if not ids:
            raise NoPrompt("nothing to track: no object has been prompted")
        for object_id in ids:
            if not self._object(object_id).conditioning:
                raise NoPrompt(f"nothing to track: object {object_id!r} has no prompt left")
        order = range(start, stop, -1 if reverse else 1)
        for end in (order[0], order[-1]) if order else ():
            self._check_frame(end)
        return self._propagate(order, ids, reverse)

    @torch.inference_mode()
    def recalling(
        self, object_id: str, known: Mapping[int, bytes], *, about: int | None = None, keep: Collection[int] = ()
    ) -> Generator[None]:
        """Puts known masks in the place of tracked frames. The memory is then nearly the one that a propagation leaves.

        Works in steps; between them this thread may do something more urgent, but not with this tracker.
        known: COCO counts by frame; conditioning frames among them stay unchanged. All other tracked frames are
        forgotten, except those that were recalled with the same mask, and those of `keep`.
        about: the frame that is prompted next. The prompt reads the other memories, and corrects the frame's mask in
        `known`, if there is one.
        """
        memory = self._objects.setdefault(object_id, ObjectMemory.of_video(self._frame_count))
        asked = [*known, *([] if about is None else [about])]
        for frame_idx in asked:
            self._check_frame(frame_idx)
        memory.restart_from(known, asked, keep)
        missing = [i for i in known if not memory.holds(i) and i != about]
        for part in _parts(missing, self._batch):
            for frame_idx in part:
                yield from self._features.encoding(frame_idx)
            given = [Prompt(frame_idx=i, mask_rle=known[i]) for i in part]
            features = inputs.together([self._features.get(i) for i in part])
            decoded, full = network.take_mask(self._model, features, inputs.to_masks(self._loaded, given, self._hw))
            made = network.encode_memory(self._model, features.top, full, decoded, binarise=False)
            for row, prompt in enumerate(given):
                memory.tracked[prompt.frame_idx] = RememberedFrame(
                    pointer=made.pointer[row].clone(),
                    features=self._memory.stored_map(made, row),
                    answer=masks_of_one(prompt.frame_idx, object_id, decoded, row),
                    prompt=prompt,
                )
            yield
        if about is not None and about in known and not memory.holds(about):
            prompt = Prompt(frame_idx=about, mask_rle=known[about])
            memory.tracked[about] = self._without_memory(object_id, prompt)

    def copy(self, object_id: str, new_id: str) -> None:
        """Adds an object with the same past. From here on each is prompted and tracked by itself."""
        if new_id in self._objects:
            raise ValueError(f"object {new_id!r} already exists")
        self._objects[new_id] = self._object(object_id).copy()

    def remove(self, object_id: str, frame_idx: int | None = None) -> None:
        """Forgets an object, or only its prompt on one frame (an undo)."""
        memory = self._object(object_id)
        if frame_idx is None:
            del self._objects[object_id]
        elif memory.conditioning.pop(frame_idx, None) is None:
            raise ValueError(f"object {object_id!r} has no prompt on frame {frame_idx}")

    # Prompted frames

    def _asked(self, object_id: str, prompt: Prompt) -> _Asked:
        memory = self._objects.get(object_id)
        if memory is None or prompt.mask_rle is not None:
            return _Asked(object_id, prompt, None, None)
        reading = memory.reading_of_correction(prompt.frame_idx, self._limits)
        previous = memory.refined_mask(prompt) if self._config.feed_back else None
        return _Asked(object_id, prompt, reading, previous)

    @torch.inference_mode()
    def _answer(self, frame_idx: int, asked: Sequence[_Asked], remember: bool) -> dict[str, FrameMasks]:
        """Answers prompts of one kind and gives the answers by object."""
        prompts = [a.prompt for a in asked]
        features = inputs.expand(self._features.get(frame_idx), len(asked))
        if prompts[0].mask_rle is not None:
            decoded, full = network.take_mask(self._model, features, inputs.to_masks(self._loaded, prompts, self._hw))
        else:
            decoded = self._answer_clicks(features, asked)
            full = network.upsample(self._model, decoded.logits)
        answers = {a.object_id: masks_of_one(frame_idx, a.object_id, decoded, row) for row, a in enumerate(asked)}
        if not remember:
            return answers
        made = network.encode_memory(self._model, features.top, full, decoded, binarise=True)
        for row, a in enumerate(asked):
            memory = self._objects.setdefault(a.object_id, ObjectMemory.of_video(self._frame_count))
            frame = RememberedFrame(
                pointer=made.pointer[row].clone(),
                features=self._memory.stored_map(made, row),
                answer=answers[a.object_id],
                prompt=a.prompt,
            )
            memory.add_conditioning(frame_idx, frame)
        return answers

    def _answer_clicks(self, features: Features, asked: Sequence[_Asked]) -> Decoded:
        """Answers clicks and boxes of one kind."""
        readings = [a.reading for a in asked if a.reading is not None]
        previous = [a.previous for a in asked if a.previous is not None]
        prompts = [a.prompt for a in asked]
        top = self._memory.read(features, readings) if readings else network.without_memory(self._model, features)
        clicks = inputs.to_clicks(self._loaded, prompts, self._hw)
        if readings and previous and prompts[0].box_xyxy is None:
            return corrections.correct(self._model, features, top, clicks, torch.cat(previous), self._loaded.image_size)
        return network.decode(
            self._model,
            features,
            top,
            clicks,
            torch.cat(previous) if previous else None,
            multimask=self._multimask(inputs.click_count(prompts[0]), initial=not readings),
        )

    def _without_memory(self, object_id: str, prompt: Prompt) -> RememberedFrame:
        """A mask that is about to be corrected. It has an answer to refine, but no other frame reads it."""
        mask = inputs.to_masks(self._loaded, [prompt], self._hw)
        logits = network.low_logits(self._model, mask * 20.0 - 10.0)
        score = (mask.flatten(1).amax(1) > 0).to(mask.dtype) * 20.0 - 10.0
        answer = FrameMasks(prompt.frame_idx, (object_id,), logits, torch.ones_like(score), score)
        return RememberedFrame(self._model.no_object_pointer[0], None, answer, prompt)

    # Tracked frames

    def _propagate(self, order: range, ids: tuple[str, ...], reverse: bool) -> Iterator[FrameMasks]:
        for step, frame_idx in enumerate(order):
            ahead = order[step + 1 : step + self._config.lookahead]
            yield self._track(frame_idx, ids, reverse, ahead)

    @torch.inference_mode()
    def _track(self, frame_idx: int, ids: tuple[str, ...], reverse: bool, ahead: Sequence[int]) -> FrameMasks:
        """The masks of one frame: those of conditioning frames are known, the others are read from memory."""
        answers: dict[str, FrameMasks] = {}
        groups: dict[tuple[Offsets, Offsets], list[tuple[str, Reading]]] = defaultdict(list)
        for object_id in ids:
            memory = self._object(object_id)
            known = memory.conditioning.get(frame_idx)
            if known is not None and known.answer is not None:
                answers[object_id] = known.answer
            else:
                reading = memory.reading(frame_idx, self._limits, reverse=reverse)
                groups[reading.offsets].append((object_id, reading))
        parts = [part for group in groups.values() for part in _parts(group, self._batch)]
        if parts:
            frame = self._features.get(frame_idx, with_next=ahead)
            absent: list[Tensor] = []
            for part in parts:
                features = inputs.expand(frame, len(part))
                top = self._memory.read(features, [reading for _, reading in part])
                multimask = self._multimask(0, initial=False)
                decoded = network.decode(self._model, features, top, None, multimask=multimask)
                maps = self._maps(frame, decoded, absent)
                for row, (object_id, _) in enumerate(part):
                    answers[object_id] = masks_of_one(frame_idx, object_id, decoded, row)
                    remembered = RememberedFrame(decoded.pointer[row].clone(), maps[row], answers[object_id])
                    self._object(object_id).add_tracked(frame_idx, remembered, self._limits, reverse=reverse)
        return stack_masks(frame_idx, [answers[object_id] for object_id in ids])

    def _maps(self, frame: Features, decoded: Decoded, absent: list[Tensor]) -> list[Tensor]:
        """The memory map of each object. Absent objects of a frame share one map: `absent` keeps it between calls."""
        rows, index = devices.rows_of(decoded.object_score > 0)
        place = {row: i for i, row in enumerate(rows)}
        every = range(len(decoded.object_score))
        other = next((row for row in every if row not in place), None)
        if other is not None and not absent:
            absent.append(
                self._memory.stored_map(self._encode_memory(frame, decoded.select(slice(other, other + 1))), 0)
            )
        if not rows:
            return absent * len(every)
        seen = self._encode_memory(inputs.expand(frame, len(rows)), decoded.select(index))
        return [self._memory.stored_map(seen, place[row]) if row in place else absent[0] for row in every]

    def _encode_memory(self, features: Features, decoded: Decoded) -> FrameMemory:
        full = network.upsample(self._model, decoded.logits)
        return network.encode_memory(self._model, features.top, full, decoded, binarise=False)

    # Shared

    def _multimask(self, clicks: int, *, initial: bool) -> bool:
        config = self._model.config
        return (
            config.multimask_output_in_sam
            and (initial or config.multimask_output_for_tracking)
            and config.multimask_min_pt_num <= clicks <= config.multimask_max_pt_num
        )

    def _object(self, object_id: str) -> ObjectMemory:
        memory = self._objects.get(object_id)
        if memory is None:
            raise ValueError(f"no object {object_id!r}: prompted so far are {list(self._objects)}")
        return memory

    def _check_frame(self, frame_idx: int) -> None:
        if not 0 <= frame_idx < self._frame_count:
            raise ValueError(f"frame {frame_idx} is not in the video of {counted(self._frame_count, 'frame')}")


def _parts(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
