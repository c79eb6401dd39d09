"""Admitted videos: their folder in the store, and how they become a batch.

    videos/<video_id>/record.json   create-only: the video counts as admitted from here on
                      video.mp4     normalised
                      frames.json   the source's time of each frame; what was changed, such as "deinterlaced"
                      truth.json    ground truth, where the source has it
                      imported      empty: an import has admitted it, so no model proposes for it

A run that was killed leaves records that no table has; the next run commits them. Knows nothing of sources.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from engine.services import Services
from engine.stages import batches
from engine.stages.batches import BatchStage
from storage import parts
from storage.blobs.base import BlobDamaged, BlobMissing, Blobs
from storage.normalise import Normalised
from storage.records import Video, content_id

_VIDEO = TypeAdapter(Video)


def folder(video_id: str) -> str:
    """The key below which everything of a video is."""
    return f"videos/{video_id}"


def read_record(blobs: Blobs, video_id: str) -> Video | None:
    """The record of an admitted video; None if it is not admitted. Raises BlobDamaged.

    It has no batch yet, and a split only if an imported annotation names one.
    """
    key = f"{folder(video_id)}/record.json"
    try:
        return _VIDEO.validate_json(blobs.read(key))
    except BlobMissing:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        raise BlobDamaged(f"{key}: {'.'.join(map(str, first['loc']))} {first['msg']}") from error


def write(blobs: Blobs, record: Video, video: Path, made: Normalised, truth: bytes | None, imported: bool) -> bool:
    """Stores a video and admits it; False if another process has admitted the same bytes first.

    made: the times of its frames, and what was changed.
    """
    here = folder(record.video_id)
    if truth is not None:
        blobs.write(f"{here}/truth.json", truth)
    blobs.write(f"{here}/video.mp4", video)
    blobs.write(f"{here}/frames.json", json.dumps({"source_s": made.timestamps, "changes": made.changes}).encode())
    if imported:  # before the record: nobody may see the video without this
        blobs.create(f"{here}/imported", b"")
    return blobs.create(f"{here}/record.json", _VIDEO.dump_json(record))


def commit(s: Services, uris: set[str]) -> tuple[str | None, list[Video]]:
    """Commits every admitted video that the table does not have, and marks batches whose mark was lost.

    The videos from `uris` become one batch. Videos that a killed run over another source left become another batch, and
    so do an import's: each batch is later treated as a whole. Returns the id of the batch from `uris` (or of another
    batch if that is empty), and the videos.
    """
    keys = [key.split("/") for key in s.blobs.keys("videos/")]
    imported = {key[1] for key in keys if key[-1] == "imported"}
    table = s.tables.scan("videos", columns=["video_id", "batch_id", "split"])
    batch_of = dict(zip(table["video_id"].to_pylist(), table["batch_id"].to_pylist(), strict=True))
    _repair_marks(s, batch_of, imported)
    splits = table["split"].to_pylist()
    waiting = sorted(key[1] for key in keys if key[-1] == "record.json" and key[1] not in batch_of)
    records = [record for video_id in waiting if (record := read_record(s.blobs, video_id)) is not None]
    batch_id = None
    for kind in itertools.product((False, True), (False, True)):  # (from these uris, imported)
        group = [r for r in records if (r.source_uri in uris, r.video_id in imported) == kind]
        if group:
            batch_id = _commit_batch(s, group, splits, imported=kind[1])
    return batch_id, records


def _repair_marks(s: Services, batch_of: dict[str, str], imported: set[str]) -> None:
    marked = batches.reached(s.blobs)
    for batch_id in sorted(set(batch_of.values()) - set(marked)):
        videos = sorted(v for v, b in batch_of.items() if b == batch_id)
        _mark(s, batch_id, videos, imported.issuperset(videos))


def _commit_batch(s: Services, records: Sequence[Video], splits: list[str], imported: bool) -> str:
    """Commits videos as a batch and returns its id. splits: of all earlier videos; the new ones are appended."""
    video_ids = [record.video_id for record in records]
    batch_id = content_id("batch", *video_ids)
    chosen = _splits(records, splits, s.settings.ingest.held_out_share)
    for record in records:
        row = replace(record, batch_id=batch_id, split=chosen[record.video_id])
        parts.write_part(s.blobs, kind="videos", batch_id=batch_id, video_id=record.video_id, rows=[row])
        splits.append(row.split)
    parts.commit_batch(s.blobs, s.tables, "videos", batch_id)
    _mark(s, batch_id, video_ids, imported)
    return batch_id


def _mark(s: Services, batch_id: str, video_ids: Sequence[str], imported: bool) -> None:
    facts = {"videos": video_ids} | ({"imported": True} if imported else {})
    batches.mark(s.blobs, batch_id, BatchStage.INGESTED, facts)


def _splits(records: Sequence[Video], earlier: Sequence[str], share: float) -> dict[str, str]:
    """The split of each new video. Splits that a source names count only if it holds out videos itself."""
    named = {record.video_id: record.split for record in records if record.split}
    if "val" not in named.values():
        named = {video_id: split for video_id, split in named.items() if split == "test"}
    free = [record.video_id for record in records if record.video_id not in named]
    held_out = _held_out(free, [*earlier, *named.values()], share)
    return named | {video_id: "val" if video_id in held_out else "train" for video_id in free}


def _held_out(new: Sequence[str], splits: Sequence[str], share: float) -> set[str]:
    """Which of the new videos are held out, so that the share holds over all videos; earlier ones keep their split.

    The choice follows from the ids alone, which are hashes of the bytes, so it cannot prefer any kind of video.
    """
    wanted = math.floor(share * (len(new) + len(splits)) + 0.5) - sum(split == "val" for split in splits)
    by_hash = sorted(new, key=lambda video_id: content_id("split", video_id))
    return set(by_hash[: max(0, wanted)])
