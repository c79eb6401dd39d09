"""Batches: which videos each one has, and how far it has come.

A batch is some videos of one project that were admitted together; an ingest run may make several. Each stage marks a
batch with a create-only JSON file after its own work is durable. A batch is pending for a stage if the stage before has
marked it and this stage has not. Every stage asks here what there is to do, so a lost event costs time and never work.

    batches/<batch_id>/<stage>.json
    open/<batch_id>/<stage>             empty: copies of these marks, until the batch is published
    batches/<batch_id>/increments/      if it is published in several steps: see storage/dataset/increments.py
    open/complete                       the batches of earlier versions have their copies
    batches/<batch_id>/checkpoint.json
    batches/<batch_id>/phase.json
    batches/<batch_id>/ontology.json
    batches/<batch_id>/verifier.json
    batches/<batch_id>/left-out-0001.json   of an increment: its refused rows stay out by a lead's decision
    batches/<batch_id>/project.json     made before the batch is seen; the unnamed project's batches have none
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from storage.blobs.base import BlobDamaged, BlobMissing, Blobs, read_json
from storage.dataset import parts
from storage.records import unique_videos
from storage.wording import counted

if TYPE_CHECKING:
    from engine.services import Services
    from storage.records import Video


class BatchStage(StrEnum):
    """What a batch has reached, in order. The value names the marker."""

    INGESTED = "1-ingested"  # its videos are in the table
    PROPOSED = "2-proposed"  # every video has candidates, or a quarantine record
    IN_REVIEW = "3-in-review"  # its tickets are open
    COLLECTED = "4-collected"  # every ticket is settled, and the decisions are in parts
    PUBLISHED = "5-published"  # checked, committed, in a release


_BATCH = re.compile(r"[0-9a-f]{16}")
_MARKER = re.compile(rf"batches/({_BATCH.pattern})/({'|'.join(BatchStage)})\.json")
_COPY = re.compile(rf"open/({_BATCH.pattern})/({'|'.join(BatchStage)})")
_COMPLETE = "open/complete"


CHECKPOINT = "checkpoint"  # which checkpoint proposes for every video of the batch
PHASE = "phase"  # the phase in which the batch's tickets were opened
ONTOLOGY = "ontology"  # which labels the objects of the batch's tickets may get, and when a ticket asks for one
PROJECT = "project"  # which project owns the batch, for ever
LEFT_OUT = "left-out"  # and the number of an increment: a lead has it published without its refused rows
VERIFIER = "verifier"  # which verifier routes the candidates of the batch, and how


class UnknownBatch(Exception):
    """There is no such batch, or it has not come far enough."""


def video_ids(blobs: Blobs, batch_id: str) -> list[str]:
    """The ids of the batch's videos. Raises UnknownBatch."""
    ingested = facts(blobs, batch_id, BatchStage.INGESTED)
    if ingested is None:
        raise UnknownBatch(f"no such batch: {batch_id}")
    if not isinstance(ingested.get("videos"), list):
        raise BlobDamaged(f"{_key(batch_id, BatchStage.INGESTED)}: the list of videos is missing")
    return [str(video_id) for video_id in ingested["videos"]]


def videos(s: Services, batch_id: str, only: Collection[str] | None = None) -> list[Video]:
    """The rows of the batch's videos, or of some of them, sorted by id. Raises UnknownBatch, PartDamaged.

    Reads the batch's parts: to find its rows in the table, Iceberg opens a manifest for each batch.
    """
    wanted = set(video_ids(s.blobs, batch_id))
    return unique_videos([row for row in parts.rows(s.blobs, "videos", batch_id, only) if row.video_id in wanted])


def name_of(videos: Iterable[Video]) -> str:
    """The name of the folder, or else of the bucket, that all these videos came from; "" if there is none."""
    folders = {posixpath.dirname(video.source_uri) for video in videos}
    return posixpath.basename(posixpath.commonpath(folders)) if folders else ""


def find(blobs: Blobs, beginning: str) -> str:
    """The id of the only batch whose id begins so. Raises UnknownBatch; ValueError if several do.

    A whole id costs nothing; a beginning of one lists batches.
    """
    if not re.fullmatch(r"[0-9a-f]{1,16}", beginning):
        raise UnknownBatch(f"not the id of a batch, or its beginning: {beginning!r}")
    if _BATCH.fullmatch(beginning):
        video_ids(blobs, beginning)
        return beginning
    found = sorted({marker[1] for key in blobs.keys(f"batches/{beginning}") if (marker := _MARKER.fullmatch(key))})
    if not found:
        raise UnknownBatch(f"no such batch: {beginning}")
    if len(found) > 1:
        raise ValueError(f"{beginning} is the beginning of {counted(len(found), 'batch')}: {found[0]}, {found[1]}, …")
    return found[0]


def marks_of(blobs: Blobs, batch_id: str) -> set[BatchStage]:
    """The stages that have marked this batch."""
    found = (_MARKER.fullmatch(key) for key in blobs.keys(f"batches/{batch_id}/"))
    return {BatchStage(marker[2]) for marker in found if marker}


