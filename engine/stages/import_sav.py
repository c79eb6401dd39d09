"""Imports SA-V datasets: annotated videos are ingested, and their masklets get the same checks as any others.

An import takes the videos that have an annotation beside them, in any folder below; other videos are left for ingest.
Its videos are marked as imported from the first moment, so no model proposes for them. Videos that were ingested before
are left to the model.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from engine.progress import Progress
from engine.services import Services
from engine.stages import batches, ingest, publish
from engine.stages.batches import BatchStage
from storage import parts
from storage.formats import sav
from storage.records import Masklet, Video

SUFFIXES = ("_manual.json", "_auto.json")


class NothingAnnotated(Exception):
    """No video of the folder has an annotation beside it."""


@dataclass(frozen=True)
class ImportReport:
    """What an import did."""

    videos: int
    masklets: int
    release: str
    quarantined: int
    skipped: int  # annotated videos that ingest had admitted before, in a batch that is not the import's


def import_folder(s: Services, folder: Path, progress: Progress | None = None) -> ImportReport:
    """Imports NAME.mp4 with NAME_manual.json and NAME_auto.json, in any folder below. Run it again after any failure.

    Raises NothingAnnotated; SavError for an unreadable annotation, before anything of its batch is published.
    """
    folder = Path(os.path.abspath(folder))  # as ingest writes its addresses
    looked = ingest.admit(s, str(folder), progress, for_import=_is_annotated)
    if looked.admitted + looked.quarantined + looked.unchanged + looked.postponed == 0:
        raise NothingAnnotated(f"{folder}: no NAME.mp4 with NAME_manual.json or NAME_auto.json beside it")
    videos, count, skipped, release = 0, 0, 0, ""
    imported = []
    for batch_id, members in sorted(_annotated_by_batch(s, folder).items()):
        ingested = batches.facts(s.blobs, batch_id, BatchStage.INGESTED) or {}  # no mark yet: another ingest runs
        proposed = batches.facts(s.blobs, batch_id, BatchStage.PROPOSED)
        whole = set(ingested.get("videos", ())) == {video.video_id for video in members}
        if proposed is None and whole and ingested.get("imported"):
            number = _fill(s, folder, batch_id, members)
            videos, count = videos + len(members), count + number
        elif proposed is None or "imported" not in proposed:
            skipped += len(members)
            continue
        imported.append(batch_id)
    for batch_id in publish.pending(s):
        if batch_id in imported:
            release = publish.publish_batch(s, batch_id)
    return ImportReport(videos, count, release, looked.quarantined, skipped)


def _annotated_by_batch(s: Services, folder: Path) -> dict[str, list[Video]]:
    """The admitted videos of the folder that have an annotation, by batch."""
    found: dict[str, list[Video]] = defaultdict(list)
    for video in s.tables.videos():
        path = Path(video.source_uri)
        if path.is_relative_to(folder) and any(note.exists() for note in _annotations(path)):
            found[video.batch_id].append(video)
    return found


def _fill(s: Services, folder: Path, batch_id: str, members: list[Video]) -> int:
    """Writes the masklets of a batch, marks it as collected, and returns their number."""
    rows = {video.video_id: _rows(video) for video in members}
    for video_id, found in rows.items():
        parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=video_id, rows=found)
        parts.write_part(s.blobs, kind="operations", batch_id=batch_id, video_id=video_id, rows=[])
    number = sum(map(len, rows.values()))
    facts = {"imported": str(folder), "accepted": number}
    # The last stage first: an import that is killed in between is done again, and no other stage takes the batch.
    for stage in (BatchStage.COLLECTED, BatchStage.IN_REVIEW, BatchStage.PROPOSED):
        batches.mark(s.blobs, batch_id, stage, facts)
    return number


def _rows(video: Video) -> list[Masklet]:
    rows: list[Masklet] = []
    for path in _annotations(Path(video.source_uri)):
        if path.exists():
            rows += sav.read(path, video=video, batch_id=video.batch_id)
    return [replace(row, split=video.split) for row in rows]


def _annotations(video: Path) -> list[Path]:
    return [video.with_name(video.stem + suffix) for suffix in SUFFIXES]


def _is_annotated(key: str, keys: Collection[str]) -> bool:
    return any(path.as_posix() in keys for path in _annotations(Path(key)))
