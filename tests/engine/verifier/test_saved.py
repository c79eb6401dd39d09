"""The share of reviews that a verifier saves: what its cuts reach on other videos."""

import numpy as np

from engine.verifier import figures
from engine.verifier.fitting import Predictions
from tests.engine.verifier.made import made


def of_noise(seed, offset):
    """The figures of a verifier that knows nothing."""
    judged = made(300, seed=seed, slope=0, rejects=False, offset=offset)
    return figures.measure(judged, Predictions(np.random.default_rng(seed).random(300), np.zeros(300)))


def test_a_verifier_that_knows_nothing_saves_nothing_at_the_precision():
    """On the verdicts on which a cut was chosen, it is right in 98 % of the cases, whatever the verifier knows."""
    for offset, share in ((0, 0.5), (2.2, 0.9)):
        found = [of_noise(seed, offset) for seed in range(6)]
        decided = np.array([one.saved.value for one in found])
        right = np.array([one.saved.value * one.saved_precision.value for one in found if one.saved.value])
        assert right.sum() / decided.sum() < (1 + share) / 2 - 0.01
        assert share > 0.5 or decided.max() < 0.05


def test_where_nothing_is_saved_the_precision_is_unknown():
    judged = made(60, slope=0, rejects=False)
    found = figures.measure(judged, Predictions(np.full(60, 0.5), np.zeros(60)))
    assert found.saved.value == 0 and np.isnan(found.saved_precision.value)
