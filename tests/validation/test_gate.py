"""Gates decide from numbers, and give their reasons."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from validation import gate
from validation.gate import Metrics, PromotionRule
from validation.paired import MaskletJF

VIDEOS = ("a", "b", "c", "d")


def metrics(jf: float, *, per_video: int = 4, small: float | None = None, spread: float = 0.0) -> Metrics:
    """Of four videos. small: J&F of one masklet of each. spread: how far the videos lie apart, without the mean."""
    scores = []
    for n, video in enumerate(VIDEOS):
        for k in range(per_video):
            of = small if k == 0 and small is not None else jf + spread * (n - 1.5)
            scores.append(
                MaskletJF(video_id=video, name=str(k), jf=of, slices=("size=small" if k == 0 else "size=large",))
            )
    return Metrics.of(scores)


def without(measured: Metrics, video: str) -> Metrics:
    return Metrics.of([scored for scored in measured.each if scored.video_id != video])


BEFORE = metrics(0.5, small=0.5)


@pytest.mark.parametrize(
    ("after", "rule", "passed", "says"),
    [
        (metrics(0.6), PromotionRule(), True, "better: held-out J&F 50.0 -> 60.0: +10.0 points"),
        (metrics(0.5), PromotionRule(), False, "not clearly better: held-out J&F 50.0 -> 50.0: +0.0 points"),
        (metrics(0.4), PromotionRule(), False, "not clearly better"),
        (metrics(0.53, spread=0.1), PromotionRule(), False, "not clearly better"),  # chance may explain it
        (metrics(0.6, spread=0.02), PromotionRule(), True, "16 masklets of 4 videos"),
        (metrics(0.52), PromotionRule(min_gain=0.03), False, "gained less than 3.0 points"),
        (metrics(0.52), PromotionRule(min_gain=0.02 - 1e-9), True, "better"),
        (metrics(0.7, small=0.4), PromotionRule(), False, "clearly worse on size=small: -10.0 points"),
        (metrics(0.7, small=0.46), PromotionRule(), True, "better"),
        (metrics(0.7), PromotionRule(min_masklets=17), False, "only 16 held-out masklets of 4 videos"),
        (metrics(0.7), PromotionRule(min_videos=5), False, "at least 10 of 5 needed"),
        (without(metrics(0.7), "d"), PromotionRule(), False, "measured on different masklets"),
        (metrics(math.nan), PromotionRule(), False, "not a number"),
    ],
)
def test_a_checkpoint_is_promoted_only_if_every_condition_holds(after, rule, passed, says):
    decision = gate.promote(BEFORE, after, rule)
    assert decision.passed is passed
    assert any(says in reason for reason in decision.reasons), decision.reasons


def test_every_failed_condition_is_a_reason():
    general = metrics(0.8), metrics(0.6)
    decision = gate.promote(BEFORE, metrics(0.5, small=0.3), PromotionRule(), general)
    assert [reason.split(":")[0] for reason in decision.reasons] == [
        "not clearly better",
        "clearly worse on size=small",
        "forgot too much of the general set",
    ]


@pytest.mark.parametrize(("forgotten", "passed"), [(0.05, True), (0.2, False), (-0.1, True)])
def test_a_checkpoint_that_forgets_too_much_is_not_promoted(forgotten, passed):
    decision = gate.promote(BEFORE, metrics(0.7), PromotionRule(), (metrics(0.8), metrics(0.8 - forgotten)))
    assert decision.passed is passed


def test_a_slice_of_one_video_alone_does_not_stop_a_checkpoint():
    lone = [replace(s, slices=("size=small",) if s.video_id == "a" else ()) for s in BEFORE.each]
    worse = [replace(s, jf=0.2 if s.video_id == "a" and s.name == "0" else 0.8) for s in lone]
    assert gate.promote(Metrics.of(lone), Metrics.of(worse), PromotionRule()).passed


@pytest.mark.parametrize(("videos", "passed"), [(2, True), (9, True), (10, False)])
def test_a_value_of_the_metadata_stops_a_checkpoint_only_with_enough_videos(videos, passed):
    """Of a hundred authors with two videos each, some lose by chance."""
    before = [
        MaskletJF(video_id=str(n), name="0", jf=0.5, slices=("author=ann",) if n < videos else ()) for n in range(60)
    ]
    after = [replace(each, jf=0.4 if each.slices else 0.8) for each in before]
    assert gate.promote(Metrics.of(before), Metrics.of(after), PromotionRule()).passed is passed


@pytest.mark.parametrize(
    ("offered", "quarantined", "tables_passed", "passed", "says"),
    [
        (10, 2, True, True, "8 of 10 rows pass"),
        (10, 3, True, False, "3 of 10 rows quarantined, at most 20%"),
        (0, 0, True, True, "0 of 0"),
        (10, 0, False, False, "table checks failed"),
    ],
)
def test_a_batch_is_published_only_if_every_condition_holds(offered, quarantined, tables_passed, passed, says):
    decision = gate.publish(
        offered=offered, quarantined=quarantined, tables_passed=tables_passed, max_quarantined_share=0.2
    )
    assert decision.passed is passed
    assert any(says in reason for reason in decision.reasons)


def test_impossible_numbers_are_a_value_error():
    with pytest.raises(ValueError, match="3 rows quarantined of 2"):
        gate.publish(offered=2, quarantined=3, tables_passed=True, max_quarantined_share=0.2)
