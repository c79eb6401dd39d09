"""A person's work on tickets: claim, keep the lease, record operations, finish, take back; and reading tickets.

A ticket, its masklet and its operations are shown to the person who holds or finished it, and to overseers. Only
overseers see all of them: see `tickets/shown.py`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
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
from annotation_queue.rules import ID_LENGTH, ID_PATTERN, MAX_OPERATIONS
from annotation_queue.tickets import shown
from annotation_queue.tickets.kept import MOST
from storage import log_ids
from storage.records import Masklet, Operation

log = logging.getLogger(__name__)

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
    project: str | None = None  # only tickets of this project of theirs; None: of all


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


@dataclass(frozen=True, kw_only=True)
class CloseKept:
    """What became of operations that were sent after a lease was lost."""

    operation_ids: Annotated[tuple[str, ...], Field(max_length=MOST)]
    applied: bool  # they were done again in the ticket; False: dismissed


@dataclass(frozen=True, kw_only=True)
class Closed:
    """How many of them were open."""

    closed: int


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
    """For overseers every ticket, in the order in which they are handed out; for others the tickets that they hold."""
    if batch_id is not None and not shown.sees_all(who):
        raise NotAllowed("only overseers may ask for the tickets of one batch")
    found = queue.tickets.find(kind=kind, state=state, batch_id=batch_id, limit=limit, seen_by=who)
    return [shown.ticket(each, who) for each in found]


@router.get("/api/tickets/{ticket_id}")
def ticket(found: SeenTicket, who: Somebody, queue: Queue) -> Ticket:
    """A ticket in its current state; for a person who has answered it, with their answer."""
    holds = found.state is State.LEASED and found.leased_by == who.name
    return shown.ticket(found, who, None if holds else queue.tickets.own_answer(found.ticket_id, who))


@router.get("/api/tickets/{ticket_id}/masklet", response_model=Masklet)
def masklet(found: SeenTicket, who: Somebody, queue: Queue) -> Response:
    """The masklet that the ticket is about."""
    content = shown.masklet_json(queue.tickets.masklet_json(found.ticket_id), who)
    return Response(content, media_type="application/json")


@router.get("/api/tickets/{ticket_id}/before", response_model=Masklet)
def before(found: SeenTicket, who: Somebody, queue: Queue) -> Response:
    """The masklet that the ticket's masklet corrects: for a verifier, to compare the two."""
    content = shown.masklet_json(queue.tickets.masklet_json(found.ticket_id, before=True), who)
    return Response(content, media_type="application/json")


@router.get("/api/tickets/{ticket_id}/operations")
def operations(found: SeenTicket, who: Somebody, queue: Queue, branch: bool = False) -> list[Operation]:
    """What was done in a ticket. branch: what was sent after its lease was lost, instead; for overseers."""
    if branch and not shown.sees_all(who):
        raise NotAllowed("only overseers may see operations that came after a lease was lost")
    done = queue.tickets.operations(found.ticket_id, branch=branch)
    return shown.operations(done, who, only_own=found.kind is Kind.VERIFY)


@router.get("/api/tickets/{ticket_id}/others")
def others(found: SeenTicket, who: Somebody, queue: Queue) -> list[OtherMasklet]:
    """The other masklets of the same video."""
    return shown.others(queue.tickets.others(found.ticket_id, seen_by=who), who)


@router.get("/api/branches")
def branches(who: Overseer, queue: Queue, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Operation]:
    """Operations that were sent after a lease was lost, over all tickets."""
    return queue.tickets.branches(limit, seen_by=who)


@router.get("/api/me/kept")
def kept(who: Somebody, queue: Queue) -> list[Operation]:
    """What this person sent after a lease was lost, and neither applied again nor dismissed."""
    return shown.kept(queue.tickets.kept(who), who)


@router.post("/api/me/kept/close")
def close_kept(body: Sent[CloseKept], who: Somebody, queue: Queue) -> Closed:
    """Notes that this person applied such operations again, or dismissed them. They stay in the log."""
    return Closed(closed=queue.tickets.close_kept(who, body.operation_ids, applied=body.applied))


# --- working -----------------------------------------------------------------------------------------------------


@router.post("/api/tickets/claim", responses={204: {"description": "There is no ticket for you."}})
def claim(body: Sent[Claim], who: Somebody, queue: Queue) -> Ticket:
    """Leases the next ticket to this person."""
    found = queue.tickets.claim(
        who,
        body.kinds,
        claim_id=body.claim_id,
        ticket_id=body.ticket_id,
        batch_id=body.batch_id,
        project=body.project,
    )
    if found is None:
        return Response(status_code=204)  # type: ignore[return-value]  # no body
    return shown.ticket(found, who)


@router.post("/api/tickets/{ticket_id}/objects")
def new_object(ticket_id: Id, body: Sent[NewObject], who: Somebody, queue: Queue) -> Ticket:
    """Opens a ticket for another object in the same video."""
    return shown.ticket(queue.tickets.new_object(ticket_id, body.token, who, claim_id=body.claim_id), who)


@router.post("/api/tickets/{ticket_id}/heartbeat")
def heartbeat(ticket_id: Id, body: Sent[LeaseBody], who: Somebody, queue: Queue) -> Ticket:
    """Renews the lease."""
    return shown.ticket(queue.tickets.heartbeat(ticket_id, body.token, who), who)


@router.post("/api/tickets/{ticket_id}/release")
def release(ticket_id: Id, body: Sent[LeaseBody], who: Somebody, queue: Queue) -> Ticket:
    """Gives the ticket back."""
    return shown.ticket(queue.tickets.release(ticket_id, body.token, who), who)


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
    said = body.outcome
    answer = shown.OwnAnswer(token=body.token, verdict=said.verdict, reasons=said.reasons)
    done = queue.tickets.finish(ticket_id, body.token, who, said, video_of=queue.media.info)
    with log_ids.about(ticket_id=ticket_id, batch_id=done.ticket.batch_id, video_id=done.ticket.video_id):
        log.info("finished: %s", said.verdict or "a masklet")
    return shown.finished(done, who, answer)


@router.post("/api/tickets/{ticket_id}/unsubmit")
def unsubmit(ticket_id: Id, body: Sent[TakeBack], who: Somebody, queue: Queue) -> Ticket:
    """Takes a finished ticket back, under a new lease."""
    back = queue.tickets.unsubmit(ticket_id, who, operation_id=body.operation_id, created_at=body.created_at)
    return shown.ticket(back, who)
