"""Ingest for tests that need a batch."""

from __future__ import annotations

from engine.services import Services
from engine.stages import ingest


def admit_batch(s: Services, source: str | None = None) -> str:
    """Ingests the source and returns the id of the new batch."""
    batch_id = ingest.admit(s, source).batch_id
    assert batch_id is not None, "the source holds no new video"
    return batch_id
