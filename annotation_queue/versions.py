"""Versions in the queue's database: the masks that each operation made, never changed once they are complete.

A propagation takes long, so its masks are stored in parts while it is under way. The complete version replaces them.
Knows the table and nothing about the model, or about who may read what.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.draft import VERSION, FrameMask, Version


def versions_of(c: Connection, ticket_id: str) -> dict[str, Version]:
    """The versions of a ticket, by operation_id; the parts of one that is not complete are joined."""
    v = schema.versions
    contents = c.scalars(select(v.c.content).where(v.c.ticket_id == ticket_id).order_by(v.c.created_at))
    found: dict[str, list[Version]] = {}
    for version in map(VERSION.validate_json, contents):
        found.setdefault(version.operation_id, []).append(version)
    return {operation_id: _joined(parts) for operation_id, parts in found.items()}


def add_part(database: Database, ticket_id: str, part: Version) -> None:
    """Stores masks of a propagation that is under way. part: `complete` is False."""
    name = f"{part.operation_id}#{uuid.uuid4().hex}"  # no operation has such an id
    with database.write() as c:
        c.execute(insert(schema.versions), _row(name, ticket_id, part))


def add_version(database: Database, ticket_id: str, version: Version) -> Version:
    """Stores a complete version in place of its parts.

    Returns the one that is stored: the first, if two servers answered the same operation.
    """
    v = schema.versions
    try:
        with database.write() as c:
            c.execute(insert(v), _row(version.operation_id, ticket_id, version))
            _drop_parts(c, ticket_id, version.operation_id)
        return version
    except IntegrityError:
        with database.read() as c:
            content = c.scalar(select(v.c.content).where(v.c.operation_id == version.operation_id))
        assert content is not None
        return VERSION.validate_json(content)


def complete(database: Database, ticket_id: str, operation_id: str) -> Version:
    """The version of a propagation, complete with the masks that it has now; without any if it has none."""
    with database.read() as c:
        found = versions_of(c, ticket_id).get(operation_id)
    if found is None:
        found = Version(operation_id=operation_id, frames=(), checkpoint="", round=0, complete=False)
    return found if found.complete else add_version(database, ticket_id, replace(found, complete=True))


def _joined(parts: Iterable[Version]) -> Version:
    """One version of several parts. A later mask of the same frame counts. A complete version makes the parts void."""
    frames: dict[int, FrameMask] = {}
    last = None
    for part in parts:
        if part.complete:
            return part
        frames |= {mask.frame_idx: mask for mask in part.frames}
        last = part
    assert last is not None
    return replace(last, frames=tuple(frames.values()))


def _row(name: str, ticket_id: str, version: Version) -> dict[str, object]:
    content = VERSION.dump_json(version).decode()
    return {"operation_id": name, "ticket_id": ticket_id, "content": content, "created_at": time.time()}


def _drop_parts(c: Connection, ticket_id: str, operation_id: str) -> None:
    v = schema.versions
    parts = v.c.operation_id.startswith(f"{operation_id}#", autoescape=True)
    c.execute(delete(v).where(v.c.ticket_id == ticket_id, parts))
