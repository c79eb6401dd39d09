"""Records of the pipeline as leads see it: how far each batch is, why it waits, and what was refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from annotation_queue.records import Batch, Kind, Stuck, TicketCount


@dataclass(frozen=True, kw_only=True)
class Oldest:
    """The ticket of a batch that waits longest: for somebody to take it, or for the person who holds it."""

    ticket_id: str
    kind: Kind
    since: float  # s since the epoch: when it was opened, or when the person took it
    person: str | None = None  # who holds it; None: nobody


@dataclass(frozen=True, kw_only=True)
class BatchTickets:
    """The tickets of one batch."""

    batch: Batch
    counts: tuple[TicketCount, ...]  # an expired lease counts as open
    oldest_open: Oldest | None
    oldest_held: Oldest | None
    an_hour: float  # tickets done in an hour, at the pace of the last quarter of an hour
    expected_end: float | None  # s since the epoch, at that pace; None: unknown
    delivered: bool  # the pipeline knows that the batch is drained
    delivery_error: str | None  # of the last attempt to tell it so
    next_delivery: float | None  # s since the epoch


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """What one stage has done for a batch."""

    stage: str
    done: int
    of: int
    noun: str  # what is counted: "video" or "ticket"
    complete: bool  # the stage has marked the batch


@dataclass(frozen=True, kw_only=True)
class RefusedRows:
    """Rows of a batch that one check refused."""

    stage: str
    reason: str  # the check
    rows: int
    examples: tuple[str, ...]  # ids of some of them
    detail: str  # of the first one


@dataclass(frozen=True, kw_only=True)
class BatchStanding:
    """How far one batch is, why it waits, and what happens next."""

    batch_id: str
    name: str  # of the folder that its videos came from; "": not known
    imported: bool  # by an import: no model proposed for it
    videos: int
    stages: tuple[StageProgress, ...]  # in order
    tickets: BatchTickets | None  # None: it has none yet, or the queue's database is elsewhere
    stuck: tuple[Stuck, ...]  # the stages that failed for it, with their last error
    quarantined: int  # its videos and masklets that were refused after ingest
    checkpoint: str | None  # that proposes for it; None: not chosen yet
    phase: str | None  # of its tickets
    release: str | None  # the first one with its masklets; "": published without a masklet
    waits_for: str  # one sentence
    next: str  # what happens then, and who does it; "": nothing
    due: float | None  # s since the epoch, when the wait is expected to end; None: nobody can tell
    refused: tuple[RefusedRows, ...] = ()  # of a batch whose publish fails: the rows that the checks refused


class Action(StrEnum):
    """What a person does about a row in quarantine."""

    RELEASE = "release"  # ingest judges the file once more, without the limit that it broke
    SEEN = "seen"  # it is known, and nothing follows


@dataclass(frozen=True, kw_only=True)
class QuarantineAct:
    """What a person did about a row in quarantine. The same act_id again changes nothing."""

    act_id: str  # made by the client
    action: Action
    stage: str
    subject: str
    reason: str
    by: str
    at: str  # ISO 8601, UTC
    why: str


@dataclass(frozen=True, kw_only=True)
class QuarantineRow:
    """An input or a row that was refused, and what people did about it."""

    row_id: str
    stage: str
    subject: str  # address of a file, id of a video or of a masklet
    reason: str
    detail: str
    batch_id: str
    release: str | None  # what a release would do; None: it can only be marked as seen
    acts: tuple[QuarantineAct, ...] = ()  # the oldest first
    waits: bool = False  # released, and ingest has not judged it again yet
    outcome: str | None = None  # of the last release


@dataclass(frozen=True, kw_only=True)
class QuarantinePage:
    """A part of the quarantine; ask again with `after=next` until it is None."""

    rows: tuple[QuarantineRow, ...]
    total: int  # rows that pass the filters
    reasons: dict[str, int]  # rows by reason, of the stage that was asked for
    next: int | None


@dataclass(frozen=True, kw_only=True)
class PoolUse:
    """How many of a pool's places for tasks are taken."""

    name: str
    slots: int
    running: int
    queued: int


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Airflow, which runs the pipeline's tasks. Without a URL, the queue publishes by itself."""

    url: str | None = None
    scheduler_seen: float | None = None  # s since the epoch, its last heartbeat; None: never
    pools: tuple[PoolUse, ...] = ()
    error: str | None = None  # why it could not be asked


@dataclass(frozen=True, kw_only=True)
class ModelTimes:
    """How long this server's model took for one kind of answer, since the server started."""

    what: str  # "click", "propagation", "frame"
    answers: int
    mean_s: float
    p95_s: float  # the upper end of the histogram's bucket that holds it


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Which checkpoint works now."""

    checkpoint: str  # the promoted one, or that of the settings
    round: int  # that made it; 0 before the first
    live: str | None  # the checkpoint that answers clicks at this server; None: none is loaded yet
    times: tuple[ModelTimes, ...] = ()
    error: str | None = None  # why the registry could not be asked


@dataclass(frozen=True, kw_only=True)
class DocsOfBatch:
    """The Data Docs of one batch: what Great Expectations found in its tables."""

    batch_id: str
    built_at: float  # s since the epoch
    pages: dict[str, str]  # by table: the path of its newest results


@dataclass(frozen=True, kw_only=True)
class PipelineView:
    """What the page about the pipeline shows."""

    at: float  # s since the epoch
    batches: tuple[BatchStanding, ...]  # that are not published; those that fail first
    more: int  # batches that are left out
    workers: Workers
    serving: Serving
    docs: tuple[DocsOfBatch, ...]  # the newest first


@dataclass(frozen=True, kw_only=True)
class PipelineCounts:
    """The pipeline in numbers, for a monitoring system."""

    waiting: dict[str, int]  # unpublished batches by the stage that is next
    failing: dict[str, int]  # by stage: batches for which it fails, or 1 for a stage that works on no batch
    quarantined: dict[tuple[str, str], int]  # rows by stage and reason
    released: int  # files that people have released, and ingest has not judged again
    checkpoint: str  # that is promoted; "": the registry does not answer
    round: int
    scheduler_seen: float | None  # s since the epoch, of Airflow
    pools: tuple[PoolUse, ...]
