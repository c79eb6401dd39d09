"""Gates decide from numbers, and say why."""

from __future__ import annotations

import math

import pytest

from validation import gate
from validation.gate import Metrics, PromotionRule, PublishRule

BEFORE = Metrics(jf=0.70, masklets=20, slices={"size=small": 0.5, "size=large": 0.8})


def after(jf: float, **changes) -> Metrics:
    return Metrics(**{"jf": jf, "masklets": 20, "slices": {"size=small": 0.5, "size=large": 0.8}, **changes})


@pytest.mark.parametrize(
    ("metrics", "rule", "passed", "says"),
    [
        (after(0.75), PromotionRule(), True, "0.7000 -> 0.7500 (+0.0500)"),
        (after(0.70), PromotionRule(), True, "+0.0000"),
        (after(0.69), PromotionRule(), False, "gained -0.0100, at least +0.0000"),
        (after(0.71), PromotionRule(min_gain=0.02), False, "at least +0.0200"),
        (after(0.75), PromotionRule(min_jf=0.8), False, "J&F 0.7500, at least 0.8000"),
        (after(0.75, masklets=19), PromotionRule(), False, "the old one on 20"),
        (after(0.75), PromotionRule(min_masklets=50), False, "measured on 20 masklets, at least 50"),
        (after(0.75, slices={"size=small": 0.44, "size=large": 0.9}), PromotionRule(), False, "slice size=small"),
        (after(0.75, slices={"size=small": 0.46, "size=large": 0.9}), PromotionRule(), True, ""),
        (after(0.75, slices={"size=small": 0.5}), PromotionRule(), False, "size=large was not measured"),
        (after(math.nan), PromotionRule(), False, "not a number"),
        (after(0.75, slices={"size=small": math.nan}), PromotionRule(), False, "size=small is not a number"),
    ],
)
def test_a_checkpoint_is_promoted_only_if_every_condition_holds(metrics, rule, passed, says):
    decision = gate.promote(BEFORE, metrics, rule)
    assert decision.passed is passed
    assert any(says in reason for reason in decision.reasons)


def test_every_failed_condition_is_told():
    decision = gate.promote(BEFORE, after(0.5, masklets=3, slices={}), PromotionRule(min_masklets=10, min_jf=0.6))
    assert len(decision.reasons) == 6


def test_the_first_checkpoint_passes_against_itself():
    assert gate.promote(BEFORE, BEFORE).passed


@pytest.mark.parametrize(
    ("numbers", "rule", "passed", "says"),
    [
        ({"offered": 10, "quarantined": 2}, PublishRule(), True, "8 of 10 rows pass"),
        ({"offered": 10, "quarantined": 3}, PublishRule(), False, "3 of 10 rows quarantined, at most 20%"),
        ({"offered": 0, "quarantined": 0}, PublishRule(), True, "0 of 0"),
        ({"offered": 0, "quarantined": 0}, PublishRule(min_rows=1), False, "0 rows left, at least 1"),
        ({"offered": 10, "quarantined": 0, "tables_passed": False}, PublishRule(), False, "table checks failed"),
        ({"offered": 1, "quarantined": 0, "tables_passed": False}, PublishRule(tables_must_pass=False), True, ""),
        ({"offered": 1, "quarantined": 0, "tables_passed": True}, PublishRule(), True, ""),
    ],
)
def test_a_batch_is_published_only_if_every_condition_holds(numbers, rule, passed, says):
    decision = gate.publish(**numbers, rule=rule)
    assert decision.passed is passed
    assert any(says in reason for reason in decision.reasons)


def test_impossible_numbers_are_a_value_error():
    with pytest.raises(ValueError, match="3 rows quarantined of 2"):
        gate.publish(offered=2, quarantined=3)
