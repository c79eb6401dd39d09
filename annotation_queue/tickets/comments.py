"""Comments: what people write to each other about a ticket. Append-only; a thread goes on in the tickets that follow.

Who works on a ticket sees what was written on it and on the tickets before it, but not what comes after: gold leads
nowhere. On a verify ticket, verifiers do not see each other's comments, as they do not see each other's verdicts.
Overseers see the whole thread.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, select

from annotation_queue import schema
from annotation_queue.database import Database, insert_new
from annotation_queue.errors import NoSuchTicket, NotAllowed
from annotation_queue.records import Comment, Kind, NewComment, Person, Role
from annotation_queue.rules import OVERSEERS
from annotation_queue.tickets import leases, sight

MOST = 500  # comments on one ticket
LEADS = frozenset({Role.LEAD, Role.ADMIN})  # whose comments everybody sees who may see the ticket


def read(database: Database, ticket_id: str, seen_by: Person) -> list[Comment]:
    """The comments that a person sees at a ticket, the oldest first. Raises NoSuchTicket."""
    with database.read() as c:
        line = _line(c, ticket_id)
        m = schema.comments
        query = select(m).where(m.c.thread_id == _thread_of(line)).order_by(m.c.received_at, m.c.comment_id)
        rows = list(c.execute(query))
    if seen_by.roles & OVERSEERS:
        return [_to_comment(row) for row in rows]
    known = {row.ticket_id for row in line}
    apart = ticket_id if line[0].kind == Kind.VERIFY.value else None  # where each verifier sees their own alone
    return [
        _to_comment(row)
        for row in rows
        if row.ticket_id in known and (row.ticket_id != apart or row.as_lead or row.person == seen_by.name)
    ]


def check_may_write(database: Database, ticket_id: str, by: Person) -> None:
    """Raises NotAllowed or NoSuchTicket unless a person holds or held the ticket, or oversees its project.

    Having held it is enough: a comment that was written before a lease ended may arrive later.
    """
    with database.read() as c:
        if by.roles & OVERSEERS:
            sight.check_tickets(c, by, [ticket_id])
        elif not leases.has_held(c, ticket_id, by):
            raise NotAllowed(f"{by.name} never held ticket {ticket_id}")


def add(database: Database, ticket_id: str, by: Person, new: NewComment, now: float) -> Comment:
    """Store a comment that was checked, of a person who may write; the same comment_id again gives the stored one.

    Raises NoSuchTicket; ValueError if the ticket has MOST comments, or another ticket this comment.
    """
    with database.write() as c:
        m = schema.comments
        stored = select(m).where(m.c.comment_id == new.comment_id)
        row = c.execute(stored).first()
        if row is None:
            thread_id = _thread_of(_line(c, ticket_id))
            on_ticket = (m.c.thread_id == thread_id) & (m.c.ticket_id == ticket_id)
            if (c.scalar(select(func.count()).where(on_ticket)) or 0) >= MOST:
                raise ValueError(f"a ticket has at most {MOST} comments")
            about = {"thread_id": thread_id, "ticket_id": ticket_id, "received_at": now}
            insert_new(c, m, about | _written(by, new))
            row = c.execute(stored).one()
        if row.ticket_id != ticket_id or row.person != by.name:
            raise ValueError(f"comment {new.comment_id} belongs to another ticket or person")
        return _to_comment(row)


def _written(by: Person, new: NewComment) -> dict[str, Any]:
    """The columns of a new comment that come from its author."""
    return {
        "comment_id": new.comment_id,
        "person": by.name,
        "as_lead": bool(by.roles & LEADS),
        "frame_idx": new.frame_idx,
        "x": new.x,
        "y": new.y,
        "text": new.text.strip(),
        "created_at": new.created_at,
    }


def _line(c: Connection, ticket_id: str) -> list[Row[Any]]:
    """A ticket and those before it, the latest first. It is as long as the object's attempts. Raises NoSuchTicket."""
    t = schema.tickets
    line: list[Row[Any]] = []
    before: str | None = ticket_id
    while before is not None:
        row = c.execute(select(t).where(t.c.ticket_id == before)).first()
        if row is None:  # gold names a ticket that never was
            break
        line.append(row)
        before = row.previous_ticket_id
    if not line:
        raise NoSuchTicket(f"no ticket {ticket_id}")
    return line


def _thread_of(line: list[Row[Any]]) -> str:
    """The id of the thread: of the first ticket, or of the object if several people begin with it at once."""
    first = line[-1]
    return str(first.object_id or first.ticket_id)


def _to_comment(row: Row[Any]) -> Comment:
    return Comment(
        comment_id=row.comment_id,
        ticket_id=row.ticket_id,
        person=row.person,
        text=row.text,
        created_at=row.created_at,
        frame_idx=row.frame_idx,
        x=row.x,
        y=row.y,
    )
