"""The tables: opened by many at once, read at a snapshot, committed to exactly once."""

from __future__ import annotations

import dataclasses
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.table import DataScan

from storage import arrow
from storage.iceberg import avro_blocks
from storage.iceberg.table_errors import (
    CatalogUnreachable,
    CommitFailed,
    CommitUnknown,
    TablesError,
    WarehouseUnreachable,
    damage,
)
from storage.iceberg.tables import _PROPERTIES, Commit, Tables
from storage.records import Masklet, Video


def part(folder: Path, name: str, record, rows) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    path.write_bytes(arrow.to_parquet(record, rows))
    return path


def address(tmp_path: Path) -> tuple[str, str]:
    return f"sqlite:///{tmp_path}/state/catalog.db", f"{tmp_path}/a #1 warehouse"


def test_opening_makes_the_four_tables_with_the_records_columns(tables):
    for name, record in (("videos", Video), ("masklets", Masklet)):
        scanned = tables.scan(name)
        assert scanned.num_rows == 0
        assert scanned.column_names == [f.name for f in arrow.schema(record)]
    assert tables.operations() == tables.quarantine() == tables.videos() == tables.masklets() == []


def test_opening_again_finds_what_was_committed(tmp_path, masklet):
    with Tables.open(*address(tmp_path)) as first:
        first.commit("masklets", [part(tmp_path, "p", Masklet, [masklet()])], "b1")
    with Tables.open(*address(tmp_path)) as second:
        assert second.masklets() == [masklet()]


def _open(catalog: str, warehouse: str, barrier, results) -> None:
    barrier.wait()
    try:
        with Tables.open(catalog, warehouse) as opened:
            results.put(opened.scan("videos").num_rows)
    except Exception as error:
        results.put(repr(error))


@pytest.mark.server
def test_two_processes_may_create_the_tables_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_open, args=(*address(tmp_path), barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=240) for _ in workers] == [0, 0]
    for worker in workers:
        worker.join(timeout=240)


def test_a_catalog_that_cannot_be_reached_is_one_line_without_its_password():
    with pytest.raises(TablesError) as caught:
        Tables.open("postgresql+psycopg://me:secret@127.0.0.1:9/none", "/tmp/none")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_catalog_that_breaks_while_it_is_used_is_an_error_in_one_line(tables, tmp_path, masklet):
    parts = [part(tmp_path, "p", Masklet, [masklet()])]
    tables.catalog.engine.dispose()
    (tmp_path / "catalog.db").write_bytes(b"nothing")
    for use in (
        tables.masklets,
        lambda: tables.batch("masklets", "b1"),
        lambda: tables.commit("masklets", parts, "b1"),
    ):
        with pytest.raises(CatalogUnreachable, match="table masklets: its catalog does not answer") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_batch_is_committed_once_whatever_its_parts(tables, tmp_path, masklet):
    first = tables.commit("masklets", [part(tmp_path, "a", Masklet, [masklet("a"), masklet("b")])], "b1")
    again = tables.commit("masklets", [part(tmp_path, "other", Masklet, [masklet("c")])], "b1")
    assert (first.rows, first.files, first.already) == (2, 1, False)
    assert again == dataclasses.replace(first, already=True)
    assert tables.batch("masklets", "b1")
    assert not tables.batch("masklets", "b2")
    assert not tables.batch("videos", "b1")


def test_many_committers_of_one_batch_commit_it_once(tmp_path, masklet):
    paths = [part(tmp_path, f"p{n}", Masklet, [masklet(f"m{n}")]) for n in range(3)]

    def commit(_: int) -> Commit:
        with Tables.open(*address(tmp_path)) as opened:
            return opened.commit("masklets", paths, "b1")

    with Tables.open(*address(tmp_path)) as opened:
        with ThreadPoolExecutor(4) as pool:
            commits = list(pool.map(commit, range(4)))
        assert len({c.snapshot_id for c in commits}) == 1
        assert [c.already for c in commits].count(False) == 1
        assert len(opened.masklets()) == 3


def test_committers_of_different_batches_all_succeed(tmp_path, masklet):
    def commit(n: int) -> Commit:
        path = part(tmp_path, f"p{n}", Masklet, [masklet(f"m{n}")])
        with Tables.open(*address(tmp_path)) as opened:
            return opened.commit("masklets", [path], f"b{n}")

    with Tables.open(*address(tmp_path)) as opened:
        with ThreadPoolExecutor(4) as pool:
            assert not any(c.already for c in pool.map(commit, range(4)))
        assert {m.masklet_id for m in opened.masklets()} == {f"m{n}" for n in range(4)}


def test_a_successful_commit_is_found_when_its_answer_was_lost(tables, tmp_path, masklet, monkeypatch):
    """The catalog's connection breaks after it has committed."""
    real = type(tables.catalog).commit_table

    def broken(self, *arguments, **named):
        real(self, *arguments, **named)
        raise ConnectionError("the server closed the connection")

    monkeypatch.setattr(type(tables.catalog), "commit_table", broken)
    commit = tables.commit("masklets", [part(tmp_path, "p", Masklet, [masklet()])], "b1")
    assert (commit.rows, commit.already) == (1, True)
    assert len(tables.masklets()) == 1


