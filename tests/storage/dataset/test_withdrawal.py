"""Withdrawn videos: gone from the next release and the tables, named by earlier releases, erased on request."""

from __future__ import annotations

import pytest
from pyiceberg.io.pyarrow import PyArrowFile

from storage.blobs.folder import LocalBlobs
from storage.dataset import batch_manifests, compacted, compaction, parts, releases, reproduction, withdrawal, withdrawn
from storage.dataset.releases import Release
from storage.dataset.withdrawn import Withdrawal
from tests.storage.dataset.test_compaction import compact, fill, state
from tests.storage.dataset.test_release_chain import format_1, unmark
from tests.storage.dataset.test_releases import publish
from tests.storage.killed_writes import Killed, kill_at

pytestmark = pytest.mark.slow
ACT = Withdrawal(video_id="v9", by="ann", at="2026-01-01T00:00:00+00:00", why="the person asked")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    batch_manifests.forget()
    monkeypatch.setattr(compacted, "GROUP_BYTES", 1)


@pytest.fixture(params=["parts", "large files"])
def store(request, disk, tables, video, masklet, tmp_path):
    """Nine masklets of five videos: v9 and v1 of the first batch, v5, v3 and v7 of later ones."""
    fill(disk, tables, video, masklet)
    if request.param == "large files":
        newest = releases.load(disk, "release-0003-b3")
        group = compaction.write(disk, newest.batches, tmp_path)
        made = compaction.release(disk, newest, "release-0004-c", [group])
        assert compaction.settle(disk, tables, made) == []
    return disk


def newest(blobs) -> Release:
    return releases.load(blobs, releases.names(blobs)[-1])


def withdraw(blobs, tables, tmp_path, act=ACT) -> Release:
    act, before = withdrawn.record(blobs, act), newest(blobs)
    withdrawal.empty_parts(blobs, act.video_id, ["b1"])
    if before.holds(act.video_id):
        name = f"release-{len(releases.names(blobs)) + 1:04d}-without"
        withdrawal.release_without(before, act.video_id, name, tmp_path)
    withdrawal.take_from_tables(blobs, tables, act, tmp_path)
    return newest(blobs)


def test_the_next_release_and_the_tables_are_without_the_video(store, tables, tmp_path):
    old, rows = newest(store), state(tables)
    digests = {name: releases.load(store, name).digest for name in releases.names(store)}
    new = withdraw(store, tables, tmp_path)
    assert [m.masklet_id for m in new.masklets()] == [m.masklet_id for m in old.masklets() if m.video_id != "v9"]
    assert new.masklets(["v9"]) == [] and new.masklets(["v1"]) == old.masklets(["v1"]) and new.verify() == []
    assert [v.video_id for v in new.videos()] == ["v1", "v3", "v5", "v7"] and not new.holds("v9")
    assert not any(file.video_id == "v9" for kind in batch_manifests.KINDS for file in new.files(kind))
    assert (new.counts["videos"], new.counts["masklets"], new.counts["masks"]) == (4, 7, 14)
    assert new.counts["by_split"] == {
        "train": {"videos": 3, "masklets": 4, "masks": 8},
        "val": old.counts["by_split"]["val"],
    }
    assert reproduction.reproduce(new).differences == ()
    for before, now in zip(rows[:3], state(tables)[:3], strict=True):
        assert now == [row for row in before if row.video_id != "v9"]
    summary = tables.load("masklets").current_snapshot().summary
    assert [summary.get(f"engine.withdrawn.{name}") for name in ("by", "at", "why")] == [ACT.by, ACT.at, ACT.why]
    for name, digest in digests.items():
        earlier = releases.load(store, name)
        assert earlier.digest == digest and [m.masklet_id for m in earlier.masklets(["v9"])] == ["v9-0", "v9-1"]
        assert withdrawal.held_by(earlier) == [ACT]
    assert withdrawal.held_by(new) == []


