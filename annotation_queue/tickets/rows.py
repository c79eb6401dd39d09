"""Rows of the queue's tables as records, and records as rows. Pure: no database, no clock."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row

from annotation_queue.effort import Effort
from annotation_queue.records import (
    Batch,
    Kind,
    NewOperation,
    NewTicket,
    Person,
    QueuePolicy,
    Reason,
    Recent,
    Settled,
    State,
    Submission,
    Ticket,
)
from annotation_queue.rules import is_in_share, lane_of
from storage import overlap
from storage.records import Masklet, Operation, Verdict

MASKLET: TypeAdapter[Masklet] = TypeAdapter(Masklet)


def holds(ticket: Ticket, token: int, person: Person) -> bool:
    """Whether this lease is the one that the ticket is under."""
    return ticket.state is State.LEASED and ticket.lease_token == token and ticket.leased_by == person.name


@dataclass(frozen=True)
class Majority:
    """What a ticket comes to: the columns of the answer that it follows."""

    verdict: str | None
    reasons: str | None
    person: str
    seconds: float | None


def majority(answers: Sequence[Row[Any]]) -> Majority:
    """What the answers to a ticket come to, rows of `leases` in their order: what more than half of them say, in the
    words of the last of these; UNSURE, so that a lead decides, if there is no such verdict.
    """
    (verdict, count), *_ = Counter(answer.verdict for answer in answers).most_common(1)
    if 2 * count > len(answers):
        last = [answer for answer in answers if answer.verdict == verdict][-1]
        return Majority(verdict, last.reasons, last.person, last.seconds)
    return Majority(Verdict.UNSURE.value, "", answers[-1].person, answers[-1].seconds)


def closest(masklets: Sequence[Masklet]) -> tuple[Masklet, list[float]]:
    """Of several people's masklets of one object, the one that is closest to the others, the earliest of equals; and
    each one's mean IoU over time with the others.
    """
    agreement, others = [0.0] * len(masklets), max(1, len(masklets) - 1)
    for a, b in combinations(range(len(masklets)), 2):
        same = overlap.mean_iou(masklets[a], masklets[b]) / others
        agreement[a] += same
        agreement[b] += same
    return masklets[agreement.index(max(agreement))], agreement


def act_of(
    outcome: Submission, *, keep_masklet: bool = False, beside: Mapping[int, bytes] | None = None
) -> NewOperation:
    """The operation that records an outcome; with the masklet itself where no row of `masklets` will hold it.

    beside: the masks of the masklet that do not follow from what was done before, by frame.
    """
    payload: dict[str, Any] = {"reasons": list(outcome.reasons), "seconds": outcome.seconds}
    if outcome.verdict is not None:
        payload["verdict"] = outcome.verdict.value
    if outcome.masklet is not None:
        payload["masklet_id"] = outcome.masklet.masklet_id
        if keep_masklet:
            payload["masklet"] = MASKLET.dump_python(outcome.masklet, mode="json")
    if beside:
        payload["masks"] = {str(frame_idx): counts.decode() for frame_idx, counts in beside.items()}
    return NewOperation(
        operation_id=outcome.operation_id,
        kind="submit" if outcome.verdict is None else "verdict",
        created_at=outcome.created_at,
        frame_idx=outcome.frame_idx,
        payload=json.dumps(payload, sort_keys=True),
    )


def made_masklet(
    masklet: Masklet, ticket: Ticket, person: Person, parent: Masklet | None, effort: Iterable[Effort]
) -> Masklet:
    """The masklet with what the queue knows better than the client that sent it.

    effort: of everybody who worked on it in this ticket; what its parent cost is added.
    """
    clicks, edited = (0, 0) if parent is None else (parent.click_count, parent.edited_frame_count)
    for done in effort:
        clicks, edited = clicks + done.clicks, edited + done.edited_frames
    return replace(
        masklet,
        batch_id=ticket.batch_id,
        kind="manual",
        phase=ticket.phase if ticket.phase != "auto" else masklet.phase,
        parent_id=ticket.masklet_id,
        annotated_by=person.name,
        verdict=None,
        verified_by=None,
        click_count=clicks,
        edited_frame_count=min(edited, len(masklet.frame_idx)),
    )


def overlap_of(
    ticket_id: str,
    kind: Kind,
    policy: QueuePolicy,
    *,
    masklet_id: str | None,
    made_by: str | None = None,
    needs_lead: bool = False,
) -> int:
    """How many answers a ticket takes: verdicts, or masklets of the same object."""
    if kind is Kind.VERIFY and not needs_lead and is_in_share(ticket_id, policy.overlap_share):
        return max(1, policy.overlap)
    # only where something says which object it is; what a person made is theirs to correct
    begins = kind is Kind.TRACK and masklet_id is not None and made_by is None
    return max(1, policy.makers) if begins and is_in_share(ticket_id, policy.makers_share) else 1


def object_of(ticket_id: str, kind: Kind, overlap: int) -> str | None:
    """What the tickets have in common in which several people make one masklet: the id of the first of them."""
    return ticket_id if kind is Kind.TRACK and overlap > 1 else None


def row_of(ticket: NewTicket, batch_id: str, now: float, ordinal: int, policy: QueuePolicy) -> dict[str, Any]:
    """A new ticket of the pipeline."""
    masklet_id, made_by = (None, None)
    if ticket.masklet is not None:
        masklet_id, made_by = ticket.masklet.masklet_id, ticket.masklet.annotated_by
    overlap = overlap_of(ticket.ticket_id, ticket.kind, policy, masklet_id=masklet_id, made_by=made_by)
    return {
        "ticket_id": ticket.ticket_id,
        "batch_id": batch_id,
        "kind": ticket.kind.value,
        "video_id": ticket.video_id,
        "masklet_id": masklet_id,
        "phase": ticket.phase,
        "priority": ticket.priority,
        "payload": ticket.payload,
        "made_by": made_by,
        "needs_lead": False,
        "attempt": 1,
        "created_at": now,
        "ordinal": ordinal,
        "state": State.OPEN.value,
        "lease_token": 0,
        "reasons": "",
        "skill": ticket.skill,
        "lane": lane_of(needs_lead=False, skill=ticket.skill),
        "rework": False,
        "overlap": overlap,
        "object_id": object_of(ticket.ticket_id, ticket.kind, overlap),
        "checkpoint": "" if ticket.masklet is None else ticket.masklet.checkpoint,
    }


def to_reasons(text: str) -> tuple[Reason, ...]:
    """The reasons of a comma-separated list."""
    return tuple(Reason(reason) for reason in text.split(",") if reason)


def to_ticket(row: Row[Any]) -> Ticket:
    """A row of `tickets`."""
    return Ticket(
        ticket_id=row.ticket_id,
        batch_id=row.batch_id,
        kind=Kind(row.kind),
        video_id=row.video_id,
        masklet_id=row.masklet_id,
        phase=row.phase,
        priority=row.priority,
        payload=row.payload,
        state=State(row.state),
        made_by=row.made_by,
        needs_lead=bool(row.needs_lead),
        attempt=row.attempt,
        previous_ticket_id=row.previous_ticket_id,
        lease_token=row.lease_token,
        leased_by=row.leased_by,
        expires_at=row.expires_at,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        reasons=to_reasons(row.reasons),
        finished_by=row.finished_by,
        next_ticket_id=row.next_ticket_id,
        skill=row.skill,
        sent_back_by=row.sent_back_by,
        rework=bool(row.rework),
    )


def to_recent(row: Row[Any]) -> Recent:
    """A row of `leases` that ended with an answer, beside its ticket's `batch_id`, `kind` and `video_id`."""
    return Recent(
        ticket_id=row.ticket_id,
        batch_id=row.batch_id,
        kind=Kind(row.kind),
        video_id=row.video_id,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        reasons=to_reasons(row.reasons or ""),
        finished_at=row.finished_at,
        seconds=row.seconds,
    )


