"""Judged candidates with a known truth."""

from __future__ import annotations

import numpy as np

from engine.verifier.features import FEATURES
from engine.verifier.judged import Judged


def made(
    count: int, *, videos: int = 40, seed: int = 1, slope: float = 4.0, offset: float = 0.0, rejects: bool = True
) -> list[Judged]:
    """Candidates whose chance to be accepted is logistic in `score_mean`; the other features are noise.

    rejects: those with a negative `shape_mean` are rejected instead of refined.
    """
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(count, len(FEATURES)))
    accepted = generator.random(count) < 1 / (1 + np.exp(-slope * table[:, FEATURES.index("score_mean")] - offset))
    bad = (table[:, FEATURES.index("shape_mean")] < 0) & rejects
    return [
        Judged(
            masklet_id=f"m{i}",
            video_id=f"v{i % videos}",
            batch_id="b",
            features=tuple(table[i].tolist()),
            verdict="accept" if accepted[i] else "reject" if bad[i] else "refine",
        )
        for i in range(count)
    ]


def ideal_auroc(slope: float) -> float:
    """The AUROC of the true probability, of candidates as `made` draws them."""
    x = np.random.default_rng(0).normal(size=200_000)
    p = 1 / (1 + np.exp(-slope * x))
    order = np.argsort(p)
    yes, no = p[order], 1 - p[order]
    return float((yes * (np.cumsum(no) - no / 2)).sum() / (yes.sum() * no.sum()))
