"""Reads frames of a video by their index, and caches the last ones: what all readers share.

Does not know files or formats: each reader decodes its own.

Errors:
    VideoError
    ├── FrameUnreadable    a frame of a video cannot be read
    └── Refused            a source file cannot become a stored video (`storage/videos/source_file.py`)
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self

from cachetools import LRUCache

from storage.pixels import Rgb


class VideoError(Exception):
    """Something is wrong with this video."""


class FrameUnreadable(VideoError):
    """A frame of a video cannot be read."""


class CachedReader(ABC):
    """A video that is kept open: reads any frame by its index.

    Safe to share between threads: one thread decodes at a time. Caches the last `keep` frames, so its arrays are
    read-only.
    """

    frame_count: int

    def __init__(self, name: str, keep: int) -> None:
        """name: of the video, for messages."""
        self._name = name
        self._cache: LRUCache[int, Rgb] = LRUCache(maxsize=keep)
        self._lock = threading.Lock()
        self._closed = False

    def read(self, frame_idx: int) -> Rgb:
        """One frame, uint8 (H, W, 3) RGB, read-only.

        Raises ValueError for an index outside the video, VideoError or PictureError if the file is damaged or closed.
        """
        if not 0 <= frame_idx < self.frame_count:
            raise ValueError(f"{self._name} has frames 0 to {self.frame_count - 1}, not {frame_idx}")
        with self._lock:
            if self._closed:  # decoding a closed container crashes the process
                raise FrameUnreadable(f"{self._name}, frame {frame_idx}: the video was closed")
            key = self._key(frame_idx)
            if (cached := self._cache.get(key)) is not None:
                return cached
            rgb = self._decode(frame_idx)
            rgb.flags.writeable = False
            self._cache[key] = rgb
            return rgb

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._cache.clear()
            self._release()

    def _key(self, frame_idx: int) -> int:
        """The frame's key in the cache. Frames with one key are the same picture."""
        return frame_idx

    @abstractmethod
    def _decode(self, frame_idx: int) -> Rgb:
        """Decodes one frame. Called by one thread at a time."""

    @abstractmethod
    def _release(self) -> None:
        """Closes the file. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
