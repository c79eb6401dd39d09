"""Waiting for a state, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(reached: Callable[[], object], patience_s: float = 60.0) -> None:
    """Returns once `reached` gives a true value. Raises AssertionError after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not reached():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.01)
