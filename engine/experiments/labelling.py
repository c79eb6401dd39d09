"""The steps that label clips through the queue: the phases on the same clips, the chain of phases, and the rounds.

Each one is a function of an experiment; `phases.steps_of` puts them in order.
"""

from __future__ import annotations

from engine.demo.annotator_policy import AnnotatorPolicy, HumanNoise
from engine.experiments import figures, loops, measuring
from engine.experiments.loops import VERIFIED_ONLY, Labelling
from engine.experiments.steps import Experiment, Result
from engine.services import connect

#: Parts that draw clips for training, and the number before the first clip of each.
LABOUR_CLIPS, CHAIN_CLIPS, ROUND_CLIPS = 0, 10_000, 20_000
BATCH_SPACING = 1000  # between the numbers of two batches

#: How the batches of the chain are labelled, as in the paper's table 2.
CHAIN = (
    Labelling(phase="1", candidates=False),
    Labelling(phase="2", candidates=False),
    Labelling(phase="3", candidates=False),
    Labelling(phase="3", candidates=True, policy=VERIFIED_ONLY),
)
#: How the batches of the rounds are labelled. Reviewers err; without errors, measuring the verifier would be too easy.
ROUNDS = Labelling(phase="3", candidates=True, policy=AnnotatorPolicy(noise=HumanNoise()))


def labour(experiment: Experiment, *, phase: str, after: str | None) -> Result:
    """Labels the same clips in one phase. after: the step of the chain whose checkpoint helps; None: nothing helps."""
    place = None if after is None else experiment.result(after)["checkpoint"]
    checkpoint = None if place is None else str(experiment.folder / place)
    how = Labelling(phase=phase, candidates=False, checkpoint=checkpoint)
    numbers = range(LABOUR_CLIPS + 1, LABOUR_CLIPS + experiment.plan.labour_clips + 1)
    clips = loops.render(experiment, experiment.folder / "labour-clips", numbers)
    with loops.opened(f"labour-{phase}", experiment, how) as at:
        batch_id, _ = loops.label(at, clips, how)
        found = figures.work_of(at.s, batch_id) | {"phase": phase, "batch": batch_id}
        rows = figures.published(at.s, batch_id)
    if after is not None:
        home = experiment.folder / "labour-1"
        with connect(loops.settings(home, experiment, how)) as s:
            first = figures.published(s, experiment.result("labour-1")["batch"])
        found["alignment"] = figures.alignment(first, rows)
    return found


def chain(experiment: Experiment, *, number: int) -> Result:
    """Labels a batch of the chain, and retrains on everything labelled so far. number: from 1."""
    return _batch_and_round(experiment, "chain", number, CHAIN[number - 1], CHAIN_CLIPS)


def rounds(experiment: Experiment, *, number: int) -> Result:
    """Labels a batch of candidates, and retrains on everything labelled so far. number: from 1."""
    return _batch_and_round(experiment, "rounds", number, ROUNDS, ROUND_CLIPS)


def _batch_and_round(experiment: Experiment, home: str, number: int, how: Labelling, first: int) -> Result:
    """A batch and the round after it. The trained checkpoint is measured, also if the gate refuses it."""
    first += BATCH_SPACING * number
    numbers = range(first + 1, first + experiment.plan.batch_clips + 1)
    with loops.opened(home, experiment, how) as at:
        s = at.s
        if number == 1:
            loops.import_held_out(at, experiment)
        clips = loops.render(experiment, s.home / f"batch-{number}", numbers)
        batch_id, release = loops.label(at, clips, how)
        found: Result = {"batch": batch_id, "release": release, "phase": how.phase}
        found |= figures.work_of(s, batch_id) | figures.candidates_of(s, batch_id)
        checkpoint, gate = s.checkpoint(), None
        if release:  # otherwise nothing was published, and there is nothing new to learn
            checkpoint, result = loops.learn(s, release, experiment.plan.seed)
            gate = {"promoted": result.promoted, "reasons": list(result.reasons)}
        found["gate"] = gate
        found["checkpoint"] = loops.place_of(s, checkpoint, experiment)
        return found | measuring.held_out(s.model(checkpoint), experiment)
