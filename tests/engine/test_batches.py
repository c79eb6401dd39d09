"""Batches: their marks, their order, and damaged marks."""

import json
import os
import time
from pathlib import Path
from unittest import mock

import pytest

from engine import batches
from engine.batches import BatchStage
from engine.files import held
from engine.services import connect
from engine.settings import Settings
from engine.stages import propose, publish, review, upkeep
from storage.blobs.base import BlobDamaged
from storage.blobs.cleaning import LEFT_S
from storage.blobs.folder import LocalBlobs
from tests.engine.ingest.test_admitted import counted
from tests.storage.killed_writes import Killed, kill_at
from tests.storage.rows import make_video

BATCH = "0123456789abcdef"


def test_a_batch_is_pending_for_the_stage_after_the_one_that_marked_it(tmp_path):
    blobs = LocalBlobs(tmp_path)
    assert batches.pending(blobs, BatchStage.PROPOSED) == []
    batches.mark(blobs, BATCH, BatchStage.INGESTED, {"videos": ["v"]})
    assert batches.pending(blobs, BatchStage.PROPOSED) == [BATCH]
    assert batches.pending(blobs, BatchStage.IN_REVIEW) == []
    batches.mark(blobs, BATCH, BatchStage.PROPOSED, {})
    assert batches.pending(blobs, BatchStage.PROPOSED) == []
    assert batches.pending(blobs, BatchStage.IN_REVIEW) == [BATCH]


def test_a_thousand_batches_in_review_are_work_for_no_stage(tmp_path):
    """Only people work on them: no task is started for them, so none holds a worker or a slot of a pool."""
    with connect(Settings(home=tmp_path / "home")) as s:
        for n in range(1000):
            folder = Path(s.blobs.uri) / "open" / f"{n:016x}"
            folder.mkdir(parents=True)
            for stage in (BatchStage.INGESTED, BatchStage.PROPOSED, BatchStage.IN_REVIEW):
                (folder / stage).touch()
        (folder.parent / "complete").touch()
        queue = mock.Mock(drained_batches=mock.Mock(return_value=[]))
        s.__dict__["queue"] = queue
        assert len(batches.in_review(s.blobs)) == 1000
        stages = (propose.pending, review.to_open, review.to_collect, publish.pending)
        assert [pending(s) for pending in stages] == [[], [], [], []]
        queue.drained_batches.assert_called_once_with(ids(0, 1000))  # one question, and only about these


def test_the_first_mark_of_a_stage_stays(tmp_path):
    blobs = LocalBlobs(tmp_path)
    assert batches.mark(blobs, BATCH, BatchStage.INGESTED, {"n": 1})
    assert not batches.mark(blobs, BATCH, BatchStage.INGESTED, {"n": 2})
    assert batches.facts(blobs, BATCH, BatchStage.INGESTED) == {"n": 1}


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "0123", "0123456789ABCDEF"])
def test_an_invalid_batch_id_never_becomes_a_path(tmp_path, name):
    with pytest.raises(ValueError, match="not a batch id"):
        batches.mark(LocalBlobs(tmp_path), name, BatchStage.INGESTED, {})


@pytest.mark.parametrize("written", [b"", b"[]", b"{", b"\xff\xfe"])
def test_a_damaged_marker_is_an_error_in_one_line_that_names_it(tmp_path, written):
    blobs = LocalBlobs(tmp_path)
    blobs.write(f"batches/{BATCH}/{BatchStage.INGESTED}.json", written)
    with pytest.raises(BlobDamaged, match=f"^batches/{BATCH}/1-ingested.json: not "):
        batches.video_ids(blobs, BATCH)


def test_a_marker_without_its_videos_is_damaged(tmp_path):
    blobs = LocalBlobs(tmp_path)
    batches.mark(blobs, BATCH, BatchStage.INGESTED, {})
    with pytest.raises(BlobDamaged, match="the list of videos is missing"):
        batches.video_ids(blobs, BATCH)


@pytest.mark.parametrize(
    ("uris", "name"),
    [
        (["/data/kitchen/a.mp4", "/data/kitchen/b.mp4"], "kitchen"),
        (["/data/kitchen/monday/a.mp4", "/data/kitchen/tuesday/b.mp4"], "kitchen"),
        (["s3://bucket/films/new/a.mp4"], "new"),
        (["s3://bucket/a.mp4", "s3://bucket/films/b.mp4"], "bucket"),
        (["/a.mp4"], ""),
        ([], ""),
    ],
)
def test_a_batch_is_named_after_the_folder_of_its_videos(uris, name):
    assert batches.name_of(make_video(f"v{n}", source_uri=uri) for n, uri in enumerate(uris)) == name


def ids(first: int, last: int) -> list[str]:
    return [f"{number:016x}" for number in range(first, last)]


def finish(blobs, batch_ids) -> None:
    for batch_id in batch_ids:
        for stage in BatchStage:
            batches.mark(blobs, batch_id, stage, {"videos": []})