def test_a_second_withdrawal_changes_nothing_and_keeps_the_first_record(store, tables, tmp_path):
    new = withdraw(store, tables, tmp_path)
    snapshots = {name: tables.snapshot_id(name) for name in ("masklets", "videos", "operations")}
    other = Withdrawal(video_id="v9", by="bob", at="2027-01-01T00:00:00+00:00", why="again")
    assert withdraw(store, tables, tmp_path, other) == new and withdrawn.all_of(store) == [ACT]
    assert {name: tables.snapshot_id(name) for name in snapshots} == snapshots
    assert withdrawn.among(store, {"v9", "v1"}) == {"v9"}
    with pytest.raises(ValueError, match="not the id of a video"):
        withdrawn.among(store, {"a/b"})


def test_later_batches_and_compactions_follow_a_withdrawal(store, tables, tmp_path, video, masklet):
    withdraw(store, tables, tmp_path)
    publish(store, tables, video, masklet, "b4", {"v8": 1})
    new = releases.make(store, tables, "release-0009-b4")
    assert len(new.masklets()) == 8 == new.counts["masklets"]
    again = compact(store, tables, tmp_path, 1)
    assert again.masklets() == new.masklets() and again.verify() == []
    assert len(tables.masklets()) == 8 and reproduction.reproduce(again).differences == ()


def test_a_batch_that_was_committed_and_not_released_is_released_without_the_video(store, tables, tmp_path, masklet):
    rows = [masklet("late", "v9", "b4")]
    parts.write_part(store, kind="masklets", batch_id="b4", video_id="v9", rows=rows)
    parts.write_part(store, kind="masklets", batch_id="b4", video_id="v1", rows=[masklet("other", "v1", "b4")])
    parts.commit_batch(store, tables, "masklets", "b4")
    withdraw(store, tables, tmp_path)
    new = releases.make(store, tables, "release-0009-b4")
    assert [m.masklet_id for m in new.masklets(["v9", "v1"])] == ["other", "v1-0", "v1-1", "v1-2"]
    assert new.counts["masklets"] == 8 and new.verify() == []


def test_a_reader_who_may_not_have_a_video_gets_a_release_without_it(store):
    new = newest(store).without(["v9"])
    assert {m.video_id for m in new.masklets()} == {"v1", "v3", "v5", "v7"} == set(new.masklet_counts())
    assert new.masklets(["v9"]) == [] and "v9" not in {v.video_id for v in new.videos()}
    assert not any(file.video_id == "v9" for file in new.files("media"))


def test_erased_files_are_gone_and_earlier_releases_read_the_rest(store, tables, tmp_path):
    names, old = releases.names(store), newest(store)
    rest = [m for m in old.masklets() if m.video_id != "v9"]
    new = withdraw(store, tables, tmp_path)
    assert withdrawal.erase(store, "v9", ["b1"], tmp_path) > 0
    for key in ("videos/v9.mp4", "videos/v9.frames.json"):
        withdrawn.mark_erased(store, key, None)
        store.delete(key)
    assert withdrawal.erase(store, "v9", ["b1"], tmp_path) == 0
    for key in store.keys():
        if key.endswith(".parquet"):
            assert b"v9-0" not in store.read(key) and b"o-v9" not in store.read(key), key
    for name in names:
        earlier = releases.load(store, name)
        assert earlier.verify() == [] and earlier.masklets(["v9"]) == [] and earlier.holds("v9")
        assert withdrawal.held_by(earlier) == [ACT]
    batch_manifests.forget()
    assert newest(store) == new and new.masklets() == rest
    earlier = releases.load(store, names[-1])
    assert earlier.masklets() == rest and sum(earlier.masklet_counts().values()) in (7, 9)
    assert any("erased with a withdrawn video" in line for line in reproduction.reproduce(earlier).differences)
    assert list(parts.rows(store, "masklets", "b1")) == [m for m in rest if m.batch_id == "b1"]


def test_a_compaction_that_was_not_finished_keeps_nothing_of_an_erased_video(disk, tables, video, masklet, tmp_path):
    fill(disk, tables, video, masklet)
    group = compaction.write(disk, newest(disk).batches, tmp_path)
    without = withdraw(disk, tables, tmp_path)
    withdrawal.erase(disk, "v9", ["b1"], tmp_path)
    assert compaction.release(disk, without, "release-0009-c", [group]).batches == without.batches
    assert not [key for key in disk.keys("compacted/") if b"v9-0" in disk.read(key)]


