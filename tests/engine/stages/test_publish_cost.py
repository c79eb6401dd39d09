"""Publishing one more batch: what it costs does not grow with the store, and a kill at any write loses nothing."""

import re
from dataclasses import replace

import pytest
from pyiceberg.io.pyarrow import PyArrowFile

from benchmarks import scale
from engine.services import connect
from engine.settings import Settings
from engine.stages import publish
from engine.views import card
from storage.blobs.folder import LocalBlobs
from storage.dataset import batch_manifests, parts, releases, reproduction
from storage.iceberg import table_upkeep
from storage.records import Masklet
from storage.wording import counted
from tests.engine.ingest import test_admitted
from tests.storage.killed_writes import Killed, kill_at
from validation import table_checks

VIDEOS = 2
pytestmark = pytest.mark.slow


@pytest.fixture
def s(tmp_path, monkeypatch):
    """Without the checks of whole tables: they look at one batch, and take seconds."""
    passed = table_checks.Report(success=True, results=(), docs_index=None)
    monkeypatch.setattr(table_checks, "check_tables", lambda *arguments, **named: passed)
    with connect(Settings(home=tmp_path / "home")) as services:
        yield services


def test_a_publish_costs_the_same_with_12_and_with_24_batches_in_the_store(s, monkeypatch):
    monkeypatch.setattr(releases, "OWN", 100)
    costs = {}
    for number in range(1, 26):
        batch_id, _ = scale.collect(s, number, VIDEOS)
        batch_manifests.forget()
        with monkeypatch.context() as patch:
            counts = test_admitted.counted(patch)
            publish.publish_batch(s, batch_id)
        costs[number - 1] = counts
    grown = costs[24]["listed"] - costs[12]["listed"]
    assert grown == 12 * 2, "the manifests and the cards of the releases are listed once"
    for found in costs.values():
        del found["listed"]
    assert costs[12] == costs[24]  # from 10 versions on, each commit deletes an old file of metadata
    assert costs[12]["read"] > VIDEOS and costs[12]["new_input"] > 0, "what is counted is what happens"


def test_a_publish_that_is_killed_at_any_write_is_completed_by_the_next_run(s, monkeypatch):
    left = kill_at(monkeypatch, (LocalBlobs, "create"), (PyArrowFile, "create"))
    count, killed, names = 0, True, []
    while killed:
        left[0] = -(10**9)
        batch_id, _ = scale.collect(s, count, VIDEOS)
        left[0] = count
        try:
            names.append(publish.publish_batch(s, batch_id))
            killed = False
        except Killed:
            left[0] = -(10**9)
            assert publish.pending(s) == [batch_id]
            names.append(publish.publish_batch(s, batch_id))
        left[0] = -(10**9)
        count += 1
    assert count > 11, "marks, two commits of three files, two manifests and the batch's mark"
    assert publish.pending(s) == [] and releases.names(s.blobs) == names
    wanted = [f"{row.masklet_id}" for n in range(count) for row in all_rows(n)]
    assert sorted(row.masklet_id for row in s.tables.masklets()) == sorted(wanted)
    for n, name in enumerate(names):
        release = releases.load(s.blobs, name)
        text = s.blobs.read(card.key_of(name)).decode()
        assert f"It adds to {names[n - 1]}." in text if n else "It adds to no other release." in text
        assert f"\n{len(wanted) * (n + 1) // count} masklets of {counted(VIDEOS * (n + 1), 'video')}, " in text
        assert f"## What batch {name.rpartition('-')[2]} added" in text
        assert sorted(row.masklet_id for row in release.iter_masklets()) == sorted(
            wanted[: len(wanted) * (n + 1) // count]
        )
    assert reproduction.reproduce(release).sha256 == release.digest
    assert release.verify() == [] and release.counts["masklets"] == len(wanted)
    assert (release.counts["videos"], len(release.videos())) == (VIDEOS * count,) * 2


def test_the_metadata_of_the_tables_does_not_grow_with_the_published_batches(s, monkeypatch):
    monkeypatch.setattr(table_upkeep, "KEPT", 2)
    monkeypatch.setattr(publish, "EXPIRED_TOGETHER", 2)
    for number in range(1, 9):
        batch_id, _ = scale.collect(s, number, 1)
        name = publish.publish_batch(s, batch_id)
        for table in ("videos", "masklets", "operations"):
            assert len(s.tables.load(table).metadata.snapshots) <= 4
    assert len(releases.load(s.blobs, name).batches) == 8, "the releases hold what they held"
    assert releases.load(s.blobs, name).counts["masklets"] == s.tables.row_count("masklets")


def all_rows(number: int) -> list[Masklet]:
    return [row for video_id in scale.ids_of(number, VIDEOS) for row in scale.masklets_of(video_id, "", "train")]


def test_masklets_that_were_committed_and_not_released_are_not_published_again(s):
    """A batch of an earlier version that shares a video with this one was killed before its release."""
    first, ids = scale.collect(s, 1, 1)
    other = "f" * 16
    (row,) = parts.rows(s.blobs, "videos", first)
    rows = list(parts.rows(s.blobs, "masklets", first))
    shared = [replace(each, batch_id=other) for each in rows]
    scale.store(s, other, [replace(row, batch_id=other)], {row.video_id: shared})
    parts.commit_batch(s.blobs, s.tables, "masklets", first)
    publish.publish_batch(s, other)
    assert {m.batch_id for m in s.tables.masklets()} == {first}
    reasons = {q.reason for q in s.tables.quarantine(where=f"batch_id == '{other}'")}
    assert reasons == {"repeated"} and re.fullmatch(r"release-0001-f+", releases.names(s.blobs)[0])
