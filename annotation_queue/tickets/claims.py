"""Who gets which ticket: the one statement of a claim, and the conditions that it is made of.

A person's own reserved tickets come first (rework, gold), then the best of their lanes by priority and age. Knows the
tables and runs nothing. The statements are built once, as building one takes longer than running it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
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

from annotation_queue import schema
from annotation_queue.records import Kind, State
from annotation_queue.rules import GOLD_LANE

_EXPIRED = select(schema.tickets.c.ticket_id).where(
    schema.IS_LEASED, schema.tickets.c.expires_at < bindparam("claim_now")
)
RETURN_EXPIRED = (
    update(schema.tickets)
    .where(schema.tickets.c.ticket_id.in_(_EXPIRED.with_for_update(skip_locked=True)))
    .values(state=State.OPEN.value, leased_by=None, expires_at=None)
)


def not_barred(person: ColumnElement[str], kind: Kind, *, lead: bool) -> list[ColumnElement[bool]]:
    """Of the tickets of a kind, those that are not kept from this person for what they did before."""
    t, le = schema.tickets, schema.leases.alias()
    # Counted, and the person not by the bare column: else either database may read all that the person ever finished
    by_them = (func.coalesce(le.c.person, le.c.person) == person) & le.c.finished_at.is_not(None)
    answers = select(func.count()).where(by_them)
    if kind is Kind.TRACK:
        same = schema.tickets.alias()
        made = answers.where(le.c.ticket_id == same.c.ticket_id, same.c.object_id == t.c.object_id)
        return [t.c.object_id.is_(None) | (made.scalar_subquery() == 0)]
    if kind is not Kind.VERIFY:
        return []
    voted = answers.where(le.c.ticket_id == t.c.ticket_id)
    barred: list[ColumnElement[bool]] = [
        t.c.made_by.is_(None) | (t.c.made_by != person),
        (t.c.overlap == 1) | (voted.scalar_subquery() == 0),
    ]
    if not lead:
        barred.append(t.c.sent_back_by.is_(None) | (t.c.sent_back_by != person))
    return barred


def _parts(
    kind: Kind, lanes: tuple[str, ...], lead: bool, one_ticket: bool, one_batch: bool, only_gold: bool
) -> list[tuple[int, list[ColumnElement[bool]]]]:
    """What a person may be handed of a kind, in parts that an index serves each, with the rank of each part."""
    t = schema.tickets
    person: ColumnElement[str] = bindparam("claim_person", type_=String)
    base = [schema.IS_OPEN, t.c.kind == bindparam("claim_kind", type_=String), *not_barred(person, kind, lead=lead)]
    if one_ticket:
        base.append(t.c.ticket_id == bindparam("claim_ticket", type_=String))
    if one_batch:
        base.append(t.c.batch_id == bindparam("claim_batch", type_=String))
    parts = [(0, [t.c.reserved_for == person, *([t.c.lane == GOLD_LANE] if only_gold else [])])]
    if one_ticket and lead:
        parts.append((1, [t.c.lane != GOLD_LANE]))
    elif not only_gold:
        free = t.c.reserved_for.is_(None) | (t.c.reserved_until < bindparam("claim_now", type_=Float))
        parts += [(1, [t.c.lane == lane, free]) for lane in lanes]
    return [(rank, [*base, *conditions]) for rank, conditions in parts]


@lru_cache(maxsize=1024)
def claiming(
    kind: Kind, lanes: tuple[str, ...], lead: bool, one_ticket: bool, one_batch: bool, only_gold: bool
) -> ReturningUpdate[Any]:
    """The statement that leases the best ticket of a kind to a person; each part of it reads an entry of an index."""
    t = schema.tickets
    best = []
    for rank, conditions in _parts(kind, lanes, lead, one_ticket, one_batch, only_gold):
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
def waiting(
    kind: Kind, lanes: tuple[str, ...], lead: bool, one_ticket: bool, one_batch: bool, only_gold: bool
) -> Select[Any]:
    """Whether there is a ticket that `claiming` would lease, locked or not.

    A claim locks the best ticket of each part and takes one of them: what another claim skips may be free in a moment.
    """
    parts = _parts(kind, lanes, lead, one_ticket, one_batch, only_gold)
    return select(or_(*(exists().where(*conditions) for _, conditions in parts)))
