"""Reads memories for the tracker: a frame's top map, combined with what each object remembers.

Uses the fast reader where the model allows it, and transformers' own attention elsewhere. Knows nothing of prompts or
of which frames are remembered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model import network
from model.checkpoints import LoadedModel
from model.fast.memory_reader import Economy, MemoryReader, Past, Window, can_read
from model.network import Features, FrameMemory
from model.object_memory import Reading
from storage import pixels


class MemoryAttention:
    """The memory attention of one tracker, with the buffers of its fast reader."""

    def __init__(self, loaded: LoadedModel, economy: Economy, pointer_span: int) -> None:
        """pointer_span: frames that object pointers may span. Raises ValueError if the model cannot economise."""
        self._loaded, self._model, self._economy, self._span = loaded, loaded.model, economy, pointer_span
        if economy != Economy() and not can_read(self._model):
            raise ValueError(f"economy needs a model with one memory head on a CPU; this one is on {loaded.device}")
        self._reader = MemoryReader(self._model, economy) if can_read(self._model) else None
        self._position: Tensor | None = None  # sine code of the memory maps, the same for all

    def stored_map(self, memory: FrameMemory, row: int) -> Tensor:
        """One object's memory map as it is kept: bfloat16 (64, h, w), like the library's."""
        if self._position is None:
            self._position = memory.position[:1].clone()
        return memory.features[row].to(torch.bfloat16, copy=True)

    def read(self, features: Features, readings: Sequence[Reading]) -> Tensor:
        """The top map of a frame for each of N objects: float (N, C, h, w). All readings have equal offsets."""
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
                self._span,
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
        return network.attend_to_memory(self._model, features, spatial, pointers, pointer_span=self._span)

    def _past(self, reading: Reading) -> Past:
        """What an object remembers, in the form that the fast reader takes."""
        maps = torch.stack([m.features for m in reading.spatial if m.features is not None])
        maps = maps.to(self._loaded.dtype)
        pointers = torch.stack([m.pointer for m in reading.pointers]) if reading.pointers else maps.new_empty(0, 64)
        return Past(maps, pointers, search_window(reading, self._economy, self._loaded.image_size // 16))


def search_window(reading: Reading, economy: Economy, side: int) -> Window | None:
    """The cells around an object's mask on the last frame; None for the whole frame.

    side: cells along a side of the top map. Without a margin in `economy`, or without a last mask, there is no window.
    """
    margin = economy.window_margin
    last = next((m for back, m in zip(reading.spatial_back, reading.spatial, strict=True) if back == 1), None)
    if margin is None or last is None or last.answer is None:
        return None
    box = pixels.box_of((last.answer.logits[0] > 0).numpy())  # in logits, 4 to a cell
    if box is None:
        return None
    grow = [max(economy.window_least, math.ceil(margin * (box[i + 2] - box[i]) / 4)) for i in (0, 1)]
    x0, y0 = (max(0, int(box[i]) // 4 - grow[i]) for i in (0, 1))
    x1, y1 = (min(side, math.ceil(box[i + 2] / 4) + grow[i]) for i in (0, 1))
    return x0, y0, x1, y1
