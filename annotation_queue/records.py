"""The queue's records: frozen data, no behaviour.

Knows no rule, database, network or clock. A masklet is `storage.records.Masklet`: the pipeline makes a candidate, and a
person's correction is another Masklet with its own id and its parent's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from storage.records import Masklet, Operation, Verdict

PROJECT_PATTERN = r"[a-z0-9][a-z0-9-]{0,39}"  # of the name of a project

LEASE_S = 90.0  # a lease ends this many seconds after its last heartbeat, unless the settings say otherwise


class Kind(StrEnum):
    """What a ticket asks a person to do."""

    SELECT = "select"  # find a challenging object in a video
    TRACK = "track"  # correct the masklet of an object in every frame
    VERIFY = "verify"  # judge a masklet that another person or the model made


class State(StrEnum):
    """Where a ticket stands."""

    OPEN = "open"
    LEASED = "leased"
    DONE = "done"


class Role(StrEnum):
    """What a person may do."""

    ANNOTATOR = "annotator"  # select and track tickets
    VERIFIER = "verifier"  # verify tickets
    LEAD = "lead"  # every ticket, also those that a verifier was unsure of
    ADMIN = "admin"  # people and their roles
    PIPELINE = "pipeline"  # opens batches and reads their results; a program


class Reason(StrEnum):
    """Why a masklet was rejected or sent back. The order is that of the keys 1 to 9 on the page."""

    NOT_AN_OBJECT = "not_an_object"
    WRONG_BOUNDARY = "wrong_boundary"
    IDENTITY_SWITCH = "identity_switch"
    DRIFT = "drift"
    MISSED_REAPPEARANCE = "missed_reappearance"
    DUPLICATE = "duplicate"
    UNTRACKABLE = "untrackable"
    OBJECTIONABLE = "objectionable"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Person:
    """A person who works at the queue, or a program."""

    name: str
    roles: frozenset[Role]
    skills: frozenset[str] = frozenset()  # some tickets need a skill; TRAINED: the person needs no warm-up
    projects: frozenset[str] | None = None  # whose tickets they get and see; None: of all projects


class QueuePolicy(BaseModel):
    """How tickets are handed out and judged. Shares are in [0, 1]. The settings of the queue inherit these fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # s for which a masklet that was sent back is reserved for its maker, if they finished a ticket within this time
    rework_s: float = Field(1800.0, ge=0)
    # a correction is judged by another verifier than the one who asked for it; False: for a team with one verifier
    other_verifier: bool = True
    overlap: int = Field(2, ge=1)  # verdicts on a verify ticket of the overlap share
    overlap_share: float = Field(0.0, ge=0, le=1)  # of the verify tickets, chosen by the hash of their id
    # people who each make the masklet of a track ticket of the makers' share, independently. As with `overlap`, such a
    # ticket waits for ever if there are too few people: see `masklets doctor`
    makers: int = Field(2, ge=1)
    makers_share: float = Field(0.0, ge=0, le=1)  # of the track tickets about a model's masklet, chosen by their id
    gold_share: float = Field(0.0, ge=0, le=1)  # of each person's claims, drawn at random each time, that get gold
    gold_iou: float = Field(0.75, ge=0, le=1)  # mean IoU with the true masklet from which a masklet in gold is right
    # Share of the frames with the object that must have been on screen before the page takes a verdict: for "accept",
    # and for the other verdicts, which name a fault that one frame can show. The page sees to it: a server cannot know
    # what was on a screen, so programs need not watch. The share is stored with each verdict, and leads see it.
    watch_share: float = Field(0.5, ge=0, le=1)
    watch_fault_share: float = Field(0.1, ge=0, le=1)
    watch_least: int = Field(4, ge=0)  # and at least so many frames, or all if there are fewer
    # gold tickets that a new person does first, fewer if there are not enough; 0: no warm-up
    warmup_tickets: int = Field(0, ge=0)
    # share of their last `warmup_tickets` that must be right; below it they get only gold
    warmup_accuracy: float = Field(0.8, ge=0, le=1)


@dataclass(frozen=True, kw_only=True)
class NewTicket:
    """A ticket as the pipeline opens it."""

    ticket_id: str  # made from content, so that opening a batch again changes nothing
    kind: Kind
    video_id: str
    masklet: Masklet | None = None  # to judge or to correct; None: the person starts without a masklet
    phase: str = "auto"  # "auto", "1", "2", "3"
    priority: int = 0  # higher is handed out first
    # JSON object. "prompts": the prompts that the annotator may use, see PROMPTS. "ontology" and "label_at": see
    # `labels`. After a verdict, the queue adds "pinned": the frame_idx that was on screen, the person, their verdict
    # and their reasons.
    payload: str = "{}"
    skill: str | None = None  # the skill that a person needs to get the ticket
    # A verify ticket that a program has decided: accept or reject, and the program's name. Nobody gets the ticket.
    decided: Verdict | None = None
    decided_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewGold:
    """A ticket whose answer is known. Each person gets their own copy, which is not counted in the batch.

    A verify ticket has `expected`, a track ticket `truth`.
    """

    ticket: NewTicket  # its ticket_id is the id of the gold ticket; `priority` and `skill` are not used
    expected: Verdict | None = None
    truth: Masklet | None = None


