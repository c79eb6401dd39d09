"""An error in one line, for messages and logs."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its type if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
