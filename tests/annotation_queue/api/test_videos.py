"""The page's media."""

from __future__ import annotations

from tests.annotation_queue.api.running import open_batch
from tests.annotation_queue.synthetic_queue import SyntheticMedia, picture


def test_frames_are_exact_and_are_cached_for_an_hour(pipeline, vera, browser, request):
    batch = open_batch(pipeline, request, 1)
    assert vera.claim(batch_id=batch.batch_id).video_id == "video-0"
    assert vera.video("video-0").frame_count == 48
    answer = browser.get("/api/videos/video-0/frames/31.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "private, max-age=3600", "a withdrawn video leaves browsers, too"
    assert "Cookie" in answer.headers["vary"], "the next person at the same browser must not see them"
    assert answer.content == vera.frame("video-0", 31) == SyntheticMedia(48).frame("video-0", 31)
    assert picture(31).shape == (360, 640, 3)
