"""SA-V datasets in: annotated videos are ingested like any other, and their masklets go through the same checks.

An import takes the videos that have an annotation beside them, in any folder below, and no others: those are for
ingest and the model. What it admits is marked as an import's from the first moment, so that no model proposes for it
meanwhile; videos that were ingested before are left to the model.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

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
    """What an import brought in."""

    videos: int
    masklets: int
    release: str
    quarantined: int
    skipped: int  # annotated videos that an ingest had admitted, in a batch that is not the import's to close


def import_folder(s: Services, folder: Path, progress: Callable[[int, int, str], None] | None = None) -> ImportReport:
    """Imports NAME.mp4 with NAME_manual.json and NAME_auto.json, in any folder below. Run again after any failure.

    Raises NothingAnnotated, and SavError for an annotation that cannot be read, before anything of it is published.
    """
    folder = Path(os.path.abspath(folder))  # as ingest spells its addresses
    looked = ingest.admit(s, str(folder), progress, for_import=_is_annotated)
    if looked.admitted + looked.quarantined + looked.unchanged + looked.postponed == 0:
        raise NothingAnnotated(f"{folder}: no NAME.mp4 with NAME_manual.json or NAME_auto.json beside it")
    videos, count, skipped, release = 0, 0, 0, ""
    by_batch: dict[str, list[Video]] = defaultdict(list)
    for video in s.tables.videos():
        path = Path(video.source_uri)
        if path.is_relative_to(folder) and any(note.exists() for note in _annotations(path)):
            by_batch[video.batch_id].append(video)
    imported = []
    for batch_id, members in sorted(by_batch.items()):
        ingested = batches.facts(s.blobs, batch_id, BatchStage.INGESTED) or {}
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


def _fill(s: Services, folder: Path, batch_id: str, members: list[Video]) -> int:
    """Writes the masklets of a batch and marks it as far as collected. Returns their number."""
    rows = {video.video_id: _rows(video) for video in members}
    for video_id, found in rows.items():
        for kind in ("masklets", "operations"):
            part = found if kind == "masklets" else []
            parts.write_part(s.blobs, kind=kind, batch_id=batch_id, video_id=video_id, rows=part)
    number = sum(map(len, rows.values()))
    facts = {"imported": str(folder), "accepted": number}
    for stage in (
        BatchStage.COLLECTED,
        BatchStage.IN_REVIEW,
        BatchStage.PROPOSED,
    ):  # last first: a cut leaves it to be done again
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
