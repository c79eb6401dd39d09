"""Work that came after its lease was lost: its owner sees it, applies it to the ticket again, or dismisses it.

It stays in the log as a branch, whatever becomes of it. Works inside the transactions of `TicketStore`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from annotation_queue import schema
from annotation_queue.records import Person
from annotation_queue.tickets.rows import to_operation
from storage.records import Operation

APPLIED, DISMISSED = "applied", "dismissed"  # what became of a branch: the column `closed`
MOST = 500  # operations that are shown at once


def kept(c: Connection, person: Person) -> list[Operation]:
    """A person's branches of which nothing has become yet, by ticket, each in the order of its acts; at most MOST."""
    o = schema.operations
    mine = select(o).where(o.c.person == person.name, schema.IS_KEPT).order_by(o.c.ticket_id, o.c.seq)
    return [to_operation(row) for row in c.execute(mine.limit(MOST))]


def close(c: Connection, person: Person, operation_ids: Sequence[str], *, applied: bool) -> int:
    """Note what became of a person's branches; leaves those of others, and closed ones. Returns how many were open."""
    o = schema.operations
    mine = update(o).where(o.c.operation_id.in_(operation_ids), o.c.person == person.name, schema.IS_KEPT)
    return c.execute(mine.values(closed=APPLIED if applied else DISMISSED)).rowcount


def is_about(c: Connection, person: Person, video_id: str) -> bool:
    """Whether a person has an open branch on this video, and so may see it."""
    o = schema.operations
    mine = select(o.c.operation_id).where(o.c.person == person.name, schema.IS_KEPT, o.c.video_id == video_id)
    return c.execute(mine.limit(1)).first() is not None
