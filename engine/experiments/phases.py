"""The paper's experiments in miniature, as a table of steps: `masklets experiment phases`.

Has the name of its command. The phases themselves are the table in `engine/stages/phases.py`.
Source: Ravi et al. 2024: table 1 and appendix D.2.2 (the phases on the same objects), table 2 (training on the data of
each phase), table 9 (the most edited masklets).
"""

from __future__ import annotations

from functools import partial

from engine.experiments import labelling, selecting
from engine.experiments.plan import Plan
from engine.experiments.steps import Experiment, Result, Step


def before(experiment: Experiment) -> Result:
    """Measures the checkpoint that everything begins with."""
    from engine.experiments import measuring, training

    return measuring.held_out(training.begin(experiment), experiment)


def labels(experiment: Experiment, *, masklets: int) -> Result:
    """Trains on a number of true masklets."""
    from engine.experiments import training
    from engine.experiments.few_clips import FewClips

    clips, steps = FewClips(experiment.domain, masklets), experiment.plan.steps_on(masklets)
    found = training.tuned(experiment, f"labels-{masklets}", lambda stage: clips, steps)
    return {"labels": masklets, "clips": len(clips.clips), "steps": steps} | found


def steps_of(plan: Plan) -> list[Step]:
    """The steps of an experiment. Long sequences first, so that two processes are busy to the end."""
    return [
        Step("before", (), before),
        Step("chain-1", (), partial(labelling.chain, number=1)),
        Step("rounds-1", (), partial(labelling.rounds, number=1)),
        Step("chain-2", ("chain-1",), partial(labelling.chain, number=2)),
        Step("rounds-2", ("rounds-1",), partial(labelling.rounds, number=2)),
        Step("chain-3", ("chain-2",), partial(labelling.chain, number=3)),
        Step("rounds-3", ("rounds-2",), partial(labelling.rounds, number=3)),
        Step("chain-4", ("chain-3",), partial(labelling.chain, number=4)),
        Step("labour-1", (), partial(labelling.labour, phase="1", after=None)),
        Step("labour-2", ("labour-1", "chain-1"), partial(labelling.labour, phase="2", after="chain-1")),
        Step("labour-3", ("labour-1", "chain-2"), partial(labelling.labour, phase="3", after="chain-2")),
        *(Step(f"labels-{masklets}", (), partial(labels, masklets=masklets)) for masklets in plan.labels),
        Step("filter-edited", (selecting.LAST,), partial(selecting.filtered, most_edited=True)),
        Step("filter-random", (selecting.LAST,), partial(selecting.filtered, most_edited=False)),
        Step("order-hard", (selecting.LAST,), partial(selecting.ordered, hard_first=True)),
        Step("order-random", (selecting.LAST,), partial(selecting.ordered, hard_first=False)),
        Step("verifier", (selecting.LAST,), selecting.verifier),
    ]
