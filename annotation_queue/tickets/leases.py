"""Leases: who holds a ticket, under which fencing token, until when.

Every lease, also an ended one, is a row of `leases`; the current one is also in the ticket's row. Works inside the
transactions of `TicketStore`. The statements are built once, because building one takes longer than running it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from annotation_queue import schema
from annotation_queue.errors import LeaseLost, NoSuchTicket, NotAllowed, TakenBack
from annotation_queue.labels import Label
from annotation_queue.records import Person, State, Submission, Ticket
from annotation_queue.tickets.rows import to_ticket

_LOCK_TICKET = select(schema.tickets).where(schema.tickets.c.ticket_id == bindparam("ticket_id")).with_for_update()
_GIVEN = select(schema.leases).where(
    schema.leases.c.person == bindparam("person"), schema.leases.c.claim_id == bindparam("claim_id")
)
_HELD_ONCE = (  # one statement and one lock, on the ticket only
    select(schema.tickets)
    .join(schema.leases, schema.leases.c.ticket_id == schema.tickets.c.ticket_id)
    .where(
        schema.leases.c.ticket_id == bindparam("ticket_id"),
        schema.leases.c.token == bindparam("token"),
        schema.leases.c.person == bindparam("person"),
    )
)
_HAS_HELD = (
    select(schema.leases.c.token)
    .where(schema.leases.c.ticket_id == bindparam("ticket_id"), schema.leases.c.person == bindparam("person"))
    .limit(1)
)
_LOCK_HELD_ONCE = _HELD_ONCE.with_for_update(of=schema.tickets)
_END = update(schema.leases).where(
    schema.leases.c.ticket_id == bindparam("of_ticket"), schema.leases.c.token == bindparam("of_token")
)
_ENDED_BY = select(schema.leases.c.ended_by).where(
    schema.leases.c.ticket_id == bindparam("ticket_id"), schema.leases.c.token == bindparam("token")
)
_EXPIRED = select(schema.tickets.c.ticket_id).where(
    schema.IS_LEASED, schema.tickets.c.expires_at < bindparam("claim_now")
)
_OPEN_AGAIN = {"state": State.OPEN.value, "leased_by": None, "expires_at": None}
_RETURN_EXPIRED = (
    update(schema.tickets)
    .where(schema.tickets.c.ticket_id.in_(_EXPIRED.with_for_update(skip_locked=True)))
    .values(_OPEN_AGAIN)
)


@dataclass(frozen=True, kw_only=True)
class NewLease:
    """A lease that a person asks for. Times are in s since the epoch, on the server's clock."""

    person: Person
    claim_id: str  # made by the client; the same id again gives the same ticket while the lease lasts
    now: float
    until: float  # when the lease expires


def holds(ticket: Ticket, token: int, person: Person) -> bool:
    """Whether the ticket is leased to this person under this token now."""
    return ticket.state is State.LEASED and ticket.lease_token == token and ticket.leased_by == person.name


def check_held(c: Connection, ticket: Ticket, token: int, person: Person) -> None:
    """Raises LeaseLost unless the ticket is leased to this person under this token now."""
    if not holds(ticket, token, person):
        raise lost(c, ticket.ticket_id, token)


def lost(c: Connection, ticket_id: str, token: int) -> LeaseLost:
    """The error that says how a lease ended: somebody took the ticket back, or it is over."""
    by = c.scalar(_ENDED_BY, {"ticket_id": ticket_id, "token": token})
    if by is None:
        return LeaseLost()
    return TakenBack(f"{by} took this ticket back. What was sent later is kept beside the ticket.")


def end_early(c: Connection, ticket_id: str, token: int, by: Person) -> None:
    """Record who took a ticket back from the holder of this lease."""
    c.execute(_END.values(ended_by=by.name), {"of_ticket": ticket_id, "of_token": token})


def find_ticket(c: Connection, ticket_id: str) -> Row[Any] | None:
    """The row of a ticket, locked until the transaction ends, or None."""
    return c.execute(_LOCK_TICKET, {"ticket_id": ticket_id}).first()


