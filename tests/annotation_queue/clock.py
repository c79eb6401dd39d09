"""A clock for tests."""

from __future__ import annotations


class Clock:
    """A clock that moves only when a test calls `advance`."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
