"""Between the pipeline and people: candidates become tickets, and what people decided becomes parts.

Everything goes over the queue's HTTP interface, as for any other program. Opening and collecting may run twice; the
second time changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from annotation_queue.records import BatchResult, Kind, NewGold, NewTicket, Settled
from engine.services import Services
from engine.stages import batches, phases
from engine.stages.batches import BatchStage
from storage import overlap, parts
from storage.records import Masklet, Operation, Verdict, Video, content_id


class NotDrained(Exception):
    """People are still at work on this batch."""


@dataclass(frozen=True)
class Collected:
    """What people made of a batch."""

    accepted: int
    rejected: int
    operations: int


def to_open(s: Services) -> list[str]:
    """The batches that have candidates and no tickets yet."""
    return batches.pending(s.blobs, BatchStage.IN_REVIEW)


def open_batch(s: Services, batch_id: str) -> int:
    """Opens a ticket for every candidate of a batch and returns how many there are.

    A candidate of a held-out video is judged like any other, unless held-out videos are masked by hand: then it only
    points an annotator to the object, who masks every frame of it (phase 1), so that no model shapes its own exam.
    """
    review = s.settings.review
    tickets = []
    for row in parts.rows(s.blobs, "candidates", batch_id):
        by_hand = review.held_out_by_hand and row.split == "val"
        kind, phase = (Kind.TRACK, "1") if by_hand else (Kind.VERIFY, review.phase)
        tickets.append(
            NewTicket(
                ticket_id=content_id(batch_id, row.masklet_id, kind.value),
                kind=kind,
                video_id=row.video_id,
                masklet=row,
                phase=phase,
                payload=phases.payload(phase),
            )
        )
    if review.select:
        tickets += [_selection(s, batch_id, video.video_id) for video in _videos(s, batch_id)]
    batch = s.queue.open_batch(batch_id, tickets)
    batches.mark(s.blobs, batch_id, BatchStage.IN_REVIEW, {"tickets": len(tickets)})
    return batch.total


def _selection(s: Services, batch_id: str, video_id: str) -> NewTicket:
    """A ticket to pick an object by hand, handed out after those about candidates."""
    phase = s.settings.review.phase
    return NewTicket(
        ticket_id=content_id(batch_id, video_id, Kind.SELECT.value),
        kind=Kind.SELECT,
        video_id=video_id,
        phase=phase,
        priority=-1,
        payload=phases.payload(phase),
    )


def to_collect(s: Services) -> list[str]:
    """The batches whose last ticket is closed and whose results are not in parts yet."""
    waiting = batches.pending(s.blobs, BatchStage.COLLECTED)
    return sorted(set(waiting) & set(s.queue.drained_batches())) if waiting else []


def collect(s: Services, batch_id: str) -> Collected:
    """Writes the accepted masklets and all operations of a drained batch as parts, one a video.

    Raises NotDrained; NoSuchBatch if the queue does not know the batch.
    """
    result = s.queue.batch_result(batch_id)
    if not result.batch.drained:
        raise NotDrained(f"batch {batch_id} has {result.batch.remaining} of {result.batch.total} tickets to do")
    facts = batches.facts(s.blobs, batch_id, BatchStage.INGESTED)
    if facts is None:
        raise batches.UnknownBatch(f"no such batch: {batch_id}")
    splits = {video.video_id: video.split for video in _videos(s, batch_id)}
    accepted: dict[str, list[Masklet]] = defaultdict(list)
    for decision in result.settled:
        if decision.verdict is Verdict.ACCEPT and decision.masklet is not None:
            row = replace(decision.masklet, batch_id=batch_id, split=splits[decision.video_id])
            accepted[decision.video_id].append(row)
    operations: dict[str, list[Operation]] = defaultdict(list)
    for operation in result.operations:
        operations[operation.video_id].append(replace(operation, batch_id=batch_id))
    for video_id in facts["videos"]:
        rows = sorted(accepted[video_id], key=lambda m: m.masklet_id)
        acts = sorted(operations[video_id], key=lambda o: (o.ticket_id, o.seq, o.operation_id))
        parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=video_id, rows=rows)
        parts.write_part(s.blobs, kind="operations", batch_id=batch_id, video_id=video_id, rows=acts)
    counts = Counter(decision.verdict for decision in result.settled)
    report = Collected(counts[Verdict.ACCEPT], counts[Verdict.REJECT], len(result.operations))
    verdicts = Counter(o.kind for o in result.operations)
    batches.mark(
        s.blobs,
        batch_id,
        BatchStage.COLLECTED,
        {
            "accepted": report.accepted,
            "rejected": report.rejected,
            "operations": dict(sorted(verdicts.items())),
            "reasons": dict(sorted(_reasons(result.settled).items())),
        },
    )
    return report


def gold_of(s: Services, result: BatchResult) -> list[NewGold]:
    """Tickets with a known answer, from what people decided in a batch.

    A candidate that was accepted as it was is one to accept. One that was sent back, and of which something clearly
    different was made and accepted, is one to refine, and one to correct with what was accepted as the truth.
    """
    batch_id = result.batch.batch_id
    candidates: dict[str, Masklet] = {row.masklet_id: row for row in parts.rows(s.blobs, "candidates", batch_id)}
    verdicts = [(o, json.loads(o.payload)) for o in result.operations if o.kind == "verdict"]
    asked = {o.masklet_id: (o, said) for o, said in verdicts if said["verdict"] == Verdict.REFINE}  # the last on each
    phase = s.settings.review.phase

    def ticket(candidate: Masklet, kind: Kind, **rules: object) -> NewTicket:
        return NewTicket(
            ticket_id=content_id(batch_id, candidate.masklet_id, kind.value, "gold"),
            kind=kind,
            video_id=candidate.video_id,
            masklet=candidate,
            phase=phase,
            payload=json.dumps(json.loads(phases.payload(phase)) | rules),
        )

    found = []
    for decision in result.settled:
        made = decision.masklet
        if decision.verdict is not Verdict.ACCEPT or made is None:
            continue
        if made.masklet_id in candidates:
            found.append(NewGold(ticket=ticket(candidates[made.masklet_id], Kind.VERIFY), expected=Verdict.ACCEPT))
            continue
        candidate = candidates.get(made.parent_id or "")
        if candidate is None or candidate.masklet_id not in asked:
            continue  # what led to it is not known
        verdict, said = asked[candidate.masklet_id]
        if overlap.mean_iou(candidate, made) < s.settings.queue.gold_iou:  # leaving it as it is would not be right
            pinned = {"frame_idx": verdict.frame_idx, "by": verdict.person, "reasons": said["reasons"]}
            found.append(NewGold(ticket=ticket(candidate, Kind.VERIFY), expected=Verdict.REFINE))
            found.append(NewGold(ticket=ticket(candidate, Kind.TRACK, pinned=pinned), truth=made))
    return found


def _videos(s: Services, batch_id: str) -> list[Video]:
    return s.tables.videos(where=f"batch_id == '{batch_id}'")


def _reasons(settled: tuple[Settled, ...]) -> Counter[str]:
    return Counter(reason.value for decision in settled for reason in decision.reasons)
