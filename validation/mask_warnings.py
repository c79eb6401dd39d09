"""What looks wrong in the masks of a masklet, though it is valid: flicker, ghosts, jumps, specks, holes.

Each check says on which frames. They are hints for people, never a reason to refuse what people verified: a ball that
flies past is a ghost, too. Knows one masklet, or the masklets of a release one at a time.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from storage import iou, rle
from storage.blobs.base import BlobError
from storage.dataset.batch_manifests import ReleaseError
from storage.dataset.releases import Release
from storage.masklet_rules import list_problem
from storage.pixels import Mask, box_of
from storage.records import STRIDE, Masklet
from storage.wording import counted

CHECKS = {
    "flicker": "the object is absent for a moment, and comes back where it was",
    "ghost": "the object is visible for a moment, between frames where it is absent",
    "jump": "from one annotated frame to the next, the object is far away, or much larger or smaller",
    "specks": "a mask has small parts beside its largest one",
    "holes": "a mask has small holes",
}
_SAME_PLACE = 0.25  # least IoU of the masks before and after a flicker: the object may move meanwhile
_LEAST_PX = 4  # a speck or a hole below this area is one at every size of frame
_EXAMPLES = 5
_SHOWN = 5  # frames in a line


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When masks look wrong. A threshold of 0 switches its check off."""

    flicker_frames: int = 1  # longest absence, in annotated frames (6 a second)
    ghost_frames: int = 1  # longest appearance, in annotated frames
    jump_share: float = 0.25  # least move of the centre between two annotated frames, of the frame's diagonal
    jump_area: float = 3.0  # least factor between the areas of two neighbouring masks that touch no border
    speck_share: float = 0.00014  # largest speck, of the frame's area: 200 px at SA-V's mean size
    hole_share: float = 0.00014  # largest hole, of the frame's area


@dataclass(frozen=True, kw_only=True)
class MaskWarning:
    """One check that found something in a masklet."""

    check: str  # a key of CHECKS
    frame_idx: tuple[int, ...]  # where, ascending

    @property
    def detail(self) -> str:
        """`frames 8, 20`"""
        shown = ", ".join(map(str, self.frame_idx[:_SHOWN]))
        more = f" and {len(self.frame_idx) - _SHOWN} more" if len(self.frame_idx) > _SHOWN else ""
        return f"{'frame' if len(self.frame_idx) == 1 else 'frames'} {shown}{more}"


@dataclass
class Summary:
    """What the checks found in many masklets."""

    checked: int = 0  # masklets
    masklets: Counter[str] = field(default_factory=Counter)  # by check
    frames: Counter[str] = field(default_factory=Counter)  # by check
    examples: dict[str, list[str]] = field(default_factory=dict)  # check -> lines about the first masklets

    def lines(self) -> list[str]:
        """One line for each check that found something."""
        found = []
        for check in CHECKS:
            if self.masklets[check]:
                where = f"{counted(self.masklets[check], 'masklet')}, {counted(self.frames[check], 'frame')}"
                found.append(f"{check}: {where}, such as {self.examples[check][0]} ({CHECKS[check]})")
        return found


@dataclass(frozen=True)
class _Shown:
    """A visible mask."""

    place: int  # number of the annotated frame
    mask: Mask
    area: int
    centre_xy: tuple[float, float]
    at_border: bool


def warnings(masklet: Masklet, thresholds: Thresholds) -> list[MaskWarning]:
    """What looks wrong in a masklet. Raises BadRle for malformed masks, ValueError for lists of different lengths."""
    if problem := list_problem(masklet):
        raise ValueError(f"masklet {masklet.masklet_id}: {problem}")
    found: dict[str, set[int]] = {check: set() for check in CHECKS}
    first, last = masklet.frame_idx[0] // STRIDE, masklet.frame_idx[-1] // STRIDE
    speck_px, hole_px = (_area(share, masklet) for share in (thresholds.speck_share, thresholds.hole_share))
    before: _Shown | None = None
    run = 0  # where the current appearance began
    for shown in _visible(masklet):
        if before is None or shown.place - before.place > 1:
            absent = 0 if before is None else shown.place - before.place - 1
            if before is not None and 0 < absent <= thresholds.flicker_frames:
                if iou.mask_iou(before.mask, shown.mask) >= _SAME_PLACE:
                    found["flicker"].update(range(before.place + 1, shown.place))
            if before is not None:
                found["ghost"].update(_ghost(run, before.place, first, last, thresholds))
            run = shown.place
        elif _jumps(before, shown, masklet, thresholds, speck_px):
            found["jump"].add(shown.place)
        if thresholds.speck_share and _has_specks(shown.mask, speck_px):
            found["specks"].add(shown.place)
        if thresholds.hole_share and _has_holes(shown.mask, hole_px):
            found["holes"].add(shown.place)
        before = shown
    if before is not None:
        found["ghost"].update(_ghost(run, before.place, first, last, thresholds))
    found["ghost"] -= {place for place in found["ghost"] if {place - 1, place + 1} & found["flicker"]}
    return [
        MaskWarning(check=check, frame_idx=tuple(place * STRIDE for place in sorted(places)))
        for check, places in found.items()
        if places
    ]


