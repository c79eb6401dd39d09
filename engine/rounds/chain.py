"""The chain masklets -> release -> checkpoint -> masklets: one link a round, with its data, its result and its cost.

Derived from the records of the rounds and the markers of the published batches; nothing is stored.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from engine.rounds import record
from engine.rounds.record import Round, RoundResult, RoundState
from engine.services import Services
from engine.stages import published
from engine.stages.published import PublishedBatch
from engine.stages.work import Work
from engine.stored_json import parse
from storage.dataset import releases
from validation import gate, paired

NOT_RECORDED = "not recorded"  # in place of a checkpoint, for batches that an earlier version published


@dataclass(frozen=True)
class MeasuredJF:
    """Mean J&F of one checkpoint on the held-out masklets, in [0, 1]."""

    mean: float
    interval: tuple[float, float] | None  # 95 %; None: the J&F of each masklet is not recorded


@dataclass(frozen=True)
class Added:
    """What was published since the release of the round before, and what people did for it. None: not recorded."""

    masklets: int
    checkpoints: Mapping[str, int]  # the number of these masklets by the checkpoint that made them
    clicks_a_masklet: float | None
    seconds_a_frame: float | None  # modelled seconds of people for each annotated frame of these masklets
    hours: float | None  # modelled hours of people, also for what they rejected


@dataclass(frozen=True)
class Link:
    """One round of the chain."""

    begun: Round
    result: RoundResult | None
    state: RoundState
    taken_back: bool  # its promotion
    made_by: Mapping[str, int]  # all masklets of the round's release by the checkpoint that made them
    added: Added
    before: MeasuredJF | None  # of the checkpoint that the round started from
    after: MeasuredJF | None  # of the round's own checkpoint

    @property
    def checkpoint_after(self) -> str | None:
        """The checkpoint that the decision left in service; None before the decision."""
        if self.result is None:
            return None
        return self.begun.round_id if self.result.promoted and not self.taken_back else self.begun.parent


def links(s: Services) -> list[Link]:
    """Every round that was started, sorted by its release and then by its number."""
    batches = published.of_all(s.blobs)
    found: list[Link] = []
    earlier: set[str] = set()  # batches in the release of an earlier round
    rounds = sorted(record.all_of(s), key=lambda r: (releases.place(r.release), r.number, r.round_id))
    for begun in rounds:
        inside = [b for b in batches if _is_in(b.release, begun.release)]
        measured = record.read(s, begun.round_id, "evaluation") or {}
        found.append(
            Link(
                begun,
                record.result_of(s, begun.round_id),
                record.state_of(s, begun),
                record.is_taken_back(s, begun.round_id),
                _by_checkpoint(inside),
                _added([b for b in inside if b.batch_id not in earlier]),
                _measured(begun, measured.get("before")),
                _measured(begun, measured.get("after")),
            )
        )
        earlier.update(b.batch_id for b in inside)
    return found


def _is_in(name: str, later: str) -> bool:
    """Whether a release is the later one, or one before it of the same project."""
    same = releases.project_of(name) == releases.project_of(later)
    return same and releases.place(name) <= releases.place(later)


def as_json(link: Link) -> dict[str, Any]:
    """One flat JSON object: the fields of the round, of its result if there is one, and of the link."""
    return {
        **dataclasses.asdict(link.begun),
        **(dataclasses.asdict(link.result) if link.result else {}),
        "state": link.state,
        "taken_back": link.taken_back,
        "checkpoint_before": link.begun.parent,
        "checkpoint_after": link.checkpoint_after,
        "made_by": dict(link.made_by),
        "added": dataclasses.asdict(link.added),
        "jf_before_interval": link.before and link.before.interval,
        "jf_after_interval": link.after and link.after.interval,
    }


def _by_checkpoint(batches: Sequence[PublishedBatch]) -> dict[str, int]:
    """The number of masklets by checkpoint, the largest first."""
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update({NOT_RECORDED: batch.masklets} if batch.checkpoints is None else batch.checkpoints)
    return {name: number for name, number in counts.most_common() if number}


def _added(batches: Sequence[PublishedBatch]) -> Added:
    masklets = sum(batch.masklets for batch in batches)
    reviewed = [(batch, batch.work) for batch in batches if batch.work is not None]
    work = sum((of for _, of in reviewed), Work())
    of_people = sum(batch.masklets for batch, _ in reviewed)
    frames = sum(batch.annotated_frames or 0 for batch, _ in reviewed)
    return Added(
        masklets=masklets,
        checkpoints=_by_checkpoint(batches),
        clicks_a_masklet=work.clicks / of_people if of_people else None,
        seconds_a_frame=work.modelled_s / frames if frames else None,
        hours=work.modelled_s / 3600 if reviewed else None,
    )


def _measured(begun: Round, written: Mapping[str, Any] | None) -> MeasuredJF | None:
    if written is None:
        return None
    metrics = parse(TypeAdapter(gate.Metrics), written, f"rounds/{begun.round_id}/evaluation.json")
    if not metrics.each:
        return MeasuredJF(metrics.jf, None)
    jf = paired.score_of(metrics.each)
    return MeasuredJF(jf.mean, (jf.low, jf.high))
