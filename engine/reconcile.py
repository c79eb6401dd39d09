"""What waits at each stage: the state, not the events, says what there is to do."""

from __future__ import annotations

from engine import auto_masklets, publish, review, rounds
from engine.services import Services


def run(s: Services) -> dict[str, list[str]]:
    """The batches that wait and the release that is due for a round, by the asset whose event would wake its stage."""
    due = rounds.due(s)
    return {
        "videos": sorted({*auto_masklets.pending(s), *review.to_open(s)}),
        "reviewed": review.to_collect(s),
        "collected": publish.pending(s),
        "release": [] if due is None else [due],
    }
