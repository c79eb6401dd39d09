"""Near duplicates: what is found, what is not taken for one, and the files that the hashes of all videos are in."""

import json
import logging
from collections import Counter
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest

from annotation_queue.pipeline_records import Action
from engine.ingest import admitted, hash_index, ingest, near_duplicates, overrides
from engine.ingest.hash_index import HashIndex
from engine.ingest.near_duplicates import Alike, Looks
from engine.services import connect
from engine.settings import IngestSettings, Settings
from storage.blobs.folder import LocalBlobs
from storage.records import Refusal
from storage.videos import video

pytestmark = pytest.mark.slow

SECONDS, SIDE = 5, 96
WAITING = admitted.WAITING


def landscape(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (3 * SIDE, 3 * SIDE, 3), dtype=np.uint8)
    soft = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 12)
    return np.asarray(np.clip((soft - soft.mean()) * 12 + 128, 0, 255), dtype=np.uint8)


def panned(seed: int, seconds: float = SECONDS) -> np.ndarray:
    """A camera that moves over a landscape. (T, H, W, 3)."""
    picture, rng = landscape(seed), np.random.default_rng(seed)
    ways = rng.uniform(20, 120, (2, 4))
    t = np.linspace(0, 1, round(24 * seconds))
    y, x = (np.interp(t, np.linspace(0, 1, 4), way).astype(int) for way in ways)
    return np.stack([picture[a : a + SIDE, b : b + SIDE] for a, b in zip(y, x, strict=True)])


def smaller(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(frame, (72, 72)) for frame in frames])


def one_camera(seed: int) -> np.ndarray:
    """A camera that does not move; a ball crosses its picture. The background is the same for every seed."""
    frames = np.repeat(landscape(1000)[None, :SIDE, :SIDE], 24 * SECONDS, axis=0)
    ways = np.random.default_rng(seed).uniform(10, 86, (2, 7))
    for i, frame in enumerate(frames):
        y, x = (int(np.interp(i / len(frames), np.linspace(0, 1, 7), way)) for way in ways)
        cv2.circle(frame, (x, y), 9, (255, 255, 255), -1)
    return frames


@pytest.fixture
def s(tmp_path):
    ours = IngestSettings(source=str(tmp_path / "source"), held_out_share=0.5)
    (tmp_path / "source").mkdir()
    with connect(Settings(home=tmp_path / "home", ingest=ours)) as services:
        yield services


def refused(s) -> dict[str, str]:
    return {
        row.subject.rpartition("/")[2]: row.detail for row in s.tables.quarantine() if row.reason == "near_duplicate"
    }


def test_copies_are_refused_with_the_other_video_and_different_videos_are_admitted(s, tmp_path):
    source = tmp_path / "source"
    original = panned(1)
    video.write(source / "original.mp4", original)
    video.write(source / "monday.mp4", one_camera(2))
    assert ingest.admit(s).admitted == 2
    marked = original.copy()
    marked[:, -16:-6, 8:60] = 255
    video.write(source / "other.mp4", panned(3))
    video.write(source / "tuesday.mp4", one_camera(4))
    video.write(source / "smaller.mp4", smaller(original))
    video.write(source / "part.mp4", original[34:110])
    video.write(source / "mirrored.mp4", original[:, :, ::-1])
    video.write(source / "marked.mp4", marked)
    video.write(source / "longer.mp4", np.concatenate([panned(5, 2), original]))
    report = ingest.admit(s)
    found = refused(s)
    assert set(found) == {"smaller.mp4", "part.mp4", "mirrored.mp4", "marked.mp4", "longer.mp4"}
    assert (report.admitted, report.quarantined) == (2, 5)
    assert all(f"shows what {source}/original.mp4 (" in line for line in found.values())
    assert [name for name, line in found.items() if ", mirrored: " in line] == ["mirrored.mp4"]
    begins_s = float(found["part.mp4"].partition("from ")[2].split()[0])
    assert abs(begins_s - 34 / 24) < 0.2
    assert ingest.admit(s).unchanged == 9


def test_a_released_copy_is_on_the_side_of_the_original(s, tmp_path):
    source = tmp_path / "source"
    for n in range(4):
        video.write(source / f"{n}.mp4", panned(n))
    ingest.admit(s)
    for n in range(4):
        video.write(source / f"{n}-small.mp4", smaller(panned(n)))
    assert ingest.admit(s).quarantined == 4
    for row in s.tables.quarantine():
        overrides.decide(s.blobs, row, Action.RELEASE, act_id=row.subject[-11], by="ann", why="the sharper one")
    assert ingest.admit(s).admitted == 4
    rows = {row.source_uri.rpartition("/")[2]: row for row in s.tables.videos()}
    assert {row.split for row in rows.values()} == {"train", "val"}
    for n in range(4):
        copy, original = rows[f"{n}-small.mp4"], rows[f"{n}.mp4"]
        assert copy.split == original.split
        assert json.loads(copy.source_metadata or "") == {"near_duplicate_of": original.video_id}


