"""A large source is ingested in pieces, by one process or by workers on several machines, also if some are killed."""

import errno
from collections import Counter

import pytest

from engine import batches, trouble
from engine.batches import BatchStage
from engine.ingest import admitted, ingest, judge
from engine.services import connect
from engine.settings import IngestSettings, Settings, StorageSettings
from storage.blobs.folder import LocalBlobs
from tests.storage.killed_writes import Killed, kill_at
from tests.storage.made_videos import make, numbered

VIDEOS = 5
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Five videos, their notes, a file that is no video, and a second copy of one."""
    folder = tmp_path_factory.mktemp("source")
    for n in range(VIDEOS):
        make(folder / f"{n}.mp4", [numbered(i + 30 * n) for i in range(24)])
        (folder / f"{n}.txt").write_text("a note")
    (folder / "9.mp4").write_text("no video")
    (folder / "8.mp4").write_bytes((folder / "1.mp4").read_bytes())
    return folder


def settings(tmp_path, machine="one") -> Settings:
    return Settings(
        home=tmp_path / machine,
        ingest=IngestSettings(batch_videos=2, workers=1, near_duplicates=False),
        storage=StorageSettings(root=str(tmp_path / "store"), catalog_uri=f"sqlite:///{tmp_path}/catalog.db"),
    )


@pytest.fixture
def s(tmp_path):
    with connect(settings(tmp_path)) as services:
        yield services


def everything(s) -> None:
    """All videos are in the tables and in one batch each, no batch is too large, and nothing is refused twice."""
    table = s.tables.scan("videos", columns=["video_id", "batch_id"]).to_pylist()
    assert len(table) == VIDEOS
    found = {b: batches.video_ids(s.blobs, b) for b in batches.reached(s.blobs)}
    assert Counter((row["batch_id"], row["video_id"]) for row in table) == Counter(
        (b, v) for b, of in found.items() for v in of
    )
    assert all(1 <= len(of) <= 2 for of in found.values()) and set(batches.pending(s.blobs, BatchStage.PROPOSED)) == {
        *found
    }
    assert sorted(row.reason for row in s.tables.quarantine()) == ["duplicate", "unreadable"]
    assert list(s.blobs.keys("uncommitted/")) == []


def test_a_run_makes_batches_of_limited_size_and_its_report_is_their_sum(s, source):
    seen = []
    report = ingest.admit(s, str(source), lambda done, of, name: seen.append((done, of)))
    assert (report.admitted, report.quarantined, report.ignored, report.unchanged) == (VIDEOS, 2, VIDEOS, 0)
    assert report.found == 2 * VIDEOS + 2 and len(report.batch_ids) >= 3
    assert seen == [(n + 1, report.found) for n in range(report.found)]
    everything(s)
    again = ingest.admit(s, str(source))
    assert (again.batch_ids, again.unchanged, again.found) == ((), VIDEOS + 2, report.found)


def test_a_piece_counts_videos_so_notes_beside_them_make_no_small_batches(s, source):
    sizes = [len(s.blobs.read(f"pieces/{piece}.json")) for piece in ingest.plan(s, str(source))]
    assert len(sizes) == 4, "seven files that may be videos, two a piece"


def test_what_is_judged_before_a_run_is_killed_is_admitted_and_not_judged_again(s, source, monkeypatch):
    real, judged = judge.judge, []

    def judging(by, file, *more):
        judged.append(file.key)
        if len(judged) == 10:
            raise Killed
        return real(by, file, *more)

    monkeypatch.setattr(ingest, "judge", judging)
    with pytest.raises(Killed):
        ingest.admit(s, str(source))
    assert len(batches.pending(s.blobs, BatchStage.PROPOSED)) >= 1, "people need not wait for the rest"
    ingest.admit(s, str(source))
    everything(s)
    assert sum(n - 1 for n in Counter(judged).values()) <= 4, "at most the files of one piece are judged again"


def test_workers_with_homes_of_their_own_ingest_the_pieces_in_any_order(tmp_path, s, source):
    pieces = ingest.plan(s, str(source))
    done = []
    for n, piece in enumerate(reversed(pieces)):
        with connect(settings(tmp_path, f"worker {n % 2}")) as worker:
            done += ingest.admit_piece(worker, piece)
            assert ingest.admit_piece(worker, piece) == [], "a piece is done once"
    everything(s)
    assert sorted(done) == batches.pending(s.blobs, BatchStage.PROPOSED)
    assert ingest.plan(s, str(source)) == [] and list(s.blobs.keys("pieces/")) == []


def test_a_piece_that_failed_is_in_the_next_plan_and_a_late_worker_finds_nothing_to_do(s, source):
    pieces = ingest.plan(s, str(source))
    ingest.admit_piece(s, pieces[0])
    again = ingest.plan(s, str(source))
    assert again == pieces[1:]
    (source / "late.txt").write_text("a new file changes the last pieces")
    try:
        changed = ingest.plan(s, str(source))
        for piece in {*again} - {*changed}:
            assert ingest.admit_piece(s, piece) == []
        for piece in changed:
            ingest.admit_piece(s, piece)
        everything(s)
    finally:
        (source / "late.txt").unlink()


def test_the_failure_of_a_piece_stays_recorded_until_none_is_left(tmp_path, s, monkeypatch):
    folder, real, damaged = tmp_path / "texts", judge.judge, {"a.mp4"}
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.mp4").write_text("no video")

    def judging(by, file, *more):
        if file.key in damaged:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(by, file, *more)

    monkeypatch.setattr(ingest, "judge", judging)
    with_a, other = ingest.plan(s, str(folder))
    with pytest.raises(OSError, match="No space"):
        ingest.admit_piece(s, with_a)
    (failure,) = trouble.stuck(s.blobs)
    assert failure.stage == "admission"
    ingest.admit_piece(s, other)
    (folder / "0.mp4").write_text("a new file: the pieces are cut elsewhere")
    with_a, _ = ingest.plan(s, str(folder))
    assert trouble.stuck(s.blobs) == [failure], "since the first failure"
    with pytest.raises(OSError, match="No space"):
        ingest.admit_piece(s, with_a)

    damaged.clear()
    for piece in ingest.plan(s, str(folder)):
        assert trouble.stuck(s.blobs) == [failure]
        ingest.admit_piece(s, piece)
    assert trouble.stuck(s.blobs) == []

    damaged.add("d.mp4")
    (folder / "d.mp4").write_text("no video")
    (with_d,) = ingest.plan(s, str(folder))
    with pytest.raises(OSError, match="No space"):
        ingest.admit_piece(s, with_d)
    (folder / "d.mp4").unlink()
    assert ingest.plan(s, str(folder)) == [] and len(trouble.stuck(s.blobs)) == 1
    assert ingest.plan(s, str(folder)) == [] == trouble.stuck(s.blobs)


def test_two_machines_ingest_the_same_source_at_once(tmp_path, s, source, monkeypatch):
    """The second machine does all its work while the first judges a file: each file in turn."""
    real, other = judge.judge, []
    with connect(settings(tmp_path, "two")) as second:

        def judging(by, file, *more):
            if by.s is s and file.key == "1.mp4":
                other.append(ingest.admit(second, str(source)))
            return real(by, file, *more)

        monkeypatch.setattr(ingest, "judge", judging)
        report = ingest.admit(s, str(source))
    everything(s)
    assert len(other) == 1 and report.admitted + other[0].admitted == VIDEOS


def test_a_worker_that_is_killed_at_any_write_of_a_piece_loses_nothing(tmp_path, source, monkeypatch):
    left = kill_at(monkeypatch, (LocalBlobs, "create"), (LocalBlobs, "write"), (LocalBlobs, "delete"))
    count, killed = 0, True
    while killed:
        with connect(settings(tmp_path / str(count))) as s:
            left[0] = -1
            pieces = ingest.plan(s, str(source))
            left[0] = count
            try:
                ingest.admit_piece(s, pieces[0])
                killed = False
            except Killed:
                pass
            left[0] = -1
            for piece in pieces:
                ingest.admit_piece(s, piece)
            assert list(s.blobs.keys("uncommitted/")) == [], "without a new plan"
            for piece in ingest.plan(s, str(source)):
                ingest.admit_piece(s, piece)
            everything(s)
        count += 3
    assert count > 15


def test_a_piece_whose_worker_was_killed_before_its_commit_names_its_batch_when_it_is_run_again(s, source, monkeypatch):
    """The DAG auto_masklets starts for the batches that a task returns."""
    piece = ingest.plan(s, str(source))[0]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(admitted, "commit", lambda *_, **__: (_ for _ in ()).throw(Killed()))
        ingest.admit_piece(s, piece)
    waiting = list(s.blobs.keys("uncommitted/videos/"))
    (batch_id,) = ingest.admit_piece(s, piece)
    assert len(batches.video_ids(s.blobs, batch_id)) == len(waiting) > 1
    assert list(s.blobs.keys("uncommitted/")) == []


def test_the_files_of_a_killed_process_are_removed_by_the_next_of_its_home_and_those_of_a_living_one_stay(s):
    here = s.home / "cache" / "ingest"
    with ingest._workplace(s) as living:
        (here / "dead").mkdir()
        (here / "dead.lock").touch()
        with ingest._workplace(s) as mine:
            assert {path.name for path in here.iterdir() if path.is_dir()} == {living.name, mine.name}
    assert list(here.iterdir()) == []
