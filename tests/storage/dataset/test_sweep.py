"""The sweep: what killed processes and expired snapshots left goes after a day, and nothing that is named ever does."""

from __future__ import annotations

import os
import shutil
import threading
import time

import pytest

from storage.blobs.cleaning import LEFT_S
from storage.blobs.folder import LocalBlobs
from storage.dataset import batch_manifests, compaction, parts, releases
from storage.dataset.batch_manifests import ReleaseError
from storage.dataset.sweep import Swept, sweep
from storage.iceberg import table_upkeep
from storage.iceberg.tables import Tables
from tests.storage.dataset.test_compaction import compact, fill, of_rows, state
from tests.storage.dataset.test_releases import publish
from tests.storage.iceberg.test_catalog import commit

pytestmark = pytest.mark.slow
DAY = LEFT_S + 1
NOTHING = Swept(0, 0, ())


def age(blobs: LocalBlobs, days: float = 3) -> None:
    """Everything was written days ago."""
    then = time.time() - days * 24 * 3600
    for key in blobs.keys():
        os.utime(blobs.root / key, (then, then))


def swept(blobs, tables) -> tuple[Swept, Swept]:
    """Two sweeps, a day apart."""
    now = time.time()
    return sweep(blobs, tables, now), sweep(blobs, tables, now + DAY)


@pytest.fixture
def store(disk, tables, video, masklet):
    batch_manifests.forget()
    fill(disk, tables, video, masklet)
    age(disk)
    return disk


def orphan(blobs, masklet, batch_id="b9") -> str:
    """What a worker leaves that is killed before its marker."""
    marker = parts.write_part(
        blobs, kind="masklets", batch_id=batch_id, video_id="v1", rows=[masklet("m", "v1", batch_id)]
    )
    blobs.delete(f"commits/masklets/{batch_id}/v1.json")
    return marker.key


def test_a_store_without_leftovers_loses_no_file(store, tables):
    before = list(store.keys())
    assert swept(store, tables) == (NOTHING, NOTHING) and list(store.keys()) == before


def test_a_part_without_a_marker_goes_after_a_day_and_two_sweeps(store, tables, masklet):
    old, new = orphan(store, masklet), orphan(store, masklet, "b8")
    os.utime(store.root / old, (1, 1))
    now = time.time()
    assert sweep(store, tables, now) == Swept(0, 1, ()), "the other one is young: its worker may be at work"
    assert sweep(store, tables, now + DAY / 2) == Swept(0, 1, ())
    assert sweep(store, tables, now + DAY).removed == 1
    assert not store.exists(old) and store.exists(new)
    assert sweep(store, tables, now + 2 * DAY + 1).removed == 1 and not store.exists(new)


def test_a_sweep_reads_no_more_with_30_batches_of_candidates_than_with_3(store, tables, masklet, monkeypatch):
    """Candidates are in no table and no release: only their markers name them."""
    read, real, costs = list[str](), LocalBlobs.read, []

    def reading(self, key, *more):
        read.append(key)
        return real(self, key, *more)

    monkeypatch.setattr(LocalBlobs, "read", reading)
    for numbers in (range(3), range(3, 30)):
        for n in numbers:
            rows = [masklet("m", "v1", f"c{n}")]
            parts.write_part(store, kind="candidates", batch_id=f"c{n}", video_id="v1", rows=rows)
        age(store)
        read.clear()
        assert sweep(store, tables) == NOTHING
        costs.append(len(read))
    assert costs[0] == costs[1] > 0
    parts.rewrite(store, kind="candidates", batch_id="c0", video_id="v1", rows=[])
    age(store)
    assert sweep(store, tables).waiting == 1, "of two parts, the marker names one"


def test_a_part_that_is_written_again_or_gets_its_marker_meanwhile_stays(store, tables, masklet):
    first, second = orphan(store, masklet), orphan(store, masklet, "b8")
    age(store)
    now = time.time()
    assert sweep(store, tables, now).waiting == 2
    parts.write_part(store, kind="masklets", batch_id="b9", video_id="v1", rows=[masklet("m", "v1", "b9")])
    store.write(second, store.read(second))
    assert sweep(store, tables, now + DAY).removed == 0
    assert store.exists(first) and store.exists(second)


def test_a_file_that_is_written_again_during_the_sweep_stays(store, tables, monkeypatch):
    first, second = (f"compacted/masklets/{n}-0123456789abcdef.parquet" for n in (1, 2))
    for key in (first, second):
        store.create(key, b"killed")
    age(store)
    now, real = time.time(), LocalBlobs.delete
    sweep(store, tables, now)

    def delete(self, key):
        self.write(second, b"killed")  # a writer goes on
        real(self, key)

    monkeypatch.setattr(LocalBlobs, "delete", delete)
    assert sweep(store, tables, now + DAY).removed == 1
    assert store.exists(second) and not store.exists(first)


