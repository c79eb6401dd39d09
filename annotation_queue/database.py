"""The queue's database: its tables, and transactions that mean the same on SQLite and on PostgreSQL.

Knows nothing about rules or people. On SQLite a writing transaction begins with BEGIN IMMEDIATE, so that it never
fails half-way for want of the lock, in WAL mode with full synchronisation: what was answered survives a kill and a
power cut. On PostgreSQL it is READ COMMITTED, and the queries lock the rows that they change.

    DatabaseError
    ├── DatabaseUnreachable
    └── WrongSchema
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    literal_column,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

SCHEMA_VERSION = 1
POOL_SIZE = 16  # connections a server process; measured: throughput falls above this, people do not need one each

metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

batches = Table(
    "batches",
    metadata,
    Column("batch_id", String, primary_key=True),
    Column("created_at", Float, nullable=False),  # s since the epoch, as every *_at that is a Float
    Column("sealed", Boolean, nullable=False),
    Column("total", Integer, nullable=False),
    Column("remaining", Integer, nullable=False),  # tickets not done; counted in the transaction that changes them
    Column("drained_at", Float),
)

tickets = Table(
    "tickets",
    metadata,
    Column("ticket_id", String, primary_key=True),
    Column("batch_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("video_id", String, nullable=False),
    Column("masklet_id", String),
    Column("phase", String, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("payload", Text, nullable=False),
    Column("made_by", String),
    Column("needs_lead", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("previous_ticket_id", String),
    Column("created_at", Float, nullable=False),
    Column("ordinal", Integer, nullable=False),  # place among the tickets that came with it
    Column("state", String, nullable=False),
    Column("lease_token", Integer, nullable=False),
    Column("leased_by", String),
    Column("expires_at", Float),
    Column("verdict", String),
    Column("reasons", Text, nullable=False),  # comma-separated
    Column("finished_by", String),
    Column("finished_at", Float),
    Column("seconds", Float),
    Column("next_ticket_id", String),
    Column("settled", String),  # "accept" or "reject" once a decision stands
)
IS_OPEN = tickets.c.state == literal_column("'open'")  # literals: an index on a part of a table serves no parameter
IS_LEASED = tickets.c.state == literal_column("'leased'")
Index(
    "tickets_ready",
    tickets.c.kind,
    tickets.c.priority.desc(),
    tickets.c.created_at,
    tickets.c.ordinal,
    sqlite_where=IS_OPEN,
    postgresql_where=IS_OPEN,
)
Index("tickets_leased", tickets.c.expires_at, sqlite_where=IS_LEASED, postgresql_where=IS_LEASED)
Index("tickets_of_batch", tickets.c.batch_id, tickets.c.settled, tickets.c.ticket_id)
Index("tickets_finished", tickets.c.finished_at)

leases = Table(  # every lease that ever was: who held a ticket under which fencing token
    "leases",
    metadata,
    Column("ticket_id", String, nullable=False),
    Column("token", Integer, nullable=False),
    Column("person", String, nullable=False),
    Column("claim_id", String, nullable=False),
    Column("claimed_at", Float, nullable=False),
    PrimaryKeyConstraint("ticket_id", "token"),
)
Index("leases_by_claim", leases.c.person, leases.c.claim_id, unique=True)

masklets = Table(  # candidates, and what people made of them; rows are never changed
    "masklets",
    metadata,
    Column("batch_id", String, nullable=False),
    Column("masklet_id", String, nullable=False),
    Column("content", Text, nullable=False),  # JSON of storage.records.Masklet
    Column("created_at", Float, nullable=False),
    PrimaryKeyConstraint("batch_id", "masklet_id"),
)

operations = Table(  # append-only
    "operations",
    metadata,
    Column("operation_id", String, primary_key=True),
    Column("ticket_id", String, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("batch_id", String, nullable=False),
    Column("video_id", String, nullable=False),
    Column("masklet_id", String, nullable=False),
    Column("person", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("frame_idx", Integer),
    Column("payload", Text, nullable=False),
    Column("created_at", String, nullable=False),  # the client's clock, ISO 8601
    Column("received_at", Float, nullable=False),
    Column("lease_token", Integer, nullable=False),
    Column("branch", Boolean, nullable=False),  # came after the lease was lost: kept, and counted nowhere
)
Index("operations_of_ticket", operations.c.ticket_id, operations.c.seq, unique=True)
Index("operations_of_batch", operations.c.batch_id, operations.c.ticket_id, operations.c.seq)

versions = Table(  # the masks that an operation made; rows are never changed
    "versions",
    metadata,
    Column("operation_id", String, primary_key=True),
    Column("ticket_id", String, nullable=False),
    Column("content", Text, nullable=False),  # JSON of annotation_queue.refine.Version
    Column("created_at", Float, nullable=False),
)
Index("versions_of_ticket", versions.c.ticket_id)

outbox = Table(  # what the pipeline must be told, written with the change that it tells of
    "outbox",
    metadata,
    Column("batch_id", String, primary_key=True),  # drained: once a batch
    Column("created_at", Float, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("delivered_at", Float),
    Column("last_error", Text),
)

people = Table(
    "people",
    metadata,
    Column("name", String, primary_key=True),
    Column("roles", String, nullable=False),  # comma-separated
    Column("password_hash", String),  # argon2id; None where only tokens log in
    Column("created_at", Float, nullable=False),
)

credentials = Table(  # browser logins, and tokens of programs
    "credentials",
    metadata,
    Column("secret_sha256", String, primary_key=True),  # the secret itself is never stored
    Column("name", String, nullable=False),
    Column("csrf", String),  # for a browser login; None for a token
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),  # None: until it is revoked
)
Index("credentials_of_person", credentials.c.name)


class DatabaseError(Exception):
    """The queue's database failed."""


