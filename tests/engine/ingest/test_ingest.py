"""Ingest: which files are admitted, quarantined, skipped or judged again, from folders and buckets."""

import contextlib
import dataclasses
import errno
import hashlib
import os
import shutil
from pathlib import Path

import av
import boto3
import pytest
from botocore.compat import HTTPHeaders
from moto.server import ThreadedMotoServer

from engine import batches
from engine.batches import BatchStage
from engine.cli import pipeline
from engine.ingest import admitted, ingest, judge, sources
from engine.services import connect
from storage.blobs.base import BlobDamaged, BlobDenied, BlobError
from storage.blobs.folder import LocalBlobs
from storage.blobs.s3 import S3Blobs
from storage.dataset import parts
from storage.records import Refusal
from storage.videos import video
from storage.videos.normalise import normalise
from storage.videos.source_file import Refused
from tests.storage.made_videos import colours, make, numbered


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def test_a_second_run_over_the_same_source_does_nothing_and_says_so(s, clips):
    first = ingest.admit(s)
    assert (first.admitted, first.quarantined, first.unchanged) == (3, 0, 0)
    again = ingest.admit(s)
    assert (again.batch_id, again.admitted, again.quarantined, again.unchanged) == (None, 0, 0, 3)
    assert first.batch_id is not None
    assert batches.video_ids(s.blobs, first.batch_id) == sorted(v.video_id for v in s.tables.videos())


def test_what_ingest_changed_is_stored_with_the_video_and_printed_by_kind(s, source, capsys):
    interlaced = {"bf": "0", "x264-params": "tff=1:keyint=48:min-keyint=48:scenecut=0"}
    make(source / "plain.mp4", [numbered(i) for i in range(30)])
    make(source / "fields.ts", [numbered(i) for i in range(36)], options=interlaced)
    whole = make(source.parent / "whole.ts", [numbered(i) for i in range(84)], options=interlaced)
    with av.open(str(whole)) as container:
        positions = [p.pos for p in container.demux(video=0) if p.size and p.pos is not None]
    (source / "cut.ts").write_bytes(whole.read_bytes()[positions[16] :])
    report = ingest.admit(s, str(source))
    kinds = {"began at its first keyframe": 1, "deinterlaced": 2}
    assert (report.admitted, report.changed, report.changes) == (3, 2, kinds)
    changes = {os.path.basename(v.source_uri): v.changes for v in s.tables.videos()}
    assert changes["plain.mp4"] == () and changes["fields.ts"] == ("deinterlaced",)
    assert changes["cut.ts"][0].startswith("began at its first keyframe, 1.3") and len(changes["cut.ts"]) == 2
    pipeline.print_ingest(dataclasses.asdict(report))
    lines = ["2 videos changed:", "  began at its first keyframe: 1 video", "  deinterlaced: 2 videos"]
    assert capsys.readouterr().out.splitlines()[1:] == lines
    assert (ingest.admit(s, str(source)).changed, ingest.admit(s, str(source)).changes) == (0, {})


