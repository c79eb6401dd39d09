"""What the queue holds, and its rules: frozen records, tables and pure functions.

Knows nothing about the database, the network or the clock. The content of a masklet is `storage.records.Masklet`:
a candidate comes from the pipeline, and what a person makes of it is another Masklet with its own id and its parent.

    QueueError
    ├── NoSuchTicket · NoSuchBatch · NoSuchMasklet · NoSuchVideo · NoSuchFrame
    ├── LeaseLost            somebody else may hold the ticket now; what was sent is kept beside it
    ├── NotAllowed           the person's roles, or the ticket's phase, do not permit it
    ├── BatchSealed          tickets cannot be added any more
    ├── NotLoggedIn · WrongPassword · TooManyLogins
    └── QueueUnreachable     (client) no answer in the time that the caller would wait
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum

from storage import rle
from storage.records import STRIDE, Masklet, Operation, Verdict, content_id

__all__ = ["Masklet", "Operation", "Verdict"]


class QueueError(Exception):
    """The queue refused."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or (type(self).__doc__ or "").strip())


class NoSuchTicket(QueueError):
    """There is no such ticket."""


class NoSuchBatch(QueueError):
    """There is no such batch."""


class NoSuchMasklet(QueueError):
    """The ticket has no masklet."""


class NoSuchVideo(QueueError):
    """There is no such video."""


class NoSuchFrame(QueueError):
    """The video has no such frame."""


class LeaseLost(QueueError):
    """The lease on this ticket is over; what was sent is kept beside it, and somebody else decides."""


class NotAllowed(QueueError):
    """This person may not do that."""


class BatchSealed(QueueError):
    """The batch is sealed: no ticket can be added to it."""


class NotLoggedIn(QueueError):
    """Log in first."""


class WrongPassword(QueueError):
    """The name or the password is wrong."""


class TooManyLogins(QueueError):
    """Too many failed logins; wait a few minutes."""


class QueueUnreachable(QueueError):
    """The queue does not answer."""


class Kind(StrEnum):
    """What a ticket asks a person to do."""

    SELECT = "select"  # find a challenging object in a video
    TRACK = "track"  # make its masklet right in every frame
    VERIFY = "verify"  # judge a masklet that somebody else, or the model, made


class State(StrEnum):
    """Where a ticket stands."""

    OPEN = "open"
    LEASED = "leased"
    DONE = "done"


class Role(StrEnum):
    """What a person may do."""

    ANNOTATOR = "annotator"  # select and track tickets
    VERIFIER = "verifier"  # verify tickets
    LEAD = "lead"  # every ticket, and those that a verifier was unsure of
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
    """Somebody who works at the queue, or a program that does."""

    name: str
    roles: frozenset[Role]


@dataclass(frozen=True, kw_only=True)
class NewTicket:
    """A ticket as the pipeline opens it."""

    ticket_id: str  # made from content, so that opening a batch again changes nothing
    kind: Kind
    video_id: str
    masklet: Masklet | None = None  # what is judged or corrected; None where a person begins from nothing
    phase: str = "auto"  # "auto", "1", "2", "3"
    priority: int = 0  # higher is handed out first
    payload: str = "{}"  # JSON object; "prompts" lists what an annotator may prompt with, see PROMPTS


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
    payload: str  # JSON object, as the pipeline gave it
    state: State
    made_by: str | None  # the person who made the masklet, who never verifies it; None for the model's
    needs_lead: bool  # a verifier was unsure
    attempt: int  # 1 for a ticket of the pipeline, one more for each that follows from it
    previous_ticket_id: str | None = None  # the ticket that led to this one
    lease_token: int  # fencing: one more at each claim; a write with an older one is refused
    leased_by: str | None
    expires_at: float | None  # s since the epoch, on the server's clock
    verdict: Verdict | None = None  # of a ticket that is done
    reasons: tuple[Reason, ...] = ()
    finished_by: str | None = None
    next_ticket_id: str | None = None  # the ticket that this one led to


@dataclass(frozen=True, kw_only=True)
class NewOperation:
    """One act in a ticket, as the client sends it. The same operation_id again changes nothing."""

    operation_id: str  # made by the client
    kind: str  # one of ACTS
    created_at: str  # ISO 8601, UTC, on the client's clock
    frame_idx: int | None = None
    payload: str = "{}"  # JSON object; a prompt's keys are those of storage.records.Prompt


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a person finishes a ticket: a verdict, or the masklet that they made."""

    operation_id: str  # made by the client
    created_at: str  # ISO 8601, UTC, on the client's clock
    verdict: Verdict | None = None
    reasons: tuple[Reason, ...] = ()
    masklet: Masklet | None = None
    frame_idx: int | None = None  # the frame that was on screen, to show the next person
    seconds: float | None = None  # spent on the ticket, by the client's clock


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What finishing a ticket led to."""

    ticket: Ticket
    next_ticket_id: str | None
    settled: Verdict | None  # ACCEPT: published; REJECT: dropped; None: another ticket follows
    batch_drained: bool


