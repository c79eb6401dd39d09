"""The verifier on candidates with a known truth: it finds what there is to find, and no more."""

from dataclasses import replace

import numpy as np
import pytest

from engine.verifier import figures, fitting
from engine.verifier.features import FEATURES
from engine.verifier.fitting import Predictions, TooFewVerdicts
from engine.verifier.judged import Judged
from storage.records import Verdict
from tests.engine.verifier.made import ideal_auroc, made

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judged():
    return made(600)


@pytest.fixture(scope="module")
def predicted(judged):
    return fitting.out_of_fold(judged)


def test_the_figures_of_a_known_truth_are_near_the_best_possible(judged, predicted):
    found = figures.measure(judged, predicted)
    best = ideal_auroc(4.0)
    assert best - 0.04 < found.auroc.value <= best + 0.03 and found.auroc.low < best < found.auroc.high + 0.03
    assert found.calibration_error.value < 0.05 + 0.4 / np.sqrt(60)
    assert found.candidates == 600 and found.videos == 40
    accepted = fitting.truth_of(judged, Verdict.ACCEPT)
    assert found.accepted == accepted.sum()
    assert found.agreement.value == pytest.approx(((predicted.accept >= 0.5) == accepted).mean())
    assert found.human_agreement is None


def test_the_cuts_that_save_reviews_reach_nearly_their_precision_on_other_videos(judged, predicted):
    found = figures.measure(judged, predicted)
    assert 0.1 < found.saved.low <= found.saved.value <= found.saved.high < 1
    assert 0.94 < found.saved_precision.value <= 1 and found.saved_precision.low <= found.saved_precision.value


def test_what_is_surely_not_acceptable_saves_a_review_too_and_nothing_is_counted_twice():
    judged = made(1800, videos=200)
    verdicts = ["accept"] * 600 + ["refine"] * 600 + ["reject"] * 600
    judged = [replace(one, verdict=verdict) for one, verdict in zip(judged, verdicts, strict=True)]
    accept = np.repeat([0.5, 0.1, 0.1], 600) + np.arange(1800) * 1e-6
    accept[:60] = 0.01  # a tenth of the accepted ones look hopeless
    known, unknown = Predictions(accept, np.repeat([0.0, 0.0, 0.9], 600)), Predictions(accept, np.zeros(1800))
    found = figures.measure(judged, known)
    assert 0.95 * 540 <= found.sure_accept.count <= 540 and found.sure_reject.count == 600
    # 60 of the last 660 would be accepted: 98 % is not reached
    assert found.saved.value == pytest.approx(1140 / 1800, abs=0.002) and found.saved_precision.value > 0.98
    accept[:60] = 0.3
    found = figures.measure(judged, unknown)
    assert found.sure_reject.count == 0 and 0.95 * 600 <= found.sure_accept.count <= 612
    assert 0.95 * 1800 <= found.sure_accept.count + found.sure_refine.count <= 1800
    assert found.saved.value == pytest.approx(1, abs=0.002)


def test_a_video_longer_than_all_examples_does_not_decide_what_is_accepted(judged):
    """The number of frames is noise here. Its examples lie between 90 and 99, so one of 240 is far outside."""
    place = FEATURES.index("frames")

    def with_frames(one, frames):
        return replace(one, features=(*one.features[:place], float(frames), *one.features[place + 1 :]))

    known = [with_frames(one, 90 + int(one.video_id[1:]) % 10) for one in judged]
    verifier = fitting.fit(known)
    new = made(500, seed=9)
    accepted = fitting.truth_of(new, Verdict.ACCEPT)
    for frames in (95, 240, 1200):
        sure = verifier.predict(np.array([with_frames(one, frames).features for one in new])).accept > 0.9
        assert 40 < sure.sum() < 300 and accepted[sure].mean() > 0.9


def test_noise_tells_nothing():
    judged = made(300, slope=0.0)
    found = figures.measure(judged, fitting.out_of_fold(judged))
    assert 0.35 < found.auroc.value < 0.65 and found.saved.value < 0.05
    assert found.calibration_error.value < 0.15
    assert found.sure_accept.count == found.sure_reject.count == found.sure_refine.count == 0


def test_two_probabilities_tell_accepted_refined_and_rejected_apart(judged):
    verifier = fitting.fit(judged)
    typical = np.zeros((3, len(FEATURES)))
    typical[:, FEATURES.index("score_mean")] = (2, -2, -2)
    typical[:, FEATURES.index("shape_mean")] = (1, 1, -1)
    predicted = verifier.predict(typical)
    assert predicted.accept[0] > 0.9 and predicted.accept[1] < 0.1 and predicted.accept[2] < 0.1
    assert predicted.reject[2] > 0.8 and predicted.reject[0] < 0.2 and predicted.reject[1] < 0.2
    assert verifier.predict(typical[:0]).accept.shape == (0,)


def test_doubt_is_highest_where_the_probability_is_even():
    predicted = fitting.Predictions(np.array([0.0, 0.5, 0.75, 1.0]), np.zeros(4))
    assert predicted.doubt.tolist() == [0, 1, 0.5, 0]


def test_the_same_candidates_give_the_same_verifier_in_any_order(judged):
    table = np.random.default_rng(5).normal(size=(20, len(FEATURES)))
    ours, again = fitting.fit(judged).predict(table), fitting.fit(judged[::-1]).predict(table)
    assert ours.accept.tolist() == again.accept.tolist() and ours.reject.tolist() == again.reject.tolist()


def test_no_candidate_is_scored_by_a_verifier_that_saw_its_video():
    """Each video has one value in a feature, and chance alone decides for the whole video: nothing can be learned."""
    generator = np.random.default_rng(2)
    judged = []
    for video in range(60):
        verdict = "accept" if generator.random() < 0.5 else "refine"
        features = tuple(generator.normal(size=len(FEATURES)).tolist())
        judged += [
            Judged(masklet_id=f"{video}-{i}", video_id=f"v{video}", batch_id="b", features=features, verdict=verdict)
            for i in range(5)
        ]
    found = figures.measure(judged, fitting.out_of_fold(judged))
    assert found.auroc.value < 0.7


def test_without_rejected_candidates_nothing_is_rejected():
    judged = made(200, rejects=False)
    assert fitting.fit(judged).reject is None
    assert not fitting.out_of_fold(judged).reject.any()


@pytest.mark.parametrize(
    "judged",
    [[], made(59), made(200, videos=3), [one for one in made(300) if one.verdict == "accept"]],
)
def test_too_few_verdicts_are_refused_in_one_sentence(judged):
    for use in (fitting.fit, fitting.out_of_fold):
        with pytest.raises(TooFewVerdicts, match=r"^a verifier needs 60 verdicts, 10 of each kind from 4 videos") as it:
            use(judged)
        assert "\n" not in str(it.value)


def test_accepted_candidates_that_are_almost_all_of_one_video_are_enough():
    """All but three accepted ones are of video v0, so some folds learn from very few."""
    judged = [one for one in made(600, rejects=False) if one.verdict == "refine" or one.video_id in ("v0", "v1")]
    judged += [one for one in made(600, rejects=False) if one.verdict == "accept" and one.masklet_id in ("m2", "m3")]
    accepted = {one.video_id for one in judged if one.verdict == "accept"}
    assert len(accepted) >= 2
    judged += [replace(judged[0], masklet_id=f"x{i}", video_id=f"x{i}", verdict="accept") for i in range(2)]
    predicted = fitting.out_of_fold(judged)
    assert np.isfinite(predicted.accept).all() and 0 <= predicted.accept.min() <= predicted.accept.max() <= 1
