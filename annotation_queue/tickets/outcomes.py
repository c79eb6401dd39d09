"""What an answer leads to: it is counted, settles its ticket or opens the one that follows, and can be taken back.

Works inside the transactions of `store`, on a ticket that those have locked; the ticket that followed, and then the
batch, are locked here. A ticket that takes several verdicts is open again after each until all are there; whoever gave
one does not get it again. Where several people make one masklet, each has a ticket of their own, opened when the one
before is done, so that nobody sees what another one made; what goes on is closest to the others'.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from annotation_queue import audit, schema
from annotation_queue.draft import changed_masks, draft_of
from annotation_queue.effort import Effort, effort_of
from annotation_queue.errors import NoSuchBatch, NoSuchTicket, TooLate
from annotation_queue.records import Batch, Finished, Kind, Person, QueuePolicy, State, Submission, Ticket
from annotation_queue.rules import NEXT, lane_of, next_ticket_id
from annotation_queue.tickets import tallies
from annotation_queue.tickets.rows import (
    MASKLET,
    Majority,
    closest,
    made_masklet,
    majority,
    object_of,
    overlap_of,
    to_batch,
    to_operation,
    to_ticket,
)
from annotation_queue.versions import versions_of
from storage.records import Masklet, Operation, Verdict

PINS = (Verdict.REFINE, Verdict.UNSURE)  # verdicts that point the next person to a frame
LOCK_TICKET = select(schema.tickets).where(schema.tickets.c.ticket_id == bindparam("ticket_id")).with_for_update()
_CLOSE = update(schema.tickets).where(schema.tickets.c.ticket_id == bindparam("of_ticket")).returning(schema.tickets)
_COUNT = (
    update(schema.batches)
    .where(schema.batches.c.batch_id == bindparam("of_batch"))
    .values(total=schema.batches.c.total + bindparam("more"), remaining=schema.batches.c.remaining - bindparam("less"))
    .returning(schema.batches)
)
_ANSWERS = (
    select(schema.leases)
    .where(schema.leases.c.ticket_id == bindparam("ticket_id"), schema.HAS_FINISHED)
    .order_by(schema.leases.c.token)
)
_ANSWERS_ABOUT = (
    select(schema.leases)
    .join(schema.tickets, schema.tickets.c.ticket_id == schema.leases.c.ticket_id)
    .where(schema.tickets.c.object_id == bindparam("object_id"), schema.HAS_FINISHED)
    .order_by(schema.tickets.c.ordinal)
)


def answer(
    c: Connection, policy: QueuePolicy, row: Row[Any], person: Person, outcome: Submission, now: float
) -> Finished:
    """Count an answer; if it is the last of those that are needed, decide, and open what follows."""
    answers = _answers(c, row)
    mine, last = answers[-1], len(answers) >= row.overlap
    if not last and row.object_id is None:
        waits = finished(c, open_again(c, row.ticket_id))
        tallies.add(c, tallies.answered(row, mine))
        return waits
    made, effort, parent = None, dict[str, Effort](), None
    if outcome.masklet is not None:
        effort = _effort(c, row.ticket_id, outcome.masklet)
        parent = _masklet(c, row)
        made = made_masklet(outcome.masklet, to_ticket(row), person, parent, effort.values())
        keep_masklets(c, row.batch_id, [made], now)
    before = parent if row.made_by not in (None, person.name) else None
    gained = tallies.answered(row, mine, made=made, effort=effort, before=before)
    decision = majority(answers if last else answers[-1:])
    if last:
        all_made = _made(c, row, answers)
        gained += tallies.agreed(row, answers, all_made)
        if row.object_id is not None and decision.verdict != Verdict.REJECT.value:
            made, _ = closest(all_made)
            decision = replace(decision, verdict=None, reasons="")
    if row.needs_lead:
        audit.note(c, now, person.name, "decide", row.ticket_id, {"verdict": decision.verdict})
    told, closed = _settle_or_follow(c, policy, row, decision, made, now, again=not last)
    tallies.add(c, [*gained, *closed])
    return told


def take_back(c: Connection, row: Row[Any], mine: Row[Any]) -> tuple[list[dict[str, Any]], str | None]:
    """Undo what an answer led to. Returns what the tallies lose, and the masklet that was made. Raises TooLate."""
    t, b, m = schema.tickets, schema.batches, schema.masklets
    if row.state == State.OPEN.value:  # one of several verdicts, and not the last
        return tallies.negative(tallies.answered(row, mine)), None
    follower = None
    if row.next_ticket_id is not None:
        follower = lock_ticket(c, row.next_ticket_id)
        if follower.state != State.OPEN.value or follower.lease_token:
            raise TooLate()
    batch = lock_batch(c, row.batch_id)
    assert batch is not None
    if batch.drained_at is not None:
        raise TooLate(f"batch {row.batch_id} is done and was handed on")
    answers, made = _answers(c, row), None
    all_made = _made(c, row, answers)
    if mine.masklet_id is not None:
        made = _content(c, row.batch_id, mine.masklet_id)
        c.execute(delete(m).where(m.c.batch_id == row.batch_id, m.c.masklet_id == mine.masklet_id))
    if follower is not None:
        c.execute(delete(t).where(t.c.ticket_id == follower.ticket_id))
    change = {"remaining": b.c.remaining + 1} if follower is None else {"total": b.c.total - 1}
    c.execute(update(b).where(b.c.batch_id == row.batch_id).values(change))
    if made is None:
        lost = tallies.answered(row, mine)
    else:
        masklet = MASKLET.validate_json(made)
        before = _masklet(c, row) if row.made_by not in (None, mine.person) else None
        effort = _effort(c, row.ticket_id, masklet)
        lost = tallies.answered(row, mine, made=masklet, effort=effort, before=before)
    lost += tallies.agreed(row, answers, all_made) if len(answers) >= row.overlap else []
    lost += [*tallies.closed(row), *tallies.added([] if follower is None else [follower._asdict()])]
    return tallies.negative(lost), made


def unlike(c: Connection, row: Row[Any], made: Masklet) -> dict[int, bytes]:
    """The masks of a masklet that do not follow from what was done in its ticket."""
    versions, done = versions_of(c, row.ticket_id), _operations(c, row.ticket_id)
    hw = (made.height, made.width)
    return changed_masks(draft_of(hw, made.frame_idx, _masklet(c, row), done, versions), made)


def _settle_or_follow(
    c: Connection,
    policy: QueuePolicy,
    row: Row[Any],
    decision: Majority,
    made: Masklet | None,
    now: float,
    *,
    again: bool,
) -> tuple[Finished, list[dict[str, Any]]]:
    """Close a ticket and open the one that follows. Returns what the tallies gain, too.

    again: that is the same one once more, for somebody else, who cannot tell it from the first.
    The batch's row comes last: everybody who finishes a ticket of it waits for whoever holds it.
    """
    kind, verdict = Kind(row.kind), None if decision.verdict is None else Verdict(decision.verdict)
    masklet_id, made_by = row.masklet_id, row.made_by
    if made is not None and not again:
        masklet_id, made_by = made.masklet_id, made.annotated_by
    following = kind if again else NEXT[(kind, verdict)]
    follower = None if following is None else next_ticket_id(to_ticket(row), following)
    done = {
        "of_ticket": row.ticket_id,
        "state": State.DONE.value,
        "leased_by": None,
        "expires_at": None,
        "verdict": verdict,
        "reasons": decision.reasons or "",
        "finished_by": decision.person,
        "finished_at": now,
        "seconds": decision.seconds,
        "next_ticket_id": follower,
        "settled": verdict if following is None else None,
    }
    closed = c.execute(_CLOSE, done).one()
    opened = []
    if following is not None and follower is not None:
        needs_lead = verdict is Verdict.UNSURE
        sent_back = following is Kind.TRACK and verdict is Verdict.REFINE
        rework = made_by is not None if sent_back else bool(row.rework)
        maker = made_by if sent_back and made_by is not None and _is_at_work(c, policy, made_by, now) else None
        asked_by = decision.person if sent_back and policy.other_verifier else row.sent_back_by
        about = {"masklet_id": masklet_id, "made_by": made_by, "needs_lead": needs_lead}
        overlap = row.overlap if again else overlap_of(follower, following, policy, **about)
        new = {
            "ticket_id": follower,
            "batch_id": row.batch_id,
            "kind": following.value,
            "video_id": row.video_id,
            "masklet_id": masklet_id,
            "phase": row.phase,
            "priority": row.priority,
            "payload": _pinned(c, row, decision) if verdict in PINS else row.payload,
            "made_by": made_by,
            "needs_lead": needs_lead,
            "attempt": row.attempt if again else row.attempt + 1,
            "previous_ticket_id": row.previous_ticket_id if again else row.ticket_id,
            "created_at": now,
            "ordinal": row.ordinal + 1 if again else 0,
            "state": State.OPEN.value,
            "lease_token": 0,
            "reasons": "",
            "skill": row.skill,
            "lane": lane_of(needs_lead=needs_lead, skill=row.skill),
            "reserved_for": maker,
            "reserved_until": None if maker is None else now + policy.rework_s,
            "sent_back_by": asked_by,
            "rework": rework,
            "overlap": overlap,
            "object_id": row.object_id if again else object_of(follower, following, overlap),
            "checkpoint": row.checkpoint if made is None or again else made.checkpoint,
        }
        c.execute(insert(schema.tickets).values(**new))
        opened = [new]
    change = {"more": len(opened), "less": 1 - len(opened)}
    batch = c.execute(_COUNT, change | {"of_batch": row.batch_id}).one()
    if batch.remaining == 0:
        tell_if_drained(c, row.batch_id, now)
    told = _told(to_ticket(closed), drained=batch.sealed and batch.remaining == 0)
    return told, [*tallies.closed(row), *tallies.added(opened)]


def tell_if_drained(c: Connection, batch_id: str, now: float) -> None:
    """Write the outbox row in the transaction that drains the batch, whose row is locked: exactly one does."""
    b = schema.batches
    drained = c.execute(
        update(b)
        .where(b.c.batch_id == batch_id, b.c.sealed.is_(True), b.c.remaining == 0, b.c.drained_at.is_(None))
        .values(drained_at=now)
    )
    if drained.rowcount:
        c.execute(insert(schema.outbox).values(batch_id=batch_id, created_at=now, not_before=now, attempts=0))


def finished(c: Connection, row: Row[Any]) -> Finished:
    """What the ticket of this row tells whoever answered it, now or again."""
    drained = row.gold_id is None and read_batch(c, row.batch_id).drained  # gold of a batch that is done: no tell
    return _told(to_ticket(row), drained=drained)


def _pinned(c: Connection, row: Row[Any], decision: Majority) -> str:
    """The payload of a ticket that follows: the frame that was on screen, for the next one to look at first, and what
    was said there: of a tie, by the last one.
    """
    o = schema.operations
    query = select(o.c.frame_idx, o.c.payload).where(o.c.ticket_id == row.ticket_id, o.c.person == decision.person)
    query = query.where(o.c.kind == "verdict", o.c.branch.is_(False)).order_by(o.c.seq.desc()).limit(1)
    reasons = [reason for reason in (decision.reasons or "").split(",") if reason]
    said = c.execute(query).one()
    pin = {"frame_idx": said.frame_idx, "by": decision.person, "reasons": reasons}
    pin["verdict"] = json.loads(said.payload)["verdict"]
    return json.dumps(json.loads(row.payload) | {"pinned": pin})


def origin(c: Connection, batch_id: str, masklet_id: str) -> str:
    """The masklet that this one was made of in the end: the same for all that people made of one object's."""
    seen = {masklet_id}
    while (content := _content(c, batch_id, masklet_id)) is not None:
        parent = json.loads(content).get("parent_id")
        if parent is None or parent in seen:
            break
        seen.add(parent)
        masklet_id = parent
    return masklet_id


