"""Probabilities against verdicts: the figures have the values that they must have."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from validation import verdicts
from validation.verdicts import NOTHING, Cut


def at(*values):
    return np.array(values, dtype=np.float64)


def are(text):
    return np.array([letter == "+" for letter in text])


def test_auroc_counts_the_pairs_that_are_in_the_right_order_and_ties_as_half():
    assert verdicts.auroc(at(0.9, 0.8, 0.2, 0.1), are("++--")) == 1
    assert verdicts.auroc(at(0.9, 0.8, 0.2, 0.1), are("--++")) == 0
    assert verdicts.auroc(at(0.9, 0.5, 0.5, 0.1), are("++--")) == pytest.approx(3.5 / 4)
    assert math.isnan(verdicts.auroc(at(0.9, 0.1), are("++")))


def test_the_calibration_error_is_the_mean_distance_of_probability_and_share():
    probability = np.repeat([0.2, 0.8], 50)
    truth = np.concatenate([np.tile(are("+----"), 10), np.tile(are("++++-"), 10)])
    assert verdicts.calibration_error(probability, truth) == pytest.approx(0)
    assert verdicts.calibration_error(probability, ~truth) == pytest.approx(0.6)
    assert verdicts.calibration_error(probability + 0.1, truth) == pytest.approx(0.1)
    assert verdicts.calibration_error(at(0.7), are("+")) == pytest.approx(0.3)
    assert math.isnan(verdicts.calibration_error(at(), are("")))


def test_perfect_probabilities_show_an_error_that_fades_with_more_candidates():
    spread = np.linspace(0.05, 0.95, 100)
    few, many = verdicts.chance_error(spread), verdicts.chance_error(np.tile(spread, 100))
    assert 0.05 < few < 0.15 and few / 15 < many < few / 7  # as one over the root of their number
    assert verdicts.chance_error(np.repeat([0.0, 1.0], 50)) == 0, "sure and right"
    assert math.isnan(verdicts.chance_error(at()))


def test_the_largest_cut_goes_on_past_errors_while_the_precision_holds():
    probability, truth = at(0.9, 0.8, 0.7, 0.6, 0.5), are("+-++-")
    assert verdicts.largest_cut(probability, truth, 0.75) == Cut(0.6, 4, 3)
    assert verdicts.largest_cut(probability, truth, 0.76) == Cut(0.9, 1, 1)
    assert verdicts.largest_cut(probability, are("-----"), 0.5) == NOTHING


def test_candidates_of_one_probability_stay_together_and_those_of_probability_zero_are_in_no_cut():
    probability = at(0.9, 0.5, 0.5, 0.0)
    assert verdicts.cuts_of(probability, are("++-+")) == [Cut(0.9, 1, 1), Cut(0.5, 3, 2)]
    assert verdicts.largest_cut(at(0.0, 0.0), are("++"), 0.5) == NOTHING


def draw(seed, *, precision, videos, alike=0.1):
    """Candidates, 12 a video on average, of which this share is right, whatever their probability.

    alike: the correlation of two candidates of one video.
    """
    generator = np.random.default_rng(seed)
    others = 1 / alike - 1
    chance = generator.beta(precision * others, (1 - precision) * others, videos)
    of = np.repeat(np.arange(videos), 1 + generator.poisson(11, videos))
    return generator.random(len(of)), generator.random(len(of)) < chance[of], of.astype(str).tolist()


def share_with_a_cut(draws, **what):
    found = 0
    for seed in range(draws):
        probability, truth, videos = draw(seed, **what)
        found += verdicts.sure_cut(probability, truth, videos, 0.98).count > 0
    return found / draws


def test_the_search_for_a_cut_finds_one_by_chance_no_more_often_than_a_single_test_would():
    """The largest of all proved cuts would be one by chance in 6 of 100 draws of the second kind."""
    assert share_with_a_cut(200, precision=0.97, videos=30, alike=0.3) <= 0.03
    assert share_with_a_cut(200, precision=0.98, videos=200) <= 0.03


def test_a_verifier_that_is_right_has_its_cut_and_nearly_all_of_it():
    assert share_with_a_cut(60, precision=0.999, videos=100) >= 0.9
    probability, truth, videos = draw(1, precision=0.9999, videos=100)
    assert verdicts.sure_cut(probability, truth, videos, 0.98).count == len(truth)


def test_the_cut_ends_where_the_verifier_errs():
    probability, truth = np.linspace(1, 0.5, 2000), np.arange(2000) < 1000
    cut = verdicts.sure_cut(probability, truth, [f"v{i % 200}" for i in range(2000)], 0.98)
    assert 950 <= cut.count <= 1010 and cut.right >= 0.98 * cut.count


def test_few_videos_prove_nothing():
    """With a correlation of 0.1, 50 candidates of a video tell as much as 8."""
    for count, sure in ((19, False), (20, False), (60, True)):
        videos = np.repeat(np.arange(count), 50).astype(str).tolist()
        found = verdicts.sure_cut(np.full(len(videos), 0.9), np.ones(len(videos), bool), videos, 0.98)
        assert (found != NOTHING) is sure
    many, few = np.full(19, 10**6), np.full(20, 9)
    assert verdicts.lower_bound(many, np.zeros(19, int)) == 0 < verdicts.lower_bound(few, np.zeros(20, int))


def test_the_bound_of_single_candidates_is_wilsons_with_students_limit():
    """n / (n + t²), where no candidate is wrong."""
    assert verdicts.lower_bound(np.ones(200, int), np.zeros(200, int)) == pytest.approx(
        200 / (200 + 1.97196**2), abs=1e-6
    )


def test_errors_of_one_video_make_a_cut_less_sure_than_the_same_errors_spread_out():
    probability, truth = np.full(2000, 0.9), np.ones(2000, bool)
    truth[:10] = False
    spread = [f"v{i % 100}" for i in range(2000)]
    assert verdicts.sure_cut(probability, truth, spread, 0.98).count == 2000
    in_one = [f"v{i // 20}" for i in range(2000)]
    assert verdicts.sure_cut(probability, truth, in_one, 0.98) == NOTHING


def test_an_interval_draws_videos_and_is_the_same_each_time():
    values = np.array([0.0] * 10 + [1.0] * 10)
    rows = np.arange(20)

    def mean(some):
        return float(values[some].mean())

    two = verdicts.bootstrap(mean, ["a"] * 10 + ["b"] * 10, rows)
    many = verdicts.bootstrap(mean, [str(i) for i in range(20)], rows)
    assert (two.value, two.low, two.high) == (0.5, 0.0, 1.0)
    assert 0.2 < many.low < 0.5 < many.high < 0.8
    assert many == verdicts.bootstrap(mean, [str(i) for i in range(20)], rows)


def test_an_interval_leaves_out_draws_that_cannot_be_measured():
    truth, probability = are("+-"), at(0.9, 0.1)
    found = verdicts.bootstrap(lambda i: verdicts.auroc(probability[i], truth[i]), ["a", "b"], np.arange(2))
    assert (found.value, found.low, found.high) == (1, 1, 1)
    one = verdicts.bootstrap(lambda i: verdicts.auroc(probability[i], truth[i]), ["a"], np.arange(1))
    assert all(math.isnan(value) for value in (one.value, one.low, one.high))


def test_auroc_is_that_of_the_library_on_random_numbers():
    generator = np.random.default_rng(3)
    probability, truth = generator.random(200).round(2), generator.random(200) < 0.3
    assert verdicts.auroc(probability, truth) == pytest.approx(roc_auc_score(truth, probability))
