"""When a simulated person is satisfied, and how often they err."""

import numpy as np
import pytest

from engine.demo.annotator_policy import EXACT, AnnotatorPolicy, HumanNoise
from storage import rle
from storage.records import Verdict
from tests.storage.rows import H, W, make_masklet

HUMAN = HumanNoise()


def masklet(*widths):
    """A masklet of boxes of these widths, 10 px high."""
    masks = np.zeros((len(widths), H, W), dtype=bool)
    for mask, width in zip(masks, widths, strict=True):
        mask[:10, :width] = True
    frames = tuple(range(0, 4 * len(widths), 4))
    ones = (1.0,) * len(widths)
    areas = tuple(int(mask.sum()) for mask in masks)
    masks_rle = tuple(map(rle.encode, masks))
    return make_masklet(frame_idx=frames, rle=masks_rle, area_px=areas, score=ones, object_score=ones, stability=ones)


@pytest.mark.parametrize(
    ("widths", "margin"),
    [
        ((20, 20, 20, 20), 0.15),  # all frames right: 1 - 0.85
        ((20, 20, 20, 18), 0.15),
        ((17, 17, 17, 17), 0.05),  # mean IoU 0.85 - 0.8
        ((16, 16, 16, 16), 0.0),
        ((20, 20, 20, 10), -0.10),  # three of four frames right: 0.75 - 0.85
        ((10, 10, 10, 10), -0.85),
    ],
)
def test_the_margin_is_that_of_the_condition_that_is_met_worst(widths, margin):
    policy, target = AnnotatorPolicy(), masklet(20, 20, 20, 20)
    assert policy.margin(masklet(*widths), target) == pytest.approx(margin)


def test_nobody_is_satisfied_with_a_masklet_that_shows_nothing():
    assert AnnotatorPolicy().margin(masklet(0, 0), masklet(0, 0)) == -1


def errors(noise, right, margin, people=4000):
    said = [noise.verdict(right, margin, f"ticket-{i}", "vera") for i in range(people)]
    return sum(verdict is not right for verdict in said) / people


def test_people_err_half_of_the_time_at_the_threshold_and_rarely_far_from_it():
    at = {margin: errors(HUMAN, Verdict.ACCEPT, margin) for margin in (0.0, 0.03, 0.06, 0.5)}
    assert at[0.0] == pytest.approx(0.5, abs=0.03)
    assert at[0.03] == pytest.approx(0.01 + 0.49 / np.e, abs=0.03)
    assert at[0.06] == pytest.approx(0.01 + 0.49 / np.e**2, abs=0.02)
    assert at[0.5] == pytest.approx(0.01, abs=0.006)
    assert errors(HUMAN, Verdict.REFINE, -0.03) == pytest.approx(at[0.03], abs=0.001), "both sides are alike"
    assert errors(HUMAN, Verdict.REJECT, np.inf) == pytest.approx(0.01, abs=0.006)


def test_without_noise_the_verdict_is_right_even_at_the_threshold():
    assert AnnotatorPolicy().noise is EXACT
    assert all(errors(EXACT, verdict, 0.0) == 0 for verdict in (Verdict.ACCEPT, Verdict.REFINE, Verdict.REJECT))


def test_a_person_says_the_same_again_and_another_person_may_differ():
    def said(person):
        return [HUMAN.verdict(Verdict.ACCEPT, 0.0, f"t{i}", person) for i in range(200)]

    assert said("vera") == said("vera")
    agreed = sum(a is b for a, b in zip(said("vera"), said("victor"), strict=True))
    assert 70 < agreed < 130
