"""What waits at each stage: the state, not the events, says what there is to do."""

from __future__ import annotations

from engine import auto_masklets, publish, review
from engine.services import Services


def run(s: Services) -> dict[str, list[str]]:
    """The batches that wait, by the asset whose event would wake the stage that takes them on."""
    return {
        "videos": sorted({*auto_masklets.pending(s), *review.to_open(s)}),
        "reviewed": review.to_collect(s),
        "collected": publish.pending(s),
    }
