"""Checks of one masklet, mask by mask: what must hold before anybody trusts it.

Pure: knows records and RLE, nothing about tables or what happens to a masklet that fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from storage import rle
from storage.records import STRIDE, Masklet, Video


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One check that a masklet fails."""

    check: str  # "lists", "frames", "size", "rle", "area", "empty", "scores", "counts", "terms": the reason
    detail: str  # one line


TERMS = {"kind": ("auto", "manual"), "phase": ("auto", "1", "2", "3"), "split": ("train", "val", "test")}


def check(masklet: Masklet, video: Video | None = None) -> list[Problem]:
    """What is wrong with a masklet, at most one problem a check; nothing is wrong with an empty list.

    video: the one it is of; None leaves out what only the video can tell.
    """
    return [Problem(check=name, detail=detail) for name, detail in _problems(masklet, video)]


def _problems(masklet: Masklet, video: Video | None) -> Iterator[tuple[str, str]]:
    count = len(masklet.frame_idx)
    lists = ("rle", "area_px", "score", "object_score", "stability")
    odd = {name: len(getattr(masklet, name)) for name in lists if len(getattr(masklet, name)) != count}
    if odd or not count:
        found = ", ".join(f"{name} {length}" for name, length in odd.items())
        yield "lists", f"{count} frames, but {found}" if count else "no frames"
    if (detail := _frames(masklet, video)) is not None:
        yield "frames", detail
    height, width = masklet.height, masklet.width
    if video is not None and (height, width) != (video.height, video.width):
        yield "size", f"masks of {height} x {width}, the video is {video.height} x {video.width}"
    broken = [(t, problem) for t, counts in enumerate(masklet.rle) if (problem := rle.check(counts, height, width))]
    if broken:
        t, problem = broken[0]
        yield "rle", f"{_at(masklet, t)}: {problem}{_more(len(broken))}"
    else:
        areas = [rle.area(counts, height, width) for counts in masklet.rle]
        wrong = [t for t, (a, b) in enumerate(zip(areas, masklet.area_px, strict=False)) if a != b]
        if wrong:
            t = wrong[0]
            yield "area", f"{_at(masklet, t)}: {masklet.area_px[t]} px, its mask has {areas[t]}{_more(len(wrong))}"
        if not any(areas):
            yield "empty", f"the object is in none of {count} frames"
    for name in ("score", "object_score", "stability"):
        strange = [t for t, value in enumerate(getattr(masklet, name)) if not math.isfinite(value)]
        if strange:
            yield "scores", f"{_at(masklet, strange[0])}: {name} is not finite{_more(len(strange))}"
            break
    else:
        for name in ("score", "stability"):
            out = [t for t, value in enumerate(getattr(masklet, name)) if not 0 <= value <= 1]
            if out:
                value = getattr(masklet, name)[out[0]]
                yield "scores", f"{_at(masklet, out[0])}: {name} {value} is not in [0, 1]{_more(len(out))}"
                break
    if not 0 <= masklet.edited_frame_count <= count or masklet.click_count < 0:
        edited, clicks = masklet.edited_frame_count, masklet.click_count
        yield "counts", f"{edited} edited frames of {count}, {clicks} clicks"
    for name, words in TERMS.items():
        if getattr(masklet, name) not in words:
            yield "terms", f"{name} is {getattr(masklet, name)!r}, not one of {', '.join(words)}"
            break


def _frames(masklet: Masklet, video: Video | None) -> str | None:
    before = -1
    for frame_idx in masklet.frame_idx:
        if frame_idx <= before:
            return f"frame {frame_idx} comes after frame {before}"
        if frame_idx % STRIDE:
            return f"frame {frame_idx} is not an annotated frame: those are every {STRIDE}th"
        before = frame_idx
    if video is not None and before >= video.frame_count:
        return f"frame {before} is past the end of the video, which has {video.frame_count}"
    return None


def _at(masklet: Masklet, t: int) -> str:
    return f"frame {masklet.frame_idx[t]}" if t < len(masklet.frame_idx) else f"mask {t}"


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
