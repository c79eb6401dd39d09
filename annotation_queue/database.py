"""The queue's database: its tables, and transactions that mean the same on SQLite and on PostgreSQL.

Knows nothing about rules or people. On SQLite a writing transaction begins with BEGIN IMMEDIATE, so that it never
fails half-way for want of the lock, in WAL mode with full synchronisation: what was answered survives a kill and a
power cut. On PostgreSQL it is READ COMMITTED, and the queries lock the rows that they change.

    DatabaseError
    ├── DatabaseUnreachable
    └── WrongSchema
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

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
    and_,
    bindparam,
    case,
    create_engine,
    event,
    false,
    func,
    insert,
    inspect,
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DisconnectionError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateColumn

SCHEMA_VERSION = 3
_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}  # with what to do in a conflict
IDLE_S = 1.0  # a connection that was not used for so long is asked whether it is still there
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
    Column("ordinal", Integer, nullable=False),  # place among those that came with it, or of its object
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
    # since version 2; with a default where an older row needs a value
    Column("skill", String),  # what a person must know; None: nothing
    Column("lane", String, nullable=False, server_default=""),  # records.lane_of: who may take it, in one word
    Column("reserved_for", String),  # it is handed out to this person first
    Column("reserved_until", Float),  # and to others after this; None: never
    Column("sent_back_by", String),  # who asked for what was made: somebody else verifies it
    Column("rework", Boolean, nullable=False, server_default=false()),  # what a person made was sent back
    Column("overlap", Integer, nullable=False, server_default="1"),  # answers that it takes, see `rows.overlap_of`
    Column("gold_id", String),  # the gold ticket that this is one person's copy of; None: real work
    Column("right", Boolean),  # a gold ticket: whether the person was right
    Column("score", Float),  # a gold ticket: how right, 0 to 1
    Column("checkpoint", String, nullable=False, server_default=""),  # that made, or helped to make, its masklet
    # since version 3
    Column("object_id", String),  # of the tickets in which several people make one masklet, each by themselves
)
IS_OPEN = tickets.c.state == literal_column("'open'")  # literals: an index on a part of a table serves no parameter
IS_LEASED = tickets.c.state == literal_column("'leased'")
Index(
    "tickets_ready",
    tickets.c.kind,
    tickets.c.lane,
    tickets.c.priority.desc(),
    tickets.c.created_at,
    tickets.c.ordinal,
    sqlite_where=IS_OPEN,
    postgresql_where=IS_OPEN,
)
Index("tickets_leased", tickets.c.expires_at, sqlite_where=IS_LEASED, postgresql_where=IS_LEASED)
_RESERVED = and_(IS_OPEN, tickets.c.reserved_for.is_not(None))
Index("tickets_reserved", tickets.c.reserved_for, sqlite_where=_RESERVED, postgresql_where=_RESERVED)
Index("tickets_held", tickets.c.leased_by, sqlite_where=IS_LEASED, postgresql_where=IS_LEASED)
IS_GOLD = tickets.c.gold_id.is_not(None)
Index("tickets_gold", tickets.c.reserved_for, tickets.c.finished_at, sqlite_where=IS_GOLD, postgresql_where=IS_GOLD)
Index("tickets_of_batch", tickets.c.batch_id, tickets.c.settled, tickets.c.ticket_id)
Index("tickets_finished", tickets.c.finished_at)
HAS_OBJECT = tickets.c.object_id.is_not(None)
Index("tickets_of_object", tickets.c.object_id, sqlite_where=HAS_OBJECT, postgresql_where=HAS_OBJECT)

leases = Table(  # every lease that ever was: who held a ticket under which fencing token, and how it ended
    "leases",
    metadata,
    Column("ticket_id", String, nullable=False),
    Column("token", Integer, nullable=False),
    Column("person", String, nullable=False),
    Column("claim_id", String, nullable=False),
    Column("claimed_at", Float, nullable=False),
    # since version 2: set when the holder finishes the ticket, taken away when they take that back
    Column("finished_at", Float),
    Column("verdict", String),  # None: with a masklet
    Column("reasons", Text),  # comma-separated
    Column("seconds", Float),
    Column("masklet_id", String),  # that the holder made; since version 3
    PrimaryKeyConstraint("ticket_id", "token"),
)
HAS_FINISHED = leases.c.finished_at.is_not(None)
Index("leases_by_claim", leases.c.person, leases.c.claim_id, unique=True)
Index("leases_lately", leases.c.finished_at, sqlite_where=HAS_FINISHED, postgresql_where=HAS_FINISHED)
Index(
    "leases_finished",
    leases.c.person,
    leases.c.finished_at,
    sqlite_where=HAS_FINISHED,
    postgresql_where=HAS_FINISHED,
)

gold = Table(  # tickets whose answer is known; each person gets a copy of their own
    "gold",
    metadata,
    Column("gold_id", String, primary_key=True),
    Column("batch_id", String, nullable=False),  # whose video it is of; the copies count nowhere in it
    Column("kind", String, nullable=False),
    Column("video_id", String, nullable=False),
    Column("masklet_id", String),
    Column("phase", String, nullable=False),
    Column("payload", Text, nullable=False),
    Column("checkpoint", String, nullable=False),
    Column("expected", String),  # the right verdict, of a verify ticket
    Column("truth", Text),  # JSON of the true Masklet, of a track ticket
    Column("created_at", Float, nullable=False),
)

# Rolling sums, changed in the transaction that they count: the figures never read the tickets. Rows with person ""
# count tickets (added, done), the others what people did. Gold is in none of them.
TALLY_KEYS = ("batch_id", "kind", "phase", "checkpoint", "person", "maker", "verdict", "needs_lead")
TALLY_SUMS = (
    "added",  # tickets
    "done",  # tickets
    "answers",  # times that the person finished a ticket
    "first_pass",  # of them, verdicts on masklets that nobody had judged or sent back before
    "timed",  # of them, those with `seconds`
    "seconds",
    "frames",  # annotated frames of the masklets that the person made
    "timed_frames",  # of them, those of tickets with `seconds`
    "edited_frames",
    "clicked_frames",
    "clicks",
    "votes",  # answers to what took several
    "agreement",  # sum over the votes of the share of the other votes that said the same
    "compared",  # masklets that the person made beside or after other people
    "iou",  # sum over them of their IoU with the others'
)
tallies = Table(
    "tallies",
    metadata,
    *(Column(name, Boolean if name == "needs_lead" else String, nullable=False) for name in TALLY_KEYS),
    *(Column(name, Float, nullable=False, server_default="0") for name in TALLY_SUMS),
    PrimaryKeyConstraint(*TALLY_KEYS),
)

audit = Table(  # append-only: who did what to people, tokens and decisions
    "audit",
    metadata,
    Column("audit_id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False),  # a person or a ticket
    Column("detail", Text, nullable=False),  # JSON object
)

masklets = Table(  # candidates, and what people made of them; never changed, and removed only by a take-back
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
Index(
    "operations_on_branches",
    operations.c.received_at,
    sqlite_where=operations.c.branch.is_(True),
    postgresql_where=operations.c.branch.is_(True),
)

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
    Column("skills", String, nullable=False, server_default=""),  # comma-separated; since version 2
    Column("disabled", Boolean, nullable=False, server_default=false()),  # since version 2
)

credentials = Table(  # browser logins, and tokens of programs
    "credentials",
    metadata,
    Column("secret_sha256", String, primary_key=True),  # the secret itself is never stored
    Column("name", String, nullable=False),
    Column("csrf", String),  # for a browser login; None for a token
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),  # None: until it is revoked
    Column("scopes", String),  # comma-separated; None: whatever the person may do; since version 2
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
            self.engine = create_engine(url.set(drivername="postgresql+psycopg"), pool_size=POOL_SIZE, max_overflow=4)
            event.listen(self.engine, "checkout", self._check_idle)
            event.listen(self.engine, "checkin", _note_use)
        # SQLite's own way to wait for its writer is to sleep and look again, which starves many threads of a process
        self._writing: AbstractContextManager[object] = threading.Lock() if self.is_sqlite else nullcontext()
        # On PostgreSQL each statement sees what is committed when it begins, in a transaction or not: go without
        reading: Any = {"reads_only": True} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        self._reader: Engine = self.engine.execution_options(**reading)
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
            there = inspect(connection).has_table("schema_version")
            version = connection.scalar(select(schema_version.c.version)) if there else None
            old = version in (1, 2)
            if old:
                _add_columns(connection)
            metadata.create_all(connection)
            if version == 1:
                _fill_from_version_1(connection)
            if old:
                _fill_from_version_2(connection)
                connection.execute(update(schema_version).values(version=SCHEMA_VERSION))
            elif version is None:
                connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may change rows: committed at the end of the block, rolled back by an exception."""
        with self._writing, self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; never waits for a writer."""
        with self._reader.begin() as connection:
            yield connection

    def _check_idle(self, connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        """Asks a connection that was idle whether it still is one, as the server may have been restarted."""
        if time.monotonic() - record.info.get("used", 0.0) < IDLE_S:  # asking each time is a tenth of a claim
            return
        try:
            self.engine.dialect.do_ping(connection)
        except self.engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError(str(error)) from error  # the pool opens a new one

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def record(c: Connection, at: float, actor: str, action: str, subject: str, detail: dict[str, Any]) -> None:
    """Write a line of the audit, in the transaction that does what it says."""
    row = {"at": at, "actor": actor, "action": action, "subject": subject, "detail": json.dumps(detail, sort_keys=True)}
    c.execute(insert(audit).values(**row))


def insert_missing(c: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """INSERT … ON CONFLICT DO NOTHING."""
    c.execute(_INSERT[c.dialect.name](table).on_conflict_do_nothing(), rows)


def add_to_tallies(c: Connection, rows: list[dict[str, Any]]) -> None:
    """Add these sums to the rows of `tallies` with these keys; a negative sum takes back.

    Call it last in a transaction, after the batch is locked where it counts tickets: two that wait for each other's
    rows would never end.
    """
    if rows:  # all at once: others wait for these rows
        ordered = sorted(rows, key=lambda row: [str(row[key]) for key in TALLY_KEYS])
        c.execute(_adding(c.dialect.name), [dict.fromkeys(TALLY_SUMS, 0.0) | row for row in ordered])


@lru_cache  # building it takes longer than running it
def _adding(dialect: str) -> Any:
    new = _INSERT[dialect](tallies).values({name: bindparam(name) for name in (*TALLY_KEYS, *TALLY_SUMS)})
    added = {name: tallies.c[name] + new.excluded[name] for name in TALLY_SUMS}
    return new.on_conflict_do_update(index_elements=list(TALLY_KEYS), set_=added)


def _add_columns(c: Connection) -> None:
    """The new columns of the old tables. New tables and indexes are made as in an empty database."""
    for table in (tickets, leases, people, credentials):
        there = {column["name"] for column in inspect(c).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                c.execute(
                    text(f"ALTER TABLE {table.name} ADD COLUMN {CreateColumn(column).compile(dialect=c.dialect)}")
                )
    c.execute(text("DROP INDEX IF EXISTS tickets_ready"))  # it has one column more now
    for table in (tickets, leases, operations):
        for index in table.indexes:
            index.create(c, checkfirst=True)


def _fill_from_version_1(c: Connection) -> None:
    """Version 1 to 2: what the new columns and sums say of the rows that are there. Clicks and frames begin at 0."""
    t, done = tickets, tickets.c.state == "done"
    c.execute(update(t).where(t.c.needs_lead).values(lane="lead"))
    held = (leases.c.ticket_id == t.c.ticket_id) & (leases.c.token == t.c.lease_token)
    for name in ("finished_at", "verdict", "reasons", "seconds"):
        ended = select(t.c[name]).where(held, done).scalar_subquery()
        c.execute(update(leases).values({name: ended}))
    whole = [t.c.kind, t.c.phase, t.c.checkpoint]
    nobody = [literal("") for _ in range(3)]
    counts = [func.count(), func.sum(case((done, 1), else_=0))]
    counted = select(t.c.batch_id, *whole, *nobody, t.c.needs_lead, *counts)
    counted = counted.group_by(t.c.batch_id, *whole, t.c.needs_lead)
    c.execute(insert(tallies).from_select([*TALLY_KEYS, "added", "done"], counted))
    verdict, maker = func.coalesce(t.c.verdict, "made"), func.coalesce(t.c.made_by, "")
    first = case(((t.c.kind == "verify") & (t.c.attempt == 1), 1), else_=0)
    by_whom = [*whole, t.c.finished_by, maker, verdict, t.c.needs_lead]
    sums = [func.count(), func.sum(first), func.count(t.c.seconds), func.coalesce(func.sum(t.c.seconds), 0.0)]
    answers = select(literal(""), *by_whom, *sums).where(done).group_by(*by_whom)
    c.execute(insert(tallies).from_select([*TALLY_KEYS, "answers", "first_pass", "timed", "seconds"], answers))


def _fill_from_version_2(c: Connection) -> None:
    """Version 2 to 3: what each lease made is what the ticket after it was about."""
    t, after = tickets, tickets.alias()
    followed = select(after.c.masklet_id).join(t, t.c.next_ticket_id == after.c.ticket_id)
    made = followed.where(t.c.ticket_id == leases.c.ticket_id).scalar_subquery()
    c.execute(update(leases).where(HAS_FINISHED, leases.c.verdict.is_(None)).values(masklet_id=made))


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


def _note_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["used"] = time.monotonic()


def _one_line(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", error)).strip().splitlines()[0]