def summary(masklets: Iterable[Masklet], thresholds: Thresholds) -> Summary:
    """What the checks find in these masklets, one at a time. Invalid ones are skipped: `masklet_checks` names them."""
    result = Summary()
    for masklet in masklets:
        try:
            found = warnings(masklet, thresholds)
        except ValueError:
            continue
        result.checked += 1
        for warning in found:
            result.masklets[warning.check] += 1
            result.frames[warning.check] += len(warning.frame_idx)
            examples = result.examples.setdefault(warning.check, [])
            if len(examples) < _EXAMPLES:
                examples.append(f"{masklet.masklet_id}, {warning.detail}")
    return result


def of_release(release: Release, thresholds: Thresholds, most: int | None = None) -> Summary:
    """What the checks find in a release. Files that cannot be read are skipped: `release_checks` names them.

    most: look at this many masklets at most, evenly spread over the release; None: all.
    """

    def rows() -> Iterator[Masklet]:
        for file in release.files("masklets"):
            try:
                yield from release.rows(Masklet, file)
            except (BlobError, ReleaseError):
                continue

    step = 1 if most is None else max(1, math.ceil(int(release.counts["masklets"]) / most))
    return summary(itertools.islice(rows(), 0, None, step), thresholds)


def as_json(found: Summary) -> dict[str, dict[str, Any]]:
    """For programs."""
    return {
        check: {"masklets": found.masklets[check], "frames": found.frames[check], "examples": found.examples[check]}
        for check in CHECKS
        if found.masklets[check]
    }


def _visible(masklet: Masklet) -> Iterator[_Shown]:
    """The masks that are not empty, in order."""
    for frame_idx, counts in zip(masklet.frame_idx, masklet.rle, strict=True):
        mask = rle.decode(counts, masklet.height, masklet.width)
        if (box := box_of(mask)) is None:
            continue
        x0, y0, x1, y1 = box
        part = mask[y0:y1, x0:x1]
        area = int(np.count_nonzero(part))
        columns, rows = part.sum(0), part.sum(1)
        centre = (
            x0 + float(columns @ np.arange(len(columns))) / area,
            y0 + float(rows @ np.arange(len(rows))) / area,
        )
        at_border = x0 == 0 or y0 == 0 or x1 == masklet.width or y1 == masklet.height
        yield _Shown(frame_idx // STRIDE, mask, area, centre, at_border)


def _ghost(start: int, end: int, first: int, last: int, thresholds: Thresholds) -> range:
    """The frames of an appearance, if it is short and the object is absent before and after it."""
    short = end - start + 1 <= thresholds.ghost_frames
    return range(start, end + 1) if short and start > first and end < last else range(0)


def _jumps(before: _Shown, after: _Shown, masklet: Masklet, thresholds: Thresholds, speck_px: int) -> bool:
    """Whether the object is far away from where it was, or has another size."""
    if thresholds.jump_share:
        (x0, y0), (x1, y1) = before.centre_xy, after.centre_xy
        least = thresholds.jump_share * math.hypot(masklet.height, masklet.width)
        if math.hypot(x1 - x0, y1 - y0) >= least and not (before.mask & after.mask).any():
            return True
    if not thresholds.jump_area or before.at_border or after.at_border:  # it may be entering or leaving
        return False
    small, large = sorted((before.area, after.area))
    return large >= thresholds.jump_area * small and large > 4 * speck_px  # a few pixels double soon


def _has_specks(mask: Mask, speck_px: int) -> bool:
    """Whether a part other than the largest is small. Parts are 8-connected."""
    areas = _part_areas(mask)
    return len(areas) > 1 and bool(np.any(np.sort(areas)[:-1] < speck_px))


def _has_holes(mask: Mask, hole_px: int) -> bool:
    """Whether a small part of the background is enclosed. Parts are 8-connected."""
    box = box_of(mask)
    assert box is not None
    x0, y0, x1, y1 = box
    outside = np.pad(~mask[y0:y1, x0:x1], 1, constant_values=True)
    _, _, stats, _ = cv2.connectedComponentsWithStats(outside.astype(np.uint8), connectivity=8)
    holes = stats[1:][(stats[1:, cv2.CC_STAT_LEFT] > 0)]  # the rim around the box belongs to the outside
    return bool(np.any(holes[:, cv2.CC_STAT_AREA] < hole_px))


def _part_areas(mask: Mask) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    box = box_of(mask)
    assert box is not None
    x0, y0, x1, y1 = box
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask[y0:y1, x0:x1].astype(np.uint8), connectivity=8)
    return np.asarray(stats[1:, cv2.CC_STAT_AREA], np.int64)


def _area(share: float, masklet: Masklet) -> int:
    """A share of the frame in pixels."""
    return max(_LEAST_PX, round(share * masklet.height * masklet.width))
