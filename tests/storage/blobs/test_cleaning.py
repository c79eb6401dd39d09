"""What killed processes leave is removed once it is old; a cache keeps below its limit, and what is used stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

from storage.blobs import cleaning
from storage.blobs.s3 import S3Blobs


def made(path: Path, size: int, age_s: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_only_old_partial_files_are_removed_and_never_a_blob(disk):
    old = made(disk.root / "videos/v1/.part-a", 1, 2 * cleaning.LEFT_S)
    new = made(disk.root / "videos/v1/.part-b", 1, 60)
    blob = made(disk.root / "videos/v1/video.mp4", 1, 1000 * cleaning.LEFT_S)
    assert disk.tidy() == 1 and disk.tidy() == 0
    assert (old.exists(), new.exists(), blob.exists()) == (False, True, True)


def test_empty_folders_go(disk):
    disk.write("videos/v1/video.mp4", b"1")
    (disk.root / "attempts/ingest/v1").mkdir(parents=True)
    (disk.root / "videos/v2").mkdir()
    disk.tidy()
    assert [path.name for path in disk.root.iterdir()] == ["videos"] and disk.exists("videos/v1/video.mp4")
    assert not (disk.root / "videos/v2").exists()


def test_a_cache_evicts_what_was_unused_for_longest_and_keeps_what_is_in_use(tmp_path):
    cache = tmp_path / "cache"
    ages = {"oldest": 9e4, "older": 8e4, "old": 7e4, "used": 60}
    files = {name: made(cache / name, 10, age) for name, age in ages.items()}
    left = made(cache / f"{cleaning.FOLDER}x" / "half.mp4", 10, 2 * cleaning.LEFT_S)
    os.utime(left.parent, (1, 1))
    made(cache / "folders" / "model", 10, 1e9)  # other folders of the cache are not its files
    assert cleaning.trim(cache, 25) == 20
    assert [name for name, path in files.items() if path.exists()] == ["old", "used"]
    assert not left.parent.exists() and (cache / "folders" / "model").exists()
    assert cleaning.trim(cache, 0) == 10 and files["used"].exists()
    assert cleaning.trim(tmp_path / "missing", 0) == 0


def test_fetching_from_a_bucket_keeps_the_cache_below_its_limit(s3, tmp_path):
    cache = tmp_path / "cache"
    blobs = S3Blobs(s3.bucket, "p", endpoint_url=s3.endpoint_url, cache=cache, cache_limit=25)
    paths = []
    for n in range(3):
        blobs.write(f"v{n}.mp4", bytes([n]) * 10)
        paths.append(blobs.fetch(f"v{n}.mp4"))
        os.utime(paths[-1], (time.time() - 2 * cleaning.IN_USE_S + n,) * 2)
        if n == 1:
            assert blobs.fetch("v0.mp4") == paths[0]  # used again just now
    assert [path.exists() for path in paths] == [True, False, True]
    assert blobs.fetch("v1.mp4").read_bytes() == bytes([1]) * 10


def test_uploads_that_nobody_completes_are_aborted(s3, tmp_path, monkeypatch):
    blobs = S3Blobs(s3.bucket, "p", endpoint_url=s3.endpoint_url, cache=tmp_path / "cache")
    client = blobs._client()
    for key in ("p/videos/v1.mp4", "other/v1.mp4"):
        client.create_multipart_upload(Bucket=s3.bucket, Key=key)
    with monkeypatch.context() as patch:  # moto says of every upload that it began in 2010
        patch.setattr("storage.blobs.s3.LEFT_S", 100 * 365 * 24 * 3600.0)
        assert blobs.tidy() == 0
    assert blobs.tidy() == 1
    assert [u["Key"] for u in client.list_multipart_uploads(Bucket=s3.bucket)["Uploads"]] == ["other/v1.mp4"]
