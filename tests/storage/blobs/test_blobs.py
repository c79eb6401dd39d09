"""One contract for both stores, and the cases that only one of them has."""

from __future__ import annotations

import errno
import http.server
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from botocore.compat import HTTPHeaders

from storage.blobs.base import BlobDenied, BlobError, BlobMissing, BlobUnreachable
from storage.blobs.folder import LocalBlobs
from storage.blobs.s3 import S3Blobs
from storage.blobs.stores import connect

MALFORMED = ["", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a\\b", "a\nb", "a\u2028b", "a\udcffb", "."]


def test_what_is_written_is_read(blobs):
    blobs.write("a/b.bin", b"\x00one")
    assert blobs.read("a/b.bin") == b"\x00one"
    assert blobs.size("a/b.bin") == 4
    assert blobs.exists("a/b.bin")
    blobs.write("a/b.bin", b"")
    assert blobs.read("a/b.bin") == b""


def test_a_file_can_be_written_as_well_as_bytes(blobs, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 100_000)
    blobs.write("a", source)
    assert blobs.create("b", source)
    assert blobs.read("a") == blobs.read("b") == source.read_bytes()


def test_create_makes_a_blob_once_and_never_replaces_it(blobs):
    assert blobs.create("key", b"first")
    assert not blobs.create("key", b"second")
    assert blobs.read("key") == b"first"


def test_of_many_creators_exactly_one_wins(blobs):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: blobs.create("race", str(n).encode()), range(16)))
    assert won.count(True) == 1
    assert blobs.read("race") == str(won.index(True)).encode()


def test_keys_are_sorted_and_belong_to_the_prefix(blobs):
    for key in ("b/2", "b/10", "b/1/x", "bb", "a-b/1", "a/1", "é"):
        blobs.write(key, b"")
    assert list(blobs.keys()) == sorted(["b/2", "b/10", "b/1/x", "bb", "a-b/1", "a/1", "é"], key=str.encode)
    assert list(blobs.keys("b/")) == ["b/1/x", "b/10", "b/2"]
    assert list(blobs.keys("b")) == ["b/1/x", "b/10", "b/2", "bb"]
    assert list(blobs.keys("nothing/")) == []


def test_a_key_may_have_odd_spaces_joiners_and_new_characters(blobs):
    keys = ["Screen Recording 10.00.00\u202fPM.mov", "a\u00a0b", "\U0001f469\u200d\U0001f680.mp4", "\U0001fae9"]
    for key in keys:
        blobs.write(key, key.encode())
    assert set(blobs.keys()) == set(keys)
    assert [blobs.read(key).decode() for key in keys] == keys


def test_a_fingerprint_changes_only_with_the_content(blobs):
    blobs.write("a/1", b"one")
    blobs.write("a/2", b"two")
    before = dict(blobs.entries("a/"))
    assert list(before) == ["a/1", "a/2"]
    blobs.write("a/2", b"three")
    after = dict(blobs.entries("a/"))
    assert (after["a/1"] == before["a/1"], after["a/2"] == before["a/2"]) == (True, False)


def test_no_more_is_read_than_asked_for(blobs):
    blobs.write("a", b"0123456789")
    blobs.write("empty", b"")
    assert (blobs.read("a", 4), blobs.read("a", 100), blobs.read("empty", 4)) == (b"0123", b"0123456789", b"")


def test_a_piece_of_a_blob_is_read_without_the_rest(blobs):
    blobs.write("a/b", b"0123456789")
    assert [blobs.read("a/b", limit, start) for limit, start in ((3, 0), (3, 4), (-1, 7), (99, 8))] == [
        b"012",
        b"456",
        b"789",
        b"89",
    ]


def test_the_time_of_each_write_is_listed(blobs):
    before = time.time() - 2  # a store may round to seconds
    blobs.write("a/b", b"1")
    blobs.write("c/d", b"2")
    found = dict(blobs.written("a/"))
    assert list(found) == ["a/b"] and before < found["a/b"] < time.time() + 2
    assert list(dict(blobs.written())) == ["a/b", "c/d"]