class DatabaseUnreachable(DatabaseError):
    """The queue's database does not answer."""


class WrongSchema(DatabaseError):
    """The queue's database was made by another version of this program."""


class Database:
    """An open database. Lives as long as the process that serves the queue; safe to share between threads."""

    def __init__(self, uri: str) -> None:
        """Open the database at `uri` and make its tables where they are missing; several processes may do so at once.

        uri: SQLAlchemy's form, "sqlite:////path/queue.db" or "postgresql+psycopg://…".
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
            self.engine = create_engine(
                url.set(drivername="postgresql+psycopg"), pool_size=POOL_SIZE, max_overflow=4, pool_pre_ping=True
            )
        self._reader: Engine = self.engine.execution_options(reads_only=True)
        try:
            self._create()
        except OperationalError as error:
            self.close()
            raise DatabaseUnreachable(f"{self.uri}: {_one_line(error)}") from error
        except DatabaseError:
            self.close()
            raise

    def _create(self) -> None:
        try:
            self._create_missing()
        except (IntegrityError, ProgrammingError, OperationalError):  # another process was creating them
            self._create_missing()
        with self.read() as connection:
            version = connection.scalar(select(schema_version.c.version))
        if version != SCHEMA_VERSION:
            raise WrongSchema(f"{self.uri}: schema version {version}, this program knows {SCHEMA_VERSION}")

    def _create_missing(self) -> None:
        with self.write() as connection:
            if not self.is_sqlite:  # two processes must not create at once; SQLite's lock does that by itself
                connection.execute(text("SELECT pg_advisory_xact_lock(7318004)"))
            metadata.create_all(connection)
            if connection.scalar(select(schema_version.c.version)) is None:
                connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may change rows: committed at the end of the block, rolled back by an exception."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; never waits for a writer."""
        with self._reader.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _configure_sqlite(connection: object, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]  # transactions begin below, not in the driver
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA busy_timeout = 30000")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _one_line(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", error)).strip().splitlines()[0]
