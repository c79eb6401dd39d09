"""The outbox of notices: which events are known, and what each endpoint has received of them.

An event is found, not announced: whoever looks at what is stored finds it, also after a kill. Its id is derived from
what happened, so finding it again changes nothing. Knows no HTTP and no settings. An endpoint is a name here.

    notices             the events, each with the exact text that is sent
    notice_deliveries   what each endpoint still has to receive, or has received
    notice_sources      what has been looked at before: older events are not news
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, update

from annotation_queue import schema
from annotation_queue.database import Database, insert_new
from annotation_queue.records import Kind

DELIVERY_S = 120.0  # how long one delivery may take before another process tries
# Waits after failed deliveries, in seconds; the last one repeats. They are those that Standard Webhooks recommends.
RETRY_S = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
_IDS_AT_ONCE = 500  # parameters of one query


class Event(StrEnum):
    """What people and programs are told about."""

    BATCH_DRAINED = "batch.drained"  # every ticket of a batch is settled
    RELEASE_PUBLISHED = "release.published"
    ROUND_PROMOTED = "round.promoted"  # its checkpoint serves now
    ROUND_REFUSED = "round.refused"  # by the gate, or by the person who was asked
    ROUND_WAITS = "round.waits"  # it passed the gate, and waits for a person's approval
    TICKET_WAITS = "ticket.waits"  # nobody took it for too long


class Failure(StrEnum):
    """Why an endpoint did not receive a notice."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    ANSWER = "answer"  # it answered, but not with success; see `status`
    GONE = "gone"  # it answered 410: it wants no more, and is not asked again by itself
    REFUSED = "refused"  # the service for e-mail or chat did not take it


@dataclass(frozen=True, kw_only=True)
class Notice:
    """An event as it is sent."""

    notice_id: str
    event: Event
    payload: str  # JSON: type, timestamp, data
    project: str = ""  # that it is about


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Who receives notices."""

    name: str
    events: frozenset[Event]  # those that it receives
    projects: frozenset[str] | None = None  # only what is about these; None: everything


@dataclass(frozen=True, kw_only=True)
class Due:
    """One notice that one endpoint has to receive now."""

    endpoint: str
    notice: Notice
    attempts: int  # with this one


@dataclass(frozen=True, kw_only=True)
class FailedNotice:
    """A notice that an endpoint has not received, and why."""

    notice_id: str
    event: Event
    endpoint: str
    failure: Failure
    status: int | None  # of the HTTP answer
    detail: str  # one line; contains no URL and no secret
    attempts: int
    since: float  # s since the epoch, of the first failure
    next_at: float | None  # s since the epoch; None: not by itself


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The tickets of one batch and kind that nobody took for too long."""

    batch_id: str
    kind: Kind
    tickets: int
    since: float  # s since the epoch: when the oldest one was opened
    ticket_id: str  # the oldest one
    project: str


def notice_id(event: Event, subject: str) -> str:
    """The id of a notice, which follows from what happened to what."""
    return f"msg_{hashlib.sha256(f'{event} {subject}'.encode()).hexdigest()[:32]}"


def notice(event: Event, subject: str, data: dict[str, Any], at: float) -> Notice:
    """A notice about a subject. at: s since the epoch."""
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    payload = json.dumps({"type": event.value, "timestamp": when, "data": data}, ensure_ascii=False)
    project = str(data.get("project", ""))
    return Notice(notice_id=notice_id(event, subject), event=event, payload=payload, project=project)


def unknown(c: Connection, notice_ids: Sequence[str]) -> set[str]:
    """Those of these ids that the outbox does not have."""
    n, known = schema.notices, set[str]()
    for start in range(0, len(notice_ids), _IDS_AT_ONCE):
        some = notice_ids[start : start + _IDS_AT_ONCE]
        known |= set(c.scalars(select(n.c.notice_id).where(n.c.notice_id.in_(some))))
    return set(notice_ids) - known


def add(
    database: Database, source: str | None, found: Sequence[Notice], endpoints: Sequence[Endpoint], now: float
) -> int:
    """Store the notices of a look at `source`; known ones are skipped. Returns how many are new and will be sent.

    All or none are stored. The first look at a source sends nothing: what it finds happened before there were notices.
    source: None if even the first look finds only what is true now.
    """
    with database.read() as c:
        s = schema.notice_sources
        seen = source is None or c.scalar(select(func.count()).select_from(s).where(s.c.source == source))
        wanted = unknown(c, [each.notice_id for each in found])
        if seen and not wanted:
            return 0
    found = [each for each in found if each.notice_id in wanted]
    with database.write() as c:
        first = source is not None and insert_new(c, schema.notice_sources, {"source": source, "first_look_at": now})
        new = 0
        for each in found:
            row = {
                "notice_id": each.notice_id,
                "event": each.event.value,
                "payload": each.payload,
                "created_at": now,
            }
            receivers = [] if first else [one for one in endpoints if _receives(one, each)]
            if insert_new(c, schema.notices, row) and receivers:
                rows = [
                    {"notice_id": each.notice_id, "endpoint": one.name, "not_before": now, "attempts": 0}
                    for one in receivers
                ]
                c.execute(insert(schema.notice_deliveries), rows)
                new += 1
    return new


def _receives(endpoint: Endpoint, about: Notice) -> bool:
    mine = endpoint.projects is None or about.project in endpoint.projects
    return mine and about.event in endpoint.events