def lock_ticket(c: Connection, ticket_id: str) -> Row[Any]:
    """The row of a ticket, locked until the transaction ends. Raises NoSuchTicket."""
    row = find_ticket(c, ticket_id)
    if row is None:
        raise NoSuchTicket(f"no ticket {ticket_id}")
    return row


def held_once(c: Connection, ticket_id: str, token: int, person: Person, *, lock: bool = True) -> Row[Any]:
    """The ticket's row, if this person holds or held it under this token.

    Otherwise NotAllowed, even if the ticket does not exist. The ticket after a gold ticket never exists, and a
    different error would reveal the gold.
    """
    key = {"ticket_id": ticket_id, "token": token, "person": person.name}
    row = c.execute(_LOCK_HELD_ONCE if lock else _HELD_ONCE, key).first()
    if row is None:
        raise NotAllowed(f"{person.name} never held ticket {ticket_id} under token {token}")
    return row


def has_held(c: Connection, ticket_id: str, person: Person) -> bool:
    """Whether this person holds or held the ticket."""
    return c.execute(_HAS_HELD, {"ticket_id": ticket_id, "person": person.name}).first() is not None


def given(c: Connection, person: Person, claim_id: str) -> Ticket | None:
    """The ticket that an earlier call with this claim_id leased, or None. Raises LeaseLost if that lease ended."""
    lease = c.execute(_GIVEN, {"person": person.name, "claim_id": claim_id}).first()
    if lease is None:
        return None
    ticket = to_ticket(lock_ticket(c, lease.ticket_id))
    if not holds(ticket, lease.token, person):
        by = lost(c, lease.ticket_id, lease.token)
        raise by if isinstance(by, TakenBack) else LeaseLost(f"the lease of claim {claim_id} has ended")
    return ticket


def note(c: Connection, row: Row[Any], new: NewLease) -> None:
    """Record the lease that a ticket's row has just got."""
    lease = {"ticket_id": row.ticket_id, "token": row.lease_token, "claimed_at": new.now}
    c.execute(insert(schema.leases), lease | {"person": new.person.name, "claim_id": new.claim_id})


def end(c: Connection, ticket_id: str, token: int, submission: Submission, label: Label, now: float) -> None:
    """Record the answer with which a lease ended. label: of the object."""
    answer = {"verdict": submission.verdict, "reasons": ",".join(submission.reasons), "seconds": submission.seconds}
    answer |= {"watched": submission.watched, "label": label.name, "attributes": label.attributes}
    answer["masklet_id"] = None if submission.masklet is None else submission.masklet.masklet_id
    c.execute(_END, answer | {"of_ticket": ticket_id, "of_token": token, "finished_at": now})


def clear_answer(c: Connection, ticket_id: str, token: int) -> None:
    """Remove the answer with which a lease ended."""
    columns = ("finished_at", "verdict", "reasons", "seconds", "masklet_id", "watched", "label", "attributes")
    c.execute(_END.values(dict.fromkeys(columns)), {"of_ticket": ticket_id, "of_token": token})


def extend(c: Connection, ticket_id: str, until: float) -> Ticket:
    """Set the time when a lease expires."""
    query = update(schema.tickets).where(schema.tickets.c.ticket_id == ticket_id).values(expires_at=until)
    return to_ticket(c.execute(query.returning(schema.tickets)).one())


def open_again(c: Connection, ticket_id: str, **also: Any) -> Row[Any]:
    """Return a ticket to the queue: it is open again. also: other columns to set. Returns its row."""
    back = update(schema.tickets).where(schema.tickets.c.ticket_id == ticket_id).values(_OPEN_AGAIN | also)
    return c.execute(back.returning(schema.tickets)).one()


def return_expired(c: Connection, now: float) -> None:
    """Return every ticket with an expired lease to the queue. Skips tickets that another transaction has locked."""
    c.execute(_RETURN_EXPIRED, {"claim_now": now})
