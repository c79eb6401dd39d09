"""A pipeline for tests of the queue: it shows what a test gives it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

from annotation_queue.errors import NoSuchBatch
from annotation_queue.pipeline_records import (
    Action,
    BatchStanding,
    PipelineCounts,
    PipelineView,
    QuarantineAct,
    QuarantinePage,
    QuarantineRow,
    Serving,
    StageProgress,
    Workers,
)
from annotation_queue.records import Stuck

STAGES = ("ingest", "auto-masklets", "open review", "collect", "publish")


class FakePipeline:
    """Fulfils `annotation_queue.api.backend.Pipeline` from lists, without a store."""

    def __init__(self, folder):
        """folder: holds the Data Docs of every batch."""
        self.folder = folder
        self.batches: list[BatchStanding] = []
        self.more = 0  # batches that are left out
        self.rows: list[QuarantineRow] = []
        self.workers = Workers()
        self.serving = Serving(checkpoint="micro", round=0, live=None)
        self.docs_of = ()
        self.asked = {}
        self.away = False  # its store does not answer

    def view(self):
        return PipelineView(
            at=time.time(),
            batches=tuple(self.batches),
            more=self.more,
            workers=self.workers,
            serving=self.serving,
            docs=self.docs_of,
        )

    def counts(self):
        if self.away:
            raise ConnectionError("the store does not answer")
        return PipelineCounts(
            waiting={"publish": len(self.batches)},
            failing={"publish": sum(bool(batch.stuck) for batch in self.batches)},
            quarantined=dict(Counter((row.stage, row.reason) for row in self.rows)),
            released=sum(row.waits for row in self.rows),
            checkpoint=self.serving.checkpoint,
            round=self.serving.round,
            scheduler_seen=self.workers.scheduler_seen,
            pools=self.workers.pools,
        )

    def batch(self, batch_id):
        for batch in self.batches:
            if batch.batch_id == batch_id:
                return batch
        raise NoSuchBatch(f"no batch {batch_id}")

    def quarantine(self, **asked):
        self.asked = asked
        rows = [row for row in self.rows if asked["stage"] in (None, row.stage)]
        rows = [row for row in rows if (asked["text"] or "") in row.subject and not (asked["undecided"] and row.acts)]
        reasons = Counter(row.reason for row in rows)
        rows = [row for row in rows if asked["reason"] in (None, row.reason)]
        end = asked["after"] + asked["limit"]
        return QuarantinePage(
            rows=tuple(rows[asked["after"] : end]),
            total=len(rows),
            reasons=dict(reasons),
            next=end if end < len(rows) else None,
        )

    def decide(self, row_id, action, *, act_id, by, why):
        for n, row in enumerate(self.rows):
            if row.row_id == row_id:
                act = QuarantineAct(
                    act_id=act_id,
                    action=action,
                    stage=row.stage,
                    subject=row.subject,
                    reason=row.reason,
                    by=by,
                    at="2026-01-01T00:00:00+00:00",
                    why=why,
                )
                self.rows[n] = replace(row, acts=(*row.acts, act), waits=action is Action.RELEASE)
                return self.rows[n]
        raise ValueError(f"there is no row {row_id} in quarantine")

    def docs(self, batch_id, path):
        found = self.folder / path
        return found if found.is_file() else None


def refused(row_id, subject="s3://raw/clips/short.mp4", reason="too_short", release="admits it from two frames on"):
    """A row of the quarantine about which nobody has decided."""
    return QuarantineRow(
        row_id=row_id,
        stage="ingest",
        subject=subject,
        reason=reason,
        detail="short.mp4: 0.25 s, at least 1 s",
        batch_id="q",
        release=release,
    )


def waiting(batch_id, done=13, of=20, **more):
    """A batch in which some videos lack candidates."""
    stages = [
        StageProgress(stage=name, done=of if n == 0 else done if n == 1 else 0, of=of, noun="video", complete=n == 0)
        for n, name in enumerate(STAGES)
    ]
    facts = {
        "batch_id": batch_id,
        "name": "",
        "imported": False,
        "videos": of,
        "stages": tuple(stages),
        "tickets": None,
        "stuck": (),
        "quarantined": 0,
        "checkpoint": "micro",
        "phase": None,
        "release": None,
        "waits_for": f"auto-masklets: {done} of {of} videos have candidates",
        "next": "the DAG auto_masklets runs it",
        "due": None,
    }
    return BatchStanding(**facts | more)


def failing(batch_id, error, **more):
    """A batch whose publishing fails."""
    stuck = Stuck(batch_id=batch_id, stage="publish", error=error, since=time.time() - 60)
    return waiting(batch_id, stuck=(stuck,), waits_for=f"publish, which has failed for 60 s: {error}", **more)
