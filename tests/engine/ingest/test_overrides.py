"""Releases from quarantine: ingest honours them once, and who released what, when and why is on record."""

import sys

import pytest

from annotation_queue.pipeline_records import Action
from engine import attempts
from engine.cli import main
from engine.ingest import ingest, overrides, refusals, sources
from engine.ingest.judge import judge
from engine.services import connect
from engine.settings import IngestSettings, Settings
from storage.blobs.folder import LocalBlobs
from storage.records import Quarantined, Refusal
from storage.videos import video
from storage.videos.normalise import Limits
from tests.storage.killed_writes import Killed
from tests.storage.made_videos import colours

pytestmark = pytest.mark.slow

RELEASE, SEEN = Action.RELEASE, Action.SEEN


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def s(tmp_path, source):
    settings = Settings(home=tmp_path / "home", ingest=IngestSettings(source=str(source)))
    with connect(settings) as services:
        yield services


def only_row(s, reason):
    (row,) = [row for row in s.tables.quarantine() if row.reason == reason]
    return row


def killed(*arguments):
    raise Killed


def release(s, row, act_id="a1", why="it is the only one of its kind"):
    return overrides.decide(s.blobs, row, RELEASE, act_id=act_id, by="lea", why=why)


def test_a_released_file_is_admitted_by_the_next_ingest_and_the_act_is_on_record(s, source):
    video.write(source / "short.mp4", colours(6))
    assert ingest.admit(s).quarantined == 1
    row = only_row(s, Refusal.TOO_SHORT)
    act = release(s, row)
    assert (act.by, act.why, act.reason) == ("lea", "it is the only one of its kind", "too_short")
    report = ingest.admit(s)
    assert (report.admitted, report.quarantined, report.unchanged) == (1, 0, 0)
    (admitted,) = s.tables.videos()
    assert overrides.outcome_of(s.blobs, row.subject) == f"admitted as {admitted.video_id}"
    assert overrides.acts_on(s.blobs, [row.subject]) == {row.subject: [act]}
    assert overrides.waiting(s.blobs) == set()
    assert (ingest.admit(s).admitted, ingest.admit(s).unchanged) == (0, 1)


def test_a_release_holds_once_and_for_one_file_only(s, source):
    video.write(source / "a.mp4", colours(6))
    video.write(source / "b.mp4", colours(6, seed=1))
    ingest.admit(s)
    row = next(row for row in s.tables.quarantine() if row.subject.endswith("a.mp4"))
    release(s, row)
    assert ingest.admit(s).admitted == 1  # b.mp4 stays refused
    video.write(source / "a.mp4", colours(7, seed=2))  # other bytes at the same address
    assert (ingest.admit(s).admitted, len(s.tables.videos())) == (0, 1)


def test_a_file_that_breaks_two_limits_needs_two_releases(s, source):
    video.write(source / "both.mp4", colours(6, height=32, width=32))
    ingest.admit(s)
    row = only_row(s, Refusal.TOO_SMALL)
    release(s, row)
    assert ingest.admit(s).admitted == 0
    decided = overrides.decided(s.blobs)
    assert overrides.is_decided(decided, row)
    assert not overrides.is_decided(decided, only_row(s, Refusal.TOO_SHORT)), "people still see it as undecided"
    assert overrides.outcome_of(s.blobs, row.subject).startswith("refused again, too_short: ")
    release(s, only_row(s, Refusal.TOO_SHORT), "a2")
    assert ingest.admit(s).admitted == 1