def test_two_videos_of_one_large_file_are_erased_one_after_the_other(disk, tables, video, masklet, tmp_path):
    fill(disk, tables, video, masklet)
    compact(disk, tables, tmp_path, 1)
    names = releases.names(disk)
    for video_id in ("v9", "v1"):
        act = Withdrawal(video_id=video_id, by="ann", at=ACT.at, why=ACT.why)
        withdraw(disk, tables, tmp_path, act)
        withdrawal.erase(disk, video_id, ["b1"], tmp_path)
    for name in names:
        earlier = releases.load(disk, name)
        assert {m.video_id for m in earlier.masklets()} <= {"v3", "v5", "v7"}
    assert [m.masklet_id for m in newest(disk).masklets()] == ["v3-0", "v3-1", "v5-0", "v7-0"]
    assert {m.video_id for m in tables.masklets()} == {"v3", "v5", "v7"}


def test_a_video_of_a_release_of_format_1_is_withdrawn_from_the_next(disk, tables, video, masklet, tmp_path):
    publish(disk, tables, video, masklet, "b1", {"v1": 2, "v9": 1})
    unmark(disk)
    format_1(disk, tables, "release-0001-b1")
    publish(disk, tables, video, masklet, "b2", {"v2": 1})
    releases.make(disk, tables, "release-0002-b2")
    new = withdraw(disk, tables, tmp_path)
    assert [m.masklet_id for m in new.masklets()] == ["v1-0", "v1-1", "v2-0"] and new.first is None
    assert new.masklets(["v1"]) == new.masklets()[:2] and new.verify() == []
    assert len(releases.load(disk, "release-0002-b2").masklets()) == 4
    publish(disk, tables, video, masklet, "b3", {"v3": 1})
    assert len(releases.make(disk, tables, "release-0004-b3").masklets()) == 4


def test_a_withdrawal_that_is_killed_at_any_write_is_completed_by_the_next(store, tables, tmp_path, monkeypatch):
    rows, writes, killed = state(tables)[0], 0, True
    left = kill_at(monkeypatch, (LocalBlobs, "create"), (PyArrowFile, "create"))
    rest = [row for row in rows if row.video_id != "v9"]
    while killed:
        left[0] = writes
        try:
            withdraw(store, tables, tmp_path)
            killed = False
        except Killed:
            writes += 1
        left[0] = -(10**9)
        assert tables.masklets() in (rows, rest)
        assert newest(store).masklets() in (rows, rest)
        assert newest(store).counts["masklets"] == len(newest(store).masklets())
    assert newest(store).masklets() == tables.masklets() == rest and writes > 5


def test_a_release_is_reproduced_with_the_same_hashes_and_a_changed_file_is_named(
    disk, tables, video, masklet, tmp_path, monkeypatch
):
    monkeypatch.setattr(releases, "OWN", 2)
    publish(disk, tables, video, masklet, "b0", {"v0": 2})
    format_1(disk, tables, "release-0001-b0")
    for n in range(1, 6):
        publish(disk, tables, video, masklet, f"b{n}", {f"v{n}": n})
        releases.make(disk, tables, f"release-000{n + 1}-b{n}", extra={"n": str(n)})
    compact(disk, tables, tmp_path, 1500)
    for name in releases.names(disk):
        release = releases.load(disk, name)
        found = reproduction.reproduce(release)
        assert (found.sha256, found.differences) == (release.digest, ())
    key = next(iter(releases.load(disk, "release-0004-b3").files("media"))).key
    disk.write(key, b"changed")
    found = reproduction.reproduce(releases.load(disk, "release-0004-b3"))
    (line,) = found.differences
    assert line.startswith(f"{key}: 7 bytes, sha256")
    part = next(file.key for file in releases.load(disk, "release-0004-b3").files("masklets") if "b2" in file.key)
    disk.delete(part)
    lines = reproduction.reproduce(releases.load(disk, "release-0004-b3")).differences
    assert f"{part}: missing" in lines and any(line.startswith("counts: ") for line in lines)
