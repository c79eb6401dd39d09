"""What makes a masklet valid: the one list of these rules.

The queue rejects a masklet that breaks one of them, and publishing quarantines it. Knows one masklet and the size and
length of its video. Does not know what happens to a masklet that fails.
"""

from __future__ import annotations

import json
import math
from typing import Protocol

from storage import rle
from storage.records import STRIDE, Masklet
from storage.wording import counted

#: The words that a masklet's fields may have.
TERMS = {"kind": ("auto", "manual"), "phase": ("auto", "1", "2", "3"), "split": ("train", "val", "test")}
#: The names of the rules, and what each one asks.
RULES = {
    "lists": "the lists over its frames have the same length, at least 1",
    "frames": f"its frames are every {STRIDE}th of the stored video, in order, and not past its end",
    "scores": "its scores are finite, and in [0, 1] where they are estimates",
    "size": "its masks have the size of the video",
    "rle": "its masks are well-formed COCO run lengths",
    "area": "its areas are those of its masks",
    "empty": "at least one frame shows the object",
    "counts": "it has no more edited frames than frames, and no negative counts",
    "round": "its round is a valid number",
    "terms": "kind, phase and split are known words",
    "label": "its label is a short text, and its attributes are a JSON object of short values",
}
MAX_LABEL = 200  # characters of a label, and of the name and the text of an attribute
MAX_ATTRIBUTES = 100
MAX_COUNT = 2**31 - 1  # of every whole number in a masklet: the type of its columns


class VideoExtent(Protocol):
    """What the rules need to know of a video."""

    @property
    def height(self) -> int:
        """px."""

    @property
    def width(self) -> int:
        """px."""

    @property
    def frame_count(self) -> int:
        """Frames of the stored video."""


def masklet_problems(masklet: Masklet, video: VideoExtent | None = None) -> dict[str, str]:
    """The rules that a masklet breaks, by name, each with one line about what is wrong. Empty for a valid masklet.

    video: the masklet's video. Without it, the rules that need it are skipped.
    A masklet with more masks than the video has annotated frames is rejected before any mask is decoded.
    """
    if video is not None and (too_many := _too_many(masklet, video)):
        return {"frames": too_many}
    found = {
        "lists": list_problem(masklet),
        "frames": _frames(masklet) or _past_the_end(masklet, video),
        "scores": _scores(masklet) or _score_range(masklet),
        "size": _size(masklet, video),
        **_masks(masklet),
        "counts": _counts(masklet),
        "round": _round(masklet),
        "terms": _terms(masklet),
        "label": _label(masklet) or attributes_problem(masklet.attributes),
    }
    return {check: detail for check, detail in found.items() if detail is not None}


def at_frame(masklet: Masklet, t: int) -> str:
    """Names mask t in a message."""
    return f"frame {masklet.frame_idx[t]}" if t < len(masklet.frame_idx) else f"mask {t}"


def and_more(count: int) -> str:
    """The end of a message that names only the first of `count` problems."""
    return f" (and {count - 1} more)" if count > 1 else ""


def list_problem(masklet: Masklet) -> str | None:
    """What is wrong with the lengths of a masklet's lists, in one line."""
    count = len(masklet.frame_idx)
    if not count:
        return "no frames"
    names = ("rle", "area_px", "score", "object_score", "stability")
    odd = {name: len(getattr(masklet, name)) for name in names if len(getattr(masklet, name)) != count}
    return (
        f"{counted(count, 'frame')}, but {', '.join(f'{name} {length}' for name, length in odd.items())}"
        if odd
        else None
    )


