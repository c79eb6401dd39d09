"""Withdrawn videos: the pipeline rejects their tickets, because nobody has to answer them any more.

So their batch drains without them, and the other videos are published. The videos are closed, too: nobody takes back an
answer about one or opens another object in it. Gold about one is removed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update

from annotation_queue import audit, schema
from annotation_queue.database import Database, insert_missing
from annotation_queue.errors import NoSuchBatch
from annotation_queue.records import Person, Reason, State
from annotation_queue.rules import check_id
from annotation_queue.tickets import batches, gold, leases, tallies
from storage.records import Verdict

WITHDRAW = "withdraw"  # the act in the audit


def reject(database: Database, batch_id: str, video_id: str, *, by: Person, why: str, now: float) -> int:
    """Reject every ticket of a withdrawn video that is open or leased, and return their number. Can run again.

    Whoever holds one loses the lease. why: a sentence that names the withdrawal, for the ticket's history.
    Raises NoSuchBatch.
    """
    check_id(video_id, "video_id")
    rejected = 0
    while True:  # a take-back may have opened a ticket just before its video was closed
        with database.write() as c:
            new = _reject(c, batch_id, video_id, by, why, now)
        if not new:
            return rejected
        rejected += new


def _reject(c: Connection, batch_id: str, video_id: str, by: Person, why: str, now: float) -> int:
    t = schema.tickets
    waiting = select(t).where(t.c.batch_id == batch_id, t.c.video_id == video_id, t.c.gold_id.is_(None))
    waiting = waiting.where(t.c.state != State.DONE.value).order_by(t.c.ticket_id).with_for_update()
    rows = list[Row[Any]]()
    while found := c.execute(waiting).all():  # again: one that was locked just now may have led to another ticket
        for row in found:
            if row.state == State.LEASED.value:
                leases.end_early(c, row.ticket_id, row.lease_token, by)
            audit.note(c, now, by.name, WITHDRAW, row.ticket_id, {"held_by": row.leased_by, "said": why})
        answer = {"verdict": Verdict.REJECT, "settled": Verdict.REJECT, "reasons": Reason.OTHER.value}
        done = {"state": State.DONE.value, "leased_by": None, "expires_at": None, "finished_by": by.name}
        ids = [row.ticket_id for row in found]
        c.execute(update(t).where(t.c.ticket_id.in_(ids)).values(answer | done | {"finished_at": now}))
        rows += found
    gold.remove(c, batch_id, video_id, by, now)
    batch = batches.lock(c, batch_id)  # after its tickets, as everywhere
    if batch is None:
        raise NoSuchBatch(f"no batch {batch_id}")
    if batch.drained_at is None:
        insert_missing(c, schema.closed_videos, [{"batch_id": batch_id, "video_id": video_id, "closed_at": now}])
    if rows:
        batches.count(c, batch_id, now, more=0, less=len(rows))
        tallies.add(c, tallies.tickets_done([row._asdict() for row in rows]))
    return len(rows)
