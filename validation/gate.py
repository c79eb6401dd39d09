"""Gates: may this be published, may this checkpoint be promoted.

Pure: numbers and rules in, a decision with reasons out. Knows nothing about how the numbers were measured or what is
done with the decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What was measured of one checkpoint against ground truth, on held-out videos. All in [0, 1], higher is better."""

    jf: float  # J&F, mean over masklets
    masklets: int  # that it was measured on
    slices: Mapping[str, float] = field(default_factory=dict)  # J&F by slice: "size=small", "split=val", …


@dataclass(frozen=True, kw_only=True)
class PromotionRule:
    """When a new checkpoint takes the place of the old one."""

    min_gain: float = 0.0  # J&F that it must gain over the old one, in [0, 1]
    max_slice_loss: float = 0.05  # J&F that any one slice may lose
    min_masklets: int = 1  # held-out masklets, below which nothing can be said
    min_jf: float = 0.0  # J&F that it must reach in any case


@dataclass(frozen=True, kw_only=True)
class PublishRule:
    """When a batch may become part of the dataset."""

    max_quarantined_share: float = 0.2  # of the rows that were offered
    min_rows: int = 0  # rows that must remain
    tables_must_pass: bool = True  # the Great Expectations suite


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a gate says. `reasons`: the conditions that failed, or what convinced it if it passed."""

    passed: bool
    reasons: tuple[str, ...]


def promote(before: Metrics, after: Metrics, rule: PromotionRule | None = None) -> Decision:
    """Whether the checkpoint measured in `after` replaces the one measured in `before`, on the same held-out videos."""
    rule = rule or PromotionRule()
    failed: list[str] = []
    values = {"before": before.jf, "after": after.jf, **dict(after.slices)}
    if strange := [name for name, value in values.items() if not math.isfinite(value)]:
        return Decision(passed=False, reasons=(f"J&F of {', '.join(strange)} is not a number",))
    if after.masklets < rule.min_masklets:
        failed.append(f"measured on {after.masklets} masklets, at least {rule.min_masklets}")
    if after.masklets != before.masklets:
        failed.append(f"measured on {after.masklets} masklets, the old one on {before.masklets}")
    gain = after.jf - before.jf
    if gain < rule.min_gain:
        failed.append(f"J&F {before.jf:.4f} -> {after.jf:.4f}: gained {gain:+.4f}, at least {rule.min_gain:+.4f}")
    if after.jf < rule.min_jf:
        failed.append(f"J&F {after.jf:.4f}, at least {rule.min_jf:.4f}")
    for name in sorted(before.slices):
        if name not in after.slices:
            failed.append(f"slice {name} was not measured")
            continue
        loss = before.slices[name] - after.slices[name]
        if loss > rule.max_slice_loss:
            failed.append(
                f"slice {name}: J&F {before.slices[name]:.4f} -> {after.slices[name]:.4f}, "
                f"lost {loss:.4f}, at most {rule.max_slice_loss:.4f}"
            )
    if failed:
        return Decision(passed=False, reasons=tuple(failed))
    return Decision(passed=True, reasons=(f"J&F {before.jf:.4f} -> {after.jf:.4f} ({gain:+.4f})",))


def publish(
    *, offered: int, quarantined: int, tables_passed: bool | None = None, rule: PublishRule | None = None
) -> Decision:
    """Whether what is left of a batch may be published.

    offered: rows before the checks; quarantined: those that failed one. tables_passed: None if that suite did not run.
    Raises ValueError for impossible numbers.
    """
    rule = rule or PublishRule()
    if not 0 <= quarantined <= offered:
        raise ValueError(f"{quarantined} rows quarantined of {offered} offered")
    failed: list[str] = []
    left = offered - quarantined
    share = quarantined / offered if offered else 0.0
    if share > rule.max_quarantined_share:
        failed.append(f"{quarantined} of {offered} rows quarantined, at most {rule.max_quarantined_share:.0%}")
    if left < rule.min_rows:
        failed.append(f"{left} rows left, at least {rule.min_rows}")
    if tables_passed is False and rule.tables_must_pass:
        failed.append("the table checks failed")
    if failed:
        return Decision(passed=False, reasons=tuple(failed))
    return Decision(passed=True, reasons=(f"{left} of {offered} rows pass",))
