"""The record of a round in the store: what it started from, its checkpoint and its result.

Files: rounds/<id>/start.json, verifier.json, evaluation.json and decision.json; gate.json and approval.json if a person
is asked; withdrawn.json if its promotion was taken back; failures/<n>.json for each time that it failed so that a retry
cannot help. The weights are in checkpoints/<id>/. Knows nothing about training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from engine.files import held
from engine.registry import Checkpoint
from engine.services import Services
from engine.stored_json import parse
from model.training.parameter_groups import TrainedParts
from storage.blobs.base import BlobDamaged, BlobMissing, read_json

MOST_FAILURES = 2  # after these, no round continues by itself
LOCK = "deciding"  # of those who change which checkpoint is promoted


class NoSuchRound(Exception):
    """No such round, or the round has not reached this step."""


class RoundState(StrEnum):
    """How far a round is."""

    RUNNING = "running"  # a process of this machine trains or evaluates it
    STOPPED = "stopped"  # it was killed or never began; the same command continues it
    FAILED = "failed"  # again and again; it does not continue by itself
    WAITS = "waits for approval"  # it passed the gate; a person has not answered yet
    DECIDED = "decided"


@dataclass(frozen=True)
class Round:
    """The pinned inputs of a round. The id follows from them."""

    round_id: str
    number: int
    release: str
    parent: str  # name of the checkpoint to fine-tune
    parent_key: str | None
    parent_round: int
    steps: int
    lr: float
    seed: int
    image_size: int | None  # px; None: that of the parent
    min_gain: float  # J&F points (0-100) to gain over the parent
    masklets: int  # training masklets of the release; the next round is due once enough are added
    # Added later: rounds that began before have these values.
    min_masklets: int = 1
    min_videos: int = 1
    max_slice_loss: float = 5.0  # J&F points
    max_forgotten: float = 10.0  # J&F points on the general set
    general: str | None = None  # the general set
    replay: float = 0.0  # share of the training clips that come from it
    parts: TrainedParts = "all"  # which weights change; see `model.training.parameter_groups`
    rejected: bool = False  # whether it learns from the candidates that people rejected as no object


@dataclass(frozen=True)
class RoundResult:
    """The result of a round. J&F in [0, 1]."""

    round_id: str
    promoted: bool
    reasons: tuple[str, ...]
    jf_before: float
    jf_after: float
    masklets: int  # held-out ones that were measured
    interval: tuple[float, float] | None = None  # of the gain, 95 %
    general_before: float | None = None  # J&F on the general set
    general_after: float | None = None
    general_first: float | None = None  # J&F on the general set before the first of the rounds that may forget together
    general_rounds: int = 1  # the number of these rounds, with this one
    waits: bool = False  # for a person's approval; never True in a decision


@dataclass(frozen=True)
class Approval:
    """A person's answer to a round that passed the gate."""

    approved: bool
    by: str
    why: str  # "" if the person gave no reason
    at: int  # s since the epoch


def checkpoint_of(s: Services, name: str) -> Checkpoint:
    """The checkpoint of a round, if `name` is a round's id. Otherwise a checkpoint that is loaded by this name.

    Raises NoSuchRound if the round has not been trained.
    """
    if name not in ids(s):
        return Checkpoint(name, 0, None)
    if not s.blobs.exists(f"checkpoints/{name}/meta.json"):
        raise NoSuchRound(f"round {name} has not been trained")
    return Checkpoint(name, start_of(s, name).number, f"checkpoints/{name}")


def ids(s: Services) -> list[str]:
    """The ids of all rounds that were started, sorted."""
    return sorted({key.split("/")[1] for key in s.blobs.keys("rounds/") if key.endswith("/start.json")})


def all_of(s: Services) -> list[Round]:
    """All rounds that were started, sorted by their ids."""
    return [start_of(s, round_id) for round_id in ids(s)]


def decided(s: Services) -> list[Round]:
    """The rounds that are decided, and the one that serves: its decision file may be missing after a kill."""
    serving = s.checkpoint().name
    return [begun for begun in all_of(s) if begun.round_id == serving or result_of(s, begun.round_id)]


def start_of(s: Services, round_id: str) -> Round:
    """The pinned inputs of a round. Raises NoSuchRound."""
    found = read(s, round_id, "start")
    if found is None:
        raise NoSuchRound(f"no such round: {round_id}")
    try:
        return Round(**found)
    except TypeError as error:
        raise BlobDamaged(f"rounds/{round_id}/start.json: {error}") from error


def result_of(s: Services, round_id: str) -> RoundResult | None:
    """The result of a round; None if it is not decided yet."""
    found = read(s, round_id, "decision")
    if found is None:
        return None
    return parse(TypeAdapter(RoundResult), found, f"rounds/{round_id}/decision.json")


def waiting_of(s: Services, round_id: str) -> RoundResult | None:
    """The gate's result of a round that waits for a person's approval; None for any other round."""
    found = read(s, round_id, "gate")
    if found is None or read(s, round_id, "approval") is not None or read(s, round_id, "decision") is not None:
        return None
    return parse(TypeAdapter(RoundResult), found, f"rounds/{round_id}/gate.json")


def approval_of(s: Services, round_id: str) -> Approval | None:
    """A person's answer about a round; None if nobody has answered."""
    found = read(s, round_id, "approval")
    return None if found is None else Approval(**found)


def is_taken_back(s: Services, round_id: str) -> bool:
    """Whether the promotion of the round was taken back (see `rollback`)."""
    return read(s, round_id, "withdrawn") is not None


def note_failure(s: Services, round_id: str, error: str) -> None:
    """Notes that a round failed so that a retry cannot help. error: one line."""
    number = 1
    while not s.blobs.create(f"rounds/{round_id}/failures/{number}.json", json.dumps({"error": error}).encode()):
        number += 1


def has_failed(s: Services, round_id: str) -> bool:
    """Whether a round failed so often that it does not continue by itself. A person may run it again."""
    return sum(1 for _ in s.blobs.keys(f"rounds/{round_id}/failures/")) >= MOST_FAILURES


def lock_of(s: Services, round_id: str) -> Path:
    """The lock that a process of this machine holds while it trains or evaluates the round."""
    return s.home / "rounds" / round_id / "lock"


def state_of(s: Services, begun: Round) -> RoundState:
    """How far a round is. Another machine's process is not seen: its round counts as stopped."""
    if result_of(s, begun.round_id) is not None:
        return RoundState.DECIDED
    if waiting_of(s, begun.round_id) is not None:
        return RoundState.WAITS
    if held(lock_of(s, begun.round_id)):
        return RoundState.RUNNING
    return RoundState.FAILED if has_failed(s, begun.round_id) else RoundState.STOPPED


def read(s: Services, round_id: str, name: str) -> dict[str, Any] | None:
    """One JSON file of a round; None if it is missing. Raises NoSuchRound for an invalid id."""
    if not round_id.replace("-", "").isalnum():
        raise NoSuchRound(f"no such round: {round_id}")
    try:
        return read_json(s.blobs, f"rounds/{round_id}/{name}.json")
    except BlobMissing:
        return None