def test_a_writer_with_the_lock_of_the_sweep_keeps_a_large_file_that_it_finds_at_that_moment(
    store, tables, monkeypatch
):
    key, lock, real = "compacted/masklets/1-0123456789abcdef.parquet", threading.Lock(), LocalBlobs.delete
    store.create(key, b"killed")
    age(store)
    now = time.time()
    sweep(store, tables, now)

    def goes_on():
        with lock:
            if not store.create(key, b"whole"):
                store.write(key, b"whole")

    writer = threading.Thread(target=goes_on)

    def delete(self, name):
        writer.start()
        writer.join(0.3)  # without the lock, the writer is done in this time
        real(self, name)

    monkeypatch.setattr(LocalBlobs, "delete", delete)
    assert sweep(store, tables, now + DAY, removing=lambda: lock).removed == 1
    writer.join(60)
    assert store.read(key) == b"whole"


def test_a_sweep_with_nothing_to_remove_takes_no_lock(store, tables):
    age(store)
    for now in (time.time(), time.time() + DAY):
        assert sweep(store, tables, now, removing=lambda: pytest.fail("it would wait for a publish")).removed == 0


def test_a_worker_that_finds_an_old_part_while_a_sweep_removes_it_has_its_part(store, tables, masklet, monkeypatch):
    row, key = masklet("m", "v1", "b9"), orphan(store, masklet)
    age(store)
    now, real = time.time(), LocalBlobs.create
    sweep(store, tables, now)

    def create(self, name, data):
        if name.startswith("commits/masklets/b9") and store.exists(key):
            monkeypatch.setattr(LocalBlobs, "create", real)
            assert sweep(store, tables, now + DAY).removed == 1 and not store.exists(key)
        return real(self, name, data)

    monkeypatch.setattr(LocalBlobs, "create", create)
    marker = parts.write_part(store, kind="masklets", batch_id="b9", video_id="v1", rows=[row])
    assert parts.read_part(store, marker) == [row]


def test_a_marker_that_is_made_during_the_removal_gets_its_part_back(store, tables, masklet, monkeypatch):
    row, key = masklet("m", "v1", "b9"), orphan(store, masklet)
    age(store)
    now, real = time.time(), LocalBlobs.delete
    sweep(store, tables, now)

    def delete(self, name):
        monkeypatch.setattr(LocalBlobs, "delete", real)
        marker = parts.write_part(store, kind="masklets", batch_id="b9", video_id="v1", rows=[row])
        assert marker.key == key
        real(self, name)

    monkeypatch.setattr(LocalBlobs, "delete", delete)
    sweep(store, tables, now + DAY)
    assert list(parts.rows(store, "masklets", "b9")) == [row]


def test_parts_in_a_large_file_stay_until_no_release_names_them(store, tables, tmp_path):
    before, rows = state(tables), of_rows(releases.load(store, "release-0003-b3"))
    old = [file.key for file in releases.load(store, "release-0003-b3").files("masklets")]
    new = compact(store, tables, tmp_path, 1)
    age(store)
    assert swept(store, tables)[1].removed == 0, "earlier releases name the parts, and snapshots have them"
    for n in (1, 2, 3):
        shutil.rmtree(store.root / f"releases/release-000{n}-b{n}")
    table_upkeep.expire_all(tables, None)
    assert swept(store, tables)[1].removed == 0, "the snapshots before the compaction have them"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_upkeep, "KEPT", 1)
        for name in ("masklets", "videos", "operations"):
            table_upkeep.expire(tables, name)
    assert swept(store, tables)[1].removed >= len(old)
    assert [key for key in old if store.exists(key)] == []
    assert state(tables) == before and of_rows(releases.load(store, new.name)) == rows and new.verify() == []
    for kind in ("videos", "operations", "masklets"):
        for batch_id in ("b1", "b2", "b3"):
            assert kind == "masklets" or list(parts.rows(store, kind, batch_id)), "the stages read these parts"


def test_a_part_that_lost_rows_outlives_its_compaction(store, tables, video, masklet, tmp_path):
    rows = [masklet("good", "v2", "b4"), masklet("quarantined", "v2", "b4")]
    parts.write_part(store, kind="masklets", batch_id="b4", video_id="v2", rows=rows)
    publish(store, tables, video, masklet, "b5", {"v2": 0})
    parts.commit_batch(store, tables, "masklets", "b4", keep=lambda row, n: n == 0)
    releases.make(store, tables, "release-0004-b4")
    assert [row.masklet_id for row in compact(store, tables, tmp_path, 1).masklets(["v2"])] == ["good"]
    age(store)
    swept(store, tables)
    assert list(parts.rows(store, "masklets", "b4")) == rows, "no other file has the quarantined one"


