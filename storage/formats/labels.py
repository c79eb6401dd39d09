"""What objects are called in other tools: a masklet's label and attributes. Without a label, it is an "object"."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from storage.masklet_rules import MAX_ATTRIBUTES, MAX_LABEL, attributes_problem
from storage.records import Masklet

FIELD = "masklet_label"  # in SA-V's JSON; imports of before the column `label` kept it in a masklet's metadata
ATTRIBUTES = "masklet_attributes"  # in SA-V's JSON
NONE = "object"


def label_of(masklet: Masklet) -> str:
    """The name of a masklet's class."""
    return masklet.label or _metadata(masklet).get(FIELD) or NONE


def attributes_of(masklet: Masklet) -> dict[str, Any]:
    """The attributes of a masklet, by name; empty if it has none."""
    found = json.loads(masklet.attributes or "{}")
    return found if isinstance(found, dict) else {}


def attributes_field(masklet: Masklet) -> dict[str, Any]:
    """The key "attributes" of formats in COCO's style, only for a masklet that has attributes."""
    found = attributes_of(masklet)
    return {"attributes": found} if found else {}


def sav_fields(masklet: Masklet) -> dict[str, Any]:
    """The keys of SA-V's JSON that say a masklet's label and attributes, only if they are set."""
    attributes = attributes_of(masklet)
    return ({FIELD: masklet.label} if masklet.label else {}) | ({ATTRIBUTES: attributes} if attributes else {})


def from_sav_fields(masklet: Masklet) -> Masklet:
    """A masklet of SA-V's JSON with the label and the attributes that its metadata say, if they are valid."""
    found = _metadata(masklet)
    text = attributes_text(found.get(ATTRIBUTES, {}))
    label = found.get(FIELD, "")[:MAX_LABEL] or None
    return replace(masklet, label=label, attributes=text)


def attributes_text(found: object) -> str | None:
    """Attributes as a masklet keeps them, without those that it cannot keep; None if none is left."""
    if not isinstance(found, dict):
        return None
    kept = {str(name): value for name, value in found.items() if not attributes_problem(json.dumps({name: value}))}
    return json.dumps(dict(list(kept.items())[:MAX_ATTRIBUTES]), sort_keys=True) if kept else None


def constant(shapes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The attributes that are the same on every frame that has them: they are of the object, not of a frame.

    shapes: the attributes of the object on each frame, by name.
    """
    values: dict[str, list[Any]] = {}
    for of_frame in shapes:
        for name, value in of_frame.items():
            values.setdefault(str(name), []).append(value)
    return {name: found[0] for name, found in values.items() if all(value == found[0] for value in found)}


def _metadata(masklet: Masklet) -> dict[str, Any]:
    """A masklet's metadata; its label only if it is a text with a letter."""
    try:
        found = json.loads(masklet.source_metadata or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    label = found.get(FIELD)
    usable = isinstance(label, str) and label.strip()
    return found if usable else {key: value for key, value in found.items() if key != FIELD}


class Categories:
    """The categories of a file in COCO's style: numbered from 1 in the order in which they are asked for."""

    more: Mapping[str, str] = {"supercategory": NONE}  # what each row has besides its id and its name

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def id_of(self, label: str) -> int:
        return self._ids.setdefault(label, len(self._ids) + 1)

    def later(self) -> Iterator[dict[str, Any]]:
        """Their rows: begin to read these after the last question."""
        for name, n in self._ids.items():
            yield {"id": n, "name": name, **self.more}
