"""Between the pipeline and people: candidates become tickets, and people's decisions become parts.

Uses the queue over HTTP, as any other program does. Opening and collecting a batch a second time changes nothing.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from annotation_queue.records import BatchResult, Kind, NewTicket, SettledTicket
from engine import batches, trouble
from engine.batches import BatchStage
from engine.ingest import pseudonyms
from engine.services import Services
from engine.settings import Settings
from engine.stages import labelling, phases, routing, work
from engine.stages.routing import Route
from engine.verifier.keeping import is_verifier
from storage import arrow
from storage.dataset import increments, parts, withdrawn
from storage.dataset.increments import Increment
from storage.masklet_rules import masklet_problems
from storage.records import Masklet, Operation, Quarantined, Verdict, Video, content_id
from storage.wording import counted

STAGE = "collect"  # its name in the records of trouble and of quarantine
HOUR_S = 3600.0


class NotDrained(Exception):
    """The batch still has open tickets, and nothing of it is due."""


@dataclass(frozen=True)
class Collected:
    """What people decided about a batch, in numbers."""

    accepted: int
    rejected: int
    operations: int


def to_open(s: Services) -> list[str]:
    """The batches that have candidates and no tickets yet."""
    return batches.pending(s.blobs, BatchStage.IN_REVIEW)


def open_batch(s: Services, batch_id: str, phase: str) -> int:
    """Opens a ticket for every valid candidate of a batch and returns the batch's number of tickets.

    A candidate gets a verify ticket. With `review.held_out_by_hand`, a candidate of a held-out video (val, test) gets a
    track ticket of phase 1 instead: it only points to the object, and an annotator masks every frame. So no model
    shapes the masks that measure models. The same holds for objects that people add.
    A candidate that is not valid is quarantined. Where the settings allow it, the verifier orders the verify tickets,
    decides some of them, and sends candidates to be corrected at once: these get a track ticket. It accepts none where
    accepting asks for a label, which only people give.

    phase: of the tickets. If the review of the batch was opened before, its phase of that time holds.
    """
    with trouble.recorded(s.blobs, batch_id, "open review"):
        return _open_batch(s, batch_id, _pinned_phase(s, batch_id, phase))


def _open_batch(s: Services, batch_id: str, phase: str) -> int:
    project = batches.project_of(s.blobs, batch_id)
    review = s.settings.of_project(project).review
    tickets, rules = [], labelling.pinned_rules(s, batch_id)
    rows, refused = list[Masklet](), list[Quarantined]()
    gone = {video_id for one in increments.of_batch(s.blobs, batch_id) for video_id in one.video_ids}
    gone |= withdrawn.among(s.blobs, batches.video_ids(s.blobs, batch_id))
    by_id = {video.video_id: video for video in batches.videos(s, batch_id) if video.video_id not in gone}
    for row in parts.rows(s.blobs, "candidates", batch_id):
        if row.video_id in gone:  # withdrawn, or published already: the queue was restored from an older backup
            continue
        problems = masklet_problems(row, by_id.get(row.video_id))
        refused += [_quarantined("review", row, check, detail) for check, detail in problems.items()]
        rows += [] if problems else [row]
    _write_quarantine(s, batch_id, "review", refused)
    # the verifier learned from a model's scores, and imported candidates have none
    routes = {} if batches.is_import(s.blobs, batch_id) else routing.of_batch(s, batch_id, rows)
    for row in rows:
        by_hand = review.held_out_by_hand and row.split != "train"
        route = routing.TO_PEOPLE if by_hand else routes.get(row.masklet_id, routing.TO_PEOPLE)
        if route.verdict is Verdict.ACCEPT and rules.get("label_at") == "verify":
            route = replace(route, verdict=None)
        tickets.append(_about(row, "1" if by_hand else phase, rules, route, corrected=by_hand))
    if review.select:
        for video in by_id.values():
            by_hand = review.held_out_by_hand and video.split != "train"
            tickets.append(_selection(batch_id, video.video_id, "1" if by_hand else phase, rules))
    batch = s.queue.open_batch(batch_id, tickets, name=batches.name_of(by_id.values()), project=project)
    batches.mark(s.blobs, batch_id, BatchStage.IN_REVIEW, {"tickets": len(tickets)})
    return batch.total


def _about(row: Masklet, phase: str, rules: Mapping[str, str], route: Route, *, corrected: bool) -> NewTicket:
    """The ticket about a candidate. rules: about labels. corrected: an annotator gets it without a review before."""
    payload, decided = phases.payload(phase, rules), route.verdict
    if decided is Verdict.REFINE:  # as if a reviewer had sent it back
        corrected, decided = True, None
        pinned: dict[str, object] = {
            "frame_idx": row.frame_idx[0],
            "by": route.decided_by,
            "reasons": [],
            "verdict": Verdict.REFINE.value,
        }
        payload = json.dumps(json.loads(payload) | {"pinned": pinned})
    kind = Kind.TRACK if corrected else Kind.VERIFY
    return NewTicket(
        ticket_id=content_id(row.batch_id, row.masklet_id, kind.value),
        kind=kind,
        video_id=row.video_id,
        masklet=row,
        phase=phase,
        priority=route.priority,
        payload=payload,
        decided=decided,
        decided_by=None if decided is None else route.decided_by,
    )


def _pinned_phase(s: Services, batch_id: str, phase: str) -> str:
    """The phase of the batch's tickets: the one that was given when its review first opened."""
    if batches.facts(s.blobs, batch_id, batches.PHASE) is None:
        batches.mark(s.blobs, batch_id, batches.PHASE, {"phase": phase})
    return str((batches.facts(s.blobs, batch_id, batches.PHASE) or {})["phase"])


