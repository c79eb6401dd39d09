"""How the masklets of one video relate: which show the same object, and which show a part of another one's object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from storage import iou
from storage.records import Masklet

TOGETHER = 0.5  # of the shorter masklet's visible frames: so many must show both


@dataclass(frozen=True)
class Relation:
    """Two masklets over all frames. Shares in [0, 1]."""

    iou: float  # all frames together
    iou_together: float  # the frames that show both together; 0 if these are too few
    first_inside: float  # of the first one's pixels on these frames, those inside the second one
    second_inside: float

    def same(self, least: float) -> bool:
        """Whether both show one object. It may be that one of them lacks some of the frames."""
        return self.iou > least or self.iou_together > least


def relation(a: Masklet, b: Masklet) -> Relation | None:
    """How two masklets of one video relate; None if no pixel is in both."""
    if a.frame_idx[-1] < b.frame_idx[0] or b.frame_idx[-1] < a.frame_idx[0]:  # most pairs of a long video
        return None
    shared = iou.shared_px(a, b)
    if not any(shared.values()):
        return None
    areas_a, areas_b = (dict(zip(m.frame_idx, m.area_px, strict=True)) for m in (a, b))
    both = sum(shared.values())
    all_a, all_b = sum(areas_a.values()), sum(areas_b.values())
    seen = min(sum(map(bool, areas.values())) for areas in (areas_a, areas_b))
    if len(shared) < TOGETHER * seen:
        return Relation(both / (all_a + all_b - both), 0.0, 0.0, 0.0)
    some_a, some_b = (sum(areas[f] for f in shared) for areas in (areas_a, areas_b))
    return Relation(both / (all_a + all_b - both), both / (some_a + some_b - both), both / some_a, both / some_b)


def without_duplicates(rows: Sequence[Masklet], least: float) -> list[Masklet]:
    """Of masklets that show one object, the best stays: visible on the most frames, with the best scores. Keeps order.

    least: IoU above which masklets show one object.
    """
    kept: list[Masklet] = []
    for row in sorted(rows, key=lambda m: -_worth(m)):
        found = (relation(row, other) for other in kept)
        if not any(each is not None and each.same(least) for each in found):
            kept.append(row)
    order = {row.masklet_id: i for i, row in enumerate(rows)}
    return sorted(kept, key=lambda m: order[m.masklet_id])


def with_parents(rows: Sequence[Masklet], inside: float) -> list[Masklet]:
    """The masklets, each part with the id of its whole: the smallest other masklet that it is inside of.

    inside: share of a part's pixels that are inside the whole.
    """
    wholes: dict[str, Masklet] = {}
    sizes = {row.masklet_id: float(np.mean([a for a in row.area_px if a] or [0])) for row in rows}

    def consider(part: Masklet, whole: Masklet, share: float) -> None:
        size, known = sizes[whole.masklet_id], wholes.get(part.masklet_id)
        if share >= inside and size > sizes[part.masklet_id]:
            if known is None or size < sizes[known.masklet_id]:
                wholes[part.masklet_id] = whole

    for i, first in enumerate(rows):
        for second in rows[i + 1 :]:
            if (found := relation(first, second)) is not None:
                consider(first, second, found.first_inside)
                consider(second, first, found.second_inside)
    return [
        replace(row, parent_id=wholes[row.masklet_id].masklet_id) if row.masklet_id in wholes else row for row in rows
    ]


def _worth(row: Masklet) -> float:
    """The sum of the estimated IoU over the frames that show the object."""
    return sum(score for score, area in zip(row.score, row.area_px, strict=True) if area)
