"""Gates: may this batch be published, may this checkpoint be promoted.

Pure: takes numbers and rules, returns a decision with its reasons. Does not know how the numbers were measured or what
follows from the decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One checkpoint measured against ground truth, on held-out videos. All in [0, 1], higher is better."""

    jf: float  # J&F, mean over masklets
    masklets: int  # how many were measured
    slices: Mapping[str, float] = field(default_factory=dict)  # J&F by slice: "size=small", "split=val", …


@dataclass(frozen=True, kw_only=True)
class PromotionRule:
    """When a new checkpoint replaces the old one."""

    min_gain: float = 0.0  # J&F that it must gain over the old one, in [0, 1]
    max_slice_loss: float = 0.05  # J&F that any one slice may lose


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """The decision of a gate."""

    passed: bool
    reasons: tuple[str, ...]  # the conditions that failed; if it passed, the numbers that decided


def promote(before: Metrics, after: Metrics, rule: PromotionRule) -> GateDecision:
    """Whether the checkpoint measured in `after` replaces the one measured in `before`, on the same held-out videos."""
    values = {"before": before.jf, "after": after.jf, **dict(after.slices)}
    if strange := [name for name, value in values.items() if not math.isfinite(value)]:
        return GateDecision(passed=False, reasons=(f"J&F of {', '.join(strange)} is not a number",))
    failed: list[str] = []
    if not after.masklets:
        failed.append("measured on 0 masklets")
    if after.masklets != before.masklets:
        failed.append(f"measured on {after.masklets} masklets, the old one on {before.masklets}")
    gain = after.jf - before.jf
    if gain < rule.min_gain:
        failed.append(f"J&F {before.jf:.4f} -> {after.jf:.4f}: gained {gain:+.4f}, at least {rule.min_gain:+.4f}")
    failed += _slice_losses(before, after, rule.max_slice_loss)
    if failed:
        return GateDecision(passed=False, reasons=tuple(failed))
    return GateDecision(passed=True, reasons=(f"J&F {before.jf:.4f} -> {after.jf:.4f} ({gain:+.4f})",))


def publish(*, offered: int, quarantined: int, tables_passed: bool, max_quarantined_share: float) -> GateDecision:
    """Whether the rest of a batch may be published.

    offered: rows before the checks. quarantined: rows that failed a check.
    tables_passed: whether the table checks passed. max_quarantined_share: of the rows offered, in [0, 1].
    Raises ValueError for impossible numbers.
    """
    if not 0 <= quarantined <= offered:
        raise ValueError(f"{quarantined} rows quarantined of {offered} offered")
    failed: list[str] = []
    if offered and quarantined / offered > max_quarantined_share:
        failed.append(f"{quarantined} of {offered} rows quarantined, at most {max_quarantined_share:.0%}")
    if not tables_passed:
        failed.append("the table checks failed")
    if failed:
        return GateDecision(passed=False, reasons=tuple(failed))
    return GateDecision(passed=True, reasons=(f"{offered - quarantined} of {offered} rows pass",))


def _slice_losses(before: Metrics, after: Metrics, most: float) -> list[str]:
    """One line for every slice that lost more than `most`, or that was not measured again."""
    lines = []
    for name in sorted(before.slices):
        if name not in after.slices:
            lines.append(f"slice {name} was not measured")
            continue
        loss = before.slices[name] - after.slices[name]
        if loss > most:
            lines.append(
                f"slice {name}: J&F {before.slices[name]:.4f} -> {after.slices[name]:.4f}, "
                f"lost {loss:.4f}, at most {most:.4f}"
            )
    return lines
