"""A person's work on tickets: claim, keep the lease, record operations, finish, take back; and reading tickets.

A ticket, its masklet and its operations are shown to the person who holds or finished it, and to overseers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from annotation_queue.api.asking import Id, Manager, Overseer, SeenTicket, Somebody
from annotation_queue.api.backend import Queue
from annotation_queue.api.sent import Sent
from annotation_queue.errors import NotAllowed
from annotation_queue.records import (
    AppendResult,
    FinishResult,
    Kind,
    NewOperation,
    OtherMasklet,
    State,
    Submission,
    Ticket,
)
from annotation_queue.rules import ID_LENGTH, ID_PATTERN, MAX_OPERATIONS, OVERSEERS
from storage.records import Masklet, Operation

router = APIRouter(tags=["tickets"])


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Which ticket is wanted; the same claim_id again gives the same ticket."""

    claim_id: str
    kinds: Annotated[tuple[Kind, ...], Field(max_length=len(Kind))] | None = (
        None  # in order of preference; None: every kind that the roles permit
    )
    ticket_id: str | None = None
    batch_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class LeaseBody:
    """The lease that a request relies on."""

    token: int


@dataclass(frozen=True, kw_only=True)
class OperationsBody(LeaseBody):
    """Operations, in order, under a lease."""

    operations: Annotated[tuple[NewOperation, ...], Field(max_length=MAX_OPERATIONS)]


@dataclass(frozen=True, kw_only=True)
class Finish(LeaseBody):
    """How a ticket is finished, under a lease."""

    outcome: Submission


@dataclass(frozen=True, kw_only=True)
class NewObject(LeaseBody):
    """Another object in the video of a ticket that is held; the same claim_id again gives the same ticket."""

    claim_id: str  # made by the client


@dataclass(frozen=True, kw_only=True)
class TakeBack:
    """The operation that takes a finished ticket back; the same operation_id again gives the same ticket."""

    operation_id: str  # made by the client
    created_at: str  # ISO 8601, UTC, on the client's clock


# --- reading -----------------------------------------------------------------------------------------------------


@router.get("/api/tickets")
def tickets(
    who: Somebody,
    queue: Queue,
    kind: Kind | None = None,
    state: State | None = None,
    batch_id: Annotated[str | None, Query(pattern=ID_PATTERN, max_length=ID_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> list[Ticket]:
    """The tickets that this person may see, in the order in which they are handed out."""
    return queue.tickets.find(kind=kind, state=state, batch_id=batch_id, limit=limit, seen_by=who)


@router.get("/api/tickets/{ticket_id}")
def ticket(found: SeenTicket) -> Ticket:
    """A ticket in its current state."""
    return found


@router.get("/api/tickets/{ticket_id}/masklet", response_model=Masklet)
def masklet(found: SeenTicket, queue: Queue) -> Response:
    """The masklet that the ticket is about."""
    return Response(queue.tickets.masklet_json(found.ticket_id), media_type="application/json")


@router.get("/api/tickets/{ticket_id}/operations")
def operations(found: SeenTicket, who: Somebody, queue: Queue, branch: bool = False) -> list[Operation]:
    """What was done in a ticket. branch: what was sent after its lease was lost, instead; for overseers."""
    oversees = bool(who.roles & OVERSEERS)
    if branch and not oversees:
        raise NotAllowed("only overseers may see operations that came after a lease was lost")
    done = queue.tickets.operations(found.ticket_id, branch=branch)
    if oversees:
        return done
    if found.kind is Kind.VERIFY and found.state is not State.DONE:
        done = [o for o in done if o.person == who.name]  # one verifier's verdict must not influence another's
    return [_without_masklet(o) for o in done]


@router.get("/api/tickets/{ticket_id}/others")
def others(found: SeenTicket, who: Somebody, queue: Queue) -> list[OtherMasklet]:
    """The other masklets of the same video."""
    return queue.tickets.others(found.ticket_id, seen_by=who)


@router.get("/api/branches")
def branches(_: Overseer, queue: Queue, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Operation]:
    """Operations that were sent after a lease was lost, over all tickets."""
    return queue.tickets.branches(limit)


# --- working -----------------------------------------------------------------------------------------------------


@router.post("/api/tickets/claim", responses={204: {"description": "There is no ticket for you."}})
def claim(body: Sent[Claim], who: Somebody, queue: Queue) -> Ticket:
    """Leases the next ticket to this person."""
    found = queue.tickets.claim(
        who, body.kinds, claim_id=body.claim_id, ticket_id=body.ticket_id, batch_id=body.batch_id
    )
    return found if found is not None else Response(status_code=204)  # type: ignore[return-value]  # no body


@router.post("/api/tickets/{ticket_id}/objects")
def new_object(ticket_id: Id, body: Sent[NewObject], who: Somebody, queue: Queue) -> Ticket:
    """Opens a ticket for another object in the same video."""
    return queue.tickets.new_object(ticket_id, body.token, who, claim_id=body.claim_id)


@router.post("/api/tickets/{ticket_id}/heartbeat")
def heartbeat(ticket_id: Id, body: Sent[LeaseBody], who: Somebody, queue: Queue) -> Ticket:
    """Renews the lease."""
    return queue.tickets.heartbeat(ticket_id, body.token, who)


@router.post("/api/tickets/{ticket_id}/release")
def release(ticket_id: Id, body: Sent[LeaseBody], who: Somebody, queue: Queue) -> Ticket:
    """Gives the ticket back."""
    return queue.tickets.release(ticket_id, body.token, who)


@router.post("/api/tickets/{ticket_id}/end-lease")
def end_lease(ticket_id: Id, body: Sent[LeaseBody], who: Manager, queue: Queue) -> Ticket:
    """Ends another person's lease; for leads and admins."""
    return queue.tickets.end_lease(ticket_id, body.token, by=who)


@router.post("/api/tickets/{ticket_id}/operations")
def append_operations(ticket_id: Id, body: Sent[OperationsBody], who: Somebody, queue: Queue) -> AppendResult:
    """Stores operations; those that are stored already are skipped."""
    return queue.tickets.append_operations(ticket_id, body.token, who, body.operations)


@router.post("/api/tickets/{ticket_id}/finish")
def finish(ticket_id: Id, body: Sent[Finish], who: Somebody, queue: Queue) -> FinishResult:
    """Finishes the ticket with a verdict or with a masklet."""
    return queue.tickets.finish(ticket_id, body.token, who, body.outcome, video_of=queue.media.info)


@router.post("/api/tickets/{ticket_id}/unsubmit")
def unsubmit(ticket_id: Id, body: Sent[TakeBack], who: Somebody, queue: Queue) -> Ticket:
    """Takes a finished ticket back, under a new lease."""
    return queue.tickets.unsubmit(ticket_id, who, operation_id=body.operation_id, created_at=body.created_at)


def _without_masklet(operation: Operation) -> Operation:
    """The operation without the masklet in its payload. Only operations in gold tickets carry one, so it would tell."""
    payload = json.loads(operation.payload)
    if "masklet" not in payload:
        return operation
    return replace(operation, payload=json.dumps({key: value for key, value in payload.items() if key != "masklet"}))
