"""The loop without Airflow, for experiments: renders a batch, has it labelled through a real queue, retrains.

Each loop has a home of its own in the experiment's folder, with its store, its queue and its checkpoints. Every
function can run again after a kill.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine import loop
from engine.demo import simulated_review
from engine.demo.annotator_policy import AnnotatorPolicy
from engine.experiments.steps import Experiment
from engine.ingest import ingest
from engine.processes.ports import free_port
from engine.progress import ignore
from engine.registry import Checkpoint
from engine.rounds import record, retraining, starting
from engine.services import Services, connect
from engine.serving.queue_process import QueueProcess
from engine.settings import (
    AirflowSettings,
    AutoSettings,
    CampaignSettings,
    IngestSettings,
    ModelSettings,
    QueueSettings,
    ReviewSettings,
    RoundSettings,
    Settings,
    StorageSettings,
    VerifierSettings,
)
from engine.stages import imports
from engine.synthetic import video_files
from engine.synthetic.domains.catalogue import DOMAINS, HELD_OUT

NEVER = 1_000_000  # new masklets: the steps start the rounds themselves
GATE_CLIPS = HELD_OUT + 100_000  # first seed of the clips that the gate measures on


#: The paper's automatic masklets: people accept a candidate as it is, or reject it.
VERIFIED_ONLY = AnnotatorPolicy(attempts=0)


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """How a batch is labelled."""

    phase: str  # "1", "2" or "3"; people correct in this phase
    candidates: bool  # False: people select every object, as in the paper's experiment
    checkpoint: str | None = None  # a folder; None: the plan's, or the one that the loop has promoted
    policy: AnnotatorPolicy | None = None
    overlap_share: float = 0.0  # of the tickets to verify that three people judge


@dataclass(frozen=True)
class OpenLoop:
    """A loop whose queue runs."""

    s: Services
    check: Callable[[], None]  # restarts the queue if it died


def settings(home: Path, experiment: Experiment, how: Labelling) -> Settings:
    """The settings of a loop. Every section is given, so the user's environment and files change nothing."""
    plan = experiment.plan
    return Settings(
        home=home,
        storage=StorageSettings(),
        ingest=IngestSettings(held_out_share=0.0, near_duplicates=False),
        auto=AutoSettings(max_objects=plan.candidates if how.candidates else 0, keyframe_s=0),  # as in the paper
        model=ModelSettings(checkpoint=how.checkpoint or plan.checkpoint, device="cpu", threads=1, embeddings_gib=0.25),
        queue=QueueSettings(port=free_port(), overlap=3, overlap_share=how.overlap_share),
        review=ReviewSettings(phase=how.phase, select=how.policy != VERIFIED_ONLY),
        rounds=RoundSettings(min_new_masklets=NEVER, steps=plan.steps, lr=plan.lr),
        campaign=CampaignSettings(phases=()),
        verifier=VerifierSettings(compare=how.candidates),
        airflow=AirflowSettings(),
    )


@contextmanager
def opened(name: str, experiment: Experiment, how: Labelling) -> Iterator[OpenLoop]:
    """A loop of the experiment, with its queue as a process of its own."""
    chosen = settings(experiment.folder / name, experiment, how)
    with QueueProcess(chosen, deliver=False) as queue, connect(chosen) as s:
        yield OpenLoop(s, queue.check)


def render(experiment: Experiment, folder: Path, numbers: range) -> Path:
    """Renders clips of the domain with their true masklets; returns the folder."""
    draw, plan = DOMAINS[experiment.domain].render, experiment.plan
    video_files.write_clips(folder, lambda n: draw(plan.clip_seed(n), plan.size), numbers)
    return folder


def import_held_out(at: OpenLoop, experiment: Experiment) -> None:
    """Imports held-out clips with their true masklets, on which the gate measures the rounds of this loop."""
    draw, size = DOMAINS[experiment.domain].render, experiment.plan.size
    folder = at.s.home / "held-out"
    numbers = range(1, experiment.plan.gate_clips + 1)
    for path in video_files.write_clips(folder, lambda n: draw(GATE_CLIPS + n, size), numbers):
        truth = json.loads(path.with_suffix(".truth.json").read_text())
        path.with_name(f"{path.stem}_manual.json").write_text(json.dumps(truth | {"video_split": "val"}))
    imports.import_folder(at.s, folder)


def label(at: OpenLoop, source: Path, how: Labelling) -> tuple[list[str], str]:
    """Takes the videos of a folder through the loop; returns their batches and the last release ("": nothing).

    It is one batch, unless a kill has cut the ingest in two.
    """
    s = at.s
    ingest.admit(s, str(source))
    batch_ids = sorted(s.tables.addresses(f"{source.absolute()}/"))
    for stage in (loop.PROPOSE, loop.OPEN_REVIEW):
        for batch_id in set(batch_ids) & set(stage.pending(s)):
            stage.work(s, batch_id, None)
    _, releases = simulated_review.close_reviews(s, batch_ids, at.check, ignore, how.policy)
    return batch_ids, max(releases)  # their names begin with their numbers


def learn(s: Services, release: str, seed: int) -> tuple[Checkpoint, record.RoundResult]:
    """A round on a release: its checkpoint, whether the gate promoted it or not, and its result.

    A release has one round here: a second call continues it.
    """
    begun = [each.round_id for each in record.all_of(s) if each.release == release]
    round_id = begun[0] if begun else starting.start(s, release, starting.Budget(seed=seed))
    retraining.train(s, round_id)
    retraining.evaluate(s, round_id)
    return record.checkpoint_of(s, round_id), retraining.decide(s, round_id)
