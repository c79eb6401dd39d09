"""The list of tickets that leads look through: filtered, in a fixed order, page by page. Changes nothing.

A page begins behind the last ticket of the page before. One index leads to the tickets that the most selective filter
lets through, in the order of the list; the other filters are applied to what it gives. A page looks at LOOKED tickets
at most: if few of them pass the other filters, it is short and says where to go on. So its cost depends neither on the
number of tickets nor on the filters. Only the order by score or agreement within one batch reads all of its tickets,
which are few. Tickets of other projects are left out by the query itself: neither the place where to go on nor the
number of tickets that were looked at tells of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select, tuple_, union_all

from annotation_queue import schema
from annotation_queue.records import Kind, Reason, State, Ticket
from annotation_queue.tickets import cursors, sight
from annotation_queue.tickets.rows import to_reasons, to_ticket
from storage.records import Verdict

LOOKED = 1000  # tickets that one page looks at


class Order(StrEnum):
    """The orders of the list."""

    NEWEST = "newest"
    SCORE = "score"  # the lowest first; tickets without a score are left out
    AGREEMENT = "agreement"  # the lowest first; only tickets with several answers


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which tickets a lead wants to see; None: any."""

    text: str | None = None  # the id of a ticket or of a video
    state: State | None = None
    kind: Kind | None = None
    person: str | None = None  # holds it, has it assigned, or decided it
    batch_id: str | None = None
    verdict: Verdict | None = None
    reason: Reason | None = None
    checkpoint: str | None = None
    label: str | None = None
    score_from: float | None = None
    score_to: float | None = None
    agreement_from: float | None = None
    agreement_to: float | None = None
    projects: frozenset[str] | None = None  # only their tickets
    order: Order = Order.NEWEST


@dataclass(frozen=True, kw_only=True)
class Card:
    """A ticket in the list."""

    ticket: Ticket
    created_at: float  # s since the epoch, as the next one
    finished_at: float | None
    seconds: float | None  # that the deciding answer took, by the client's clock
    settled: Verdict | None  # None: not decided, or another ticket followed
    score: float | None  # mean of the model's scores of the masklet, 0 to 1
    agreement: float | None  # of several answers, 0 to 1
    assigned_to: str | None  # of a ticket that is not done: only this person gets it
    assigned_by: str | None
    reopened_by: str | None
    gold: bool


@dataclass(frozen=True, kw_only=True)
class CardPage:
    """A part of the list; ask again with `after=next` until it is None."""

    cards: tuple[Card, ...]
    looked: int  # tickets that were looked at
    next: str | None


def page(c: Connection, wanted: Wanted, after: str | None, limit: int) -> CardPage:
    """Up to `limit` tickets behind the place `after`. ValueError for an invalid place."""
    place = None if after is None else cursors.place(after)
    parts = list(_parts(c, wanted))
    if not parts:
        return CardPage(cards=(), looked=0, next=None)
    most = LOOKED if _rest(wanted) else limit + 1
    rows = _first(c, wanted, parts, place, most)
    found: list[Row[Any]] = []
    for looked, row in enumerate(rows, start=1):
        if _passes(row, wanted):
            found.append(row)
        if len(found) == limit and looked < len(rows):
            return CardPage(cards=tuple(map(to_card, found)), looked=looked, next=_after(row, wanted.order))
    more = _after(rows[-1], wanted.order) if len(rows) == most else None
    return CardPage(cards=tuple(map(to_card, found)), looked=len(rows), next=more)


def to_card(row: Row[Any]) -> Card:
    """A row of `tickets`."""
    is_assigned = row.assigned_by is not None and row.state != State.DONE.value
    return Card(
        ticket=to_ticket(row),
        created_at=row.created_at,
        finished_at=row.finished_at,
        seconds=row.seconds,
        settled=None if row.settled is None else Verdict(row.settled),
        score=row.mean_score,
        agreement=row.agreement,
        assigned_to=row.reserved_for if is_assigned else None,
        assigned_by=row.assigned_by if is_assigned else None,
        reopened_by=row.reopened_by,
        gold=row.gold_id is not None,
    )


# --- the order -----------------------------------------------------------------------------------------------------

_KEYS = {
    Order.NEWEST: schema.tickets.c.created_at,
    Order.SCORE: schema.tickets.c.mean_score,
    Order.AGREEMENT: schema.tickets.c.agreement,
}


def _first(
    c: Connection, wanted: Wanted, parts: list[ColumnElement[bool]], place: tuple[float, str] | None, most: int
) -> list[Row[Any]]:
    """The first tickets behind a place that meet one of these conditions; each part reads one stretch of an index."""
    t, key = schema.tickets, _KEYS[wanted.order]
    down = wanted.order is Order.NEWEST
    # coalesce(): an index of projects is worse than those of the parts, which have the order of the list
    behind = sight.within(wanted.projects, func.coalesce(t.c.project, ""))
    if place is not None:
        here, there = tuple_(key, t.c.ticket_id), tuple_(*place)
        behind.append(here < there if down else here > there)
    ranked = (key.desc(), t.c.ticket_id.desc()) if down else (key, t.c.ticket_id)
    some = [select(t).where(part, *behind).order_by(*ranked).limit(most) for part in parts]
    if len(some) == 1:
        return list(c.execute(some[0]))
    every = union_all(*(select(each.subquery()) for each in some)).subquery()
    column = every.c[key.name]
    ends = (column.desc(), every.c.ticket_id.desc()) if down else (column, every.c.ticket_id)
    return list(c.execute(select(every).order_by(*ends).limit(most)))