def test_of_copies_in_one_run_one_is_admitted(s, tmp_path):
    for n in range(6):
        video.write(tmp_path / "source" / f"{n}.mp4", panned(7)[:, : SIDE - 2 * n])
    report = ingest.admit(s)
    assert (report.admitted, report.quarantined) == (1, 5)


def test_a_copy_of_what_a_killed_run_left_is_refused(s, tmp_path, monkeypatch):
    video.write(tmp_path / "source" / "original.mp4", panned(8))
    with monkeypatch.context() as patch:
        patch.setattr(admitted, "_begin", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest.admit(s)
    (tmp_path / "source" / "original.mp4").unlink()
    video.write(tmp_path / "elsewhere" / "copy.mp4", smaller(panned(8)))
    assert s.tables.row_count("videos") == 0
    assert ingest.admit(s, str(tmp_path / "elsewhere")).quarantined == 1


def test_a_flat_picture_has_no_hash(tmp_path):
    """All black videos would be alike."""
    grey = np.full((48, SIDE, SIDE, 3), 3, dtype=np.uint8)
    black = looks_at(grey)
    assert black.flat.all()
    index = HashIndex(LocalBlobs(tmp_path), WAITING)
    assert index.check_in("a", black, Alike()) is None and index.check_in("b", black, Alike()) is None


def looks_at(frames: np.ndarray) -> Looks:
    import av

    looker = near_duplicates.Looker()
    pictures = (av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24") for frame in frames)
    assert len(list(looker.through(pictures))) == len(frames)
    return looker.looks()


def made_looks(rng: np.random.Generator, seconds: int) -> Looks:
    """Looks at a video with random pictures, one a second."""
    pictures = rng.integers(0, 256, (seconds, near_duplicates.SIDE, near_duplicates.SIDE), dtype=np.uint8)
    return Looks(rng.integers(0, 1 << 63, seconds, dtype=np.uint64), np.zeros(seconds, bool), pictures)


def store(blobs, rng, number: int) -> tuple[str, Looks]:
    video_id = f"{number:016x}"
    looks = made_looks(rng, 3 + number % 5)
    blobs.write(hash_index.looks_key(video_id), hash_index.dump(looks))
    return video_id, looks


def as_new(looks: Looks) -> Looks:
    """The same looks as those at a new video, twelve a second."""
    often = partial(np.repeat, repeats=near_duplicates.A_SECOND, axis=0)
    return Looks(often(looks.hashes), often(looks.flat), often(looks.pictures), often(looks.hashes))


def test_the_files_of_many_batches_are_few_and_every_video_is_found_through_all_merges(tmp_path, monkeypatch):
    monkeypatch.setattr(hash_index, "_FILES", 3)
    blobs, rng, known = LocalBlobs(tmp_path), np.random.default_rng(0), {}
    index = HashIndex(blobs, WAITING)
    assert index.check_in("f" * 16, as_new(made_looks(rng, 3)), Alike()) is None
    for batch in range(30):
        each = dict(store(blobs, rng, 2 * batch + n) for n in range(2))
        hash_index.add_batch(blobs, f"{batch:04d}", sorted(each))
        hash_index.add_batch(blobs, f"{batch:04d}", sorted(each))  # a killed run's work is done again
        known |= each
        for video_id, looks in list(known.items())[-3:] + list(known.items())[:1]:  # read by merged and by new files
            assert index.check_in("e" * 16, as_new(looks), Alike()).video_id == video_id
    files = Counter(key.split("/")[1] for key in blobs.keys("hashes/"))
    assert max(files.values()) < 3 and sum(files.values()) <= 8 and len(files) > 2
    fresh = HashIndex(blobs, WAITING)
    assert all(fresh.check_in("e" * 16, as_new(looks), Alike()).video_id == v for v, looks in known.items())


def test_a_file_that_is_merged_while_it_is_read_is_read_from_the_larger_one(tmp_path, monkeypatch):
    blobs, rng = LocalBlobs(tmp_path), np.random.default_rng(0)
    video_id, looks = store(blobs, rng, 1)
    hash_index.add_batch(blobs, "0000", [video_id])
    real, keys = LocalBlobs.read, []

    def replaced(self, key, *more):
        if key == "hashes/0/0000.npz" and not keys:
            keys.append(key)
            blobs.write("hashes/1/0000.npz", real(self, key))
            blobs.delete(key)
        return real(self, key, *more)

    monkeypatch.setattr(LocalBlobs, "read", replaced)
    assert HashIndex(blobs, WAITING).check_in("e" * 16, as_new(looks), Alike()).video_id == video_id
    assert keys


def test_damaged_files_are_made_again_and_ingest_goes_on(s, tmp_path, caplog):
    """The file of all hashes from the looks at each video, and damaged looks from the video itself."""
    source = tmp_path / "source"
    for n in range(2):
        video.write(source / f"{n}.mp4", panned(n))
    ingest.admit(s)
    (hashes,) = s.blobs.keys("hashes/")
    s.blobs.write(hashes, b"no hashes")
    for row in s.tables.videos():
        if row.source_uri.endswith("0.mp4"):
            s.blobs.write(hash_index.looks_key(row.video_id), b"no looks")
    for n in range(3):
        video.write(source / f"{n}-small.mp4", smaller(panned(n)))
    report = ingest.admit(s)
    assert (report.admitted, report.quarantined) == (1, 2)
    assert set(refused(s)) == {"0-small.mp4", "1-small.mp4"}
    assert hashes not in s.blobs.keys("hashes/")
    assert f"{hashes} was damaged: hashes of 2 videos were written again" in caplog.text
    caplog.clear()
    video.write(source / "0-mirrored.mp4", panned(0)[:, :, ::-1])
    assert ingest.admit(s).quarantined == 1 and not any(line.levelno >= logging.WARNING for line in caplog.records)


def test_of_a_withdrawn_video_the_hashes_alone_decide(tmp_path):
    blobs, rng = LocalBlobs(tmp_path), np.random.default_rng(0)
    video_id, looks = store(blobs, rng, 1)
    hash_index.add_batch(blobs, "0000", [video_id])
    blobs.delete(hash_index.looks_key(video_id))
    assert HashIndex(blobs, WAITING).check_in("e" * 16, as_new(looks), Alike()).video_id == video_id


def one_place(rng: np.random.Generator, videos: int) -> dict[str, Looks]:
    """A camera that does not move: every second of every video has nearly the same hash."""
    place, found = np.uint64(0x0F1E2D3C4B5A6978), {}
    for number in range(videos):
        bits = rng.integers(0, 64, (6, 3), dtype=np.uint64)
        hashes = place ^ np.bitwise_xor.reduce(np.left_shift(np.uint64(1), bits), axis=1)
        found[f"{number:016x}"] = replace(made_looks(rng, 6), hashes=hashes)
    return found


@pytest.mark.parametrize(("limit", "most"), [("_MOST_LAID", 50), ("_MOST_LAID", 2), ("_MOST_SECONDS", 20)])
def test_a_copy_is_found_among_many_videos_of_the_same_place(monkeypatch, limit, most):
    monkeypatch.setattr(near_duplicates, limit, most)
    videos = one_place(np.random.default_rng(0), 2 * near_duplicates._MOST_VIDEOS)
    table = hash_index.table_of(videos)
    for video_id in (min(videos), max(videos)):
        found = near_duplicates.find(as_new(videos[video_id]), table, videos.get, Alike())
        assert found is not None and (found.video_id, found.alike) == (video_id, 6)


def test_the_cost_of_a_search_does_not_grow_with_the_videos_that_are_alike(monkeypatch):
    """Each second of a new video is compared with every hash, but laid over a limited number of places only."""
    monkeypatch.setattr(near_duplicates, "_MOST_SECONDS", 400)
    real, places = near_duplicates._Line.alike, Counter()

    def counted(self, looks, how):
        places[len(self.block)] += 1
        return real(self, looks, how)

    monkeypatch.setattr(near_duplicates._Line, "alike", counted)
    rng = np.random.default_rng(0)
    (new,) = one_place(rng, 1).values()
    for videos in (100, 200):
        places.clear()
        near_duplicates.find(as_new(new), hash_index.table_of(one_place(rng, videos)), lambda name: None, Alike())
        coarse, fine = max(places), min(places)
        assert places == {coarse: 6, fine: 24} and coarse == 12 * videos and fine <= 400


def test_of_copies_that_are_searched_at_once_the_second_finds_the_first(tmp_path, monkeypatch):
    index, looks = HashIndex(LocalBlobs(tmp_path), WAITING), as_new(made_looks(np.random.default_rng(0), 4))
    real, found = near_duplicates.find, []

    def slow(*arguments, **named):
        if not found:  # while one searches, another video arrives
            found.append(None)
            found.append(index.check_in("b", looks, Alike()))
        return real(*arguments, **named)

    monkeypatch.setattr(near_duplicates, "find", slow)
    match = index.check_in("a", looks, Alike())
    assert found == [None, None] and match.video_id == "b"


def test_a_worker_that_is_killed_in_the_search_counts_as_an_attempt_at_the_video(s, tmp_path, monkeypatch):
    video.write(tmp_path / "source" / "a.mp4", panned(9, 1))
    real, begun = near_duplicates.find, []

    def searching(*arguments, **named):
        begun.append(list(s.blobs.keys("attempts/ingest/")))
        return real(*arguments, **named)

    monkeypatch.setattr(near_duplicates, "find", searching)
    assert ingest.admit(s).admitted == 1
    assert begun and all(len(marks) == 1 for marks in begun), "what a kill leaves"
    assert not list(s.blobs.keys("attempts/"))


def test_a_release_is_offered_for_a_near_duplicate():
    assert Refusal.NEAR_DUPLICATE in overrides.RELEASES