@dataclass(frozen=True, kw_only=True)
class Appended:
    """What became of the operations that were sent."""

    stored: int  # new ones
    repeated: int  # the queue had them already
    seq: int  # of the last operation of the ticket


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The tickets of one pipeline run, counted."""

    batch_id: str
    sealed: bool  # the pipeline has sent every ticket
    total: int  # tickets, those that followed from others included
    remaining: int  # tickets not done
    drained: bool  # sealed, and nothing remains


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A decision that stands: the masklet carries its verdict, who gave it and who made it."""

    ticket_id: str
    video_id: str
    verdict: Verdict  # ACCEPT or REJECT
    reasons: tuple[Reason, ...]
    decided_by: str
    masklet: Masklet | None  # None where nobody made one: a track ticket from nothing, rejected


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """Everything that people decided and did in a batch."""

    batch: Batch
    settled: tuple[Settled, ...]
    operations: tuple[Operation, ...]


@dataclass(frozen=True, kw_only=True)
class ResultPage:
    """A part of a BatchResult; ask again with `after=next` until it is None."""

    batch: Batch
    settled: tuple[Settled, ...]
    operations: tuple[Operation, ...]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class Count:
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

    counts: tuple[Count, ...]
    paces: tuple[Pace, ...]
    undelivered: int  # drained batches that the pipeline has not been told of


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a page must know to show a video."""

    video_id: str
    height: int  # px
    width: int  # px
    frame_count: int
    fps: float


# What each finished ticket leads to; None for the verdict stands for a masklet that a person made.
NEXT: dict[tuple[Kind, Verdict | None], Kind | None] = {
    (Kind.SELECT, None): Kind.TRACK,
    (Kind.SELECT, Verdict.REJECT): None,  # settled: nothing challenging is left in this video
    (Kind.TRACK, None): Kind.VERIFY,
    (Kind.TRACK, Verdict.REJECT): None,  # settled: cannot be tracked, dropped
    (Kind.VERIFY, Verdict.ACCEPT): None,  # settled: published
    (Kind.VERIFY, Verdict.REFINE): Kind.TRACK,
    (Kind.VERIFY, Verdict.REJECT): None,  # settled: dropped
    (Kind.VERIFY, Verdict.UNSURE): Kind.VERIFY,  # a lead decides
}

# Which tickets a role may hold.
KINDS_OF: dict[Role, frozenset[Kind]] = {
    Role.ANNOTATOR: frozenset({Kind.SELECT, Kind.TRACK}),
    Role.VERIFIER: frozenset({Kind.VERIFY}),
    Role.LEAD: frozenset(Kind),
    Role.ADMIN: frozenset(),
    Role.PIPELINE: frozenset(),
}

# What a phase may allow an annotator to prompt with: the words of the list `prompts` in a ticket's payload.
PROMPTS = ("click", "box", "mask", "stroke", "propagate")

# What an annotator does in a ticket, and what the payload says of it beside the operation's frame_idx:
ACTS = (
    "prompt",  # points_xy and labels, box_xyxy: all that stands on the frame now
    "stroke",  # mask_rle: the frame's mask after a brush, an eraser or a polygon
    "propagate",  # direction: "forward", "backward" or "both"
    "lock",  # on: whether no propagation may change the frame
    "absent",  # first, last: the object is not there on these frames, both included
    "clear",  # the frame's prompts do not stand any more; its mask stays
    "undo",  # operation_id
    "redo",  # operation_id
)

# The keys of an operation's payload that show which prompt it was, for the kind "prompt".
PROMPT_KEYS = {"points_xy": "click", "box_xyxy": "box", "mask_rle": "mask"}

ID_PATTERN = r"^[A-Za-z0-9](?:\.?[A-Za-z0-9_:+@-])*$"  # no slash and no "..": an id is never a path
ID_LENGTH = 128
MAX_SIDE_PX = 16_384


def check_id(value: str, what: str = "id") -> str:
    """Return `value`; ValueError unless it is an id: letters, digits and _ : + @ - and single dots."""
    if len(value) > ID_LENGTH or not re.fullmatch(ID_PATTERN, value):
        raise ValueError(f"not a {what}: {value[:80]!r}")
    return value


def check_payload(value: str, what: str = "payload") -> str:
    """Return `value`; ValueError unless it is a JSON object."""
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError(f"{what} is not a JSON object: {value[:80]!r}")
    return value


def kinds_of(roles: frozenset[Role]) -> frozenset[Kind]:
    """The kinds of tickets that somebody with these roles may hold."""
    return frozenset[Kind]().union(*(KINDS_OF[role] for role in roles))


def why_not(person: Person, ticket: Ticket) -> str | None:
    """One line saying why `person` may not hold `ticket`, or None if they may."""
    if ticket.kind not in kinds_of(person.roles):
        return f"{person.name} has no role for {ticket.kind} tickets"
    if ticket.kind is Kind.VERIFY and ticket.made_by == person.name:
        return f"{person.name} made this masklet: somebody else verifies it"
    if ticket.needs_lead and Role.LEAD not in person.roles:
        return "a verifier was unsure of this masklet: a lead decides"
    return None


def check_new_ticket(ticket: NewTicket) -> None:
    """ValueError if the pipeline may not open this ticket."""
    check_id(ticket.ticket_id, "ticket_id")
    check_id(ticket.video_id, "video_id")
    payload = json.loads(check_payload(ticket.payload))
    prompts = payload.get("prompts", [])
    if not isinstance(prompts, list) or any(prompt not in PROMPTS for prompt in prompts):
        raise ValueError(f"ticket {ticket.ticket_id}: prompts must be among {', '.join(PROMPTS)}, not {prompts!r}")
    if ticket.masklet is None:
        if ticket.kind is Kind.VERIFY:
            raise ValueError(f"verify ticket {ticket.ticket_id} has no masklet")
        return
    if ticket.masklet.video_id != ticket.video_id:
        raise ValueError(f"ticket {ticket.ticket_id} is about {ticket.video_id}, its masklet about another video")
    check_masklet(ticket.masklet)


def check_masklet(masklet: Masklet) -> None:
    """ValueError unless ids, sizes, lists and run lengths of a masklet agree."""
    check_id(masklet.masklet_id, "masklet_id")
    check_id(masklet.video_id, "video_id")
    name = f"masklet {masklet.masklet_id}"
    frames = masklet.frame_idx
    if not frames:
        raise ValueError(f"{name} has no frames")
    in_order = all(a < b for a, b in zip(frames, frames[1:], strict=False))
    if frames[0] < 0 or not in_order or any(i % STRIDE for i in frames):
        raise ValueError(f"{name}: frame_idx must be increasing multiples of {STRIDE}")
    for field in ("rle", "area_px", "score", "object_score", "stability"):
        if len(getattr(masklet, field)) != len(frames):
            raise ValueError(f"{name}: {len(getattr(masklet, field))} values of {field} for {len(frames)} frames")
    if not (0 < masklet.height <= MAX_SIDE_PX and 0 < masklet.width <= MAX_SIDE_PX):
        raise ValueError(f"{name}: size {masklet.height}x{masklet.width}")
    for frame_idx, counts in zip(frames, masklet.rle, strict=True):
        if problem := rle.check(counts, masklet.height, masklet.width):
            raise ValueError(f"{name}, frame {frame_idx}: {problem}")


def check_operation(ticket: Ticket, operation: NewOperation) -> None:
    """ValueError for a malformed operation; NotAllowed for a prompt that the ticket's phase does not permit."""
    check_id(operation.operation_id, "operation_id")
    if operation.kind not in ACTS:
        raise ValueError(f"not a kind of operation: {operation.kind[:40]!r}")
    payload = json.loads(check_payload(operation.payload))
    allowed = json.loads(ticket.payload).get("prompts")
    if operation.kind in ("undo", "redo"):
        return
    if ticket.kind is Kind.VERIFY:
        raise NotAllowed(f"a verify ticket takes a verdict, not a {operation.kind}")
    if allowed is None:
        return
    used = {word for key, word in PROMPT_KEYS.items() if payload.get(key)} if operation.kind == "prompt" else set()
    used |= {operation.kind} & set(PROMPTS)
    if refused := sorted(used - set(allowed)):
        raise NotAllowed(f"phase {ticket.phase} does not allow {', '.join(refused)} in this ticket")


