"""The figures that SA-V states of each masklet: derived from its masks, and compared with what a file states."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.records import Masklet

SIZES, LARGE = {"small": 32**2, "medium": 96**2}, "large"  # masklets by mean area, px: below this
CLOSE = 1e-6  # relative: a stated mean area that differs by less is equal


@dataclass(frozen=True, kw_only=True)
class Derived:
    """The fields that SA-V derives from the masks of one masklet."""

    size_abs: float  # px, mean over the frames that show the object
    size_rel: float  # of the frame
    size_bucket: str  # small below 32² px, medium below 96², large
    visibility_changes: int  # between visible and absent, after the first appearance
    first_appeared: int  # index of an annotated frame


def derive(area_px: Sequence[int], height: int, width: int) -> Derived:
    """The derived fields of a masklet. Raises ValueError if no frame shows its object.

    area_px: (T,), of every annotated frame of the video.
    """
    seen = [area > 0 for area in area_px]
    if not any(seen):
        raise ValueError("no frame shows the object: such a masklet has no size and no first frame")
    first = seen.index(True)
    size_abs = sum(area_px) / sum(seen)
    return Derived(
        size_abs=round(size_abs, 10),
        size_rel=round(size_abs / (height * width), 10),
        size_bucket=next((name for name, below in SIZES.items() if size_abs < below), LARGE),
        visibility_changes=sum(a != b for a, b in zip(seen[first:], seen[first + 1 :], strict=False)),
        first_appeared=first,
    )


def differences(annotation: Mapping[str, Any], masklets: Sequence[Masklet]) -> list[str]:
    """Where the figures that a file states differ from those of its masks: one line for each such masklet.

    masklets: of this annotation, in its order. Figures that the file does not state are not compared, and neither are
    masklets that lost frames, rows or columns on their way into the stored video.
    """
    frames = annotation["masklet"]
    size = [annotation.get("video_height"), annotation.get("video_width")]
    lines = []
    for n, row in enumerate(masklets):
        if len(row.frame_idx) != len(frames) or [row.height, row.width] != size or not any(row.area_px):
            continue
        wrong = [text for key, ours in _figures(row) if (text := _differs(annotation, key, n, ours))]
        if wrong:
            lines.append(f"masklet {n}: {'; '.join(wrong)}")
    return lines


def _figures(row: Masklet) -> Iterator[tuple[str, Any]]:
    found = derive(row.area_px, row.height, row.width)
    yield "masklet_size_abs", found.size_abs
    yield "masklet_size_rel", found.size_rel
    yield "masklet_size_bucket", found.size_bucket
    yield "masklet_visibility_changes", found.visibility_changes
    yield "masklet_first_appeared_frame", found.first_appeared
    yield "masklet_frame_count", len(row.frame_idx)


def _differs(annotation: Mapping[str, Any], key: str, n: int, ours: Any) -> str | None:
    stated = annotation.get(key)
    if not isinstance(stated, list) or n >= len(stated) or stated[n] is None:
        return None
    value = stated[n]
    if isinstance(ours, str):
        same = value == ours
    else:
        same = math.isclose(_number(value), ours, rel_tol=CLOSE, abs_tol=CLOSE**2)
    return None if same else f"{key} is {value!r:.40}, its masks give {ours!r}"


def _number(value: Any) -> float:
    """A number that real files write as a text, too; NaN for anything else, which is close to nothing."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