def test_a_commit_that_may_have_succeeded_is_unknown_and_can_be_repeated(tmp_path, masklet, monkeypatch):
    path = part(tmp_path, "p", Masklet, [masklet()])
    with Tables.open(*address(tmp_path)) as opened:
        real = type(opened.catalog).commit_table

        def broken(self, *arguments, **named):
            raise ConnectionError("no route")

        monkeypatch.setattr(type(opened.catalog), "commit_table", broken)
        with pytest.raises(CommitUnknown, match="masklets, batch b1: no route"):
            opened.commit("masklets", [path], "b1")
        monkeypatch.setattr(type(opened.catalog), "commit_table", real)
        assert not opened.commit("masklets", [path], "b1").already


def test_a_commit_without_parts_is_a_value_error(tables):
    with pytest.raises(ValueError, match="no parts"):
        tables.commit("masklets", [], "b1")


def test_a_missing_part_and_a_part_of_another_table_fail_the_commit(tmp_path, masklet, video):
    with Tables.open(*address(tmp_path)) as opened:
        with pytest.raises(CommitFailed):
            opened.commit("masklets", [tmp_path / "absent.parquet"], "b1")
        with pytest.raises(CommitFailed):
            opened.commit("masklets", [part(tmp_path, "v", Video, [video()])], "b1")
        path = part(tmp_path, "p", Masklet, [masklet()])
        assert opened.row_count("masklets") == 0
        opened.commit("masklets", [path], "b1")
        assert opened.row_count("masklets") == len(opened.masklets()) == 1


def test_small_manifests_are_merged_and_a_snapshot_still_knows_its_own_files(tmp_path, masklet, monkeypatch):
    few = {"commit.manifest.min-count-to-merge": "4", "commit.manifest.target-size-bytes": "20000"}
    monkeypatch.setattr("storage.iceberg.tables._PROPERTIES", {**_PROPERTIES, **few})
    with Tables.open(*address(tmp_path)) as opened:
        most = 0
        for n in range(14):
            path = part(tmp_path, f"p{n:02}", Masklet, [masklet(f"m{n:02}")])
            done = opened.commit("masklets", [path], f"b{n}")
            assert [file.uri for file in opened.added_files("masklets", done.snapshot_id)] == [str(path)]
            snapshot = opened.load("masklets").current_snapshot()
            most = max(most, len(snapshot.manifests(opened.load("masklets").io)))
        assert most <= 7 and [m.masklet_id for m in opened.masklets()] == [f"m{n:02}" for n in range(14)]


def test_a_manifest_holds_many_files_in_few_bytes(tables, tmp_path, video):
    """One block for each entry would cost 300 bytes a file: they differ in little, and are compressed together."""
    files = 2 * avro_blocks.BLOCK + 7
    paths = [part(tmp_path, f"p{n:04}", Video, [video(f"v{n:04}")]) for n in range(files)]
    snapshot = tables.commit("videos", paths, "b1").snapshot_id
    loaded = tables.load("videos")
    (manifest,) = loaded.snapshot_by_id(snapshot).manifests(loaded.io)
    assert manifest.manifest_length < 100 * files
    assert [file.uri for file in tables.added_files("videos", snapshot)] == list(map(str, paths))
    assert tables.files_of("videos", "v0300") == [str(paths[300])]


def test_rows_can_be_filtered_and_columns_chosen(tables, tmp_path, masklet):
    rows = [masklet("a", round=0), masklet("b", round=1), masklet("c", video_id="v2", round=2)]
    tables.commit("masklets", [part(tmp_path, "p", Masklet, rows)], "b1")
    assert [m.masklet_id for m in tables.masklets(where="round > 0")] == ["b", "c"]
    assert [m.masklet_id for m in tables.masklets(where="video_id == 'v2' and round > 0")] == ["c"]
    assert tables.scan("masklets", columns=["masklet_id", "round"]).column_names == ["masklet_id", "round"]
    with pytest.raises(ValueError):
        tables.scan("masklets", columns=["nothing"])
    with pytest.raises(ValueError, match="tables are"):
        tables.scan("nothing")


def test_an_older_snapshot_reads_as_it_was(tables, tmp_path, masklet):
    first = tables.commit("masklets", [part(tmp_path, "p1", Masklet, [masklet("a")])], "b1")
    tables.commit("masklets", [part(tmp_path, "p2", Masklet, [masklet("b")])], "b2")
    assert [m.masklet_id for m in tables.masklets(snapshot_id=first.snapshot_id)] == ["a"]
    assert [m.masklet_id for m in tables.masklets()] == ["a", "b"]
    with pytest.raises(ValueError, match="no snapshot 7"):
        tables.scan("masklets", snapshot_id=7)


