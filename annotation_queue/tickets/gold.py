"""Gold: tickets whose answer is known, mixed into people's claims and compared with it when they are finished.

A gold ticket is a row of `gold`. A person who gets one gets their own copy in `tickets`. The copy stays reserved for
them and otherwise looks like any ticket, also to the page. A copy is not counted in its batch, settles nothing
and leads to no ticket. Works inside the transactions of `TicketStore`.

In a warm-up, a new person gets only gold, until enough of the last answers are right.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, union_all, update

from annotation_queue import audit, schema
from annotation_queue.database import insert_missing
from annotation_queue.errors import NotAllowed
from annotation_queue.records import Gold, Kind, NewGold, Person, QueuePolicy, Role, State, Submission
from annotation_queue.rules import GOLD_LANE, NEXT, TRAINED, kinds_of, next_ticket_id
from annotation_queue.tickets import leases, masklets, ontologies, sight
from annotation_queue.tickets.rows import MASKLET, OPEN_ROW, to_ticket
from storage import iou
from storage.records import Masklet, Verdict, content_id

CHANCE = secrets.SystemRandom()  # draws who is dealt gold; a repeated claim finds its lease and draws no second time
PINNED = ("frame_idx", "by", "reasons", "verdict", "text")  # as in `outcomes`: another order would tell gold
LABELLING = ("label_at", "ontology")  # words of a payload
REMEMBERED = 2000  # finished tickets of a person: they would recognise gold about one of these masklets


def add(c: Connection, batch_id: str, tickets: Iterable[NewGold], by: str, now: float) -> int:
    """Add gold tickets beside a batch; existing ones are skipped. Returns how many are new."""
    wanted = {g.ticket.ticket_id: g for g in tickets}
    ids = schema.gold.c.gold_id
    there = {gold_id for gold_id in wanted if c.scalar(select(ids).where(ids == gold_id)) is not None}
    fresh = [g for gold_id, g in wanted.items() if gold_id not in there]
    ontologies.note_use(c, [g.ticket.payload for g in fresh], _project_of(c, batch_id))
    for g in fresh:
        masklet = g.ticket.masklet
        row = {
            "gold_id": g.ticket.ticket_id,
            "batch_id": batch_id,
            "kind": g.ticket.kind.value,
            "video_id": g.ticket.video_id,
            "masklet_id": None if masklet is None else masklet.masklet_id,
            "phase": g.ticket.phase,
            "payload": g.ticket.payload,
            "checkpoint": "" if masklet is None else masklet.checkpoint,
            "expected": None if g.expected is None else g.expected.value,
            "truth": None if g.truth is None else MASKLET.dump_json(g.truth).decode(),
            "created_at": now,
            "made_by": None if masklet is None else masklet.annotated_by,
        }
        c.execute(insert(schema.gold).values(**row))
    if fresh:
        audit.note(c, now, by, "add gold", batch_id, {"tickets": len(fresh)})
    return len(fresh)


def remove(c: Connection, batch_id: str, video_id: str, by: Person, now: float) -> None:
    """Remove the gold about a withdrawn video. A copy that is not finished ends without an answer."""
    g, t = schema.gold, schema.tickets
    begun = select(t).where(t.c.batch_id == batch_id, t.c.video_id == video_id, schema.IS_GOLD)
    begun = begun.where(t.c.state != State.DONE.value).order_by(t.c.ticket_id).with_for_update()
    ended = {"state": State.DONE.value, "leased_by": None, "expires_at": None, "reserved_for": None}
    for row in c.execute(begun).all():
        if row.state == State.LEASED.value:
            leases.end_early(c, row.ticket_id, row.lease_token, by)
        c.execute(update(t).where(t.c.ticket_id == row.ticket_id).values(ended))
    removed = c.execute(delete(g).where(g.c.batch_id == batch_id, g.c.video_id == video_id)).rowcount
    if removed:
        audit.note(c, now, by.name, "remove gold", batch_id, {"tickets": removed, "video": video_id})


def is_removed(c: Connection, gold_id: str) -> bool:
    """Whether the gold of a copy was removed, because its video was withdrawn."""
    g = schema.gold
    return c.execute(select(g.c.gold_id).where(g.c.gold_id == gold_id)).first() is None


def all_of(c: Connection, seen_by: Person | None = None) -> list[Gold]:
    """Every gold ticket (of `seen_by`'s projects), with how often people finished it and were right."""
    g, t = schema.gold, schema.tickets
    query = (
        select(g, func.count(t.c.right).label("done"), func.count(t.c.right).filter(t.c.right).label("right"))
        .select_from(g.outerjoin(t, (t.c.gold_id == g.c.gold_id) & schema.IS_GOLD))
        .where(*sight.of_batches(seen_by, g.c.batch_id))
        .group_by(*g.columns)
        .order_by(g.c.created_at, g.c.gold_id)
    )
    return [
        Gold(
            gold_id=row.gold_id,
            batch_id=row.batch_id,
            kind=Kind(row.kind),
            video_id=row.video_id,
            expected=None if row.expected is None else Verdict(row.expected),
            done=row.done,
            right=row.right,
        )
        for row in c.execute(query)
    ]


def known_of(c: Connection, ticket_id: str) -> tuple[bool, Masklet | None]:
    """Whether a ticket is a copy of gold, and the true masklet if its answer is a masklet."""
    g, t = schema.gold, schema.tickets
    copy = select(g.c.truth).select_from(t.outerjoin(g, g.c.gold_id == t.c.gold_id))  # the gold may be removed
    row = c.execute(copy.where(t.c.ticket_id == ticket_id, schema.IS_GOLD)).first()
    return row is not None, None if row is None or row.truth is None else MASKLET.validate_json(row.truth)


def is_trained(c: Connection, policy: QueuePolicy, person: Person) -> bool:
    """Whether a person may have real work: enough of their last gold tickets were right, or they need no warm-up.

    If there is too little gold, the warm-up ends with the last gold ticket.
    """
    if not policy.warmup_tickets or Role.LEAD in person.roles or TRAINED in person.skills:
        return True
    t = schema.tickets
    mine = (schema.IS_GOLD, t.c.reserved_for == person.name)
    done = select(t.c.right).where(*mine, t.c.finished_at.is_not(None))
    last = list(c.scalars(done.order_by(t.c.finished_at.desc()).limit(policy.warmup_tickets)))
    if len(last) < policy.warmup_tickets and _has_gold(c, person):
        return False
    return sum(map(bool, last)) >= policy.warmup_accuracy * len(last)


def check_trained(c: Connection, policy: QueuePolicy, person: Person) -> None:
    """Raises NotAllowed unless a person may have real work."""
    if not is_trained(c, policy, person):
        raise NotAllowed(f"{person.name} has a warm-up to finish before choosing tickets")


def deal(
    c: Connection,
    policy: QueuePolicy,
    person: Person,
    whole: Person,
    kinds: Sequence[Kind],
    batch_id: str | None,
    now: float,
) -> tuple[bool, list[Kind]]:
    """Before a claim: reserve a gold ticket for a person if one is due, by a chance that no client can predict.

    person: gets gold of these projects only. whole: the same person with all their projects, whose gold counts for the
    warm-up: asking for a project without gold does not end it.
    Returns whether they get only gold, and the kind of the gold that is reserved for them, which the claim tries first.
    Raises NotAllowed if they get only gold and there is no gold for them, of any kind, batch and project.
    """
    trained = is_trained(c, policy, whole)
    if trained and CHANCE.random() >= policy.gold_share:
        return False, []
    t, g = schema.tickets, schema.gold
    waiting = select(t.c.kind).where(schema.IS_GOLD, t.c.reserved_for == person.name, schema.IS_OPEN)
    waiting = waiting.where(*sight.within(person, t.c.project))
    if batch_id is not None:
        waiting = waiting.where(t.c.batch_id == batch_id)
    kind = c.scalar(waiting.where(t.c.kind.in_(kinds)).limit(1))
    if kind is None:
        fresh = _fresh(person, kinds).order_by(g.c.gold_id).limit(1)
        if trained:
            fresh = fresh.where(*_of_work(c, person))
        row = c.execute(fresh if batch_id is None else fresh.where(g.c.batch_id == batch_id)).first()
        if row is None:
            if not trained and not _has_gold(c, whole):
                raise NotAllowed(
                    f"{person.name} has a warm-up to pass and no gold is left for it: "
                    f"a lead adds some, or gives them the skill {TRAINED}"
                )
            return not trained, []
        kind = row.kind
        copy = {name: row._mapping[name] for name in ("gold_id", "batch_id", "kind", "video_id", "masklet_id")}
        copy |= {name: row._mapping[name] for name in ("phase", "checkpoint", "made_by")}
        project = _project_of(c, row.batch_id)
        copy |= OPEN_ROW | _earlier_tickets(row, policy, person) | masklets.label(c, row.batch_id, row.masklet_id)
        copy |= {
            "ticket_id": content_id(row.gold_id, person.name),
            "priority": 0,
            "needs_lead": False,
            "created_at": now,
            "payload": _payload(c, row, project),
            "project": project,
            "ordinal": 0,
            "lane": GOLD_LANE,
            "reserved_for": person.name,
        }
        insert_missing(c, schema.tickets, [copy])
    return not trained, [Kind(kind)]


def _project_of(c: Connection, batch_id: str) -> str:
    b = schema.batches
    return c.scalar(select(b.c.project).where(b.c.batch_id == batch_id)) or ""


def _has_gold(c: Connection, person: Person) -> bool:
    """Whether a person holds gold, or gold is reserved for them or could be dealt to them, as their roles permit."""
    t, allowed = schema.tickets, kinds_of(person.roles)
    begun = select(t.c.gold_id).where(schema.IS_GOLD, t.c.reserved_for == person.name, t.c.finished_at.is_(None))
    begun = begun.where(t.c.kind.in_(list(allowed)), *sight.within(person, t.c.project))
    return any(c.execute(query.limit(1)).first() is not None for query in (begun, _fresh(person, allowed)))


def _fresh(person: Person, kinds: Iterable[Kind]) -> Select[Any]:
    """Gold of a person's projects that they were never dealt, about masklets that they did not make and that are not
    in their last REMEMBERED tickets.
    """
    t, g, le = schema.tickets, schema.gold, schema.leases
    had = select(t.c.gold_id).where(schema.IS_GOLD, t.c.reserved_for == person.name)
    last = select(le.c.ticket_id).where(le.c.person == person.name, schema.HAS_FINISHED)
    last = last.order_by(le.c.finished_at.desc()).limit(REMEMBERED)
    seen = select(t.c.masklet_id).where(t.c.ticket_id.in_(last), t.c.masklet_id.is_not(None))
    new_to_them = g.c.masklet_id.is_(None) | g.c.masklet_id.not_in(seen)
    not_theirs = g.c.made_by.is_(None) | (g.c.made_by != person.name) | (g.c.kind != Kind.VERIFY.value)
    found = select(g).where(g.c.kind.in_(list(kinds)), g.c.gold_id.not_in(had), new_to_them, not_theirs)
    return found.where(*sight.of_batches(person, g.c.batch_id))


def _of_work(c: Connection, person: Person) -> list[ColumnElement[bool]]:
    """Conditions on gold, so that it is of a project with real work, if any has some: a ticket of another is gold."""
    b = schema.batches
    mine = sight.within(person, b.c.project)
    if not mine:
        return []
    at_work = list(c.scalars(select(b.c.project).where(b.c.drained_at.is_(None), *mine).distinct()))
    ids = select(b.c.batch_id).where(b.c.project.in_(at_work))
    return [schema.gold.c.batch_id.in_(ids)] if at_work else []


def _earlier_tickets(row: Row[Any], policy: QueuePolicy, person: Person) -> dict[str, Any]:
    """Columns of made-up earlier tickets.

    A real correction names the person who asked for it, so gold must name one too. A real verify ticket about a
    person's masklet follows from the ticket in which it was made.
    """
    pointed = json.loads(row.payload).get("pinned")
    made = row.kind == Kind.VERIFY.value and row.made_by is not None
    if pointed is None:
        return {"attempt": 2, "previous_ticket_id": content_id(row.gold_id, "before")} if made else {"attempt": 1}
    is_other = pointed["by"] != person.name  # nobody checks the correction that they asked for
    asked_by = {"sent_back_by": pointed["by"]} if policy.other_verifier and is_other else {}
    return {"attempt": 3 if made else 2, "previous_ticket_id": content_id(row.gold_id, "before")} | asked_by


def _payload(c: Connection, row: Row[Any], project: str) -> str:
    """The payload of a gold ticket as a real ticket of today has it; otherwise the text would tell gold.

    The words about labels are those of its project's newest real ticket of its kind, and the pinned frame has a
    verdict.
    """
    t, rules = schema.tickets, json.loads(row.payload)
    real = select(t.c.payload, t.c.created_at).where(
        t.c.project == project, t.c.kind == row.kind, t.c.gold_id.is_(None)
    )
    real = real.order_by(t.c.created_at.desc(), t.c.ticket_id.desc()).limit(1)
    every = union_all(*(select(real.where(t.c.state == state.value).subquery()) for state in State)).subquery()
    newest = c.scalar(select(every.c.payload).order_by(every.c.created_at.desc()).limit(1))
    now = rules if newest is None else json.loads(newest)
    payload = {name: rules[name] for name in rules if name not in (*LABELLING, "pinned")}
    payload |= {name: now[name] for name in now if name in LABELLING}
    if "pinned" in rules:
        said = {"verdict": Verdict.REFINE.value} | rules["pinned"]  # gold of before has no verdict, or another order
        payload["pinned"] = {name: said[name] for name in PINNED if name in said} | said
    return json.dumps(payload)


def rightness_of(c: Connection, row: Row[Any], verdict: Verdict | None, made: Masklet | None) -> float:
    """How right an answer to a person's copy is, 0 to 1: the IoU with the true masklet, or 1 for the right verdict.

    0 if the gold was removed: then the copy takes no answer any more.
    """
    g = schema.gold
    known = c.execute(select(g).where(g.c.gold_id == row.gold_id)).first()
    if known is None:
        return 0.0
    if made is not None and known.truth is not None:
        return iou.mean_iou(made, MASKLET.validate_json(known.truth))
    return float(verdict is not None and verdict.value == known.expected)


def finish(
    c: Connection, row: Row[Any], policy: QueuePolicy, outcome: Submission, name: str, now: float, rightness: float
) -> None:
    """Finish a person's copy. rightness: see `rightness_of`."""
    right = rightness >= (1.0 if outcome.masklet is None else policy.gold_iou)
    following = NEXT[(Kind(row.kind), outcome.verdict)]
    c.execute(
        update(schema.tickets)
        .where(schema.tickets.c.ticket_id == row.ticket_id)
        .values(
            state=State.DONE.value,
            leased_by=None,
            expires_at=None,
            verdict=outcome.verdict,
            reasons=",".join(outcome.reasons),
            finished_by=name,
            finished_at=now,
            seconds=outcome.seconds,
            right=right,
            score=rightness,
            # the id of a ticket that is never opened, so that the answer looks like any other
            next_ticket_id=None if following is None else next_ticket_id(to_ticket(row), following),
        )
    )
