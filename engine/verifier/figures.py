"""How good a verifier is: measured on candidates whose videos it did not see. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.verifier import consensus
from engine.verifier.features import Numbers
from engine.verifier.fitting import Predictions, Truth, truth_of
from engine.verifier.judged import Judged
from storage.records import Verdict, content_id
from validation import verdicts
from validation.verdicts import NOTHING, Cut, Interval

PRECISION = 0.98  # that the cuts of `saved` have on the videos on which they were chosen
FOLDS = 5  # parts of the videos for `saved`


@dataclass(frozen=True, kw_only=True)
class VerifierFigures:
    """A verifier against people's verdicts. Shares are in [0, 1]; intervals are of 95 %, by a bootstrap over videos."""

    candidates: int
    videos: int
    accepted: int
    rejected: int
    auroc: Interval  # of the probability to be accepted
    calibration_error: Interval  # likewise
    saved: Interval  # share that needs no review: surely accepted, or surely not acceptable, by cuts of PRECISION
    agreement: Interval  # share where it and people agree whether a candidate is accepted
    human_agreement: Interval | None  # the same of two people; None: nobody judged a candidate twice
    sure_accept: Cut  # what it may accept without a person: at least the asked precision is proved
    sure_reject: Cut
    chance_error: float | None = None  # calibration error that chance alone explains; None: an older file
    # Share of `saved` that was right; nan: nothing is saved. None: an older file, with cuts chosen on the same verdicts
    saved_precision: Interval | None = None
    sure_refine: Cut = NOTHING  # what people would surely not accept, of the rest: to be corrected without a review


def measure(judged: Sequence[Judged], predicted: Predictions, precision: float = PRECISION) -> VerifierFigures:
    """The figures of predictions that saw no candidate of the same video: see `fitting.out_of_fold`.

    judged: the candidates of the predictions, in their order.
    precision: that each cut must prove.
    The intervals of `saved` and `saved_precision` take the cuts as given.
    """
    accepted, rejected = truth_of(judged, Verdict.ACCEPT), truth_of(judged, Verdict.REJECT)
    videos, rows = [one.video_id for one in judged], np.arange(len(judged))
    agrees = (predicted.accept >= 0.5) == accepted

    heads = ((predicted.accept, accepted), (predicted.reject, rejected), (1 - predicted.accept, ~accepted))
    saved, right = _decided(heads, videos)

    def proved(probability: Numbers, truth: Truth, of: NDArray[np.intp]) -> Cut:
        return verdicts.sure_cut(probability[of], truth[of], [videos[int(i)] for i in of], precision)

    sure_accept = proved(predicted.accept, accepted, rows)
    left = np.flatnonzero(predicted.accept < sure_accept.threshold)
    sure_reject = proved(predicted.reject, rejected, left)
    left = left[predicted.reject[left] < sure_reject.threshold]
    return VerifierFigures(
        candidates=len(judged),
        videos=len(set(videos)),
        accepted=int(accepted.sum()),
        rejected=int(rejected.sum()),
        auroc=verdicts.bootstrap(lambda i: verdicts.auroc(predicted.accept[i], accepted[i]), videos, rows),
        calibration_error=verdicts.bootstrap(
            lambda i: verdicts.calibration_error(predicted.accept[i], accepted[i]), videos, rows
        ),
        chance_error=verdicts.chance_error(predicted.accept),
        saved=verdicts.bootstrap(lambda i: float(saved[i].mean()), videos, rows),
        saved_precision=verdicts.bootstrap(
            lambda i: float(right[i].sum() / saved[i].sum()) if saved[i].any() else float("nan"), videos, rows
        ),
        agreement=verdicts.bootstrap(lambda i: float(agrees[i].mean()), videos, rows),
        human_agreement=consensus.agreement(judged),
        sure_accept=sure_accept,
        sure_reject=sure_reject,
        sure_refine=proved(1 - predicted.accept, ~accepted, left),
    )


def _decided(heads: Sequence[tuple[Numbers, Truth]], videos: Sequence[str]) -> tuple[Truth, Truth]:
    """Which candidates cuts of PRECISION decide, and whether rightly: two of bool (N,).

    heads: probability and truth of each decision; a candidate is of the first one that is sure.
    The cuts for a fold of the videos are chosen on the others: on the same verdicts, some cut always looks precise.
    """
    order = sorted(set(videos), key=lambda video: content_id(video, "fold"))
    place = {video: k % FOLDS for k, video in enumerate(order)}
    folds = np.array([place[video] for video in videos])
    decided, right = np.zeros(len(videos), dtype=np.bool_), np.zeros(len(videos), dtype=np.bool_)
    for fold in range(FOLDS):
        left = np.ones(len(videos), dtype=np.bool_)
        for probability, truth in heads:
            others = left & (folds != fold)
            cut = verdicts.largest_cut(probability[others], truth[others], PRECISION)
            inside = left & (probability >= cut.threshold)
            left &= ~inside
            decided |= inside & (folds == fold)
            right |= inside & (folds == fold) & truth
    return decided, right
