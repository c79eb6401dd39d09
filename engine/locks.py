"""Locks over all machines of an installation: what must be done alone is done by one process at a time.

Where the lock is follows from what the machines share:

- The catalog is in PostgreSQL: an advisory lock of a session there. Each lock has its own connection, so the server
  frees it when its process is killed.
- Else the store is a bucket: a lease in the store (`storage/lease.py`).
- Else, a folder and SQLite on one machine: a lock file in the store's folder, because homes may share a store.

The catalog decides, not the queue's database: every machine that publishes or ingests has its address, and some do
not have the queue's. A lock can be lost while its holder works (`Held.check`), so it only saves double work: what is
done under it must also be right when two do it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine import files
from storage import lease
from storage.blobs.base import Blobs
from storage.blobs.folder import LocalBlobs
from storage.errors import first_line
from storage.iceberg.table_errors import TablesError
from storage.lease import InUse, LockLost

if TYPE_CHECKING:
    from sqlalchemy import Connection

# A machine that was switched off keeps its locks until the server notices: after two minutes, not after hours.
_KEEPALIVE = {"tcp_keepalives_idle": 60, "tcp_keepalives_interval": 15, "tcp_keepalives_count": 4}


class Held(Protocol):
    """A lock that this process holds, unless it was lost."""

    def check(self) -> None:
        """Raises LockLost if another process may hold the lock by now. Call it before the last write of an act."""


@contextmanager
def alone(catalog_uri: str, blobs: Blobs, name: str, *, wait: bool = True) -> Iterator[Held]:
    """Holds the lock of this name in the block: one process and one thread on all machines. Not reentrant.

    name: of letters, digits and "-". wait: False raises InUse at once if the lock is taken.
    Raises TablesError for a PostgreSQL server that cannot be reached.
    """
    if catalog_uri.startswith("postgresql"):
        with _in_database(catalog_uri, name, wait) as held:
            yield held
    elif isinstance(blobs, LocalBlobs):
        with files.alone(Path(blobs.uri, "locks", f"{name}.lock"), wait=wait):
            yield _OfFile()
    else:
        with lease.leased(blobs, name, wait=wait) as leased:
            yield leased


class _OfFile:
    """A lock file ends with its process only, so it is never lost."""

    def check(self) -> None:
        pass


class _OfSession:
    """An advisory lock: it is held as long as the session lives."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection, self._name = connection, name
        self._session = self._ask()

    def check(self) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            lost = self._ask() != self._session  # SQLAlchemy connects again by itself
        except SQLAlchemyError as error:
            raise LockLost(f"the lock {self._name!r} is lost with its connection: {first_line(error)}") from error
        if lost:
            raise LockLost(f"the lock {self._name!r} is lost with its connection")

    def _ask(self) -> object:
        from sqlalchemy import text

        return self._connection.scalar(text("SELECT pg_backend_pid()"))


@contextmanager
def _in_database(uri: str, name: str, wait: bool) -> Iterator[Held]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    number = int.from_bytes(hashlib.sha256(f"masklets {name}".encode()).digest()[:8], "big", signed=True)
    options = " ".join(f"-c {key}={value}" for key, value in _KEEPALIVE.items())
    engine = create_engine(
        uri, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"options": options, "connect_timeout": 30}
    )
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        raise TablesError(f"catalog {engine.url.render_as_string()}: {first_line(error)}") from error
    with connection:  # its end is the end of the session, and of the lock
        try:
            # Asked again and again: one driver cannot be interrupted while the server lets it wait.
            while not connection.scalar(text("SELECT pg_try_advisory_lock(:number)"), {"number": number}):
                if not wait:
                    raise InUse(f"the lock {name!r} is held by another process")
                time.sleep(lease.POLL_S)
            held = _OfSession(connection, name)
        except SQLAlchemyError as error:
            raise TablesError(f"catalog {engine.url.render_as_string()}: {first_line(error)}") from error
        yield held
