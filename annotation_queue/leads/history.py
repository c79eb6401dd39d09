"""What happened to a ticket, for leads: leases, the log, what leads did, the tickets around it. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from annotation_queue import schema
from annotation_queue.draft import Version
from annotation_queue.errors import NoSuchTicket
from annotation_queue.leads.browsing import Card, to_card
from annotation_queue.records import AuditEntry, Reason
from annotation_queue.tickets.rows import to_operation, to_reasons
from annotation_queue.versions import versions_of
from storage.records import Operation, Verdict

MOST_TICKETS = 50  # of one object that are shown


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A lease, past or present. Times are in s since the epoch, on the server's clock."""

    token: int
    person: str
    claimed_at: float
    finished_at: float | None  # None: it ended without an answer, or has not ended
    verdict: Verdict | None  # None: a masklet, or no answer
    reasons: tuple[Reason, ...]
    seconds: float | None
    watched: float | None  # share of the frames with the object that were on screen
    ended_by: str | None  # the lead who took the ticket back


@dataclass(frozen=True, kw_only=True)
class Logged:
    """An operation, and how it came."""

    operation: Operation
    received_at: float  # s since the epoch, on the server's clock
    token: int  # of the lease under which it was sent
    branch: bool  # the lease was over: it counts nowhere
    closed: str | None  # what became of a branch: "applied" or "dismissed"; None: nothing yet


@dataclass(frozen=True, kw_only=True)
class History:
    """A ticket with all that is known of it."""

    card: Card
    line: tuple[Card, ...]  # the tickets of the same object, each led to by the one before; this one is among them
    leases: tuple[Lease, ...]  # in order
    operations: tuple[Logged, ...]  # in order
    versions: tuple[Version, ...]  # the masks that the operations made
    acts: tuple[AuditEntry, ...]  # what leads did to it, in order


def read(c: Connection, ticket_id: str) -> History:
    """The history of a ticket. Raises NoSuchTicket."""
    row = _row(c, ticket_id)
    if row is None:
        raise NoSuchTicket(f"no ticket {ticket_id}")
    le, o, a = schema.leases, schema.operations, schema.audit
    leases = c.execute(select(le).where(le.c.ticket_id == ticket_id).order_by(le.c.token))
    log = c.execute(select(o).where(o.c.ticket_id == ticket_id).order_by(o.c.seq))
    acts = c.execute(select(a).where(a.c.subject == ticket_id).order_by(a.c.audit_id))
    return History(
        card=to_card(row),
        line=tuple(map(to_card, _line(c, row))),
        leases=tuple(map(_to_lease, leases)),
        operations=tuple(map(_to_logged, log)),
        versions=tuple(versions_of(c, ticket_id).values()),
        acts=tuple(AuditEntry(**each._mapping) for each in acts),
    )


def _row(c: Connection, ticket_id: str | None) -> Row[Any] | None:
    return c.execute(select(schema.tickets).where(schema.tickets.c.ticket_id == ticket_id)).first()


def _line(c: Connection, row: Row[Any]) -> list[Row[Any]]:
    """The tickets from which a ticket followed, the ticket itself, and those that followed; at most MOST_TICKETS.

    The ids of a gold ticket's neighbours are made up, so no ticket is found for them.
    """
    line = [row]
    while len(line) < MOST_TICKETS and (before := _row(c, line[0].previous_ticket_id)) is not None:
        line.insert(0, before)
    while len(line) < MOST_TICKETS and (after := _row(c, line[-1].next_ticket_id)) is not None:
        line.append(after)
    return line


def _to_lease(row: Row[Any]) -> Lease:
    return Lease(
        token=row.token,
        person=row.person,
        claimed_at=row.claimed_at,
        finished_at=row.finished_at,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        reasons=to_reasons(row.reasons),
        seconds=row.seconds,
        watched=row.watched,
        ended_by=row.ended_by,
    )


def _to_logged(row: Row[Any]) -> Logged:
    return Logged(
        operation=to_operation(row),
        received_at=row.received_at,
        token=row.lease_token,
        branch=bool(row.branch),
        closed=row.closed,
    )
