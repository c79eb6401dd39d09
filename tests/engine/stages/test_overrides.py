"""Releases from quarantine: ingest honours them once, and who released what, when and why is on record."""

import sys

import numpy as np
import pytest

from annotation_queue.pipeline_records import Action
from engine.cli import main
from engine.services import connect
from engine.settings import IngestSettings, Settings
from engine.stages import ingest, overrides
from storage import video
from storage.normalise import Limits
from storage.records import Quarantined, Refusal

pytestmark = pytest.mark.slow

RELEASE, SEEN = Action.RELEASE, Action.SEEN


def colours(count, height=64, width=64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (count, height, width, 3), dtype=np.uint8)


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
    assert overrides.outcome_of(s.blobs, row.subject).startswith("refused again, too_short: ")
    release(s, only_row(s, Refusal.TOO_SHORT), "a2")
    assert ingest.admit(s).admitted == 1


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
    assert overrides.lifted(s.blobs, "x.mp4") == frozenset()


def test_an_act_needs_a_reason_and_is_recorded_once(s):
    row = Quarantined(stage="ingest", subject="x.mp4", reason="too_long", detail="", batch_id="b")
    for why in (" ", "w" * 501):
        with pytest.raises(ValueError):
            release(s, row, why=why)
    first = release(s, row)
    overrides.conclude(s.blobs, row.subject, None, None)
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
    }


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["masklets", "quarantine", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out + printed.err


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
