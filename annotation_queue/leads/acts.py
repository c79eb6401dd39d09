"""What leads do to tickets: assign, take back, prioritise, reopen. Each act is a line of the audit.

An assigned ticket is reserved for one person without an end: nobody else may claim it until a lead takes it back. The
same `act_id` again changes nothing and gives the same answer. Works inside the transactions of `Overseeing`, on a
ticket that it has locked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, insert, literal, select, update

from annotation_queue import audit, schema
from annotation_queue.errors import NotAllowed, TooLate
from annotation_queue.records import Kind, Person, QueuePolicy, Role, State
from annotation_queue.rules import check_frame, check_id, lane_of, why_not
from annotation_queue.tickets import batches, claims, closing, gold, leases, tallies
from annotation_queue.tickets.outcomes import SAME_WORK
from annotation_queue.tickets.rows import NOT_RESERVED, OPEN_ROW, to_ticket
from storage.records import Verdict, content_id

MOST_PRIORITY = 1000  # and the least is the negative of it
REOPENED_AS = {  # by the kind of a settled ticket: the kinds of the ticket that may follow
    Kind.SELECT: (Kind.SELECT,),
    Kind.TRACK: (Kind.TRACK,),
    Kind.VERIFY: (Kind.VERIFY, Kind.TRACK),
}


class Action(StrEnum):
    """What a lead does to a ticket."""

    ASSIGN = "assign"  # to a person: nobody else may claim it
    TAKE_BACK = "take back"  # from the person who holds it, and from the one it is assigned to
    PRIORITISE = "prioritise"  # higher is handed out first
    REOPEN = "reopen"  # a settled ticket gets a successor, so that its decision no longer stands


@dataclass(frozen=True, kw_only=True)
class Act:
    """One act of a lead, which may be about many tickets."""

    act_id: str  # made by the client
    action: Action
    by: Person
    to: Person | None = None  # of an assignment
    priority: int | None = None
    kind: Kind | None = None  # of the ticket that a reopened one gets; None: the same as before
    frame_idx: int | None = None  # a reopened ticket points to this frame


def check(act: Act) -> None:
    """ValueError unless an act has what it needs."""
    check_id(act.act_id, "act_id")
    check_frame(act.frame_idx)
    if act.action is Action.ASSIGN and act.to is None:
        raise ValueError("an assignment needs the name of a person")
    if act.action is Action.PRIORITISE and (act.priority is None or abs(act.priority) > MOST_PRIORITY):
        raise ValueError(f"a priority is between -{MOST_PRIORITY} and {MOST_PRIORITY}, not {act.priority}")


def do(c: Connection, policy: QueuePolicy, row: Row[Any], act: Act, now: float) -> str:
    """Do an act to the ticket of this row. Returns what became of it, in one sentence.

    Raises NotAllowed, TooLate or ValueError if the ticket is not in a state for it.
    """
    if (said := _said_before(c, row.ticket_id, act.act_id)) is not None:
        return said
    said, detail = _DO[act.action](c, policy, row, act, now)
    if detail:  # what changes nothing writes no line
        audit.note(c, now, act.by.name, act.action, row.ticket_id, detail | {"act": act.act_id, "said": said})
    return said


def _said_before(c: Connection, ticket_id: str, act_id: str) -> str | None:
    """What became of a ticket when this act came first, or None."""
    a = schema.audit
    details = c.scalars(select(a.c.detail).where(a.c.subject == ticket_id, a.c.action.in_(list(Action))))
    return next((d["said"] for d in map(json.loads, details) if d.get("act") == act_id), None)


_Done = tuple[str, dict[str, Any]]  # what is said, and what the audit keeps; {} if nothing has changed


def _assign(c: Connection, policy: QueuePolicy, row: Row[Any], act: Act, now: float) -> _Done:
    to = act.to
    assert to is not None
    _check_not_gold(row)
    if row.state == State.DONE.value:
        raise NotAllowed("it is done: reopen it first")
    if refusal := why_not(to, to_ticket(row)):
        raise NotAllowed(refusal)
    t = schema.tickets
    not_barred = claims.not_barred(literal(to.name), Kind(row.kind), lead=Role.LEAD in to.roles)
    if c.execute(select(t.c.ticket_id).where(t.c.ticket_id == row.ticket_id, *not_barred)).first() is None:
        raise NotAllowed(f"{to.name} has given an answer about this object already: another person must answer it")
    if not gold.is_trained(c, policy, to):
        raise NotAllowed(f"{to.name} has not passed the warm-up, so nothing can be assigned to them")
    holder, before = row.leased_by, row.reserved_for if row.assigned_by is not None else None
    if before == to.name and holder in (None, to.name):
        return f"it is assigned to {to.name} already", {}
    said = f"assigned to {to.name}"
    if holder is not None and holder != to.name:
        _end_lease(c, row, act.by)
        said += f", taken back from {holder}"
    _set(c, row, reserved_for=to.name, reserved_until=None, assigned_by=act.by.name)
    return said, {"to": to.name, "before": before, "held_by": holder}


def _take_back(c: Connection, policy: QueuePolicy, row: Row[Any], act: Act, now: float) -> _Done:
    if row.state == State.DONE.value:
        raise NotAllowed("it is done: nobody holds it")
    holder, assigned = row.leased_by, row.reserved_for if row.assigned_by is not None else None
    if holder is None and assigned is None:
        return "nobody holds it, and it is assigned to nobody", {}
    if holder is not None:
        _end_lease(c, row, act.by)
    if assigned is not None:
        _set(c, row, **NOT_RESERVED)
    names = " and ".join(dict.fromkeys(name for name in (holder, assigned) if name is not None))
    return f"taken back from {names}", {"held_by": holder, "before": assigned}


def end_assignments(c: Connection, name: str, now: float, by: str, person: Person | None = None) -> None:
    """Give to everybody what is assigned to `name` and what they may no longer hold; otherwise nobody could get it.

    person: as they are now; None if they may do nothing any more. A ticket that they still hold stays theirs until
    their lease ends. Runs in the transaction that changed the person.
    """
    t = schema.tickets
    theirs = select(t).where(t.c.reserved_for == name, t.c.assigned_by.is_not(None))
    theirs = theirs.where(schema.IS_OPEN | (schema.IS_LEASED & (t.c.leased_by == name)))
    for row in c.execute(theirs.order_by(t.c.ticket_id).with_for_update()).all():
        if person is None or why_not(person, to_ticket(row)):
            _set(c, row, **NOT_RESERVED)
            said = f"taken back from {name}, who may no longer work on it"
            audit.note(c, now, by, Action.TAKE_BACK, row.ticket_id, {"before": name, "held_by": None, "said": said})


def _prioritise(c: Connection, policy: QueuePolicy, row: Row[Any], act: Act, now: float) -> _Done:
    _check_not_gold(row)
    if row.state == State.DONE.value:
        raise NotAllowed("it is done: nobody gets it any more")
    if row.priority == act.priority:
        return f"it has the priority {act.priority} already", {}
    _set(c, row, priority=act.priority)
    return f"priority {act.priority}, before {row.priority}", {"priority": act.priority, "before": row.priority}


def _reopen(c: Connection, policy: QueuePolicy, row: Row[Any], act: Act, now: float) -> _Done:
    _check_not_gold(row)
    if row.settled is None:
        led_to = "" if row.next_ticket_id is None else f": ticket {row.next_ticket_id} followed"
        raise NotAllowed(f"it is not settled{led_to or ', it is still to be done'}")
    before = Kind(row.kind)
    kind = act.kind or before
    if kind not in REOPENED_AS[before]:
        raise ValueError(f"a settled {before} ticket is reopened as {' or '.join(REOPENED_AS[before])}, not as {kind}")
    batch = batches.lock(c, row.batch_id)
    assert batch is not None
    if closing.is_closed(c, batch, row.video_id):
        raise TooLate(
            f"the result of its video in batch {row.batch_id} went to the pipeline, which may have published it: "
            "what is published is never changed"
        )
    new = OPEN_ROW | {name: row._mapping[name] for name in SAME_WORK}
    new |= {
        "ticket_id": content_id(row.ticket_id, kind.value, "reopened"),
        "kind": kind.value,
        "previous_ticket_id": row.ticket_id,
        "attempt": row.attempt + int(kind is not before),
        "created_at": now,
        "ordinal": 0,
        "needs_lead": False,
        "lane": lane_of(needs_lead=False, skill=row.skill, project=row.project),
        "overlap": 1,  # one more decision, by one person
        "object_id": None,
        "reopened_by": act.by.name,
    }
    if kind is Kind.VERIFY:
        new["sent_back_by"] = row.finished_by  # whose verdict is doubted: another verifier gives the next one
    if kind is Kind.TRACK:
        new["rework"] = row.made_by is not None
        new["sent_back_by"] = None
    if act.frame_idx is not None or kind is not before:
        pin: dict[str, Any] = {
            "frame_idx": act.frame_idx,
            "by": act.by.name,
            "reasons": [],
            "verdict": Verdict.REFINE.value,
        }
        new["payload"] = json.dumps(json.loads(row.payload) | {"pinned": pin})
    c.execute(insert(schema.tickets).values(**new))
    _set(c, row, settled=None, next_ticket_id=new["ticket_id"])
    batches.count(c, row.batch_id, now, more=1, less=-1)
    tallies.add(c, tallies.tickets_added([new]))
    said = f"reopened as {kind} ticket {new['ticket_id']}; it was settled with {row.settled}"
    return said, {"next": new["ticket_id"], "kind": kind.value, "settled": row.settled}


_DO: dict[Action, Callable[[Connection, QueuePolicy, Row[Any], Act, float], _Done]] = {
    Action.ASSIGN: _assign,
    Action.TAKE_BACK: _take_back,
    Action.PRIORITISE: _prioritise,
    Action.REOPEN: _reopen,
}


def _check_not_gold(row: Row[Any]) -> None:
    if row.gold_id is not None:
        raise NotAllowed("it is a gold ticket, which belongs to one person and settles nothing")


def _end_lease(c: Connection, row: Row[Any], by: Person) -> None:
    leases.end_early(c, row.ticket_id, row.lease_token, by)
    leases.open_again(c, row.ticket_id)


def _set(c: Connection, row: Row[Any], **columns: Any) -> None:
    c.execute(update(schema.tickets).where(schema.tickets.c.ticket_id == row.ticket_id).values(columns))
