"""Where the tickets of one batch stand: how many are in which state, which wait longest, when the last will be done.

Its cost follows the tickets of this batch, not those of the queue. Gold is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import Connection, func, select

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.pipeline_records import BatchTickets, Oldest
from annotation_queue.records import Kind, State, TicketCount
from annotation_queue.tickets import batches
from annotation_queue.tickets.figures import PACE_S


def of_batch(database: Database, batch_id: str, now: float) -> BatchTickets:
    """The tickets of a batch at `now`, s since the epoch. Raises NoSuchBatch."""
    with database.read() as c:
        batch = batches.read(c, batch_id)
        counts, lately = _counted(c, batch_id, now)
        sent = c.execute(select(schema.outbox).where(schema.outbox.c.batch_id == batch_id)).first()
        return BatchTickets(
            batch=batch,
            counts=tuple(counts),
            oldest_open=_oldest_open(c, batch_id),
            oldest_held=_oldest_held(c, batch_id, now),
            an_hour=sum(lately.values()) * 3600 / PACE_S,
            expected_end=_expected_end(counts, lately, now),
            delivered=sent is not None and sent.delivered_at is not None,
            delivery_error=None if sent is None else sent.last_error,
            next_delivery=None if sent is None or sent.delivered_at is not None else sent.not_before,
        )


def _counted(c: Connection, batch_id: str, now: float) -> tuple[list[TicketCount], Mapping[str, int]]:
    """The tickets by kind and state, and how many of each kind were done lately."""
    t = schema.tickets
    keys = (t.c.kind, t.c.state, t.c.needs_lead)
    expired = func.count().filter(schema.IS_LEASED, t.c.expires_at < now).label("expired")
    lately = func.count().filter(t.c.finished_at > now - PACE_S).label("lately")
    query = select(*keys, func.count().label("n"), expired, lately)
    query = query.where(t.c.batch_id == batch_id, t.c.gold_id.is_(None)).group_by(*keys)
    found = Counter[tuple[str, str, bool]]()
    done_lately = Counter[str]()
    for row in c.execute(query):
        found[row.kind, row.state, bool(row.needs_lead)] += row.n - row.expired
        found[row.kind, State.OPEN.value, bool(row.needs_lead)] += row.expired
        done_lately[row.kind] += row.lately
    return [
        TicketCount(kind=Kind(kind), state=State(state), needs_lead=needs_lead, tickets=n)
        for (kind, state, needs_lead), n in sorted(found.items())
        if n
    ], done_lately


def _expected_end(counts: list[TicketCount], lately: Mapping[str, int], now: float) -> float | None:
    """For the kind of ticket that takes longest. New tickets, such as those for corrections, are not foreseen."""
    left = Counter[str]()
    for count in counts:
        if count.state is not State.DONE:
            left[count.kind] += count.tickets
    if not left or not all(lately[kind] for kind in left):
        return None
    return now + max(n * PACE_S / lately[kind] for kind, n in left.items())


def _oldest_open(c: Connection, batch_id: str) -> Oldest | None:
    t = schema.tickets
    query = select(t).where(t.c.batch_id == batch_id, schema.IS_OPEN, t.c.gold_id.is_(None))
    row = c.execute(query.order_by(t.c.created_at, t.c.ordinal).limit(1)).first()
    return None if row is None else Oldest(ticket_id=row.ticket_id, kind=Kind(row.kind), since=row.created_at)


def _oldest_held(c: Connection, batch_id: str, now: float) -> Oldest | None:
    t, le = schema.tickets, schema.leases
    query = (
        select(t.c.ticket_id, t.c.kind, t.c.leased_by, le.c.claimed_at)
        .join(le, (le.c.ticket_id == t.c.ticket_id) & (le.c.token == t.c.lease_token))
        .where(t.c.batch_id == batch_id, schema.IS_LEASED, t.c.expires_at >= now, t.c.gold_id.is_(None))
        .order_by(le.c.claimed_at)
        .limit(1)
    )
    row = c.execute(query).first()
    if row is None:
        return None
    return Oldest(ticket_id=row.ticket_id, kind=Kind(row.kind), since=row.claimed_at, person=row.leased_by)
