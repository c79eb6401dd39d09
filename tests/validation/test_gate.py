"""Gates decide from numbers, and give their reasons."""

from __future__ import annotations

import math

import pytest

from validation import gate
from validation.gate import Metrics, PromotionRule

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
        (after(0.75, masklets=19), PromotionRule(), False, "the old one on 20"),
        (after(0.75, masklets=0), PromotionRule(), False, "measured on 0 masklets"),
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


def test_every_failed_condition_is_a_reason():
    decision = gate.promote(BEFORE, after(0.5, masklets=3, slices={}), PromotionRule())
    assert len(decision.reasons) == 4


def test_the_first_checkpoint_passes_against_itself():
    assert gate.promote(BEFORE, BEFORE, PromotionRule()).passed


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
