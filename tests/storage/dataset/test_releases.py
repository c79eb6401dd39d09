"""Releases: pinned, complete, movable, and readable without a catalog."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from storage import arrow
from storage.blobs.folder import LocalBlobs
from storage.blobs.s3 import S3Blobs
from storage.dataset import parts, release_names, releases
from storage.dataset.batch_manifests import ReleaseError
from storage.formats import davis, sav
from storage.iceberg import table_upkeep
from storage.iceberg.tables import Tables


def publish(blobs, tables, video, masklet, batch_id: str, videos: dict[str, int]) -> None:
    """Admit videos and publish `videos[video_id]` masklets of each."""
    for video_id, count in videos.items():
        media = f"pictures of {video_id}".encode()
        digest = hashlib.sha256(media).hexdigest()
        row = video(video_id, batch_id=batch_id, video_sha256=digest, split="val" if count > 2 else "train")
        blobs.create(row.video_key, media)
        blobs.create(row.frames_key, b"[0.0]")
        parts.write_part(blobs, kind="videos", batch_id=batch_id, video_id=video_id, rows=[row])
        rows = [masklet(f"{video_id}-{n}", video_id, batch_id, split=row.split) for n in range(count)]
        parts.write_part(blobs, kind="masklets", batch_id=batch_id, video_id=video_id, rows=rows)
    parts.commit_batch(blobs, tables, "videos", batch_id)
    parts.commit_batch(blobs, tables, "masklets", batch_id)


@pytest.fixture
def published(disk, tables, video, masklet):
    publish(disk, tables, video, masklet, "b1", {"v1": 2, "v2": 3, "lonely": 0})
    return disk


def test_a_release_counts_and_lists_what_it_holds(published, tables):
    release = releases.make(published, tables, "round-000", extra={"seed": "7"})
    assert release.counts == {
        "videos": 2,
        "masklets": 5,
        "masks": 10,
        "by_split": {
            "train": {"videos": 1, "masklets": 2, "masks": 4},
            "val": {"videos": 1, "masklets": 3, "masks": 6},
        },
        "by_kind": {"auto": {"videos": 2, "masklets": 5, "masks": 10}},
    }
    assert release.extra == {"seed": "7"}
    assert [v.video_id for v in release.videos()] == ["v1", "v2"]
    assert [m.masklet_id for m in release.masklets()] == ["v1-0", "v1-1", "v2-0", "v2-1", "v2-2"]
    assert [m.masklet_id for m in release.masklets({"v1"})] == ["v1-0", "v1-1"]
    media = {f"videos/{v}{suffix}" for v in ("v1", "v2") for suffix in (".mp4", ".frames.json")}
    assert {f.key for f in release.files("media")} == media
    assert releases.names(published) == ["round-000"]
    assert release.verify() == []


def test_a_store_and_a_release_of_before_a_column_was_added_stay_readable(tmp_path, disk, video, masklet, monkeypatch):
    added = {"source_name", "source_metadata", "source_position", "changes", "label", "attributes"}
    real, address = arrow._fields, (f"sqlite:///{tmp_path}/old.db", f"{disk.uri}/warehouse")
    with monkeypatch.context() as patch:
        patch.setattr(arrow, "_fields", lambda record: tuple(f for f in real(record) if f.name not in added))
        with Tables.open(*address) as tables:
            publish(disk, tables, video, masklet, "b1", {"v1": 2})
            assert not added & set(tables.scan("videos").column_names + tables.scan("masklets").column_names)
            old = releases.make(disk, tables, "r1")
            expected = old.videos(), old.masklets()
    assert (old.videos(), old.masklets()) == expected
    with Tables.open(*address) as tables:
        publish(disk, tables, video, masklet, "b2", {"v2": 1})
        new = releases.make(disk, tables, "r2")
        assert [v.video_id for v in tables.videos()] == [v.video_id for v in new.videos()] == ["v1", "v2"]
    assert (releases.load(disk, "r1").videos(), releases.load(disk, "r1").masklets()) == expected
    assert [p.name for p in sav.export(new, tmp_path / "out").files] == ["v1_auto.json", "v2_auto.json"]


def test_imported_masklets_come_first_in_the_order_of_their_files(disk, tables, video, masklet):
    publish(disk, tables, video, masklet, "b1", {"v1": 1})
    rows = [masklet(f"{n:x}", batch_id="b2", source_position=position) for n, position in enumerate((10, 2, 9, None))]
    rows += [masklet("f", batch_id="b2", source_position=11, kind="manual")]
    parts.write_part(disk, kind="masklets", batch_id="b2", video_id="v1", rows=rows)
    parts.commit_batch(disk, tables, "masklets", "b2")
    expected = ["f", "1", "2", "0", "3", "v1-0"]
    assert [m.masklet_id for m in releases.make(disk, tables, "r1").masklets()] == expected
    assert [m.masklet_id for m in tables.masklets()] == expected


def test_what_is_published_later_is_not_in_an_earlier_release(published, tables, video, masklet):
    first = releases.make(published, tables, "r1")
    publish(published, tables, video, masklet, "b2", {"v3": 1})
    assert releases.make(published, tables, "r1") == first
    assert releases.load(published, "r1") == first
    second = releases.make(published, tables, "r2")
    assert second.counts["masklets"] == 6
    assert releases.load(published, "r1").counts["masklets"] == 5


def test_a_release_that_was_interrupted_after_tagging_uses_its_tags(published, tables, video, masklet):
    tables.tag("masklets", "r1")
    tables.tag("videos", "r1")
    publish(published, tables, video, masklet, "b2", {"v3": 1})
    assert releases.make(published, tables, "r1").counts["masklets"] == 5


@pytest.mark.server
def test_a_moved_release_is_read_with_pyarrow_alone(published, tables, tmp_path):
    """In another folder, without a catalog and without our code: only the manifests and pyarrow."""
    releases.make(published, tables, "r1")
    moved = tmp_path / "another machine"
    shutil.move(published.root, moved)
    program = """
