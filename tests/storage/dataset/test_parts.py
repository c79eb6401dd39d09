"""Parts and markers: racing writers, killed writers, damaged parts, and a commit that happens once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import arrow
from storage.blobs.base import Blobs
from storage.blobs.folder import LocalBlobs
from storage.dataset import parts
from storage.iceberg.tables import Tables
from storage.records import Masklet, Operation, Quarantined
from tests.storage.rows import make_masklet


def other_type(column: str) -> bytes:
    """A part in which one column holds texts."""
    table = arrow.to_arrow(Masklet, [make_masklet()])
    texts = pa.array(["many"])
    sink = pa.BufferOutputStream()
    pq.write_table(table.set_column(table.column_names.index(column), column, texts), sink)
    return bytes(sink.getvalue())


def test_a_part_is_found_by_its_marker(blobs, masklet):
    rows = [masklet("m1"), masklet("m2")]
    marker = parts.write_part(blobs, kind="masklets", batch_id="b1", video_id="v1", rows=rows)
    assert marker.key.startswith("parts/masklets/batch=b1/v1-")
    assert marker.sha256.startswith(marker.key.removesuffix(".parquet")[-16:])
    assert parts.video_of(marker.key) == "v1"
    assert blobs.exists("commits/masklets/b1/v1.json")
    assert parts.markers(blobs, "masklets", "b1") == [marker]
    assert parts.has_marker(blobs, "masklets", "b1", "v1")
    assert not parts.has_marker(blobs, "masklets", "b1", "v2")
    assert parts.read_part(blobs, marker) == rows
    assert list(parts.rows(blobs, "masklets", "b1")) == rows


def test_a_video_without_rows_gets_its_marker(blobs):
    marker = parts.write_part(blobs, kind="candidates", batch_id="b1", video_id="v1", rows=[])
    assert marker.rows == 0
    assert parts.read_part(blobs, marker) == []


def test_the_first_marker_wins_and_the_second_writer_gets_it(blobs, masklet):
    first = parts.write_part(blobs, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet("m1")])
    second = parts.write_part(blobs, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet("m2")])
    assert second == first
    assert [row.masklet_id for row in parts.rows(blobs, "masklets", "b1")] == ["m1"]


def test_of_many_racing_writers_all_report_the_same_marker(blobs, masklet):
    def write(n: int) -> parts.Marker:
        rows = [masklet("m", score=(0.1 * n, 0.2, 0.3))]
        return parts.write_part(blobs, kind="masklets", batch_id="b1", video_id="v1", rows=rows)

    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(write, range(6)))
    assert len(found) == 1
    assert parts.read_part(blobs, found.pop())


def _race(root: str, row: Masklet, barrier, results) -> None:
    blobs = LocalBlobs(Path(root))
    barrier.wait()
    found = []
    for n in range(20):
        mine = dataclasses.replace(row, video_id=f"v{n}", checkpoint=str(os.getpid()))
        found.append(parts.write_part(blobs, kind="masklets", batch_id="b1", video_id=f"v{n}", rows=[mine]))
    results.put(found)


@pytest.mark.server
def test_two_processes_that_race_for_a_marker_agree(tmp_path, masklet):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_race, args=(str(tmp_path), masklet(), barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    first, second = results.get(timeout=240), results.get(timeout=240)
    for worker in workers:
        worker.join(timeout=240)
    assert first == second
    blobs = LocalBlobs(tmp_path)
    assert parts.markers(blobs, "masklets", "b1") == sorted(first, key=lambda m: m.video_id)
    assert len(list(parts.rows(blobs, "masklets", "b1"))) == 20


class DiesBeforeTheMarker(LocalBlobs):
    """A store whose process is killed when it is about to write a marker."""

    def create(self, key, data):
        if key.startswith("commits/"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().create(key, data)


def _write_and_die(root: str, row: Masklet) -> None:
    blobs: Blobs = DiesBeforeTheMarker(Path(root))
    parts.write_part(blobs, kind="masklets", batch_id="b1", video_id="v1", rows=[row])


@pytest.mark.server
def test_a_worker_killed_between_part_and_marker_loses_only_its_own_work(tmp_path, masklet):
    worker = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(str(tmp_path), masklet("lost")))
    worker.start()
    worker.join(timeout=240)
    assert worker.exitcode == -signal.SIGKILL
    blobs = LocalBlobs(tmp_path)
    assert len(list(blobs.keys("parts/"))) == 1
    assert parts.markers(blobs, "masklets", "b1") == []
    again = parts.write_part(blobs, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet("found")])
    assert [row.masklet_id for row in parts.rows(blobs, "masklets", "b1")] == ["found"]
    assert len(list(blobs.keys("parts/"))) == 2
    assert again.key in list(blobs.keys("parts/"))


def test_a_damaged_part_is_not_read(disk, masklet):
    marker = parts.write_part(disk, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet()])
    disk.write(marker.key, disk.read(marker.key)[:-1] + b"?")
    with pytest.raises(parts.PartDamaged, match=marker.key):
        parts.read_part(disk, marker)
    disk.delete(marker.key)
    with pytest.raises(parts.PartDamaged, match="but the part is missing"):
        parts.read_part(disk, marker)


def test_the_part_of_a_batch_cannot_be_committed_as_one_of_another_batch(disk, tables, masklet):
    parts.write_part(disk, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet()])
    disk.write("commits/masklets/b2/v1.json", disk.read("commits/masklets/b1/v1.json"))
    with pytest.raises(parts.PartDamaged, match="batch=b1/v1-.* is not a part of masklets of batch b2"):
        parts.commit_batch(disk, tables, "masklets", "b2")
    assert tables.snapshot_id("masklets") is None


def test_a_malformed_marker_is_named(disk):
    disk.write("commits/masklets/b1/v1.json", b"{}")
    with pytest.raises(parts.PartError, match="commits/masklets/b1/v1.json: not a marker"):
        parts.markers(disk, "masklets", "b1")
    whole = {"batch_id": "b1", "video_id": "v1", "key": "k", "sha256": "0", "rows": 1, "schema": ""}
    for wrong in ({"key": 7}, {"rows": "1"}, {"size": True}, {"kind": "photos"}, {"key": "../k"}):
        disk.write("commits/masklets/b1/v1.json", json.dumps({"kind": "masklets"} | whole | wrong).encode())
        with pytest.raises(parts.PartError, match="not a marker"):
            parts.markers(disk, "masklets", "b1")


@pytest.mark.parametrize("data", [b"", b"nothing", other_type("height"), other_type("rle")])
def test_a_part_that_was_damaged_before_its_hash_was_taken_is_a_damaged_part(disk, data):
    """Arrow has a dozen errors for such bytes."""
    disk.write("part", data)
    marker = parts.Marker(
        kind="masklets",
        batch_id="b1",
        video_id="v1",
        key="part",
        sha256=hashlib.sha256(data).hexdigest(),
        rows=1,
        schema="",
    )
    with pytest.raises(parts.PartDamaged, match="part: not a Parquet file of these rows"):
        parts.read_part(disk, marker)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "videos"}, "rows of videos are Video"),
        ({"kind": "masks"}, "kinds of part"),
        ({"batch_id": "b2"}, "batch 'b1' in a part of batch 'b2'"),
        ({"video_id": "v2"}, "video 'v1' in a part of video 'v2'"),
    ],
)
def test_rows_of_another_video_batch_or_record_are_a_value_error(disk, masklet, changes, says):
    arguments = {"kind": "masklets", "batch_id": "b1", "video_id": "v1", **changes}
    with pytest.raises(ValueError, match=says):
        parts.write_part(disk, rows=[masklet()], **arguments)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "-a", "a b", "é", "x" * 201])
def test_malformed_names_are_a_value_error(disk, name):
    with pytest.raises(ValueError, match="begins with a letter or digit"):
        parts.write_part(disk, kind="masklets", batch_id=name, video_id="v1", rows=[])
    with pytest.raises(ValueError, match="begins with a letter or digit"):
        parts.has_marker(disk, "masklets", "b1", name)


def test_a_batch_is_committed_once(disk, tables, masklet):
    for video_id in ("v1", "v2"):
        rows = [masklet(f"{video_id}-{n}", video_id) for n in range(3)]
        parts.write_part(disk, kind="masklets", batch_id="b1", video_id=video_id, rows=rows)
    report = parts.commit_batch(disk, tables, "masklets", "b1")
    assert (report.rows, report.files, report.already) == (6, 2, False)
    again = parts.commit_batch(disk, tables, "masklets", "b1")
    assert again == dataclasses.replace(report, already=True)
    assert tables.snapshot_id("masklets") == report.snapshot_id
    assert [row.masklet_id for row in tables.masklets()] == [f"v{v}-{n}" for v in (1, 2) for n in range(3)]
    assert tables.masklets()[0] == masklet("v1-0", "v1")


def test_the_data_files_of_the_table_are_the_parts(disk, tables, masklet):
    marker = parts.write_part(disk, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet()])
    report = parts.commit_batch(disk, tables, "masklets", "b1")
    assert [f.uri for f in tables.added_files("masklets", report.snapshot_id)] == [disk.uri_of(marker.key)]


def test_rows_that_are_not_kept_stay_in_the_part_but_not_in_the_table(disk, tables, masklet):
    for video_id in ("v1", "v2", "v3"):
        rows = [masklet(f"{video_id}-{n}", video_id) for n in range(2)]
        parts.write_part(disk, kind="masklets", batch_id="b1", video_id=video_id, rows=rows)
    dropped = {"v1-0", "v3-0", "v3-1"}
    report = parts.commit_batch(disk, tables, "masklets", "b1", keep=lambda row, n: row.masklet_id not in dropped)
    assert (report.rows, report.files) == (3, 2)
    assert [row.masklet_id for row in tables.masklets()] == ["v1-1", "v2-0", "v2-1"]
    assert len(list(parts.rows(disk, "masklets", "b1"))) == 6


def test_a_batch_with_nothing_to_keep_makes_no_snapshot(disk, tables, masklet):
    parts.write_part(disk, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet()])
    report = parts.commit_batch(disk, tables, "masklets", "b1", keep=lambda row, n: False)
    assert report == parts.CommitReport(rows=0, files=0, snapshot_id=None, already=False)
    assert tables.snapshot_id("masklets") is None


def test_one_damaged_part_stops_the_whole_commit(disk, tables, masklet):
    for video_id in ("v1", "v2"):
        marker = parts.write_part(
            disk, kind="masklets", batch_id="b1", video_id=video_id, rows=[masklet("m", video_id)]
        )
    disk.write(marker.key, b"?")
    with pytest.raises(parts.PartDamaged):
        parts.commit_batch(disk, tables, "masklets", "b1")
    assert tables.snapshot_id("masklets") is None


def test_candidates_are_never_committed(disk, tables):
    with pytest.raises(ValueError, match="candidates have no table"):
        parts.commit_batch(disk, tables, "candidates", "b1")


def test_operations_and_quarantine_records_are_committed_the_same_way(disk, tables):
    operation = Operation(
        operation_id="o1",
        ticket_id="t1",
        batch_id="b1",
        video_id="v1",
        masklet_id="m1",
        person="ann",
        kind="prompt",
        frame_idx=None,
        payload="{}",
        created_at="2026-01-01T00:00:00Z",
    )
    refused = Quarantined(stage="ingest", subject="s3://x/a.mp4", reason="unreadable", detail="no", batch_id="b1")
    parts.write_part(disk, kind="operations", batch_id="b1", video_id="v1", rows=[operation])
    parts.write_part(disk, kind="quarantine", batch_id="b1", video_id="source-1", rows=[refused])
    assert parts.commit_batch(disk, tables, "operations", "b1").rows == 1
    assert parts.commit_batch(disk, tables, "quarantine", "b1").rows == 1
    assert tables.operations() == [operation]
    assert tables.quarantine() == [refused]


def test_the_whole_way_over_s3(s3, tmp_path, masklet):
    from storage.blobs.s3 import S3Blobs

    blobs = S3Blobs(s3.bucket, "team", endpoint_url=s3.endpoint_url, cache=tmp_path / "cache")
    with Tables.open(f"sqlite:///{tmp_path}/catalog.db", f"{blobs.uri}/warehouse", s3.endpoint_url) as tables:
        parts.write_part(blobs, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet()])
        report = parts.commit_batch(blobs, tables, "masklets", "b1")
        assert (report.rows, report.already) == (1, False)
        assert parts.commit_batch(blobs, tables, "masklets", "b1").already
        assert tables.masklets() == [masklet()]
    assert list(blobs.keys("warehouse/"))


def test_a_marker_is_readable_json(disk, masklet):
    marker = parts.write_part(disk, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet()])
    assert json.loads(disk.read("commits/masklets/b1/v1.json")) == dataclasses.asdict(marker)
