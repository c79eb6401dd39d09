"""Whether a checkpoint serves all groups alike: J&F by the values of one column, with intervals and the gap.

A column is a key of the videos' metadata (such as `environment` or `country`), or a group that follows from the masks:
`size`, `motion`, `visible`, `entry` (see `slices`). Source: Ravi et al. 2024, section 7.2 (fairness, at 1 click, 3
clicks and the true mask).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.datasets.labelled import Dataset
from engine.progress import Progress
from engine.protocols import first_frame
from validation import paired
from validation.gate import Metrics
from validation.paired import Change

if TYPE_CHECKING:
    from model.checkpoints import LoadedModel

PROTOCOLS = ("1-click", "3-click", "mask")
LEAST_MASKLETS, LEAST_VIDEOS = 10, 5  # smaller groups do not count for the gap


@dataclass(frozen=True)
class Group:
    """The masklets of one value. jf: J&F in [0, 1] by protocol, with 95 % intervals."""

    value: str
    masklets: int
    videos: int
    jf: Mapping[str, Change]

    @property
    def is_large_enough(self) -> bool:
        return self.masklets >= LEAST_MASKLETS and self.videos >= LEAST_VIDEOS


@dataclass(frozen=True)
class Groups:
    """All groups of a column. gap: by protocol, from the worst to the best of the groups that are large enough."""

    column: str
    groups: tuple[Group, ...]
    gap: Mapping[str, float]  # {}: fewer than two groups are large enough


def measure(data: Dataset, loaded: LoadedModel, column: str, progress: Progress) -> Groups:
    """Measures every group of a column.

    Raises ValueError if no object has the column, and the errors of `first_frame.measure`.
    """
    return grouped({protocol: first_frame.measure(data, loaded, protocol, progress) for protocol in PROTOCOLS}, column)


def grouped(measured: Mapping[str, Metrics], column: str) -> Groups:
    """The groups of a column. measured: by protocol, on the same masklets. Raises ValueError for an unknown column."""
    slices = {protocol: paired.by_slice(metrics.each) for protocol, metrics in measured.items()}
    names = {name for of in slices.values() for name in of}
    values = sorted(name.partition("=")[2] for name in names if name.partition("=")[0] == column)
    if not values:
        known = ", ".join(sorted({name.partition("=")[0] for name in names}))
        raise ValueError(f"no object has the column {column!r}; there are: {known}")
    groups = []
    for value in values:
        jf = {protocol: paired.score_of(of[f"{column}={value}"]) for protocol, of in slices.items()}
        first = next(iter(jf.values()))
        groups.append(Group(value, first.masklets, first.videos, jf))
    told = [group for group in groups if group.is_large_enough]
    gap = {}
    if len(told) > 1:
        for protocol in measured:
            means = [group.jf[protocol].mean for group in told]
            gap[protocol] = max(means) - min(means)
    return Groups(column, tuple(groups), gap)
