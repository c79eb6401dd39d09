"""What the store knows of rounds: what each started from, and its result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from engine.registry import Checkpoint
from engine.services import Services
from storage.blobs.base import BlobMissing


class NoSuchRound(Exception):
    """There is no such round, or it has not come this far."""


@dataclass(frozen=True)
class Round:
    """What a round begins with."""

    round_id: str
    number: int
    release: str
    parent: str  # name of the checkpoint that it trains on from
    parent_key: str | None
    parent_round: int
    steps: int
    lr: float
    seed: int
    image_size: int | None  # px; None: the parent's
    min_gain: float  # J&F points (0-100) that it must gain over its parent
    masklets: int  # to train on in the release: the watermark that the next round counts from


@dataclass(frozen=True)
class RoundResult:
    """What a round came to. J&F in [0, 1]."""

    round_id: str
    promoted: bool
    reasons: tuple[str, ...]
    jf_before: float
    jf_after: float
    masklets: int  # that it was measured on


def checkpoint_of(s: Services, name: str) -> Checkpoint:
    """The checkpoint that a round made, by the round's id; any other name is one that is loaded by its name.

    Raises NoSuchRound for a round that has not been trained.
    """
    if name not in ids(s):
        return Checkpoint(name, 0, None)
    if not s.blobs.exists(f"checkpoints/{name}/meta.json"):
        raise NoSuchRound(f"round {name} has not been trained")
    return Checkpoint(name, start_of(s, name).number, f"checkpoints/{name}")


def ids(s: Services) -> list[str]:
    """Every round that was started, in order."""
    return sorted({key.split("/")[1] for key in s.blobs.keys("rounds/") if key.endswith("/start.json")})


def start_of(s: Services, round_id: str) -> Round:
    """What a round began with. Raises NoSuchRound."""
    found = read(s, round_id, "start")
    if found is None:
        raise NoSuchRound(f"no such round: {round_id}")
    return Round(**found)


def result_of(s: Services, round_id: str) -> RoundResult | None:
    """What a round came to; None while it is not decided."""
    found = read(s, round_id, "decision")
    return None if found is None else RoundResult(**{**found, "reasons": tuple(found["reasons"])})


def read(s: Services, round_id: str, name: str) -> dict[str, Any] | None:
    if not round_id.replace("-", "").isalnum():
        raise NoSuchRound(f"no such round: {round_id}")
    try:
        return dict(json.loads(s.blobs.read(f"rounds/{round_id}/{name}.json")))
    except BlobMissing:
        return None
