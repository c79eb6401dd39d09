"""The published batches in the order of their releases: what each one added to the dataset, and what people did for it.

Reads one small marker a batch, never a manifest or a table. This grows with the batches, because its callers show or
add up all of them: the chain of rounds, and a campaign with a plan. A process reads each marker once.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from engine import batches
from engine.batches import BatchStage
from engine.stages.work import Work
from storage.blobs.base import Blobs
from storage.dataset import increments, releases

_READERS = 8
_CACHED = 20_000  # batches in memory, a few hundred bytes each


@dataclass(frozen=True, kw_only=True)
class PublishedBatch:
    """What one batch, or one of its increments, added. None: a version that did not record this published it."""

    batch_id: str  # or the id of the increment
    release: str  # the first release with its masklets; "": it has none, and no release was made
    masklets: int
    annotated_frames: int | None  # of these masklets
    checkpoints: Mapping[str, int] | None  # masklets by the checkpoint that made them
    work: Work | None  # of people, also for what they rejected; None also for an import
    phase: str | None  # in which its tickets were opened; None also for an import


def of_all(blobs: Blobs) -> list[PublishedBatch]:
    """Every published batch and increment, that of the oldest release first."""
    named = ((batches.published_in(key), increments.id_of_published(key)) for key in blobs.keys("batches/"))
    ids = [one for both in named for one in both if one is not None]
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(partial(_of_one, blobs), ids))
    return sorted(found, key=lambda batch: (releases.place(batch.release), batch.batch_id))


@lru_cache(maxsize=_CACHED)
def _of_one(blobs: Blobs, batch_id: str) -> PublishedBatch:
    facts: Mapping[str, Any] | None = increments.facts_of_published(blobs, batch_id)
    if facts is None:
        facts = batches.facts(blobs, batch_id, BatchStage.PUBLISHED) or {}
    work = facts.get("work")
    return PublishedBatch(
        batch_id=batch_id,
        release=str(facts.get("release", "")),
        masklets=int(facts.get("masklets", 0)),
        annotated_frames=facts.get("annotated_frames"),
        checkpoints=facts.get("checkpoints"),
        work=None if work is None else Work(**work),
        phase=facts.get("phase"),
    )
