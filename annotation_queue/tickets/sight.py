"""What people see of projects: conditions on rows, so that nobody gets a row of a project they do not belong to.

A person without `projects` belongs to all of them, and no condition is added: then a query costs what it did.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, exists, select

from annotation_queue import schema
from annotation_queue.errors import NoSuchTicket
from annotation_queue.records import Person

Seen = Person | frozenset[str] | None  # a person, or projects; None: all projects


def within(seen: Seen, column: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """The condition that the project in this column is one of these; none for all projects."""
    projects = seen.projects if isinstance(seen, Person) else seen
    return [] if projects is None else [column.in_(sorted(projects))]


def of_tickets(seen: Seen, column: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """The same for a column with the id of a ticket."""
    t = schema.tickets
    mine = within(seen, t.c.project)
    return [exists().where(t.c.ticket_id == column, *mine)] if mine else []


def of_batches(seen: Seen, column: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """The same for a column with the id of a batch."""
    b = schema.batches
    mine = within(seen, b.c.project)
    return [column.in_(select(b.c.batch_id).where(*mine))] if mine else []


def check_tickets(c: Connection, person: Person, ticket_ids: Iterable[str]) -> None:
    """Raises NoSuchTicket for a ticket of a project that the person does not belong to."""
    t = schema.tickets
    if mine := within(person, t.c.project):
        for ticket_id in dict.fromkeys(ticket_ids):
            if c.scalar(select(t.c.ticket_id).where(t.c.ticket_id == ticket_id, *mine)) is None:
                raise NoSuchTicket(f"no ticket {ticket_id}")
