"""What leads see and do of all tickets: a list with filters, a ticket's history, acts on many tickets, kept work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from annotation_queue.api.asking import Id, InProject, Manager, Overseer
from annotation_queue.api.backend import Backend, Queue
from annotation_queue.api.sent import Sent
from annotation_queue.api.tickets import Closed, CloseKept
from annotation_queue.errors import NotAllowed
from annotation_queue.leads.acts import MOST_PRIORITY, Act, Action
from annotation_queue.leads.browsing import CardPage, Order, Wanted
from annotation_queue.leads.history import History
from annotation_queue.leads.overseeing import ActResult, Overseeing
from annotation_queue.records import Kind, Person, Reason, State
from annotation_queue.rules import ID_LENGTH, ID_PATTERN, MAX_FRAME_IDX
from storage.records import Operation, Verdict

router = APIRouter(tags=["leads"])

MOST_TICKETS = 500  # of one act
AnId = Annotated[str, Field(pattern=ID_PATTERN, max_length=ID_LENGTH)]
Text = Annotated[str | None, Query(max_length=ID_LENGTH)]
Share = Annotated[float | None, Query(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class ActBody:
    """An act on tickets; the same act_id again gives the same results. See `leads/acts.py` for what each needs."""

    act_id: AnId
    action: Action
    ticket_ids: Annotated[tuple[AnId, ...], Field(min_length=1, max_length=MOST_TICKETS)]
    to: Annotated[str, Field(max_length=ID_LENGTH)] | None = None  # the person of an assignment
    priority: Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] | None = None
    kind: Kind | None = None  # of the ticket that a reopened one gets
    frame_idx: Annotated[int, Field(ge=0, le=MAX_FRAME_IDX)] | None = None  # that a reopened one points to


def overseeing(queue: Queue) -> Overseeing:
    """The queue as its leads work with it."""
    return Overseeing(queue.tickets)


def wanted(
    who: InProject,
    text: Text = None,
    state: State | None = None,
    kind: Kind | None = None,
    person: Text = None,
    batch_id: Text = None,
    verdict: Verdict | None = None,
    reason: Reason | None = None,
    checkpoint: Text = None,
    label: Text = None,
    score_from: Share = None,
    score_to: Share = None,
    agreement_from: Share = None,
    agreement_to: Share = None,
    order: Order = Order.NEWEST,
) -> Wanted:
    """The filters of the list, from the query. A lead gets only tickets of their projects."""
    return Wanted(
        text=text,
        state=state,
        kind=kind,
        person=person,
        batch_id=batch_id,
        verdict=verdict,
        reason=reason,
        checkpoint=checkpoint,
        label=label,
        score_from=score_from,
        score_to=score_to,
        agreement_from=agreement_from,
        agreement_to=agreement_to,
        projects=who.projects,
        order=order,
    )


All = Annotated[Overseeing, Depends(overseeing)]


@router.get("/api/cards")
def cards(
    _: Overseer,
    every: All,
    filters: Annotated[Wanted, Depends(wanted)],
    after: Annotated[str | None, Query(max_length=2 * ID_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 60,
) -> CardPage:
    """The tickets that pass the filters, page by page."""
    return every.page(filters, after=after, limit=limit)


@router.get("/api/tickets/{ticket_id}/history")
def history(ticket_id: Id, who: Overseer, every: All) -> History:
    """A ticket with its leases, its whole log, what leads did to it, and the tickets around it."""
    return every.history(ticket_id, seen_by=who)


@router.post("/api/acts")
def act(body: Sent[ActBody], who: Manager, queue: Queue, every: All) -> list[ActResult]:
    """Does something to many tickets: a result for each. The refusal of one does not stop the others."""
    assignee = None if body.to is None else _assignee(queue, body.to, who)
    wished = Act(
        act_id=body.act_id,
        action=body.action,
        by=who,
        to=assignee,
        priority=body.priority,
        kind=body.kind,
        frame_idx=body.frame_idx,
    )
    return every.act(wished, body.ticket_ids)


def _assignee(queue: Backend, name: str, by: Person) -> Person:
    found = next((account for account in queue.accounts.seen_by(by) if account.name == name), None)
    if found is None:
        raise ValueError(f"there is no person {name}")
    if found.disabled:
        raise NotAllowed(f"{name} is disabled: nothing can be assigned to them")
    person = Person(name=name, roles=frozenset(found.roles), skills=frozenset(found.skills))
    return queue.accounts.projects.of(person)


@router.get("/api/kept")
def kept(who: Manager, every: All) -> list[Operation]:
    """The kept work of all people: operations that came after their lease had ended."""
    return every.kept(seen_by=who)


@router.post("/api/kept/close")
def close_kept(body: Sent[CloseKept], who: Manager, every: All) -> Closed:
    """Notes that a lead applied such operations of any person, or dismissed them. They stay in the log."""
    return Closed(closed=every.close_kept(who, body.operation_ids, applied=body.applied))
