"""The stages of the loop as one table: what wakes each stage, what is pending for it, how it runs, what it announces.

The store and the queue say what there is to do; an event only wakes a stage. The command line, the queue's process, the
reconciler and the demo read this table. The DAGs name the same assets in `dags/common.py`; a test compares them.
Knows no Airflow: an asset and a DAG are names here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine import batches, trouble
from engine.batches import BatchStage
from engine.ingest import ingest
from engine.progress import Progress, Tell, ignore
from engine.rounds import campaign, record, retraining, starting
from engine.rounds.starting import Budget
from engine.services import Services
from engine.stages import propose, publish, review
from storage.errors import first_line

if TYPE_CHECKING:
    from model.training.trainer import TrainingProgress

log = logging.getLogger(__name__)


class NotFinished(Exception):
    """A batch cannot be collected and published yet."""


VIDEOS = "videos"  # asset: a batch of videos was admitted
CANDIDATES = "candidates"  # asset: a batch has its tickets, and people can work
REVIEWED = "reviewed"  # asset: every ticket of a batch is settled; the queue announces it
COLLECTED = "collected"  # asset: the decisions about a batch are in parts
RELEASE = "release"  # asset: a batch is published
CHECKPOINT = "checkpoint"  # asset: a round's checkpoint was promoted


@dataclass(frozen=True)
class Stage:
    """One row of the table."""

    name: str
    dag_id: str  # the DAG that runs it
    woken_by: str | None  # asset; None: a clock wakes it
    announces: str | None  # asset
    mark: BatchStage | None  # what a batch has reached after it; None: it does not work on batches
    pending: Callable[[Services], list[str]]  # ids that wait for it: batches, or the release to train on
    work: Callable[[Services, str, Progress | None], object]  # does one id; a second time it changes nothing


def retrain(
    s: Services,
    release: str,
    budget: Budget = Budget(),  # noqa: B008  frozen
    *,
    progress: Progress | None = None,
    tell: Tell = ignore,
) -> record.RoundResult:
    """One whole round: train on a release, evaluate, promote if the gate passes, or wait for a person's approval."""

    def report(at: TrainingProgress) -> None:
        if progress:
            progress(at.step, at.steps, f"loss {at.losses['total']:.3f}")

    round_id = starting.start(s, release, budget)
    retraining.train(s, round_id, report)
    tell("evaluating on the held-out videos")
    retraining.evaluate(s, round_id)
    return retraining.decide(s, round_id)


INGEST = Stage(
    "ingest",
    "ingest",
    woken_by=None,
    announces=VIDEOS,
    mark=BatchStage.INGESTED,
    pending=lambda s: [],  # nobody can tell without listing the source
    work=ingest.admit,
)
PROPOSE = Stage(
    propose.STAGE,
    "auto_masklets",
    woken_by=VIDEOS,
    announces=None,
    mark=BatchStage.PROPOSED,
    pending=propose.pending,
    work=propose.propose_batch,
)
OPEN_REVIEW = Stage(
    "open review",
    "auto_masklets",
    woken_by=VIDEOS,
    announces=CANDIDATES,
    mark=BatchStage.IN_REVIEW,
    pending=review.to_open,
    work=lambda s, batch_id, _: review.open_batch(s, batch_id, campaign.phase_of_batch(s, batch_id)),
)
COLLECT = Stage(
    "collect",
    "collect",
    woken_by=REVIEWED,
    announces=COLLECTED,
    mark=BatchStage.COLLECTED,
    pending=review.to_collect,
    work=lambda s, batch_id, _: review.collect(s, batch_id),
)
PUBLISH = Stage(
    "publish",
    "publish",
    woken_by=COLLECTED,
    announces=RELEASE,
    mark=BatchStage.PUBLISHED,
    pending=publish.pending,
    work=lambda s, batch_id, _: publish.publish_batch(s, batch_id),
)
RETRAIN = Stage(
    "retrain",
    "retrain",
    woken_by=RELEASE,
    announces=CHECKPOINT,
    mark=None,
    pending=lambda s: [release for release in [starting.due(s)] if release is not None],
    work=lambda s, release, progress: retrain(s, release, progress=progress),
)
STAGES = (INGEST, PROPOSE, OPEN_REVIEW, COLLECT, PUBLISH, RETRAIN)


@dataclass
class Waiting:
    """Everything that waits, and one line for each asset whose stages could not be asked."""

    pending: dict[str, list[str]] = field(default_factory=dict)  # by the asset that wakes the stage: batches, a release
    trouble: list[str] = field(default_factory=list)


def pending(s: Services, *stages: Stage) -> list[str]:
    """The ids that wait for any of these stages. Sorted."""
    return sorted({waiting for stage in stages for waiting in stage.pending(s)})


def woken_by(asset: str) -> list[Stage]:
    """The stages that an asset's event wakes."""
    return [stage for stage in STAGES if stage.woken_by == asset]


def find_waiting(s: Services) -> Waiting:
    """Asks every stage what is pending. One that fails does not keep the others from being asked."""
    found = Waiting()
    for asset in dict.fromkeys(stage.woken_by for stage in STAGES):
        if asset is None:
            continue
        try:
            with trouble.recorded(s.blobs, trouble.NO_BATCH, f"finding work after {asset}"):
                found.pending[asset] = pending(s, *woken_by(asset))
        except Exception as error:
            log.exception("cannot tell what waits for %r", asset)
            found.trouble.append(f"{asset}: {first_line(error)}")
    return found


def finish(s: Services, batch_id: str) -> None:
    """Collects and publishes a batch whose tickets are all settled, or the increment of it that is due.

    Does nothing for a published batch. Raises NotFinished if there is nothing to do for another one, and what
    `publish_batch` raises. A batch without candidates has no open ticket even before it is marked as in review; it is
    not finished before that mark.
    """
    worked = False
    for stage in (COLLECT, PUBLISH):
        if batch_id in stage.pending(s):
            stage.work(s, batch_id, None)
            worked = True
    if not worked and batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) is None:
        raise NotFinished(f"batch {batch_id} has open tickets, or is not marked as in review yet")
