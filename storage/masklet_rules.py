"""The form that every masklet has: its lists agree, its masks can be read. The one list of these rules.

The queue refuses a masklet that breaks one of them. `validation/masklet_checks.py` adds the rules about its content.
Knows one masklet. Does not know its video, or what happens to a masklet that is refused.
"""

from __future__ import annotations

import math

from storage import rle
from storage.records import STRIDE, Masklet

#: The words that a masklet's fields may have.
TERMS = {"kind": ("auto", "manual"), "phase": ("auto", "1", "2", "3"), "split": ("train", "val", "test")}


def form_problems(masklet: Masklet) -> dict[str, str]:
    """Check -> one line about what is wrong: "lists", "frames", "rle", "scores". Empty for a masklet of valid form."""
    found = {
        "lists": _lists(masklet),
        "frames": _frames(masklet),
        "rle": _rle(masklet),
        "scores": _scores(masklet),
    }
    return {check: detail for check, detail in found.items() if detail is not None}


def at_frame(masklet: Masklet, t: int) -> str:
    """Names mask t in a message."""
    return f"frame {masklet.frame_idx[t]}" if t < len(masklet.frame_idx) else f"mask {t}"


def and_more(count: int) -> str:
    """The end of a message that names only the first of `count` problems."""
    return f" (and {count - 1} more)" if count > 1 else ""


def _lists(masklet: Masklet) -> str | None:
    count = len(masklet.frame_idx)
    if not count:
        return "no frames"
    names = ("rle", "area_px", "score", "object_score", "stability")
    odd = {name: len(getattr(masklet, name)) for name in names if len(getattr(masklet, name)) != count}
    return f"{count} frames, but {', '.join(f'{name} {length}' for name, length in odd.items())}" if odd else None


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


def _rle(masklet: Masklet) -> str | None:
    problems = ((t, rle.problem(counts, masklet.height, masklet.width)) for t, counts in enumerate(masklet.rle))
    broken = [(t, problem) for t, problem in problems if problem is not None]
    return f"{at_frame(masklet, broken[0][0])}: {broken[0][1]}{and_more(len(broken))}" if broken else None


def _scores(masklet: Masklet) -> str | None:
    for name in ("score", "object_score", "stability"):
        strange = [t for t, value in enumerate(getattr(masklet, name)) if not math.isfinite(value)]
        if strange:
            return f"{at_frame(masklet, strange[0])}: {name} is not finite{and_more(len(strange))}"
    return None
