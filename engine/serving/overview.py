"""The pipeline as the leads' page shows it: what waits and why, the quarantine, the workers, what serves, Data Docs.

The queue's process gives it to the queue's application, which knows no pipeline (`annotation_queue/api/backend.py`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from cachetools import TTLCache, cached

from annotation_queue.errors import NoSuchBatch
from annotation_queue.pipeline_records import (
    Action,
    BatchStanding,
    DocsOfBatch,
    ModelTimes,
    PipelineCounts,
    PipelineView,
    PoolUse,
    QuarantinePage,
    QuarantineRow,
    Serving,
    Workers,
)
from engine import batches, trouble
from engine.ingest import overrides, refusals
from engine.processes.airflow_client import AirflowClient
from engine.services import Services
from engine.serving import delivery, why
from engine.stages import publish
from storage.errors import first_line
from storage.records import Quarantined

if TYPE_CHECKING:
    from annotation_queue.tickets.store import TicketStore

VIEW_S = 10.0  # maximum age of a view: the store may be far away
MOST_BATCHES = 50  # that are shown with their reasons
MOST_DOCS = 20
AIRFLOW_S = 3.0  # seconds to wait for Airflow's answers
_READERS = 8


class Overview:
    """What leads see of the pipeline. Safe to use from several threads."""

    def __init__(
        self,
        s: Services,
        tickets: TicketStore,
        live: Callable[[], str | None],
        times: Callable[[], tuple[ModelTimes, ...]],
    ) -> None:
        """live: the checkpoint that answers clicks here. times: how long its answers took."""
        self._s, self._tickets, self._live, self._times = s, tickets, live, times
        self._airflow: AirflowClient | None = None
        self._scanning = threading.Lock()
        self._rows: tuple[int | None, list[Quarantined]] = (None, [])  # of the snapshot of that id
        cache: TTLCache[Hashable, PipelineView] = TTLCache(1, VIEW_S)
        self._recent = cached(cache, condition=threading.Condition())(self._view)
        numbers: TTLCache[Hashable, PipelineCounts] = TTLCache(1, VIEW_S)
        self._counted = cached(numbers, condition=threading.Condition())(self._counts)

    def view(self) -> PipelineView:
        """What waits and why, the workers, what serves, Data Docs; at most VIEW_S old."""
        return self._recent()

    def counts(self) -> PipelineCounts:
        """The pipeline in numbers; at most VIEW_S old. Raises what the store, the catalog or their drivers raise."""
        return self._counted()

    def batch(self, batch_id: str) -> BatchStanding:
        """Where one batch stands. Raises NoSuchBatch."""
        try:
            return why.of_batch(self._s, batch_id, self._tickets)
        except (batches.UnknownBatch, ValueError):
            raise NoSuchBatch(f"no batch {batch_id}") from None

    def _view(self) -> PipelineView:
        shown, more = self._chosen()
        with ThreadPoolExecutor(_READERS) as pool:
            standing = tuple(pool.map(lambda batch_id: why.of_each(self._s, batch_id, self._tickets), shown))
        return PipelineView(
            at=time.time(),
            batches=standing,
            more=more,
            workers=self._workers(),
            serving=self._serving(),
            docs=self._newest_docs(),
        )

    def _counts(self) -> PipelineCounts:
        blobs, workers, serving = self._s.blobs, self._workers(), self._serving()
        return PipelineCounts(
            waiting=dict(Counter(why.next_stage(marks).name for marks in batches.unfinished(blobs).values())),
            failing=dict(Counter(one.stage for one in trouble.stuck(blobs))),
            quarantined=dict(Counter((row.stage, row.reason) for row in self._quarantined())),
            released=len(overrides.waiting(blobs)),
            checkpoint=serving.checkpoint,
            round=serving.round,
            scheduler_seen=workers.scheduler_seen,
            pools=workers.pools,
        )

    def _chosen(self) -> tuple[list[str], int]:
        """The batches to show, and how many are left out: those that fail first, then those with the least done."""
        waiting = batches.unfinished(self._s.blobs)
        failing = {one.batch_id for one in trouble.stuck(self._s.blobs)}
        order = sorted(waiting, key=lambda batch_id: (batch_id not in failing, len(waiting[batch_id]), batch_id))
        return order[:MOST_BATCHES], len(order[MOST_BATCHES:])

    def _workers(self) -> Workers:
        settings = self._s.settings
        if settings.airflow.url is None:
            return Workers()
        try:
            if self._airflow is None:
                self._airflow = delivery.airflow_client(settings, AIRFLOW_S)
            beat = self._airflow.health().scheduler
            pools = tuple(
                PoolUse(name=p.name, slots=p.slots, running=p.running, queued=p.queued) for p in self._airflow.pools()
            )
        except Exception as error:  # of Airflow or of its password: the rest of the page is still true
            return Workers(url=settings.airflow.url, error=first_line(error))
        seen = None if beat is None else beat.timestamp()
        return Workers(url=settings.airflow.url, scheduler_seen=seen, pools=pools)

    def _serving(self) -> Serving:
        try:
            now = self._s.checkpoint()
        except Exception as error:  # of MLflow or of its database
            return Serving(checkpoint="", round=0, live=self._live(), times=self._times(), error=first_line(error))
        return Serving(checkpoint=now.name, round=now.round, live=self._live(), times=self._times())

    # --- quarantine ----------------------------------------------------------------------------------------------

    def quarantine(
        self, *, stage: str | None, reason: str | None, text: str | None, undecided: bool, after: int, limit: int
    ) -> QuarantinePage:
        """What was refused, filtered, by stage and subject.

        The table is read again when it has changed. It holds only what was refused, in the order of the pages.
        """
        blobs = self._s.blobs
        rows = [row for row in self._quarantined() if stage in (None, row.stage)]
        if text:
            rows = [row for row in rows if text.lower() in f"{row.subject}\n{row.detail}".lower()]
        if undecided:
            decided = overrides.decided(blobs)
            rows = [row for row in rows if not overrides.is_decided(decided, row)]
        reasons = Counter(row.reason for row in rows)
        rows = [row for row in rows if reason in (None, row.reason)]
        page = rows[after : after + limit]
        acts, waiting = overrides.acts_on(blobs, {row.subject for row in page}), overrides.waiting(blobs)
        shown = [
            QuarantineRow(
                row_id=refusals.id_of(row),
                stage=row.stage,
                subject=row.subject,
                reason=row.reason,
                detail=row.detail,
                batch_id=row.batch_id,
                release=overrides.what_release_does(row),
                acts=tuple(act for act in acts.get(row.subject, ()) if act.reason == row.reason),
                waits=overrides.is_in(waiting, row.subject),
                outcome=overrides.outcome_of(blobs, row.subject) if row.subject in acts else None,
            )
            for row in page
        ]
        following = after + limit if after + limit < len(rows) else None
        return QuarantinePage(rows=tuple(shown), total=len(rows), reasons=dict(reasons.most_common()), next=following)

    def decide(self, row_id: str, action: Action, *, act_id: str, by: str, why: str) -> QuarantineRow:
        """Records an act on a row, and returns the row as it is then. ValueError for an unknown row or act."""
        row = next((row for row in self._quarantined() if refusals.id_of(row) == row_id), None)
        if row is None:
            raise ValueError(f"there is no row {row_id} in quarantine")
        overrides.decide(self._s.blobs, row, action, act_id=act_id, by=by, why=why)
        page = self.quarantine(
            stage=row.stage, reason=row.reason, text=row.subject, undecided=False, after=0, limit=len(self._rows[1])
        )
        return next(shown for shown in page.rows if shown.row_id == row_id)

    def _quarantined(self) -> list[Quarantined]:
        with self._scanning:
            snapshot = self._s.tables.snapshot_id("quarantine")
            if snapshot is None or snapshot != self._rows[0]:
                self._rows = (snapshot, self._s.tables.quarantine())
            return self._rows[1]

    # --- Data Docs -----------------------------------------------------------------------------------------------

    def docs(self, batch_id: str, path: str) -> Path | None:
        """A file of a batch's Data Docs; None if there is none, also for a path that leads out of them."""
        folder = (publish.docs_folder(self._s) / batch_id).resolve()
        try:
            found = (folder / path).resolve()
            return found if found.is_relative_to(folder) and found.is_file() else None
        except (OSError, ValueError):  # a name that is too long, or with a null byte
            return None

    def _newest_docs(self) -> tuple[DocsOfBatch, ...]:
        """Lists the batches that were published on this machine."""
        found = [(index.stat().st_mtime, index.parent) for index in publish.docs_folder(self._s).glob("*/index.html")]
        newest = sorted(found, reverse=True)[:MOST_DOCS]
        return tuple(DocsOfBatch(batch_id=folder.name, built_at=at, pages=_pages(folder)) for at, folder in newest)


def _pages(folder: Path) -> dict[str, str]:
    """The newest results of each table: validations/TABLE/BATCH/TIME/NAME.html."""
    pages = sorted(folder.glob("validations/*/*/*/*.html"), key=lambda page: page.parent.name)
    return {page.parts[-4]: page.relative_to(folder).as_posix() for page in pages}
