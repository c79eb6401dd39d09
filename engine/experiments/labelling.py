"""The steps that label clips through the queue: the phases on the same clips, the chain of phases, and the rounds.

Each one is a function of an experiment; `phases.steps_of` puts them in order.
"""

from __future__ import annotations

from dataclasses import replace

from engine.demo.annotator_policy import AnnotatorPolicy, HumanNoise
from engine.experiments import figures, loops, measuring
from engine.experiments.loops import VERIFIED_ONLY, Labelling, OpenLoop
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
#: Three people judge some candidates: a verifier cannot agree with people more than they do with each other.
ROUNDS = Labelling(phase="3", candidates=True, policy=AnnotatorPolicy(noise=HumanNoise()), overlap_share=0.2)


def labour(experiment: Experiment, *, phase: str, after: str | None) -> Result:
    """Labels the same clips in one phase. after: the step of the chain whose checkpoint helps; None: nothing helps."""
    checkpoint = None if after is None else str(experiment.folder / experiment.result(after)["checkpoint"])
    how = Labelling(phase=phase, candidates=False, checkpoint=checkpoint)
    numbers = range(LABOUR_CLIPS + 1, LABOUR_CLIPS + experiment.plan.labour_clips + 1)
    clips = loops.render(experiment, experiment.folder / "labour-clips", numbers)
    with loops.opened(f"labour-{phase}", experiment, how) as at:
        batch_ids, _ = loops.label(at, clips, how)
        found = figures.work_of(at.s, batch_ids) | {"phase": phase, "batches": batch_ids}
        rows = figures.published(at.s, batch_ids)
    if after is not None:
        home = experiment.folder / "labour-1"
        with connect(loops.settings(home, experiment, how)) as s:
            first = figures.published(s, experiment.result("labour-1")["batches"])
        found["alignment"] = figures.alignment(first, rows)
    return found


def chain(experiment: Experiment, *, number: int) -> Result:
    """Labels a batch of the chain, and trains the first checkpoint on everything labelled so far. number: from 1.

    As in the paper's table 2, the training has the same number of steps after each batch. The checkpoint of one step
    helps people, or proposes, in the next one.
    """
    from engine.experiments import training

    how = CHAIN[number - 1]
    if number > 1:
        before = experiment.result(f"chain-{number - 1}")["checkpoint"]
        how = replace(how, checkpoint=str(experiment.folder / before))
    with loops.opened("chain", experiment, how) as at:
        found = _batch(at, experiment, number, how, CHAIN_CLIPS)
        data, known = training.newest(at.s)
    everything, steps = [name for of in known for name in of.large], experiment.plan.chain_steps
    return found | training.on_masklets(experiment, f"chain-{number}", data, known, everything, steps)


def rounds(experiment: Experiment, *, number: int) -> Result:
    """Labels a batch of candidates, and a round learns from everything labelled so far. number: from 1.

    The round's checkpoint is measured, also if the gate refuses it.
    """
    with loops.opened("rounds", experiment, ROUNDS) as at:
        s = at.s
        if number == 1:
            loops.import_held_out(at, experiment)
        found = _batch(at, experiment, number, ROUNDS, ROUND_CLIPS)
        checkpoint, gate = s.checkpoint(), None
        if found["release"]:  # otherwise nothing was published, and there is nothing new to learn
            checkpoint, result = loops.learn(s, found["release"], experiment.plan.seed)
            gate = {"promoted": result.promoted, "reasons": list(result.reasons)}
        return found | {"gate": gate} | measuring.held_out(s.model(checkpoint), experiment)


def _batch(at: OpenLoop, experiment: Experiment, number: int, how: Labelling, first: int) -> Result:
    """Labels the clips of a batch: what it took and gave."""
    first += BATCH_SPACING * number
    numbers = range(first + 1, first + experiment.plan.batch_clips + 1)
    clips = loops.render(experiment, at.s.home / f"batch-{number}", numbers)
    batch_ids, release = loops.label(at, clips, how)
    found: Result = {"batches": batch_ids, "release": release, "phase": how.phase}
    return found | figures.work_of(at.s, batch_ids) | figures.candidates_of(at.s, batch_ids)