def test_what_is_pending_is_found_by_the_unfinished_batches_however_many_are_finished(tmp_path, monkeypatch):
    costs = {}
    for finished in (2, 40):
        blobs = LocalBlobs(tmp_path / str(finished))
        batches.pending(blobs, BatchStage.PROPOSED)
        finish(blobs, ids(0, finished))
        for batch_id in ids(100, 103):
            batches.mark(blobs, batch_id, BatchStage.INGESTED, {})
        batches.mark(blobs, ids(102, 103)[0], BatchStage.PROPOSED, {})
        with monkeypatch.context() as patch:
            costs[finished] = counted(patch)
            assert batches.pending(blobs, BatchStage.PROPOSED) == ids(100, 102)
            assert batches.pending(blobs, BatchStage.IN_REVIEW) == ids(102, 103)
            assert batches.in_review(blobs) == []
        assert len(batches.reached(blobs)) == finished + 3
    assert costs[2] == costs[40] and costs[2]["listed"] == 3 * (1 + 4), "three questions; a flag, and four marks"


def test_the_batches_of_an_earlier_version_are_found_once(tmp_path):
    blobs = LocalBlobs(tmp_path)
    for batch_id in ids(0, 3):
        batches.mark(blobs, batch_id, BatchStage.INGESTED, {})
    finish(blobs, ids(2, 3))
    for key in list(blobs.keys("open/")):
        blobs.delete(key)
    assert batches.pending(blobs, BatchStage.PROPOSED) == ids(0, 2)


def test_copies_that_are_missing_are_made_and_none_for_a_published_batch(tmp_path, monkeypatch):
    blobs = LocalBlobs(tmp_path)
    for batch_id in ids(0, 3):
        batches.mark(blobs, batch_id, BatchStage.INGESTED, {})
    finish(blobs, ids(1, 2))
    batches.unfinished(blobs)
    for key in list(blobs.keys("open/0")):
        blobs.delete(key)
    real = batches.reached

    def reached(blobs):
        found = real(blobs)
        finish(blobs, ids(2, 3))  # another process publishes it at this moment
        return found

    monkeypatch.setattr(batches, "reached", reached)
    batches.copy_marks(blobs)
    assert batches.pending(blobs, BatchStage.PROPOSED) == ids(0, 1)
    assert len(list(blobs.keys("open/0"))) == 1


def test_tidy_makes_the_copies_that_are_missing(tmp_path):
    with connect(Settings(home=tmp_path)) as s:
        batches.unfinished(s.blobs)
        s.blobs.create(f"batches/{BATCH}/{BatchStage.INGESTED}.json", b"{}")  # killed before its copy
        upkeep.tidy(s)
        assert batches.pending(s.blobs, BatchStage.PROPOSED) == [BATCH]


def test_tidy_removes_a_large_file_only_while_no_other_process_writes_one(tmp_path, monkeypatch):
    key, old, removed = f"compacted/masklets/{BATCH}-{BATCH}.parquet", time.time() - 3 * LEFT_S, {}
    with connect(Settings(home=tmp_path)) as s:
        s.blobs.create(key, b"killed")
        os.utime(s.blobs.uri_of(key), (old, old))
        s.blobs.create("condemned.json", json.dumps({key: old + LEFT_S}).encode())

        def delete(blobs, name):
            removed[name] = held(Path(s.blobs.uri, "locks", "publish.lock"))

        monkeypatch.setattr(LocalBlobs, "delete", delete)
        upkeep.tidy(s)
    assert removed == {key: True}


def test_a_mark_that_is_killed_at_any_write_is_completed_by_the_next_run(tmp_path, monkeypatch):
    left = kill_at(monkeypatch, (LocalBlobs, "create"), (LocalBlobs, "delete"))
    order = list(BatchStage)
    for writes in range(8):
        blobs = LocalBlobs(tmp_path / str(writes))
        batches.pending(blobs, BatchStage.PROPOSED)
        for n, stage in enumerate(order):
            left[0] = writes
            try:
                batches.mark(blobs, BATCH, stage, {})
            except Killed:
                left[0] = 10**9
                marked = batches.facts(blobs, BATCH, stage) is not None
                waiting = [s for s in order[1:] if batches.pending(blobs, s)]
                assert waiting in ([], [order[n]] if n else [], order[n + 1 : n + 2]), "it waits for this, or the next"
                assert marked or n == 0 or waiting == [order[n]], "unmarked work is never forgotten"
                if stage == BatchStage.PUBLISHED and marked:
                    assert waiting == [] and list(blobs.keys("open/")) == ["open/complete"], "nobody publishes it again"
                batches.mark(blobs, BATCH, stage, {})
            left[0] = 10**9
            assert [s for s in order[1:] if batches.pending(blobs, s)] == order[n + 1 : n + 2]
        assert list(blobs.keys("open/")) == ["open/complete"]
