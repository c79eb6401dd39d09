"""Upkeep of the tables: snapshots expire without a loss, and files are replaced in one commit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from pyiceberg.io.pyarrow import PyArrowFile

from storage import arrow
from storage.iceberg import table_upkeep
from storage.iceberg.table_upkeep import Rewrite, expire
from storage.iceberg.tables import Tables
from storage.records import Masklet
from tests.storage.iceberg.test_catalog import commit, plain
from tests.storage.killed_writes import Killed

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def few_kept(monkeypatch):
    monkeypatch.setattr(table_upkeep, "KEPT", 2)


@pytest.fixture
def five(tables, tmp_path, masklet):
    """A table with five commits; the second is tagged."""
    for n in range(1, 6):
        commit(tables, tmp_path, f"b{n}", [masklet(f"m{n}", f"v{n}", f"b{n}")])
        if n == 2:
            tables.tag("masklets", "v1.0")
    return tables


def snapshots(tables: Tables) -> list[int]:
    return [snapshot.snapshot_id for snapshot in tables.load("masklets").metadata.snapshots]


def ids(tables: Tables, **named) -> list[str]:
    return [row.masklet_id for row in tables.masklets(**named)]


def test_old_snapshots_expire_and_the_newest_and_the_tagged_stay(five, tmp_path):
    before = snapshots(five)
    assert expire(five, "masklets", least=3) == 0
    assert expire(five, "masklets", least=2) == 2 and expire(five, "masklets") == 0
    assert snapshots(five) == [before[1], before[3], before[4]]
    assert ids(five) == ["m1", "m2", "m3", "m4", "m5"] and ids(five, snapshot_id=before[1]) == ["m1", "m2"]
    assert five.tagged("masklets", "v1.0") == before[1] and five.tagged("masklets", "v2.0") is None
    catalog = plain(tmp_path)
    assert len(catalog.load_table("engine.masklets").scan().to_arrow()) == 5
    catalog.close()


def test_a_batch_whose_snapshot_is_expired_is_not_committed_again(five, tmp_path, masklet):
    before = {n: five.batch("masklets", f"b{n}") for n in range(1, 6)}
    expire(five, "masklets")
    assert {n: five.batch("masklets", f"b{n}") for n in range(1, 6)} == before
    (tmp_path / "other").mkdir()
    commit(five, tmp_path / "other", "b1", [masklet("again")])
    assert "again" not in ids(five) and five.batch("masklets", "b9") is five.batch("videos", "b1") is None


def test_snapshots_that_the_next_release_needs_stay(five):
    before = snapshots(five)
    assert expire(five, "masklets", since=before[1]) == 1 and snapshots(five) == before[1:]
    assert expire(five, "masklets", since=7) == 0, "a release of another table: nobody knows what it needs"
    assert expire(five, "masklets", since=before[4]) == 1


def test_a_tag_that_is_made_during_the_expiry_keeps_its_snapshot(five, monkeypatch):
    first, real = snapshots(five)[0], five.catalog.record_commits

    def slow(*arguments):
        real(*arguments)
        five.tag("masklets", "just-now", first)

    monkeypatch.setattr(five.catalog, "record_commits", slow)
    assert expire(five, "masklets") == 1
    assert five.tagged("masklets", "just-now") == first and ids(five, snapshot_id=first) == ["m1"]


def test_the_snapshots_of_a_table_stay_few_however_many_batches_it_gets(tables, tmp_path, masklet):
    most = 0
    for n in range(16):
        commit(tables, tmp_path, f"b{n}", [masklet(f"m{n:02}", f"v{n}", f"b{n}")])
        expire(tables, "masklets", least=3)
        most = max(most, len(snapshots(tables)))
    assert most == 4 and len(ids(tables)) == 16
    assert len(tables.load("masklets").metadata.snapshot_log) <= most + 1


def dying(monkeypatch, left: int) -> list[int]:
    """The process is killed at the write of metadata after `left` others."""
    counter, real = [left], PyArrowFile.create

    def create(self, *arguments, **named):
        counter[0] -= 1
        if counter[0] == -1:
            raise Killed
        return real(self, *arguments, **named)

    monkeypatch.setattr(PyArrowFile, "create", create)
    return counter


def test_an_expiry_that_is_killed_loses_nothing_and_is_done_by_the_next(five, monkeypatch):
    with monkeypatch.context() as patch:
        dying(patch, 0)
        with pytest.raises(Killed):
            expire(five, "masklets")
    assert len(snapshots(five)) == 5 and expire(five, "masklets") == 2
    assert {n for n in range(1, 6) if five.batch("masklets", f"b{n}")} == {1, 2, 3, 4, 5}


def merged(folder: Path, rows: list[Masklet]) -> str:
    path = folder / "merged.parquet"
    path.write_bytes(arrow.to_parquet(Masklet, rows))
    return str(path)


def replace(tables, name: str, old: list[str], new: list[str], rewrite_id: str, facts=None) -> list[str]:
    return table_upkeep.replace(tables, name, [Rewrite(rewrite_id, frozenset(old), tuple(new))], facts)


def paths(folder: Path, *batches: str) -> list[str]:
    return [str(folder / f"{batch_id}.parquet") for batch_id in batches]


def test_files_are_replaced_in_one_commit_and_an_earlier_snapshot_reads_the_old_ones(five, tmp_path):
    before = five.snapshot_id("masklets")
    rows = [row for row in five.masklets() if row.batch_id in ("b2", "b4")]
    assert (
        replace(five, "masklets", paths(tmp_path, "b2", "b4"), [merged(tmp_path, rows)], "c1", {"engine.why": "x"})
        == []
    )
    assert ids(five) == ids(five, snapshot_id=before) == ["m1", "m2", "m3", "m4", "m5"]
    assert five.row_count("masklets") == 5 and five.batch("masklets", "c1").rows == 2
    files = [task.file.file_path for task in five.load("masklets").scan().plan_files()]
    assert sorted(map(Path, files)) == sorted(
        map(Path, [*paths(tmp_path, "b1", "b3", "b5"), f"{tmp_path}/merged.parquet"])
    )
    found = list(five.history("masklets", five.snapshot_id("masklets") or 0))
    assert [s.batch_id for s in found if not s.rewrites] == ["b5", "b4", "b3", "b2", "b1"] and found[0].rewrites
    assert replace(five, "masklets", paths(tmp_path, "b2", "b4"), [], "c1", {}) == []
    assert five.batch("masklets", "b2") and len(ids(five)) == 5


def test_rows_are_taken_away_with_their_files(five, tmp_path):
    replace(five, "masklets", paths(tmp_path, "b3"), [], "w1", {})
    assert ids(five) == ["m1", "m2", "m4", "m5"] and five.row_count("masklets") == 4


def test_a_file_that_is_not_in_the_table_stops_a_replacement(five, tmp_path):
    target = merged(tmp_path, five.masklets()[:2])
    replace(five, "masklets", paths(tmp_path, "b1", "b2"), [target], "c1", {})
    (line,) = replace(five, "masklets", paths(tmp_path, "b2", "b3"), [f"{tmp_path}/other.parquet"], "c2", {})
    assert line.startswith("table masklets: another process has replaced ") and line.endswith("b2.parquet")
    assert ids(five) == ["m1", "m2", "m3", "m4", "m5"]


def test_several_rewrites_are_one_commit_which_each_of_them_finds_again(five, tmp_path, masklet):
    """And the one whose files are gone is left out."""
    before = len(snapshots(five))
    rewrites = [Rewrite(f"w{n}", frozenset(paths(tmp_path, f"b{n}")), ()) for n in (1, 2)]
    gone = Rewrite("w9", frozenset(paths(tmp_path, "b9")), ())
    assert len(table_upkeep.replace(five, "masklets", [*rewrites, gone])) == 1
    assert ids(five) == ["m3", "m4", "m5"] and len(snapshots(five)) == before + 1
    assert five.uncommitted("masklets", ["w1", "w2", "w9"]) == ["w9"]
    assert table_upkeep.replace(five, "masklets", rewrites) == [] and len(snapshots(five)) == before + 1
    for n in range(6, 9):
        commit(five, tmp_path, f"b{n}", [masklet(f"m{n}", f"v{n}", f"b{n}")])
    done = snapshots(five)[before]
    assert expire(five, "masklets") and done not in snapshots(five)
    assert five.uncommitted("masklets", ["w1", "w2", "w9"]) == ["w9"], "known after their snapshot is expired, too"


def test_a_commit_during_a_replacement_is_kept(five, tmp_path, masklet, monkeypatch):
    target, real = merged(tmp_path, five.masklets()[:2]), table_upkeep._data_files
    late = iter([True])

    def slow(table, addresses):
        found = real(table, addresses)
        if next(late, False):
            commit(five, tmp_path, "b6", [masklet("m6", "v6", "b6")])
        return found

    monkeypatch.setattr(table_upkeep, "_data_files", slow)
    replace(five, "masklets", paths(tmp_path, "b1", "b2"), [target], "c1", {})
    assert Counter(ids(five)) == Counter(f"m{n}" for n in range(1, 7))


def test_a_replacement_that_is_killed_at_any_write_changes_nothing_until_it_is_done(five, tmp_path, monkeypatch):
    target, killed, writes = merged(tmp_path, five.masklets()[:2]), True, 0
    while killed:
        with monkeypatch.context() as patch:
            dying(patch, writes)
            try:
                replace(five, "masklets", paths(tmp_path, "b1", "b2"), [target], "c1", {})
                killed = False
            except Killed:
                writes += 1
        assert ids(five) == ["m1", "m2", "m3", "m4", "m5"]
    assert writes >= 3, "two manifests, their list, and the metadata"
