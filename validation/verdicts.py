"""How well probabilities predict people's verdicts: AUROC, calibration error, and the share that needs no person.

Pure: takes numbers, knows no model and no masklet. Candidates of one video are alike, so intervals come from a
bootstrap that draws videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from validation.paired import CONFIDENCE

Numbers = NDArray[np.float64]
Truth = NDArray[np.bool_]

BINS = 10  # of equal count, for the calibration error
DRAWS = 500
TRIES = 40  # cuts that are tried by a bootstrap, at most


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; nan where it cannot be measured."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cut:
    """The highest-rated part of some candidates: those with a probability of at least `threshold`."""

    threshold: float  # above 1: no candidate
    count: int
    right: int


NOTHING = Cut(2.0, 0, 0)


def auroc(probability: Numbers, truth: Truth) -> float:
    """The probability that a true candidate is rated higher than a false one; nan if one of them is missing.

    That of scikit-learn, without its checks of the input, which take most of the time of a bootstrap.
    """
    if not 0 < truth.sum() < len(truth):
        return float("nan")
    _, place = np.unique(probability, return_inverse=True)
    yes, no = np.bincount(place, truth), np.bincount(place, ~truth)
    below = np.cumsum(no) - no
    return float((yes * (below + no / 2)).sum() / (yes.sum() * no.sum()))


def calibration_error(probability: Numbers, truth: Truth) -> float:
    """Expected calibration error: mean distance of probability and share of true, over bins of equal count.

    Chance alone gives about 0.4 / sqrt(candidates in a bin). Source: Naeini et al. 2015; differs: bins of equal count.
    nan without a candidate.
    """
    if not len(probability):
        return float("nan")
    order = np.argsort(probability, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    gaps = [len(part) * abs(float(probability[part].mean()) - float(truth[part].mean())) for part in bins]
    return sum(gaps) / len(probability)


def chance_error(probability: Numbers) -> float:
    """The calibration error that perfect probabilities would show, because there are only so many candidates.

    The mean over verdicts that are drawn from these probabilities. nan without a candidate.
    """
    drawn = np.random.default_rng(0).random((DRAWS, len(probability))) < probability
    return float(np.mean([calibration_error(probability, truth) for truth in drawn]))


def largest_cut(probability: Numbers, truth: Truth, precision: float) -> Cut:
    """The largest cut of which at least this share is true. Candidates of equal probability stay together."""
    cuts = cuts_of(probability, truth)
    return next((cut for cut in reversed(cuts) if cut.right >= precision * cut.count), NOTHING)


def cuts_of(probability: Numbers, truth: Truth) -> list[Cut]:
    """Every cut, the smallest first. Candidates of equal probability stay together.

    Those of probability 0 are in none.
    """
    order = np.argsort(-probability, kind="stable")
    sorted_p, right = probability[order], np.cumsum(truth[order])
    ends = np.flatnonzero(sorted_p > np.append(sorted_p[1:], 0.0))
    return [Cut(float(sorted_p[end]), int(end) + 1, int(right[end])) for end in ends]


def sure_cut(probability: Numbers, truth: Truth, videos: Sequence[str], precision: float) -> Cut:
    """A large cut whose precision is at least this by the lower bound of its 95 % interval: the largest of TRIES.

    The bound is the lower one of two: Wilson's, which holds where no candidate was wrong, and that of a bootstrap over
    videos, which holds where the wrong ones come from few videos.
    """
    from scipy.stats import binomtest

    def wilson(cut: Cut) -> float:
        return float(binomtest(cut.right, cut.count).proportion_ci(CONFIDENCE, "wilson").low)

    precise = [cut for cut in cuts_of(probability, truth) if cut.right >= precision * cut.count]
    proved = [cut for cut in reversed(precise) if wilson(cut) >= precision]
    for cut in proved[:: 1 + len(proved) // TRIES]:
        inside = np.flatnonzero(probability >= cut.threshold)
        drawn = bootstrap(lambda rows: float(truth[rows].mean()), [videos[int(i)] for i in inside], inside)
        if drawn.low >= precision:
            return cut
    return NOTHING


def bootstrap(figure: Callable[[NDArray[np.intp]], float], videos: Sequence[str], rows: NDArray[np.intp]) -> Interval:
    """A figure of these rows with its interval over videos. The same rows give the same interval.

    figure: takes row numbers, each as often as it was drawn.  videos: of each row.
    Draws in which the figure is nan are left out.
    """
    value = figure(rows)
    _, of = np.unique(np.array(videos), return_inverse=True)
    members = [rows[of == k] for k in range(int(of.max(initial=-1)) + 1)]
    if not members:
        return Interval(value, float("nan"), float("nan"))
    generator = np.random.default_rng(0)
    drawn = [
        figure(np.concatenate([members[k] for k in generator.integers(len(members), size=len(members))]))
        for _ in range(DRAWS)
    ]
    known = [one for one in drawn if not np.isnan(one)]
    if not known:
        return Interval(value, float("nan"), float("nan"))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    return Interval(value, float(low), float(high))