def to_batch(row: Row[Any] | None) -> Batch:
    """A row of `batches`."""
    assert row is not None
    return Batch(
        batch_id=row.batch_id,
        sealed=bool(row.sealed),
        total=row.total,
        remaining=row.remaining,
        drained=row.drained_at is not None,
    )


def to_settled(row: Row[Any]) -> Settled:
    """A row of `tickets` that is settled, with the `content` of its masklet."""
    masklet = None
    if row.content is not None:
        masklet = MASKLET.validate_json(row.content)
        masklet = replace(masklet, verdict=row.settled, verified_by=row.finished_by)
    return Settled(
        ticket_id=row.ticket_id,
        video_id=row.video_id,
        verdict=Verdict(row.settled),
        reasons=to_reasons(row.reasons),
        decided_by=row.finished_by,
        masklet=masklet,
    )


def to_operation(row: Row[Any]) -> Operation:
    """A row of `operations`."""
    return Operation(
        operation_id=row.operation_id,
        ticket_id=row.ticket_id,
        batch_id=row.batch_id,
        video_id=row.video_id,
        masklet_id=row.masklet_id,
        person=row.person,
        kind=row.kind,
        frame_idx=row.frame_idx,
        payload=row.payload,
        created_at=row.created_at,
        seq=row.seq,
    )


def parse_cursor(after: str | None) -> tuple[str, str, int]:
    """The part, the ticket and the seq after which a page of a result begins. Raises ValueError."""
    part, _, rest = (after or "settled:").partition(":")
    if part == "settled":
        return part, rest, 0
    if part == "operations":
        ticket_id, _, seq = rest.rpartition(":")
        if not rest or seq.isdigit():
            return part, ticket_id, int(seq or 0)
    raise ValueError(f"not a place in a result: {after!r}")
