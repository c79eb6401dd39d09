"""The page's media: size and length of a video, and its frames as JPEG, for people who have a ticket on it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from annotation_queue.api.asking import SeenVideo
from annotation_queue.api.backend import Queue
from annotation_queue.records import VideoInfo

router = APIRouter(tags=["videos"])

FrameIdx = Annotated[int, Path(ge=0, le=10_000_000)]
# Vary: the next person who logs in at the same machine must not see pictures from the cache.
ASK_AGAIN = {"Cache-Control": "private, no-cache", "Vary": "Cookie, Authorization"}  # with an ETag
CACHE = {"Cache-Control": "private, max-age=31536000, immutable", "Vary": "Cookie, Authorization"}
# A frame never changes, but a video may be withdrawn: then browsers show it no longer than an hour. They do not ask
# again for each frame, because the page plays a clip many times from their cache, faster than a server could answer.
FOR_AN_HOUR = {"Cache-Control": "private, max-age=3600", "Vary": "Cookie, Authorization"}


@router.get("/api/videos/{video_id}")
def video(video_id: SeenVideo, queue: Queue) -> VideoInfo:
    """Size and length of a video."""
    return queue.media.info(video_id)


@router.get("/api/videos/{video_id}/frames/{frame_idx}.jpg", response_class=Response)
def frame(video_id: SeenVideo, frame_idx: FrameIdx, queue: Queue) -> Response:
    """One frame as JPEG."""
    return Response(queue.media.frame(video_id, frame_idx), media_type="image/jpeg", headers=FOR_AN_HOUR)
