"""The people of the tests, and what they do with tickets: claim, finish, prompt, take back."""

from __future__ import annotations

import uuid

from sqlalchemy import event

from annotation_queue.records import Kind, NewOperation, Person, QueuePolicy, Role, Submission
from annotation_queue.tickets.store import TicketStore
from storage.records import Verdict
from tests.annotation_queue.synthetic_queue import PEOPLE, candidate, corrected, verify_tickets

ANN, VERA, VICTOR, LEA = (Person(name=name, roles=frozenset(PEOPLE[name])) for name in ("ann", "vera", "victor", "lea"))
ANDY = Person(name="andy", roles=frozenset({Role.ANNOTATOR}))
AMY = Person(name="amy", roles=frozenset({Role.ANNOTATOR}))
VALERIE = Person(name="valerie", roles=frozenset({Role.VERIFIER}))


def new_id():
    return uuid.uuid4().hex


def claim(tickets, person, *kinds, **only):
    return tickets.claim(person, kinds or None, claim_id=new_id(), **only)


def outcome(verdict=None, *reasons, masklet=None, operation_id=None):
    return Submission(
        operation_id=operation_id or new_id(),
        created_at="2026-01-01T00:00:00.000+00:00",
        verdict=verdict,
        reasons=reasons,
        masklet=masklet,
        frame_idx=8,
        seconds=2.5,
    )


def prompt(operation_id=None, frame_idx=4):
    return NewOperation(
        operation_id=operation_id or new_id(),
        kind="prompt",
        created_at="2026-01-01T00:00:00.000+00:00",
        frame_idx=frame_idx,
        payload='{"points_xy": [[10.5, 20.0]], "labels": [1]}',
    )


def finish(tickets, person, verdict=None, *reasons, masklet=None, kind=None):
    """Claim the next ticket and finish it."""
    ticket = claim(tickets, person, *([kind] if kind else []))
    assert ticket is not None
    return tickets.finish(ticket.ticket_id, ticket.lease_token, person, outcome(verdict, *reasons, masklet=masklet))


def to_track(tickets):
    """A track ticket that Ann holds."""
    finish(tickets, VERA, Verdict.REFINE)
    ticket = claim(tickets, ANN)
    assert ticket is not None and ticket.kind is Kind.TRACK
    return ticket


def plans_of_claims(tickets):
    """A list that fills with the query plans of the claims to come, line by line."""
    plans = []

    def explain(connection, cursor, statement, parameters, context, many):
        if statement.startswith("UPDATE tickets") and "lease_token=" in statement and "RETURNING" in statement:
            prefix = "EXPLAIN QUERY PLAN " if tickets.database.is_sqlite else "EXPLAIN "
            plans.extend(str(row) for row in connection.exec_driver_sql(prefix + statement, parameters))

    event.listen(tickets.database.engine, "before_cursor_execute", explain)
    return plans


def with_policy(tickets, **changes):
    """Another process with this policy, on the same database."""
    other = TicketStore(tickets.database, policy=QueuePolicy(**changes))
    other.clock = tickets.clock
    return other


def make(tickets, person, track, masklet_id):
    made = corrected(candidate(masklet_id, track.video_id, 8), masklet_id)
    result = tickets.finish(track.ticket_id, track.lease_token, person, outcome(masklet=made))
    return tickets.ticket(result.next_ticket_id)


def take_back(tickets, ticket_id, person, operation_id=None):
    return tickets.unsubmit(ticket_id, person, operation_id=operation_id or new_id(), created_at="")


def sent_back_twice(tickets):
    """The id of a track ticket about a masklet that Ann made and Victor sent back."""
    tickets.open_batch("b", verify_tickets(1))
    verify = make(tickets, ANN, to_track(tickets), "first")
    held = claim(tickets, VICTOR)
    assert held.ticket_id == verify.ticket_id
    done = tickets.finish(held.ticket_id, held.lease_token, VICTOR, outcome(Verdict.REFINE))
    return done.next_ticket_id
