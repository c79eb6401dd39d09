"""Compaction: the same rows in few large files, read by video, and nothing lost wherever it is killed."""

from __future__ import annotations

import hashlib

import pytest
from pyiceberg.io.pyarrow import PyArrowFile

from storage import arrow
from storage.blobs.folder import LocalBlobs
from storage.dataset import batch_manifests, compacted, compaction, parts, releases
from storage.dataset.batch_manifests import ReleaseError
from storage.iceberg import table_upkeep
from storage.iceberg.table_errors import TablesError
from storage.records import Masklet, Operation
from tests.storage.dataset.test_releases import publish
from tests.storage.killed_writes import Killed, kill_at
from validation import release_checks

ROWS = {"b1": {"v9": 2, "v1": 3}, "b2": {"v5": 1}, "b3": {"v3": 2, "v7": 1}}

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A row group for every video."""
    batch_manifests.forget()
    monkeypatch.setattr(compacted, "GROUP_BYTES", 1)


def act(video_id: str, batch_id: str) -> Operation:
    return Operation(
        operation_id=f"o-{video_id}",
        ticket_id="t",
        batch_id=batch_id,
        video_id=video_id,
        masklet_id="m",
        person="ann",
        kind="verdict",
        frame_idx=None,
        payload="{}",
        created_at="2026-01-01T00:00:00Z",
    )


def fill(blobs, tables, video, masklet) -> releases.Release:
    """Three releases, one for each batch."""
    for n, (batch_id, videos) in enumerate(ROWS.items(), 1):
        publish(blobs, tables, video, masklet, batch_id, videos)
        for video_id in videos:
            rows = [act(video_id, batch_id)]
            parts.write_part(blobs, kind="operations", batch_id=batch_id, video_id=video_id, rows=rows)
        parts.commit_batch(blobs, tables, "operations", batch_id)
        release = releases.make(blobs, tables, f"release-{n:04d}-{batch_id}")
    return release


def compact(blobs, tables, tmp_path, least=1500) -> releases.Release:
    newest = releases.load(blobs, releases.names(blobs)[-1])
    groups = [compaction.write(blobs, refs, tmp_path / "work") for refs in compaction.plan(newest, least)]
    made = compaction.release(blobs, newest, f"release-{len(releases.names(blobs)) + 1:04d}-c", groups)
    assert compaction.settle(blobs, tables, made) == []
    return made


def of_rows(release: releases.Release) -> str:
    """The hash of all rows of a release."""
    return hashlib.sha256(repr(release.masklets()).encode() + repr(release.videos()).encode()).hexdigest()


def state(tables):
    return [tables.masklets(), tables.videos(), tables.operations(), tables.row_count("masklets")]


def everything_read(monkeypatch) -> list[tuple[str, int, int]]:
    """Every read of the folder from now on: key, first byte, number of bytes."""
    found, real = [], LocalBlobs.read

    def read(self, key, limit=-1, start=0):
        data = real(self, key, limit, start)
        found.append((key, start, len(data)))
        return data

    monkeypatch.setattr(LocalBlobs, "read", read)
    return found


def test_a_compacted_release_and_the_tables_have_the_same_rows_in_few_files(disk, tables, video, masklet, tmp_path):
    old, before = fill(disk, tables, video, masklet), state(tables)
    earlier = {name: of_rows(releases.load(disk, name)) for name in releases.names(disk)}
    new = compact(disk, tables, tmp_path, 10**9)
    assert list(new.files("masklets")) == list(old.files("masklets")), "too few rows for a large file: they wait"
    new = compact(disk, tables, tmp_path, least=sum(file.size for file in old.files("masklets")))
    (large,) = new.files("masklets")
    assert large.video_id is None and large.rows == 9 and large.key.startswith("compacted/masklets/")
    assert len(list(new.files("videos"))) == 1 and sorted(new.files("media"), key=lambda f: f.key) == sorted(
        old.files("media"), key=lambda f: f.key
    )
    ids = arrow.read_parquet(disk.read(large.key), ["video_id"])["video_id"].to_pylist()
    assert ids == sorted(ids) and len(ids) == 9
    assert of_rows(new) == of_rows(old) and new.counts == old.counts and new.verify() == []
    assert release_checks.check(new).masklets == 9 and new.masklet_counts() == old.masklet_counts()
    assert state(tables) == before
    for table in ("masklets", "videos", "operations"):
        assert len(list(tables.load(table).scan().plan_files())) == 1
    for name, digest in earlier.items():
        assert of_rows(releases.load(disk, name)) == digest and releases.load(disk, name).verify() == []
    assert disk.exists(next(iter(old.files("masklets"))).key)


def test_later_batches_are_added_and_wait_for_their_own_large_file(disk, tables, video, masklet, tmp_path, monkeypatch):
    monkeypatch.setattr(releases, "OWN", 2)
    fill(disk, tables, video, masklet)
    compact(disk, tables, tmp_path, 1)
    for n in range(4, 9):
        publish(disk, tables, video, masklet, f"b{n}", {f"w{n}": 1})
        new = releases.make(disk, tables, f"release-{n + 1:04d}-b{n}")
        assert len(new.masklets()) == 9 + n - 3 and new.counts["masklets"] == 9 + n - 3
        assert [m.masklet_id for m in new.masklets(["v9", f"w{n}"])] == ["v9-0", "v9-1", f"w{n}-0"]
    size = next(iter(file.size for file in new.files("masklets") if file.video_id == "w4"))
    groups = list(compaction.plan(new, 2 * size))
    assert [[ref.batch_id for ref in refs] for refs in groups] == [["b4", "b5"], ["b6", "b7"]]
    newer = compact(disk, tables, tmp_path, 2 * size)
    assert of_rows(newer) == of_rows(new) and len(list(newer.files("masklets"))) == 3 + 2 + 1
    assert len(tables.masklets()) == 14
    publish(disk, tables, video, masklet, "b9", {"v5": 0, "x": 1})
    assert releases.make(disk, tables, "release-0099-b9").counts["videos"] == 11


def test_masklets_of_a_video_in_a_large_file_count_with_it(disk, tables, video, masklet, tmp_path):
    fill(disk, tables, video, masklet)
    compact(disk, tables, tmp_path, 1)
    rows = [masklet("late", "v9", "b4", kind="manual")]
    parts.write_part(disk, kind="masklets", batch_id="b4", video_id="v9", rows=rows)
    parts.commit_batch(disk, tables, "masklets", "b4")
    new = releases.make(disk, tables, "release-0009-b4")
    assert (new.counts["videos"], new.counts["by_kind"]["manual"]["videos"]) == (5, 1)
    assert [m.masklet_id for m in new.masklets(["v9"])] == ["late", "v9-0", "v9-1"]


def test_one_video_is_read_without_the_rest_of_the_large_file(disk, tables, video, masklet, tmp_path, monkeypatch):
    sizes = {}
    for videos in (20, 200):
        rows = [
            arrow.to_arrow(Masklet, [masklet(f"v{n:03}-{i}", f"v{n:03}") for i in range(40)]) for n in range(videos)
        ]
        compacted.write(tmp_path / "large.parquet", Masklet, rows)
        disk.write(key := f"{videos}.parquet", tmp_path / "large.parquet")
        monkeypatch.setattr(compacted, "_TAIL", 16)
        with monkeypatch.context() as patch:
            read = everything_read(patch)
            found = compacted.read(disk, key, disk.size(key), Masklet, ["v007"])
        assert [m.masklet_id for m in found] == [f"v007-{i}" for i in range(40)]
        assert compacted.read(disk, key, disk.size(key), Masklet, ["v999", "a"]) == []
        assert len(read) <= 4, "the end of the file, the footer if it is longer, and the row group"
        sizes[videos] = read[-1][1:]
    assert sizes[20] == sizes[200], "the last read is the row group of the video, whatever else is in the file"
    assert sizes[200][1] < disk.size("200.parquet") / 20


def test_a_release_opens_for_one_video_a_manifest_and_pieces_of_one_file(
    disk, tables, video, masklet, tmp_path, monkeypatch
):
    fill(disk, tables, video, masklet)
    new = compact(disk, tables, tmp_path, 1)
    assert len(list(new.files("masklets"))) == 3
    read = everything_read(monkeypatch)
    batch_manifests.forget()
    assert [m.masklet_id for m in new.masklets(["v1"])] == ["v1-0", "v1-1", "v1-2"]
    assert len({key for key, _, _ in read}) == 2 and read[0][0].startswith("manifests/compacted-")


def test_many_videos_are_read_at_once(disk, masklet, tmp_path, monkeypatch):
    rows = [arrow.to_arrow(Masklet, [masklet(f"m{n:02}", f"v{n:02}")]) for n in range(30)]
    compacted.write(tmp_path / "large.parquet", Masklet, rows)
    disk.write("large.parquet", tmp_path / "large.parquet")
    read = everything_read(monkeypatch)
    wanted = [f"v{n:02}" for n in range(3, 28)]
    found = compacted.read(disk, "large.parquet", disk.size("large.parquet"), Masklet, wanted)
    assert [m.video_id for m in found] == wanted and len(read) <= 2


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_part_stops_its_group_and_changes_nothing(disk, tables, video, masklet, tmp_path, damage):
    old, before = fill(disk, tables, video, masklet), state(tables)
    key = next(file.key for file in old.files("masklets") if file.video_id == "v5")
    data = disk.read(key)
    disk.delete(key) if damage == "missing" else disk.write(key, data + b"?")
    with pytest.raises(ReleaseError, match=f"{key}: (missing|sha256 .*, its manifest says)"):
        compact(disk, tables, tmp_path, 10)
    disk.write(key, data)
    assert state(tables) == before and len(releases.names(disk)) == 3
    assert not list((tmp_path / "work").iterdir())


def test_a_part_of_a_later_version_is_not_compacted_without_its_column(disk, masklet, tmp_path):
    table = arrow.to_arrow(Masklet, [masklet()])
    later = table.append_column("mood", [["happy"]])
    with pytest.raises(ValueError, match="columns of a later version: mood"):
        compacted.write(tmp_path / "x.parquet", Masklet, [later])
    earlier = table.drop_columns(["source_position", "click_count"])
    compacted.write(tmp_path / "x.parquet", Masklet, [earlier, table])
    assert list(compacted.iterate((tmp_path / "x.parquet").read_bytes(), Masklet)) == [masklet(), masklet()]


def test_a_compaction_that_is_killed_at_any_write_loses_nothing_and_is_finished_by_the_next(
    disk, tables, video, masklet, tmp_path, monkeypatch
):
    old, before = fill(disk, tables, video, masklet), state(tables)
    digest, writes = of_rows(old), 0
    left = kill_at(monkeypatch, (LocalBlobs, "create"), (PyArrowFile, "create"))
    least, killed = sum(file.size for file in old.files("masklets")), True
    while killed:
        left[0] = writes
        try:
            compact(disk, tables, tmp_path, least)
            killed = False
        except Killed:
            writes += 1
        left[0] = -(10**9)
        assert state(tables) == before, f"killed at write {writes}"
        assert {of_rows(releases.load(disk, name)) for name in releases.names(disk)[2:]} == {digest}
    assert writes >= 9, "three files, two manifests, a marker, a release, and three commits"
    newest = releases.load(disk, releases.names(disk)[-1])
    assert len(list(newest.files("masklets"))) == 1
    assert [len(list(tables.load(t).scan().plan_files())) for t in ("masklets", "videos", "operations")] == [1, 1, 1]


def test_a_table_takes_many_large_files_in_few_commits(disk, tables, video, masklet, tmp_path):
    """Each commit reads all manifests of the table."""
    fill(disk, tables, video, masklet)
    before, rows = len(tables.load("masklets").metadata.snapshots), state(tables)
    new = compact(disk, tables, tmp_path, 1)
    assert sum(compaction.is_compacted(ref) and not ref.covers for ref in new.batches) > 1
    assert len(tables.load("masklets").metadata.snapshots) == before + 1 and state(tables) == rows
    assert compaction.settle(disk, tables, new) == []
    assert len(tables.load("masklets").metadata.snapshots) == before + 1


def test_a_table_with_other_files_keeps_them_and_says_so(disk, tables, video, masklet, tmp_path):
    old, before = fill(disk, tables, video, masklet), state(tables)
    key = next(file.key for file in old.files("masklets"))
    table_upkeep.replace(tables, "masklets", [table_upkeep.Rewrite("somebody", frozenset([disk.uri_of(key)]), ())])
    newest = releases.load(disk, releases.names(disk)[-1])
    groups = [compaction.write(disk, refs, tmp_path) for refs in compaction.plan(newest, 10**4)]
    groups = groups or [compaction.write(disk, newest.batches, tmp_path)]
    made = compaction.release(disk, newest, "release-0004-c", groups)
    (problem,) = compaction.settle(disk, tables, made)
    assert problem.startswith("table masklets: another process has replaced")
    assert len(tables.masklets()) == len(before[0]) - old.masklet_counts()[parts.video_of(key) or ""]


def test_the_whole_way_over_s3(s3, tmp_path, video, masklet):
    from storage.blobs.s3 import S3Blobs
    from storage.iceberg.tables import Tables

    blobs = S3Blobs(s3.bucket, "team", endpoint_url=s3.endpoint_url, cache=tmp_path / "cache")
    with Tables.open(f"sqlite:///{tmp_path}/catalog.db", f"{blobs.uri}/warehouse", s3.endpoint_url) as tables:
        old, before = fill(blobs, tables, video, masklet), state(tables)
        new = compact(blobs, tables, tmp_path, sum(file.size for file in old.files("masklets")))
        assert of_rows(new) == of_rows(old) and new.masklets(["v9"]) == old.masklets(["v9"])
        assert state(tables) == before and new.verify() == []


def test_a_compaction_whose_earlier_snapshots_are_expired_is_no_beginning_of_the_table(
    disk, tables, video, masklet, tmp_path, monkeypatch
):
    fill(disk, tables, video, masklet)
    compact(disk, tables, tmp_path, 1)
    monkeypatch.setattr(table_upkeep, "KEPT", 1)
    table_upkeep.expire(tables, "masklets")
    with pytest.raises(TablesError, match="a snapshot before [0-9]+ was expired"):
        list(tables.history("masklets", tables.snapshot_id("masklets") or 0))
