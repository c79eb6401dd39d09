"""Gates: may this batch be published, may this checkpoint be promoted.

Pure: takes numbers and rules, returns a decision with its reasons. Does not know how the numbers were measured or what
follows from the decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from storage.wording import counted
from validation import paired
from validation.paired import Change, MaskletJF


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One checkpoint measured against ground truth, on held-out videos. All in [0, 1], higher is better."""

    jf: float  # J&F, mean over masklets
    masklets: int  # how many were measured
    slices: Mapping[str, float] = field(default_factory=dict)  # J&F by slice: "size=small", "entry=late", …
    each: tuple[MaskletJF, ...] = ()  # of each masklet

    @staticmethod
    def of(measured: Sequence[MaskletJF]) -> Metrics:
        """The metrics from each masklet's J&F. Raises ValueError without a masklet."""
        slices = {name: paired.mean_of(of).mean for name, of in paired.by_slice(measured).items()}
        return Metrics(jf=paired.mean_of(measured).mean, masklets=len(measured), slices=slices, each=tuple(measured))


OF_MASKS = ("size", "motion", "visible", "entry")  # columns of slices that follow from the masks: a dozen slices
LEAST_VIDEOS = 10  # of any other slice: of a hundred authors with two videos each, some lose by chance


@dataclass(frozen=True, kw_only=True)
class PromotionRule:
    """When a new checkpoint replaces the old one. Gains and losses are J&F, in [0, 1]."""

    min_gain: float = 0.0  # the new one must gain this over the old one, and always more than chance explains
    min_masklets: int = 10  # held-out masklets; with fewer, a gain cannot be told from chance
    min_videos: int = 3  # held-out videos
    max_slice_loss: float = 0.05  # a slice may lose this; a larger loss counts only if chance does not explain it
    max_forgotten: float = 0.10  # the general set may lose this over all rounds; a larger loss counts as for a slice


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """The decision of a gate."""

    passed: bool
    reasons: tuple[str, ...]  # the conditions that failed; if it passed, the numbers that decided
    gain: Change | None = None  # of a promotion: J&F gained; None if it was not measured


def promote(
    before: Metrics,
    after: Metrics,
    rule: PromotionRule,
    general: tuple[Metrics, Metrics] | None = None,
    over_rounds: int = 1,
) -> GateDecision:
    """Whether the checkpoint measured in `after` replaces the one measured in `before`, on the same held-out masklets.

    general: an earlier checkpoint and the one of `after` on a fixed set outside the release, to see what was forgotten;
        None: not measured. over_rounds: how many rounds lie between these two.
    """
    values = [*before.each, *after.each, *(s for metrics in general or () for s in metrics.each)]
    if any(not math.isfinite(one.jf) for one in values):
        return GateDecision(passed=False, reasons=("a J&F is not a number",))
    try:
        gains = paired.gains(before.each, after.each)
        forgotten = paired.gains(general[0].each, general[1].each) if general else []
    except paired.NotPaired as error:
        return GateDecision(passed=False, reasons=(str(error),))
    videos = len({one.video_id for one in gains})
    if len(gains) < max(1, rule.min_masklets) or videos < rule.min_videos:
        few = f"only {counted(len(gains), 'held-out masklet')} of {counted(videos, 'video')} could be measured"
        return GateDecision(passed=False, reasons=(f"{few}; at least {rule.min_masklets} of {rule.min_videos} needed",))
    gain = paired.gain_of(gains)
    told = (
        f"held-out J&F {100 * before.jf:.1f} -> {100 * after.jf:.1f}: {gain.points}, "
        f"{counted(gain.masklets, 'masklet')} of {counted(gain.videos, 'video')}"
    )
    failed: list[str] = []
    if gain.low <= 0:
        failed.append(f"not clearly better: {told}")
    elif gain.mean < rule.min_gain:
        failed.append(f"gained less than {100 * rule.min_gain:.1f} points: {told}")
    failed += [
        f"clearly worse on {name}: {lost.points}"
        for name, of in paired.by_slice(gains).items()
        if _clearly_lost(lost := paired.gain_of(of), rule.max_slice_loss, _least_videos(name))
    ]
    if forgotten and _clearly_lost(lost := paired.gain_of(forgotten), rule.max_forgotten):
        over = f"{lost.points} over {counted(over_rounds, 'round')}"
        failed.append(f"forgot too much of the general set: {over}, at most {-100 * rule.max_forgotten:.1f}")
    return GateDecision(passed=not failed, reasons=tuple(failed) or (f"better: {told}",), gain=gain)


def publish(*, offered: int, quarantined: int, tables_passed: bool, max_quarantined_share: float) -> GateDecision:
    """Whether the rest of a batch may be published.

    offered: rows before the checks. quarantined: rows that failed a check.
    tables_passed: whether the table checks passed. max_quarantined_share: of the rows offered, in [0, 1].
    Raises ValueError for impossible numbers.
    """
    if not 0 <= quarantined <= offered:
        raise ValueError(f"{counted(quarantined, 'row')} quarantined of {offered} offered")
    failed: list[str] = []
    if offered and quarantined / offered > max_quarantined_share:
        failed.append(f"{quarantined} of {counted(offered, 'row')} quarantined, at most {max_quarantined_share:.0%}")
    if not tables_passed:
        failed.append("the table checks failed")
    if failed:
        return GateDecision(passed=False, reasons=tuple(failed))
    return GateDecision(passed=True, reasons=(f"{offered - quarantined} of {counted(offered, 'row')} pass",))


def _least_videos(name: str) -> int:
    """With how many videos a slice counts. One video tells nothing of chance."""
    return 2 if name.partition("=")[0] in OF_MASKS else LEAST_VIDEOS


def _clearly_lost(change: Change, most: float, least_videos: int = 2) -> bool:
    """Whether more than `most` was lost, and chance does not explain the loss."""
    return change.videos >= least_videos and change.mean < -most and change.high < 0
