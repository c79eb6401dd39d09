"""A stage that fails says so: in the store, in the log, and by every command that people ask."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re

import pytest
from sqlalchemy import func, select

from annotation_queue import schema
from engine import batches, loop, trouble
from engine.batches import BatchStage, UnknownBatch
from engine.cli import data, doctor, pipeline
from engine.ingest import ingest, sources
from engine.rounds import retraining, starting
from engine.rounds.record import NoSuchRound
from engine.services import connect
from engine.serving import serve
from engine.stages import imports, propose, publish
from storage.blobs.base import BlobDamaged, BlobUnreachable
from storage.blobs.folder import LocalBlobs
from tests.engine.admitting import admit_batch
from tests.engine.true_releases import measured, release_of

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


def test_the_end_of_work_on_a_batch_is_logged_and_that_of_the_clock_is_not(blobs, caplog):
    with caplog.at_level("INFO"):
        for batch_id in (trouble.NO_BATCH, "a" * 16):
            with trouble.recorded(blobs, batch_id, "publish"):
                pass
    assert [record.getMessage() for record in caplog.records] == ["publish is done"]


def test_a_damaged_record_is_skipped(blobs):
    blobs.write(f"trouble/{BATCH}/publish.json", b"{")
    blobs.write("trouble/else", b"")
    assert trouble.stuck(blobs) == []


def test_each_stage_that_fails_on_a_batch_leaves_a_record(queue):
    queue.open_queue()[0].open_batch(BATCH, [])
    stages = [stage for stage in loop.STAGES if stage.mark not in (None, BatchStage.INGESTED)]
    for stage in stages:
        with pytest.raises(UnknownBatch):
            stage.work(queue, BATCH, None)
    assert [(found.batch_id, found.stage) for found in trouble.stuck(queue.blobs)] == sorted(
        (BATCH, stage.name) for stage in stages
    )


def test_ingest_that_fails_leaves_a_record_until_it_succeeds(s, tmp_path):
    with pytest.raises(sources.NoSource):
        loop.INGEST.work(s, str(tmp_path / "nowhere"), None)
    (found,) = trouble.stuck(s.blobs)
    assert (found.batch_id, found.stage) == ("", loop.INGEST.name) and "nowhere" in found.error
    assert trouble.line(found).startswith("ingest fails since 20")
    (tmp_path / "nowhere").mkdir()
    loop.INGEST.work(s, str(tmp_path / "nowhere"), None)
    assert trouble.stuck(s.blobs) == []


def test_a_chunk_that_fails_is_on_record_until_every_video_has_candidates(s, monkeypatch):
    batch_id = admit_batch(s)
    first, *others = propose.missing(s, batch_id)
    monkeypatch.setattr(propose, "propose_video", lambda *a: [])

    def gone(video_id):
        raise BlobUnreachable("the bucket does not answer")

    with monkeypatch.context() as patch, pytest.raises(BlobUnreachable):
        patch.setattr(s, "video", gone)
        propose.propose_videos(s, batch_id, [first])
    record = [(batch_id, loop.PROPOSE.name, "the bucket does not answer")]
    propose.propose_videos(s, batch_id, others)
    assert told(s) == record, "another chunk's success removed the record"
    with pytest.raises(propose.NotProposed):
        propose.finish(s, batch_id)
    assert told(s) == record, "the first error says more than the missing candidates"
    propose.propose_batch(s, batch_id)
    assert told(s) == []


def test_a_batch_whose_worker_was_killed_is_on_record(s, monkeypatch):
    batch_id = admit_batch(s)
    first, *_ = propose.missing(s, batch_id)
    monkeypatch.setattr(propose, "propose_video", lambda *a: [])
    propose.propose_videos(s, batch_id, [first])
    with pytest.raises(propose.NotProposed):
        propose.finish(s, batch_id)
    assert told(s) == [(batch_id, loop.PROPOSE.name, f"batch {batch_id}: 2 of 3 videos without candidates")]


def test_an_import_that_fails_leaves_a_record_until_it_succeeds(s, sav_folder, monkeypatch):
    def full(*args):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(imports, "_fill", full)
        imports.import_folder(s, sav_folder)
    ((_, *found),) = told(s)
    assert found == ["import", "no space left on device"]
    imports.import_folder(s, sav_folder)
    assert told(s) == []


@pytest.mark.parametrize("step", [retraining.train, retraining.evaluate, retraining.decide])
def test_a_step_of_a_round_that_fails_is_on_record_until_a_round_is_decided(s, true_release, step):
    with pytest.raises(NoSuchRound):
        step(s, "round-001-0")
    assert told(s) == [("", loop.RETRAIN.name, "round-001-0: no such round: round-001-0")]
    retraining.decide(s, measured(s, starting.start(s, true_release.name)))
    assert told(s) == []


def test_a_stage_that_cannot_tell_its_work_is_on_record(s, monkeypatch):
    def damaged(_):
        raise BlobDamaged("rounds/round-001-0/start.json: not JSON")

    with monkeypatch.context() as patch:
        patch.setattr(starting, "due", damaged)
        loop.find_waiting(s)
    assert told(s) == [("", "finding work after release", "rounds/round-001-0/start.json: not JSON")]
    loop.find_waiting(s)
    assert told(s) == []


def told(s):
    return [(found.batch_id, found.stage, found.error) for found in trouble.stuck(s.blobs)]


def test_stats_doctor_and_validate_name_a_stuck_batch(queue, monkeypatch, capsys):
    for name, value in queue.settings.environment().items():
        monkeypatch.setenv(name, value)
    fail(queue.blobs, publish.PublishStopped("the table checks failed"))
    (found,) = trouble.stuck(queue.blobs)
    pipeline.stats()
    assert trouble.line(found) in " ".join(capsys.readouterr().out.split())
    pipeline.stats(as_json=True)
    (told,) = json.loads(capsys.readouterr().out)["stuck"]
    assert (told["stage"], told["error"], told["since"]) == ("publish", "the table checks failed", found.since)
    with pytest.raises(ValueError, match="no release yet: batch 0000000000000000 is stuck at publish since"):
        data.validate()
    with pytest.raises(ValueError, match="is stuck at publish"):
        doctor._batches(queue)


def undeliverable(s, *batch_ids):
    """Drained batches that the pipeline could not be told of."""
    tickets, _ = s.open_queue()
    for batch_id in batch_ids:
        tickets.open_batch(batch_id, [])
        batches.mark(s.blobs, batch_id, BatchStage.IN_REVIEW, {})

    def refuse(batch_id):
        raise ConnectionError("Airflow does not answer")

    tickets.deliver(refuse)


def test_stats_and_validate_name_a_drained_batch_that_is_not_delivered(queue, monkeypatch, capsys):
    s, other = queue, "1" * 16
    for name, value in s.settings.environment().items():
        monkeypatch.setenv(name, value)
    undeliverable(s, BATCH, other)
    line = rf"batch {BATCH} is stuck at deliver since \d{{4}}-\d\d-\d\d \d\d:\d\d UTC: Airflow does not answer"
    with pytest.raises(ValueError, match=f"there is no release yet: {line}; batch {other} is stuck at deliver"):
        data.validate()
    ingest.admit(s)
    release_of(s, "release-0001")
    for command in (pipeline.stats, data.validate):
        command()
        assert re.search(line, " ".join(capsys.readouterr().out.split()))
        command(as_json=True)
        told = json.loads(capsys.readouterr().out)["stuck"]
        assert [(of["batch_id"], of["stage"], of["error"]) for of in told] == [
            (batch_id, "deliver", "Airflow does not answer") for batch_id in (BATCH, other)
        ]
        assert all(of["since"] > 0 for of in told)
    pipeline.stats()
    assert f"batch {other} in-review 0 of 0 tickets open" in " ".join(capsys.readouterr().out.split())
    batches.mark(s.blobs, BATCH, BatchStage.PUBLISHED, {})
    pipeline.stats(as_json=True)
    assert [of["batch_id"] for of in json.loads(capsys.readouterr().out)["stuck"]] == [other]


def test_validate_opens_no_queue_if_every_batch_is_published(s, monkeypatch, capsys):
    for name, value in s.settings.environment().items():
        monkeypatch.setenv(name, value)
    ingest.admit(s)
    release_of(s, "release-0001")
    for batch_id in batches.reached(s.blobs):
        batches.mark(s.blobs, batch_id, BatchStage.PUBLISHED, {})
    monkeypatch.setenv("MASKLETS_QUEUE__DATABASE_URI", "postgresql+psycopg://me@127.0.0.1:9/none")
    data.validate()
    assert "0 problems" in capsys.readouterr().out


def test_reports_make_no_account_token_or_database(s, monkeypatch, capsys):
    for name, value in s.settings.environment().items():
        monkeypatch.setenv(name, value)
    batch_id = ingest.admit(s).batch_id or ""
    for mark in (BatchStage.PROPOSED, BatchStage.IN_REVIEW):
        for command in (data.validate, pipeline.stats):
            with contextlib.suppress(ValueError):  # there is no release
                command()
        batches.mark(s.blobs, batch_id, mark, {})
    assert {"queue.db", "pipeline.token"}.isdisjoint(os.listdir(s.home))


def test_reports_issue_no_token_for_a_database_that_another_machine_serves(queue, monkeypatch, capsys):
    undeliverable(queue, BATCH)
    before = len(queue.open_queue()[1].audited(limit=100))
    (queue.home / "pipeline.token").unlink()  # as on a worker, which has MASKLETS_QUEUE__TOKEN
    for name, value in queue.settings.environment().items():
        monkeypatch.setenv(name, value)
    pipeline.stats()
    assert "stuck at deliver" in " ".join(capsys.readouterr().out.split())
    assert not (queue.home / "pipeline.token").exists()
    with connect(queue.settings) as again:
        tickets = again.read_queue()
        with tickets.database.read() as c:
            assert c.scalar(select(func.count()).select_from(schema.audit)) == before


@pytest.mark.parametrize("uri", ["postgresql+psycopg://me@127.0.0.1:9/none", "sqlite:///{home}/damaged.db"])
def test_a_queue_that_does_not_answer_costs_no_report(s, monkeypatch, capsys, uri):
    for name, value in s.settings.environment().items():
        monkeypatch.setenv(name, value)
    (s.home / "damaged.db").write_bytes(b"no database" * 1000)
    monkeypatch.setenv("MASKLETS_QUEUE__DATABASE_URI", uri.format(home=s.home))
    ingest.admit(s)
    release_of(s, "release-0001")
    batches.mark(s.blobs, BATCH, BatchStage.IN_REVIEW, {})
    for command, says in ((data.validate, "0 problems"), (pipeline.stats, f"batch {BATCH} in-review")):
        command()
        told = " ".join(capsys.readouterr().out.split())
        assert says in told and "reading the queue's database fails since" in told


def test_the_queue_tells_leads_of_stuck_and_of_undelivered_batches(queue):
    undeliverable(queue, BATCH, "1" * 16)
    fail(queue.blobs, publish.PublishStopped("the table checks failed"))
    told = serve.app(queue, deliver=False).state.backend.stuck()
    assert {(b.batch_id, b.stage, b.error) for b in told} == {
        (BATCH, "publish", "the table checks failed"),
        ("1" * 16, "deliver", "Airflow does not answer"),
    }
    with pytest.raises(ValueError, match="stuck at deliver since .*: Airflow does not answer"):
        doctor._batches(queue)
