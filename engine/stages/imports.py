"""Imports datasets: annotated videos are ingested, and their masklets get the same checks as any others.

`engine/ingest/readers.py` reads the formats. An import takes the videos that are annotated, in any folder below;
other videos are left for ingest.
Its videos are marked as imported from the first moment, so no model proposes for them. They keep their names, their
metadata and the order of their objects, for later exports. Videos that were ingested before
are left to the model. A video with a bad annotation is quarantined before it is admitted, so a repaired annotation is
imported by the next run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from engine import batches, trouble
from engine.batches import BatchStage
from engine.ingest import admitted, ingest, readers, sources
from engine.ingest.judge import quarantine_record
from engine.ingest.readers import Reader
from engine.progress import Progress
from engine.services import Services
from engine.stages import publish
from storage.dataset import parts
from storage.errors import first_line
from storage.formats.imported import AnnotationError
from storage.records import Masklet, Quarantined, Refusal, Video

STAGE = "import"  # its name in the records of trouble and of quarantine
MOST_SHOWN = 100  # differences that a report lists


class NothingAnnotated(Exception):
    """No video of the folder is annotated."""


@dataclass(frozen=True)
class ImportReport:
    """What an import did."""

    videos: int
    masklets: int  # that were read
    failed: int  # of these and of an import that was killed: masklets that a check refused
    release: str
    quarantined: int  # videos
    bad_files: int  # annotations that cannot be read, or have rows of no video
    skipped: int  # annotated videos that ingest had admitted before, in a batch that is not the import's
    differing: int = 0  # masklets whose file states other figures than their masks have; they are imported
    differences: tuple[str, ...] = ()  # the first of them: file, masklet, stated and measured figures
    stuck: tuple[str, ...] = ()  # batches that could not be published, because the store is damaged


def import_folder(
    s: Services,
    folder: Path,
    progress: Progress | None = None,
    reader_of: Callable[[Path], Reader] = readers.sav_reader,
    review: bool = False,
    project: str = "",
) -> ImportReport:
    """Imports the annotated videos of a folder, in any folder below. Run it again after any failure.

    reader_of: opens the annotations of a folder in one format. review: the masklets are candidates, which people judge
    like those of a model; otherwise they are accepted and published. project: that the batch belongs to.
    Raises NothingAnnotated, NoSuchProject, OSError.
    """
    folder = Path(os.path.abspath(folder))  # as ingest writes its addresses
    reader = reader_of(folder)
    looked = ingest.admit(s, str(folder), progress, for_import=reader, project=project)
    lines = [(file, line) for file, of in reader.bad.items() for line in of]
    ingest.quarantine(s, [quarantine_record(f"{folder}/{file}", Refusal.FAILED, line) for file, line in lines])
    if looked.admitted + looked.quarantined + looked.unchanged + looked.postponed == 0:
        why = f" ({lines[0][0]}: {lines[0][1]})" if lines else ""
        raise NothingAnnotated(f"{folder}: no {reader.wanted}{why}")
    videos, count, failed, skipped, refused, release = 0, 0, 0, 0, 0, ""
    differing, stuck = list[str](), list[str]()
    imported = []
    for batch_id, addresses in sorted(s.tables.addresses(_below(folder)).items()):
        proposed = batches.facts(s.blobs, batch_id, BatchStage.PROPOSED)
        if proposed is None and (members := _to_fill(s, batch_id, addresses)):
            with trouble.recorded(s.blobs, batch_id, STAGE):
                number, bad, other = _fill(s, folder, reader, batch_id, members, review)
            differing += other
            videos, count, refused = videos + len(members) - bad, count + number, refused + bad
        elif proposed is None or "imported" not in proposed:
            skipped += sum(bool(_notes(folder, reader, address)) for address in addresses)
            continue
        else:
            batches.mark(s.blobs, batch_id, BatchStage.PROPOSED, proposed)  # its copy, if a kill came before it
        imported.append(batch_id)
    for batch_id in publish.pending(s):
        if batch_id in imported:
            try:
                release = publish.publish_batch(s, batch_id)
            except parts.PartError as error:  # a truncated part, a marker without its part: the others go on
                stuck.append(f"batch {batch_id}: {first_line(error)}")
                continue
            failed += (batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) or {}).get("quarantined", 0)
    return ImportReport(
        videos=videos,
        masklets=count,
        failed=failed,
        release=release,
        quarantined=looked.quarantined + refused,
        bad_files=len(reader.bad),
        skipped=skipped,
        differing=len(differing),
        differences=tuple(differing[:MOST_SHOWN]),
        stuck=tuple(stuck),
    )


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


def _fill(
    s: Services, folder: Path, reader: Reader, batch_id: str, members: list[Video], review: bool
) -> tuple[int, int, list[str]]:
    """Writes the masklets of a batch, and marks it as collected.

    Returns its masklets, its quarantined videos, and where stated figures differ from those of the masks.

    review: marks it as proposed instead, so that the next stage opens its tickets.
    An annotation that became bad or was removed after the video was admitted quarantines the video. Its record comes
    before its empty part, and after the parts of the others: if a run is killed here, the next one decides the same.
    Raises OSError if an annotation cannot be read now: run the import again.
    """
    kind, number, differing = "candidates" if review else "masklets", 0, list[str]()

    def write(video: Video, rows: list[Masklet]) -> int:
        if not review:
            parts.write_part(s.blobs, kind="operations", batch_id=batch_id, video_id=video.video_id, rows=[])
        return parts.write_part(s.blobs, kind=kind, batch_id=batch_id, video_id=video.video_id, rows=rows).rows

    refused = {row.subject: row for row in parts.rows(s.blobs, "quarantine", batch_id, [STAGE])}
    for video in members:
        if video.source_uri in refused:
            continue
        try:
            rows, other = _rows(s, folder, reader, video)
        except AnnotationError as error:
            if (before := parts.marker(s.blobs, kind, batch_id, video.video_id)) is not None:
                number += before.rows  # it was good when a killed run read it
                continue
            refused[video.source_uri] = Quarantined(
                stage=STAGE,
                subject=video.source_uri,
                reason=Refusal.FAILED.value,
                detail=" ".join(str(error).split()),
                batch_id=batch_id,
            )
            continue
        number += write(video, [replace(row, verdict=None) for row in rows] if review else rows)
        differing += other
    if refused:
        records = list(refused.values())
        parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id=STAGE, rows=records)
        for video in members:
            if video.source_uri in refused:
                write(video, [])
    if review:
        batches.mark(s.blobs, batch_id, BatchStage.PROPOSED, {"imported": str(folder), "candidates": number})
        return number, len(refused), differing
    facts = {"imported": str(folder), "accepted": number}
    # The last stage first: an import that is killed in between is done again, and no other stage takes the batch.
    for stage in (BatchStage.COLLECTED, BatchStage.IN_REVIEW, BatchStage.PROPOSED):
        batches.mark(s.blobs, batch_id, stage, facts)
    return number, len(refused), differing


def _rows(s: Services, folder: Path, reader: Reader, video: Video) -> tuple[list[Masklet], list[str]]:
    """The masklets of a video, and where its annotation states other figures than their masks have.

    Raises AnnotationError, also if it has no annotation any more; OSError if its files cannot be read now.
    """
    notes = _notes(folder, reader, video.source_uri)
    if not notes:
        raise _removed(folder, video)
    times = admitted.source_times(s.blobs, video.video_id)
    try:
        note = reader.open(
            _key(folder, video.source_uri), lambda: {name: (folder / name).read_bytes() for name in notes}
        )
    except FileNotFoundError:
        raise _removed(folder, video) from None
    rows = note.masklets(video, times, video.batch_id)
    return [replace(row, split=video.split) for row in rows], note.differences(rows)


def _removed(folder: Path, video: Video) -> AnnotationError:
    """The error of a video without annotation. Raises OSError if the video is gone too: the folder may come back."""
    if not (folder / _key(folder, video.source_uri)).exists():
        raise FileNotFoundError(f"{video.source_uri}: neither the video nor its annotation is there; is it mounted?")
    return AnnotationError(f"{video.source_uri}: its annotation was removed")


def _notes(folder: Path, reader: Reader, address: str) -> tuple[str, ...]:
    """The files that annotate a video now."""
    return reader.notes(_key(folder, address), lambda name: (folder / name).exists())


def _key(folder: Path, address: str) -> str:
    """The path of a video in the folder."""
    return address.removeprefix(_below(folder))
