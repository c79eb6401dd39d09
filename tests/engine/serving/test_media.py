"""The one cache of open videos: many threads, few open files, exactly the frame of an index."""

import threading
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from annotation_queue.errors import NoSuchFrame, NoSuchVideo
from engine.services import Services
from engine.serving.media import StoredMedia
from engine.settings import Settings
from storage.blobs.base import Blobs
from storage.videos import video


@pytest.fixture
def stored(tmp_path):
    """A file of 24 frames; frame n has the grey value 8 n."""
    path = tmp_path / "clip.mp4"
    video.write(path, np.arange(24, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 3), np.uint8) * 8)
    return path


class SlowStore(Services):
    """A store of one video under many names. A name that begins with "slow" downloads until the event `go`."""

    def __init__(self, path, video):
        super().__init__(Settings())
        self.path, self.row = path, video
        self.go, self.asked = threading.Event(), threading.Event()
        self.blobs = cast(Blobs, self)  # only `fetch`, `exists` and `forget` are called
        self.records, self.missing, self.forgotten = set[str](), set[str](), list[str]()

    def video(self, video_id):
        return self.row(video_id)

    def fetch(self, key):
        if key.startswith("slow"):
            self.asked.set()
            assert self.go.wait(60)
        return self.path

    def exists(self, key):
        return key in self.records if key.startswith("withdrawn/") else key not in self.missing

    def forget(self, key):
        self.forgotten.append(key)


def test_a_slow_download_does_not_delay_the_frames_of_another_video(stored, monkeypatch):
    monkeypatch.setattr("engine.serving.media.OPEN_VIDEOS", 2)
    store = SlowStore(stored, lambda name: SimpleNamespace(video_id=name, video_key=name, frame_count=24))
    shown = StoredMedia(store)
    got = []
    waiting = threading.Thread(target=lambda: got.append(shown.frame("slow", 3)))
    waiting.start()
    assert store.asked.wait(60)
    quick = [shown.frame("a", 3)]
    assert got == []
    store.go.set()
    waiting.join(60)
    quick += [shown.frame(name, 3) for name in "bcab"]  # three videos, two may be open: each is closed and opened again
    assert got == quick[:1] and len(set(quick)) == 1
    shown.close()


def row(name):
    if name == "none":
        raise ValueError("no admitted video 'none'")
    source_name = "beach 12" if name == "imported" else None
    row = SimpleNamespace(video_id=name, video_key=name, frame_count=24, height=64, width=64, source_name=source_name)
    row.source_uri = f"s3://bucket/films/{name}.mov"
    return row


def test_many_threads_on_few_open_videos_each_get_exactly_their_frame(stored, monkeypatch):
    monkeypatch.setattr("engine.serving.media.OPEN_VIDEOS", 2)
    media, wrong = StoredMedia(SlowStore(stored, row)), []
    chosen = np.random.default_rng(0).integers(0, (5, 24), size=(6, 40, 2))

    def look(pairs):
        wrong.extend(
            (name, n) for name, n in pairs if abs(float(media.pixels(f"video {name}", int(n)).mean()) - 8 * n) > 4
        )

    threads = [threading.Thread(target=look, args=(pairs,)) for pairs in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert wrong == []
    assert sum(media.is_open(f"video {name}") for name in range(5)) == 2
    media.close()
    assert not any(media.is_open(f"video {name}") for name in range(5))


@pytest.mark.parametrize("way", ["withdrawn", "its file is missing"])
def test_a_video_that_is_gone_meanwhile_is_closed_and_its_copy_deleted(stored, monkeypatch, way):
    store = SlowStore(stored, row)
    media = StoredMedia(store)
    shown = media.frame("a", 3)
    (store.records if way == "withdrawn" else store.missing).update({"withdrawn/a.json", "a"})
    assert media.frame("a", 3) == shown and media.is_open("a"), "it asks once in 30 s"
    monkeypatch.setattr("engine.serving.media.SEES_S", 0)
    for look in (lambda: media.frame("a", 3), lambda: media.info("a")):
        with pytest.raises(NoSuchVideo, match=f"video a .*{way}"):
            look()
    assert not media.is_open("a") and set(store.forgotten) == {"a"}


def test_a_missing_video_or_frame_has_an_error_of_its_own(stored):
    media = StoredMedia(SlowStore(stored, row))
    with pytest.raises(NoSuchVideo, match="no admitted video"):
        media.info("none")
    for frame_idx in (-1, 24):
        with pytest.raises(NoSuchFrame, match="has frames 0 to 23"):
            media.frame("a", frame_idx)
    assert (media.info("a").frame_count, media.info("a").fps) == (24, 24.0)


def test_a_video_has_the_name_of_its_file_or_in_its_dataset(stored):
    media = StoredMedia(SlowStore(stored, row))
    assert [media.info(name).name for name in ("a", "imported")] == ["a.mov", "beach 12"]
