"""Log lines carry the ids of the work under way: as JSON for programs, or readable."""

import io
import json
import logging
import sys
import threading

import pytest
import structlog

from engine import logs, trouble
from engine.ingest import ingest
from engine.rounds import retraining
from engine.rounds.record import NoSuchRound
from engine.services import connect
from engine.settings import LogSettings, Settings
from storage import log_ids
from storage.blobs.folder import LocalBlobs
from tests.storage import made_videos

BATCH = "0123456789abcdef"
log = logging.getLogger("engine.tests")


@pytest.fixture
def lines():
    """Sets the log up, and returns what was written since."""
    stream = io.StringIO()

    def written(**settings):
        logs.set_up(LogSettings(**settings), stream)
        return stream

    yield written
    for handler in [each for each in logging.getLogger().handlers if getattr(each, "stream", None) is stream]:
        logging.getLogger().removeHandler(handler)
    for name in logs.OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_json_line_carries_the_ids_of_the_blocks_around_it(lines):
    stream = lines(json_lines=True)
    with log_ids.about(batch_id=BATCH), log_ids.about(video_id="v1", checkpoint="micro"):
        log.warning("%s is full", "the disk")
    log.info("later")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert {name: first[name] for name in ("level", "logger", "message")} == {
        "level": "warning",
        "logger": "engine.tests",
        "message": "the disk is full",
    }
    assert (first["batch_id"], first["video_id"], first["checkpoint"]) == (BATCH, "v1", "micro")
    assert "batch_id" not in second and first["time"].endswith("Z")


def test_a_traceback_stays_on_the_json_line(lines):
    stream = lines(json_lines=True)
    try:
        raise OSError("no\nroute")
    except OSError:
        log.exception("failed", extra={"ticket_id": "t1"})
    (line,) = stream.getvalue().splitlines()
    said = json.loads(line)
    assert said["ticket_id"] == "t1" and said["error"].startswith("Traceback") and "no\nroute" in said["error"]


def test_a_readable_line_ends_with_the_ids(lines):
    stream = lines()
    with log_ids.about(batch_id=BATCH, ticket_id=""):
        log.info("done")
    assert stream.getvalue().endswith(f"INFO engine.tests: done (batch_id {BATCH})\n")


def test_other_libraries_are_heard_from_warnings_on_and_ours_from_the_level(lines):
    stream = lines(level="warning")
    logging.getLogger("a_library").info("a")
    log.info("b")
    log.warning("c")
    logging.getLogger("a_library").warning("d")
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == ["c", "d"]


def test_setting_up_twice_writes_each_line_once(lines):
    stream = lines()
    lines(json_lines=True)
    log.warning("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_an_unknown_id_is_a_mistake():
    with pytest.raises(ValueError, match="log lines carry"), log_ids.about(person="vera"):
        pass


def test_another_thread_does_not_inherit_the_ids():
    found = []
    with log_ids.about(batch_id=BATCH):
        thread = threading.Thread(target=lambda: found.append(dict(log_ids.current())))
        thread.start()
        thread.join()
        assert log_ids.current() == {"batch_id": BATCH}
    assert found == [{}] and log_ids.current() == {}


def test_structlog_gets_the_ids_so_that_airflows_lines_carry_them():
    with log_ids.about(batch_id=BATCH):
        assert structlog.contextvars.get_contextvars()["batch_id"] == BATCH
    assert "batch_id" not in structlog.contextvars.get_contextvars()


def test_the_lines_of_a_stage_carry_its_batch(lines, tmp_path):
    stream = lines(json_lines=True)
    blobs = LocalBlobs(tmp_path)
    with pytest.raises(OSError), trouble.recorded(blobs, BATCH, "publish"):
        raise OSError("no space")
    with trouble.recorded(blobs, BATCH, "publish"):
        pass
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["level"], line["batch_id"]) for line in said] == [("warning", BATCH), ("info", BATCH)]
    assert said[1]["message"] == "publish is done"


def test_ingest_says_of_each_file_what_became_of_it(lines, tmp_path):
    stream = lines(json_lines=True)
    source = tmp_path / "source"
    source.mkdir()
    made_videos.make(source / "good.mp4", list(made_videos.colours(30)))
    (source / "bad.mp4").write_bytes(b"no video")
    with connect(Settings(home=tmp_path / "home")) as s:
        ingest.admit(s, str(source))
        (video,) = s.tables.videos()
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    admitted, refused = sorted((line for line in said if str(source) in line["message"]), key=lambda d: d["message"])
    assert (admitted["message"], admitted["video_id"]) == (f"admitted {source}/good.mp4", video.video_id)
    assert refused["message"].startswith(f"refused {source}/bad.mp4: unreadable, ") and "video_id" not in refused


def test_the_lines_of_a_round_carry_its_checkpoint(lines, tmp_path):
    stream = lines(json_lines=True)
    with connect(Settings(home=tmp_path / "home")) as s, pytest.raises(NoSuchRound):
        retraining.evaluate(s, "round-9")
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["message"].split()[0], line["checkpoint"]) for line in said] == [
        ("evaluate", "round-9"),
        ("retrain", "round-9"),
    ]


def test_lines_go_to_what_standard_error_is_when_they_are_written(monkeypatch):
    """A progress bar replaces it while it is drawn."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs.set_up(LogSettings())
    drawn = io.StringIO()
    monkeypatch.setattr(sys, "stderr", drawn)
    logging.getLogger("engine").warning("said meanwhile")
    assert "said meanwhile" in drawn.getvalue()
