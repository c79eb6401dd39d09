"""Imports SA-V datasets: annotated videos are ingested, and their masklets get the same checks as any others.

An import takes the videos that have an annotation beside them, in any folder below; other videos are left for ingest.
Its videos are marked as imported from the first moment, so no model proposes for them. They keep their names, their
metadata and the order of their objects, for later exports. Videos that were ingested before
are left to the model. A video with a bad annotation is quarantined before it is admitted, so a repaired annotation is
imported by the next run.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from engine.progress import Progress
from engine.services import Services
from engine.stages import admitted, batches, ingest, publish, sources, trouble
from engine.stages.batches import BatchStage
from storage import parts
from storage.formats import sav
from storage.records import Masklet, Quarantined, Refusal, Video


class NothingAnnotated(Exception):
    """No video of the folder has an annotation beside it."""


@dataclass(frozen=True)
class ImportReport:
    """What an import did."""

    videos: int
    masklets: int  # that were read
    failed: int  # of these and of an import that was killed: masklets that a check refused
    release: str
    quarantined: int  # videos
    skipped: int  # annotated videos that ingest had admitted before, in a batch that is not the import's


def import_folder(s: Services, folder: Path, progress: Progress | None = None) -> ImportReport:
    """Imports NAME.mp4 with NAME_manual.json and NAME_auto.json, in any folder below. Run it again after any failure.

    Raises NothingAnnotated.
    """
    folder = Path(os.path.abspath(folder))  # as ingest writes its addresses
    looked = ingest.admit(s, str(folder), progress, for_import=_is_annotated)
    if looked.admitted + looked.quarantined + looked.unchanged + looked.postponed == 0:
        raise NothingAnnotated(f"{folder}: no NAME.mp4 with NAME_manual.json or NAME_auto.json beside it")
    videos, count, failed, skipped, refused, release = 0, 0, 0, 0, 0, ""
    imported = []
    for batch_id, addresses in sorted(s.tables.addresses(_below(folder)).items()):
        proposed = batches.facts(s.blobs, batch_id, BatchStage.PROPOSED)
        if proposed is None and (members := _to_fill(s, batch_id, addresses)):
            with trouble.recorded(s.blobs, batch_id, "import"):
                number, bad = _fill(s, folder, batch_id, members)
            videos, count, refused = videos + len(members) - bad, count + number, refused + bad
        elif proposed is None or "imported" not in proposed:
            skipped += sum(any(note.exists() for note in _annotations(Path(address))) for address in addresses)
            continue
        imported.append(batch_id)
    for batch_id in publish.pending(s):
        if batch_id in imported:
            release = publish.publish_batch(s, batch_id)
            failed += (batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) or {}).get("quarantined", 0)
    return ImportReport(videos, count, failed, release, looked.quarantined + refused, skipped)


def _below(folder: Path) -> str:
    """How the address of every file below the folder begins."""
    return sources.as_utf8(str(folder)).rstrip("/") + "/"


def _to_fill(s: Services, batch_id: str, addresses: list[str]) -> list[Video]:
    """The videos of a batch that an import of this folder admitted; none for another batch.

    addresses: of the batch's videos in the folder. A video stays in its batch when its annotation is removed. A batch
    without a mark belongs to an ingest that runs now.
    """
    if not batches.is_import(s.blobs, batch_id):
        return []
    members = batches.videos(s, batch_id)
    return members if {video.source_uri for video in members} <= set(addresses) else []


def _fill(s: Services, folder: Path, batch_id: str, members: list[Video]) -> tuple[int, int]:
    """Writes the masklets of a batch, and marks it as collected. Returns its masklets and its quarantined videos.

    An annotation that became bad or was removed after the video was admitted quarantines the video.
    """
    number, refused = 0, []
    for video in members:
        try:
            rows = _rows(s, video)
        except sav.SavError as error:
            rows = []
            refused.append(
                Quarantined(
                    stage="import",
                    subject=video.source_uri,
                    reason=Refusal.FAILED.value,
                    detail=" ".join(str(error).split()),
                    batch_id=batch_id,
                )
            )
        parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=video.video_id, rows=rows)
        parts.write_part(s.blobs, kind="operations", batch_id=batch_id, video_id=video.video_id, rows=[])
        number += len(rows)
    if refused:
        parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id="import", rows=refused)
    facts = {"imported": str(folder), "accepted": number}
    # The last stage first: an import that is killed in between is done again, and no other stage takes the batch.
    for stage in (BatchStage.COLLECTED, BatchStage.IN_REVIEW, BatchStage.PROPOSED):
        batches.mark(s.blobs, batch_id, stage, facts)
    return number, len(refused)


def _rows(s: Services, video: Video) -> list[Masklet]:
    """The masklets of a video. Raises SavError, also if it has no annotation any more."""
    paths = [path for path in _annotations(Path(video.source_uri)) if path.exists()]
    if not paths:
        raise sav.SavError(f"{video.source_uri}: its annotation was removed")
    times = admitted.source_times(s.blobs, video.video_id)
    rows = [row for path in paths for row in sav.read(path, video=video, source_s=times, batch_id=video.batch_id)]
    return [replace(row, split=video.split) for row in rows]


def _annotations(video: Path) -> list[Path]:
    return [Path(path) for path in sources.notes_beside(str(video))]


def _is_annotated(key: str, keys: Collection[str]) -> bool:
    return any(note in keys for note in sources.notes_beside(key))
