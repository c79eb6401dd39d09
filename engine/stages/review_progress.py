"""How much of each review is left, and when it is expected to end.

Reads the queue's database, so it works while no queue server runs. Without a database there are no figures.
"""

from __future__ import annotations

from dataclasses import dataclass

from annotation_queue.errors import NoSuchBatch
from engine import batches
from engine.services import Services
from storage.blobs.base import BlobDamaged
from storage.dataset import increments


@dataclass(frozen=True)
class ReviewProgress:
    """The tickets of one batch. Times are seconds since the epoch."""

    open: int  # tickets that are not done, those that people hold included
    total: int
    since: float  # when the review opened
    expected_end: float | None  # None: nobody finished a ticket of a kind that is left lately
    published: int  # videos of the batch, in increments
    videos: int


def of_open_batches(s: Services) -> dict[str, ReviewProgress]:
    """The progress of every batch whose tickets are open, or settled and not published yet.

    The end follows from the queue's pace of the last quarter of an hour, for the kind of ticket that takes longest. New
    tickets, such as those for corrections, are not foreseen.
    """
    in_review = batches.in_review(s.blobs)
    if not in_review:
        return {}
    try:
        tickets = s.read_queue()
        figures = None if tickets is None else tickets.figures()
    except Exception:  # of SQLAlchemy or of the driver; `trouble.of_everything` reports it
        return {}
    if tickets is None or figures is None:
        return {}
    found = {}
    for batch_id in in_review:
        try:
            batch = tickets.batch(batch_id)
        except NoSuchBatch:  # its tickets are in another database
            continue
        kinds = [kind.expected_s for kind in figures.batches if kind.batch_id == batch_id]
        longest = [seconds for seconds in kinds if seconds is not None]
        published, videos = _published(s, batch_id)
        known = longest and len(longest) == len(kinds)
        found[batch_id] = ReviewProgress(
            open=batch.remaining,
            total=batch.total,
            since=batch.opened_at,
            expected_end=figures.at + max(longest) if known and batch.remaining else None,
            published=published,
            videos=videos,
        )
    return found


def _published(s: Services, batch_id: str) -> tuple[int, int]:
    """How many videos of a batch are published, and how many it has; 0 and 0 if its marks are missing or damaged."""
    try:
        return increments.published_videos(s.blobs, batch_id), len(batches.video_ids(s.blobs, batch_id))
    except (batches.UnknownBatch, BlobDamaged):  # one batch must not take the figures of all others away
        return 0, 0
