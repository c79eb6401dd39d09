"""Image features of video frames, cached: a frame is encoded once for all objects, and for all trackers that share it.

Knows nothing of objects, prompts or memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from threading import Lock
from typing import Any

import torch
from cachetools import LRUCache

from model import inputs, network
from model.checkpoints import LoadedModel
from model.network import Features
from storage.pixels import Rgb

FrameSource = Callable[[Any], Rgb]  # frame_idx, or another key of a frame -> uint8 (H, W, 3)


def frame_bytes(loaded: LoadedModel) -> int:
    """Memory of one frame's features, in bytes: maps of 32, 64 and 256 channels."""
    side = loaded.image_size // 4
    return loaded.dtype.itemsize * (side**2 * 32 + (side // 2) ** 2 * 64 + (side // 4) ** 2 * 256)


class FeatureCache:
    """Image features by frame; evicts the least recently used. Trackers of one video can share a cache.

    One cache can also serve several videos: its source then takes any hashable key of a frame, and each tracker gets
    `cache.at(keys)`. Safe for use by several threads.
    """

    def __init__(self, loaded: LoadedModel, frames: FrameSource, size: int = 4) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.loaded, self.size = loaded, size
        self._frames = frames
        self._kept: LRUCache[Any, Features] = LRUCache(size)
        self._lock = Lock()

    def get(self, frame_idx: Any, *, with_next: Sequence[Any] = ()) -> Features:
        """The features of a frame, batch 1. If it must be encoded, `with_next` are encoded in the same batch."""
        with self._lock:
            if frame_idx not in self._kept:
                self._encode([frame_idx, *(i for i in with_next[: self.size - 1] if i not in self._kept)])
            return self._kept[frame_idx]  # and marks it as used

    def at(self, frame_idx: Sequence[Any]) -> FeatureCache:
        """A view of this cache in which frame i is the frame `frame_idx[i]`."""
        return _Renumbered(self, frame_idx)

    @torch.inference_mode()
    def encoding(self, frame_idx: Any) -> Generator[None]:
        """Encodes a frame in steps, unless it is cached. Between steps this thread may do something more urgent."""
        with self._lock:
            if self._kept.get(frame_idx) is not None:  # and marks it as used
                return
        rgb = self._frames(frame_idx)
        yield
        encoded = yield from network.encoding(self.loaded.model, inputs.to_pixels(self.loaded, [rgb]))
        with self._lock:
            self._kept[frame_idx] = encoded

    @torch.inference_mode()
    def _encode(self, frame_idxs: Sequence[Any]) -> None:
        pixels = inputs.to_pixels(self.loaded, [self._frames(i) for i in frame_idxs])
        encoded = network.encode_images(self.loaded.model, pixels)
        rows = torch.arange(len(frame_idxs), device=pixels.device)
        alone = len(frame_idxs) == 1
        self._kept.update({i: encoded if alone else encoded.select(rows[n : n + 1]) for n, i in enumerate(frame_idxs)})


class _Renumbered(FeatureCache):
    """A cache seen through a list of frames."""

    def __init__(self, cache: FeatureCache, frame_idx: Sequence[Any]) -> None:
        self.loaded, self.size, self._cache, self._frame_idx = cache.loaded, cache.size, cache, frame_idx

    def get(self, frame_idx: int, *, with_next: Sequence[int] = ()) -> Features:
        return self._cache.get(self._frame_idx[frame_idx], with_next=[self._frame_idx[i] for i in with_next])

    def encoding(self, frame_idx: int) -> Generator[None]:
        return self._cache.encoding(self._frame_idx[frame_idx])
