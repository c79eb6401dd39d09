"""JSON objects with lists over the annotated frames of a video, written one frame at a time: an hour has many."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO


@dataclass(frozen=True)
class ByFrame:
    """A list with one entry for each annotated frame; an entry exists only while it is needed."""

    frames: int
    of: Callable[[int], Any]  # makes the entry of the frame at this position

    def __iter__(self) -> Iterator[Any]:
        return map(self.of, range(self.frames))


def whole(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The object with all its lists."""
    return {key: list(value) if isinstance(value, ByFrame) else value for key, value in fields.items()}


def write(file: TextIO, fields: Mapping[str, Any]) -> None:
    """Writes what `json.dumps` gives for `whole`."""
    for n, (key, value) in enumerate(fields.items()):
        file.write(f"{', ' if n else '{'}{json.dumps(key)}: ")
        if not isinstance(value, ByFrame):
            file.write(json.dumps(value))
            continue
        for t, entry in enumerate(value):
            file.write(f"{', ' if t else '['}{json.dumps(entry)}")
        file.write("]" if value.frames else "[]")
    file.write("}")