def check_outcome(ticket: Ticket, outcome: Outcome) -> None:
    """ValueError if `outcome` cannot finish `ticket`."""
    check_id(outcome.operation_id, "operation_id")
    made = outcome.masklet
    if (outcome.verdict is None) == (made is None):
        raise ValueError("finish with a verdict or with a masklet: one of the two")
    if (ticket.kind, outcome.verdict) not in NEXT:
        answer = outcome.verdict or "a masklet"
        raise ValueError(f"a {ticket.kind} ticket cannot be finished with {answer}")
    if outcome.verdict is Verdict.REJECT and not outcome.reasons:
        raise ValueError("a rejection needs a reason")
    if outcome.verdict is Verdict.UNSURE and ticket.needs_lead:
        raise ValueError("a verifier was unsure already: a lead decides")
    if made is not None:
        check_masklet(made)
        if made.video_id != ticket.video_id:
            raise ValueError(f"the ticket is about video {ticket.video_id}, the masklet about {made.video_id}")
        if made.masklet_id == ticket.masklet_id:
            raise ValueError(f"masklet {made.masklet_id} is what the ticket was about: the new one needs its own id")


def next_ticket_id(ticket: Ticket, kind: Kind) -> str:
    """The id of the ticket that follows `ticket`: the same each time."""
    return content_id(ticket.ticket_id, kind.value, str(ticket.attempt + 1))
