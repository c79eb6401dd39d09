"""The masklets that tickets are about. Rows are never changed; only a take-back removes one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from annotation_queue import schema
from annotation_queue.tickets.rows import MASKLET, labelled
from storage.records import Masklet


def content(c: Connection, batch_id: str, masklet_id: str | None) -> str | None:
    """A masklet as JSON of its record, or None if the batch has none of this id."""
    m = schema.masklets
    return c.scalar(select(m.c.content).where(m.c.batch_id == batch_id, m.c.masklet_id == masklet_id))


def of_ticket(c: Connection, row: Row[Any]) -> Masklet | None:
    """The masklet that a ticket is about."""
    text = content(c, row.batch_id, row.masklet_id)
    return None if text is None else labelled(MASKLET.validate_json(text), row)


def seen_on(c: Connection, batch_id: str, masklet_id: str | None) -> set[int]:
    """frame_idx of the frames that show the object of a masklet; empty if the batch has none of this id."""
    text = content(c, batch_id, masklet_id)
    made = {"frame_idx": [], "area_px": []} if text is None else json.loads(text)
    return {i for i, area in zip(made["frame_idx"], made["area_px"], strict=True) if area}


def label(c: Connection, batch_id: str, masklet_id: str | None) -> dict[str, str | None]:
    """The columns `label` and `attributes` of a ticket about a masklet, as it was made; both None without one."""
    text = content(c, batch_id, masklet_id)
    found = {} if text is None else json.loads(text)
    return {name: found.get(name) for name in ("label", "attributes")}


def add(c: Connection, batch_id: str, masklets: Sequence[Masklet], now: float) -> None:
    """Store masklets; those that the batch has already are skipped.

    Raises ValueError if the batch has a different masklet of the same id.
    """
    for masklet in masklets:
        text = MASKLET.dump_json(masklet).decode()
        stored = content(c, batch_id, masklet.masklet_id)
        if stored is None:
            row = {"batch_id": batch_id, "masklet_id": masklet.masklet_id, "content": text, "created_at": now}
            c.execute(insert(schema.masklets).values(**row))
        elif stored != text and MASKLET.validate_json(stored) != masklet:  # an earlier version wrote fewer fields
            raise ValueError(f"batch {batch_id} has a different masklet {masklet.masklet_id} already")


def remove(c: Connection, batch_id: str, masklet_id: str) -> None:
    """Remove a masklet, for a take-back."""
    m = schema.masklets
    c.execute(delete(m).where(m.c.batch_id == batch_id, m.c.masklet_id == masklet_id))


def corrected_id(text: str) -> str | None:
    """The masklet that another one corrects; None for a candidate. text: JSON of the other one's record."""
    made = json.loads(text)
    return None if made["phase"] == "auto" else made.get("parent_id")


def origin(c: Connection, batch_id: str, masklet_id: str) -> str:
    """The first masklet in the line of corrections. All that people made of one object have the same origin."""
    seen = {masklet_id}
    while (text := content(c, batch_id, masklet_id)) is not None:
        parent = corrected_id(text)
        if parent is None or parent in seen:
            break
        seen.add(parent)
        masklet_id = parent
    return masklet_id