import gzip, hashlib, json, sys
from pathlib import Path
import pyarrow.dataset as ds
root = Path(sys.argv[1])
manifest = json.loads((root / "releases/r1/manifest.json").read_text())
files = []
for batch in manifest["batches"]:
    data = (root / batch["key"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == batch["sha256"]
    listed = json.loads(gzip.decompress(data))["files"]
    files += listed["masklets"]
    for file in sum(listed.values(), []):
        data = (root / file["key"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file["sha256"] and len(data) == file["size"]
table = ds.dataset([str(root / file["key"]) for file in files]).to_table()
assert table.num_rows == manifest["counts"]["masklets"] == sum(f["rows"] for f in files)
assert [[f.name, str(f.type)] for f in table.schema] == manifest["schemas"]["masklets"]
print(sorted(table.column("masklet_id").to_pylist()))
"""
    done = subprocess.run([sys.executable, "-I", "-c", program, str(moved)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([f"v{v}-{n}" for v, c in ((1, 2), (2, 3)) for n in range(c)])
    again = releases.load(LocalBlobs(moved), "r1")
    assert len(again.masklets()) == 5
    assert again.verify() == []


def test_nothing_in_a_manifest_is_absolute(published, tables):
    releases.make(published, tables, "r1")
    (batch,) = json.loads(published.read("releases/r1/manifest.json"))["batches"]
    text = gzip.decompress(published.read(batch["key"])).decode()
    for each in (published.read("releases/r1/manifest.json").decode(), text):
        assert str(published.root) not in each
    assert all(not f["key"].startswith("/") for files in json.loads(text)["files"].values() for f in files)


def test_verify_names_every_file_that_is_missing_or_changed(published, tables):
    release = releases.make(published, tables, "r1")
    part, medium, frames = next(release.files("masklets")).key, "videos/v1.mp4", "videos/v2.frames.json"
    published.write(part, published.read(part)[:-1] + b"?")
    published.delete(medium)
    published.write(frames, b"longer than before")
    problems = release.verify()
    assert len(problems) == 3
    assert any(p.startswith(f"{part}: sha256") for p in problems)
    assert f"{medium}: missing" in problems
    assert f"{frames}: 18 bytes, the manifest says 5" in problems


def test_a_release_of_nothing_is_refused(disk, tables):
    with pytest.raises(releases.NothingPublished):
        releases.make(disk, tables, "r1")
    assert releases.names(disk) == []


def test_a_release_that_lacks_a_file_is_not_made(published, tables):
    published.delete("videos/v1.mp4")
    with pytest.raises(ReleaseError, match="videos/v1.mp4"):
        releases.make(published, tables, "r1")
    assert releases.names(published) == []


def test_masklets_of_an_unknown_video_are_not_released(published, tables, masklet):
    parts.write_part(published, kind="masklets", batch_id="b9", video_id="v9", rows=[masklet("m", "v9", "b9")])
    parts.commit_batch(published, tables, "masklets", "b9")
    with pytest.raises(ReleaseError, match="unknown videos: v9"):
        releases.make(published, tables, "r1")


@pytest.mark.parametrize("export", [sav.export, davis.export])
def test_a_masklet_with_too_short_lists_is_named_and_not_exported(disk, tables, video, masklet, tmp_path, export):
    def short(*arguments, **changes):
        row = masklet(*arguments, **changes)
        return replace(row, rle=row.rle[:-1])

    publish(disk, tables, video, short, "b1", {"v1": 1})
    release = releases.make(disk, tables, "r1")
    with pytest.raises(ReleaseError, match="release r1: masklet v1-0: [0-9]+ frames, but rle [0-9]+"):
        export(release, tmp_path / "out")


def test_a_missing_release_is_an_error_that_lists_the_others(published, tables):
    releases.make(published, tables, "r1")
    with pytest.raises(releases.NoSuchRelease, match="'r2'; there are: r1"):
        releases.load(published, "r2")


@pytest.mark.parametrize("name", ["", "a/b", "../x", "main", "a b"])
def test_a_malformed_name_is_a_value_error(published, tables, name):
    with pytest.raises(ValueError, match="name"):
        releases.make(published, tables, name)
    with pytest.raises(ValueError, match="name"):
        releases.load(published, name)


@pytest.mark.parametrize("text", [b"", b"[]", b'{"format": 1}', b'{"format": 2}', b'{"format": 99}'])
def test_a_manifest_that_cannot_be_read_is_a_release_error(disk, text):
    disk.write("releases/r1/manifest.json", text)
    with pytest.raises(ReleaseError, match="release r1"):
        releases.load(disk, "r1")


def test_a_release_on_s3_reads_the_same(s3, tmp_path, video, masklet):
    blobs = S3Blobs(s3.bucket, "team", endpoint_url=s3.endpoint_url, cache=tmp_path / "cache")
    with Tables.open(f"sqlite:///{tmp_path}/catalog.db", f"{blobs.uri}/warehouse", s3.endpoint_url) as tables:
        publish(blobs, tables, video, masklet, "b1", {"v1": 2})
        release = releases.make(blobs, tables, "r1")
    assert release.verify() == []
    assert release.masklets() == [masklet("v1-0"), masklet("v1-1")]
    local = tmp_path / "copied"
    for key in blobs.keys():
        path = local / Path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blobs.read(key))
    assert releases.load(LocalBlobs(local), "r1").masklets() == release.masklets()
    assert pq.read_metadata(local / next(release.files("masklets")).key).num_rows == 2


def test_a_release_gets_a_name_of_its_own_and_a_tag_while_its_snapshot_exists(
    published, tables, video, masklet, monkeypatch
):
    monkeypatch.setattr(table_upkeep, "KEPT", 1)
    first = releases.make(published, tables, "release-0001-b1")
    for n in (2, 3):
        publish(published, tables, video, masklet, f"b{n}", {f"w{n}": 1})
        newest = releases.make(published, tables, f"release-000{n}-b{n}")
    table_upkeep.expire_all(tables, newest.snapshots["masklets"])
    named, tagged = release_names.give_name(published, tables, newest, "v1.0")
    assert tagged and tables.tagged("masklets", "v1.0") == newest.snapshots["masklets"]
    assert named.masklets() == newest.masklets() and named.counts == newest.counts
    assert releases.names(published)[-1] == newest.name, "the newest is the pipeline's"
    assert release_names.give_name(published, tables, newest, "v1.0") == (named, True)
    old, tagged = release_names.give_name(published, tables, first, "v0.1")
    assert not tagged and old.masklets() == first.masklets()
    with pytest.raises(ValueError, match="'v1.0' is already the name of another release"):
        release_names.give_name(published, tables, first, "v1.0")
    with pytest.raises(ValueError, match="'release-7': names that begin with release- and a number"):
        release_names.give_name(published, tables, first, "release-7")
    dated, _ = release_names.give_name(published, tables, newest, "paper-2026")
    assert dated.masklets() == newest.masklets() and releases.names(published)[-1] == newest.name
    publish(published, tables, video, masklet, "b4", {"w4": 1})
    assert len(releases.make(published, tables, "release-0004-b4").batches) == 4
