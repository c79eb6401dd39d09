"""A process that is killed at one of its writes."""

from __future__ import annotations

from typing import Any

import pytest


class Killed(BaseException):
    """Stands for the end of the process: no `except Exception` catches it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, *writes: tuple[Any, str]) -> list[int]:
    """Counts the calls of these methods. Returns a list of one number, the calls that succeed before one raises Killed.

    The test sets the number; a negative one means that none raises. After the kill, all calls succeed.
    writes: the class and the name of each method.
    """
    left = [-1]

    def killing(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == -1:
                raise Killed
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    for owner, name in writes:
        killing(owner, name)
    return left
