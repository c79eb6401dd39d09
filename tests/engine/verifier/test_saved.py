"""The share of reviews that a verifier saves: what its cuts reach on other videos."""

import numpy as np

from engine.verifier import figures
from engine.verifier.fitting import Predictions
from tests.engine.verifier.made import made


def of_noise(seed, offset):
    """The figures of a verifier that knows nothing."""
    judged = made(300, seed=seed, slope=0, rejects=False, offset=offset)
    return figures.measure(judged, Predictions(np.random.default_rng(seed).random(300), np.zeros(300)))


def test_a_verifier_that_knows_nothing_saves_hardly_any_review():
    assert max(of_noise(seed, offset=0).saved.value for seed in range(6)) < 0.05, "half of the candidates are accepted"


def test_what_is_right_among_saved_reviews_is_counted_on_other_verdicts():
    """Of those on which a cut was chosen, 98 % are right, whatever the verifier knows; here 90 % are accepted."""
    found = [of_noise(seed, offset=2.2) for seed in range(6)]
    decided = sum(one.saved.value for one in found)
    right = sum(one.saved.value * one.saved_precision.value for one in found if one.saved.value)
    assert right / decided < 0.94


def test_where_nothing_is_saved_the_precision_is_unknown():
    judged = made(60, slope=0, rejects=False)
    found = figures.measure(judged, Predictions(np.full(60, 0.5), np.zeros(60)))
    assert found.saved.value == 0 and np.isnan(found.saved_precision.value)
