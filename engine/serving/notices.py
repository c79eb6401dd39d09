"""Finds what people and programs are told about, in the queue's database and in the store.

Every event is derived from what is stored, so nothing is lost if a process dies between the act and the notice. Knows
who receives notices only by name. `webhooks.py` sends them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from annotation_queue import notices
from annotation_queue.database import Database
from annotation_queue.notices import Endpoint, Event, Notice, notice_id
from engine.rounds import record
from engine.rounds.record import RoundResult
from engine.services import Services
from storage.dataset import releases

HOUR_S = 3600.0


def endpoints(s: Services) -> list[Endpoint]:
    """The endpoints of the settings, with the events and projects that each receives."""
    configured = s.settings.notices
    return [
        Endpoint(
            name=one.name,
            events=frozenset(map(Event, one.events or Event)),
            projects=frozenset(one.projects) if one.projects else None,
        )
        for one in (*configured.webhooks, *configured.apprise)
    ]


def look(s: Services, database: Database, now: float) -> int:
    """Stores the notices of what happened since the last look in batches, releases and rounds. Returns how many.

    Its cost: one query over the batches, and one listing each of releases and of rounds. Only new ones are read.
    A source that cannot be read does not stop the others. Raises its error at the end.
    """
    sources: dict[str, Callable[[], list[Notice]]] = {
        "batches": lambda: drained(database),
        "releases": lambda: published(s, database, now),
        "rounds": lambda: decided(s, database, now),
    }
    receivers, new, errors = endpoints(s), 0, list[Exception]()
    for source, find in sources.items():
        try:
            new += notices.add(database, source, find(), receivers, now)
        except Exception as error:  # of the store or of the database: the next look finds the same events
            errors.append(error)
    if errors:
        raise errors[0]
    return new


def look_at_tickets(s: Services, database: Database, now: float) -> int:
    """Stores a notice about the tickets that nobody took for too long. Returns how many are new."""
    limit_h = s.settings.notices.ticket_waits_h
    if limit_h == 0:
        return 0
    return notices.add(database, None, waiting(s, database, limit_h * HOUR_S, now), endpoints(s), now)


def drained(database: Database) -> list[Notice]:
    """A notice for each drained batch that the outbox does not have."""
    with database.read() as c:
        rows = notices.drained(c)
    return [
        notices.notice(
            Event.BATCH_DRAINED,
            row.batch_id,
            {"batch_id": row.batch_id, "tickets": row.total} | _named(row.project),
            row.drained_at,
        )
        for row in rows
    ]


def published(s: Services, database: Database, now: float) -> list[Notice]:
    """A notice for each release that the outbox does not have."""
    found = []
    for name in _unknown(database, Event.RELEASE_PUBLISHED, releases.names(s.blobs)):
        release = releases.load(s.blobs, name)
        sizes = {kind: release.counts.get(kind) for kind in ("videos", "masklets", "masks")}
        data = {"release": name, "batch_id": release.extra.get("batch_id"), **sizes}
        data |= _named(releases.project_of(name))
        found.append(notices.notice(Event.RELEASE_PUBLISHED, name, data, now))
    return found


def decided(s: Services, database: Database, now: float) -> list[Notice]:
    """A notice for each round that was promoted, was refused, or waits for approval, and that the outbox does not have.

    A round that waited has a second notice once a person has answered.
    """
    ids = record.ids(s)
    with database.read() as c:
        subjects = {
            round_id: [notice_id(Event.ROUND_PROMOTED, round_id), notice_id(Event.ROUND_REFUSED, round_id)]
            for round_id in ids
        }
        unknown = notices.unknown(c, [each for both in subjects.values() for each in both])
    found = []
    for round_id in (one for one in ids if set(subjects[one]) <= unknown):
        result, event = record.result_of(s, round_id), Event.ROUND_WAITS
        if result is not None:
            event = Event.ROUND_PROMOTED if result.promoted else Event.ROUND_REFUSED
        else:
            result = record.waiting_of(s, round_id)
        if result is not None:
            found.append(notices.notice(event, round_id, _of_round(s, result), now))
    return found


def waiting(s: Services, database: Database, limit_s: float, now: float) -> list[Notice]:
    """A notice for each batch and kind with tickets that were opened more than `limit_s` seconds ago.

    Tickets that were opened within the same `limit_s` share one notice, so a batch of hundreds makes one.
    """
    with database.read() as c:
        found = notices.waiting(c, now - limit_s)
    made = []
    for old in found:
        since = datetime.fromtimestamp(old.since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        data = {
            "batch_id": old.batch_id,
            "kind": old.kind.value,
            "tickets": old.tickets,
            "oldest": {"ticket_id": old.ticket_id, "since": since},
            "url": s.settings.queue_url,
        } | _named(old.project)
        subject = f"{old.batch_id} {old.kind} {math.floor(old.since / limit_s)}"
        made.append(notices.notice(Event.TICKET_WAITS, subject, data, now))
    return made


def _of_round(s: Services, result: RoundResult) -> dict[str, object]:
    """What a notice says about a round. J&F in [0, 1]."""
    begun = record.start_of(s, result.round_id)
    said = dataclasses.asdict(result)
    kept = {name: said[name] for name in ("reasons", "jf_before", "jf_after", "masklets")}
    return {"round_id": result.round_id, "release": begun.release, "parent": begun.parent, **kept} | _named(
        releases.project_of(begun.release)
    )


def _named(project: str) -> dict[str, str]:
    """What a notice says of its project; nothing of the unnamed one."""
    return {"project": project} if project else {}


def _unknown(database: Database, event: Event, subjects: Iterable[str]) -> Sequence[str]:
    """Those of these subjects about which the outbox has no such notice."""
    by_id = {notice_id(event, subject): subject for subject in subjects}
    with database.read() as c:
        wanted = notices.unknown(c, list(by_id))
    return [subject for found, subject in by_id.items() if found in wanted]
