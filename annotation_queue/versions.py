"""Versions in the queue's database: the masks that each operation made, written once and never changed.

Knows the table and nothing about the model, or about who may read what.
"""

from __future__ import annotations

import time

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.draft import VERSION, Version


def versions_of(c: Connection, ticket_id: str) -> dict[str, Version]:
    """The versions of a ticket, by operation_id."""
    v = schema.versions
    contents = c.scalars(select(v.c.content).where(v.c.ticket_id == ticket_id))
    return {version.operation_id: version for version in map(VERSION.validate_json, contents)}


def add_version(database: Database, ticket_id: str, version: Version) -> Version:
    """Stores a version, and returns the one that is stored: the first, if two servers answered the same operation."""
    v = schema.versions
    row = {"operation_id": version.operation_id, "ticket_id": ticket_id, "created_at": time.time()}
    try:
        with database.write() as c:
            c.execute(insert(v).values(content=VERSION.dump_json(version).decode(), **row))
        return version
    except IntegrityError:
        with database.read() as c:
            content = c.scalar(select(v.c.content).where(v.c.operation_id == version.operation_id))
        assert content is not None
        return VERSION.validate_json(content)