def project_of(blobs: Blobs, batch_id: str) -> str:
    """The project that owns a batch; "" for the unnamed one."""
    return str((facts(blobs, batch_id, PROJECT) or {}).get("project", ""))


def is_known(blobs: Blobs, batch_id: str) -> bool:
    """Whether this store has the batch."""
    return bool(_BATCH.fullmatch(batch_id)) and facts(blobs, batch_id, BatchStage.INGESTED) is not None


def is_import(blobs: Blobs, batch_id: str) -> bool:
    """Did an import admit this batch? Then the import fills it, and no model proposes for it."""
    return bool((facts(blobs, batch_id, BatchStage.INGESTED) or {}).get("imported"))


def mark(blobs: Blobs, batch_id: str, name: str, facts: Mapping[str, Any]) -> bool:
    """Marks a batch with a stage or its checkpoint; False if it was marked before: the first facts stay."""
    made = blobs.create(_key(batch_id, name), json.dumps(facts, sort_keys=True).encode())
    if name in set(BatchStage):
        # After the mark: a kill in between makes this stage run again, which comes here again.
        if name != BatchStage.PUBLISHED and (made or not blobs.exists(_key(batch_id, BatchStage.PUBLISHED))):
            blobs.create(f"open/{batch_id}/{name}", b"")
        else:
            _close(blobs, batch_id)
    return made


def facts(blobs: Blobs, batch_id: str, name: str) -> dict[str, Any] | None:
    """The facts with which the batch was marked; None if it was not. Raises BlobDamaged."""
    try:
        return read_json(blobs, _key(batch_id, name))
    except BlobMissing:
        return None


def pending(blobs: Blobs, stage: BatchStage) -> list[str]:
    """The batches that `stage` has to work on, sorted: the stage before has marked them, no stage from `stage` on has.

    An import marks its later stages first; it is pending for none of them.
    """
    order = list(BatchStage)
    at = order.index(stage)
    stages = unfinished(blobs)
    return sorted(b for b, marks in stages.items() if order[at - 1] in marks and not marks.intersection(order[at:]))


def in_review(blobs: Blobs) -> list[str]:
    """The batches whose tickets are open, or settled and not published yet. Sorted."""
    return sorted(batch_id for batch_id, marks in unfinished(blobs).items() if BatchStage.IN_REVIEW in marks)


def unfinished(blobs: Blobs) -> dict[str, set[BatchStage]]:
    """The batches that are not published, and the stages that have marked them. Its cost follows these batches."""
    if not blobs.exists(_COMPLETE):
        copy_marks(blobs)  # once for a store, which an earlier version may have filled
        blobs.create(_COMPLETE, b"")
    found: dict[str, set[BatchStage]] = {}
    for key in blobs.keys("open/"):
        if copy := _COPY.fullmatch(key):
            found.setdefault(copy[1], set()).add(BatchStage(copy[2]))
    for batch_id in [batch_id for batch_id, marks in found.items() if BatchStage.COLLECTED in marks]:
        if blobs.exists(_key(batch_id, BatchStage.PUBLISHED)):  # a publish was killed after its mark
            _close(blobs, batch_id)
            del found[batch_id]
    return found


def unmark(blobs: Blobs, batch_id: str, stage: BatchStage) -> None:
    """Takes a stage's mark away, so that the stage runs again: for a restore that found its work missing."""
    blobs.delete(_key(batch_id, stage))
    blobs.delete(f"open/{batch_id}/{stage}")  # last: until then, a restore that is run again finds the batch


def copy_marks(blobs: Blobs) -> None:
    """Makes the copies that are missing: a process was killed between a mark and its copy. Lists all batches."""
    for batch_id, marks in reached(blobs).items():
        if BatchStage.PUBLISHED not in marks:
            for stage in marks:
                blobs.create(f"open/{batch_id}/{stage}", b"")
            if blobs.exists(_key(batch_id, BatchStage.PUBLISHED)):  # meanwhile
                _close(blobs, batch_id)


def _close(blobs: Blobs, batch_id: str) -> None:
    """Removes the copies of a published batch, the first stage first: a kill leaves the mark of the last ones."""
    for key in list(blobs.keys(f"open/{batch_id}/")):
        blobs.delete(key)


def published_in(key: str) -> str | None:
    """The batch that a key below `batches/` marks as published; None for every other key."""
    marker = _MARKER.fullmatch(key)
    return marker[1] if marker and marker[2] == BatchStage.PUBLISHED else None


def reached(blobs: Blobs) -> dict[str, set[BatchStage]]:
    """Every batch and the stages that have marked it. Other files beside the markers are skipped.

    Lists all batches, for people who ask about all. What waits is in `unfinished`.
    """
    found: dict[str, set[BatchStage]] = {}
    for key in blobs.keys("batches/"):
        if marker := _MARKER.fullmatch(key):
            found.setdefault(marker[1], set()).add(BatchStage(marker[2]))
    return found


def _key(batch_id: str, name: str) -> str:
    if not _BATCH.fullmatch(batch_id):  # no id may become a path elsewhere
        raise ValueError(f"not a batch id: {batch_id!r}")
    return f"batches/{batch_id}/{name}.json"