def _selection(batch_id: str, video_id: str, phase: str, rules: Mapping[str, str]) -> NewTicket:
    """A ticket to pick an object by hand; people get it after the tickets about candidates."""
    return NewTicket(
        ticket_id=content_id(batch_id, video_id, Kind.SELECT.value),
        kind=Kind.SELECT,
        video_id=video_id,
        phase=phase,
        priority=-1,
        payload=phases.payload(phase, rules),
    )


def to_collect(s: Services) -> list[str]:
    """The batches whose results are not in parts yet: their last ticket is closed, or an increment is due."""
    waiting = batches.pending(s.blobs, BatchStage.COLLECTED)
    return sorted({*s.queue.drained_batches(waiting), *set(waiting).intersection(_due(s))}) if waiting else []


def _due(s: Services, now: float | None = None) -> list[str]:
    """The batches of which an increment is due: enough videos are settled, or for long enough; or one was begun.

    Asks the queue only if the settings of some project want increments. now: s since the epoch.
    """
    begun = increments.begun(s.blobs)
    found = [b for b, numbers in begun.items() if any(not increments.is_taken(s.blobs, b, n) for n in numbers)]
    if not wants_increments(s.settings):
        return found
    wanted = {name: s.settings.of_project(name).review for name in s.settings.project_names}
    at = time.time() if now is None else now
    for batch in s.queue.settled_videos():
        new, review = batch.settled - batch.closed, wanted.get(batch.project)
        if review is None or not new:
            continue
        enough = review.publish_share and new >= review.publish_share * batch.videos
        hours = review.publish_after_hours
        if enough or (hours and at - batch.since >= hours * HOUR_S):
            found.append(batch.batch_id)
    return found


def wants_increments(settings: Settings) -> bool:
    """Whether batches of any project may be published before their last ticket."""
    reviews = [settings.of_project(name).review for name in settings.project_names]
    return any(review.publish_share or review.publish_after_hours for review in reviews)


def collect(s: Services, batch_id: str) -> Collected:
    """Writes the accepted masklets and all operations of a batch as parts, one a video: of its settled videos.

    Of a batch that is not drained, the settled videos become an increment (`storage/dataset/increments.py`) if one is
    due: the queue closes them, so that nobody changes what is published. The masklets, which will be released, name
    people by pseudonyms.
    An accepted masklet that cannot be stored, or is of another batch's video, is quarantined; the others go on.
    Raises NotDrained, unless the batch has an increment already, and UnknownBatch; NoSuchBatch if the queue does not
    know the batch.
    """
    with trouble.recorded(s.blobs, batch_id, STAGE):
        batch = s.queue.batch(batch_id)
        if batch.drained:
            return _collect_rest(s, batch_id)
        if batch_id in _due(s):
            return _collect_increment(s, batch_id)
        if increments.is_begun(s.blobs, batch_id):  # a task that was killed after its increment runs again
            return Collected(0, 0, 0)
        raise NotDrained(f"batch {batch_id} has {batch.remaining} of {counted(batch.total, 'ticket')} to do")


def _collect_increment(s: Services, batch_id: str) -> Collected:
    """Collects the videos of a batch that are settled now; nothing if another process was faster."""
    while True:
        earlier = increments.of_batch(s.blobs, batch_id)
        number = len(earlier) + 1
        increments.begin(s.blobs, batch_id, number)  # first, so that a killed run is found
        closed = set(s.queue.close_settled(batch_id)).difference(*(one.video_ids for one in earlier))
        if not closed or (earlier and earlier[-1].is_last):
            increments.end(s.blobs, batch_id, number)
            if increments.is_taken(s.blobs, batch_id, number):  # by another process meanwhile: it is to be published
                increments.begin(s.blobs, batch_id, number)
            return Collected(0, 0, 0)
        increment = Increment(batch_id=batch_id, number=number, video_ids=tuple(sorted(closed)), is_last=False)
        report, facts = _write_parts(s, increment, s.queue.batch_result(batch_id, increment.video_ids))
        if increments.take(s.blobs, replace(increment, facts=facts)):
            increments.begin(s.blobs, batch_id, number)  # again: one that found nothing may have ended it meanwhile
            return report


