"""Ingest and auto-masklets for tests that need a batch."""

from __future__ import annotations

from engine.ingest import ingest
from engine.services import Services, connect
from engine.settings import Settings
from engine.stages import propose


def admit_batch(s: Services, source: str | None = None) -> str:
    """Ingests the source and returns the id of the new batch."""
    batch_id = ingest.admit(s, source).batch_id
    assert batch_id is not None, "the source holds no new video"
    return batch_id


def admit_and_propose(settings: Settings | None = None) -> None:
    """The first two stages. settings: None for those of the environment, as in a process that a test kills."""
    with connect(settings) as s:
        ingest.admit(s)
        for batch_id in propose.pending(s):
            propose.propose_batch(s, batch_id)
