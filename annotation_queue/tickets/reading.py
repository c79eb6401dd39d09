"""What the queue shows: tickets, results, other objects of a video, and who may see which. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    and_,
    func,
    or_,
    select,
    union_all,
)

from annotation_queue import schema
from annotation_queue.errors import NoSuchMasklet, NoSuchTicket
from annotation_queue.records import Batch, Kind, OtherMasklet, Person, ResultPage, State, Ticket
from annotation_queue.rules import OVERSEERS
from annotation_queue.tickets import batches, gold, kept, masklets, ontologies, sight
from annotation_queue.tickets.rows import MASKLET, to_batch, to_operation, to_reasons, to_settled_ticket, to_ticket
from annotation_queue.tickets.shown import OwnAnswer
from storage.records import Masklet, Verdict

RECENT = 10  # finished tickets that a person may look at again and take back


def ticket(c: Connection, ticket_id: str) -> Ticket:
    """A ticket as it stands. Raises NoSuchTicket."""
    return to_ticket(_row(c, ticket_id))


def _row(c: Connection, ticket_id: str) -> Row[Any]:
    row = c.execute(select(schema.tickets).where(schema.tickets.c.ticket_id == ticket_id)).first()
    if row is None:
        raise NoSuchTicket(f"no ticket {ticket_id}")
    return row


def masklet_json(c: Connection, ticket_id: str, *, before: bool = False) -> str:
    """The masklet of a ticket, as JSON of its record, with the label that the ticket came with.

    So a person who has finished the ticket does not see how it was decided. before: the masklet that it corrects, its
    parent. Raises NoSuchTicket, NoSuchMasklet.
    """
    row = _row(c, ticket_id)
    content = masklets.content(c, row.batch_id, row.masklet_id)
    if content is not None and before:
        content = masklets.content(c, row.batch_id, masklets.corrected_id(content))
    if content is None:
        raise NoSuchMasklet(f"ticket {ticket_id} has no masklet{' before its correction' if before else ''}")
    if before or (row.label is None and "ontology" not in json.loads(row.payload)):
        return content
    label = ontologies.before_answer(c, row)
    return json.dumps(json.loads(content) | {"label": label.name, "attributes": label.attributes})


def tickets(
    c: Connection,
    *,
    kind: Kind | None,
    state: State | None,
    batch_id: str | None,
    limit: int,
    seen_by: Person | None,
) -> list[Ticket]:
    """Tickets in the order in which they are handed out. See `TicketStore.find`.

    The cost follows `limit`, not the number of tickets: each part of the query reads the first entries of an index.
    The tickets of one batch are few, and all of them are read.
    """
    kinds = (kind,) if kind is not None else tuple(Kind)
    states = (state,) if state is not None else tuple(State)
    found = schema.tickets
    if seen_by is not None and not seen_by.roles & OVERSEERS:
        if State.LEASED not in states:
            return []
        held = select(found).where(schema.IS_LEASED, found.c.leased_by == seen_by.name, found.c.kind.in_(kinds))
        if batch_id is not None:
            held = held.where(found.c.batch_id == batch_id)
        return [to_ticket(row) for row in c.execute(held.order_by(found.c.ticket_id).limit(limit))]
    mine = sight.within(seen_by, found.c.project)
    parts = [and_(part, *mine) for kind in kinds for part in _parts(c, kind, states)]
    if not parts:
        return []
    if batch_id is None:
        best = [select(_first(select(found).where(part), found, limit).subquery()) for part in parts]
        every = union_all(*best).subquery()
        return [to_ticket(row) for row in c.execute(_first(select(every), every, limit))]
    of_batch = select(found).where(found.c.batch_id == batch_id, or_(*parts))
    return [to_ticket(row) for row in c.execute(_first(of_batch, found, limit))]


def _first(query: Select[Any], found: FromClause, limit: int) -> Select[Any]:
    """The first rows of a query, in the order in which tickets are handed out."""
    column = found.c
    order = (column.priority.desc(), column.created_at, column.ordinal, column.ticket_id)
    return query.order_by(*order).limit(limit)


def _parts(c: Connection, kind: Kind, states: Sequence[State]) -> list[ColumnElement[bool]]:
    """Conditions for the tickets of a kind in these states. One index serves each."""
    t = schema.tickets
    of_kind = t.c.kind == kind.value
    parts: list[ColumnElement[bool]] = []
    if State.LEASED in states:
        parts.append(and_(of_kind, schema.IS_LEASED))
    if State.DONE in states:
        parts.append(and_(of_kind, schema.IS_DONE))
    if State.OPEN in states:
        parts += [and_(of_kind, schema.IS_OPEN, t.c.lane == lane) for lane in _open_lanes(c, kind)]
    return parts


def _open_lanes(c: Connection, kind: Kind) -> Iterator[str]:
    """The lanes that have open tickets of a kind. Each takes one look into an index."""
    t = schema.tickets
    of_kind = select(func.min(t.c.lane)).where(schema.IS_OPEN, t.c.kind == kind.value)
    lane: str | None = c.scalar(of_kind)
    while lane is not None:
        yield lane
        lane = c.scalar(of_kind.where(t.c.lane > lane))


def recent(c: Connection, person: Person) -> Sequence[Row[Any]]:
    """The last RECENT answers of a person, the latest first: rows of `leases` with columns of their tickets."""
    t, le = schema.tickets, schema.leases
    about = select(le, t.c.batch_id, t.c.kind, t.c.video_id).join(t, t.c.ticket_id == le.c.ticket_id)
    mine = about.where(le.c.person == person.name, schema.HAS_FINISHED, *sight.within(person, t.c.project))
    return c.execute(mine.order_by(le.c.finished_at.desc(), le.c.claimed_at.desc()).limit(RECENT)).all()


def own_answer(c: Connection, ticket_id: str, person: Person) -> OwnAnswer | None:
    """The last answer of a person to a ticket, or None."""
    le = schema.leases
    mine = select(le).where(le.c.ticket_id == ticket_id, le.c.person == person.name, schema.HAS_FINISHED)
    row = c.execute(mine.order_by(le.c.token.desc()).limit(1)).first()
    if row is None:
        return None
    verdict = None if row.verdict is None else Verdict(row.verdict)
    return OwnAnswer(token=row.token, verdict=verdict, reasons=to_reasons(row.reasons))


def may_see(c: Connection, person: Person, ticket_id: str) -> bool:
    """Whether a person may see a ticket: they hold it, have finished it, or oversee all tickets of its project.

    Whoever left the project sees only what they hold still.
    """
    if person.projects is None and person.roles & OVERSEERS:
        return True
    t, le = schema.tickets, schema.leases
    mine = sight.within(person, t.c.project)
    held = select(t.c.ticket_id).where(t.c.ticket_id == ticket_id, schema.IS_LEASED, t.c.leased_by == person.name)
    if person.roles & OVERSEERS:
        other = select(t.c.ticket_id).where(t.c.ticket_id == ticket_id, *mine)
    else:
        other = select(le.c.ticket_id).join(t, t.c.ticket_id == le.c.ticket_id)
        other = other.where(le.c.ticket_id == ticket_id, le.c.person == person.name, schema.HAS_FINISHED, *mine)
    return c.execute(union_all(held, other).limit(1)).first() is not None


def may_see_video(c: Connection, person: Person, video_id: str) -> bool:
    """Whether a person may see a video: they hold or finished a ticket of it, have late work on it, or oversee it.

    Whoever left its project sees it only while they hold a ticket of it. The cost follows the tickets of the video,
    not those of the person.
    """
    if person.projects is None and person.roles & OVERSEERS:
        return True
    t = schema.tickets
    held = select(t.c.ticket_id).where(schema.IS_LEASED, t.c.leased_by == person.name, t.c.video_id == video_id)
    le, mine = schema.leases, sight.within(person, t.c.project)
    other = select(t.c.ticket_id).where(t.c.video_id == video_id, *mine)
    if not person.roles & OVERSEERS:
        other = other.join(le, le.c.ticket_id == t.c.ticket_id)
        other = other.where(le.c.person == person.name, schema.HAS_FINISHED)
    either = union_all(held, other).limit(1)
    return c.execute(either).first() is not None or kept.is_about(c, person, video_id)


def find_batches(
    c: Connection, seen_by: Person | None = None, only: Sequence[str] | None = None, drained: bool | None = None
) -> list[Batch]:
    """Batches, the newest first. See `TicketStore.batches`."""
    b = schema.batches
    query = select(b).where(*sight.within(seen_by, b.c.project))
    if only is not None:
        query = query.where(b.c.batch_id.in_(only))
    if drained is not None:
        query = query.where(b.c.drained_at.is_not(None) if drained else b.c.drained_at.is_(None))
    return [to_batch(row) for row in c.execute(query.order_by(b.c.created_at.desc(), b.c.batch_id))]


def result_page(
    c: Connection, batch_id: str, after: str | None, limit: int, only: Sequence[str] | None = None
) -> ResultPage:
    """A page of a batch's result: first the settled tickets, then the operations. See `TicketStore.result_page`."""
    part, ticket_id, seq = _parse_cursor(after)
    batch = batches.read(c, batch_id)
    t, m, o = schema.tickets, schema.masklets, schema.operations
    if part == "settled":
        with_masklet = t.outerjoin(m, and_(m.c.batch_id == t.c.batch_id, m.c.masklet_id == t.c.masklet_id))
        query = select(t, m.c.content).select_from(with_masklet).where(t.c.batch_id == batch_id)
        query = query.where(t.c.settled.is_not(None), t.c.ticket_id > ticket_id).order_by(t.c.ticket_id)
        query = query if only is None else query.where(t.c.video_id.in_(only))
        settled = tuple(to_settled_ticket(row) for row in c.execute(query.limit(limit)))
        more = f"settled:{settled[-1].ticket_id}" if len(settled) == limit else "operations:"
        return ResultPage(batch=batch, settled=settled, operations=(), next=more)
    query = select(o).where(o.c.batch_id == batch_id, o.c.branch.is_(False))
    query = query.where(o.c.ticket_id.not_in(select(t.c.ticket_id).where(schema.IS_GOLD)))
    query = query if only is None else query.where(o.c.video_id.in_(only))
    query = query.where((o.c.ticket_id > ticket_id) | ((o.c.ticket_id == ticket_id) & (o.c.seq > seq)))
    done = tuple(to_operation(row) for row in c.execute(query.order_by(o.c.ticket_id, o.c.seq).limit(limit)))
    last = f"operations:{done[-1].ticket_id}:{done[-1].seq}" if len(done) == limit else None
    return ResultPage(batch=batch, settled=(), operations=done, next=last)


