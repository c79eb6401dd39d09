"""Admitted videos become batches: wherever a run is killed, and at a cost that does not grow with the store."""

import json
from collections import Counter
from pathlib import Path

import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO

from engine import batches
from engine.batches import BatchStage
from engine.ingest import admitted, ingest
from engine.services import Services, connect
from engine.settings import IngestSettings, Settings
from storage import arrow
from storage.blobs.base import BlobDamaged
from storage.blobs.folder import LocalBlobs
from storage.dataset import parts
from storage.records import Video, content_id
from tests.storage import rows
from tests.storage.killed_writes import Killed, kill_at
from tests.storage.made_videos import MADE, make, numbered


@pytest.fixture
def s(tmp_path):
    with connect(Settings(home=tmp_path / "home", ingest=IngestSettings(held_out_share=0.34))) as services:
        yield services


def write(s: Services, number: int, imported: bool = False, uri: str | None = None) -> bool:
    """Admits a video of no content. Its id has 16 digits, as all ids have."""
    video_id = f"{number:016x}"
    record = rows.make_video(video_id, batch_id="", split="", source_uri=uri or f"/in/{video_id}.mp4")
    (s.home / "video.mp4").write_bytes(video_id.encode())
    return admitted.write(s.blobs, record, s.home / "video.mp4", MADE, None, imported)


def admit(s: Services, numbers: range) -> str:
    for number in numbers:
        assert write(s, number)
    batch_ids, _ = admitted.commit(s, {f"/in/{number:016x}.mp4" for number in numbers})
    return batch_ids[-1]


def test_a_commit_that_is_killed_at_any_write_is_completed_by_the_next(s, monkeypatch):
    left = kill_at(monkeypatch, (LocalBlobs, "create"), (LocalBlobs, "delete"))
    count, killed = 0, True
    while killed:
        left[0] = -1
        for number in range(3 * count, 3 * count + 3):
            assert write(s, number, imported=number == 3 * count)
        left[0] = count
        try:
            admitted.commit(s, set())
            killed = False
        except Killed:
            left[0] = -1
            admitted.commit(s, set())
        count += 1
    assert count > 15, "two batches of a begin, parts and markers, a mark, and what is deleted"
    table = s.tables.scan("videos", columns=["video_id", "batch_id"]).to_pylist()
    assert sorted(int(row["video_id"], 16) for row in table) == list(range(3 * count))
    members = {b: batches.video_ids(s.blobs, b) for b in batches.reached(s.blobs)}
    assert Counter((row["batch_id"], row["video_id"]) for row in table) == Counter(
        (b, v) for b, videos in members.items() for v in videos
    )
    imported = {v for b, videos in members.items() if batches.is_import(s.blobs, b) for v in videos}
    assert imported == {f"{number:016x}" for number in range(0, 3 * count, 3)}
    assert list(s.blobs.keys("uncommitted/")) == []


def test_a_piece_whose_commit_is_killed_at_any_write_is_still_one_batch(s, monkeypatch):
    """The batches that people see, and which videos are held out, do not depend on kills."""
    left = kill_at(monkeypatch, (LocalBlobs, "create"), (LocalBlobs, "delete"))
    count, killed = 0, True
    while killed:
        left[0] = -1
        numbers = range(3 * count, 3 * count + 3)
        assert all([write(s, number) for number in numbers])
        uris = {f"/in/{number:016x}.mp4" for number in numbers}
        ours = {f"{number:016x}" for number in numbers}
        left[0] = count
        try:
            admitted.commit(s, uris, only=ours)
            killed = False
        except Killed:
            left[0] = -1
            admitted.commit(s, uris, only=ours)
        assert len(set.union(*(admitted.batches_of(s.blobs, f"{number:016x}") for number in numbers))) == 1
        assert list(s.blobs.keys("uncommitted/")) == []
        count += 1
    assert count > 10


def test_of_two_processes_with_the_same_bytes_one_admits_them_and_nothing_is_left(s, monkeypatch):
    assert write(s, 1)
    assert not write(s, 1), "the first has not committed it yet"
    assert list(s.blobs.keys("uncommitted/")) == ["uncommitted/videos/0000000000000001"]
    admit(s, range(2, 3))
    assert not write(s, 1), "the first has committed it meanwhile"
    assert list(s.blobs.keys("uncommitted/")) == []
    assert admitted.commit(s, set()) == ([], [])
    assert len(s.tables.videos()) == 2


def test_a_video_becomes_part_of_a_batch_whichever_of_two_processes_wrote_that_it_waits(s, monkeypatch):
    create, first = LocalBlobs.create, []

    def overtaken(blobs, key, data):
        """After this process wrote that the video waits, the other one admits it."""
        done = create(blobs, key, data)
        if key.startswith("uncommitted/videos/") and not first:
            first.append(key)
            assert write(s, 1), "the other process"
        return done

    monkeypatch.setattr(LocalBlobs, "create", overtaken)
    assert not write(s, 1)
    (_,), videos = admitted.commit(s, {"/in/0000000000000001.mp4"})
    assert [video.video_id for video in videos] == ["0000000000000001"]
    assert list(s.blobs.keys("uncommitted/")) == []


