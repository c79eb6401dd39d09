"""Publish: checks on rows and on masks, then one commit to each table and one release manifest.

A masklet that fails a check is quarantined with the check's name; the others are published. A masklet whose id was
published before, or comes twice, is quarantined as "repeated": ids are unique over the whole store. A row that breaks a
rule about its table is quarantined as "table". If a rule cannot be checked, or too many masklets of a batch of the
model and its annotators fail, nothing of the batch is published. An import has no such limit: its annotations are
independent files of others, and nobody here can repair them. A lead can lift the limit (`leave_out`). Nothing is
visible before every check has run.

A batch that was collected in increments (`storage/dataset/increments.py`) is published so: each has its own checks,
commits and release, as a batch of these videos would have.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine import batches, trouble
from engine.batches import BatchStage
from engine.locks import Held
from engine.services import Services
from engine.stages import new_release, publish_checks, review, withdrawing
from engine.stages.publish_checks import LEAST_JUDGED, Checked, offered_in
from engine.views import card
from storage.dataset import increments, parts, releases, withdrawn
from storage.dataset.increments import Increment
from storage.iceberg import table_upkeep
from storage.records import Quarantined
from validation.gate import GateDecision

STAGE = "publish"  # its name in the records of trouble and of quarantine
EXPIRED_TOGETHER = 20  # snapshots of a table: fewer are not worth a commit
WAY_OUT = "masklets publish {} --without-refused --why REASON"
_OF_INCREMENT = re.compile(rf"(?:{review.STAGE}|{STAGE})(?:-\d{{4,}})?")  # parts in which they are quarantined


class PublishStopped(Exception):
    """The publish gate did not pass: nothing of the batch, or of its increment, was published."""

    def __init__(self, message: str, number: int = 0) -> None:
        """number: of the increment; 0: `leave_out` cannot help."""
        super().__init__(message)
        self.number = number


def pending(s: Services) -> list[str]:
    """The batches that are collected and not published, and those with such an increment."""
    begun = increments.begun(s.blobs)
    taken = {of for of, numbers in begun.items() if any(increments.is_taken(s.blobs, of, n) for n in numbers)}
    return sorted(taken.union(batches.pending(s.blobs, BatchStage.PUBLISHED)))


def publish_batch(s: Services, batch_id: str) -> str:
    """Publishes what is collected of a batch and returns the name of its release, "" if there is no masklet to release.

    Can run again at any time. Raises PublishStopped, UnknownBatch, PartDamaged, CommitFailed and CommitUnknown;
    LockLost, NumberTaken if it was paused for so long that another process took its place: run it again.
    """
    # alone, because each release contains everything that was published before it
    with trouble.recorded(s.blobs, batch_id, STAGE), s.alone(withdrawing.LOCK) as held:
        done = batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED)
        if done is None:
            return _publish_collected(s, batch_id, held)
        batches.mark(s.blobs, batch_id, BatchStage.PUBLISHED, done)  # removes what a paused process wrote below open/
        return str(done["release"])


def leave_out(s: Services, batch_id: str, *, by: str, why: str) -> str:
    """Publishes a batch like `publish_batch`, also if most rows of what is collected are refused: these stay out.

    Who decided it and why is recorded. It holds for the rows that are refused now: what is collected later is stopped
    again. Raises as `publish_batch` does; ValueError without a reason.
    """
    why = " ".join(why.split())
    if not why:
        raise ValueError("say why: the reason is recorded")
    try:
        return publish_batch(s, batch_id)
    except PublishStopped as stopped:
        if not stopped.number:
            raise
        at = datetime.now(UTC).isoformat(timespec="seconds")
        batches.mark(s.blobs, batch_id, _left_out(stopped.number), {"by": by, "at": at, "why": why})
    return publish_batch(s, batch_id)


def _left_out(number: int) -> str:
    return f"{batches.LEFT_OUT}-{number:04d}"


def docs_folder(s: Services) -> Path:
    """The folder of all batches' Data Docs."""
    return s.home / "data-docs"


def _publish_collected(s: Services, batch_id: str, held: Held) -> str:
    """Publishes the increments that are collected, and the batch if all of it is. Returns the last release."""
    of_batch, released = increments.of_batch(s.blobs, batch_id), ""
    done = increments.published(s.blobs, batch_id) if of_batch else {}
    for one in of_batch:
        if not one.is_last and one.number not in done:
            done[one.number] = _publish(s, one, held, list(done.values()))
            increments.mark_published(s.blobs, one, done[one.number])
            released = str(done[one.number]["release"])
        elif not one.is_last:
            increments.end(s.blobs, batch_id, one.number)  # a publish was killed after its mark
            released = str(done[one.number]["release"])
    collected = batches.facts(s.blobs, batch_id, BatchStage.COLLECTED)
    if collected is None and not of_batch:
        raise batches.UnknownBatch(f"batch {batch_id} is not collected: there is nothing to publish")
    if collected is None or (of_batch and not of_batch[-1].is_last):
        return released
    whole = Increment(batch_id=batch_id, number=1, video_ids=(), is_last=True, facts=collected)
    facts = _publish(s, of_batch[-1] if of_batch else whole, held, list(done.values()))
    batches.mark(s.blobs, batch_id, BatchStage.PUBLISHED, facts)
    return str(facts["release"])


