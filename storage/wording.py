"""Counts with their noun, for messages."""

from __future__ import annotations

_PLURALS = {"batch": "batches", "class": "classes", "person": "people"}


def counted(count: int, noun: str) -> str:
    """`1 video`, `2 videos`. An adjective stands in front: `counted(2, "new file")`."""
    return f"{count} {noun}" if count == 1 else f"{count} {_PLURALS.get(noun, noun + 's')}"
