"""Withdraws a video: the next release is without it and all that came of it. Who, when and why is recorded.

The queue rejects its open tickets, so the rest of its batch is published without it, and removes the gold about it.
What people had decided by then is quarantined as "withdrawn" by the publish.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from annotation_queue.errors import NoSuchBatch, QueueError
from engine import batches
from engine.batches import BatchStage
from engine.ingest import admitted
from engine.services import NoPipelineToken, Services
from engine.views import card
from storage.dataset import compaction, parts, release_numbers, releases, withdrawal, withdrawn
from storage.dataset.batch_manifests import ReleaseError
from storage.dataset.releases import Release
from storage.dataset.withdrawn import Withdrawal

LOCK = "publish"  # of those who make releases and change published tables


class HoldsWithdrawn(ReleaseError):
    """A release holds a withdrawn video."""


@dataclass(frozen=True)
class Withdrawn:
    """What a withdrawal did."""

    act: Withdrawal
    release: str  # the release without the video; "": no release held it
    held_by: tuple[str, ...]  # earlier releases that hold it
    erased: int  # files
    rejected: int  # tickets in the queue
    trouble: str  # why the queue may still have its tickets, in one line; "": it has none


def withdraw(s: Services, video_id: str, *, by: str, why: str, erase: bool = False) -> Withdrawn:
    """Withdraws a video. A second call completes what a killed one began; the first act's record stays.

    If the queue does not answer, `trouble` says so, and a second call rejects the tickets.
    erase: also delete its files, which earlier releases name. Raises ValueError for an unknown video; LockLost,
    NumberTaken if it was paused for so long that another process published: run it again.
    """
    batch_ids = _batch_ids(s, video_id)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    act = withdrawn.record(s.blobs, Withdrawal(video_id=video_id, by=by, at=now, why=why))
    known, erased = list[str](), 0
    with s.alone(LOCK) as held:
        known = releases.names(s.blobs)
        made = take_out(s, act)
        if erase:
            erased = withdrawal.erase(s.blobs, video_id, batch_ids, _work(s)) + admitted.erase(s.blobs, video_id)
        held.check()  # otherwise, another process may have published a release with the video meanwhile
    holding = [name for name in known if releases.load(s.blobs, name).holds(video_id)]
    rejected, trouble = _reject_tickets(s, act, batch_ids)  # last, and without the lock: the queue may take long
    return Withdrawn(act, made, tuple(holding), erased, rejected, trouble)


def _reject_tickets(s: Services, act: Withdrawal, batch_ids: set[str]) -> tuple[int, str]:
    """Has the queue reject the open tickets of a withdrawn video: their number, and why it did not, in one line."""
    rejected = 0
    for batch_id in sorted(batch_ids):
        marks = batches.marks_of(s.blobs, batch_id)
        if BatchStage.IN_REVIEW not in marks and (BatchStage.PROPOSED not in marks or BatchStage.COLLECTED in marks):
            continue  # no tickets were opened, not even by a killed run
        try:
            rejected += s.queue.withdraw(batch_id, act.video_id, f"its video was withdrawn by {act.by}: {act.why}")
        except NoSuchBatch:
            continue
        except (QueueError, NoPipelineToken) as error:
            if isinstance(error, NoPipelineToken) and BatchStage.IN_REVIEW not in marks:
                continue  # there was no queue yet
            return rejected, f"the queue may still have its tickets; run this again when the queue answers: {error}"
    return rejected, ""


def take_out(s: Services, act: Withdrawal) -> str:
    """Takes a withdrawn video out of the parts, its project's newest release and the tables, under the lock `LOCK`.

    Returns the release without it, "" if none was needed. Can run again.
    """
    video_id, made, batch_ids = act.video_id, "", _batch_ids(s, act.video_id)
    withdrawal.empty_parts(s.blobs, video_id, batch_ids)
    for project in sorted({batches.project_of(s.blobs, batch_id) for batch_id in batch_ids}):  # one, as a video has
        if known := [name for name in releases.names(s.blobs) if releases.project_of(name) == project]:
            newest = releases.load(s.blobs, known[-1])
            compaction.settle(s.blobs, s.tables, newest)
            if newest.holds(video_id):
                made = release_numbers.new_name(s.blobs, known, release_numbers.end_without(video_id), project)
                without = withdrawal.release_without(newest, video_id, made, _work(s))
                card.keep(without, f"It has the masklets of {newest.name}, without a video that was withdrawn.")
    withdrawal.take_from_tables(s.blobs, s.tables, act, _work(s))
    return made


def _work(s: Services) -> Path:
    return s.home / "cache" / "withdrawal"


def _batch_ids(s: Services, video_id: str) -> set[str]:
    """The batches that have parts of a video. Raises ValueError for an unknown video."""
    batch_ids = parts.published_in(s.blobs, video_id) | admitted.batches_of(s.blobs, video_id)
    try:
        batch_ids.add(s.video(video_id).batch_id)
    except ValueError:
        if not withdrawn.among(s.blobs, {video_id}):
            raise
    return batch_ids


def permitted(s: Services, release: Release) -> Release:
    """The release as it may leave the store: without withdrawn videos. Raises HoldsWithdrawn if the settings say so."""
    held = withdrawal.held_by(release)
    if held and s.settings.storage.withdrawn == "refuse":
        ids = ", ".join(act.video_id for act in held[:3])
        raise HoldsWithdrawn(
            f"{release.name} holds what was withdrawn later: {ids}; export a later release, or set "
            "storage.withdrawn = skip"
        )
    return release.without(act.video_id for act in held)
