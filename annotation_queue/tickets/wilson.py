"""Proportions with their confidence interval. Pure."""

from __future__ import annotations

from math import sqrt

from annotation_queue.figure_records import Proportion


def wilson(right: int, of: int) -> Proportion:
    """A proportion with its 95 % confidence interval. Source: Wilson 1927, the score interval."""
    if not of:
        return Proportion(right=0, of=0, low=0.0, high=1.0)
    z = 1.959964
    p, weight = right / of, 1 + z * z / of
    centre = (p + z * z / (2 * of)) / weight
    half = z / weight * sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return Proportion(right=right, of=of, low=max(0.0, centre - half), high=min(1.0, centre + half))