def test_a_tag_keeps_its_snapshot(tables, tmp_path, masklet):
    with pytest.raises(ValueError, match="nothing was committed"):
        tables.tag("masklets", "r1")
    first = tables.commit("masklets", [part(tmp_path, "p1", Masklet, [masklet("a")])], "b1")
    assert tables.tag("masklets", "r1") == first.snapshot_id
    second = tables.commit("masklets", [part(tmp_path, "p2", Masklet, [masklet("b")])], "b2")
    assert tables.tag("masklets", "r1") == first.snapshot_id
    with pytest.raises(ValueError, match="'r1'"):
        tables.tag("masklets", "r1", second.snapshot_id)
    assert tables.tag("masklets", "r2") == second.snapshot_id


def test_a_video_admitted_twice_is_listed_once(tables, tmp_path, video):
    rows = [video("v2"), video("v1", batch_id="b2"), video("v1", batch_id="b1")]
    tables.commit("videos", [part(tmp_path, "p", Video, rows)], "b1")
    assert [(v.video_id, v.batch_id) for v in tables.videos()] == [("v1", "b1"), ("v2", "b1")]


def test_the_addresses_below_a_folder_are_found_without_reading_the_files_of_other_sources(
    tables, tmp_path, video, monkeypatch
):
    places = {"b1": "/in/o'clock 50%/a.mp4", "b2": "/in/other/a.mp4", "b3": "/in/o'clock 50%/sub/b.mp4"}
    for batch_id, place in places.items():
        row = video(f"v-{batch_id}", batch_id=batch_id, source_uri=place)
        tables.commit("videos", [part(tmp_path, batch_id, Video, [row])], batch_id)
    read, plan = [], DataScan.plan_files

    def counted(self):
        found = list(plan(self))
        read.append(len(found))
        return found

    monkeypatch.setattr(DataScan, "plan_files", counted)
    found = tables.addresses("/in/o'clock 50%/")
    assert found == {batch_id: [place] for batch_id, place in places.items() if "other" not in place}
    assert read == [2]
    assert tables.addresses("/nowhere/") == {}


def test_a_column_that_a_record_gains_is_added_and_old_rows_have_its_default(tmp_path, masklet, monkeypatch):
    real = arrow.schema

    def old(record):
        schema = real(record)
        return pa.schema([f for f in schema if f.name not in ("click_count", "annotated_by")])

    with monkeypatch.context() as patched:
        patched.setattr(arrow, "schema", old)
        with Tables.open(*address(tmp_path)) as opened:
            path = tmp_path / "old.parquet"
            columns = {name: [getattr(masklet("old"), name)] for name in old(Masklet).names}
            pq.write_table(pa.table(columns, schema=old(Masklet)), path)
            opened.commit("masklets", [path], "b1")
    with Tables.open(*address(tmp_path)) as opened:
        new = masklet("new", click_count=3, annotated_by="ann")
        opened.commit("masklets", [part(tmp_path, "new", Masklet, [new])], "b2")
        assert opened.masklets() == [new, masklet("old", click_count=0, annotated_by=None)]


@pytest.mark.parametrize("damage", [b"", b"{}", None, bytes(400)])
@pytest.mark.parametrize("pattern", ["*.metadata.json", "snap-*.avro", "*-m0.avro"])
def test_damaged_iceberg_metadata_is_an_error_in_one_line_that_names_the_table(tmp_path, masklet, pattern, damage):
    catalog, warehouse = address(tmp_path)
    with Tables.open(catalog, warehouse) as made:
        made.commit("masklets", [part(tmp_path, "p", Masklet, [masklet()])], "b1")
    files = list(Path(warehouse, "masklets", "metadata").glob(pattern))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:-30] if damage is None else damage)  # None: cut short
    with pytest.raises(TablesError, match="^table masklets: its Iceberg metadata is damaged") as caught:
        with Tables.open(catalog, warehouse) as opened:
            opened.masklets()
    assert "\n" not in str(caught.value)


def test_a_manifest_with_a_negative_length_is_an_error_in_one_line():
    from pyiceberg.avro.decoder_fast import CythonBinaryDecoder

    with pytest.raises(TablesError, match="^table masklets: its Iceberg metadata is damaged"):
        with damage("masklets"):
            CythonBinaryDecoder(b"\x03abc").read_bytes()  # begins with the length -2


def test_a_warehouse_that_does_not_answer_is_an_error_in_one_line(tmp_path, monkeypatch):
    from pyiceberg.io.pyarrow import PyArrowFile

    def gone(self, *arguments, **named):
        raise OSError("When reading: AWS Error NETWORK_CONNECTION\ncurlCode: 7")

    with Tables.open(f"sqlite:///{tmp_path}/catalog.db", f"{tmp_path}/warehouse") as tables:
        tables.forget()
        with monkeypatch.context() as patch:
            patch.setattr(PyArrowFile, "open", gone)
            with pytest.raises(WarehouseUnreachable, match="table videos: its files cannot be read") as caught:
                tables.videos()
    assert "\n" not in str(caught.value)
