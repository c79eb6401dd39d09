"""The streaming tracker: many objects through one video in one batch, with bounded memory.

A frame is encoded once for all objects. An object remembers its conditioning frames (those that somebody prompted or
corrected, whenever that happened) and the few tracked frames that the next one reads; the rest is forgotten. At the
same weights the masks are those of transformers' own session, with these differences, all on purpose:

- A frame that is corrected after it was tracked becomes a conditioning frame, as in training; the library lets the next
  propagation overwrite it. It is answered in the light of the memory and, with `TrackerConfig.feed_back`, of the mask
  that is being corrected; its own earlier memory is left out.
- Objects do not see each other: in the library, a prompt for one object changes how the other objects' masks of that
  frame are remembered.
- The library remembers every frame, so that a change of direction there also reads tracked frames of the way out.
  `TrackerConfig.history_frames = None` does the same.

Knows nothing of files, tickets or training. The steps of the network are in `network`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from model import inputs, network
from model.checkpoints import LoadedModel
from model.fast.memory_reader import Economy, MemoryReader, Past, Window, can_read
from model.features import FeatureCache, FrameSource
from model.frame_masks import FrameMasks, masks_of_one, stack_masks
from model.network import Decoded, Features, FrameMemory
from model.object_memory import BACK, FORTH, ObjectMemory, Offsets, Reading, RememberedFrame, closest_frames, extends
from storage import pixels
from storage.records import Prompt

_Item = TypeVar("_Item")


class NoPrompt(Exception):
    """Nothing to track: no object has been prompted."""


@dataclass(frozen=True, kw_only=True)
class TrackerConfig:
    """What the tracker keeps and how it answers."""

    history_frames: int | None = 0  # tracked frames on both sides of the last one to keep for corrections; None: all
    feed_back: bool = True  # refining clicks are answered with the mask that they refine as a further prompt
    max_conditioning: int | None = None  # conditioning frames that a frame reads, the closest ones; None: as trained
    object_batch: int | None = None  # objects that pass the network at once, which bounds scratch memory; None: as many
    # as are fast, 4 on a CPU, whose cache holds the activations of so many, and 64 on a GPU
    lookahead: int = 1  # frames that the image encoder takes at once, at least 1
    economy: Economy = Economy()  # work to leave out, on a CPU only; nothing by default


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
            raise ValueError(f"a video has at least one frame and one pixel, got {frame_count} frames of {video_hw}")
        if config.lookahead < 1 or (config.object_batch is not None and config.object_batch < 1):
            raise ValueError(f"object_batch and lookahead must be at least 1, got {config}")
        self._batch = config.object_batch or (4 if loaded.device.type == "cpu" else 64)
        self._loaded, self._model = loaded, loaded.model
        self._features = (
            frames if isinstance(frames, FeatureCache) else FeatureCache(loaded, frames, size=config.lookahead + 2)
        )
        self._hw, self._frame_count, self._config = video_hw, frame_count, config
        self._objects: dict[str, ObjectMemory] = {}
        if config.economy != Economy() and not can_read(self._model):
            raise ValueError(f"economy needs a model with one memory head on a CPU; this one is on {loaded.device}")
        self._reader = MemoryReader(self._model, config.economy) if can_read(self._model) else None
        self._position: Tensor | None = None  # sine code of the memory maps, the same for all

    @property
    def object_ids(self) -> tuple[str, ...]:
        """The objects in the order of their first prompts."""
        return tuple(self._objects)

    def conditioning_frames(self, object_id: str) -> tuple[int, ...]:
        """The frames that an object was prompted or corrected on, ascending."""
        return tuple(sorted(self._object(object_id).conditioning))

    def prompt(self, object_id: str, prompt: Prompt, *, remember: bool = True) -> FrameMasks:
        """Prompts one object, new or known, on one frame; see `prompt_all`."""
        return self.prompt_all({object_id: prompt}, remember=remember)

    def prompt_all(self, prompts: Mapping[str, Prompt], *, remember: bool = True) -> FrameMasks:
        """Prompts objects on one frame, in one batch, and gives their masks there.

        The frame becomes a conditioning frame of each object; without `remember` nothing is kept. A prompt holds all
        the clicks of the frame: it replaces an earlier one of the same object and frame. Clicks that extend the earlier
        ones, or that correct a tracked frame, refine the mask that is there; other ones start anew.
        Raises ValueError, showing the value, for a prompt that is not one or a frame that is not there.
        """
        frames = {prompt.frame_idx for prompt in prompts.values()}
        if len(frames) != 1:
            raise ValueError(f"prompts of one call must be on one frame, got frames {sorted(frames)}")
        (frame_idx,) = frames
        self._check_frame(frame_idx)
        for prompt in prompts.values():
            inputs.check_prompt(prompt, self._hw)
        groups: dict[tuple[object, ...], list[tuple[str, Reading | None, Tensor | None]]] = defaultdict(list)
        for object_id, prompt in prompts.items():
            state = self._objects.get(object_id) or self._new_object()
            reading, previous = None, None
            if prompt.mask_rle is None:
                if way := state.direction[frame_idx]:  # tracked before: a correction, in the light of the memory
                    reading = self._reading(state, frame_idx, reverse=way == BACK)
                previous = self._previous(state, prompt)
            key = (
                prompt.mask_rle is not None,
                inputs.click_count(prompt),
                reading and (reading.spatial_back, reading.pointer_back),
                previous is None,
            )
            groups[key].append((object_id, reading, previous))
        answers: dict[str, FrameMasks] = {}
        for group in groups.values():
            for part in _parts(group, self._batch):
                asked = {object_id: prompts[object_id] for object_id, *_ in part}
                answers |= self._answer_prompts(frame_idx, asked, part, remember)
        return stack_masks(frame_idx, [answers[object_id] for object_id in prompts])

    def propagate(
        self, start: int, stop: int, *, reverse: bool = False, objects: Sequence[str] | None = None
    ) -> Iterator[FrameMasks]:
        """Tracks through `range(start, stop)`, or `range(start, stop, -1)` in reverse, one frame at a time.

        Gives the masks of all objects (of `objects`, where given) on each frame, conditioning frames included. A frame
        before an object's first prompt is tracked too: the prompt is known. Stop and go on as you like.
        Raises NoPrompt if there is no object, ValueError for frames or objects that are not there.
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
        """Puts masks that are known into the place of tracked frames: memory as a propagation nearly leaves it.

        In steps, between which this thread may do something more urgent, but with this tracker.
        known: COCO counts by frame; conditioning frames among them stay as they are. All other tracked frames are
        forgotten, but for those of `known` that were recalled with the same mask and those of `keep`.
        about: the frame that is prompted next, as a correction of its mask in `known`, if it has one there: it reads
        the other memories.
        """
        state = self._objects.setdefault(object_id, self._new_object())
        asked = [*known, *([] if about is None else [about])]
        for frame_idx in asked:
            self._check_frame(frame_idx)
        for frame_idx, memory in list(state.tracked.items()):
            recalled = None if memory.prompt is None or memory.features is None else memory.prompt.mask_rle
            if frame_idx not in keep and (recalled is None or recalled != known.get(frame_idx)):
                del state.tracked[frame_idx]
        state.direction[:] = bytes(self._frame_count)
        for frame_idx in asked:
            state.direction[frame_idx] = FORTH
        missing = [i for i in known if i not in state.tracked and i not in state.conditioning and i != about]
        for part in _parts(missing, self._batch):
            for frame_idx in part:
                yield from self._features.encoding(frame_idx)
            given = [Prompt(frame_idx=i, mask_rle=known[i]) for i in part]
            features = inputs.together([self._features.get(i) for i in part])
            decoded, full = network.take_mask(self._model, features, inputs.to_masks(self._loaded, given, self._hw))
            made = network.encode_memory(self._model, features.top, full, decoded, binarise=False)
            for row, prompt in enumerate(given):
                answer = masks_of_one(prompt.frame_idx, object_id, decoded, row)
                kept = RememberedFrame(made.pointer[row].clone(), self._keep(made, row), answer, prompt)
                state.tracked[prompt.frame_idx] = kept
            yield
        if about is not None and about in known and about not in state.tracked and about not in state.conditioning:
            state.tracked[about] = self._only_answered(object_id, Prompt(frame_idx=about, mask_rle=known[about]))

    def copy(self, object_id: str, new_id: str) -> None:
        """A further object with the same past: from here on each is prompted and tracked by itself."""
        if new_id in self._objects:
            raise ValueError(f"object {new_id!r} is there already")
        state = self._object(object_id)
        conditioning, tracked = ({i: replace(m) for i, m in of.items()} for of in (state.conditioning, state.tracked))
        self._objects[new_id] = ObjectMemory(bytearray(state.direction), conditioning, tracked)

    def remove(self, object_id: str, frame_idx: int | None = None) -> None:
        """Forgets an object, or only its prompt on one frame (an undo)."""
        state = self._object(object_id)
        if frame_idx is None:
            del self._objects[object_id]
        elif state.conditioning.pop(frame_idx, None) is None:
            raise ValueError(f"object {object_id!r} has no prompt on frame {frame_idx}")

    def memory_bytes(self) -> int:
        """What the objects remember, in bytes; image features are not counted."""
        total = sum(len(state.direction) for state in self._objects.values())
        for state in self._objects.values():
            for memory in [*state.conditioning.values(), *state.tracked.values()]:
                kept = [memory.pointer, memory.features, None if memory.answer is None else memory.answer.logits]
                total += sum(t.numel() * t.element_size() for t in kept if t is not None)
        return total

    # Prompted frames

    def _only_answered(self, object_id: str, prompt: Prompt) -> RememberedFrame:
        """A mask that is about to be corrected: no other frame will read it."""
        mask = inputs.to_masks(self._loaded, [prompt], self._hw)
        logits = network.low_logits(self._model, mask * 20.0 - 10.0)
        score = (mask.flatten(1).amax(1) > 0).to(mask.dtype) * 20.0 - 10.0
        answer = FrameMasks(prompt.frame_idx, (object_id,), logits, torch.ones_like(score), score)
        return RememberedFrame(self._model.no_object_pointer[0], None, answer, prompt)

    @torch.inference_mode()
    def _answer_prompts(
        self,
        frame_idx: int,
        prompts: Mapping[str, Prompt],
        group: Sequence[tuple[str, Reading | None, Tensor | None]],
        remember: bool,
    ) -> dict[str, FrameMasks]:
        """Answers prompts of one kind and gives the answers by object."""
        given = list(prompts.values())
        features = inputs.expand(self._features.get(frame_idx), len(given))
        if given[0].mask_rle is not None:
            decoded, full = network.take_mask(self._model, features, inputs.to_masks(self._loaded, given, self._hw))
        else:
            readings = [reading for _, reading, _ in group if reading is not None]
            previous = [mask for _, _, mask in group if mask is not None]
            decoded = network.decode(
                self._model,
                features,
                self._attend(features, readings) if readings else network.without_memory(self._model, features),
                inputs.to_clicks(self._loaded, given, self._hw),
                torch.cat(previous) if previous else None,
                multimask=self._multimask(inputs.click_count(given[0]), initial=not readings),
            )
            full = network.upsample(self._model, decoded.logits)
        answers = {object_id: masks_of_one(frame_idx, object_id, decoded, row) for row, object_id in enumerate(prompts)}
        if not remember:
            return answers
        memory = network.encode_memory(self._model, features.top, full, decoded, binarise=True)
        for row, (object_id, prompt) in enumerate(prompts.items()):
            state = self._objects.setdefault(object_id, self._new_object())
            state.tracked.pop(frame_idx, None)
            state.conditioning[frame_idx] = RememberedFrame(
                pointer=memory.pointer[row].clone(),
                features=self._keep(memory, row),
                answer=answers[object_id],
                prompt=prompt,
            )
        return answers

    def _previous(self, state: ObjectMemory, prompt: Prompt) -> Tensor | None:
        """The mask that a prompt refines, as logits (1, h, w); None if it starts anew or the mask is forgotten."""
        if not self._config.feed_back:
            return None
        memory = state.tracked.get(prompt.frame_idx)
        if memory is None:
            memory = state.conditioning.get(prompt.frame_idx)
            if memory is None or memory.prompt is None or not extends(prompt, memory.prompt):
                return None
        return None if memory.answer is None else memory.answer.logits.clamp(-32.0, 32.0)

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
            state = self._object(object_id)
            known = state.conditioning.get(frame_idx)
            if known is not None and known.answer is not None:
                answers[object_id] = known.answer
                continue
            reading = self._reading(state, frame_idx, reverse=reverse)
            groups[reading.spatial_back, reading.pointer_back].append((object_id, reading))
        if groups:
            frame = self._features.get(frame_idx, with_next=ahead)
            nothing: Tensor | None = None  # the map of an absent object, the same for all on this frame
            for group in groups.values():
                for part in _parts(group, self._batch):
                    features = inputs.expand(frame, len(part))
                    top = self._attend(features, [reading for _, reading in part])
                    multimask = self._multimask(0, initial=False)
                    decoded = network.decode(self._model, features, top, None, multimask=multimask)
                    present = decoded.object_score > 0
                    if nothing is None and not bool(present.all()):
                        nothing = self._keep(self._remember(frame, _rows(decoded, (~present).nonzero()[:1, 0])), 0)
                    rows = present.nonzero()[:, 0]
                    seen = self._remember(inputs.expand(frame, len(rows)), _rows(decoded, rows)) if len(rows) else None
                    place = {row: i for i, row in enumerate(rows.tolist())}
                    for row, (object_id, _) in enumerate(part):
                        answers[object_id] = masks_of_one(frame_idx, object_id, decoded, row)
                        kept = self._keep(seen, place[row]) if seen is not None and row in place else nothing
                        remembered = RememberedFrame(decoded.pointer[row].clone(), kept, answers[object_id])
                        self._forget(self._object(object_id), frame_idx, reverse, remembered)
        return stack_masks(frame_idx, [answers[object_id] for object_id in ids])

    def _remember(self, features: Features, decoded: Decoded) -> FrameMemory:
        full = network.upsample(self._model, decoded.logits)
        return network.encode_memory(self._model, features.top, full, decoded, binarise=False)

    def _forget(self, state: ObjectMemory, frame_idx: int, reverse: bool, memory: RememberedFrame) -> None:
        """Adds a tracked frame and drops what the frames around it cannot read any more."""
        state.tracked[frame_idx] = memory
        state.direction[frame_idx] = BACK if reverse else FORTH
        if self._config.history_frames is None:
            return
        maps = max(self._model.num_maskmem - 1, self._config.history_frames)
        pointers = max(self._span() - 1, maps)
        for other in list(state.tracked):
            distance = abs(other - frame_idx)
            if distance > pointers:
                del state.tracked[other]
            elif distance > maps:
                state.tracked[other].features = None
            if distance > self._config.history_frames and other in state.tracked:
                state.tracked[other].answer = None

    # Memory

    def _reading(self, state: ObjectMemory, frame_idx: int, *, reverse: bool) -> Reading:
        """What an object's next answer on a frame may read: its memories, and how many frames back each is."""
        sign = -1 if reverse else 1
        conditioning = {i: memory for i, memory in state.conditioning.items() if i != frame_idx}
        most = self._config.max_conditioning
        if most is None and self._model.config.max_cond_frame_num > 0:
            most = self._model.config.max_cond_frame_num
        chosen = closest_frames(sorted(conditioning), frame_idx, most)
        spatial = [(0, conditioning[i]) for i in chosen]
        for back in range(self._model.num_maskmem - 1, 0, -1):
            other = frame_idx - sign * back
            memory = state.tracked.get(other)
            if memory is None and other not in chosen:
                memory = conditioning.get(other)
            if memory is not None and memory.features is not None:
                spatial.append((back, memory))
        pointers = [
            (sign * (frame_idx - i), memory) for i, memory in conditioning.items() if sign * (frame_idx - i) >= 0
        ]
        for back in range(1, self._span()):
            memory = state.tracked.get(frame_idx - sign * back)
            if memory is not None:
                pointers.append((back, memory))
        return Reading(
            tuple(back for back, _ in spatial),
            tuple(back for back, _ in pointers),
            tuple(memory for _, memory in spatial),
            tuple(memory for _, memory in pointers),
        )

    def _attend(self, features: Features, readings: Sequence[Reading]) -> Tensor:
        """The top maps in the light of the memories: float (N, C, h, w). All readings have the same offsets."""
        first, dtype = readings[0], self._loaded.dtype
        if not first.spatial:
            return network.without_memory(self._model, features)
        assert self._position is not None
        if self._reader is not None:
            return self._reader.read(
                features.top[:1],
                features.top_position[:1],
                self._position,
                first.spatial_back,
                first.pointer_back,
                [self._past(reading) for reading in readings],
                self._span(),
            )
        spatial = []
        for place, back in enumerate(first.spatial_back):
            maps = [reading.spatial[place].features for reading in readings]
            stacked = torch.stack([m for m in maps if m is not None]).to(dtype)
            spatial.append((back, FrameMemory(stacked, self._position, features.top)))
        pointers = [
            (back, torch.stack([reading.pointers[place].pointer for reading in readings]))
            for place, back in enumerate(first.pointer_back)
        ]
        return network.attend_to_memory(self._model, features, spatial, pointers, pointer_span=self._span())

    def _past(self, reading: Reading) -> Past:
        """What an object remembers, as the fast reader takes it."""
        maps = torch.stack([m.features for m in reading.spatial if m.features is not None])
        maps = maps.to(self._loaded.dtype)
        pointers = torch.stack([m.pointer for m in reading.pointers]) if reading.pointers else maps.new_empty(0, 64)
        return Past(maps, pointers, self._window(reading))

    def _window(self, reading: Reading) -> Window | None:
        """The cells in which an object is looked for: around its mask on the last frame; None for the whole frame."""
        margin = self._config.economy.window_margin
        last = next((m for back, m in zip(reading.spatial_back, reading.spatial, strict=True) if back == 1), None)
        if margin is None or last is None or last.answer is None:
            return None
        box = pixels.box_of((last.answer.logits[0] > 0).numpy())
        if box is None:
            return None
        side, least = self._loaded.image_size // 16, self._config.economy.window_least
        grow = [max(least, math.ceil(margin * (box[i + 2] - box[i]) / 4)) for i in (0, 1)]
        x0, y0 = (max(0, int(box[i]) // 4 - grow[i]) for i in (0, 1))
        x1, y1 = (min(side, math.ceil(box[i + 2] / 4) + grow[i]) for i in (0, 1))
        return x0, y0, x1, y1

    def _keep(self, memory: FrameMemory, row: int) -> Tensor:
        """One object's memory map as it is stored: bfloat16 (64, h, w), like the library's."""
        if self._position is None:
            self._position = memory.position[:1].clone()
        return memory.features[row].to(torch.bfloat16, copy=True)

    # Small things

    def _span(self) -> int:
        """How many frames object pointers may span; in a shorter video they are scaled by its length."""
        return min(self._frame_count, self._model.config.max_object_pointers_in_encoder)

    def _multimask(self, clicks: int, *, initial: bool) -> bool:
        config = self._model.config
        return (
            config.multimask_output_in_sam
            and (initial or config.multimask_output_for_tracking)
            and config.multimask_min_pt_num <= clicks <= config.multimask_max_pt_num
        )

    def _new_object(self) -> ObjectMemory:
        return ObjectMemory(bytearray(self._frame_count))

    def _object(self, object_id: str) -> ObjectMemory:
        state = self._objects.get(object_id)
        if state is None:
            raise ValueError(f"no object {object_id!r}: prompted so far are {list(self._objects)}")
        return state

    def _check_frame(self, frame_idx: int) -> None:
        if not 0 <= frame_idx < self._frame_count:
            raise ValueError(f"frame {frame_idx} is not in the video of {self._frame_count} frames")


def _parts(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _rows(decoded: Decoded, rows: Tensor) -> Decoded:
    return Decoded(
        all_logits=decoded.all_logits[rows],
        all_iou=decoded.all_iou[rows],
        logits=decoded.logits[rows],
        iou=decoded.iou[rows],
        object_score=decoded.object_score[rows],
        pointer=decoded.pointer[rows],
    )