def _answers(c: Connection, row: Row[Any]) -> Sequence[Row[Any]]:
    """The leases that ended with an answer, in their order: of a ticket, or of all in which its masklet is made."""
    if row.object_id is not None:
        return c.execute(_ANSWERS_ABOUT, {"object_id": row.object_id}).all()
    return c.execute(_ANSWERS, {"ticket_id": row.ticket_id}).all()


def _made(c: Connection, row: Row[Any], answers: Sequence[Row[Any]]) -> list[Masklet]:
    """What the people behind these answers made, if it is one object's masklet that they all made."""
    if row.object_id is None:
        return []
    contents = [_content(c, row.batch_id, a.masklet_id) for a in answers if a.masklet_id is not None]
    return [MASKLET.validate_json(content) for content in contents if content is not None]


def _effort(c: Connection, ticket_id: str, made: Masklet) -> dict[str, Effort]:
    """What people put into a masklet that was made in a ticket."""
    return effort_of(_operations(c, ticket_id), made.frame_idx)


def _operations(c: Connection, ticket_id: str) -> list[Operation]:
    """What was done in a ticket, in order, without branches."""
    o = schema.operations
    query = select(o).where(o.c.ticket_id == ticket_id, o.c.branch.is_(False)).order_by(o.c.seq)
    return [to_operation(row) for row in c.execute(query)]


