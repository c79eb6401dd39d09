"""Work that came after its lease was lost: its owner or a lead sees it, applies it to the ticket again or dismisses it.

It stays in the log as a branch, whatever becomes of it. Works inside the transactions of `TicketStore`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import Connection, func, select, update

from annotation_queue import audit, schema
from annotation_queue.records import Person
from annotation_queue.tickets import operations, sight
from storage.records import Operation

APPLIED, DISMISSED = "applied", "dismissed"  # what became of a branch: the column `closed`
MOST = 500  # operations that are shown at once


def kept(c: Connection, person: Person | None, seen_by: Person | None = None) -> list[Operation]:
    """A person's branches of which nothing has become yet, the oldest first: at most MOST, and fewer if they are long.

    Those of one ticket are in the order of its acts. person: None for the branches of everybody. seen_by: only in
    tickets of this person's projects.
    """
    o = schema.operations
    found = select(o.c.operation_id, func.length(o.c.payload)).where(
        schema.IS_KEPT, *sight.of_tickets(seen_by, o.c.ticket_id)
    )
    if person is not None:
        found = found.where(o.c.person == person.name)
    return operations.up_to_shown(c, c.execute(found.order_by(o.c.received_at, o.c.ticket_id, o.c.seq).limit(MOST)))


def close(c: Connection, person: Person, operation_ids: Sequence[str], *, applied: bool) -> int:
    """Note what became of a person's branches; leaves those of others, and closed ones. Returns how many were open."""
    o = schema.operations
    mine = update(o).where(o.c.operation_id.in_(operation_ids), o.c.person == person.name, schema.IS_KEPT)
    return c.execute(mine.values(closed=APPLIED if applied else DISMISSED)).rowcount


def close_any(c: Connection, by: Person, operation_ids: Sequence[str], *, applied: bool, now: float) -> int:
    """As `close`, by a lead and for branches of anybody. One line of the audit for each ticket and person."""
    o = schema.operations
    which = (o.c.operation_id.in_(operation_ids), schema.IS_KEPT, *sight.of_tickets(by, o.c.ticket_id))
    found = select(o.c.ticket_id, o.c.person).where(*which)
    counts = Counter((row.ticket_id, row.person) for row in c.execute(found.with_for_update()))
    for (ticket_id, person), count in sorted(counts.items()):
        action = "apply kept work" if applied else "dismiss kept work"
        audit.note(c, now, by.name, action, ticket_id, {"person": person, "operations": count})
    return c.execute(update(o).where(*which).values(closed=APPLIED if applied else DISMISSED)).rowcount


def is_about(c: Connection, person: Person, video_id: str) -> bool:
    """Whether a person has an open branch on this video, and so may see it."""
    o = schema.operations
    mine = select(o.c.operation_id).where(o.c.person == person.name, schema.IS_KEPT, o.c.video_id == video_id)
    mine = mine.where(*sight.of_tickets(person, o.c.ticket_id))
    return c.execute(mine.limit(1)).first() is not None