@pytest.mark.parametrize("moment", ["judge", "delete"])
def test_a_release_that_comes_while_the_file_is_judged_again_is_honoured_by_the_next_run(
    s, source, moment, monkeypatch
):
    video.write(source / "both.mp4", colours(6, height=32, width=32))
    ingest.admit(s)
    release(s, only_row(s, Refusal.TOO_SMALL))
    row = Quarantined(
        stage="ingest", subject=only_row(s, Refusal.TOO_SMALL).subject, reason="too_short", detail="", batch_id=""
    )
    where = {"judge": (ingest, "judge"), "delete": (LocalBlobs, "delete")}[moment]
    real, left = getattr(*where), [1]

    def meanwhile(*arguments):
        if left and (moment == "judge" or arguments[1].startswith("released/")):
            release(s, row, f"a{left.pop() + 1}")
        return real(*arguments)

    monkeypatch.setattr(*where, meanwhile)
    assert ingest.admit(s).admitted == 0 and left == []
    assert overrides.is_in(overrides.waiting(s.blobs), row.subject)
    assert ingest.admit(s).admitted == 1
    assert overrides.waiting(s.blobs) == set()


def test_a_released_file_is_read_again_even_if_an_ingest_was_killed_when_it_gave_the_file_up(s, source, monkeypatch):
    video.write(source / "a.mp4", colours(24))
    (file,) = sources.list_files(s, LocalBlobs(source)).files
    for n in (1, 2):
        s.blobs.create(f"attempts/ingest/{file.file_id}/{n}.json", b'{"host": "another", "pid": 1, "started": 1.0}')
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(attempts, "forget", killed)
        ingest.admit(s)
    ingest.admit(s)
    release(s, only_row(s, Refusal.KILLS_WORKER))
    assert ingest.admit(s).admitted == 1


def test_a_released_file_whose_ingest_was_killed_before_its_commit_is_said_to_be_admitted(s, source, monkeypatch):
    video.write(source / "short.mp4", colours(6))
    assert ingest.admit(s).quarantined == 1
    row = only_row(s, Refusal.TOO_SHORT)
    release(s, row)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ingest, "_mark", killed)
        ingest.admit(s)
    ingest.admit(s)
    (admitted,) = s.tables.videos()
    assert overrides.outcome_of(s.blobs, row.subject) == f"admitted as {admitted.video_id}"


@pytest.mark.parametrize("planned", ["before", "after"])
def test_a_worker_that_takes_a_piece_judges_a_released_file_once(s, source, planned, monkeypatch):
    video.write(source / "short.mp4", colours(6))
    pieces = ingest.plan(s)
    if planned == "after":
        assert [ingest.admit_piece(s, piece) for piece in pieces] == [[]] and ingest.plan(s) == []
    else:
        ingest.admit(s)  # another machine was faster
    release(s, only_row(s, Refusal.TOO_SHORT))
    pieces = ingest.plan(s) if planned == "after" else pieces
    judged = []

    def judging(by, file, *rest):
        judged.append(file.key)
        return judge(by, file, *rest)

    monkeypatch.setattr(ingest, "judge", judging)
    (piece,) = pieces
    assert len(ingest.admit_piece(s, piece)) == 1 and len(s.tables.videos()) == 1
    assert overrides.waiting(s.blobs) == set() and judged == ["short.mp4"]
    assert ingest.plan(s) == [] and ingest.admit_piece(s, piece) == [] and judged == ["short.mp4"]


