"""How well probabilities predict people's verdicts: AUROC, calibration error, and the share that needs no person.

Pure: takes numbers, knows no model and no masklet. Candidates of one video are alike, so intervals come from a
bootstrap that draws videos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from validation.paired import CONFIDENCE

Numbers = NDArray[np.float64]
Truth = NDArray[np.bool_]

BINS = 10  # of equal count, for the calibration error
DRAWS = 500
GROWTH = 1.05  # a cut that is tested has so many times the candidates of the one before
LEAST_VIDEOS = 20  # of a cut that proves anything: with fewer, an interval over videos is not reliable
# How alike at least two candidates of one video are taken to be: a correlation, 0 to 1. A cut with no or few wrong
# candidates says nothing about it, and by chance it may show less than there is.
LEAST_ALIKE = 0.1


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
    """A large cut whose precision is at least this, by the lower bound of its 95 % interval over videos.

    Larger and larger cuts are tested until one fails; the result is the one before. The truth has no say in which cuts
    are tested, so the search errs no more often than a single test does. The first test is of the smallest cut that a
    single wrong candidate would not refute.

    What it guarantees: in at most 2.5 of 100 cases, the cut is less precise than this on all videos of the same kind.
    If candidates of one video are much alike (a correlation of 0.3), these are up to 4, and if whole videos are right
    or wrong, even more. It takes for granted that new videos are like the judged ones, and that the verifier that
    decides is as good as those that gave these probabilities.
    Source: Angelopoulos et al. 2021, "Learn then Test" (tests in a fixed sequence).
    """
    _, of = np.unique(np.array(videos), return_inverse=True)
    cuts = cuts_of(probability, truth)
    found, begun, tested = NOTHING, False, 0
    for cut in cuts:
        if cut.count < GROWTH * tested and cut is not cuts[-1]:
            continue
        tested = cut.count
        inside = probability >= cut.threshold
        sizes = np.bincount(of[inside])
        shown = sizes > 0
        sizes, wrong = sizes[shown], np.bincount(of[inside & ~truth], minlength=len(sizes))[shown]
        if not begun:
            single = np.zeros_like(sizes)
            single[sizes.argmin()] = 1
            begun = lower_bound(sizes, single) >= precision
        if begun:
            if lower_bound(sizes, wrong) < precision:
                break
            found = cut
    return found


def lower_bound(sizes: NDArray[np.intp], wrong: NDArray[np.intp]) -> float:
    """The lower bound of the 95 % interval of a precision; 0 with fewer than LEAST_VIDEOS videos.

    sizes: the candidates of each video, at least 1.  wrong: how many of them are wrong.
    Wilson's interval with fewer candidates than there are: as many independent ones as tell as much as these, which are
    alike within a video. Source: Korn and Graubard 1998; differs: Wilson's interval, and LEAST_ALIKE.
    """
    from scipy.special import stdtrit

    count, videos = int(sizes.sum()), len(sizes)
    if videos < LEAST_VIDEOS:
        return 0.0
    share = float(wrong.sum()) / count
    effect = 1 + LEAST_ALIKE * (float((sizes**2).sum()) / count - 1)
    if 0 < share < 1:
        variance = float(((wrong - share * sizes) ** 2).sum()) * videos / (videos - 1) / count**2
        effect = max(effect, variance * count / (share * (1 - share)))
    independent = count / effect
    limit = float(stdtrit(videos - 1, (1 + CONFIDENCE) / 2))
    reach = limit * math.sqrt(share * (1 - share) / independent + (limit / (2 * independent)) ** 2)
    return (1 - share + limit**2 / (2 * independent) - reach) / (1 + limit**2 / independent)


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
