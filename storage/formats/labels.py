"""What objects are called in other tools: the name that an imported masklet brought with it, otherwise "object"."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from storage.records import Masklet

FIELD = "masklet_label"  # in a masklet's metadata; also SA-V's JSON gets it
NONE = "object"


def label_of(masklet: Masklet) -> str:
    """The name of a masklet's class."""
    try:
        found = json.loads(masklet.source_metadata or "{}")
    except ValueError:
        return NONE
    label = found.get(FIELD) if isinstance(found, dict) else None
    return label if isinstance(label, str) and label.strip() else NONE


class Categories:
    """The categories of a file in COCO's style: numbered from 1 in the order in which they are asked for."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def id_of(self, label: str) -> int:
        return self._ids.setdefault(label, len(self._ids) + 1)

    def later(self) -> Iterator[dict[str, Any]]:
        """Their rows: begin to read these after the last question."""
        for name, n in self._ids.items():
            yield {"id": n, "name": name, "supercategory": NONE}