def test_a_cut_file_is_admitted_with_the_frames_that_decode_and_says_so(s, source):
    video.write(source / "good.mp4", colours(96))
    data = (source / "good.mp4").read_bytes()
    (source / "good.mp4").unlink()
    (source / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    ingest.admit(s)
    release(s, only_row(s, Refusal.TRUNCATED))
    assert ingest.admit(s).admitted == 1
    (admitted,) = s.tables.videos()
    assert "released although frames are missing" in admitted.changes and 24 <= admitted.frame_count < 96


def test_a_row_that_no_release_helps_can_only_be_seen(s, source):
    row = Quarantined(stage="ingest", subject="x.mp4", reason="duplicate", detail="", batch_id="b")
    with pytest.raises(overrides.NotReleasable, match="can only be marked as seen"):
        release(s, row)
    failed = Quarantined(stage="publish", subject="m1", reason="failed", detail="", batch_id="b")
    with pytest.raises(overrides.NotReleasable):
        release(s, failed)
    overrides.decide(s.blobs, row, SEEN, act_id="a", by="lea", why="expected")
    assert overrides.waiting(s.blobs) == set()
    assert overrides.releases_of(s.blobs, "x.mp4") == []


def test_an_act_needs_a_reason_and_is_recorded_once(s):
    row = Quarantined(stage="ingest", subject="x.mp4", reason="too_long", detail="", batch_id="b")
    for why in (" ", "w" * 501):
        with pytest.raises(ValueError):
            release(s, row, why=why)
    first = release(s, row)
    overrides.conclude(s.blobs, row.subject, [first], None, None)
    assert release(s, row, why="another text") == first
    assert overrides.waiting(s.blobs) == set()  # the repetition releases nothing again


def test_each_reason_lifts_its_own_limit_only():
    limits = Limits()
    changed = {
        reason: {name for name, value in vars(limits).items() if vars(overrides.without(limits, lifted))[name] != value}
        for reason in overrides.RELEASES
        for lifted in [frozenset({str(reason)})]
    }
    assert changed == {
        Refusal.TOO_SHORT: {"min_s"},
        Refusal.TOO_LONG: {"max_s"},
        Refusal.TOO_SMALL: {"min_side_px"},
        Refusal.TOO_LARGE: {"max_side_px"},
        Refusal.TRUNCATED: {"truncated"},
        Refusal.UNREADABLE: set(),
        Refusal.FAILED: set(),
        Refusal.KILLS_WORKER: set(),
        Refusal.NEAR_DUPLICATE: set(),
    }


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["masklets", "quarantine", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out + printed.err


def test_the_command_does_not_keep_silent_if_no_reason_can_be_lifted(s, monkeypatch, capsys):
    monkeypatch.setenv("MASKLETS_HOME", str(s.settings.home))
    rows = [
        Quarantined(stage="ingest", subject="x.mp4", reason=r, detail="", batch_id="")
        for r in ("duplicate", "encrypted")
    ]
    refusals.commit(s, rows)
    code, said = run(monkeypatch, capsys, "--release", "x.mp4", "--why", "w")
    assert code == 2 and said.endswith("as duplicate and as encrypted: it can only be marked as seen\n")


def test_the_command_releases_a_file_and_lists_who_did_it(s, source, monkeypatch, capsys):
    monkeypatch.setenv("MASKLETS_HOME", str(s.settings.home))
    video.write(source / "short.mp4", colours(6))
    ingest.admit(s)
    address = only_row(s, Refusal.TOO_SHORT).subject
    assert run(monkeypatch, capsys, "--release", "elsewhere.mp4", "--why", "w")[0] == 2
    assert run(monkeypatch, capsys, "--release", address) == (2, "masklets: say why: the reason is recorded\n")
    code, said = run(monkeypatch, capsys, "--release", address, "--why", "needed", "--by", "lea")
    assert code == 0 and "release by lea, needed; the next ingest admits it from two frames on" in said
    assert "release by lea: needed" in run(monkeypatch, capsys)[1]


def test_the_command_takes_one_act_at_a_time(s, monkeypatch, capsys):
    monkeypatch.setenv("MASKLETS_HOME", str(s.settings.home))
    for reason in (Refusal.DUPLICATE, Refusal.ENCRYPTED):
        row = Quarantined(stage="ingest", subject="a.mp4", reason=reason.value, detail="d", batch_id="")
        refusals.commit(s, [row])
    code, said = run(monkeypatch, capsys, "--release", "a.mp4", "--why", "w")
    assert code == 2 and "a.mp4 was refused as duplicate and as encrypted: it can only be marked as seen" in said
    code, said = run(monkeypatch, capsys, "--release", "a.mp4", "--seen", "a.mp4", "--why", "w")
    assert (code, said) == (2, "masklets: give --release or --seen, not both\n")
