"""What the leads' page shows of a real store: batches, quarantine, Data Docs, and an Airflow that does not answer."""

from datetime import UTC, datetime

import numpy as np
import pytest

from annotation_queue.errors import NoSuchBatch
from annotation_queue.pipeline_records import Action, ModelTimes, PoolUse
from engine import batches, trouble
from engine.batches import BatchStage
from engine.ingest import ingest, refusals
from engine.processes import ports
from engine.processes.airflow_client import Health, Pool
from engine.registry import Checkpoint
from engine.services import Services, connect
from engine.serving import delivery, overview, why
from engine.serving.overview import Overview
from engine.settings import AirflowSettings, IngestSettings, Settings
from engine.stages import publish
from storage.iceberg.tables import Tables
from storage.records import Quarantined
from storage.videos import video

pytestmark = pytest.mark.slow

BATCH = "0123456789abcdef"
TIMES = (ModelTimes(what="click", answers=2, mean_s=0.1, p95_s=0.2),)
EVERYTHING = {"stage": None, "reason": None, "text": None, "undecided": False, "after": 0, "limit": 50}


@pytest.fixture
def s(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    shades = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    video.write(source / "short.mp4", shades)
    (source / "broken.mp4").write_bytes(b"no video" * 99)
    monkeypatch.setattr(Services, "checkpoint", lambda self: Checkpoint(name="promoted", round=2, key=None))
    settings = Settings(home=tmp_path / "home", ingest=IngestSettings(source=str(source)))
    with connect(settings) as services:
        yield services


@pytest.fixture
def seen(s):
    tickets, _ = s.open_queue()
    return Overview(s, tickets, lambda: "promoted", lambda: TIMES)


def test_batches_that_fail_come_first_and_many_are_left_out(s, seen, monkeypatch):
    monkeypatch.setattr(overview, "MOST_BATCHES", 2)
    for n in range(3):
        batches.mark(s.blobs, f"{n:016x}", BatchStage.INGESTED, {"videos": ["v"]})
    trouble.record(s.blobs, f"{2:016x}", "auto-masklets", "no memory")
    view = seen.view()
    assert [batch.batch_id for batch in view.batches] == [f"{2:016x}", f"{0:016x}"] and view.more == 1
    assert (view.serving.checkpoint, view.serving.round, view.serving.times) == ("promoted", 2, TIMES)
    assert view.workers.url is None


def test_a_batch_with_a_damaged_mark_says_so_in_its_own_line(s, seen):
    for batch_id in ("0" * 16, BATCH):
        batches.mark(s.blobs, batch_id, BatchStage.INGESTED, {"videos": ["v"]})
    s.blobs.write(f"batches/{BATCH}/{BatchStage.INGESTED}.json", b"{")
    plain, damaged = seen.view().batches
    assert plain.waits_for.startswith("auto-masklets") and damaged.batch_id == BATCH
    assert "1-ingested.json: not JSON" in damaged.waits_for
    assert damaged.stuck == why.of_each(s, BATCH, None).stuck, "the page is not drawn anew at each look"


def test_a_published_batch_can_be_asked_for_and_an_unknown_one_cannot(s, seen):
    for mark in BatchStage:
        batches.mark(s.blobs, BATCH, mark, {"videos": [], "release": "release-0001"})
    assert seen.batch(BATCH).release == "release-0001" and seen.view().batches == ()
    for unknown in ("f" * 16, "no id"):
        with pytest.raises(NoSuchBatch):
            seen.batch(unknown)


def test_the_quarantine_is_filtered_and_a_release_is_shown_until_ingest_has_honoured_it(s, seen):
    ingest.admit(s)
    page = seen.quarantine(**EVERYTHING)
    assert (page.total, page.reasons, page.next) == (2, {"unreadable": 1, "too_short": 1}, None)
    assert seen.quarantine(**EVERYTHING | {"limit": 1}).next == 1
    (row,) = seen.quarantine(**EVERYTHING | {"text": "SHORT.mp4"}).rows
    released = seen.decide(row.row_id, Action.RELEASE, act_id="a1", by="lea", why="needed")
    assert (released.waits, released.outcome, released.acts[0].by) == (True, None, "lea")
    assert [row.reason for row in seen.quarantine(**EVERYTHING | {"undecided": True}).rows] == ["unreadable"]
    assert ingest.admit(s).admitted == 1
    (after,) = seen.quarantine(**EVERYTHING | {"reason": "too_short"}).rows
    assert not after.waits and after.outcome.startswith("admitted as ")
    with pytest.raises(ValueError, match="there is no row"):
        seen.decide("unknown", Action.SEEN, act_id="a2", by="lea", why="w")


def test_a_second_reason_of_a_file_is_undecided_until_somebody_decides_about_it(s, seen):
    rows = [
        Quarantined(
            stage="ingest", subject="a.mp4", reason=reason, detail=f"much {reason}".replace("_", " "), batch_id=""
        )
        for reason in ("too_short", "too_small")
    ]
    refusals.commit(s, rows[:1])
    (row,) = seen.quarantine(**EVERYTHING).rows
    seen.decide(row.row_id, Action.RELEASE, act_id="a1", by="lea", why="needed")
    refusals.commit(s, rows[1:])
    undecided = seen.quarantine(**EVERYTHING | {"undecided": True}).rows
    assert [row.reason for row in undecided] == ["too_small"]
    assert seen.quarantine(**EVERYTHING | {"undecided": True, "text": "much too small"}).total == 1
    seen.decide(undecided[0].row_id, Action.SEEN, act_id="a2", by="lea", why="known")
    assert seen.quarantine(**EVERYTHING | {"undecided": True}).total == 0


def test_the_table_of_refusals_is_read_again_only_when_it_has_changed(s, seen, monkeypatch):
    ingest.admit(s)
    reads, plain = [], Tables.quarantine

    def counting(self, **more):
        reads.append(more)
        return plain(self, **more)

    monkeypatch.setattr(Tables, "quarantine", counting)
    seen.quarantine(**EVERYTHING)
    seen.quarantine(**EVERYTHING)
    assert len(reads) == 1


def test_data_docs_are_found_and_no_path_leads_out_of_them(s, seen):
    folder = publish.docs_folder(s) / BATCH
    for time in ("20260101T000000Z", "20260102T000000Z"):
        page = folder / "validations" / "masklets" / BATCH / time / "batch-masklets.html"
        page.parent.mkdir(parents=True)
        page.write_text("")
    (folder / "index.html").write_text("")
    (s.home / "secret.html").write_text("")
    (docs,) = seen.view().docs
    assert docs.batch_id == BATCH and "20260102T000000Z" in docs.pages["masklets"]
    assert seen.docs(BATCH, docs.pages["masklets"]) is not None
    for outside in ("../../secret.html", "../missing", str(s.home / "secret.html"), ".", "a\0b", "x" * 5000):
        assert seen.docs(BATCH, outside) is None, outside


def test_an_airflow_that_does_not_answer_is_named_and_the_rest_is_shown(tmp_path, s):
    url = f"http://127.0.0.1:{ports.free_port()}"
    away = AirflowSettings(url=url, password="p")
    with connect(s.settings.model_copy(update={"airflow": away})) as services:
        tickets, _ = services.open_queue()
        view = Overview(services, tickets, lambda: None, tuple).view()
    assert view.workers.url == url and "does not answer" in (view.workers.error or "")


def test_the_scheduler_and_the_pools_of_an_airflow_that_answers_are_shown(s, monkeypatch):
    class Answering:
        def health(self):
            return Health(scheduler=datetime(2026, 1, 1, tzinfo=UTC), dag_processor=None)

        def pools(self):
            return [Pool("gpu", 2, 1, 5)]

    monkeypatch.setattr(delivery, "airflow_client", lambda settings, timeout_s: Answering())
    with connect(s.settings.model_copy(update={"airflow": AirflowSettings(url="http://airflow")})) as services:
        tickets, _ = services.open_queue()
        seen = Overview(services, tickets, lambda: None, tuple)
        workers, counts = seen.view().workers, seen.counts()
    assert workers.scheduler_seen == counts.scheduler_seen == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert workers.pools == counts.pools == (PoolUse(name="gpu", slots=2, running=1, queued=5),)


def test_a_registry_that_cannot_be_asked_is_named(s, seen, monkeypatch):
    def fail(self):
        raise ConnectionError("no route to mlflow")

    monkeypatch.setattr(Services, "checkpoint", fail)
    assert seen.view().serving.error == "no route to mlflow"


def test_the_pipeline_is_counted_for_monitoring(s, seen):
    ingest.admit(s)
    seen.decide(
        next(row.row_id for row in seen.quarantine(**EVERYTHING).rows if row.reason == "too_short"),
        Action.RELEASE,
        act_id="a1",
        by="lea",
        why="needed",
    )
    for n in range(2):
        batches.mark(s.blobs, f"{n:016x}", BatchStage.INGESTED, {"videos": ["v"]})
    batches.mark(s.blobs, BATCH, BatchStage.COLLECTED, {"videos": []})
    trouble.record(s.blobs, BATCH, "publish", "no space")
    counts = seen.counts()
    assert counts.waiting == {"auto-masklets": 2, "publish": 1} and counts.failing == {"publish": 1}
    assert counts.quarantined == {("ingest", "too_short"): 1, ("ingest", "unreadable"): 1}
    assert (counts.released, counts.checkpoint, counts.round) == (1, "promoted", 2)
