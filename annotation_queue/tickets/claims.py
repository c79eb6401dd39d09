"""Who gets which ticket: the statement of a claim and its conditions.

Tickets that are reserved for the person (rework, gold) come first, then the best of their lanes by priority and age.
A person of several projects gets tickets of each in turn, as long as it has any, so no project waits for another.
Works inside the transactions of `TicketStore`. The statements are built once, because building one takes longer than
running it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Row,
    Select,
    String,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from annotation_queue import projects, schema
from annotation_queue.errors import NotAllowed
from annotation_queue.records import Kind, Person, QueuePolicy, Role, State
from annotation_queue.rules import GOLD_LANE, HANDED_OUT, kinds_of, lanes_of, why_not
from annotation_queue.tickets import gold, leases, sight
from annotation_queue.tickets.rows import to_ticket


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asks for in a claim."""

    person: Person  # with the project that they asked for alone, if they asked for one
    whole: Person  # with all their projects: the gold of each counts for their warm-up
    kinds: tuple[Kind, ...]  # that their roles permit, in order of preference
    claim_id: str
    ticket_id: str | None  # only this ticket
    batch_id: str | None  # only tickets of this batch


def asked(
    person: Person,
    kinds: Sequence[Kind] | None,
    *,
    claim_id: str,
    ticket_id: str | None = None,
    batch_id: str | None = None,
    project: str | None = None,
) -> Request:
    """What a person asks for, of the kinds that their roles permit. See `TicketStore.claim`. Raises NotAllowed."""
    allowed = kinds_of(person.roles)
    wanted = tuple(kind for kind in (HANDED_OUT if kinds is None else kinds) if kind in allowed)
    if not wanted:
        raise NotAllowed(f"{person.name} has no role for {', '.join(kinds) if kinds else 'any'} tickets")
    return Request(
        person=projects.within(person, project),
        whole=person,
        kinds=wanted,
        claim_id=claim_id,
        ticket_id=ticket_id,
        batch_id=batch_id,
    )


class How(NamedTuple):
    """What the statement of a claim depends on."""

    kind: Kind
    lanes: tuple[str, ...]  # from which tickets come that are reserved for nobody
    lead: bool
    one_ticket: bool
    one_batch: bool
    limited: bool  # the person does not belong to all projects
    only_gold: bool


def claim(
    c: Connection, policy: QueuePolicy, request: Request, now: float, until: float
) -> tuple[Row[Any] | None, bool]:
    """Lease a ticket until `until`. Returns its row or None, and whether the caller should retry soon.

    A retry helps if other claims have locked every suitable ticket at this moment. Raises NotAllowed, NoSuchTicket.
    """
    person, ticket_id, dealt, only_gold = request.person, request.ticket_id, list[Kind](), False
    if ticket_id is None:
        only_gold, dealt = gold.deal(c, policy, person, request.whole, request.kinds, request.batch_id, now)
    else:
        gold.check_trained(c, policy, request.whole)
    lead = Role.LEAD in person.roles
    turns = [tuple(lanes_of(person, project)) for project in _in_turn(c, person)]
    rest = (lead, ticket_id is not None, request.batch_id is not None, person.projects is not None)
    # dealt gold comes before all else that is reserved for the person: there may be much of it
    kinds = [(kind, only_gold) for kind in (*dealt, *(kind for kind in request.kinds if kind not in dealt))]
    kinds = list(dict.fromkeys([*((kind, True) for kind in dealt), *kinds]))
    tries = [How(kind, lanes, *rest, just_gold) for kind, just_gold in kinds for lanes in turns]
    values: dict[str, Any] = {"claim_ticket": ticket_id, "claim_batch": request.batch_id}
    values |= {"claim_person": person.name, "claim_now": now, "claim_until": until}
    values |= {} if person.projects is None else {"claim_projects": sorted(person.projects)}
    may_have_it = ticket_id is None or lead or not _led_to(c, person, ticket_id)
    if may_have_it:
        for how in tries:
            row = c.execute(claiming(how), values | {"claim_kind": how.kind.value}).first()
            if row is not None:
                leases.note(c, row, leases.NewLease(person=person, claim_id=request.claim_id, now=now, until=until))
                return row, False
        if c.dialect.name != "sqlite" and any(
            c.scalar(waiting(how), values | {"claim_kind": how.kind.value}) for how in tries
        ):
            return None, True
    if ticket_id is not None:
        _refuse(c, person, ticket_id)
    return None, False


def _in_turn(c: Connection, person: Person) -> list[str]:
    """The person's projects in the order in which a claim tries them: those after their last answer's project first."""
    if person.projects is None:
        b = schema.batches
        named = select(b.c.project).where(b.c.project != "", b.c.drained_at.is_(None)).distinct()
        names = ["", *sorted(c.scalars(named))]
    else:
        names = sorted(person.projects)
    if len(names) == 1:
        return names
    t, le = schema.tickets, schema.leases
    answers = select(t.c.project).join(le, le.c.ticket_id == t.c.ticket_id)
    answers = answers.where(le.c.person == person.name, schema.HAS_FINISHED).order_by(le.c.finished_at.desc())
    last = c.scalar(answers.limit(1))
    return sorted(names, key=lambda project: (last is not None and project <= last, project))