def take(database: Database, endpoint: str, now: float) -> Due | None:
    """The next notice that is due for an endpoint; for DELIVERY_S no other process takes it."""
    n, d = schema.notices, schema.notice_deliveries
    due = select(d.c.notice_id).where(
        d.c.endpoint == endpoint, d.c.delivered_at.is_(None), d.c.not_before.is_not(None), d.c.not_before <= now
    )
    due = due.order_by(d.c.not_before, d.c.notice_id).limit(1)
    with database.read() as c:
        if c.execute(due).first() is None:  # the usual case needs no writer
            return None
    chosen = due.with_for_update(skip_locked=True).scalar_subquery()
    taken = update(d).where(d.c.endpoint == endpoint, d.c.notice_id == chosen)
    with database.write() as c:
        values = {"attempts": d.c.attempts + 1, "not_before": now + DELIVERY_S}
        row = c.execute(taken.values(**values).returning(d)).first()
        if row is None:
            return None
        told = c.execute(select(n).where(n.c.notice_id == row.notice_id)).one()
    found = Notice(notice_id=told.notice_id, event=Event(told.event), payload=told.payload)
    return Due(endpoint=endpoint, notice=found, attempts=row.attempts)


def delivered(database: Database, due: Due, now: float) -> None:
    """Note that an endpoint has received a notice."""
    _change(database, due, {"delivered_at": now, "failure": None, "status": None, "detail": None})


def failed(database: Database, due: Due, failure: Failure, status: int | None, detail: str, now: float) -> None:
    """Note that an endpoint has not received a notice, and when to try again."""
    wait = RETRY_S[min(due.attempts, len(RETRY_S)) - 1]
    d = schema.notice_deliveries
    changed = {
        "failure": failure.value,
        "status": status,
        "detail": detail,
        "failed_since": func.coalesce(d.c.failed_since, now),
        "not_before": None if failure is Failure.GONE else now + wait,
    }
    _change(database, due, changed)


def _change(database: Database, due: Due, values: dict[str, Any]) -> None:
    d = schema.notice_deliveries
    here = and_(d.c.notice_id == due.notice.notice_id, d.c.endpoint == due.endpoint)
    with database.write() as c:
        c.execute(update(d).where(here).values(**values))


def failures(c: Connection) -> list[FailedNotice]:
    """The notices that an endpoint has not received although it was tried, the oldest first."""
    n, d = schema.notices, schema.notice_deliveries
    query = select(d, n.c.event).join(n, n.c.notice_id == d.c.notice_id)
    query = query.where(d.c.delivered_at.is_(None), d.c.failure.is_not(None))
    return [_to_failed(row) for row in c.execute(query.order_by(d.c.failed_since, d.c.notice_id, d.c.endpoint))]


def _to_failed(row: Row[Any]) -> FailedNotice:
    return FailedNotice(
        notice_id=row.notice_id,
        event=Event(row.event),
        endpoint=row.endpoint,
        failure=Failure(row.failure),
        status=row.status,
        detail=row.detail,
        attempts=row.attempts,
        since=row.failed_since,
        next_at=row.not_before,
    )


def counts(c: Connection) -> dict[str, tuple[int, int]]:
    """By endpoint: how many notices it has received, and how many it has not."""
    d = schema.notice_deliveries
    query = select(d.c.endpoint, func.count(d.c.delivered_at), func.count()).group_by(d.c.endpoint)
    return {name: (received, every - received) for name, received, every in c.execute(query.order_by(d.c.endpoint))}


def try_again(database: Database, now: float) -> int:
    """Let every failed notice be sent at once, also those whose endpoint was gone. Returns how many."""
    d = schema.notice_deliveries
    again = update(d).where(d.c.delivered_at.is_(None), d.c.failure.is_not(None)).values(not_before=now)
    with database.write() as c:
        return c.execute(again).rowcount


def drained(c: Connection) -> list[Row[Any, Any, Any, Any]]:
    """The rows of the drained batches that the outbox lacks, in the order in which they were drained."""
    b = schema.batches
    query = select(b.c.batch_id, b.c.total, b.c.drained_at, b.c.project).where(b.c.drained_at.is_not(None))
    rows = c.execute(query.order_by(b.c.drained_at, b.c.batch_id)).all()
    wanted = unknown(c, [notice_id(Event.BATCH_DRAINED, row.batch_id) for row in rows])
    return [row for row in rows if notice_id(Event.BATCH_DRAINED, row.batch_id) in wanted]


def waiting(c: Connection, opened_before: float) -> list[Waiting]:
    """The open tickets that were opened before then (s since the epoch), by batch and kind. Gold is left out.

    Reads every open ticket, so it is asked rarely.
    """
    t = schema.tickets
    old = and_(schema.IS_OPEN, t.c.gold_id.is_(None), t.c.created_at < opened_before)
    place = func.row_number().over(partition_by=(t.c.batch_id, t.c.kind), order_by=(t.c.created_at, t.c.ticket_id))
    every = func.count().over(partition_by=(t.c.batch_id, t.c.kind))
    columns = (t.c.batch_id, t.c.project, t.c.kind, t.c.ticket_id, t.c.created_at)
    ranked = select(*columns, place.label("place"), every.label("every"))
    inner = ranked.where(old).subquery()
    oldest = select(inner).where(inner.c.place == 1).order_by(inner.c.batch_id, inner.c.kind)
    return [
        Waiting(
            batch_id=row.batch_id,
            kind=Kind(row.kind),
            tickets=row.every,
            since=row.created_at,
            ticket_id=row.ticket_id,
            project=row.project,
        )
        for row in c.execute(oldest)
    ]
