"""A batch that is stuck says so: in the store, in the log, and by every command that people ask."""

from __future__ import annotations

import json
import logging

import pytest

from engine.cli import data, doctor
from engine.cli import pipeline as commands
from engine.serving import serve
from engine.stages import publish, review, trouble
from engine.stages.batches import UnknownBatch
from storage.blobs.folder import LocalBlobs

BATCH = "0" * 16


@pytest.fixture
def blobs(tmp_path):
    return LocalBlobs(tmp_path / "store")


def fail(blobs, error, batch_id=BATCH, stage="publish"):
    with pytest.raises(type(error)), trouble.recorded(blobs, batch_id, stage):
        raise error


def test_a_failure_is_recorded_with_its_first_time_and_its_last_error(blobs, caplog):
    blobs.write(f"trouble/{BATCH}/publish.json", b'{"since": 100.0, "error": "first"}')
    with caplog.at_level(logging.WARNING):
        fail(blobs, ValueError("second\nand more"))
    (found,) = trouble.stuck(blobs)
    assert (found.batch_id, found.stage, found.since, found.error) == (BATCH, "publish", 100.0, "second")
    assert caplog.messages == [f"batch {BATCH} is stuck at publish: second"]
    assert trouble.line(found) == f"batch {BATCH} is stuck at publish since 1970-01-01 00:01 UTC: second"


def test_success_removes_the_record_of_its_own_stage_only(blobs):
    fail(blobs, ValueError("one"), stage="collect")
    fail(blobs, ValueError("two"), stage="publish")
    with trouble.recorded(blobs, BATCH, "collect"):
        pass
    assert [batch.stage for batch in trouble.stuck(blobs)] == ["publish"]


def test_a_damaged_record_is_skipped(blobs):
    blobs.write(f"trouble/{BATCH}/publish.json", b"{")
    blobs.write("trouble/else", b"")
    assert trouble.stuck(blobs) == []


@pytest.mark.parametrize(("stage", "run"), [("publish", publish.publish_batch), ("collect", review.collect)])
def test_a_stage_that_fails_leaves_a_record(queue, monkeypatch, stage, run):
    queue.open_queue()[0].open_batch(BATCH, [])
    with pytest.raises(UnknownBatch):
        run(queue, BATCH)
    assert [(batch.batch_id, batch.stage) for batch in trouble.stuck(queue.blobs)] == [(BATCH, stage)]


def test_stats_doctor_and_validate_name_a_stuck_batch(queue, monkeypatch, capsys):
    for name, value in queue.settings.environment().items():
        monkeypatch.setenv(name, value)
    fail(queue.blobs, publish.PublishStopped("the table checks failed"))
    (found,) = trouble.stuck(queue.blobs)
    commands.stats()
    assert trouble.line(found) in " ".join(capsys.readouterr().out.split())
    commands.stats(as_json=True)
    (told,) = json.loads(capsys.readouterr().out)["stuck"]
    assert (told["stage"], told["error"], told["since"]) == ("publish", "the table checks failed", found.since)
    with pytest.raises(ValueError, match="no release yet: batch 0000000000000000 is stuck at publish since"):
        data.validate()
    with pytest.raises(ValueError, match="is stuck at publish"):
        doctor._batches(queue)


def test_the_queue_tells_leads_of_stuck_and_of_undelivered_batches(queue):
    tickets, _ = queue.open_queue()
    for batch_id in (BATCH, "1" * 16):
        tickets.open_batch(batch_id, [])

    def refuse(batch_id):
        raise ConnectionError("Airflow does not answer")

    tickets.deliver(refuse)
    fail(queue.blobs, publish.PublishStopped("the table checks failed"))
    told = serve.app(queue, deliver=False).state.backend.stuck()
    assert {(b.batch_id, b.stage, b.error) for b in told} == {
        (BATCH, "publish", "the table checks failed"),
        ("1" * 16, "deliver", "Airflow does not answer"),
    }
    with pytest.raises(ValueError, match="stuck at deliver since .*: Airflow does not answer"):
        doctor._batches(queue)