def test_every_kind_of_bad_input_is_quarantined_and_the_good_videos_are_admitted(s, source):
    video.write(source / "good.mp4", colours(36))
    video.write(source / "short.mp4", colours(6, seed=1))
    shutil.copy(source / "good.mp4", source / "same bytes under another name.mov")
    (source / "empty.mp4").touch()
    (source / "text.mp4").write_text("this is no video\n" * 50)
    data = (source / "good.mp4").read_bytes()
    (source / "cut.mp4").write_bytes(data[: len(data) // 2])
    (source / "notes.txt").write_text("beside the videos")
    report = ingest.admit(s, str(source))
    reasons = {os.path.basename(q.subject): q.reason for q in s.tables.quarantine()}
    assert report.admitted == 1 and report.quarantined == 5 and report.ignored == 1
    assert reasons["short.mp4"] == "too_short"
    assert reasons["empty.mp4"] == "unreadable"
    assert reasons["text.mp4"] == "unreadable"
    assert reasons["cut.mp4"] in ("truncated", "unreadable")
    duplicate = {"good.mp4", "same bytes under another name.mov"} & set(reasons)
    assert [reasons[name] for name in duplicate] == ["duplicate"]
    assert all("\n" not in q.detail for q in s.tables.quarantine())


def test_a_file_that_was_still_being_copied_is_admitted_when_it_is_whole(s, source):
    video.write(source / "a.mp4", colours(36))
    whole = (source / "a.mp4").read_bytes()
    (source / "a.mp4").write_bytes(whole[: len(whole) // 3])
    assert ingest.admit(s, str(source)).admitted == 0
    (source / "a.mp4").write_bytes(whole)
    assert ingest.admit(s, str(source)).admitted == 1


@pytest.mark.parametrize("where", ["local", "hash"])
def test_a_file_that_the_disk_cannot_read_is_quarantined_and_the_others_are_admitted(s, source, monkeypatch, where):
    for n, name in enumerate("abc"):
        video.write(source / f"{name}.mp4", colours(36, seed=n))
    local, digest = LocalBlobs.local, judge._sha256

    def no_local(blobs, key):
        if key == "b.mp4":
            raise BlobError(f"{key}: Input/output error")
        return local(blobs, key)

    def no_digest(path):
        if path.name == "b.mp4":
            raise judge._BadSector(f"{path}: Input/output error")
        return digest(path)

    with monkeypatch.context() as patch:
        patch.setattr(*((LocalBlobs, "local", no_local) if where == "local" else (judge, "_sha256", no_digest)))
        reports = [ingest.admit(s, str(source)) for _ in range(2)]
    assert [(r.admitted, r.quarantined) for r in reports] == [(2, 1), (0, 0)]
    (row,) = s.tables.quarantine()
    assert row.subject == str(source / "b.mp4") and row.reason == "unreadable" and "Input/output" in row.detail
    assert ingest.admit(s, str(source)).admitted == 1


@pytest.mark.parametrize("number", ["EIO", "EUCLEAN", "EBADMSG", "ENODATA", "EREMOTEIO", "ESTALE"])
def test_a_bad_sector_counts_as_an_error_of_the_file(tmp_path, monkeypatch, number):
    def fails(*arguments, **named):
        raise OSError(getattr(errno, number), "Input/output error")

    (tmp_path / "a").write_bytes(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", fails)
        with pytest.raises(judge._BadSector, match="a: Input/output error"):
            judge._sha256(tmp_path / "a")
    monkeypatch.setattr(Path, "stat", fails)
    with pytest.raises(judge._BadSector, match="a: Input/output error"), judge._unchanged(tmp_path / "a"):
        pass


@pytest.mark.parametrize("number", ["ENOMEM", "EMFILE", "ENFILE"])
def test_too_little_memory_or_too_many_open_files_are_no_error_of_the_file(tmp_path, monkeypatch, number):
    def fails(*arguments, **named):
        raise OSError(getattr(errno, number), "too many")

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(OSError, match="too many"):
        judge._sha256(tmp_path / "a")


def test_one_folder_has_one_address_however_it_is_spelled(s, source):
    video.write(source / "a.mp4", colours(36))
    (source / "deep").mkdir()
    assert ingest.admit(s, str(source)).admitted == 1
    again = ingest.admit(s, f"{source}/deep/..")
    assert (again.admitted, again.quarantined, again.unchanged) == (0, 0, 1)


def test_linked_folders_are_ingested_once_and_a_circle_of_links_ends(s, source, tmp_path):
    beside = tmp_path / "beside"
    beside.mkdir()
    video.write(source / "a.mp4", colours(36))
    video.write(beside / "b.mp4", colours(36, seed=1))
    (source / "link").symlink_to(beside)
    (source / "again").symlink_to(beside)
    (source / "self").symlink_to(source)
    (beside / "up").symlink_to(tmp_path)
    report = ingest.admit(s, str(source))
    assert (report.admitted, report.quarantined) == (2, 0)


def test_a_folder_that_may_not_be_listed_is_quarantined_and_the_others_are_ingested(s, source, monkeypatch):
    for name in ("open", "closed"):
        (source / name).mkdir()
    video.write(source / "open" / "a.mp4", colours(36))
    video.write(source / "closed" / "b.mp4", colours(36, seed=1))
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)  # the tests may run as root, who may list every folder
        reports = [ingest.admit(s, str(source)) for _ in range(2)]
    assert [(report.admitted, report.quarantined, report.unchanged) for report in reports] == [(1, 1, 0), (0, 0, 2)]
    (row,) = s.tables.quarantine()
    assert (row.subject, row.reason) == (str(source / "closed"), "unreadable") and "permission denied" in row.detail
    assert ingest.admit(s, str(source)).admitted == 1


def test_a_file_that_changes_while_it_is_judged_is_left_for_the_next_run(s, source, monkeypatch):
    video.write(source / "a.mp4", colours(36))
    video.write(source / "b.mp4", colours(36, seed=1))
    real = normalise

    def growing(path, *arguments, **named):
        made = real(path, *arguments, **named)
        if path.name == "a.mp4":
            with path.open("ab") as file:
                file.write(b"more")
        else:
            path.unlink()
            raise Refused(Refusal.TRUNCATED, "half of it")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(judge, "normalise", growing)
        report = ingest.admit(s, str(source))
    assert (report.admitted, report.quarantined, report.postponed) == (0, 0, 2)
    assert list(s.blobs.keys("sources/")) == list(s.blobs.keys("videos/")) == []
    report = ingest.admit(s, str(source))
    assert (report.admitted, report.quarantined, report.postponed) == (1, 0, 0)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()], ids=repr)
def test_an_error_of_the_machine_ends_the_run_and_refuses_no_file(s, source, monkeypatch, error):
    video.write(source / "a.mp4", colours(36))

    def failing(*arguments, **named):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(judge, "normalise", failing)
        with pytest.raises(type(error)):
            ingest.admit(s, str(source))
    report = ingest.admit(s, str(source))
    assert (report.admitted, report.quarantined, s.tables.quarantine()) == (1, 0, [])


def test_a_file_that_makes_libav_fail_is_refused_and_the_others_are_admitted(s, source, monkeypatch):
    video.write(source / "a.mp4", colours(36))
    video.write(source / "b.mp4", colours(36, seed=1))
    real = normalise

    def stumbling(path, *arguments, **named):
        if path.name == "a.mp4":
            raise RuntimeError("a bug in\nsome filter")
        return real(path, *arguments, **named)

    monkeypatch.setattr(judge, "normalise", stumbling)
    report = ingest.admit(s, str(source))
    assert (report.admitted, report.quarantined) == (1, 1)
    assert [(q.reason, q.detail) for q in s.tables.quarantine()] == [("failed", "a.mp4: a bug in some filter")]


def test_a_file_without_read_permission_is_refused_once_and_admitted_once_it_has_it(s, source, monkeypatch):
    video.write(source / "a.mp4", colours(36))

    @contextlib.contextmanager
    def closed(blobs, key):
        raise BlobDenied(f"{key}: permission denied")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(LocalBlobs, "local", closed)
        assert ingest.admit(s, str(source)).quarantined == 1
        again = ingest.admit(s, str(source))
    assert (again.quarantined, again.unchanged) == (0, 1)
    assert [q.reason for q in s.tables.quarantine()] == ["unreadable"]
    assert ingest.admit(s, str(source)).admitted == 1


def test_an_odd_name_is_admitted_or_refused_and_stops_nothing(s, source):
    names = [b"10.00.00\xe2\x80\xafPM.mp4", b"a\nb.mp4", b"a\\b.mp4", b"caf\xe9.mp4"]
    for seed, name in enumerate(names):
        video.write(source / "made.mp4", colours(36, seed=seed))
        os.rename(source / "made.mp4", os.fsencode(source) + b"/" + name)
    (source / "a\nb.txt").touch()
    report = ingest.admit(s, str(source))
    assert (report.admitted, report.quarantined, report.ignored) == (1, 3, 1)
    assert [Path(v.source_uri).name for v in s.tables.videos()] == ["10.00.00\u202fPM.mp4"]
    rows = s.tables.quarantine()
    unfit = "a line end, a control character or bytes that are not UTF-8"
    assert {q.reason for q in rows} == {"failed"} and {q.detail for q in rows} == {
        f"{name}: its name or its folder's has {what}: rename it"
        for name, what in (("'a\\\\b.mp4'", "a backslash"), ("'a\\nb.mp4'", unfit), ("'caf\\udce9.mp4'", unfit))
    }
    assert f"{source}/caf\\udce9.mp4" in {q.subject for q in rows}
    again = ingest.admit(s, str(source))
    assert (again.admitted, again.quarantined, again.unchanged, again.ignored) == (0, 0, 4, 1)


def test_a_source_that_contains_the_home_or_the_store_skips_them(settings, tmp_path):
    remote = settings.model_copy(
        update={"storage": settings.storage.model_copy(update={"root": str(tmp_path / "around" / "store")})}
    )
    around = remote.model_copy(update={"home": tmp_path / "around" / "home"})
    with connect(around) as s:
        video.write(tmp_path / "around" / "a.mp4", colours(36))
        video.write(s.home / "b.mp4", colours(36, seed=1))
        for _ in range(2):
            report = ingest.admit(s, str(tmp_path / "around"))
            assert (report.quarantined, len(s.tables.videos())) == (0, 1)
        for own in (s.home, tmp_path / "around" / "store", tmp_path / "around" / "store" / "videos"):
            with pytest.raises(sources.NoSource, match="its own data"):
                ingest.admit(s, str(own))


def test_the_content_decides_about_a_file_with_a_suffix_of_text_or_pictures(s, source):
    video.write(source / "clip.mp4", colours(36))
    os.rename(source / "clip.mp4", source / "clip.txt")
    video.write(source / "half.mp4", colours(36, seed=1))
    os.rename(source / "half.mp4", source / "half.mp4.part")
    (source / "notes.txt").write_text("The free lunch")  # begins with the bytes of a video, but is text
    (source / "scene.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    (source / "photo.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    report = ingest.admit(s, str(source))
    assert (report.admitted, report.quarantined, report.ignored) == (1, 0, 4)
    again = ingest.admit(s, str(source))
    assert (again.admitted, again.unchanged, again.ignored) == (0, 1, 4)
    (source / "notes.txt").write_bytes((source / "clip.txt").read_bytes())
    assert ingest.admit(s, str(source)).quarantined == 1  # a duplicate: an ignored file is judged again when it changes


@pytest.mark.parametrize("text", ['{"masklet": 7}', "[]", "{", '{"masklet": [[{"size": 1e999}]]}', "[" * 100_000])
def test_a_video_with_a_malformed_truth_is_refused_in_one_line_until_the_truth_is_corrected(s, source, clips, text):
    clip = sorted(clips.glob("*.mp4"))[0]
    shutil.copy(clip, source / "a.mp4")
    (source / "a.truth.json").write_text(text)
    report = ingest.admit(s, str(source))
    assert (report.admitted, report.quarantined) == (0, 1)
    (row,) = s.tables.quarantine()
    assert row.reason == "failed" and "\n" not in row.detail
    assert ingest.admit(s, str(source)).unchanged == 1
    shutil.copy(clip.with_suffix(".truth.json"), source / "a.truth.json")
    assert ingest.admit(s, str(source)).admitted == 1
    assert s.tables.videos()[0].truth_key is not None


def test_a_run_that_died_before_its_markers_refuses_nothing_twice(s, source, monkeypatch):
    (source / "a.mp4").write_text("no video")
    real = ingest.quarantine

    def dying(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "quarantine", dying)
        with pytest.raises(KeyboardInterrupt):
            ingest.admit(s, str(source))
    (source / "b.mp4").write_text("no video either")
    report = ingest.admit(s, str(source))
    assert (report.quarantined, report.unchanged) == (1, 1)
    assert [os.path.basename(q.subject) for q in s.tables.quarantine()] == ["a.mp4", "b.mp4"]


def test_a_run_that_died_between_the_table_and_its_mark_is_repaired(s, clips, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(batches, "mark", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest.admit(s)
    assert len(s.tables.videos()) == 3 and batches.pending(s.blobs, BatchStage.PROPOSED) == []
    again = ingest.admit(s)
    assert (again.admitted, again.unchanged) == (3, 0)
    assert batches.pending(s.blobs, BatchStage.PROPOSED) == [again.batch_id]
    assert len(s.tables.videos()) == 3


def test_the_run_after_one_that_died_before_its_commit_commits_those_videos(s, clips, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(parts, "commit_batch", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest.admit(s)
    report = ingest.admit(s)
    assert (report.admitted, report.unchanged) == (3, 0)
    assert len(s.tables.videos()) == 3


def test_videos_that_a_killed_run_left_from_another_source_are_a_batch_of_their_own(s, source, clips, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(parts, "commit_batch", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest.admit(s)
    video.write(source / "a.mp4", colours(36))
    report = ingest.admit(s, str(source))
    sizes = {b: len(batches.video_ids(s.blobs, b)) for b in batches.reached(s.blobs)}
    assert report.admitted == 4 and sizes.pop(report.batch_id or "") == 1 and list(sizes.values()) == [3]


def test_the_held_out_share_holds_over_all_runs_and_no_video_changes_its_split(s, source):
    sides = {}
    for number in range(1, 7):
        video.write(source / f"{number}.mp4", colours(30, seed=number))
        ingest.admit(s, str(source))
        now = {v.video_id: v.split for v in s.tables.videos()}
        assert sides.items() <= now.items()
        sides = now
    assert list(sides.values()).count("val") == round(0.34 * 6)


@pytest.mark.parametrize("where", [None, "/no/such/folder"])
def test_a_missing_source_is_an_error_in_one_line(settings, where):
    empty = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"source": None})})
    with connect(empty) as services, pytest.raises(sources.NoSource, match="no s"):
        ingest.admit(services, where)


@pytest.fixture
def bucket(monkeypatch):
    """A client of an S3 server for one test, with an empty bucket "videos", and the number of requests of a source."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    client = boto3.client("s3", endpoint_url="http://{}:{}".format(*server.get_host_and_port()))
    client.create_bucket(Bucket="videos")
    yield client
    client.close()
    server.stop()


def test_a_bucket_leaves_no_local_copies_and_judged_files_cost_one_listing(settings, bucket, source, monkeypatch):
    from botocore.awsrequest import AWSResponse

    video.write(source / "a.mp4", colours(36))
    for key in ("in/a.mp4", "in/closed.mp4", "in/sub//b.mp4"):
        bucket.upload_file(str(source / "a.mp4"), "videos", key)
    for key in ("in/", "in/sub/", "in/notes.txt"):
        bucket.put_object(Bucket="videos", Key=key, Body=b"")
    asked = []

    class Raw:
        def stream(self, *arguments, **named):
            yield b"<Error><Code>AccessDenied</Code></Error>"

    def count(request, event_name, **named):
        asked.append(event_name.rsplit(".", 1)[-1])
        return AWSResponse(request.url, 403, HTTPHeaders(), Raw()) if "closed" in request.url else None

    real = S3Blobs._client

    def counted(blobs):
        fresh = blobs._connected is None
        client = real(blobs)
        if fresh:
            client.meta.events.register("before-send.s3", count)
        return client

    monkeypatch.setattr(S3Blobs, "_client", counted)
    remote = settings.model_copy(
        update={
            "storage": settings.storage.model_copy(update={"s3_endpoint": bucket.meta.endpoint_url}),
            "ingest": settings.ingest.model_copy(update={"workers": 1}),
        }
    )
    with connect(remote) as s:
        report = ingest.admit(s, "s3://videos/in")
        assert (report.admitted, report.quarantined, report.ignored, report.unchanged) == (1, 2, 1, 0)
        reasons = {q.subject: q.reason for q in s.tables.quarantine()}
        assert reasons == {"s3://videos/in/closed.mp4": "unreadable", "s3://videos/in/sub//b.mp4": "failed"}
        assert [p for p in (s.home / "cache").rglob("*") if p.is_file()] == []
        bucket.delete_object(Bucket="videos", Key="in/closed.mp4")
        asked.clear()
        assert ingest.admit(s, "s3://videos/in").unchanged == 2
        assert asked == ["ListObjectsV2"]
    around = remote.model_copy(
        update={"storage": remote.storage.model_copy(update={"root": "s3://videos/in/store"}), "home": s.home / "2"}
    )
    with connect(around) as s:
        for _ in range(2):
            ingest.admit(s, "s3://videos/in")
            assert len(s.tables.videos()) == 1
        with pytest.raises(sources.NoSource, match="its own data"):
            ingest.admit(s, "s3://videos/in/store/videos")


def test_a_file_in_place_of_a_folder_is_refused(s, source):
    video.write(source / "a.mp4", colours(36))
    with pytest.raises(sources.NoSource, match="a.mp4 is a file: name a folder"):
        ingest.admit(s, str(source / "a.mp4"))


def test_an_s3_prefix_without_objects_is_refused_because_it_may_be_mistyped(settings, bucket):
    bucket.put_object(Bucket="videos", Key="in/a.mp4", Body=b"")
    storage = settings.storage.model_copy(update={"s3_endpoint": bucket.meta.endpoint_url})
    with connect(settings.model_copy(update={"storage": storage})) as s:
        for mistyped in ("s3://videos/inn", "s3://videos/in/a.mp4"):
            with pytest.raises(sources.NoSource, match=f"nothing below {mistyped}: is the prefix right"):
                pipeline.ingest_source(s, mistyped)


@pytest.mark.parametrize("written", [b"", b"{}", b"[]"])
def test_a_damaged_record_of_a_video_is_an_error_that_names_its_file(tmp_path, written):
    blobs = LocalBlobs(tmp_path)
    blobs.write("videos/v/record.json", written)
    with pytest.raises(BlobDamaged, match="^videos/v/record.json: ") as caught:
        admitted.read_record(blobs, "v")
    assert "\n" not in str(caught.value)
