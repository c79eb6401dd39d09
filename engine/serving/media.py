"""Stored videos by id and frame index: for the review page as JPEG, for the model that answers clicks as pixels.

The one cache of open videos in a queue process. Each video has one reader and one lock, under which it is downloaded,
opened, read and closed, so people on different videos do not wait for each other. A withdrawn video is shown no longer
than SEES_S, and its local copy is deleted. Knows nothing about people, tickets or models.
"""

from __future__ import annotations

import posixpath
import threading
import time

from cachetools import LRUCache

from annotation_queue.errors import NoSuchFrame, NoSuchVideo
from annotation_queue.records import VideoInfo
from engine.services import Services
from storage.dataset import withdrawn
from storage.pixels import Rgb
from storage.records import FPS, Video
from storage.videos.video import FrameReader, jpeg

OPEN_VIDEOS = 32
SEES_S = 30.0  # after which a withdrawal is seen
KNOWN_VIDEOS = 1024  # rows of the table of videos; the row of a long video takes 100 KiB


class _Place:
    """A video that is open or about to be opened."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reader: FrameReader | None = None
        self.closed = False

    def close(self) -> None:
        with self.lock:
            self.closed = True
            if self.reader is not None:
                self.reader.close()


class StoredMedia:
    """The frames of any stored video; the least recently used videos are closed. Safe to use from several threads."""

    def __init__(self, s: Services) -> None:
        self._s = s
        self._lock = threading.Lock()  # of the two caches: no video is looked up, downloaded or read under it
        self._rows: LRUCache[str, tuple[Video, float]] = LRUCache(KNOWN_VIDEOS)  # and when each was there, s
        self._open: LRUCache[str, _Place] = LRUCache(OPEN_VIDEOS)

    def info(self, video_id: str) -> VideoInfo:
        """Size, length and name of a video. Raises NoSuchVideo."""
        video = self._row(video_id)
        return VideoInfo(
            video_id=video_id,
            height=video.height,
            width=video.width,
            frame_count=video.frame_count,
            fps=float(FPS),
            name=video.source_name or posixpath.basename(video.source_uri),
        )

    def frame(self, video_id: str, frame_idx: int) -> bytes:
        """JPEG of exactly this frame. Raises NoSuchVideo, NoSuchFrame, FrameUnreadable."""
        return jpeg(self.pixels(video_id, frame_idx))

    def pixels(self, video_id: str, frame_idx: int) -> Rgb:
        """Exactly this frame, uint8 (H, W, 3) RGB, read-only. Raises NoSuchVideo, NoSuchFrame, FrameUnreadable."""
        video = self._row(video_id)
        if not 0 <= frame_idx < video.frame_count:
            raise NoSuchFrame(f"video {video_id} has frames 0 to {video.frame_count - 1}, not {frame_idx}")
        while True:
            place = self._place(video_id)
            with place.lock:
                if place.closed:  # while this thread waited for the lock
                    continue
                if place.reader is None:  # it keeps one frame: the page caches JPEGs, the model caches embeddings
                    place.reader = FrameReader(self._s.blobs.fetch(video.video_key), keep=1)
                return place.reader.read(frame_idx)

    def is_open(self, video_id: str) -> bool:
        with self._lock:
            return video_id in self._open

    def close(self) -> None:
        """Closes every open video."""
        with self._lock:
            places = list(self._open.values())
            self._open.clear()
        for place in places:
            place.close()

    def _place(self, video_id: str) -> _Place:
        evicted = None
        with self._lock:
            place = self._open.get(video_id)
            if place is None:
                if len(self._open) >= self._open.maxsize:
                    evicted = self._open.popitem()[1]
                place = self._open[video_id] = _Place()
        if evicted is not None:
            evicted.close()  # waits for a thread that reads from it
        return place

    def _row(self, video_id: str) -> Video:
        """The row of a video. Raises NoSuchVideo, also for a withdrawn one."""
        now = time.monotonic()
        with self._lock:
            row, seen = self._rows.get(video_id, (None, now))
        if row is None:
            try:
                row = self._s.video(video_id)
            except ValueError as error:
                raise NoSuchVideo(str(error)) from None
        elif now - seen < SEES_S:
            return row
        if withdrawn.has(self._s.blobs, video_id) or not self._s.blobs.exists(row.video_key):
            self._forget(row)
            raise NoSuchVideo(f"video {video_id} was withdrawn, or its file is missing")
        with self._lock:
            self._rows[video_id] = row, now
        return row

    def _forget(self, video: Video) -> None:
        """Closes a video, and deletes what this machine keeps of it."""
        with self._lock:
            self._rows.pop(video.video_id, None)
            place = self._open.pop(video.video_id, None)
        if place is not None:
            place.close()
        self._s.blobs.forget(video.video_key)
