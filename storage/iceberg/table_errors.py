"""What goes wrong with the tables, and what is done about it: errors, and the pause before another attempt.

Errors:
    TablesError          also for damaged Iceberg metadata
    ├── WarehouseUnreachable    the store of the tables' files does not answer: retry
    ├── CatalogUnreachable      the catalog's database does not answer: retry
    ├── CommitFailed     nothing was committed
    └── CommitUnknown    the catalog became unreachable during the commit: run it again, it looks first
"""

from __future__ import annotations

import contextlib
import random
import time
import zlib
from collections.abc import Iterator
from gzip import BadGzipFile

from storage.errors import first_line

ATTEMPTS = 30  # of a commit that loses races


class TablesError(Exception):
    """The tables failed."""


class WarehouseUnreachable(TablesError):
    """The store of the tables' files does not answer: retry."""


class CatalogUnreachable(TablesError):
    """The catalog's database does not answer: retry."""


class CommitFailed(TablesError):
    """Nothing was committed."""


class CommitUnknown(TablesError):
    """The catalog became unreachable during the commit, which may have succeeded. Run it again: it looks first."""


@contextlib.contextmanager
def damage(table_name: str) -> Iterator[None]:
    """What pyiceberg raises for damaged or missing metadata, or for a database that is gone, as TablesError."""
    from pyiceberg.exceptions import ValidationError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    # SystemError: what pyiceberg's compiled Avro reader raises for a negative length
    except (
        ValidationError,
        EOFError,
        BadGzipFile,
        zlib.error,
        TypeError,
        ValueError,
        FileNotFoundError,
        SystemError,
    ) as error:
        detail = f"{type(error).__name__}: {first_line(error)}"
        raise TablesError(f"table {table_name}: its Iceberg metadata is damaged or missing ({detail})") from error
    except SQLAlchemyError as error:
        raise CatalogUnreachable(f"table {table_name}: its catalog does not answer ({first_line(error)})") from error
    except OSError as error:
        raise WarehouseUnreachable(f"table {table_name}: its files cannot be read ({first_line(error)})") from error


def is_locked(error: Exception) -> bool:
    """Whether SQLite refused to begin. Then nothing was written, and a retry is safe."""
    return "database is locked" in str(error)


def pause(attempt: int) -> None:
    time.sleep(random.uniform(0.5, 1.0) * min(1.0, 0.02 * 2**attempt))
