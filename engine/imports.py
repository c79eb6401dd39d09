"""SA-V datasets in: videos are ingested like any other, and their masklets go through the same checks to a release."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from engine import batches, ingest, publish
from engine.batches import Stage
from engine.services import Services
from storage import masklets
from storage.formats import sav
from storage.records import Masklet, Video

SUFFIXES = ("_manual.json", "_auto.json")


@dataclass(frozen=True)
class ImportReport:
    """What an import brought in."""

    videos: int
    masklets: int
    release: str


def sav_folder(s: Services, folder: Path, progress: Callable[[int, int, str], None] | None = None) -> ImportReport:
    """Imports NAME.mp4 with NAME_manual.json and NAME_auto.json. Run again after any failure.

    Raises SavError for an annotation that cannot be read, before anything of it is published.
    """
    ingest.run(s, str(folder), progress)
    videos, count, release = 0, 0, ""
    mine = {v.video_id: v for v in s.tables.videos() if Path(v.source_uri).parent == folder.absolute()}
    by_batch: dict[str, list[Video]] = defaultdict(list)
    for video in mine.values():
        by_batch[video.batch_id].append(video)
    for batch_id, members in sorted(by_batch.items()):
        if batch_id not in batches.pending(s.blobs, Stage.PROPOSED):
            continue  # imported before, or already proposed for by the model
        rows = {video.video_id: _rows(folder, video) for video in members}
        for video_id, found in rows.items():
            for kind in ("masklets", "operations"):
                part = found if kind == "masklets" else []
                masklets.write_part(s.blobs, kind=kind, batch_id=batch_id, video_id=video_id, rows=part)
        number = sum(map(len, rows.values()))
        facts = {"imported": str(folder), "accepted": number}
        for stage in (Stage.COLLECTED, Stage.IN_REVIEW, Stage.PROPOSED):  # last first: a cut leaves it to be done again
            batches.mark(s.blobs, batch_id, stage, facts)
        videos, count = videos + len(members), count + number
    for batch_id in publish.pending(s):
        if batch_id in by_batch:
            release = publish.run(s, batch_id)
    return ImportReport(videos, count, release)


def _rows(folder: Path, video: Video) -> list[Masklet]:
    rows: list[Masklet] = []
    for suffix in SUFFIXES:
        path = folder / (Path(video.source_uri).stem + suffix)
        if path.exists():
            rows += sav.read(path, video=video, batch_id=video.batch_id)
    return [replace(row, split=video.split) for row in rows]
