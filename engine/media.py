"""What the review page shows of a stored video: its size, and exactly the frame that an index names.

Few videos are open at a time; each has one reader and one lock, so that people on different videos do not wait for each
other. Knows nothing of people or tickets.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from annotation_queue.records import NoSuchFrame, NoSuchVideo, VideoInfo
from engine.services import Services
from storage.records import FPS, Video
from storage.video import FrameReader, jpeg

OPEN_VIDEOS = 8


class StoredMedia:
    """The videos of the store, for the queue's routes. Safe to use from several threads."""

    def __init__(self, s: Services) -> None:
        self._s = s
        self._lock = threading.Lock()
        self._videos: dict[str, Video] = {}
        self._readers: OrderedDict[str, tuple[FrameReader, threading.Lock]] = OrderedDict()

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
            reader, lock = self._reader(video)
            with lock:
                if self._readers.get(video_id, (None,))[0] is reader:  # not closed while we waited
                    return jpeg(reader.read(frame_idx))

    def _reader(self, video: Video) -> tuple[FrameReader, threading.Lock]:
        """The open reader of a video; closes the one that was least recently used, once nobody reads from it."""
        with self._lock:
            if video.video_id not in self._readers:
                self._readers[video.video_id] = (FrameReader(self._s.blobs.fetch(video.video_key)), threading.Lock())
            self._readers.move_to_end(video.video_id)
            found = self._readers[video.video_id]
            late = [self._readers.popitem(last=False)[1] for _ in range(len(self._readers) - OPEN_VIDEOS)]
        for reader, lock in late:
            with lock:
                reader.close()
        return found

    def close(self) -> None:
        """Closes every open video."""
        with self._lock:
            for reader, lock in self._readers.values():
                with lock:
                    reader.close()
            self._readers.clear()

    def _video(self, video_id: str) -> Video:
        with self._lock:
            if video_id not in self._videos:
                try:
                    self._videos[video_id] = self._s.video(video_id)
                except ValueError as error:
                    raise NoSuchVideo(str(error)) from None
            return self._videos[video_id]
