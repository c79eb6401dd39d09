"""The tables and indexes of the queue's database. Knows no rule and opens nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    and_,
    false,
    inspect,
    literal_column,
    text,
)

REVISION = "0010"  # the last one in migrations/versions


metadata = MetaData()

batches = Table(
    "batches",
    metadata,
    Column("batch_id", String, primary_key=True),
    Column("created_at", Float, nullable=False),  # s since the epoch, as every *_at that is a Float
    Column("sealed", Boolean, nullable=False),
    Column("total", Integer, nullable=False),
    Column("remaining", Integer, nullable=False),  # tickets not done; counted in the transaction that changes them
    Column("drained_at", Float),
    Column("name", String, nullable=False, server_default=""),  # for people; "": its id is all that is known
    Column("project", String, nullable=False, server_default=""),  # that owns it; "": the unnamed one
)

_OF_A_PROJECT = and_(batches.c.project != literal_column("''"), batches.c.drained_at.is_(None))

Index("batches_of_projects", batches.c.project, sqlite_where=_OF_A_PROJECT, postgresql_where=_OF_A_PROJECT)

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
    Column("ordinal", Integer, nullable=False),  # place among the tickets that came with it, or of the same object
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
    Column("skill", String),  # what a person must know; None: nothing
    Column("lane", String, nullable=False, server_default=""),  # rules.lane_of: who may take it, in one word
    Column("reserved_for", String),  # this person gets it first
    Column("reserved_until", Float),  # others get it after this; None: never
    Column("sent_back_by", String),  # the verifier who asked for the correction; another one verifies it
    Column("rework", Boolean, nullable=False, server_default=false()),  # about a person's masklet that was sent back
    Column("overlap", Integer, nullable=False, server_default="1"),  # answers that it takes, see `sharing.overlap_of`
    Column("gold_id", String),  # this is one person's copy of that gold ticket; None: real work
    Column("right", Boolean),  # a gold ticket: whether the person was right
    Column("score", Float),  # a gold ticket: how right, 0 to 1
    Column(
        "checkpoint", String, nullable=False, server_default=""
    ),  # the model that made, or helped to make, its masklet
    Column("object_id", String),  # common to the tickets in which several people make one masklet
    Column("label", String),  # of its object: as the ticket came; once it is done, as it was decided
    Column("attributes", Text),  # JSON object, as in storage.records.Masklet
    Column("assigned_by", String),  # the lead who assigned it to `reserved_for`: nobody else gets it
    Column("reopened_by", String),  # the lead who opened it after a settled ticket
    Column("mean_score", Float),  # of its masklet, over the frames with the object; None: no masklet, or an old ticket
    Column("agreement", Float),  # of several answers: how far two of them agree on average, 0 to 1
    Column("project", String, nullable=False, server_default=""),  # of its batch
)


IS_OPEN = tickets.c.state == literal_column("'open'")  # literals: a partial index is not used for a parameter


IS_LEASED = tickets.c.state == literal_column("'leased'")


IS_DONE = tickets.c.state == literal_column("'done'")

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

Index(  # in the order in which they were handed out
    "tickets_done",
    tickets.c.kind,
    tickets.c.priority.desc(),
    tickets.c.created_at,
    tickets.c.ordinal,
    sqlite_where=IS_DONE,
    postgresql_where=IS_DONE,
)

Index("tickets_leased", tickets.c.expires_at, sqlite_where=IS_LEASED, postgresql_where=IS_LEASED)

_RESERVED = and_(IS_OPEN, tickets.c.reserved_for.is_not(None))

Index(  # in the order of claims: a lead may assign thousands of tickets to one person
    "tickets_reserved",
    tickets.c.reserved_for,
    tickets.c.kind,
    tickets.c.priority.desc(),
    tickets.c.created_at,
    tickets.c.ordinal,
    sqlite_where=_RESERVED,
    postgresql_where=_RESERVED,
)

Index("tickets_held", tickets.c.leased_by, sqlite_where=IS_LEASED, postgresql_where=IS_LEASED)


IS_GOLD = tickets.c.gold_id.is_not(None)

Index("tickets_gold", tickets.c.reserved_for, tickets.c.finished_at, sqlite_where=IS_GOLD, postgresql_where=IS_GOLD)

Index("tickets_of_batch", tickets.c.batch_id, tickets.c.settled, tickets.c.ticket_id)

Index("tickets_finished", tickets.c.finished_at)

Index("tickets_of_video", tickets.c.video_id)

HAS_OBJECT = tickets.c.object_id.is_not(None)

Index("tickets_of_object", tickets.c.object_id, sqlite_where=HAS_OBJECT, postgresql_where=HAS_OBJECT)


# The lists of leads, each in the order of `leads/browsing.py`: one index for each thing that a list can be about.
HAS_REASONS = tickets.c.reasons != literal_column("''")

HAS_LABEL = tickets.c.label.is_not(None)

HAS_SCORE = tickets.c.mean_score.is_not(None)

HAS_AGREEMENT = tickets.c.agreement.is_not(None)


def _browsed(name: str, *columns: Column[Any], where: ColumnElement[bool] | None = None) -> None:
    Index(f"browsed_{name}", *columns, tickets.c.ticket_id, sqlite_where=where, postgresql_where=where)


_browsed("kinds", tickets.c.kind, tickets.c.state, tickets.c.created_at)

_browsed("projects", tickets.c.project, tickets.c.kind, tickets.c.state, tickets.c.created_at)

_browsed("batches", tickets.c.batch_id, tickets.c.kind, tickets.c.state, tickets.c.created_at)

_browsed("videos", tickets.c.video_id, tickets.c.created_at)

_browsed("checkpoints", tickets.c.checkpoint, tickets.c.created_at)

_browsed("labels", tickets.c.label, tickets.c.created_at, where=HAS_LABEL)

_browsed("verdicts", tickets.c.verdict, tickets.c.created_at, where=IS_DONE)

_browsed("reasons", tickets.c.reasons, tickets.c.created_at, where=HAS_REASONS)

_browsed("deciders", tickets.c.finished_by, tickets.c.created_at, where=IS_DONE)

_browsed("reserved", tickets.c.reserved_for, tickets.c.created_at, where=_RESERVED)

_browsed("scores", tickets.c.mean_score, where=HAS_SCORE)

_browsed("agreements", tickets.c.agreement, where=HAS_AGREEMENT)

leases = Table(  # all leases, past and present: who held a ticket under which fencing token, and how it ended
    "leases",
    metadata,
    Column("ticket_id", String, nullable=False),
    Column("token", Integer, nullable=False),
    Column("person", String, nullable=False),
    Column("claim_id", String, nullable=False),
    Column("claimed_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("verdict", String),  # None: with a masklet
    Column("reasons", Text),  # comma-separated
    Column("seconds", Float),
    Column("masklet_id", String),  # that the holder made
    Column("watched", Float),  # share of the frames with the object that were on screen; None: a program, or a masklet
    Column("ended_by", String),  # the person who took the ticket back; None: it expired, or its holder ended it
    Column("label", String),  # of the object, with the answer
    Column("attributes", Text),  # JSON object
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
    Column("batch_id", String, nullable=False),  # its video is of this batch; the copies are not counted in it
    Column("kind", String, nullable=False),
    Column("video_id", String, nullable=False),
    Column("masklet_id", String),
    Column("phase", String, nullable=False),
    Column("payload", Text, nullable=False),
    Column("checkpoint", String, nullable=False),
    Column("expected", String),  # the right verdict, of a verify ticket
    Column("truth", Text),  # JSON of the true Masklet, of a track ticket
    Column("created_at", Float, nullable=False),
    Column("made_by", String),  # the person who made its masklet, who does not get it to verify; None: the model
)


# Rolling sums, changed in the transactions that they count, so that the figures never read the tickets. Rows with
# person "" count tickets (added, done), other rows count people's work. Gold is not counted.
TALLY_KEYS = ("batch_id", "kind", "phase", "checkpoint", "person", "maker", "verdict", "needs_lead", "label", "project")


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
    "votes",  # answers to tickets that took several answers
    "agreement",  # sum over the votes: the share of the other votes that gave the same answer
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

Index("audit_of_subject", audit.c.subject, audit.c.audit_id)

masklets = Table(  # candidates and people's masklets; never changed, removed only by a take-back
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
    Column("branch", Boolean, nullable=False),  # came after the lease was lost: stored, and counted nowhere
    Column("closed", String),  # what its owner did with a branch: "applied" or "dismissed"; None: nothing yet
)

Index("operations_of_ticket", operations.c.ticket_id, operations.c.seq, unique=True)

Index("operations_of_batch", operations.c.batch_id, operations.c.ticket_id, operations.c.seq)

Index(
    "operations_on_branches",
    operations.c.received_at,
    sqlite_where=operations.c.branch.is_(True),
    postgresql_where=operations.c.branch.is_(True),
)


IS_KEPT = and_(operations.c.branch.is_(True), operations.c.closed.is_(None))

Index(  # branches that their owners have not looked at
    "operations_kept",
    operations.c.person,
    operations.c.ticket_id,
    operations.c.seq,
    sqlite_where=IS_KEPT,
    postgresql_where=IS_KEPT,
)

versions = Table(  # the masks that an operation made; rows are never changed
    "versions",
    metadata,
    Column("operation_id", String, primary_key=True),  # followed by "#" and a random word: a part of the version
    Column("ticket_id", String, nullable=False),
    Column("content", Text, nullable=False),  # JSON of annotation_queue.draft.Version
    Column("created_at", Float, nullable=False),
)

Index("versions_of_ticket", versions.c.ticket_id)

comments = Table(  # what people write to each other about tickets; append-only
    "comments",
    metadata,
    Column("comment_id", String, primary_key=True),  # made by the client
    Column("thread_id", String, nullable=False),  # common to all tickets about one object, see `tickets/comments.py`
    Column("ticket_id", String, nullable=False),
    Column("person", String, nullable=False),
    Column("as_lead", Boolean, nullable=False),  # the person was a lead or an admin when they wrote it
    Column("frame_idx", Integer),
    Column("x", Float),  # px of the video; None: it points to no place
    Column("y", Float),
    Column("text", Text, nullable=False),
    Column("created_at", String, nullable=False),  # the client's clock, ISO 8601
    Column("received_at", Float, nullable=False),
)

Index("comments_of_thread", comments.c.thread_id, comments.c.received_at)

ontologies = Table(  # rows are never changed
    "ontologies",
    metadata,
    Column("version", String, primary_key=True),
    Column("content", Text, nullable=False),  # JSON of storage.ontology.Ontology
    Column("created_at", Float, nullable=False),
)

ontologies_of_projects = Table(  # whose people may read an ontology: the projects that have tickets under it
    "ontologies_of_projects",
    metadata,
    Column("version", String, primary_key=True),
    Column("project", String, primary_key=True),
)

outbox = Table(  # messages to the pipeline, written in the transaction of their cause
    "outbox",
    metadata,
    Column("batch_id", String, primary_key=True),  # drained: once a batch
    Column("created_at", Float, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("delivered_at", Float),
    Column("last_error", Text),
)

closed_videos = Table(  # whose result went to the pipeline before their batch was drained, see tickets/closing.py
    "closed_videos",
    metadata,
    Column("batch_id", String, nullable=False),
    Column("video_id", String, nullable=False),
    Column("closed_at", Float, nullable=False),
    PrimaryKeyConstraint("batch_id", "video_id"),
)

notices = Table(  # events that endpoints are told about; the id follows from what happened
    "notices",
    metadata,
    Column("notice_id", String, primary_key=True),
    Column("event", String, nullable=False),
    Column("payload", Text, nullable=False),  # the JSON that is signed and sent
    Column("created_at", Float, nullable=False),
)

notice_deliveries = Table(
    "notice_deliveries",
    metadata,
    Column("notice_id", String, nullable=False),
    Column("endpoint", String, nullable=False),  # its name in the settings
    Column("not_before", Float),  # None: not by itself
    Column("attempts", Integer, nullable=False),
    Column("delivered_at", Float),
    Column("failure", String),  # notices.Failure of the last attempt
    Column("status", Integer),  # of its HTTP answer
    Column("detail", Text),
    Column("failed_since", Float),
    PrimaryKeyConstraint("notice_id", "endpoint"),
)

_UNDELIVERED = notice_deliveries.c.delivered_at.is_(None)

Index(
    "notice_deliveries_due",
    notice_deliveries.c.endpoint,
    notice_deliveries.c.not_before,
    sqlite_where=_UNDELIVERED,
    postgresql_where=_UNDELIVERED,
)

notice_sources = Table(  # what was looked at for events; what the first look finds is not news
    "notice_sources",
    metadata,
    Column("source", String, primary_key=True),
    Column("first_look_at", Float, nullable=False),
)

people = Table(
    "people",
    metadata,
    Column("name", String, primary_key=True),
    Column("roles", String, nullable=False),  # comma-separated
    Column("password_hash", String),  # argon2id; None: only tokens log in
    Column("created_at", Float, nullable=False),
    Column("skills", String, nullable=False, server_default=""),  # comma-separated
    Column("disabled", Boolean, nullable=False, server_default=false()),
    Column("keys", Text),  # JSON: the keys that they chose, by action of the page; None: the page's own
)

credentials = Table(  # browser logins, and tokens of programs
    "credentials",
    metadata,
    Column("secret_sha256", String, primary_key=True),  # the secret itself is never stored
    Column("name", String, nullable=False),
    Column("csrf", String),  # for a browser login; None for a token
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),  # None: until it is revoked
    Column("scopes", String),  # comma-separated; None: whatever the person may do
)

Index("credentials_of_person", credentials.c.name)


def revision_of(connection: Connection) -> str | None:
    """The revision of a database, as alembic has written it; None before the first."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
