"""Batches: adding and counting tickets. When all tickets are done, the batch is drained and the outbox gets a row.

Works inside the transactions of `TicketStore`. Lock a batch after its tickets, because each transaction that finishes
one of its tickets waits for the batch's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from annotation_queue import schema
from annotation_queue.database import Database, insert_missing
from annotation_queue.errors import BatchSealed, NoSuchBatch
from annotation_queue.records import Batch, NewTicket, Person, QueuePolicy
from annotation_queue.tickets import masklets, ontologies, sight, tallies
from annotation_queue.tickets.rows import row_of, to_batch
from storage.wording import counted

_COUNT = (
    update(schema.batches)
    .where(schema.batches.c.batch_id == bindparam("of_batch"))
    .values(total=schema.batches.c.total + bindparam("more"), remaining=schema.batches.c.remaining - bindparam("less"))
    .returning(schema.batches)
)
_IDS_AT_ONCE = 500  # parameters of one query
MAX_NAME = 1024  # characters of a name: as long as a key in a bucket


def lock(c: Connection, batch_id: str) -> Row[Any] | None:
    """The row of a batch, locked until the transaction ends."""
    return c.execute(select(schema.batches).where(schema.batches.c.batch_id == batch_id).with_for_update()).first()


def read(c: Connection, batch_id: str, seen_by: Person | None = None) -> Batch:
    """The counts of a batch. Raises NoSuchBatch, also for one of another project than `seen_by`'s."""
    b = schema.batches
    row = c.execute(select(b).where(b.c.batch_id == batch_id, *sight.within(seen_by, b.c.project))).first()
    if row is None:
        raise NoSuchBatch(f"no batch {batch_id}")
    return to_batch(row)


def set_name(database: Database, batch_id: str, name: str) -> Batch:
    """Give a batch a name for people. Raises NoSuchBatch; ValueError for a long name."""
    if len(name) > MAX_NAME:
        raise ValueError(f"the name of a batch has at most {MAX_NAME} characters, not {len(name)}")
    with database.write() as c:
        c.execute(update(schema.batches).where(schema.batches.c.batch_id == batch_id).values(name=name))
        return read(c, batch_id)


def add(
    c: Connection,
    policy: QueuePolicy,
    batch_id: str,
    tickets: dict[str, NewTicket],
    now: float,
    *,
    sealed: bool,
    project: str = "",
) -> Batch:
    """Add tickets, by their ids, to a batch; a missing batch is created, for this project.

    Raises ValueError, also for a batch of another project; BatchSealed.
    """
    b = schema.batches
    row = lock(c, batch_id)
    if row is None:
        new = {"batch_id": batch_id, "created_at": now, "sealed": False, "total": 0, "remaining": 0}
        new["project"] = project
        insert_missing(c, b, [new])
        row = lock(c, batch_id)
        assert row is not None
    if row.project != project:
        raise ValueError(f"batch {batch_id} is of the project {row.project!r}, not of {project!r}")
    owners = _owners(c, list(tickets))
    if foreign := [ticket_id for ticket_id, owner in owners.items() if owner != batch_id]:
        raise ValueError(f"ticket {foreign[0]} belongs to batch {owners[foreign[0]]}")
    fresh = [ticket for ticket_id, ticket in tickets.items() if ticket_id not in owners]
    if fresh and row.sealed:
        raise BatchSealed(f"batch {batch_id} is sealed: {counted(len(fresh), 'new ticket')} refused")
    ontologies.note_use(c, [ticket.payload for ticket in fresh], project)
    masklets.add(c, batch_id, [ticket.masklet for ticket in fresh if ticket.masklet is not None], now)
    rows = [row_of(ticket, batch_id, now, row.total + i, policy, project) for i, ticket in enumerate(fresh)]
    if rows:
        c.execute(insert(schema.tickets), rows)
    c.execute(update(b).where(b.c.batch_id == batch_id).values(sealed=bool(row.sealed or sealed)))
    decided = [new for new in rows if new["settled"] is not None]
    count(c, batch_id, now, more=len(rows), less=len(decided) - len(rows))
    tallies.add(c, [*tallies.tickets_added(rows), *tallies.tickets_done(decided)])
    return read(c, batch_id)


def _owners(c: Connection, ticket_ids: Sequence[str]) -> dict[str, str]:
    """The batch of each of these tickets; tickets that do not exist are left out."""
    t = schema.tickets
    query = select(t.c.ticket_id, t.c.batch_id)
    owners: dict[str, str] = {}
    for start in range(0, len(ticket_ids), _IDS_AT_ONCE):
        some = ticket_ids[start : start + _IDS_AT_ONCE]
        owners |= {ticket_id: owner for ticket_id, owner in c.execute(query.where(t.c.ticket_id.in_(some)))}
    return owners


def count(c: Connection, batch_id: str, now: float, *, more: int, less: int) -> bool:
    """Add to a batch's total and subtract from its remaining tickets. Returns whether the batch is drained."""
    batch = c.execute(_COUNT, {"of_batch": batch_id, "more": more, "less": less}).one()
    if batch.remaining == 0:
        _mark_drained(c, batch_id, now)
    return bool(batch.sealed and batch.remaining == 0)


def _mark_drained(c: Connection, batch_id: str, now: float) -> None:
    """Write the outbox row. The batch's row is locked, so exactly one transaction writes it."""
    b = schema.batches
    drained = c.execute(
        update(b)
        .where(b.c.batch_id == batch_id, b.c.sealed.is_(True), b.c.remaining == 0, b.c.drained_at.is_(None))
        .values(drained_at=now)
    )
    if drained.rowcount:
        c.execute(insert(schema.outbox).values(batch_id=batch_id, created_at=now, not_before=now, attempts=0))
