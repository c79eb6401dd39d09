"""Takes a promotion back: the checkpoint that a round was trained from serves again.

Nothing is deleted. The round keeps its weights and its decision; `withdrawn.json` beside them says that it was taken
back. Serving, the live model and the next proposals ask the registry which checkpoint is promoted, so they follow
without a restart.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from engine.registry import Checkpoint
from engine.rounds.record import LOCK, read, start_of
from engine.services import Services


class NothingToRollBack(Exception):
    """No round's checkpoint serves."""


@dataclass(frozen=True)
class Rollback:
    """What a rollback changed."""

    taken_back: tuple[str, ...]  # the rounds that no longer serve, the newest first
    serving: str  # the checkpoint that serves now


def rollback(s: Services, to: str | None = None) -> Rollback:
    """Lets an earlier checkpoint serve: the parent of the serving round, or `to`, which must be one of its ancestors.

    A repeated call first finishes an interrupted rollback and does nothing else.
    Raises NothingToRollBack; LockLost if another process decided meanwhile; ValueError if `to` is not an ancestor.
    """
    with s.alone(LOCK) as held:
        serving = s.registry.promoted()
        if serving is None:
            raise NothingToRollBack(f"no round was promoted: {s.checkpoint().name} serves")
        begun = read(s, serving.name, "withdrawn")  # the promotion was not yet taken back in the registry
        wanted = begun["to"] if begun else to
        chain = _ancestors(s, serving)
        names = [checkpoint.name for checkpoint in chain]
        if wanted is not None and wanted not in names:
            raise ValueError(f"{serving.name} was not trained from {wanted}: choose one of {', '.join(names)}")
        place = 0 if wanted is None else names.index(wanted)
        target = chain[place]
        taken_back = (serving.name, *names[:place])
        for round_id in reversed(taken_back):  # the serving one last: its file marks a rollback that has begun
            facts = {"to": target.name, "at": round(time.time())}
            s.blobs.create(f"rounds/{round_id}/withdrawn.json", json.dumps(facts).encode())
        held.check()
        s.registry.restore(target)
        return Rollback(taken_back, s.checkpoint().name)  # the target, unless `model.checkpoint` was changed since


def _ancestors(s: Services, serving: Checkpoint) -> list[Checkpoint]:
    """The checkpoints that a round's checkpoint was trained from, its parent first."""
    found = []
    at = serving
    while at.key is not None:
        begun = start_of(s, at.name)
        at = Checkpoint(begun.parent, begun.parent_round, begun.parent_key)
        found.append(at)
    return found
