"""The steps that choose what to train on: the most edited masklets, and the candidates that a verifier doubts.

They use what people did in the rounds. Both sides of a comparison train with the same number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from engine.experiments import figures, loops, training
from engine.experiments.labelling import ROUNDS
from engine.experiments.steps import Experiment, Result
from engine.services import Services, connect
from engine.stages import routing
from engine.verifier import fitting
from engine.verifier.features import table_of
from engine.verifier.figures import measure
from engine.verifier.fitting import TooFewVerdicts
from engine.verifier.judged import Judged, judged_of
from storage.dataset import parts
from storage.records import Masklet
from validation.verdicts import Interval

LAST = "rounds-3"
SHARE = 0.5  # of the masklets or of the candidates that are chosen
SEED = 7  # of the random halves


def filtered(experiment: Experiment, *, most_edited: bool) -> Result:
    """Trains on the most edited half of the masklets of the rounds, or on as many random ones."""
    with _rounds(experiment) as s:
        data, known = training.newest(s)
        edits = {name: of.edits.get(name, 0) for of in known for name in of.large}
        count = min(round(SHARE * len(edits)), sum(map(bool, edits.values())))
        names = sorted(edits, key=lambda name: (-edits[name], name)) if most_edited else _shuffled(edits)
        return training.on_masklets(
            experiment, f"filter-{'edited' if most_edited else 'random'}", data, known, names[:count]
        )


def ordered(experiment: Experiment, *, hard_first: bool) -> Result:
    """Trains on the masklets of half of the last batch's candidates: those that a verifier doubts most, or random ones.

    The verifier is fitted on the verdicts of the batches before.
    """
    with _rounds(experiment) as s:
        last = experiment.result(LAST)["batches"]
        candidates = [row for batch_id in last for row in parts.rows(s.blobs, "candidates", batch_id)]
        if hard_first:
            try:
                verifier = fitting.fit(_judged(s, experiment, rounds=(1, 2)))
            except TooFewVerdicts as error:
                return {"left_out": str(error)}
            doubt = verifier.predict(table_of(candidates)).doubt
            gains = [routing.expected_gain(row, float(value)) for row, value in zip(candidates, doubt, strict=True)]
            order = [candidates[i] for i in np.argsort(-np.array(gains), kind="stable")]
        else:
            by_id = {row.masklet_id: row for row in candidates}
            order = [by_id[name] for name in _shuffled(by_id)]
        half = order[: round(SHARE * len(order))]
        data, known = training.newest(s)
        made = _made_from(half, figures.published(s, last))
        found = training.on_masklets(experiment, f"order-{'hard' if hard_first else 'random'}", data, known, made)
        return {"candidates": len(half)} | found


def verifier(experiment: Experiment) -> Result:
    """How well a verifier predicts the verdicts of the rounds, on candidates of videos that it did not see."""
    with _rounds(experiment) as s:
        judged = _judged(s, experiment, rounds=(1, 2, 3))
    try:
        found = measure(judged, fitting.out_of_fold(judged))
    except TooFewVerdicts as error:
        return {"left_out": str(error)}
    return {
        "candidates": found.candidates,
        "videos": found.videos,
        "accepted": found.accepted,
        "auroc": _interval(found.auroc),
        "calibration_error": _interval(found.calibration_error),
        "chance_error": found.chance_error,
        "saved": _interval(found.saved),
        "saved_precision": _interval(found.saved_precision),
        "agreement": _interval(found.agreement),
        "human_agreement": _interval(found.human_agreement),
    }


def _interval(found: Interval | None) -> Result:
    """As `measuring.mean` gives it. Empty if it could not be measured."""
    if found is None or math.isnan(found.value):
        return {}
    return {"mean": found.value, "low": found.low, "high": found.high}


@contextmanager
def _rounds(experiment: Experiment) -> Iterator[Services]:
    """The store of the rounds, without its queue."""
    with connect(loops.settings(experiment.folder / "rounds", experiment, ROUNDS)) as s:
        yield s


def _judged(s: Services, experiment: Experiment, rounds: Sequence[int]) -> list[Judged]:
    """The judged candidates of the batches that these rounds learned from."""
    return [
        one
        for number in rounds
        for batch_id in experiment.result(f"rounds-{number}")["batches"]
        for one in judged_of(parts.rows(s.blobs, "candidates", batch_id), parts.rows(s.blobs, "operations", batch_id))
    ]


def _made_from(candidates: Sequence[Masklet], rows: Sequence[Masklet]) -> list[str]:
    """The masklets that are candidates, or corrections of candidates: a correction keeps the candidate's prompt."""
    prompts = {(row.video_id, row.prompt) for row in candidates}
    return [row.masklet_id for row in rows if (row.video_id, row.prompt) in prompts]


def _shuffled(names: Mapping[str, object]) -> list[str]:
    return [str(name) for name in np.random.default_rng(SEED).permutation(sorted(names))]
