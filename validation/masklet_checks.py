"""Checks of one masklet, and of ids that come twice, as the reasons that the table `quarantine` gives.

The rules are those of `storage/masklet_rules.py`. Does not know tables, or what happens to a masklet that fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage.masklet_rules import VideoExtent, masklet_problems
from storage.records import Masklet

REPEATED = "repeated"  # the check that `repeats` is


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One check that a masklet fails."""

    check: str  # its name: the reason in the table `quarantine`
    detail: str  # one line


def problems(masklet: Masklet, video: VideoExtent | None = None) -> list[Problem]:
    """The checks that a masklet fails, each at most once.

    video: the video of the masklet; without it, the checks that need it are skipped.
    """
    return [Problem(check=check, detail=detail) for check, detail in masklet_problems(masklet, video).items()]


def repeats(ids: Mapping[int, str], published: Mapping[str, str]) -> dict[int, Problem]:
    """The masklets whose id is taken: place of the row -> problem. Of several new ones with one id, the first is free.

    ids: place of a row -> masklet_id, in order. published: masklet_id -> the batch that published it.
    """
    found: dict[int, Problem] = {}
    seen: set[str] = set()
    for place, masklet_id in ids.items():
        if masklet_id in published:
            detail = f"batch {published[masklet_id]} has published a masklet with this id"
            found[place] = Problem(check=REPEATED, detail=detail)
        elif masklet_id in seen:
            found[place] = Problem(check=REPEATED, detail="an earlier row of the batch has this id")
        seen.add(masklet_id)
    return found
