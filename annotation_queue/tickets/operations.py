"""Operations: the append-only log of what people did in each ticket. Works inside the transactions of `TicketStore`.

A branch is an operation that arrived after its lease was lost. It is stored but does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from sqlalchemy import Connection, Row, bindparam, func, insert, select

from annotation_queue import schema
from annotation_queue.records import NewOperation, Person, Ticket
from annotation_queue.rules import FULL, SHORT
from annotation_queue.tickets import sight
from annotation_queue.tickets.rows import to_operation
from storage.records import Operation

SHOWN = 8 << 20  # characters of the payloads in a list of branches

_KNOWN = select(schema.operations.c.operation_id, schema.operations.c.ticket_id, schema.operations.c.branch).where(
    schema.operations.c.operation_id.in_(bindparam("ids", expanding=True))
)
_SIZE = select(func.sum(func.length(schema.operations.c.payload))).where(
    schema.operations.c.ticket_id == bindparam("ticket_id")
)
_LAST = select(func.max(schema.operations.c.seq)).where(schema.operations.c.ticket_id == bindparam("ticket_id"))


@dataclass(frozen=True, kw_only=True)
class Sender:
    """The person who sends operations, and the lease under which they send them."""

    person: Person
    token: int
    now: float  # s since the epoch, on the server's clock
    branch: bool = False  # the lease was lost before the operations arrived


def known(c: Connection, ticket: Ticket, ids: Sequence[str]) -> dict[str, bool]:
    """The stored operations among `ids`, each with whether it is a branch. ValueError if another ticket has one."""
    rows = c.execute(_KNOWN, {"ids": ids}).all()
    for row in rows:
        if row.ticket_id != ticket.ticket_id:
            raise ValueError(f"operation {row.operation_id} belongs to another ticket")
    return {row.operation_id: bool(row.branch) for row in rows}


def last_seq(c: Connection, ticket_id: str) -> int:
    """The `seq` of a ticket's last operation; 0 without operations."""
    return int(c.scalar(_LAST, {"ticket_id": ticket_id}) or 0)


def append(c: Connection, ticket: Ticket, sender: Sender, operations: Sequence[NewOperation]) -> int:
    """Store new operations of a ticket in their order. Returns the `seq` of the ticket's last operation.

    Raises ValueError for long payloads if the ticket is full: everything of a ticket is read at once.
    """
    seq = last_seq(c, ticket.ticket_id)
    if not operations:
        return seq
    if sum(len(each.payload) for each in operations) > SHORT:
        size = c.scalar(_SIZE, {"ticket_id": ticket.ticket_id}) or 0
        if size > FULL:
            raise ValueError(f"the operations of a ticket take at most {FULL} characters; this ticket has {size}")
    about = {
        "ticket_id": ticket.ticket_id,
        "batch_id": ticket.batch_id,
        "video_id": ticket.video_id,
        "masklet_id": ticket.masklet_id or "",
        "person": sender.person.name,
        "lease_token": sender.token,
        "received_at": sender.now,
        "branch": sender.branch,
    }
    rows = [
        about
        | {
            "operation_id": operation.operation_id,
            "seq": seq + i,
            "kind": operation.kind,
            "frame_idx": operation.frame_idx,
            "payload": operation.payload,
            "created_at": operation.created_at,
        }
        for i, operation in enumerate(operations, start=1)
    ]
    c.execute(insert(schema.operations), rows)
    return seq + len(rows)


def of_ticket(c: Connection, ticket_id: str, *, branch: bool = False) -> list[Operation]:
    """The operations of a ticket, in order; with `branch`, its branches instead."""
    o = schema.operations
    query = select(o).where(o.c.ticket_id == ticket_id, o.c.branch.is_(branch)).order_by(o.c.seq)
    return [to_operation(row) for row in c.execute(query)]


def branches(c: Connection, limit: int, seen_by: Person | None = None) -> list[Operation]:
    """The branches of all tickets, the latest first: at most `limit`, and fewer if they are long.

    seen_by: only of tickets of this person's projects.
    """
    o = schema.operations
    query = select(o.c.operation_id, func.length(o.c.payload)).where(o.c.branch.is_(True))
    query = query.where(*sight.of_tickets(seen_by, o.c.ticket_id))
    return up_to_shown(c, c.execute(query.order_by(o.c.received_at.desc(), o.c.seq.desc()).limit(limit)))


def up_to_shown(c: Connection, found: Iterable[Row[str, int]]) -> list[Operation]:
    """The first of these operations: at most SHOWN characters, but at least one. found: ids and sizes of payloads."""
    o = schema.operations
    listed = list(found)
    sizes = accumulate(size for _, size in listed)
    shown = [listed[n].operation_id for n, size in enumerate(sizes) if size <= SHOWN or n == 0]
    rows = {row.operation_id: row for row in c.execute(select(o).where(o.c.operation_id.in_(shown)))}
    return [to_operation(rows[operation_id]) for operation_id in shown]
