"""Checks of one masklet: its form, and whether its content can be true.

Pure: knows records and compressed masks. Does not know tables, or what happens to a masklet that fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage import rle
from storage.masklet_rules import TERMS, and_more, at_frame, form_problems
from storage.records import Masklet, Video


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One check that a masklet fails."""

    check: str  # its name: the reason in the table `quarantine`
    detail: str  # one line


def problems(masklet: Masklet, video: Video | None = None) -> list[Problem]:
    """The checks that a masklet fails, each at most once.

    video: the video of the masklet; without it, the checks that need it are left out.
    """
    form = form_problems(masklet)
    details = {
        **form,
        "frames": form.get("frames") or _past_the_end(masklet, video),
        "size": _size(masklet, video),
        **({} if "rle" in form else _areas(masklet)),
        "scores": form.get("scores") or _score_range(masklet),
        "counts": _counts(masklet),
        "terms": _terms(masklet),
    }
    return [Problem(check=check, detail=detail) for check, detail in details.items() if detail is not None]


def _past_the_end(masklet: Masklet, video: Video | None) -> str | None:
    last = masklet.frame_idx[-1] if masklet.frame_idx else -1
    if video is None or last < video.frame_count:
        return None
    return f"frame {last} is past the end of the video, which has {video.frame_count}"


def _size(masklet: Masklet, video: Video | None) -> str | None:
    if video is None or (masklet.height, masklet.width) == (video.height, video.width):
        return None
    return f"masks of {masklet.height} x {masklet.width}, the video is {video.height} x {video.width}"


def _areas(masklet: Masklet) -> dict[str, str | None]:
    """The checks "area" and "empty"; every mask can be decoded."""
    areas = [rle.area(counts, masklet.height, masklet.width) for counts in masklet.rle]
    wrong = [t for t, (a, b) in enumerate(zip(areas, masklet.area_px, strict=False)) if a != b]
    area = None
    if wrong:
        t = wrong[0]
        area = f"{at_frame(masklet, t)}: {masklet.area_px[t]} px, its mask has {areas[t]}{and_more(len(wrong))}"
    return {"area": area, "empty": None if any(areas) else f"the object is in none of {len(masklet.frame_idx)} frames"}


def _score_range(masklet: Masklet) -> str | None:
    for name in ("score", "stability"):
        values = getattr(masklet, name)
        out = [t for t, value in enumerate(values) if not 0 <= value <= 1]
        if out:
            return f"{at_frame(masklet, out[0])}: {name} {values[out[0]]} is not in [0, 1]{and_more(len(out))}"
    return None


def _counts(masklet: Masklet) -> str | None:
    edited, clicks, count = masklet.edited_frame_count, masklet.click_count, len(masklet.frame_idx)
    return None if 0 <= edited <= count and clicks >= 0 else f"{edited} edited frames of {count}, {clicks} clicks"


def _terms(masklet: Masklet) -> str | None:
    for name, words in TERMS.items():
        if getattr(masklet, name) not in words:
            return f"{name} is {getattr(masklet, name)!r}, not one of {', '.join(words)}"
    return None