def test_a_committed_video_gets_no_second_batch_if_a_process_dies_while_it_admits_the_same_bytes(s, monkeypatch):
    batch_id = admit(s, range(1, 2))
    with monkeypatch.context() as patch:  # it wrote that the video waits, and not that it does not
        patch.setattr(LocalBlobs, "delete", lambda *arguments: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            write(s, 1)
    assert list(s.blobs.keys("uncommitted/")) == ["uncommitted/videos/0000000000000001"]
    assert admitted.commit(s, {"/in/0000000000000001.mp4"}) == ([], [])
    assert [video.batch_id for video in s.tables.videos()] == [batch_id]
    assert list(s.blobs.keys("uncommitted/")) == []


def test_a_batch_that_another_process_completes_meanwhile_is_not_committed_again(s, monkeypatch):
    real, done = parts.commit_batch, []

    def slow(*arguments, **named):
        if not done:
            done.append(True)
            assert admitted.commit(s, set())[1], "the other process finds the batch and completes it"
        return real(*arguments, **named)

    monkeypatch.setattr(parts, "commit_batch", slow)
    batch_id = admit(s, range(3))
    assert [row.batch_id for row in s.tables.videos()] == [batch_id] * 3
    assert s.tables.row_count("videos") == 3
    assert batches.pending(s.blobs, BatchStage.PROPOSED) == [batch_id]
    assert admitted._finish(s, batch_id) == []


@pytest.mark.parametrize("first", range(12))
def test_of_two_processes_that_commit_the_same_videos_each_video_gets_one_batch(s, monkeypatch, first):
    """The second begins before the first-th file that the first one creates, and it has found one video more."""
    create, left = LocalBlobs.create, [-1]

    def overtaken(blobs, key, data):
        left[0] -= 1
        if left[0] == -1:
            assert write(s, 3)
            admitted.commit(s, {"/in/0000000000000003.mp4"})
        return create(blobs, key, data)

    monkeypatch.setattr(LocalBlobs, "create", overtaken)
    for number in range(3):
        assert write(s, number)
    left[0] = first
    admitted.commit(s, set())
    if left[0] >= 0:
        assert first > 8, "the second process never began"
        return
    admitted.commit(s, set())
    table = s.tables.scan("videos", columns=["video_id", "batch_id"]).to_pylist()
    assert sorted(int(row["video_id"], 16) for row in table) == [0, 1, 2, 3]
    members = {b: batches.video_ids(s.blobs, b) for b in batches.reached(s.blobs)}
    assert {(row["batch_id"], row["video_id"]) for row in table} == {(b, v) for b, of in members.items() for v in of}
    assert all(members.values()) and list(s.blobs.keys("uncommitted/")) == []


def test_a_batch_has_at_most_so_many_videos(tmp_path):
    with connect(Settings(home=tmp_path / "home", ingest=IngestSettings(batch_videos=2))) as s:
        for number in range(5):
            write(s, number)
        batch_ids, videos = admitted.commit(s, set())
        assert [len(batches.video_ids(s.blobs, b)) for b in batch_ids] == [2, 2, 1] and len(videos) == 5


def test_a_commit_of_some_videos_reads_nothing_of_those_that_other_processes_are_about_to_commit(s, monkeypatch):
    for number in range(4):
        write(s, number)
    asked = list[str]()

    def noting(name):
        real = getattr(LocalBlobs, name)

        def call(blobs, key, *rest):
            asked.append(key)
            return real(blobs, key, *rest)

        monkeypatch.setattr(LocalBlobs, name, call)

    noting("read")
    noting("exists")
    batch_ids, videos = admitted.commit(s, {"/in/0000000000000001.mp4"}, only={"0000000000000001"})
    assert any("0000000000000001" in key for key in asked)
    assert [key for key in asked for other in (0, 2, 3) if f"{other:016x}" in key] == []
    assert len(batch_ids) == 1 and [video.video_id for video in videos] == ["0000000000000001"]
    assert len(list(s.blobs.keys("uncommitted/videos/"))) == 3
    assert len(admitted.commit(s, set())[1]) == 3


def test_a_damaged_list_of_a_begun_batch_is_an_error_that_names_it(s):
    s.blobs.write("uncommitted/batches/0123456789abcdef.json", b'{"splits": []}')
    with pytest.raises(BlobDamaged, match=r"uncommitted/batches/0123456789abcdef.json: the splits"):
        admitted.commit(s, set())


def test_the_share_is_of_the_videos_whose_split_it_decides(s):
    """Held-out videos of an import do not use up the share, and an import without any does not fill it."""
    for number in range(40):
        record = rows.make_video(f"{number:016x}", batch_id="", split="val" if number < 30 else "train")
        (s.home / "video.mp4").write_bytes(b"v")
        admitted.write(s.blobs, record, s.home / "video.mp4", MADE, None, True)
    admitted.commit(s, set())
    admit(s, range(40, 60))
    splits = [video.split for video in s.tables.videos()]
    assert (splits[:40].count("val"), splits[40:].count("val")) == (30, 6)  # 0.34 * 60 - 0.34 * 40, each rounded


@pytest.mark.parametrize("begun", [False, True])
def test_a_released_copy_and_its_original_are_on_one_side_if_the_copy_is_committed_first(s, monkeypatch, begun):
    """begun: the batch of the original is begun already, and its process is slow, or was killed."""
    (s.home / "video.mp4").write_bytes(b"v")
    for n in range(6):
        original, copy = f"{2 * n:016x}", f"{2 * n + 1:016x}"
        for video_id, of, split in (
            (original, {}, "val" if begun else ""),
            (copy, {"near_duplicate_of": original}, ""),
        ):
            told = {"source_uri": video_id, "source_metadata": json.dumps(of)}
            record = rows.make_video(video_id, batch_id="", split=split, **told)
            admitted.write(s.blobs, record, s.home / "video.mp4", MADE, None, False)
        if begun:
            with monkeypatch.context() as patch:
                patch.setattr(admitted, "_finish", lambda s, batch_id: [])
                admitted.commit(s, {original}, only={original})
        admitted.commit(s, {copy}, only={copy})
        assert s.tables.row_count("videos") == 2 * n + 1
        admitted.commit(s, set())
        assert len({video.split for video in s.tables.videos_by_id([original, copy])}) == 1


def test_the_batches_of_a_folder_are_those_with_videos_in_it(s, tmp_path):
    places = [f"{tmp_path}/clips/x.mp4", f"{tmp_path}/clips-2/x.mp4", "s3://b/p/x.mp4", "s3://b/p2/x"]
    found = []
    for number, place in enumerate(places):
        write(s, number, uri=place)
        found += admitted.commit(s, {place})[0]
    a, b, c, d = found
    assert admitted.from_source(s.blobs, [a, b, c, d], f"{tmp_path}/clips-2/../clips/") == [a]
    assert admitted.from_source(s.blobs, [a, b, d], "s3://b/p") == []
    assert admitted.from_source(s.blobs, [a, b, c, d], "s3://b/p/") == [c]


def test_an_ingest_costs_the_same_with_20_and_with_1000_videos_in_the_store(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    make(source / "new.mp4", [numbered(i) for i in range(24)])
    costs = {}
    for videos in (20, 1000):  # in 20 batches each: from the tenth on, a commit deletes an old file of metadata
        with connect(Settings(home=tmp_path / str(videos))) as s:
            for first in range(0, videos, videos // 20):
                fill(s, range(first, first + videos // 20))
            with monkeypatch.context() as patch:
                costs[videos] = counted(patch)
                report = ingest.admit(s, str(source))
            assert report.admitted == 1 and s.tables.row_count("videos") == videos + 1
    assert costs[20] == costs[1000]
    assert costs[20]["keys"] == 11 and costs[20]["new_input"] == 3, "what is counted is what happens"


def fill(s: Services, numbers: range) -> None:
    """A batch of these videos, as earlier runs of ingest over another source left it; its rows are in one file."""
    ids = [f"{number:016x}" for number in numbers]
    batch_id = content_id("batch", *ids)
    videos = [rows.make_video(video_id, batch_id=batch_id) for video_id in ids]
    root = Path(s.blobs.uri)
    files = {f"videos/{video_id}/record.json": b"{}" for video_id in ids}
    files |= {f"sources/0123456789abcdef/{video_id}.json": b"{}" for video_id in ids}
    files[part := f"parts/videos/{batch_id}.parquet"] = arrow.to_parquet(Video, videos)
    for key, data in files.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
    s.tables.commit("videos", [root / part], batch_id)
    batches.mark(s.blobs, batch_id, BatchStage.INGESTED, {"videos": ids})


def counted(patch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the requests to the store, the keys that it lists, and the files of tables that are opened."""
    counts = Counter[str]()

    def count(owner, name):
        real = getattr(owner, name)

        def call(*arguments, **named):
            counts[name] += 1
            answer = real(*arguments, **named)
            if name != "entries":
                return answer
            found = list(answer)
            counts["listed"] += len(found)
            return iter(found)

        patch.setattr(owner, name, call)

    for name in ("read", "write", "create", "exists", "keys", "entries", "size", "delete", "fetch", "local"):
        count(LocalBlobs, name)
    for name in ("new_input", "new_output", "delete"):
        count(PyArrowFileIO, name)
    return counts
