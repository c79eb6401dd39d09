"""One verdict from those of several people about a candidate: the verdicts of reliable people count more.

Source: Dawid and Skene 1979, as crowd-kit implements it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from engine.verifier.judged import Judged
from storage.records import Verdict
from validation.verdicts import Interval, bootstrap


def weighed(judged: Sequence[Judged]) -> list[Judged]:
    """The same candidates; those with several answers get the verdict that Dawid and Skene's model finds likeliest.

    The answers to all candidates tell how reliable a person is.
    """
    several = [one for one in judged if len(one.answers) > 1]
    if not several:
        return list(judged)
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    rows = [
        (one.masklet_id, person, verdict)
        for one in judged
        for person, verdict in zip(one.people, one.answers, strict=True)
    ]
    with warnings.catch_warnings(action="ignore"):  # crowd-kit 1.4 calls pandas in a way that pandas 4 will remove
        likeliest = DawidSkene(n_iter=100).fit_predict(pd.DataFrame(rows, columns=["task", "worker", "label"]))
    found = {one.masklet_id: str(likeliest[one.masklet_id]) for one in several}
    return [replace(one, verdict=found.get(one.masklet_id, one.verdict)) for one in judged]


def agreement(judged: Sequence[Judged]) -> Interval | None:
    """How often two people agree whether a candidate is accepted, over all pairs of answers to the same candidate.

    None if no candidate has several answers.
    """
    pairs = [
        (one.video_id, (a == Verdict.ACCEPT) == (b == Verdict.ACCEPT))
        for one in judged
        for a, b in combinations(one.answers, 2)
    ]
    if not pairs:
        return None
    same = np.array([agree for _, agree in pairs])
    return bootstrap(lambda rows: float(same[rows].mean()), [video for video, _ in pairs], np.arange(len(pairs)))
