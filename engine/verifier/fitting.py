"""The verifier: predicts what people will say about a candidate, with a calibrated probability.

Pure: takes candidates that were judged, gives a frozen verifier. The same candidates give the same verifier, so it is
stored as its table of examples and fitted again when it is needed: no file with code of a stranger is ever loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.verifier.features import FEATURES, Numbers
from engine.verifier.judged import Judged
from storage.records import Verdict
from storage.wording import counted

if TYPE_CHECKING:
    from sklearn.calibration import CalibratedClassifierCV

Truth = NDArray[np.bool_]

FOLDS = 5
TREES = 100
LEAST, LEAST_OF_EACH, LEAST_VIDEOS = 60, 10, 4  # verdicts; of each answer; videos with each answer


class TooFewVerdicts(Exception):
    """People have judged too few candidates to fit a verifier."""


@dataclass(frozen=True)
class Predictions:
    """What the verifier says about candidates: two probabilities for each, float64 (N,)."""

    accept: Numbers
    reject: Numbers  # 0 if too few candidates were rejected to tell

    @property
    def doubt(self) -> Numbers:
        """How little the verifier knows whether a person accepts: 0 is sure, 1 is even."""
        return 1 - np.abs(2 * self.accept - 1)


@dataclass(frozen=True)
class Verifier:
    """A fitted verifier."""

    accept: CalibratedClassifierCV
    reject: CalibratedClassifierCV | None  # None: too few rejected candidates

    def predict(self, features: Numbers) -> Predictions:
        """The probabilities of candidates. features: (N, len(FEATURES)), as `features.table_of` gives them."""
        if not len(features):
            return Predictions(np.zeros(0), np.zeros(0))
        reject = np.zeros(len(features)) if self.reject is None else self.reject.predict_proba(features)[:, 1]
        return Predictions(self.accept.predict_proba(features)[:, 1], reject)


def fit(judged: Sequence[Judged]) -> Verifier:
    """A verifier of these candidates. Raises TooFewVerdicts, in one sentence."""
    judged = [judged[i] for i in _order(judged)]
    table, videos = _table(judged)
    accepted, rejected = truth_of(judged, Verdict.ACCEPT), truth_of(judged, Verdict.REJECT)
    if problem := _too_few(accepted, videos):
        raise TooFewVerdicts(problem)
    reject = None if _too_few(rejected, videos) else _head(_for_reject(), table, rejected, videos)
    return Verifier(_head(_for_accept(), table, accepted, videos), reject)


def out_of_fold(judged: Sequence[Judged]) -> Predictions:
    """For each candidate, what a verifier says that saw no candidate of its video. Raises TooFewVerdicts."""
    order = _order(judged)
    judged = [judged[i] for i in order]
    table, videos = _table(judged)
    accepted, rejected = truth_of(judged, Verdict.ACCEPT), truth_of(judged, Verdict.REJECT)
    if problem := _too_few(accepted, videos):
        raise TooFewVerdicts(problem)
    accept, reject = np.zeros(len(judged)), np.zeros(len(judged))
    accept[order] = _held_out(_for_accept(), table, accepted, videos)
    if not _too_few(rejected, videos):
        reject[order] = _held_out(_for_reject(), table, rejected, videos)
    return Predictions(accept, reject)


def truth_of(judged: Sequence[Judged], verdict: Verdict) -> Truth:
    """Whether people gave this verdict, bool (N,)."""
    return np.array([one.verdict == verdict for one in judged], dtype=np.bool_)


def _order(judged: Sequence[Judged]) -> list[int]:
    """The places of the candidates by their ids, so that the result does not depend on their order."""
    return sorted(range(len(judged)), key=lambda i: (judged[i].video_id, judged[i].masklet_id))


def _table(judged: Sequence[Judged]) -> tuple[Numbers, NDArray[np.str_]]:
    table = np.array([one.features for one in judged], dtype=np.float64).reshape(len(judged), len(FEATURES))
    return table, np.array([one.video_id for one in judged], dtype=np.str_)


def _too_few(truth: Truth, videos: NDArray[np.str_]) -> str | None:
    """One sentence about what is missing to tell true from false candidates; None if there are enough."""
    yes, no = int(truth.sum()), int((~truth).sum())
    yes_videos, no_videos = len(set(videos[truth])), len(set(videos[~truth]))
    if yes + no >= LEAST and min(yes, no) >= LEAST_OF_EACH and min(yes_videos, no_videos) >= LEAST_VIDEOS:
        return None
    return (
        f"a verifier needs {LEAST} verdicts, {LEAST_OF_EACH} of each kind from {LEAST_VIDEOS} videos: there are "
        f"{yes} accepted ({counted(yes_videos, 'video')}) and {no} not ({counted(no_videos, 'video')})"
    )


def _folds(truth: Truth, videos: NDArray[np.str_]) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows to learn from and rows to test on, with each video on one side. Each side to learn from has both answers."""
    from sklearn.model_selection import StratifiedGroupKFold

    most = min(FOLDS, len(set(videos[truth])), len(set(videos[~truth])))
    for count in range(most, 1, -1):
        split = StratifiedGroupKFold(count, shuffle=True, random_state=0)
        folds = list(split.split(np.zeros(len(truth)), truth, videos))
        if all(0 < truth[learn].sum() < len(learn) and len(test) for learn, test in folds):
            return folds
    raise TooFewVerdicts("almost all accepted, or almost all other candidates are of one video")


def _head(classifier: Any, table: Numbers, truth: Truth, videos: NDArray[np.str_]) -> CalibratedClassifierCV:
    """A classifier with calibrated probabilities: the calibration sees only candidates of videos that were left out."""
    from sklearn.calibration import CalibratedClassifierCV

    folds = _folds(truth, videos)
    return CalibratedClassifierCV(classifier, method="sigmoid", cv=folds, ensemble=False).fit(table, truth)


def _for_accept() -> Any:
    """Logistic regression with scikit-learn's default penalty.

    Features are held in the range of the examples: a video that is longer than all of them must not decide everything.
    On 188 candidates of cells and pond (19 accepted), which are not among those of README.md, AUROC is 0.92 (95 %
    interval 0.86 to 0.96), with the trees below 0.85 (0.79 to 0.91).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    return make_pipeline(MinMaxScaler(clip=True), StandardScaler(), LogisticRegression(max_iter=1000))


def _for_reject() -> Any:
    """Extremely randomised trees (Geurts et al. 2006).

    A rejected candidate is not acceptable, and not worth a correction either: no straight line tells both. On 380
    candidates (303 rejected), which are not among those of README.md, AUROC is 0.86, with the regression above 0.81.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(TREES, min_samples_leaf=5, random_state=0)


def _held_out(classifier: Any, table: Numbers, truth: Truth, videos: NDArray[np.str_]) -> Numbers:
    found = np.zeros(len(truth))
    for learn, test in _folds(truth, videos):
        found[test] = _head(classifier, table[learn], truth[learn], videos[learn]).predict_proba(table[test])[:, 1]
    return found
