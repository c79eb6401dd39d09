"""Taking back an answer undoes everything that it led to. It is possible until another person claims the next ticket.

Works inside the transactions of `TicketStore`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from annotation_queue import audit, schema
from annotation_queue.errors import NotAllowed, TooLate
from annotation_queue.labels import Label
from annotation_queue.records import NewOperation, Person, State, Ticket
from annotation_queue.rules import why_not
from annotation_queue.tickets import (
    batches,
    closing,
    gold,
    leases,
    masklets,
    ontologies,
    operations,
    outcomes,
    reading,
    tallies,
)
from annotation_queue.tickets.outcomes import Measures
from annotation_queue.tickets.rows import MASKLET, to_ticket
from annotation_queue.tickets.tallies import Tally
from storage.records import Verdict

# Columns of a ticket that an answer sets.
_OF_ANSWER = (
    *("verdict", "finished_by", "finished_at", "seconds", "next_ticket_id", "settled", "right", "score", "agreement"),
)


def take_back(c: Connection, ticket_id: str, lease: leases.NewLease, created_at: str, measured: Measured) -> Ticket:
    """Take back a person's answer, and lease the ticket to them again. See `TicketStore.unsubmit`.

    lease: its `claim_id` is the id of the operation that records the take-back.
    """
    person, operation_id, now = lease.person, lease.claim_id, lease.now
    row = leases.find_ticket(c, ticket_id)
    again = leases.given(c, person, operation_id)
    if again is not None:
        if again.ticket_id != ticket_id:
            raise ValueError(f"{operation_id} took back another ticket")
        return again
    mine = next((answer for answer in reading.recent(c, person) if answer.ticket_id == ticket_id), None)
    if row is None or mine is None:
        raise NotAllowed(f"ticket {ticket_id} is not among the last {reading.RECENT} that {person.name} finished")
    ticket = to_ticket(row)
    if refusal := why_not(person, ticket):  # their roles may have changed
        raise NotAllowed(refusal)
    if operations.known(c, ticket, [operation_id]):
        raise ValueError(f"operation_id {operation_id} is already used by another operation")
    if ticket.state is State.LEASED:
        raise TooLate("another person holds this ticket now")
    if row.assigned_by is not None and row.reserved_for != person.name:
        raise TooLate("a lead has given this ticket to another person")
    if measured.token != mine.token:
        raise TooLate("this ticket was answered again in the meantime")
    if row.gold_id is not None and gold.is_removed(c, row.gold_id):
        raise TooLate("its video was withdrawn")
    lost, made = ([], None) if row.gold_id is not None else _undo(c, row, mine, measured.measures, now)
    leases.clear_answer(c, ticket_id, mine.token)
    back = _lease_again(c, ticket_id, lease, ontologies.before_answer(c, row))
    leases.note(c, back, lease)
    answer = {"verdict": mine.verdict} | ({} if made is None else {"masklet": json.loads(made)})
    operation = NewOperation(
        operation_id=operation_id, kind="unsubmit", created_at=created_at, payload=json.dumps(answer, sort_keys=True)
    )
    operations.append(c, ticket, operations.Sender(person=person, token=back.lease_token, now=now), [operation])
    audit.note(c, now, person.name, "unsubmit", ticket_id, {"verdict": mine.verdict})
    tallies.add(c, lost)
    return to_ticket(back)


@dataclass(frozen=True)
class Measured:
    """An answer that was measured again, to be taken back."""

    token: int  # of the lease that ended with it; 0: the person has no such answer
    measures: Measures


def measure_again(c: Connection, ticket_id: str, person: Person) -> Measured:
    """Measure a person's answer before the transaction that takes it back; only reads. See `outcomes.Measures`."""
    row = c.execute(select(schema.tickets).where(schema.tickets.c.ticket_id == ticket_id)).first()
    mine = next((answer for answer in reading.recent(c, person) if answer.ticket_id == ticket_id), None)
    if row is None or mine is None:
        return Measured(0, Measures())
    text = masklets.content(c, row.batch_id, mine.masklet_id)
    made = None if text is None else MASKLET.validate_json(text)
    verdict = None if mine.verdict is None else Verdict(mine.verdict)
    all_made = outcomes.made_of(c, row, outcomes.answers_of(c, row))
    return Measured(mine.token, outcomes.measure(c, row, person.name, verdict, made, all_made))


def _lease_again(c: Connection, ticket_id: str, lease: leases.NewLease, label: Label) -> Row[Any]:
    """Give a ticket to the person again, as it came to them. label: that it came with."""
    t = schema.tickets
    held = {"state": State.LEASED.value, "leased_by": lease.person.name, "expires_at": lease.until}
    cleared: dict[str, Any] = dict.fromkeys(_OF_ANSWER)
    cleared |= {"label": label.name, "attributes": label.attributes}
    values = cleared | held | {"reasons": "", "lease_token": t.c.lease_token + 1}
    return c.execute(update(t).where(t.c.ticket_id == ticket_id).values(values).returning(t)).one()


def _undo(
    c: Connection, row: Row[Any], mine: Row[Any], measures: Measures, now: float
) -> tuple[list[Tally], str | None]:
    """Undo what `outcomes.submit` did with an answer, each step by the same functions and in reverse.

    Returns the negative sums for the tallies, and the masklet that was made, as JSON. Raises TooLate.
    """
    if row.state == State.OPEN.value:  # the ticket still waits for other verdicts
        return tallies.negative(tallies.answer_given(row, mine)), None
    follower = None
    if row.next_ticket_id is not None:
        follower = leases.lock_ticket(c, row.next_ticket_id)
        if follower.state != State.OPEN.value or follower.lease_token:
            raise TooLate()
        if follower.reopened_by is not None or follower.assigned_by is not None:
            raise TooLate("a lead has decided who works on it next")
        if follower.priority != row.priority:  # it was opened with the same one
            raise TooLate("a lead has given another priority to the ticket that follows")
    batch = batches.lock(c, row.batch_id)
    assert batch is not None
    if closing.is_closed(c, batch, row.video_id):
        raise TooLate("every ticket of its video is decided, and the result was delivered")
    made = masklets.content(c, row.batch_id, mine.masklet_id)
    masklet = None if made is None else MASKLET.validate_json(made)
    sums = outcomes.sums_of(row, outcomes.answers_of(c, row), mine, masklet, measures)
    sums += tallies.tickets_done([row._asdict()])
    sums += tallies.tickets_added([] if follower is None else [follower._asdict()])
    if mine.masklet_id is not None:
        masklets.remove(c, row.batch_id, mine.masklet_id)
    if follower is not None:
        c.execute(delete(schema.tickets).where(schema.tickets.c.ticket_id == follower.ticket_id))
    opened = 0 if follower is None else 1
    batches.count(c, row.batch_id, now, more=-opened, less=opened - 1)
    return tallies.negative(sums), made
