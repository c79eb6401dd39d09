"""Places in a list that is asked for page by page: the value by which the list is ordered, and the ticket there."""

from __future__ import annotations


def cursor(value: float, ticket_id: str) -> str:
    """The text that stands for the place behind this ticket."""
    return f"{value!r}:{ticket_id}"


def place(text: str) -> tuple[float, str]:
    """The value and the ticket of a `cursor`. Raises ValueError for another text."""
    value, _, ticket_id = text.partition(":")
    try:
        return float(value), ticket_id
    except ValueError:
        raise ValueError(f"not a place in a list: {text[:80]!r}") from None