def _masklet(c: Connection, row: Row[Any]) -> Masklet | None:
    """What a ticket is about."""
    content = _content(c, row.batch_id, row.masklet_id)
    return None if content is None else MASKLET.validate_json(content)


def _content(c: Connection, batch_id: str, masklet_id: str | None) -> str | None:
    m = schema.masklets
    return c.scalar(select(m.c.content).where(m.c.batch_id == batch_id, m.c.masklet_id == masklet_id))


def _is_at_work(c: Connection, policy: QueuePolicy, name: str, now: float) -> bool:
    """Whether a person finished a ticket within the time that rework waits for them."""
    le = schema.leases
    query = select(le.c.token).where(le.c.person == name, schema.HAS_FINISHED)
    return c.execute(query.where(le.c.finished_at > now - policy.rework_s).limit(1)).first() is not None


def open_again(c: Connection, ticket_id: str) -> Row[Any]:
    """Give a ticket back to the queue; returns its row."""
    back = update(schema.tickets).where(schema.tickets.c.ticket_id == ticket_id)
    back = back.values(state=State.OPEN.value, leased_by=None, expires_at=None)
    return c.execute(back.returning(schema.tickets)).one()


def keep_masklets(c: Connection, batch_id: str, contents: Sequence[Masklet], now: float) -> None:
    """Keep masklets; ValueError if another one has the same id in this batch."""
    m = schema.masklets
    for content in contents:
        text = MASKLET.dump_json(content).decode()
        there = c.scalar(select(m.c.content).where(m.c.batch_id == batch_id, m.c.masklet_id == content.masklet_id))
        if there is None:
            key = {"batch_id": batch_id, "masklet_id": content.masklet_id}
            c.execute(insert(m).values(content=text, created_at=now, **key))
        elif there != text:
            raise ValueError(f"another masklet {content.masklet_id} is in batch {batch_id} already")


def lock_ticket(c: Connection, ticket_id: str) -> Row[Any]:
    """The row of a ticket, which nobody else changes until the transaction ends. Raises NoSuchTicket."""
    row = c.execute(LOCK_TICKET, {"ticket_id": ticket_id}).first()
    if row is None:
        raise NoSuchTicket(f"no ticket {ticket_id}")
    return row


def lock_batch(c: Connection, batch_id: str) -> Row[Any] | None:
    """The row of a batch, locked like a ticket's: after the tickets of it, as who holds it keeps others waiting."""
    return c.execute(select(schema.batches).where(schema.batches.c.batch_id == batch_id).with_for_update()).first()


def read_batch(c: Connection, batch_id: str) -> Batch:
    """A batch as it is. Raises NoSuchBatch."""
    row = c.execute(select(schema.batches).where(schema.batches.c.batch_id == batch_id)).first()
    if row is None:
        raise NoSuchBatch(f"no batch {batch_id}")
    return to_batch(row)


def _told(ticket: Ticket, *, drained: bool) -> Finished:
    settled = ticket.verdict if ticket.next_ticket_id is None else None
    return Finished(ticket=ticket, next_ticket_id=ticket.next_ticket_id, settled=settled, batch_drained=drained)