@dataclass(frozen=True, kw_only=True)
class Gold:
    """A gold ticket, and how many people finished it and were right."""

    gold_id: str
    batch_id: str
    kind: Kind
    video_id: str
    expected: Verdict | None
    done: int
    right: int


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """One unit of human work, as it stands now."""

    ticket_id: str
    batch_id: str
    kind: Kind
    video_id: str
    masklet_id: str | None
    phase: str
    priority: int
    payload: str  # JSON object of the pipeline; after a verdict with "pinned", see `NewTicket`
    state: State
    made_by: str | None  # the person who made the masklet; they may not verify it; None: the model
    needs_lead: bool  # a verifier was unsure, or several verifiers did not agree
    attempt: int  # 1 for a ticket of the pipeline, then one more than in the previous ticket; equal for all makers
    previous_ticket_id: str | None = None  # the ticket that led to this one
    lease_token: int  # fencing token: grows by one at each claim; a write with an older token is rejected
    leased_by: str | None
    expires_at: float | None  # s since the epoch, on the server's clock
    verdict: Verdict | None = None  # of a ticket that is done
    reasons: tuple[Reason, ...] = ()
    finished_by: str | None = None
    next_ticket_id: str | None = None  # the ticket that this one led to
    skill: str | None = None  # the skill that a person needs to get the ticket
    sent_back_by: str | None = None  # the verifier who asked for the correction; another verifier judges it
    rework: bool = False  # about a person's masklet that was sent back; its maker gets the ticket first
    label: str | None = None  # of its object: as the ticket came; once it is done, as it was decided
    attributes: str | None = None  # JSON object, as in storage.records.Masklet
    project: str = ""  # of its batch; "": the unnamed one


@dataclass(frozen=True, kw_only=True)
class RecentAnswer:
    """A ticket that a person finished, with their answer."""

    ticket_id: str
    batch_id: str
    kind: Kind
    video_id: str
    verdict: Verdict | None  # None: the answer was a masklet
    reasons: tuple[Reason, ...]
    finished_at: float  # s since the epoch, on the server's clock
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class HistoryPage:
    """A part of a person's finished tickets, the latest first; ask again with `after=next` until it is None."""

    answers: tuple[RecentAnswer, ...]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class NewComment:
    """A comment on a ticket, as the client sends it. The same comment_id again changes nothing."""

    comment_id: str  # made by the client
    text: str  # at most rules.MAX_TEXT characters
    created_at: str  # ISO 8601, UTC, on the client's clock
    frame_idx: int | None = None  # that it is about
    x: float | None = None  # px of the video, with y and frame_idx: the point that it is about
    y: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comment:
    """A comment on a ticket. A thread of comments goes on in the tickets that follow about the same object."""

    comment_id: str
    ticket_id: str  # that it was written on; "" if only overseers may know it
    person: str
    text: str
    created_at: str  # ISO 8601, UTC, on the client's clock
    frame_idx: int | None
    x: float | None
    y: float | None


@dataclass(frozen=True, kw_only=True)
class NewOperation:
    """One act in a ticket, as the client sends it. The same operation_id again changes nothing."""

    operation_id: str  # made by the client
    kind: str  # one of rules.OPERATION_KINDS
    created_at: str  # ISO 8601, UTC, on the client's clock
    frame_idx: int | None = None
    payload: str = "{}"  # JSON object; a prompt's keys are those of storage.records.Prompt


@dataclass(frozen=True, kw_only=True)
class Submission:
    """How a person finishes a ticket: by a verdict, or by the masklet that they made.

    The page names the last operation that the masklet follows from, and the queue builds it. A program may send it.
    """

    operation_id: str  # made by the client
    created_at: str  # ISO 8601, UTC, on the client's clock
    verdict: Verdict | None = None
    reasons: tuple[Reason, ...] = ()
    masklet: Masklet | None = None
    last_operation_id: str | None = None  # the masklet follows from the ticket's operations up to this; "": from none
    frame_idx: int | None = None  # the frame that was on screen, to show the next person
    seconds: float | None = None  # spent on the ticket, by the client's clock
    # Share of the annotated frames with the object that were on screen, 0 to 1. None: a program, which watches nothing.
    watched: float | None = None
    text: str | None = None  # what the person adds to their reasons, for the next person
    same_as: str | None = None  # with the reason "duplicate": the masklet of the video that shows the same object