def attributes_problem(text: str | None) -> str | None:
    """What is wrong with the attributes of an object, in one line. text: JSON; None stands for no attributes."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return f"its attributes are not a JSON object: {text!r:.80}"
    if len(found) > MAX_ATTRIBUTES:
        return f"it has {counted(len(found), 'attribute')}, at most {MAX_ATTRIBUTES} are kept"
    for name, value in found.items():
        if not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
            return f"its attribute {name!r:.80} is not a text, a number, true or false"
        if max(len(name), len(str(value))) > MAX_LABEL:
            return f"its attribute {name!r:.80} is longer than {MAX_LABEL} characters"
    return None


def _label(masklet: Masklet) -> str | None:
    label = masklet.label
    if label is None or (label.strip() and len(label) <= MAX_LABEL):
        return None
    return f"its label {label!r:.80} is empty, or longer than {MAX_LABEL} characters"


def _frames(masklet: Masklet) -> str | None:
    before = -1
    for frame_idx in masklet.frame_idx:
        if frame_idx < 0:
            return f"frame {frame_idx} is negative"
        if frame_idx <= before:
            return f"frame {frame_idx} comes after frame {before}"
        if frame_idx % STRIDE:
            return f"frame {frame_idx} is not an annotated frame: those are every {STRIDE}th"
        before = frame_idx
    return None


def _too_many(masklet: Masklet, video: VideoExtent) -> str | None:
    most, count = -(-video.frame_count // STRIDE), max(len(masklet.frame_idx), len(masklet.rle))
    return f"{counted(count, 'frame')}, the video has {counted(most, 'annotated frame')}" if count > most else None


def _past_the_end(masklet: Masklet, video: VideoExtent | None) -> str | None:
    last = masklet.frame_idx[-1] if masklet.frame_idx else -1
    if video is None:
        return f"frame {last} is past the end of any video" if last > MAX_COUNT else None
    if last < video.frame_count:
        return None
    return f"frame {last} is past the end of the video, which has {video.frame_count}"


def _size(masklet: Masklet, video: VideoExtent | None) -> str | None:
    if video is None or (masklet.height, masklet.width) == (video.height, video.width):
        return None
    return f"masks of {masklet.height} x {masklet.width}, the video is {video.height} x {video.width}"


def _masks(masklet: Masklet) -> dict[str, str | None]:
    """The rules "rle", "area" and "empty": each mask is decoded once."""
    areas: list[int] = []
    broken: list[str] = []
    for t, counts in enumerate(masklet.rle):
        try:
            areas.append(rle.area(counts, masklet.height, masklet.width))
        except rle.BadRle as error:
            broken.append(f"{at_frame(masklet, t)}: {error}")
    if broken:
        return {"rle": broken[0] + and_more(len(broken))}
    wrong = [t for t, (a, b) in enumerate(zip(areas, masklet.area_px, strict=False)) if a != b]
    area = None
    if wrong:
        t = wrong[0]
        area = f"{at_frame(masklet, t)}: {masklet.area_px[t]} px, its mask has {areas[t]}{and_more(len(wrong))}"
    return {"area": area, "empty": None if any(areas) else f"the object is in none of {counted(len(areas), 'frame')}"}


def _scores(masklet: Masklet) -> str | None:
    for name in ("score", "object_score", "stability"):
        strange = [t for t, value in enumerate(getattr(masklet, name)) if not math.isfinite(value)]
        if strange:
            return f"{at_frame(masklet, strange[0])}: {name} is not finite{and_more(len(strange))}"
    return None


def _score_range(masklet: Masklet) -> str | None:
    for name in ("score", "stability"):
        values = getattr(masklet, name)
        out = [t for t, value in enumerate(values) if not 0 <= value <= 1]
        if out:
            return f"{at_frame(masklet, out[0])}: {name} {values[out[0]]} is not in [0, 1]{and_more(len(out))}"
    return None


def _counts(masklet: Masklet) -> str | None:
    edited, clicks, count = masklet.edited_frame_count, masklet.click_count, len(masklet.frame_idx)
    valid = 0 <= edited <= count and 0 <= clicks <= MAX_COUNT
    return None if valid else f"{counted(edited, 'edited frame')} of {count}, {counted(clicks, 'click')}"


def _round(masklet: Masklet) -> str | None:
    return None if 0 <= masklet.round <= MAX_COUNT else f"round {masklet.round} is not between 0 and {MAX_COUNT}"


def _terms(masklet: Masklet) -> str | None:
    for name, words in TERMS.items():
        if getattr(masklet, name) not in words:
            return f"{name} is {getattr(masklet, name)!r}, not one of {', '.join(words)}"
    return None