def _collect_rest(s: Services, batch_id: str) -> Collected:
    """Collects what is in no increment of a drained batch, mostly all of it, and marks the batch."""
    result, members = s.queue.batch_result(batch_id), batches.video_ids(s.blobs, batch_id)
    while True:
        earlier = [one for one in increments.of_batch(s.blobs, batch_id) if not one.is_last]
        gone = set[str]().union(*(one.video_ids for one in earlier))
        left = tuple(sorted(set(members) - gone))
        last = Increment(batch_id=batch_id, number=len(earlier) + 1, video_ids=left, is_last=True)
        report, facts = _write_parts(s, last, _without(result, gone))
        if not increments.is_begun(s.blobs, batch_id):
            break
        if increments.take(s.blobs, replace(last, facts=facts)) or increments.of_batch(s.blobs, batch_id)[-1].is_last:
            break
    batches.mark(s.blobs, batch_id, BatchStage.COLLECTED, _facts(result, batches.videos(s, batch_id)))
    return report


def _without(result: BatchResult, video_ids: Collection[str]) -> BatchResult:
    settled = tuple(each for each in result.settled if each.video_id not in video_ids)
    return replace(
        result, settled=settled, operations=tuple(o for o in result.operations if o.video_id not in video_ids)
    )


def _write_parts(s: Services, increment: Increment, result: BatchResult) -> tuple[Collected, dict[str, Any]]:
    """Writes the parts of an increment's videos. Returns what people decided, and the facts about it."""
    batch_id = increment.batch_id
    accepted, operations = _by_video(result)
    videos = batches.videos(s, batch_id, None if increment.is_whole else increment.video_ids)
    refused = [
        _quarantined(STAGE, replace(row, batch_id=batch_id), "video", f"{video_id} is not a video of this batch")
        for video_id in sorted(accepted.keys() - {video.video_id for video in videos})
        for row in accepted[video_id]
    ]
    pseudonym = pseudonyms.of(s.blobs)
    for video in videos:
        made = [
            replace(
                row,
                batch_id=batch_id,
                split=video.split,
                annotated_by=row.annotated_by and pseudonym(row.annotated_by),
                verified_by=row.verified_by and pseudonym(row.verified_by),
            )
            for row in accepted[video.video_id]
        ]
        rows = []
        for row in sorted(made, key=lambda m: m.masklet_id):
            if (problem := arrow.problem(row)) is None:
                rows.append(row)
            else:
                refused.append(_quarantined(STAGE, row, "unstorable", problem))
        acts = sorted(operations[video.video_id], key=lambda o: (o.ticket_id, o.seq, o.operation_id))
        parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=video.video_id, rows=rows)
        parts.write_part(s.blobs, kind="operations", batch_id=batch_id, video_id=video.video_id, rows=acts)
    _write_quarantine(s, batch_id, increment.quarantine_part(STAGE), refused)
    facts = _facts(result, videos)
    return Collected(facts["accepted"], facts["rejected"], len(result.operations)), facts


def _facts(result: BatchResult, videos: Iterable[Video]) -> dict[str, Any]:
    """What people decided and did, in numbers."""
    verdicts = Counter(settled.verdict for settled in result.settled)
    kinds = Counter(operation.kind for operation in result.operations)
    return {
        "accepted": verdicts[Verdict.ACCEPT],
        "rejected": verdicts[Verdict.REJECT],
        "operations": dict(sorted(kinds.items())),
        "reasons": dict(sorted(_reasons(result.settled).items())),
        "by_verifier": dict(Counter(one.verdict.value for one in result.settled if is_verifier(one.decided_by))),
        "work": asdict(work.of_operations(result.operations, {video.video_id: video.frame_count for video in videos})),
    }


def _quarantined(stage: str, row: Masklet, reason: str, detail: str) -> Quarantined:
    return Quarantined(stage=stage, subject=row.masklet_id, reason=reason, detail=detail, batch_id=row.batch_id)


def _write_quarantine(s: Services, batch_id: str, stage: str, refused: list[Quarantined]) -> None:
    """Write the records as a part named after the stage; `publish` commits it with the batch."""
    if refused:
        parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id=stage, rows=refused)


def _by_video(result: BatchResult) -> tuple[dict[str, list[Masklet]], dict[str, list[Operation]]]:
    """The accepted masklets and the operations of each video."""
    accepted: dict[str, list[Masklet]] = defaultdict(list)
    for settled in result.settled:
        if settled.verdict is Verdict.ACCEPT and settled.masklet is not None:
            accepted[settled.video_id].append(settled.masklet)
    operations: dict[str, list[Operation]] = defaultdict(list)
    for operation in result.operations:
        operations[operation.video_id].append(replace(operation, batch_id=result.batch.batch_id))
    return accepted, operations


def _reasons(settled: tuple[SettledTicket, ...]) -> Counter[str]:
    return Counter(reason.value for each in settled for reason in each.reasons)
