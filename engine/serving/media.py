"""What the review page shows of a stored video: its size, and exactly the frame that an index names.

Some videos are open at a time; each has one reader and one lock, under which it is downloaded, opened, read and closed:
people on different videos do not wait for each other. Knows nothing of people or tickets.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from annotation_queue.errors import NoSuchFrame, NoSuchVideo
from annotation_queue.records import VideoInfo
from engine.services import Services
from storage.records import FPS, Video
from storage.video import FrameReader, jpeg

OPEN_VIDEOS = 32


class _Open:
    """A video that is open, or is about to be."""

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
    """The videos of the store, for the queue's routes. Safe to use from several threads."""

    def __init__(self, s: Services) -> None:
        self._s = s
        self._lock = threading.Lock()  # of the dictionaries: no video is looked up, downloaded or read under it
        self._videos: dict[str, Video] = {}
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def info(self, video_id: str) -> VideoInfo:
        """Size and length of a video. Raises NoSuchVideo."""
        video = self._video(video_id)
        return VideoInfo(
            video_id=video_id, height=video.height, width=video.width, frame_count=video.frame_count, fps=float(FPS)
        )

    def frame(self, video_id: str, frame_idx: int) -> bytes:
        """JPEG of exactly this frame. Raises NoSuchVideo, NoSuchFrame."""
        video = self._video(video_id)
        if not 0 <= frame_idx < video.frame_count:
            raise NoSuchFrame(f"video {video_id} has frames 0 to {video.frame_count - 1}, not {frame_idx}")
        while True:
            place = self._place(video_id)
            with place.lock:
                if place.closed:  # while we waited
                    continue
                if place.reader is None:
                    place.reader = FrameReader(self._s.blobs.fetch(video.video_key), keep=1)
                rgb = place.reader.read(frame_idx)
            return jpeg(rgb)

    def _place(self, video_id: str) -> _Open:
        """Where a video is held open; closes the one that was least recently used, once nobody reads from it."""
        with self._lock:
            found = self._open.setdefault(video_id, _Open())
            self._open.move_to_end(video_id)
            late = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - OPEN_VIDEOS)]
        for place in late:
            place.close()
        return found

    def close(self) -> None:
        """Closes every open video."""
        with self._lock:
            late = list(self._open.values())
            self._open.clear()
        for place in late:
            place.close()

    def _video(self, video_id: str) -> Video:
        if video_id not in self._videos:
            with self._lock:
                self._s.tables  # noqa: B018  (opened by whoever comes first, asked by all at once)
            try:
                self._videos[video_id] = self._s.video(video_id)
            except ValueError as error:
                raise NoSuchVideo(str(error)) from None
        return self._videos[video_id]