def test_a_local_copy_is_deleted_after_its_block_and_the_blob_is_not(blobs, tmp_path):
    key = f"sub/{'long' * 60}.mp4"
    blobs.write(key, b"bytes")
    with blobs.local(key) as path:
        assert (path.read_bytes(), path.suffix) == (b"bytes", ".mp4")
    assert blobs.read(key) == b"bytes"
    cache = tmp_path / "cache"
    assert not cache.exists() or list(cache.iterdir()) == []
    with pytest.raises(BlobMissing), blobs.local("no/such"):
        raise AssertionError("the block must not run")


def test_delete_may_be_repeated(blobs):
    blobs.write("a", b"1")
    blobs.delete("a")
    blobs.delete("a")
    assert not blobs.exists("a")


def test_a_fetched_file_has_the_current_bytes(blobs):
    blobs.write("v.mp4", b"old")
    assert blobs.fetch("v.mp4").read_bytes() == b"old"
    blobs.write("v.mp4", b"newer")
    path = blobs.fetch("v.mp4")
    assert path.read_bytes() == b"newer"
    assert path.suffix == ".mp4"
    assert blobs.fetch("v.mp4") == path


def test_forgetting_deletes_the_copies_of_a_blob_and_never_the_blob(blobs):
    for key, content in (("v.mp4", b"old"), ("v.mp4", b"newer"), ("w.mp4", b"other")):
        blobs.write(key, content)
        path = blobs.fetch(key)
    copy = blobs.fetch("v.mp4")
    blobs.forget("v.mp4")
    assert blobs.read("v.mp4") == b"newer" and path.read_bytes() == b"other"
    if blobs.uri.startswith("s3:"):
        assert not copy.exists() and len(list(path.parent.iterdir())) == 1, "the earlier copy is gone, too"
    blobs.delete("v.mp4")
    blobs.forget("v.mp4")


@pytest.mark.parametrize("verb", ["read", "size", "fetch"])
def test_a_missing_blob_is_an_error_that_names_it(blobs, verb):
    with pytest.raises(BlobMissing) as caught:
        getattr(blobs, verb)("no/such")
    assert blobs.uri_of("no/such") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", MALFORMED)
def test_a_malformed_key_is_a_value_error_that_shows_it(blobs, key):
    for verb in (blobs.read, blobs.exists, blobs.size, blobs.delete, blobs.fetch, blobs.uri_of):
        with pytest.raises(ValueError, match="relative path"):
            verb(key)
    with pytest.raises(ValueError, match="relative path"):
        blobs.write(key, b"")
    with pytest.raises(ValueError, match="relative path"):
        blobs.create(key, b"")


def test_a_store_can_be_sent_to_another_process(blobs):
    blobs.write("a", b"1")
    assert pickle.loads(pickle.dumps(blobs)).read("a") == b"1"


def test_connect_chooses_the_store_by_its_address(tmp_path):
    assert connect(str(tmp_path / "x"), cache=tmp_path).uri == str(tmp_path / "x")
    assert connect(f"file://{tmp_path}/y%20z", cache=tmp_path).uri == f"{tmp_path}/y z"
    assert connect("s3://bucket/a/b/", cache=tmp_path).uri == "s3://bucket/a/b"
    assert connect("s3://bucket", cache=tmp_path).uri_of("k") == "s3://bucket/k"
    for uri in ("http://x/y", "s3://", ""):
        with pytest.raises(ValueError, match="root is"):
            connect(uri, cache=tmp_path)


def _create(root: str, barrier, results) -> None:
    blobs = LocalBlobs(Path(root))
    barrier.wait()
    results.put([blobs.create(f"k{n}", b"x" * 1000) for n in range(50)])