def _publish(s: Services, increment: Increment, held: Held, earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Publishes the videos of an increment, or the whole batch if it is the only one. Returns the facts of its mark.

    earlier: the facts of the batch's published increments.
    """
    batch_id, commit_id = increment.batch_id, increment.id
    known = releases.names(s.blobs)
    checked = publish_checks.check(s, increment, known, docs_folder(s) / batch_id)
    refused = [
        Quarantined(stage=STAGE, subject=subject, reason=check, detail=detail, batch_id=batch_id)
        for subject, check, detail in checked.reasons()
    ]
    name = increment.quarantine_part(STAGE)
    if refused or parts.has_marker(s.blobs, "quarantine", batch_id, name):
        if s.tables.batch("quarantine", commit_id) is None:  # an attempt that was stopped may have refused other rows
            parts.rewrite(s.blobs, kind="quarantine", batch_id=batch_id, video_id=name, rows=refused)

    def commit(kind: str, videos: Collection[str] | None, keep: Callable[[Any, int], bool] | None = None) -> bool:
        report = parts.commit_batch(s.blobs, s.tables, kind, batch_id, keep, only=videos, commit_id=commit_id)
        return report.already

    lifted = batches.facts(s.blobs, batch_id, _left_out(increment.number))
    decision = _decided(s, checked, increment, earlier, is_lifted=lifted is not None)
    with_refused = _quarantine_parts(s, increment, earlier)
    commit("quarantine", with_refused)

    only = None if increment.is_whole else increment.video_ids
    gone, kept = checked.gone, checked.places
    commit("operations", only, lambda row, n: row.video_id not in gone)
    held.check()
    already = commit("masklets", only, lambda row, n: (row.video_id, n) in kept)
    release = new_release.of_commit(s, commit_id, known)
    if already:  # by a process that was paused before, while a video of the batch was withdrawn
        for video_id in sorted(gone):
            withdrawing.take_out(s, withdrawn.of(s.blobs, video_id))
    held.check()  # without the lock, another process may not have seen what this one did: the next run looks again

    good = checked.good
    if release is not None:
        reasons = Counter(record.reason for record in refused)
        added = card.Added(batch=commit_id, videos=checked.videos, masklets=good, refused=reasons)
        card.keep(release, new_release.beside(release, known), added)
    released = release.snapshots["masklets"] if release is not None and release.is_end else None
    table_upkeep.expire_all(s.tables, released, least=EXPIRED_TOGETHER)
    return {
        "release": "" if release is None else release.name,
        "masklets": len(good),
        "quarantined": len(checked.rows) - len(good),
        "offered": checked.offered,
        "bad": checked.bad,
        "gate": list(decision.reasons),
        "checkpoints": dict(sorted(Counter(row.checkpoint for row in good).items())),
        "annotated_frames": sum(len(row.frame_idx) for row in good),
        "work": increment.facts.get("work"),
        **({} if with_refused is None else {"quarantine_parts": sorted(with_refused)}),
        **({"left_out": lifted} if lifted else {}),
        **(batches.facts(s.blobs, batch_id, batches.PHASE) or {}),
    }


def _decided(
    s: Services, checked: Checked, increment: Increment, earlier: Sequence[Mapping[str, Any]], *, is_lifted: bool
) -> GateDecision:
    """The gate's decision to publish. is_lifted: a lead has lifted the limit. Raises PublishStopped."""
    batch_id = increment.batch_id
    judged = [facts for facts in earlier if "left_out" not in facts]
    so_far = checked.offered + sum(map(offered_in, judged))
    says_little = not increment.is_last and so_far < LEAST_JUDGED
    is_limited = not (is_lifted or says_little or batches.is_import(s.blobs, batch_id))
    decision = checked.decision(judged, is_limited=is_limited)
    if decision.passed:
        return decision
    report = checked.report
    why = "; ".join([*decision.reasons, *report.failures])
    way = "" if report.unchecked else f"; `{WAY_OUT.format(batch_id)}` publishes the rest"
    number = 0 if report.unchecked else increment.number
    raise PublishStopped(f"batch {batch_id}: {why}; see {report.docs_index}{way}", number)


def _quarantine_parts(
    s: Services, increment: Increment, earlier: Sequence[Mapping[str, Any]]
) -> Collection[str] | None:
    """The parts with what was refused that are committed with an increment; None: all of the batch.

    What propose and open review refused goes with the first one; the last one has what no other has.
    """
    if increment.is_whole:
        return None

    def own(of: Increment) -> set[str]:
        return {of.quarantine_part(stage) for stage in (review.STAGE, STAGE)}

    done = set[str]()
    for number, facts in enumerate(earlier, 1):  # an earlier version committed its own parts only
        done |= set(facts.get("quarantine_parts", own(replace(increment, number=number, is_last=False))))
    left = parts.marked(s.blobs, "quarantine", increment.batch_id) - done
    if increment.is_last:
        return left
    mine = own(increment)
    return {name for name in left if name in mine or not _OF_INCREMENT.fullmatch(name)}