def _led_to(c: Connection, person: Person, ticket_id: str) -> bool:
    """Whether this person's own answer led to a ticket. They may not claim it.

    A gold ticket leads to no other ticket. If a person could claim what a real ticket led to, this would reveal gold.
    """
    t, le = schema.tickets, schema.leases
    mine = select(le.c.ticket_id).where(le.c.person == person.name, schema.HAS_FINISHED)
    query = select(t.c.ticket_id).where(t.c.ticket_id.in_(mine), t.c.next_ticket_id == ticket_id)
    return c.execute(query.limit(1)).first() is not None


def _refuse(c: Connection, person: Person, ticket_id: str) -> None:
    """Raise NotAllowed if a person may not have the ticket that they asked for; return if another person holds it.

    A lead learns the reason. Others get one message, whether the ticket exists or not, so that ids cannot be guessed.
    """
    if Role.LEAD not in person.roles:
        raise NotAllowed(f"{person.name} cannot have ticket {ticket_id}")
    row = leases.lock_ticket(c, ticket_id)
    sight.check_tickets(c, person, [ticket_id])
    if refusal := why_not(person, to_ticket(row)):
        raise NotAllowed(refusal)
    if row.assigned_by is not None and row.reserved_for != person.name:
        raise NotAllowed(f"{row.assigned_by} assigned this ticket to {row.reserved_for}: take it back first")


def not_barred(person: ColumnElement[str], kind: Kind, *, lead: bool) -> list[ColumnElement[bool]]:
    """Conditions on tickets of a kind that exclude those a person may not get because of their earlier work."""
    t, le = schema.tickets, schema.leases.alias()
    # count() and coalesce(): with a plain EXISTS, both databases choose a slow plan that reads every ticket which the
    # person ever finished.
    by_them = (func.coalesce(le.c.person, le.c.person) == person) & le.c.finished_at.is_not(None)
    answers = select(func.count()).where(by_them)
    if kind is Kind.TRACK:
        same = schema.tickets.alias()
        made = answers.where(le.c.ticket_id == same.c.ticket_id, same.c.object_id == t.c.object_id)
        return [t.c.object_id.is_(None) | (made.scalar_subquery() == 0)]
    if kind is not Kind.VERIFY:
        return []
    voted = answers.where(le.c.ticket_id == t.c.ticket_id)
    conditions: list[ColumnElement[bool]] = [
        t.c.made_by.is_(None) | (t.c.made_by != person),
        (t.c.overlap == 1) | (voted.scalar_subquery() == 0),
    ]
    if not lead:
        conditions.append(t.c.sent_back_by.is_(None) | (t.c.sent_back_by != person))
    return conditions


def _parts(how: How) -> list[tuple[int, list[ColumnElement[bool]]]]:
    """Conditions for the tickets of a kind that a person may get, in parts. One index serves each part. With ranks."""
    t = schema.tickets
    person: ColumnElement[str] = bindparam("claim_person", type_=String)
    base = [schema.IS_OPEN, t.c.kind == bindparam("claim_kind", type_=String)]
    base += not_barred(person, how.kind, lead=how.lead)
    if how.one_ticket:
        base.append(t.c.ticket_id == bindparam("claim_ticket", type_=String))
    if how.one_batch:
        base.append(t.c.batch_id == bindparam("claim_batch", type_=String))
    mine: list[ColumnElement[bool]] = []  # a lane is of one project already
    if how.limited:  # coalesce(): no index of projects is better than those of the parts
        mine.append(func.coalesce(t.c.project, "").in_(bindparam("claim_projects", type_=String, expanding=True)))
    parts = [(0, [t.c.reserved_for == person, *mine, *([t.c.lane == GOLD_LANE] if how.only_gold else [])])]
    if how.one_ticket and how.lead:
        parts.append((1, [t.c.lane != GOLD_LANE, t.c.assigned_by.is_(None), *mine]))
    elif not how.only_gold:
        free = t.c.reserved_for.is_(None) | (t.c.reserved_until < bindparam("claim_now", type_=Float))
        parts += [(1, [t.c.lane == lane, free]) for lane in how.lanes]
    return [(rank, [*base, *conditions]) for rank, conditions in parts]


@lru_cache(maxsize=1024)
def claiming(how: How) -> ReturningUpdate[Any]:
    """The statement that leases the best ticket of a kind to a person. Each part of it reads one entry of an index."""
    t = schema.tickets
    best = []
    for rank, conditions in _parts(how):
        first = (
            select(literal(rank).label("rank"), t.c.ticket_id, t.c.priority, t.c.created_at, t.c.ordinal)
            .where(*conditions)
            .order_by(t.c.priority.desc(), t.c.created_at, t.c.ordinal)
            .limit(1)
            .with_for_update(skip_locked=True)
            .subquery()
        )
        best.append(select(first))
    ready = union_all(*best).subquery()
    order = (ready.c.rank, ready.c.priority.desc(), ready.c.created_at, ready.c.ordinal)
    chosen = select(ready.c.ticket_id).order_by(*order).limit(1).scalar_subquery()
    return (
        update(t)
        .where(t.c.ticket_id == chosen)
        .values(
            state=State.LEASED.value,
            leased_by=bindparam("claim_person", type_=String),
            lease_token=t.c.lease_token + 1,
            expires_at=bindparam("claim_until", type_=Float),
        )
        .returning(t)
    )


@lru_cache(maxsize=1024)
def waiting(how: How) -> Select[Any]:
    """A query: does a ticket exist that `claiming` would lease if it were not locked?

    A claim locks the best ticket of each part and leases one of them. The others are free again a moment later.
    """
    parts = _parts(how)
    return select(or_(*(exists().where(*conditions) for _, conditions in parts)))