@pytest.mark.server
def test_two_processes_never_both_create_a_key_on_disk(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_create, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    first, second = results.get(timeout=240), results.get(timeout=240)
    for worker in workers:
        worker.join(timeout=240)
    assert [a + b for a, b in zip(first, second, strict=True)] == [1] * 50


def test_a_writer_that_fails_leaves_no_half_blob_and_no_key(disk, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(BlobError, match="No space left"):
        patch.setattr(Path, "open", full)
        disk.write("a", Path("/etc/hostname"))
    assert list(disk.keys()) == []
    assert list(disk.root.iterdir()) == []


def test_leftovers_of_a_killed_writer_are_not_keys(disk):
    disk.write("a/b", b"1")
    (disk.root / "a" / ".part-123").write_bytes(b"half")
    assert list(disk.keys()) == ["a/b"]


def test_a_folder_goes_with_its_last_blob_and_not_before(disk):
    for key in ("a/b/c/1", "a/b/c/2", "a/d/3"):
        disk.write(key, b"1")
    disk.delete("a/b/c/1")
    assert (disk.root / "a/b/c").is_dir()
    disk.delete("a/b/c/2")
    assert sorted(path.name for path in (disk.root / "a").iterdir()) == ["d"]
    disk.delete("a/d/3")
    disk.delete("a/d/3")
    assert disk.root.is_dir() and list(disk.root.iterdir()) == []


def test_blobs_are_written_while_others_remove_their_folder(disk):
    def work(name: str) -> bool:
        for _ in range(100):
            assert disk.create(f"a/b/{name}", b"1")
            disk.write(f"a/c/{name}", b"1")
            disk.delete(f"a/b/{name}")
            disk.delete(f"a/c/{name}")
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, "1234"))
    assert list(disk.root.iterdir()) == []


def test_a_key_that_is_a_folder_is_missing(disk):
    disk.write("a/b", b"1")
    assert not disk.exists("a")
    with pytest.raises(BlobMissing):
        disk.read("a")


def test_only_existing_files_are_listed_with_any_bytes_in_their_names(disk, tmp_path):
    disk.write("a/b", b"1")
    (disk.root / "a" / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(disk.root / "pipe")
    Path(os.fsdecode(os.fsencode(disk.root) + b"/caf\xe9.mp4")).touch()
    assert list(disk.keys()) == ["a/b", "caf\udce9.mp4"]


def test_a_file_without_read_permission_is_listed_but_denied(disk, monkeypatch):
    disk.write("a", b"1")
    real = Path.open

    def closed(path, *arguments, **named):
        if path.name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", closed)  # the tests may run as root, who may read everything
    assert list(disk.keys()) == ["a"]
    with pytest.raises(BlobDenied, match="permission denied"), disk.local("a"):
        raise AssertionError("the block must not run")


def test_a_folder_without_permission_is_reported_and_the_others_are_listed(disk, monkeypatch):
    disk.write("open/a", b"1")
    disk.write("closed/b", b"1")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # the tests may run as root, who may read everything
    told = []
    assert [key for key, _ in disk.entries(closed=told.append)] == ["open/a"] and told == ["closed"]
    assert list(disk.keys()) == ["open/a"]


def test_a_damaged_entry_on_the_disk_is_listed_and_hides_no_other(disk, monkeypatch):
    disk.write("a", b"1")
    disk.write("b", b"1")
    real = Path.stat

    def stat(path, **named):
        if path.name == "a":
            raise OSError(errno.EUCLEAN, "Structure needs cleaning", str(path))
        return real(path, **named)

    monkeypatch.setattr(Path, "stat", stat)
    assert list(disk.keys()) == ["a", "b"]


def test_a_link_to_the_root_of_the_disk_is_not_followed(disk, monkeypatch):
    disk.write("a", b"1")
    (disk.root / "link").symlink_to("/")
    real = os.scandir

    def scandir(path):
        assert str(path) == str(disk.root), "the whole disk would be listed"
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(disk.keys()) == ["a"]


def test_a_folder_marker_of_a_console_is_not_a_blob(s3, tmp_path):
    blobs = S3Blobs(s3.bucket, "p", endpoint_url=s3.endpoint_url, cache=tmp_path / "cache")
    for key in ("p/", "p/folder/", "p/folder//b", "p/folder/a"):
        blobs._client().put_object(Bucket=s3.bucket, Key=key, Body=b"")
    assert list(blobs.keys()) == ["folder//b", "folder/a"]


def test_a_missing_source_file_is_named_in_the_error(blobs, tmp_path):
    with pytest.raises(BlobMissing, match="absent.bin"):
        blobs.write("a", tmp_path / "absent.bin")


def test_the_local_cache_saves_the_second_download(s3, tmp_path):
    blobs = S3Blobs(s3.bucket, "", endpoint_url=s3.endpoint_url, cache=tmp_path / "cache")
    blobs.write("v.mp4", b"1" * 10)
    path = blobs.fetch("v.mp4")
    before = path.stat().st_ino
    assert blobs.fetch("v.mp4").stat().st_ino == before  # a download makes a new file
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [path.name]
    whole = path.read_bytes()
    path.write_bytes(whole[:1])  # a power cut can leave such a file
    assert blobs.fetch("v.mp4").read_bytes() == whole


def test_a_missing_s3_server_is_unreachable_in_one_line(s3, tmp_path):
    blobs = S3Blobs(s3.bucket, "p", endpoint_url="http://127.0.0.1:9", cache=tmp_path)
    with pytest.raises(BlobUnreachable, match=f"s3://{s3.bucket}/p/a") as caught:
        blobs.read("a")
    assert "\n" not in str(caught.value)


def test_a_missing_bucket_is_named(s3, tmp_path):
    blobs = S3Blobs("no-such-bucket", "", endpoint_url=s3.endpoint_url, cache=tmp_path)
    with pytest.raises(BlobMissing, match="s3://no-such-bucket: no such bucket"):
        blobs.write("a", b"")


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [(403, "AccessDenied", BlobDenied), (503, "SlowDown", BlobUnreachable), (400, "BadDigest", BlobError)],
)
def test_error_responses_of_s3_become_our_errors(s3, tmp_path, monkeypatch, status, code, error):
    """The real client against the real server; the server's answer is replaced on the way in."""
    from botocore.awsrequest import AWSResponse

    blobs = S3Blobs(s3.bucket, "", endpoint_url=s3.endpoint_url, cache=tmp_path)

    class Raw:
        def stream(self, *arguments, **named):
            yield f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()

    def answered(**event):
        return AWSResponse(event["request"].url, status, HTTPHeaders(), Raw())

    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)  # the client retries
    blobs._client().meta.events.register("before-send.s3", cast(Callable[..., None], answered))
    with pytest.raises(error, match=code):
        blobs.read("a")


