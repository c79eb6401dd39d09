"""Why a batch waits: what each stage has done for it, what is left, who has it, and what happens next.

For `masklets why` and for the leads' page. The cost of an answer follows the videos and the tickets of the batch, not
the store: it lists their markers, and reads those of refused rows only.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from annotation_queue.errors import NoSuchBatch
from annotation_queue.pipeline_records import BatchStanding, BatchTickets, RefusedRows, StageProgress
from annotation_queue.records import State, Stuck
from engine import batches, loop, trouble
from engine.batches import BatchStage
from engine.services import Services
from engine.stages import publish, review
from storage.blobs.base import BlobDamaged, Blobs
from storage.dataset import increments, parts
from storage.errors import first_line
from storage.records import Quarantined
from storage.wording import counted

if TYPE_CHECKING:
    from annotation_queue.tickets.store import TicketStore

PUBLISHED = "nothing: it is published"
_EXAMPLES = 3  # ids of refused rows that are named
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def of_batch(s: Services, batch_id: str, tickets: TicketStore | None, now: float | None = None) -> BatchStanding:
    """Where a batch stands at `now`, s since the epoch. Raises UnknownBatch, BlobDamaged.

    tickets: the queue's database; None: nothing is known of tickets.
    """
    video_ids = batches.video_ids(s.blobs, batch_id)
    at = time.time() if now is None else now
    marks = batches.marks_of(s.blobs, batch_id)
    found = _tickets(tickets, batch_id, at) if BatchStage.IN_REVIEW in marks or BatchStage.PROPOSED in marks else None
    stuck = tuple(trouble.stuck(s.blobs, batch_id))
    published = batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) or {}
    checkpoint = batches.facts(s.blobs, batch_id, batches.CHECKPOINT) or {}
    done = 0 if BatchStage.PUBLISHED in marks else increments.published_videos(s.blobs, batch_id)
    stages = _stages(s.blobs, batch_id, len(video_ids), marks, found, done)
    imported = batches.is_import(s.blobs, batch_id)
    waits_for, following, due = _why(s, marks, stages, found, stuck, published, at, imported=imported)
    if done:
        waits_for = f"{waits_for}; {done} of {counted(len(video_ids), 'video')} are published"
    return BatchStanding(
        batch_id=batch_id,
        name="" if found is None else found.batch.name,
        imported=imported,
        videos=len(video_ids),
        stages=stages,
        tickets=found,
        stuck=stuck,
        quarantined=sum(marker.rows for marker in parts.markers(s.blobs, "quarantine", batch_id)),
        checkpoint=checkpoint.get("name"),
        phase=(batches.facts(s.blobs, batch_id, batches.PHASE) or {}).get("phase"),
        release=published.get("release"),
        waits_for=waits_for,
        next=following,
        due=due,
        refused=_refused(s, batch_id) if any(one.stage == publish.STAGE for one in stuck) else (),
    )


def of_each(s: Services, batch_id: str, tickets: TicketStore | None) -> BatchStanding:
    """`of_batch` for a list of batches: one whose marks are damaged or missing says so, and the others are shown."""
    try:
        return of_batch(s, batch_id, tickets)
    except (batches.UnknownBatch, BlobDamaged) as error:
        found = first_line(error)
        return BatchStanding(
            batch_id=batch_id,
            name="",
            imported=False,
            videos=0,
            stages=(),
            tickets=None,
            # nobody knows since when; a time of now would draw the page anew at each look
            stuck=(Stuck(batch_id=batch_id, stage="reading its marks", error=found, since=0.0),),
            quarantined=0,
            checkpoint=None,
            phase=None,
            release=None,
            waits_for=f"a person who mends its marks: {found}",
            next="",
            due=None,
        )


def _refused(s: Services, batch_id: str) -> tuple[RefusedRows, ...]:
    """What was refused in a batch, by stage and check."""
    found: dict[tuple[str, str], list[Quarantined]] = {}
    for row in parts.rows(s.blobs, "quarantine", batch_id):
        found.setdefault((row.stage, row.reason), []).append(row)
    return tuple(
        RefusedRows(
            stage=stage,
            reason=reason,
            rows=len(rows),
            examples=tuple(row.subject for row in rows[:_EXAMPLES]),
            detail=rows[0].detail,
        )
        for (stage, reason), rows in sorted(found.items())
    )


def _tickets(tickets: TicketStore | None, batch_id: str, now: float) -> BatchTickets | None:
    from annotation_queue.leads import standing

    if tickets is None:
        return None
    try:
        return standing.of_batch(tickets.database, batch_id, now)
    except NoSuchBatch:  # its tickets are in another database
        return None


def _stages(
    blobs: Blobs, batch_id: str, videos: int, marks: set[BatchStage], tickets: BatchTickets | None, published: int
) -> tuple[StageProgress, ...]:
    """What each stage that works on batches has done. A stage that a later one has passed counts as complete.

    published: videos of the batch that are published already, in increments.
    """
    order = list(BatchStage)
    reached = max((order.index(mark) for mark in marks), default=-1)
    found = []
    for stage in loop.STAGES:
        if stage.mark is None:
            continue
        complete, noun, of, done = reached >= order.index(stage.mark), "video", videos, 0
        if complete:
            done = videos
        elif stage.mark is BatchStage.PROPOSED:
            done = len(parts.marked(blobs, "candidates", batch_id))
        elif stage.mark is BatchStage.COLLECTED:
            done = len(parts.marked(blobs, "masklets", batch_id))
        elif stage.mark is BatchStage.PUBLISHED:
            done = published
        found.append(StageProgress(stage=stage.name, done=min(done, of), of=of, noun=noun, complete=complete))
        if stage.mark is BatchStage.IN_REVIEW and tickets is not None:
            left, total = tickets.batch.remaining, tickets.batch.total
            ended = complete and left == 0
            found.append(StageProgress(stage="review", done=total - left, of=total, noun="ticket", complete=ended))
    return tuple(found)


def _why(
    s: Services,
    marks: set[BatchStage],
    stages: Iterable[StageProgress],
    tickets: BatchTickets | None,
    stuck: tuple[Stuck, ...],
    published: dict[str, object],
    now: float,
    *,
    imported: bool,
) -> tuple[str, str, float | None]:
    """What the batch waits for, what happens next, and when the wait is expected to end."""
    if BatchStage.PUBLISHED in marks:
        release = published.get("release")
        return (f"{PUBLISHED} in {release}" if release else f"{PUBLISHED}, without a masklet"), "", None
    following = next_stage(marks)
    who = _who(s, following)
    if stuck:
        failed = stuck[-1]
        if publish.WAY_OUT.format(failed.batch_id) in failed.error:
            who = "nothing by itself: a lead decides whether the rest is published"
        return f"{failed.stage}, which has failed for {spoken_span(now - failed.since)}: {failed.error}", who, None
    if following is loop.COLLECT:
        return _review(s, tickets, who, now)
    if following is loop.PROPOSE and imported:
        return "its import, which was stopped before it was complete", "run the same import again", None
    if following is loop.PROPOSE:
        at = next(stage for stage in stages if stage.stage == following.name)
        return f"{following.name}: {at.done} of {counted(at.of, 'video')} have candidates", who, None
    what = {loop.OPEN_REVIEW: "its tickets are not open yet", loop.PUBLISH: "it is collected and not published yet"}
    return f"{following.name}: {what[following]}", who, None


def next_stage(marks: set[BatchStage]) -> loop.Stage:
    """The stage that is next for an unpublished batch with these marks."""
    return next(stage for stage in loop.STAGES if stage.mark is not None and not _passed(stage.mark, marks))


def _passed(mark: BatchStage, marks: set[BatchStage]) -> bool:
    """Has this stage, or a later one, marked the batch? An import marks its later stages first."""
    return any(each >= mark for each in marks)


def _review(s: Services, tickets: BatchTickets | None, who: str, now: float) -> tuple[str, str, float | None]:
    if tickets is None:
        return "people: its tickets are in another database, or the queue's database cannot be read", "", None
    batch = tickets.batch
    if batch.remaining:
        then = "collect and publish, when the last ticket is settled"
        if review.wants_increments(s.settings):
            then += "; settled videos earlier, when there are enough of them or they have waited long enough"
        return f"people: {_left(tickets, now)}", then, tickets.expected_end
    if not batch.drained:
        return "open review: it has not sent all its tickets to the queue", _who(s, loop.OPEN_REVIEW), None
    if tickets.delivery_error is not None:
        again = tickets.next_delivery
        then = "the queue tries again" + ("" if again is None else f" in {spoken_span(max(0.0, again - now))}")
        return f"the queue could not report that it is drained: {tickets.delivery_error}", f"{then}; {who}", again
    return "collect: every ticket is settled", who, None


def _left(tickets: BatchTickets, now: float) -> str:
    """`12 open tickets, 3 held, 2 of them for a lead; 40 done an hour; ann has held t1 for 2 h`."""
    states = Counter[State]()
    for count in tickets.counts:
        states[count.state] += count.tickets
    leads = sum(count.tickets for count in tickets.counts if count.needs_lead and count.state is not State.DONE)
    waiting, held = states[State.OPEN], states[State.LEASED]
    said = f"{counted(waiting, 'open ticket')}, {held} held"
    if leads:
        said += f", {leads} of them for a lead"
    if tickets.an_hour:
        said += f"; {tickets.an_hour:.0f} done an hour"
    if tickets.oldest_held is not None:
        since = spoken_span(now - tickets.oldest_held.since)
        said += f"; {tickets.oldest_held.person} has held {tickets.oldest_held.ticket_id} for {since}"
    elif tickets.oldest_open is not None:
        said += f"; {tickets.oldest_open.ticket_id} has waited for {spoken_span(now - tickets.oldest_open.since)}"
    return said


def _who(s: Services, stage: loop.Stage) -> str:
    """Who runs a stage next, and when at the latest."""
    every = spoken_span(s.settings.airflow.reconcile_every_s)
    dag = f"the DAG {stage.dag_id} runs it, and reconcile looks for missed work every {every}"
    if s.settings.airflow.url is not None:
        return dag
    by_hand = "masklets run" if stage in (loop.PROPOSE, loop.OPEN_REVIEW) else "masklets serve, at its start,"
    return f"{by_hand} does it; where Airflow runs, {dag}"


def spoken_span(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h`, `5 days`."""
    if seconds < 2 * _MINUTE_S:
        return f"{max(0, round(seconds))} s"
    if seconds < 2 * _HOUR_S:
        return f"{round(seconds / _MINUTE_S)} min"
    return f"{round(seconds / _HOUR_S)} h" if seconds < 2 * _DAY_S else f"{round(seconds / _DAY_S)} days"