def _parse_cursor(after: str | None) -> tuple[str, str, int]:
    """The part, the ticket and the seq after which a page of a result begins. Raises ValueError."""
    part, _, rest = (after or "settled:").partition(":")
    if part == "settled":
        return part, rest, 0
    if part == "operations":
        ticket_id, _, seq = rest.rpartition(":")
        if not rest or seq.isdigit():
            return part, ticket_id, int(seq or 0)
    raise ValueError(f"not a place in a result: {after!r}")


def others(c: Connection, ticket_id: str, seen_by: Person | None) -> list[OtherMasklet]:
    """The other masklets of a ticket's video in its batch. See `TicketStore.others`."""
    about = ticket(c, ticket_id)
    text = masklets.content(c, about.batch_id, about.masklet_id)
    frames = None if text is None else MASKLET.validate_json(text).frame_idx
    # one at a time: a video of an hour may have thousands, of which a few share frames with this one
    found = ((row.settled, MASKLET.validate_json(row.content)) for row in c.execute(_other_masklets(about, seen_by)))
    rows = [(settled, other) for settled, other in found if frames is None or _meet(frames, other.frame_idx)]
    is_gold, truth = gold.known_of(c, ticket_id)
    own = [about.masklet_id, *((truth.masklet_id, truth.parent_id) if truth else ())]
    origins = {masklets.origin(c, about.batch_id, masklet_id) for masklet_id in own if masklet_id is not None}
    return [
        OtherMasklet(
            masklet_id=masklet.masklet_id,
            settled=None if settled is None or is_gold else Verdict(settled),
            frame_idx=masklet.frame_idx,
            rle=masklet.rle,
            score=masklet.score,
        )
        for settled, masklet in rows
        if not _is_of(c, masklet, about.batch_id, origins)
    ]


