"""Rows of the queue's tables as records, and records as rows. Pure: no database, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import fmean
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
    RecentAnswer,
    SettledTicket,
    State,
    Submission,
    Ticket,
)
from annotation_queue.rules import lane_of
from annotation_queue.tickets.sharing import object_of, overlap_of
from storage.records import Masklet, Operation, Verdict, content_id

MASKLET: TypeAdapter[Masklet] = TypeAdapter(Masklet)
OPEN_ROW = {"state": State.OPEN.value, "lease_token": 0, "reasons": ""}  # columns of every new ticket
NOT_RESERVED = dict.fromkeys(("reserved_for", "reserved_until", "assigned_by"))  # of a ticket that anybody may get


def operation_of(
    submission: Submission, *, keep_masklet: bool = False, changed: Mapping[int, bytes] | None = None
) -> NewOperation:
    """The operation that records a submission.

    keep_masklet: write the whole masklet into it, because no row of `masklets` will hold it.
    changed: by frame, the masks of the masklet that do not follow from earlier operations.
    """
    payload: dict[str, Any] = {"reasons": list(submission.reasons), "seconds": submission.seconds}
    payload["watched"] = submission.watched
    payload |= {name: said for name in ("text", "same_as") if (said := getattr(submission, name)) is not None}
    if submission.verdict is not None:
        payload["verdict"] = submission.verdict.value
    if submission.masklet is not None:
        payload["masklet_id"] = submission.masklet.masklet_id
        if keep_masklet:
            payload["masklet"] = MASKLET.dump_python(submission.masklet, mode="json")
    if submission.last_operation_id is not None:
        payload["last_operation_id"] = submission.last_operation_id
    if changed:
        payload["masks"] = {str(frame_idx): counts.decode() for frame_idx, counts in changed.items()}
    return NewOperation(
        operation_id=submission.operation_id,
        kind="submit" if submission.verdict is None else "verdict",
        created_at=submission.created_at,
        frame_idx=submission.frame_idx,
        payload=json.dumps(payload, sort_keys=True),
    )


def sent_masklet(submission: Submission, ticket: Ticket, person: Person) -> Masklet | None:
    """What a client can know of the masklet that it sends: its frames, masks and areas. The queue fills in the rest.

    The id follows from the ticket and the submission, so no other masklet of any batch can have it. Scores, checkpoint,
    round and counts are neutral here: see `draft.with_origin` and `with_effort`.
    """
    if submission.masklet is None:
        return None
    count = len(submission.masklet.frame_idx)
    return replace(
        submission.masklet,
        masklet_id=content_id(ticket.ticket_id, submission.operation_id),
        batch_id=ticket.batch_id,
        score=(1.0,) * count,
        object_score=(0.0,) * count,
        stability=(1.0,) * count,
        kind="manual",
        phase=ticket.phase if ticket.phase != "auto" else submission.masklet.phase,
        round=0,
        checkpoint="",
        prompt="{}",
        parent_id=ticket.masklet_id,
        edited_frame_count=0,
        click_count=0,
        verdict=None,
        verified_by=None,
        annotated_by=person.name,
        split="train",
        source_position=None,
        source_metadata=None,
        label=None,
        attributes=None,
    )


def with_effort(masklet: Masklet, parent: Masklet | None, effort: Iterable[Effort]) -> Masklet:
    """A masklet with its clicks and edited frames: those of its parent, and of each person who worked in its ticket."""
    clicks, edited = (0, 0) if parent is None else (parent.click_count, parent.edited_frame_count)
    for spent in effort:
        clicks, edited = clicks + spent.clicks, edited + spent.edited_frames
    return replace(masklet, click_count=clicks, edited_frame_count=min(edited, len(masklet.frame_idx)))


def mean_score_of(masklet: Masklet | None) -> float | None:
    """The mean of a masklet's scores over the frames with the object; None without a masklet or such a frame."""
    if masklet is None:
        return None
    scores = [score for score, area in zip(masklet.score, masklet.area_px, strict=True) if area]
    return fmean(scores) if scores else None


def row_of(
    ticket: NewTicket, batch_id: str, now: float, ordinal: int, policy: QueuePolicy, project: str
) -> dict[str, Any]:
    """The row of a pipeline's new ticket."""
    masklet_id, made_by = (None, None)
    if ticket.masklet is not None:
        masklet_id, made_by = ticket.masklet.masklet_id, ticket.masklet.annotated_by
    overlap = overlap_of(ticket.ticket_id, ticket.kind, policy, masklet_id=masklet_id, made_by=made_by)
    done = ticket.decided is not None
    return OPEN_ROW | {
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
        "skill": ticket.skill,
        "lane": lane_of(needs_lead=False, skill=ticket.skill, project=project),
        "project": project,
        "rework": False,
        "overlap": overlap,
        "object_id": object_of(ticket.ticket_id, ticket.kind, overlap),
        "checkpoint": "" if ticket.masklet is None else ticket.masklet.checkpoint,
        "mean_score": mean_score_of(ticket.masklet),
        "label": None if ticket.masklet is None else ticket.masklet.label,
        "attributes": None if ticket.masklet is None else ticket.masklet.attributes,
        "state": State.DONE.value if done else State.OPEN.value,
        "verdict": ticket.decided,
        "settled": ticket.decided,
        "finished_by": ticket.decided_by,
        "finished_at": now if done else None,
    }


def labelled(masklet: Masklet, row: Row[Any]) -> Masklet:
    """A masklet with the label of its ticket, which may have been chosen after the masklet was made."""
    return replace(masklet, label=row.label, attributes=row.attributes)


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
        verdict=_verdict(row.verdict),
        reasons=to_reasons(row.reasons),
        finished_by=row.finished_by,
        next_ticket_id=row.next_ticket_id,
        skill=row.skill,
        sent_back_by=row.sent_back_by,
        rework=bool(row.rework),
        label=row.label,
        attributes=row.attributes,
        project=row.project,
    )


def to_recent_answer(row: Row[Any]) -> RecentAnswer:
    """A row of `leases` that ended with an answer, with its ticket's `batch_id`, `kind` and `video_id`."""
    return RecentAnswer(
        ticket_id=row.ticket_id,
        batch_id=row.batch_id,
        kind=Kind(row.kind),
        video_id=row.video_id,
        verdict=_verdict(row.verdict),
        reasons=to_reasons(row.reasons),
        finished_at=row.finished_at,
        seconds=row.seconds,
    )


def to_batch(row: Row[Any]) -> Batch:
    """A row of `batches`."""
    return Batch(
        batch_id=row.batch_id,
        opened_at=row.created_at,
        sealed=bool(row.sealed),
        total=row.total,
        remaining=row.remaining,
        drained=row.drained_at is not None,
        name=row.name,
        project=row.project,
    )


def to_settled_ticket(row: Row[Any]) -> SettledTicket:
    """A row of `tickets` that is settled, with the `content` of its masklet."""
    masklet = None
    if row.content is not None:
        masklet = labelled(MASKLET.validate_json(row.content), row)
        masklet = replace(masklet, verdict=row.settled, verified_by=row.finished_by)
    return SettledTicket(
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


def _verdict(text: str | None) -> Verdict | None:
    return None if text is None else Verdict(text)


def to_reasons(text: str | None) -> tuple[Reason, ...]:
    """The column `reasons`."""
    return tuple(Reason(reason) for reason in (text or "").split(",") if reason)