@dataclass(frozen=True, kw_only=True)
class FinishResult:
    """What finishing a ticket led to. Over the API, only overseers learn it: others see their answer alone."""

    ticket: Ticket
    next_ticket_id: str | None
    settled: Verdict | None  # ACCEPT: published; REJECT: dropped; None: another ticket follows
    batch_drained: bool


@dataclass(frozen=True, kw_only=True)
class AppendResult:
    """How many of the sent operations the queue stored."""

    stored: int  # new ones
    repeated: int  # the queue had already stored them
    seq: int  # of the last operation of the ticket


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The tickets of one batch, counted."""

    batch_id: str
    opened_at: float  # s since the epoch
    sealed: bool  # the pipeline has sent every ticket
    total: int  # tickets, including those that followed from others
    remaining: int  # tickets not done
    drained: bool  # sealed, and nothing remains
    name: str = ""  # of the folder that its videos came from; "": nobody has named it
    project: str = ""  # that owns it; "": the unnamed one


@dataclass(frozen=True, kw_only=True)
class SettledVideos:
    """How many videos of a batch with open tickets are settled. Videos without tickets do not count."""

    batch_id: str
    project: str
    videos: int
    settled: int  # all their tickets are done
    closed: int  # of these: their result went to the pipeline
    since: float  # s since the epoch: when the last of them were closed, or else when the batch was opened


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """A stage of the pipeline that fails, mostly for one batch, until somebody acts."""

    batch_id: str  # "": the stage works on no batch, as ingest and retraining
    stage: str  # that fails: "collect", "publish", "deliver", ...
    error: str  # one line, of the last attempt
    since: float  # s since the epoch, of the first failure
    project: str = ""  # of the batch


@dataclass(frozen=True, kw_only=True)
class PlannedPhase:
    """One phase of the campaign, and how far it is."""

    phase: str
    state: str  # "done", "current" or "planned"
    masklets: int  # published from tickets of this phase while it was current
    planned_masklets: int | None  # None: no number is planned
    retrainings: int  # rounds that ended in it
    planned_retrainings: int
    project: str = ""  # whose plan it is


@dataclass(frozen=True, kw_only=True)
class SettledTicket:
    """A final decision. The masklet carries its verdict, its verifier and its maker."""

    ticket_id: str
    video_id: str
    verdict: Verdict  # ACCEPT or REJECT
    reasons: tuple[Reason, ...]
    decided_by: str
    masklet: Masklet | None  # None: a track ticket without a masklet was rejected


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """Everything that people decided and did in a batch."""

    batch: Batch
    settled: tuple[SettledTicket, ...]
    operations: tuple[Operation, ...]


@dataclass(frozen=True, kw_only=True)
class ResultPage:
    """A part of a BatchResult; ask again with `after=next` until it is None."""

    batch: Batch
    settled: tuple[SettledTicket, ...]
    operations: tuple[Operation, ...]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class TicketCount:
    """How many tickets of one kind are in one state."""

    kind: Kind
    state: State
    needs_lead: bool
    tickets: int


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What one person finished in the last hour."""

    person: str
    finished: int
    seconds: float | None  # mean a ticket, where the client measured it


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The queue in numbers."""

    counts: tuple[TicketCount, ...]
    paces: tuple[Pace, ...]
    undelivered: int  # drained batches that were not delivered to the pipeline yet


class Scope(StrEnum):
    """What a token permits, within the rights of its person. Reading is always included.

    What only leads and admins may do takes a token without scopes.
    """

    READ = "read"  # only to read
    ANNOTATE = "annotate"  # to claim and work on tickets
    PIPELINE = "pipeline"  # to open batches and add gold


@dataclass(frozen=True, kw_only=True)
class Token:
    """A program's token, as it is shown after it was issued."""

    token_id: str
    scopes: tuple[Scope, ...] | None  # None: everything that the person may do
    created_at: float  # s since the epoch
    expires_at: float | None  # None: until it is revoked


@dataclass(frozen=True, kw_only=True)
class Account:
    """A person, as leads and admins see them."""

    name: str
    roles: tuple[Role, ...]
    skills: tuple[str, ...]
    disabled: bool
    created_at: float  # s since the epoch
    tokens: tuple[Token, ...]


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """A line of the audit."""

    audit_id: int
    at: float  # s since the epoch
    actor: str
    action: str
    subject: str  # a person or a ticket
    detail: str  # JSON object


@dataclass(frozen=True, kw_only=True)
class OtherMasklet:
    """Another object of the same video. The page shows it so that no object is masked twice."""

    masklet_id: str
    settled: Verdict | None  # None: nobody has decided yet
    frame_idx: tuple[int, ...]
    rle: tuple[bytes, ...]
    score: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a page needs to show a video."""

    video_id: str
    height: int  # px
    width: int  # px
    frame_count: int
    fps: float
    name: str = ""  # of the source's file, or in its dataset; "": not known