def _after(row: Row[Any], order: Order) -> str:
    return cursors.cursor(row._mapping[_KEYS[order].name], row.ticket_id)


# --- the filters ---------------------------------------------------------------------------------------------------


def _parts(c: Connection, wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    """Conditions of which each ticket that is wanted meets one, each served by one index in the order of the list."""
    t = schema.tickets
    if wanted.text is not None:
        has_key = _KEYS[wanted.order].is_not(None)
        yield and_(t.c.ticket_id == wanted.text, has_key)
        yield and_(t.c.video_id == wanted.text, t.c.ticket_id != wanted.text, has_key)
    elif wanted.order is Order.SCORE:
        bounds = _between(t.c.mean_score, wanted.score_from, wanted.score_to)
        yield and_(schema.HAS_SCORE, *bounds, *_of_batch(wanted))
    elif wanted.order is Order.AGREEMENT:
        bounds = _between(t.c.agreement, wanted.agreement_from, wanted.agreement_to)
        yield and_(schema.HAS_AGREEMENT, *bounds, *_of_batch(wanted))
    elif wanted.batch_id is not None:
        yield from (and_(*_of_batch(wanted), part) for part in _states(wanted))
    elif wanted.person is not None:
        yield and_(schema.IS_LEASED, t.c.leased_by == wanted.person)
        yield and_(schema.IS_OPEN, t.c.reserved_for == wanted.person)
        yield and_(schema.IS_DONE, t.c.finished_by == wanted.person)
    elif wanted.reason is not None:
        yield from (and_(schema.HAS_REASONS, t.c.reasons == some) for some in _combinations(c, wanted.reason))
    elif wanted.checkpoint is not None:
        yield t.c.checkpoint == wanted.checkpoint
    elif wanted.label is not None:
        yield t.c.label == wanted.label
    elif wanted.verdict is not None:
        yield and_(schema.IS_DONE, t.c.verdict == wanted.verdict.value)
    else:
        yield from _states(wanted)


def _of_batch(wanted: Wanted) -> list[ColumnElement[bool]]:
    return [] if wanted.batch_id is None else [schema.tickets.c.batch_id == wanted.batch_id]


def _between(column: ColumnElement[float], low: float | None, high: float | None) -> list[ColumnElement[bool]]:
    return [*([] if low is None else [column >= low]), *([] if high is None else [column <= high])]


def _states(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    """One condition for each state and kind. Only done tickets have a verdict, reasons or agreement."""
    is_done = (wanted.verdict, wanted.reason, wanted.agreement_from, wanted.agreement_to) != (None,) * 4
    states = [state for state in State if wanted.state in (None, state) and (state is State.DONE or not is_done)]
    kinds = [kind for kind in Kind if wanted.kind in (None, kind)]
    t = schema.tickets
    for state, kind in product(states, kinds):
        of_kind = and_(t.c.state == state.value, t.c.kind == kind.value)
        if wanted.projects is None or wanted.batch_id is not None:
            yield of_kind
        else:
            yield from (and_(t.c.project == project, of_kind) for project in sorted(wanted.projects))


def _combinations(c: Connection, reason: Reason) -> Iterator[str]:
    """The values of the column `reasons` that have this reason. They are few, and each takes one look into an index."""
    t = schema.tickets
    least = select(func.min(t.c.reasons)).where(schema.HAS_REASONS)
    some: str | None = c.scalar(least)
    while some is not None:
        if reason in to_reasons(some):
            yield some
        some = c.scalar(least.where(t.c.reasons > some))


def _rest(wanted: Wanted) -> bool:
    """Whether tickets may meet the conditions of `_parts` and yet not be wanted."""
    given = {name for name, value in vars(wanted).items() if value is not None and name not in ("order", "projects")}
    if wanted.order is not Order.NEWEST and wanted.text is None:
        led = {"batch_id", f"{wanted.order}_from", f"{wanted.order}_to"}
    elif wanted.text is not None:
        led = {"text"}
    elif wanted.batch_id is not None:
        led = {"batch_id", "state", "kind"}
    else:
        names = ("person", "reason", "checkpoint", "label", "verdict")
        led = {next((name for name in names if name in given), "state")}
        led |= {"state", "kind"} if led == {"state"} else set()
    return bool(given - led)


def _passes(row: Row[Any], wanted: Wanted) -> bool:
    """Whether a ticket is wanted."""
    asked: tuple[tuple[Any, Any], ...] = (
        (wanted.state, row.state),
        (wanted.kind, row.kind),
        (wanted.batch_id, row.batch_id),
        (wanted.verdict, row.verdict),
        (wanted.checkpoint, row.checkpoint),
        (wanted.label, row.label),
    )
    if any(value is not None and value != has for value, has in asked):
        return False
    if wanted.person is not None and wanted.person != _person_of(row):
        return False
    if wanted.reason is not None and wanted.reason not in to_reasons(row.reasons):
        return False
    return _lies(row.mean_score, wanted.score_from, wanted.score_to) and _lies(
        row.agreement, wanted.agreement_from, wanted.agreement_to
    )


def _person_of(row: Row[Any]) -> str | None:
    """The person who holds, decided or is to get a ticket."""
    by_state = {State.LEASED: row.leased_by, State.DONE: row.finished_by, State.OPEN: row.reserved_for}
    name: str | None = by_state[State(row.state)]
    return name


def _lies(value: float | None, low: float | None, high: float | None) -> bool:
    if low is None and high is None:
        return True
    return value is not None and (low is None or low <= value) and (high is None or value <= high)
