"""How good a verifier is: measured on candidates whose videos it did not see. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.verifier import consensus
from engine.verifier.fitting import Predictions, truth_of
from engine.verifier.judged import Judged
from storage.records import Verdict
from validation import verdicts
from validation.verdicts import Cut, Interval

PRECISION = 0.98  # at which `saved` is measured


@dataclass(frozen=True, kw_only=True)
class VerifierFigures:
    """A verifier against people's verdicts. Shares are in [0, 1]; intervals are of 95 %, by a bootstrap over videos."""

    candidates: int
    videos: int
    accepted: int
    rejected: int
    auroc: Interval  # of the probability to be accepted
    calibration_error: Interval  # likewise
    saved: Interval  # share that it could accept or reject without a person, with PRECISION right
    agreement: Interval  # share where it and people agree whether a candidate is accepted
    human_agreement: Interval | None  # the same of two people; None: nobody judged a candidate twice
    sure_accept: Cut  # what it may accept without a person: at least the asked precision is proved
    sure_reject: Cut


def measure(judged: Sequence[Judged], predicted: Predictions, precision: float = PRECISION) -> VerifierFigures:
    """The figures of predictions that saw no candidate of the same video: see `fitting.out_of_fold`.

    judged: the candidates of the predictions, in their order.
    precision: that the cuts `sure_accept` and `sure_reject` must prove.
    """
    accepted, rejected = truth_of(judged, Verdict.ACCEPT), truth_of(judged, Verdict.REJECT)
    videos, rows = [one.video_id for one in judged], np.arange(len(judged))
    agrees = (predicted.accept >= 0.5) == accepted

    def saved(some: NDArray[np.intp]) -> float:
        accept = verdicts.largest_cut(predicted.accept[some], accepted[some], PRECISION)
        left = some[predicted.accept[some] < accept.threshold]
        reject = verdicts.largest_cut(predicted.reject[left], rejected[left], PRECISION)
        return (accept.count + reject.count) / len(some)

    sure_accept = verdicts.sure_cut(predicted.accept, accepted, videos, precision)
    left = np.flatnonzero(predicted.accept < sure_accept.threshold)
    return VerifierFigures(
        candidates=len(judged),
        videos=len(set(videos)),
        accepted=int(accepted.sum()),
        rejected=int(rejected.sum()),
        auroc=verdicts.bootstrap(lambda i: verdicts.auroc(predicted.accept[i], accepted[i]), videos, rows),
        calibration_error=verdicts.bootstrap(
            lambda i: verdicts.calibration_error(predicted.accept[i], accepted[i]), videos, rows
        ),
        saved=verdicts.bootstrap(saved, videos, rows),
        agreement=verdicts.bootstrap(lambda i: float(agrees[i].mean()), videos, rows),
        human_agreement=consensus.agreement(judged),
        sure_accept=sure_accept,
        sure_reject=verdicts.sure_cut(
            predicted.reject[left], rejected[left], [videos[int(i)] for i in left], precision
        ),
    )
