"""Closed videos: the pipeline publishes them before the last ticket of their batch is done, so they must not change.

A video is settled when all its tickets in the batch are done; gold is not counted. Closing locks the batch, as all acts
do that open a ticket again: after it, nobody takes an answer back or reopens a ticket of a closed video.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, case, distinct, func, insert, select

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.errors import NoSuchBatch
from annotation_queue.records import SettledVideos, State
from annotation_queue.tickets import batches

_NOT_DONE = case((schema.tickets.c.state != State.DONE.value, schema.tickets.c.video_id))  # else NULL, not counted


def settled_videos(database: Database) -> list[SettledVideos]:
    """How many videos are settled in each batch that is sealed and not drained. Its cost follows these batches."""
    with database.read() as c:
        return _counted(c)


def _counted(c: Connection) -> list[SettledVideos]:
    b, t, v = schema.batches, schema.tickets, schema.closed_videos
    is_open = (b.c.sealed.is_(True), b.c.drained_at.is_(None))
    closed = select(v.c.batch_id, func.count().label("closed"), func.max(v.c.closed_at).label("last"))
    closed = closed.join(b, b.c.batch_id == v.c.batch_id).where(*is_open).group_by(v.c.batch_id)
    of_batch = {row.batch_id: row for row in c.execute(closed)}
    query = (
        select(
            b.c.batch_id,
            b.c.project,
            b.c.created_at,
            func.count(distinct(t.c.video_id)).label("videos"),
            func.count(distinct(_NOT_DONE)).label("unsettled"),
        )
        .join(t, t.c.batch_id == b.c.batch_id)
        .where(*is_open, t.c.gold_id.is_(None))
        .group_by(b.c.batch_id, b.c.project, b.c.created_at)
    )
    found = []
    for row in c.execute(query.order_by(b.c.batch_id)):
        done = of_batch.get(row.batch_id)
        found.append(
            SettledVideos(
                batch_id=row.batch_id,
                project=row.project,
                videos=row.videos,
                settled=row.videos - row.unsettled,
                closed=0 if done is None else done.closed,
                since=row.created_at if done is None else done.last,
            )
        )
    return found


def close(database: Database, batch_id: str, now: float) -> list[str]:
    """Close the settled videos of a batch. Returns all its closed videos, sorted. Raises NoSuchBatch.

    Nothing is closed before all tickets of the batch came, nor after the last one was done: then it is complete.
    """
    with database.write() as c:
        return _close(c, batch_id, now)


def _close(c: Connection, batch_id: str, now: float) -> list[str]:
    row = batches.lock(c, batch_id)
    if row is None:
        raise NoSuchBatch(f"no batch {batch_id}")
    v, t = schema.closed_videos, schema.tickets
    closed = set(c.scalars(select(v.c.video_id).where(v.c.batch_id == batch_id)))
    if row.sealed and row.drained_at is None:
        of_batch = select(t.c.video_id).where(t.c.batch_id == batch_id, t.c.gold_id.is_(None)).group_by(t.c.video_id)
        settled = set(c.scalars(of_batch.having(func.count(_NOT_DONE) == 0))) - closed
        if settled:
            new = [{"batch_id": batch_id, "video_id": video_id, "closed_at": now} for video_id in sorted(settled)]
            c.execute(insert(v), new)
        closed |= settled
    return sorted(closed)


def is_closed(c: Connection, batch: Row[Any], video_id: str) -> bool:
    """Whether the result of a video went to the pipeline, with its whole batch or before. batch: its locked row."""
    v = schema.closed_videos
    mine = select(v.c.video_id).where(v.c.batch_id == batch.batch_id, v.c.video_id == video_id)
    return batch.drained_at is not None or c.execute(mine).first() is not None
