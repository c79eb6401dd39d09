"""Progress of long work: two kinds of callable by which it reports to its caller, such as the command line.

Knows nothing about terminals.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]  # number done, total, name of the item just done
Tell = Callable[[str], None]  # one line about what is being done


def ignore(line: str) -> None:
    """A `Tell` for callers that do not listen."""


def prefixed(progress: Progress, label: str) -> Progress:
    """The same progress with `label` before each name."""
    return lambda done, total, name: progress(done, total, f"{label}, {name}")
