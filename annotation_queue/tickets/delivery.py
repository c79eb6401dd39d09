"""Delivery: reports each drained batch of the outbox to the pipeline once. Knows no HTTP: it calls a function."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Row, select, update

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.records import Stuck
from storage import log_ids
from storage.errors import first_line

log = logging.getLogger(__name__)

DELIVERY_S = 300.0  # how long one delivery of a drained batch may take before another process tries
RETRY_S = (1.0, 5.0, 30.0, 60.0)  # waits after failed deliveries; the last one repeats


def deliver(database: Database, clock: Callable[[], float], tell: Callable[[str], object]) -> int:
    """Call `tell(batch_id)` for each drained batch that is not delivered; return how many were delivered.

    A batch is delivered once: it is marked before this returns, and two processes never tell the same batch at the
    same time. If `tell` fails, a later call tries again. If the process dies between the end of `tell` and the mark,
    `tell` runs a second time, so it must be harmless to repeat.
    """
    delivered, o = 0, schema.outbox
    while (row := _take(database, clock())) is not None:
        changed: dict[str, Any]
        try:
            tell(row.batch_id)
        except Exception as error:
            wait = RETRY_S[min(row.attempts, len(RETRY_S)) - 1]
            changed = {"last_error": first_line(error), "not_before": clock() + wait}
            with log_ids.about(batch_id=row.batch_id):
                log.warning("batch %s is drained, but not delivered: %s", row.batch_id, first_line(error))
        else:
            changed = {"delivered_at": clock(), "last_error": None}
            delivered += 1
        with database.write() as c:
            c.execute(update(o).where(o.c.batch_id == row.batch_id).values(**changed))
    return delivered


def undelivered(c: Connection) -> list[Stuck]:
    """The drained batches whose last delivery failed, the oldest first."""
    o, b = schema.outbox, schema.batches
    query = select(o, b.c.project).join(b, b.c.batch_id == o.c.batch_id)
    query = query.where(o.c.delivered_at.is_(None), o.c.last_error.is_not(None)).order_by(o.c.created_at)
    return [
        Stuck(batch_id=row.batch_id, stage="deliver", error=row.last_error, since=row.created_at, project=row.project)
        for row in c.execute(query)
    ]


def _take(database: Database, now: float) -> Row[Any] | None:
    """The next row that is due; for DELIVERY_S no other process takes it."""
    o = schema.outbox
    due = select(o.c.batch_id).where(o.c.delivered_at.is_(None), o.c.not_before <= now)
    due = due.order_by(o.c.created_at).limit(1).with_for_update(skip_locked=True)
    taken = update(o).where(o.c.batch_id == due.scalar_subquery())
    with database.write() as c:
        return c.execute(taken.values(attempts=o.c.attempts + 1, not_before=now + DELIVERY_S).returning(o)).first()
