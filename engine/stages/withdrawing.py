"""Withdraws a video: the next release is without it and all that came of it. Who, when and why is recorded.

Tickets that are open stay in the queue; what people decide there is quarantined as "withdrawn" by the publish.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from engine.files import alone
from engine.services import Services
from engine.stages import admitted
from storage import compaction, parts, releases, withdrawal, withdrawn
from storage.batch_manifests import ReleaseError
from storage.releases import Release
from storage.withdrawn import Withdrawal


class HoldsWithdrawn(ReleaseError):
    """A release holds a withdrawn video."""


@dataclass(frozen=True)
class Withdrawn:
    """What a withdrawal did."""

    act: Withdrawal
    release: str  # the release without the video; "": no release held it
    held_by: tuple[str, ...]  # earlier releases that hold it
    erased: int  # files


def withdraw(s: Services, video_id: str, *, by: str, why: str, erase: bool = False) -> Withdrawn:
    """Withdraws a video. A second call completes what a killed one began; the first act's record stays.

    erase: also delete its files, which earlier releases name. Raises ValueError for an unknown video.
    """
    batch_ids = parts.published_in(s.blobs, video_id) | admitted.batches_of(s.blobs, video_id)
    try:
        batch_ids.add(s.video(video_id).batch_id)
    except ValueError:
        if not withdrawn.among(s.blobs, {video_id}):
            raise
    now = datetime.now(UTC).isoformat(timespec="seconds")
    act = withdrawn.record(s.blobs, Withdrawal(video_id=video_id, by=by, at=now, why=why))
    work, made = s.home / "cache" / "withdrawal", ""
    with alone(s.home / "publish.lock"):
        withdrawal.empty_parts(s.blobs, video_id, batch_ids)
        known = releases.names(s.blobs)
        if known:
            newest = releases.load(s.blobs, known[-1])
            compaction.settle(s.blobs, s.tables, newest)
            if newest.holds(video_id):
                made = f"release-{len(known) + 1:04d}-without-{video_id}"
                withdrawal.release_without(newest, video_id, made, work)
        withdrawal.take_from_tables(s.blobs, s.tables, act, work)
        erased = 0
        if erase:
            erased = withdrawal.erase(s.blobs, video_id, batch_ids, work) + admitted.erase(s.blobs, video_id)
    holding = [name for name in known if releases.load(s.blobs, name).holds(video_id)]
    return Withdrawn(act, made, tuple(holding), erased)


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