def test_a_large_file_of_a_killed_compaction_goes_and_a_finished_group_stays(store, tables, tmp_path):
    refs = releases.load(store, "release-0003-b3").batches
    group = compaction.write(store, refs, tmp_path)
    store.create("compacted/masklets/0123-0123456789abcdef.parquet", b"killed")
    age(store)
    assert swept(store, tables)[1].removed == 1
    made = compaction.release(store, releases.load(store, "release-0003-b3"), "release-0004-c", [group])
    assert made.verify() == [] and compaction.settle(store, tables, made) == [] and len(made.masklets()) == 9
    assert swept(store, tables)[1].removed == 0


def test_metadata_of_expired_snapshots_goes_and_the_table_reads_on(store, tables, monkeypatch):
    monkeypatch.setattr(table_upkeep, "KEPT", 1)
    before = state(tables)
    tables.tag("masklets", "v1", releases.load(store, "release-0001-b1").snapshots["masklets"])
    assert table_upkeep.expire_all(tables, releases.load(store, "release-0003-b3").snapshots["masklets"]) == 5
    store.create("warehouse/masklets/metadata/0123-m0.avro", b"of a killed commit")
    store.create("warehouse/masklets/metadata/stats.puffin", b"of another tool")
    age(store)
    assert swept(store, tables)[1].removed == 5 + 1, "five lists of manifests, and one manifest"
    tables.forget()
    assert state(tables) == before and store.exists("warehouse/masklets/metadata/stats.puffin")
    assert len(tables.masklets(snapshot_id=tables.tagged("masklets", "v1"))) == 5
    assert swept(store, tables)[1].removed == 0


def test_the_metadata_of_another_catalog_in_the_same_store_is_left_alone(store, tables, masklet, tmp_path):
    line = "warehouse/masklets: another catalog keeps a table there: its files are left alone"
    with Tables.open(f"sqlite:///{tmp_path}/other.db", str(store.root / "warehouse")) as other:
        age(store)
        assert line in swept(store, other)[1].problems
        commit(other, tmp_path, "b9", [masklet("m9", "v9", "b9")])
        age(store)
        assert swept(store, tables)[1].problems == (line,)
        other.forget()
        assert [row.masklet_id for row in other.masklets()] == ["m9"]
    assert len(tables.masklets()) == 9


def test_a_table_that_two_processes_made_at_once_is_swept_as_any_other(store, tables, tmp_path):
    before = set(store.keys())
    Tables.open(f"sqlite:///{tmp_path}/other.db", str(store.root / "warehouse")).close()
    lost = set(store.keys()) - before
    assert len(lost) == 4, "one file of each table"
    store.create("warehouse/masklets/metadata/0123-m0.avro", b"of a killed commit")
    age(store)
    assert swept(store, tables)[1] == Swept(1, 0, ())
    assert set(store.keys()) - {"condemned.json"} == before | lost and len(tables.masklets()) == 9


def test_a_store_under_another_address_than_its_tables_loses_no_file(store, tables, tmp_path):
    (tmp_path / "link").symlink_to(store.root)
    before, linked = list(store.keys()), LocalBlobs(tmp_path / "link")
    line = f"the tables name files below {store.uri}, this store is {linked.uri}: nothing was swept"
    assert linked.uri != store.uri and swept(linked, tables) == (Swept(0, 0, (line,)),) * 2
    tables.forget()
    assert list(store.keys()) == before and len(tables.masklets()) == 9


def test_nothing_is_removed_while_a_release_cannot_be_read(store, tables, masklet):
    key = orphan(store, masklet)
    age(store)
    now = time.time()
    sweep(store, tables, now)
    store.delete(releases.load(store, "release-0003-b3").batches[0].key)
    with pytest.raises(ReleaseError, match="missing"):
        sweep(store, tables, now + DAY)
    assert store.exists(key)


def test_the_sweep_works_in_a_bucket(s3, tmp_path, video, masklet):
    from storage.blobs.s3 import S3Blobs

    blobs = S3Blobs(s3.bucket, "team", endpoint_url=s3.endpoint_url, cache=tmp_path / "cache")
    with Tables.open(f"sqlite:///{tmp_path}/catalog.db", f"{blobs.uri}/warehouse", s3.endpoint_url) as tables:
        old = fill(blobs, tables, video, masklet)
        key = orphan(blobs, masklet)
        later = time.time() + 2 * DAY  # an object cannot be made older
        assert sweep(blobs, tables, later) == Swept(0, 1, ())
        assert sweep(blobs, tables, later + DAY).removed == 1 and not blobs.exists(key)
        assert old.verify() == [] and len(tables.masklets()) == 9
