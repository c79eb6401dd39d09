"""The queue's database: connections, and transactions that mean the same on SQLite and on PostgreSQL.

Knows no table, rule or person. On SQLite a writing transaction begins with BEGIN IMMEDIATE: it takes the lock first,
and so never fails half-way. WAL mode with full synchronisation keeps every answered request through a kill and a power
cut. On PostgreSQL a transaction is READ COMMITTED, and the queries lock the rows that they change.

    DatabaseError
    ├── DatabaseUnreachable
    └── WrongSchema
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DisconnectionError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.pool import ConnectionPoolEntry

from annotation_queue.schema import (
    REVISION,
    revision_of,
)
from storage.errors import first_line

T = TypeVar("T")

INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}  # inserts that know ON CONFLICT
IDLE_S = 1.0  # a connection that was idle for longer is tested before use
UPGRADE_LOCK = 7318004  # a number that nothing else locks on the same PostgreSQL server
POOL_SIZE = 16  # connections of a server process; measured: throughput falls above this


class DatabaseError(Exception):
    """The queue's database failed."""


class DatabaseUnreachable(DatabaseError):
    """The queue's database does not answer."""


class WrongSchema(DatabaseError):
    """The queue's database was made by another version of this program."""


class Database:
    """An open database. Lives as long as the process that serves the queue; safe to share between threads."""

    def __init__(self, uri: str, *, upgrade: bool = True) -> None:
        """Open the database at `uri`, and create or migrate its tables; several processes may do so at once.

        uri: SQLAlchemy's form, "sqlite:////path/queue.db" or "postgresql+psycopg://…".
        upgrade: False changes no table; WrongSchema if the tables are missing or of another revision.
        Raises ValueError for another kind of database, DatabaseUnreachable, WrongSchema.
        """
        url = make_url(uri)
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise ValueError(f"the queue runs on sqlite or postgresql, not {url.get_backend_name()!r}")
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite and url.database in (None, "", ":memory:"):
            raise ValueError("the queue needs an SQLite file: a database in memory is gone with its connection")
        self.uri = url.render_as_string(hide_password=True)
        if self.is_sqlite:
            self.engine = create_engine(url, pool_size=POOL_SIZE, connect_args={"timeout": 30})
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            self.engine = create_engine(url.set(drivername="postgresql+psycopg"), pool_size=POOL_SIZE, max_overflow=4)
            event.listen(self.engine, "checkout", self._check_idle)
            event.listen(self.engine, "checkin", _note_use)
        # SQLite waits for its writer by sleeping and trying again, which starves the threads of one process
        self._writing: AbstractContextManager[object] = threading.Lock() if self.is_sqlite else nullcontext()
        # On PostgreSQL each statement sees what is committed when it begins, so reading needs no transaction
        reading: Any = {"reads_only": True} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        self._reader: Engine = self.engine.execution_options(**reading)
        try:
            self._prepare() if upgrade else self._check()
        except OperationalError as error:
            self.close()
            raise DatabaseUnreachable(f"{self.uri}: {first_line(getattr(error, 'orig', error))}") from error
        except DatabaseError:
            self.close()
            raise

    def _check(self) -> None:
        with self.read() as connection:
            if (revision := revision_of(connection)) != REVISION:
                raise WrongSchema(f"{self.uri}: its tables have the revision {revision}, not {REVISION}")

    def _prepare(self) -> None:
        try:
            self._upgrade()
        except (IntegrityError, ProgrammingError, OperationalError):  # another process was creating the same tables
            self._upgrade()

    def _upgrade(self) -> None:
        """Bring the tables to this program's revision. A database that is up to date costs one query."""
        with self.read() as connection:
            if revision_of(connection) == REVISION:
                return
        from annotation_queue import migrate  # alembic takes a while to import

        with self.write() as connection:
            if not self.is_sqlite:  # one process at a time; on SQLite the writer's lock does that
                connection.execute(text(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})"))
            try:
                migrate.upgrade(connection)
            except migrate.UnknownSchema as error:
                raise WrongSchema(f"{self.uri}: {error}") from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may change rows: committed at the end of the block, rolled back by an exception."""
        with self._writing, self.engine.begin() as connection:
            yield connection

    def retry(self, change: Callable[[Connection], T]) -> T:
        """What `change` returns in a writing transaction, which runs once more after a conflict over a unique key.

        Such a conflict means that the same request arrives twice at once: the second run finds the rows of the other.
        """
        try:
            with self.write() as connection:
                return change(connection)
        except IntegrityError:
            with self.write() as connection:
                return change(connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; never waits for a writer."""
        with self._reader.begin() as connection:
            yield connection

    def _check_idle(self, connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        """Tests a connection that was idle, because the server may have been restarted."""
        if time.monotonic() - record.info.get("used", 0.0) < IDLE_S:  # a test each time would cost a tenth of a claim
            return
        try:
            self.engine.dialect.do_ping(connection)
        except self.engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError(str(error)) from error  # the pool opens a new one

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def insert_missing(c: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """INSERT … ON CONFLICT DO NOTHING."""
    c.execute(INSERT[c.dialect.name](table).on_conflict_do_nothing(), rows)


def insert_new(c: Connection, table: Table, row: dict[str, Any]) -> bool:
    """`insert_missing` of one row; whether it was inserted. Asks with RETURNING: a row count does not tell this."""
    new = INSERT[c.dialect.name](table).on_conflict_do_nothing().returning(*table.primary_key)
    return c.execute(new, row).first() is not None


def _configure_sqlite(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # transactions begin below, not in the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 30000")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _note_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["used"] = time.monotonic()