def test_a_conflict_with_another_writer_is_retried(s3, tmp_path):
    """S3 answers 409 while another conditional write of the key is under way."""
    from botocore.awsrequest import AWSResponse

    blobs = S3Blobs(s3.bucket, "", endpoint_url=s3.endpoint_url, cache=tmp_path)
    answered = []

    class Raw:
        def stream(self, *arguments, **named):
            yield b"<Error><Code>ConditionalRequestConflict</Code><Message>busy</Message></Error>"

    def conflict(**event):
        if len(answered) < 2:
            answered.append(1)
            return AWSResponse(event["request"].url, 409, HTTPHeaders(), Raw())
        return None

    blobs._client().meta.events.register("before-send.s3.PutObject", conflict)
    assert blobs.create("a", b"1")
    assert len(answered) == 2


@pytest.mark.server
@pytest.mark.parametrize("cuts", [1, 5])
def test_a_body_that_breaks_off_is_read_again_and_then_the_store_is_unreachable(tmp_path, monkeypatch, cuts):
    """A real server that closes the connection in the middle of its first bodies."""
    served: list[int] = []

    class Cutting(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.append(1)
            whole = b"0123456789" * 1000
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.send_header("ETag", '"e"')
            self.end_headers()
            self.wfile.write(whole[: 50 if len(served) <= cuts else None])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cutting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{server.server_port}"
            blobs = S3Blobs("bucket", "", endpoint_url=endpoint, cache=tmp_path)
            if cuts == 1:
                assert blobs.read("a") == b"0123456789" * 1000 and len(served) == 2
            else:
                with pytest.raises(BlobUnreachable) as caught:
                    blobs.read("a")
                assert len(served) == 3 and "s3://bucket/a" in str(caught.value) and "\n" not in str(caught.value)
        finally:
            server.shutdown()
            thread.join()
