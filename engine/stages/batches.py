"""How far each batch has come: create-only stage markers in the store, nothing else.

A batch is the videos of one ingest run. A stage marks its batch after its own work is durable: a batch is pending for a
stage when the stage before has marked it and this one has not. Whoever is woken (by an asset event, a clock or a
person) asks here what there is to do; a lost event therefore costs time, never work. Markers are JSON and never change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from storage.blobs.base import BlobMissing, Blobs


class BatchStage(StrEnum):
    """The stages of a batch, in order. The value names the marker."""

    INGESTED = "1-ingested"  # its videos are in the table
    PROPOSED = "2-proposed"  # every video has candidates, or a quarantine record
    IN_REVIEW = "3-in-review"  # its tickets are open
    COLLECTED = "4-collected"  # every ticket is settled, and what was decided is in parts
    PUBLISHED = "5-published"  # checked, committed, tagged


_BATCH = re.compile(r"[0-9a-f]{16}")
_MARKER = re.compile(rf"batches/({_BATCH.pattern})/({'|'.join(BatchStage)})\.json")


class UnknownBatch(Exception):
    """No such batch."""


def check_id(batch_id: str) -> str:
    """The id itself; raises ValueError if it cannot be one, so that no id ever becomes a path."""
    if not _BATCH.fullmatch(batch_id):
        raise ValueError(f"not a batch id: {batch_id!r}")
    return batch_id


def mark(blobs: Blobs, batch_id: str, stage: BatchStage, facts: Mapping[str, Any]) -> bool:
    """Marks a batch; False if it was marked before, and then the first facts stay."""
    return blobs.create(_key(batch_id, stage), json.dumps(facts, sort_keys=True).encode())


def facts(blobs: Blobs, batch_id: str, stage: BatchStage) -> dict[str, Any] | None:
    """What the stage said when it marked the batch; None if it has not."""
    try:
        return dict(json.loads(blobs.read(_key(batch_id, stage))))
    except BlobMissing:
        return None


def pending(blobs: Blobs, stage: BatchStage) -> list[str]:
    """The batches that `stage` has to work on: marked by the stage before, and by none from it on. Sorted."""
    order = list(BatchStage)
    at = order.index(stage)
    stages = reached(blobs)
    return sorted(b for b, marks in stages.items() if order[at - 1] in marks and not marks.intersection(order[at:]))


def reached(blobs: Blobs) -> dict[str, set[BatchStage]]:
    """Every batch and the stages that have marked it. What others have put beside the markers is passed over."""
    found: dict[str, set[BatchStage]] = {}
    for key in blobs.keys("batches/"):
        if marker := _MARKER.fullmatch(key):
            found.setdefault(marker[1], set()).add(BatchStage(marker[2]))
    return found


def _key(batch_id: str, stage: BatchStage) -> str:
    return f"batches/{check_id(batch_id)}/{stage}.json"
