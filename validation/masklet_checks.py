"""Checks of one masklet, as the reasons that the table `quarantine` gives.

The rules are those of `storage/masklet_rules.py`. Does not know tables, or what happens to a masklet that fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.masklet_rules import Shape, masklet_problems
from storage.records import Masklet


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One check that a masklet fails."""

    check: str  # its name: the reason in the table `quarantine`
    detail: str  # one line


def problems(masklet: Masklet, video: Shape | None = None) -> list[Problem]:
    """The checks that a masklet fails, each at most once.

    video: the video of the masklet; without it, the checks that need it are skipped.
    """
    return [Problem(check=check, detail=detail) for check, detail in masklet_problems(masklet, video).items()]
