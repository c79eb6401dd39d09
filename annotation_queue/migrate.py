"""Brings a queue's database to the schema of this program, by the revisions in `migrations/`. Opens nothing.

Imports alembic, so `Database` imports this module only for a database that is not up to date.
"""

from __future__ import annotations

import threading

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from annotation_queue.schema import REVISION, revision_of

FIRST = "0001"  # the tables as they were before there were revisions: version 3 in the table schema_version
TAKEN_OVER = 3

_ONE_AT_A_TIME = threading.Lock()  # alembic keeps its context in one place for the whole process


class UnknownSchema(Exception):
    """The tables are not of this program, or of a newer one."""


def upgrade(connection: Connection) -> None:
    """Run the revisions that a database lacks, in the transaction of `connection`.

    The caller holds a lock that keeps other processes from doing the same. Raises UnknownSchema.
    """
    with _ONE_AT_A_TIME:
        _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "annotation_queue:migrations")
    config.attributes["connection"] = connection
    stored = revision_of(connection)
    if stored is None and inspect(connection).has_table("schema_version"):
        version = connection.scalar(text("SELECT version FROM schema_version"))
        if version != TAKEN_OVER:
            raise UnknownSchema(f"schema version {version}, this program takes over version {TAKEN_OVER} only")
        connection.execute(text("DROP TABLE schema_version"))
        command.stamp(config, FIRST)
    elif stored is not None:
        known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
        if stored not in known:
            raise UnknownSchema(f"revision {stored!r} is unknown, this program knows revisions up to {REVISION}")
    command.upgrade(config, "head")
