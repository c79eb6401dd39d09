"""Releases that add to earlier ones: what they hold, what they cost, and what pins them."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter

import pytest

from storage import arrow
from storage.blobs.folder import LocalBlobs
from storage.dataset import batch_manifests, parts, release_names, releases
from storage.dataset.batch_manifests import ReleaseError
from storage.iceberg.table_errors import TablesError
from storage.iceberg.tables import Tables
from storage.records import Masklet, Video
from tests.storage.dataset.test_releases import publish
from validation import release_checks


@pytest.fixture(autouse=True)
def nothing_cached():
    batch_manifests.forget()


@pytest.fixture
def chain(disk, tables, video, masklet, monkeypatch):
    """Seven releases, one batch of one video each; a manifest lists at most two batches before it lists all."""
    monkeypatch.setattr(releases, "OWN", 2)
    for n in range(1, 8):
        publish(disk, tables, video, masklet, f"b{n}", {f"v{n}": n})
        releases.make(disk, tables, f"r{n}")
    return disk


def format_1(blobs, tables, name) -> bytes:
    """The manifest that the program wrote until releases had batches: every file, with the hash of its bytes."""

    def listed(key, **more):
        data = blobs.read(key)
        return {"key": key, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), **more}

    def files(table, snapshot_id):
        keys = [file.uri.removeprefix(f"{blobs.uri}/") for file in tables.added_files(table, snapshot_id)]
        counts = [len(arrow.read_parquet(blobs.read(key))) for key in keys]
        return [listed(key, rows=n, video_id=parts.video_of(key)) for key, n in zip(keys, counts, strict=True)]

    snapshots = {table: tables.tag(table, name) for table in ("masklets", "videos")}
    rows, videos = tables.masklets(), tables.videos()
    size = {
        "videos": len({row.video_id for row in rows}),
        "masklets": len(rows),
        "masks": sum(area > 0 for row in rows for area in row.area_px),
    }
    manifest = {
        "format": 1,
        "name": name,
        "counts": {**size, "by_split": {"train": size}, "by_kind": {"auto": size}},
        "extra": {"batch_id": "b1"},
        "snapshots": snapshots,
        "schemas": {
            "masklets": [[f.name, str(f.type)] for f in arrow.schema(Masklet)],
            "videos": [[f.name, str(f.type)] for f in arrow.schema(Video)],
        },
        "files": {
            "masklets": files("masklets", snapshots["masklets"]),
            "videos": files("videos", snapshots["videos"]),
            "media": [listed(key, video_id=v.video_id) for v in videos for key in (v.video_key, v.frames_key)],
        },
    }
    data = json.dumps(manifest, indent=1).encode()
    blobs.create(f"releases/{name}/manifest.json", data)
    return data


def unmark(blobs):
    """As if an earlier version had published everything."""
    for key in list(blobs.keys("videos/")):
        if "/published/" in key:
            blobs.delete(key)


def ids(release, video_ids=None):
    return [m.masklet_id for m in release.masklets(video_ids)]


def test_each_release_holds_all_batches_up_to_its_own_and_only_these(chain):
    for n in range(1, 8):
        release = releases.load(chain, f"r{n}")
        assert [ref.batch_id for ref in release.batches] == [f"b{k}" for k in range(1, n + 1)]
        assert ids(release) == [f"v{k}-{i}" for k in range(1, n + 1) for i in range(k)]
        assert release.counts["masklets"] == len(ids(release)) and release.counts["videos"] == n
        assert [v.video_id for v in release.videos()] == [f"v{k}" for k in range(1, n + 1)]
        assert release.verify() == []
        assert ids(release, ["v7"]) == ([f"v7-{i}" for i in range(7)] if n == 7 else [])


def test_a_release_is_read_from_at_most_three_manifests_and_most_list_few_batches(chain, monkeypatch):
    listed = [len(json.loads(chain.read(f"releases/r{n}/manifest.json"))["batches"]) for n in range(1, 8)]
    assert listed == [1, 2, 1, 2, 5, 1, 2]
    read, real = Counter(), LocalBlobs.read
    monkeypatch.setattr(LocalBlobs, "read", lambda self, key, *more: (read.update([key]), real(self, key, *more))[1])
    releases.load(chain, "r7")
    assert read == {"releases/r7/manifest.json": 1, "releases/r5/manifest.json": 1}


def test_a_release_of_format_1_stays_readable_and_can_be_added_to(disk, tables, video, masklet, monkeypatch):
    monkeypatch.setattr(releases, "OWN", 2)
    publish(disk, tables, video, masklet, "b1", {"v1": 2, "v2": 1})
    unmark(disk)
    data = format_1(disk, tables, "r1")
    old = releases.load(disk, "r1")
    assert (ids(old), ids(old, ["v2"]), old.verify()) == (["v1-0", "v1-1", "v2-0"], ["v2-0"], [])
    assert old.masklet_counts() == {"v1": 2, "v2": 1} and old.digest == hashlib.sha256(data).hexdigest()
    for n in range(2, 8):
        publish(disk, tables, video, masklet, f"b{n}", {f"v{n + 1}": 1})
        new = releases.make(disk, tables, f"r{n}")
        assert ids(new) == ["v1-0", "v1-1", *(f"v{k}-0" for k in range(2, n + 2))]
        assert ids(new, ["v1"]) == ["v1-0", "v1-1"] and ids(new, [f"v{n + 1}"]) == [f"v{n + 1}-0"]
        assert len(new.videos()) == new.counts["videos"] == n + 1 and new.counts["masks"] == 2 * (n + 2)
        assert new.verify() == []
    assert releases.load(disk, "r1") == old and disk.read("releases/r1/manifest.json") == data


def test_a_release_of_format_1_gets_a_name_and_a_taken_name_changes_nothing(disk, tables, video, masklet):
    publish(disk, tables, video, masklet, "b1", {"v1": 2, "v2": 1})
    format_1(disk, tables, "release-0001-b1")
    old = releases.load(disk, "release-0001-b1")
    named, tagged = release_names.give_name(disk, tables, old, "v1.0")
    assert tagged and ids(named) == ids(old) and (named.counts, named.verify()) == (old.counts, [])
    publish(disk, tables, video, masklet, "b2", {"v3": 1})
    newer = releases.make(disk, tables, "release-0002-b2")
    with pytest.raises(ValueError, match="'v1.0' is already the name of another release"):
        release_names.give_name(disk, tables, newer, "v1.0")
    assert ids(releases.load(disk, "v1.0")) == ids(old)


def test_whether_an_earlier_release_holds_a_video_costs_no_manifest(chain, monkeypatch):
    read, real = Counter(), batch_manifests.read
    monkeypatch.setattr(batch_manifests, "read", lambda blobs, ref: (read.update([ref.batch_id]), real(blobs, ref))[1])
    assert [n for n in range(1, 8) if releases.load(chain, f"r{n}").holds("v6")] == [6, 7]
    assert read == {"b6": 1}
    unmark(chain)
    assert releases.load(chain, "r7").holds("v6") and not releases.load(chain, "r5").holds("v6")


def test_masklets_of_a_video_that_a_release_of_format_1_has_are_found_in_both(disk, tables, video, masklet):
    publish(disk, tables, video, masklet, "b1", {"v1": 2})
    unmark(disk)
    format_1(disk, tables, "r1")
    rows = [masklet("late", "v1", "b2", kind="manual")]
    parts.write_part(disk, kind="masklets", batch_id="b2", video_id="v1", rows=rows)
    parts.commit_batch(disk, tables, "masklets", "b2")
    new = releases.make(disk, tables, "r2")
    assert ids(new, ["v1"]) == ["late", "v1-0", "v1-1"] and len(list(new.files("media"))) == 2
    assert new.counts["videos"] == new.counts["by_split"]["train"]["videos"] == 1
    assert new.counts["by_kind"] == {
        "auto": {"videos": 1, "masklets": 2, "masks": 4},
        "manual": {"videos": 1, "masklets": 1, "masks": 2},
    }


@pytest.mark.parametrize("together", [True, False])
def test_a_video_of_two_batches_counts_once_and_its_media_are_listed_once(disk, tables, video, masklet, together):
    publish(disk, tables, video, masklet, "b1", {"v1": 1})
    if not together:
        releases.make(disk, tables, "r1")
    rows = [masklet("other", "v1", "b2"), masklet("hand", "v1", "b2", kind="manual")]
    parts.write_part(disk, kind="masklets", batch_id="b2", video_id="v1", rows=rows)
    parts.commit_batch(disk, tables, "masklets", "b2")
    release = releases.make(disk, tables, "r2")
    assert (release.counts["videos"], release.counts["masklets"]) == (1, 3)
    assert {kind: of["videos"] for kind, of in release.counts["by_kind"].items()} == {"auto": 1, "manual": 1}
    assert [file.key for file in release.files("media")] == ["videos/v1.mp4", "videos/v1.frames.json"]
    assert ids(release, ["v1"]) == ["hand", "other", "v1-0"]


def test_one_video_is_read_without_the_files_of_the_others(chain, monkeypatch):
    release = releases.load(chain, "r7")
    read, real = [], LocalBlobs.read

    def counted(self, key, *more):
        read.append(key)
        return real(self, key, *more)

    monkeypatch.setattr(LocalBlobs, "read", counted)
    assert ids(release, ["v3"]) == ["v3-0", "v3-1", "v3-2"]
    manifest, part = read
    assert manifest.startswith("manifests/b3-") and part.startswith("parts/masklets/batch=b3/v3-")


def test_a_release_that_was_copied_without_the_marks_gives_the_same_masklets_of_a_video(chain):
    unmark(chain)
    assert ids(releases.load(chain, "r7"), ["v3"]) == ["v3-0", "v3-1", "v3-2"]
    assert ids(releases.load(chain, "r7"), ["v9"]) == ids(releases.load(chain, "r7"), ["no id"]) == []


def test_the_hash_of_a_release_pins_its_batches_and_the_release_that_it_adds_to(chain):
    release = releases.load(chain, "r7")
    key = "releases/r5/manifest.json"
    kept = chain.read(key)
    chain.write(key, kept.replace(b'"masks":', b'"masks": '))
    with pytest.raises(ReleaseError, match="release r7: it adds to r5, whose manifest has changed: sha256"):
        releases.load(chain, "r7")
    chain.delete(key)
    with pytest.raises(ReleaseError, match="release r7: it adds to the release 'r5', which is missing"):
        releases.load(chain, "r7")
    chain.write(key, kept)
    batch = release.batches[2].key
    chain.write(batch, gzip.compress(gzip.decompress(chain.read(batch)).replace(b"v3", b"v4")))
    with pytest.raises(ReleaseError, match=f"{batch}: sha256 [0-9a-f]+…, its release says [0-9a-f]+…"):
        ids(releases.load(chain, "r7"))


@pytest.mark.parametrize(
    "damage", [None, b"", b"garbage", gzip.compress(b"[]", mtime=0), gzip.compress(b'{"format": 9}', mtime=0)]
)
def test_a_damaged_batch_manifest_is_one_line_and_the_other_batches_are_checked(chain, damage):
    refs = releases.load(chain, "r7").batches
    if damage is None:
        chain.delete(refs[2].key)
    else:  # by somebody who has repaired the hashes, too
        chain.write(refs[2].key, damage)
        own = json.loads(chain.read("releases/r7/manifest.json"))
        base = json.loads(chain.read("releases/r5/manifest.json"))
        base["batches"][2]["sha256"] = hashlib.sha256(damage).hexdigest()
        data = json.dumps(base).encode()
        chain.write("releases/r5/manifest.json", data)
        own["base"]["sha256"] = hashlib.sha256(data).hexdigest()
        chain.write("releases/r7/manifest.json", json.dumps(own).encode())
    found = release_checks.check(releases.load(chain, "r7"))
    about, *more = [problem for problem in found.problems if "mp4" not in problem]
    assert about.startswith(f"{refs[2].key}: ") and "\n" not in about and more == []
    assert (found.videos, found.masklets) == (6, 28 - 3)


def test_the_manifest_of_a_batch_takes_its_hashes_from_the_markers(disk, tables, video, masklet, monkeypatch):
    publish(disk, tables, video, masklet, "b1", {"v1": 2, "v2": 1})
    measured, real = [], batch_manifests.measure

    def counted(blobs, key):
        measured.append(key)
        return real(blobs, key)

    monkeypatch.setattr(batch_manifests, "measure", counted)
    release = releases.make(disk, tables, "r1")
    assert sorted(measured) == ["videos/v1.frames.json", "videos/v2.frames.json"]
    assert {f.sha256 for f in release.files("masklets")} == {m.sha256 for m in parts.markers(disk, "masklets", "b1")}


def test_a_part_that_lost_rows_is_in_the_manifest_with_its_own_hash(disk, tables, video, masklet):
    parts.write_part(disk, kind="videos", batch_id="b1", video_id="v1", rows=[video("v1", video_sha256=EMPTY)])
    disk.create("videos/v1.mp4", b"")
    disk.create("videos/v1.frames.json", b"[]")
    parts.write_part(disk, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet("a"), masklet("b")])
    parts.commit_batch(disk, tables, "videos", "b1")
    parts.commit_batch(disk, tables, "masklets", "b1", keep=lambda row, n: n == 1)
    release = releases.make(disk, tables, "r1")
    assert (ids(release), release.counts["masklets"], release.verify()) == (["b"], 1, [])


EMPTY = hashlib.sha256(b"").hexdigest()


def test_a_batch_that_was_committed_and_not_released_is_in_the_next_release(disk, tables, video, masklet):
    publish(disk, tables, video, masklet, "b1", {"v1": 1})
    publish(disk, tables, video, masklet, "b2", {"v2": 1})
    assert ids(releases.make(disk, tables, "r1")) == ["v1-0", "v2-0"]
    tables.tag("masklets", "r2")  # interrupted here
    publish(disk, tables, video, masklet, "b3", {"v3": 1})
    assert ids(releases.make(disk, tables, "r3")) == ["v1-0", "v2-0", "v3-0"]
    assert ids(releases.make(disk, tables, "r2")) == ["v1-0", "v2-0"]


def test_rows_that_another_tool_deleted_stop_a_release(disk, tables, video, masklet):
    publish(disk, tables, video, masklet, "b1", {"v1": 1, "v2": 1})
    releases.make(disk, tables, "r1")
    tables.load("masklets").delete("video_id == 'v1'")
    with pytest.raises(TablesError, match="snapshot [0-9]+ was made by another tool, which changed or deleted rows"):
        releases.make(disk, tables, "r2")


def test_snapshots_that_another_tool_expired_stop_a_release(disk, tables, video, masklet):
    for n in (1, 2, 3):
        publish(disk, tables, video, masklet, f"b{n}", {f"v{n}": 1})
    lost = list(tables.history("masklets", tables.snapshot_id("masklets")))[1].snapshot_id
    tables.load("masklets").maintenance.expire_snapshots().by_id(lost).commit()
    with pytest.raises(TablesError, match="a snapshot before [0-9]+ was expired"):
        releases.make(disk, tables, "r1")
    assert releases.names(disk) == []


def test_a_catalog_that_was_made_anew_adds_to_the_releases_of_the_store(disk, tables, tmp_path, video, masklet):
    publish(disk, tables, video, masklet, "b1", {"v1": 2})
    releases.make(disk, tables, "release-0001-b1")
    with Tables.open(f"sqlite:///{tmp_path}/new.db", f"{tmp_path}/new warehouse") as anew:
        publish(disk, anew, video, masklet, "b2", {"v2": 1})
        release = releases.make(disk, anew, "release-0002-b2")
    assert ids(release) == ["v1-0", "v1-1", "v2-0"] and release.counts["masklets"] == 3
