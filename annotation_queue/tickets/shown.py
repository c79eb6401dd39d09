"""What people who do the work are shown of the queue's records: nothing by which gold and real work differ. Pure.

A person who annotates or verifies sees a ticket as it was when they worked on it, with their own answer. What became of
it afterwards, its batch and its place in the queue are left out: gold settles nothing, leads to nothing, and comes from
a batch that may be finished long ago. Leads, admins and the pipeline see everything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from annotation_queue.records import (
    Comment,
    FinishResult,
    HistoryPage,
    OtherMasklet,
    Person,
    Reason,
    RecentAnswer,
    State,
    Stats,
    Ticket,
)
from annotation_queue.rules import OVERSEERS
from storage.records import Operation, Verdict

# Fields of a masklet that a candidate of the pipeline does not have yet, and that one of a published batch has.
_OF_PUBLISHED = {
    "batch_id": "",
    "verdict": None,
    "verified_by": None,
    "split": "train",
    "source_position": None,
    "source_metadata": None,
}


@dataclass(frozen=True, kw_only=True)
class OwnAnswer:
    """How a person answered a ticket, and under which lease."""

    token: int
    verdict: Verdict | None  # None: with a masklet
    reasons: tuple[Reason, ...]


def sees_all(person: Person) -> bool:
    """Whether a person sees the records as they are."""
    return bool(person.roles & OVERSEERS)


def ticket(record: Ticket, to: Person, answer: OwnAnswer | None = None) -> Ticket:
    """A ticket as it is shown to a person. answer: theirs, if they have finished it and do not hold it now."""
    if sees_all(to):
        return record
    seen = replace(record, batch_id="", priority=0, skill=None, previous_ticket_id=None, next_ticket_id=None)
    # the masklet has the label that the ticket came with; a finished ticket may have another person's
    seen = replace(seen, label=None, attributes=None)
    if answer is None:
        return seen
    return replace(
        seen,
        state=State.DONE,
        lease_token=answer.token,
        leased_by=None,
        expires_at=None,
        verdict=answer.verdict,
        reasons=answer.reasons,
        finished_by=to.name,
    )


def finished(result: FinishResult, to: Person, answer: OwnAnswer) -> FinishResult:
    """The response to an answer as it is shown to the person who gave it."""
    if sees_all(to):
        return result
    return FinishResult(
        ticket=ticket(result.ticket, to, answer), next_ticket_id=None, settled=None, batch_drained=False
    )


def masklet_json(content: str, to: Person) -> str:
    """A masklet, as JSON of its record, as it is shown to a person."""
    if sees_all(to):
        return content
    record: dict[str, Any] = json.loads(content)
    return json.dumps(record | {key: value for key, value in _OF_PUBLISHED.items() if key in record})


def others(records: list[OtherMasklet], to: Person) -> list[OtherMasklet]:
    """The other masklets of a video as they are shown to a person: in a finished batch, all would be settled."""
    return records if sees_all(to) else [replace(record, settled=None) for record in records]


def operations(records: list[Operation], to: Person, *, only_own: bool) -> list[Operation]:
    """The operations of a ticket as they are shown to a person.

    only_own: theirs alone. One verifier's verdict must not influence another's, and gold has no second verifier.
    """
    if sees_all(to):
        return records
    return [_without_masklet(record) for record in records if not only_own or record.person == to.name]


def kept(records: list[Operation], to: Person) -> list[Operation]:
    """Operations that came too late as they are shown to the person who sent them. All of them carry the masklet."""
    return records if sees_all(to) else [replace(record, batch_id="") for record in records]


def recent(records: list[RecentAnswer], to: Person) -> list[RecentAnswer]:
    """A person's last answers as they are shown to them."""
    return records if sees_all(to) else [replace(record, batch_id="") for record in records]


def history(record: HistoryPage, to: Person) -> HistoryPage:
    """A person's finished tickets as they are shown to them."""
    return replace(record, answers=tuple(recent(list(record.answers), to)))


def comments(records: list[Comment], on: Ticket, to: Person) -> list[Comment]:
    """The comments of a thread as they are shown to a person at a ticket: without the ids of the tickets before it."""
    if sees_all(to):
        return records
    return [replace(record, ticket_id=on.ticket_id if record.ticket_id == on.ticket_id else "") for record in records]


def stats(record: Stats, to: Person) -> Stats:
    """The queue in numbers as they are shown to a person: without the tickets, since gold is not among them."""
    return record if sees_all(to) else Stats(counts=(), paces=record.paces, undelivered=0)


def _without_masklet(record: Operation) -> Operation:
    """The operation without its batch, and without the masklet that only operations in gold keep in their payload."""
    payload = json.loads(record.payload)
    if "masklet" in payload:
        payload = {key: value for key, value in payload.items() if key != "masklet"}
        return replace(record, batch_id="", payload=json.dumps(payload))
    return replace(record, batch_id="")