def _other_masklets(about: Ticket, seen_by: Person | None) -> Select[Any]:
    """The last masklets of the other lines of tickets about a video that were not rejected."""
    t, m, le = schema.tickets, schema.masklets, schema.leases
    is_last = t.c.next_ticket_id.is_(None) & (t.c.settled.is_(None) | (t.c.settled != Verdict.REJECT.value))
    query = (
        select(t.c.settled, m.c.content)
        .select_from(t.join(m, and_(m.c.batch_id == t.c.batch_id, m.c.masklet_id == t.c.masklet_id)))
        .where(t.c.batch_id == about.batch_id, t.c.video_id == about.video_id, t.c.ticket_id != about.ticket_id)
        .where(is_last, t.c.gold_id.is_(None))
        .order_by(t.c.ordinal, t.c.ticket_id)
    )
    if seen_by is None:
        return query
    before = schema.tickets.alias()
    theirs = select(before.c.ticket_id).join(le, le.c.ticket_id == before.c.ticket_id)
    theirs = theirs.where(before.c.video_id == about.video_id, before.c.object_id.is_not(None))
    theirs = theirs.where(le.c.person == seen_by.name, schema.HAS_FINISHED)
    untouched = func.coalesce(t.c.previous_ticket_id, "").in_(theirs) & (t.c.lease_token == 0)
    return query.where(t.c.made_by.is_(None) | (t.c.made_by == seen_by.name) | ~untouched)


def _meet(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether the frames of two masklets overlap, in order."""
    return a[0] <= b[-1] and b[0] <= a[-1]


def _is_of(c: Connection, masklet: Masklet, batch_id: str, origins: set[str]) -> bool:
    """Whether a masklet shows the object of one of these origins."""
    if masklet.masklet_id in origins:
        return True
    return masklet.corrected_id is not None and masklets.origin(c, batch_id, masklet.corrected_id) in origins
