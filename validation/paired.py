"""Compares two checkpoints on the same masklets: the mean gain, and how far chance alone could move it.

Masklets of one video are alike, so the bootstrap draws videos, not masklets. Knows nothing of models or rules.
Source: Efron and Tibshirani 1993, chapters 13 and 14 (percentile interval, draws of clusters).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class MaskletJF:
    """J&F of one held-out masklet, in [0, 1]. slices: the groups that it belongs to, as "size=small"."""

    video_id: str
    name: str
    jf: float
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """A mean over masklets with its 95 % interval: of a difference of J&F, of J&F, or of another value."""

    mean: float
    low: float
    high: float
    masklets: int
    videos: int

    @property
    def points(self) -> str:
        """As text, in points: "+3.2 points (95 % interval +1.0 to +5.4)"."""
        return f"{100 * self.mean:+.1f} points (95 % interval {100 * self.low:+.1f} to {100 * self.high:+.1f})"


class NotPaired(ValueError):
    """Two checkpoints were measured on different masklets."""


def gains(before: Iterable[MaskletJF], after: Iterable[MaskletJF]) -> list[MaskletJF]:
    """For each masklet the J&F that the second checkpoint gained, as a `MaskletJF`. Raises NotPaired."""
    old = {(s.video_id, s.name): s.jf for s in before}
    new = list(after)
    if len(new) != len(old) or any((s.video_id, s.name) not in old for s in new):
        raise NotPaired("the two checkpoints were measured on different masklets")
    return [
        MaskletJF(video_id=s.video_id, name=s.name, jf=s.jf - old[s.video_id, s.name], slices=s.slices) for s in new
    ]


def mean_of(measured: Sequence[MaskletJF]) -> Change:
    """The mean over masklets, and its interval by a bootstrap over videos. The same J&F give the same interval.

    Raises ValueError without a masklet.
    """
    return mean_by_video((one.video_id, one.jf) for one in measured)


def mean_by_video(values: Iterable[tuple[str, float]]) -> Change:
    """The mean of values that belong to masklets, and its interval by a bootstrap over videos.

    values: the video and the value of each masklet.  Raises ValueError without one.
    """
    by_video: dict[str, list[float]] = defaultdict(list)
    for video_id, value in values:
        by_video[video_id].append(value)
    if not by_video:
        raise ValueError("no masklet was measured")
    sums = np.array([sum(of) for of in by_video.values()])
    counts = np.array([len(of) for of in by_video.values()])
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Change(float(sums.sum() / counts.sum()), float(low), float(high), int(counts.sum()), len(sums))


def by_slice(measured: Iterable[MaskletJF]) -> Mapping[str, list[MaskletJF]]:
    """The masklets of each slice, by its name, sorted."""
    found: dict[str, list[MaskletJF]] = defaultdict(list)
    for one in measured:
        for name in one.slices:
            found[name].append(one)
    return dict(sorted(found.items()))
