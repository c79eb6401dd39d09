"""What the queue holds, and its rules: frozen records, tables and pure functions.

Knows nothing about the database, the network or the clock. The content of a masklet is `storage.records.Masklet`:
a candidate comes from the pipeline, and what a person makes of it is another Masklet with its own id and its parent.

    QueueError
    ├── NoSuchTicket · NoSuchBatch · NoSuchMasklet · NoSuchVideo · NoSuchFrame
    ├── TooLate              what followed from a ticket is in other hands: it cannot be taken back
    ├── LeaseLost            somebody else may hold the ticket now; what was sent is kept beside it
    ├── NotAllowed           the person's roles, or the ticket's phase, do not permit it
    ├── BatchSealed          tickets cannot be added any more
    ├── NotLoggedIn · WrongPassword · TooManyLogins
    ├── LoginRefused · ProviderUnreachable   a login through a provider failed: for its content, for want of an answer
    └── QueueUnreachable     (client) no answer in the time that the caller would wait
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite, sqrt

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


class TooLate(QueueError):
    """What followed from this ticket is in other hands already."""


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


class LoginRefused(QueueError):
    """This login was begun elsewhere or too long ago; begin again."""

    account: str | None = None  # the account that was refused, where there is one


class ProviderUnreachable(QueueError):
    """The provider that people log in with does not answer."""


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
    skills: frozenset[str] = frozenset()  # what they know that some tickets ask for; TRAINED: they need no warm-up


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How tickets are handed out and judged. Shares are in [0, 1]."""

    rework_s: float = 1800.0  # a masklet that was sent back waits this long for its maker, if they worked within it
    other_verifier: bool = True  # what was made on a verifier's request goes to another one; False for a single one
    overlap: int = 2  # verdicts on a verify ticket of the overlap share
    overlap_share: float = 0.0  # of the verify tickets, chosen by the hash of their id
    makers: int = 2  # people who make the masklet of a track ticket of the makers' share, each without the others'
    makers_share: float = 0.0  # of the track tickets about a masklet that no person has made yet, chosen likewise
    gold_share: float = 0.0  # of each person's claims, drawn anew each time, that get a gold ticket
    gold_iou: float = 0.75  # a masklet made in a gold ticket is right from this mean IoU with the true one
    warmup_tickets: int = 0  # gold tickets that a new person does before any other, or as many as there are; 0: none
    warmup_accuracy: float = 0.8  # share of their last `warmup_tickets` that must be right; below it, only gold again


@dataclass(frozen=True, kw_only=True)
class NewTicket:
    """A ticket as the pipeline opens it."""

    ticket_id: str  # made from content, so that opening a batch again changes nothing
    kind: Kind
    video_id: str
    masklet: Masklet | None = None  # what is judged or corrected; None where a person begins from nothing
    phase: str = "auto"  # "auto", "1", "2", "3"
    priority: int = 0  # higher is handed out first
    payload: str = "{}"  # JSON object; "prompts" lists what an annotator may prompt with, see PROMPTS; the queue adds
    # "pinned" to a ticket that follows from a verdict: the frame_idx that was on screen, by whom, the reasons and
    # that person's verdict
    skill: str | None = None  # what a person must know to get it; None: nothing


@dataclass(frozen=True, kw_only=True)
class NewGold:
    """A ticket whose answer is known. Each person gets a copy of their own, which counts nowhere in the batch.

    A verify ticket has `expected`, a track ticket `truth`.
    """

    ticket: NewTicket  # its ticket_id is the id of the gold ticket; `priority` and `skill` are not used
    expected: Verdict | None = None
    truth: Masklet | None = None


@dataclass(frozen=True, kw_only=True)
class Gold:
    """A gold ticket and how people did."""

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
    payload: str  # JSON object, as the pipeline gave it
    state: State
    made_by: str | None  # the person who made the masklet, who never verifies it; None for the model's
    needs_lead: bool  # a verifier was unsure, or several did not agree
    attempt: int  # 1 for a ticket of the pipeline, one more for each that follows; the same for all makers of a masklet
    previous_ticket_id: str | None = None  # the ticket that led to this one
    lease_token: int  # fencing: one more at each claim; a write with an older one is refused
    leased_by: str | None
    expires_at: float | None  # s since the epoch, on the server's clock
    verdict: Verdict | None = None  # of a ticket that is done
    reasons: tuple[Reason, ...] = ()
    finished_by: str | None = None
    next_ticket_id: str | None = None  # the ticket that this one led to
    skill: str | None = None  # what a person must know to get it
    sent_back_by: str | None = None  # the verifier who asked for what was made: somebody else verifies it
    rework: bool = False  # it is about a person's masklet that was sent back; its maker is asked first


@dataclass(frozen=True, kw_only=True)
class Recent:
    """A ticket that a person finished, and how."""

    ticket_id: str
    batch_id: str
    kind: Kind
    video_id: str
    verdict: Verdict | None  # None: with a masklet
    reasons: tuple[Reason, ...]
    finished_at: float  # s since the epoch, on the server's clock
    seconds: float | None


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
class Share:
    """A proportion that was counted, with its 95 % Wilson confidence interval."""

    right: int
    of: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class BatchFigures:
    """How far the tickets of one kind in one batch are."""

    batch_id: str
    kind: Kind
    open: int
    leased: int
    done: int
    per_hour: float  # tickets done, at the pace of the last quarter of an hour
    expected_s: float | None  # until what is open now is done at that pace, followers not foreseen; None: no pace


@dataclass(frozen=True, kw_only=True)
class Work:
    """What people did, summed over one person, phase or checkpoint. None where nothing was counted."""

    name: str  # of the person, the phase or the checkpoint
    answers: int  # tickets finished, a vote on one of several verdicts included
    verdicts: dict[str, int]  # by verdict; "made" is a masklet
    seconds_per_ticket: float | None  # where the client measured it
    seconds_per_frame: float | None  # of masklets that people made, an annotated frame (6 fps)
    clicks_per_clicked_frame: float | None
    edited_frames_share: float | None  # frames that they edited, of the annotated ones of what they submitted
    first_pass: Share | None  # verdicts on masklets that nobody had judged or sent back before: accepted
    agreement: float | None  # mean share of the others who said the same, on tickets that took several answers
    masklet_iou: float | None  # mean IoU over time of a masklet with those of other people of the same object


@dataclass(frozen=True, kw_only=True)
class GoldFigures:
    """How often a person was right on gold tickets."""

    person: str
    kind: Kind
    accuracy: Share
    score: float  # mean: 0 or 1 for a verdict, the IoU for a masklet


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The queue in figures: of the whole, and by person, maker, phase and checkpoint. Gold is only in `gold`."""

    at: float  # s since the epoch, when they were counted
    batches: tuple[BatchFigures, ...]
    total: Work
    people: tuple[Work, ...]
    makers: tuple[Work, ...]  # the verdicts on what each person made; "" is the model
    phases: tuple[Work, ...]
    checkpoints: tuple[Work, ...]
    gold: tuple[GoldFigures, ...]
    undelivered: int


class Scope(StrEnum):
    """What a token may be used for, within what its person may do. Reading is always included."""

    READ = "read"  # only to read
    ANNOTATE = "annotate"  # to claim and work on tickets
    PIPELINE = "pipeline"  # to open batches and add gold


@dataclass(frozen=True, kw_only=True)
class Token:
    """A program's token, as it is shown after it was issued."""

    token_id: str
    scopes: tuple[Scope, ...] | None  # None: whatever the person may do
    created_at: float  # s since the epoch
    expires_at: float | None  # None: until it is revoked


@dataclass(frozen=True, kw_only=True)
class Account:
    """A person as leads and admins see them."""

    name: str
    roles: tuple[Role, ...]
    skills: tuple[str, ...]
    disabled: bool
    created_at: float  # s since the epoch
    tokens: tuple[Token, ...]


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A line of the audit."""

    audit_id: int
    at: float  # s since the epoch
    actor: str
    action: str
    subject: str  # a person or a ticket
    detail: str  # JSON object


@dataclass(frozen=True, kw_only=True)
class Other:
    """Another object of the same video, to see what is masked already."""

    masklet_id: str
    settled: Verdict | None  # None: nobody has decided yet
    frame_idx: tuple[int, ...]
    rle: tuple[bytes, ...]
    score: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a page must know to show a video."""

    video_id: str
    height: int  # px
    width: int  # px
    frame_count: int
    fps: float


HANDED_OUT = (Kind.VERIFY, Kind.TRACK, Kind.SELECT)  # first, unless the claim says otherwise: what is nearly done

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

# Who sees every ticket, video and mask.
OVERSEERS = frozenset({Role.LEAD, Role.ADMIN, Role.PIPELINE})
TRAINED = "trained"  # the skill of whoever needs no warm-up
GOLD_LANE = "gold"

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
# The queue adds "verdict", "unsubmit" and "submit", whose `masks` (by frame) do not follow from what was done before.

# The keys of an operation's payload that show which prompt it was, for the kind "prompt".
PROMPT_KEYS = {"points_xy": "click", "box_xyxy": "box", "mask_rle": "mask"}

ID_PATTERN = r"^[A-Za-z0-9](?:\.?[A-Za-z0-9_:+@-])*$"  # no slash and no "..": an id is never a path
ID_LENGTH = 128
MAX_SIDE_PX = 16_384
MAX_DEPTH = 32  # of a payload's lists and objects: whoever reads it later must not run out of stack
MAX_S = 1e9  # spent on a ticket, by a client's clock; sums of it stay finite


def check_id(value: str, what: str = "id") -> str:
    """Return `value`; ValueError unless it is an id: letters, digits and _ : + @ - and single dots."""
    if len(value) > ID_LENGTH or not re.fullmatch(ID_PATTERN, value):
        raise ValueError(f"not a {what}: {value[:80]!r}")
    return value


def check_payload(value: str, what: str = "payload") -> str:
    """Return `value`; ValueError unless it is a JSON object of at most MAX_DEPTH levels."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError(f"{what} is not a JSON object: {value[:80]!r}")
    level: list[object] = [parsed]
    for _ in range(MAX_DEPTH):
        level = [part for each in level for part in _parts(each)]
    if level:
        raise ValueError(f"{what} is nested more than {MAX_DEPTH} deep: {value[:80]!r}")
    return value


def _parts(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


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
    if Role.LEAD in person.roles:
        return None
    if ticket.skill is not None and ticket.skill not in person.skills:
        return f"this ticket asks for the skill {ticket.skill}"
    if ticket.kind is Kind.VERIFY and ticket.sent_back_by == person.name:
        return f"{person.name} sent this masklet back: somebody else verifies what became of it"
    return None


def lane_of(*, needs_lead: bool, skill: str | None) -> str:
    """What somebody must have to be handed a ticket, beside the role, as one word that an index can hold."""
    return "lead" if needs_lead else "" if skill is None else f"skill:{skill}"


def lanes_of(person: Person) -> list[str]:
    """The lanes that a person is handed tickets from. A lead takes a ticket of another skill by its id only."""
    lead = ["lead"] if Role.LEAD in person.roles else []
    return ["", *lead, *(lane_of(needs_lead=False, skill=skill) for skill in sorted(person.skills))]


def is_in_share(word: str, share: float) -> bool:
    """Whether the hash of an id falls into a share in [0, 1]: the same each time, anywhere."""
    return int(content_id(word, "share"), 16) < share * 16**16


def masklet_iou(made: Masklet, truth: Masklet) -> float:
    """Mean IoU over time, in [0, 1], over the frames of either that show the object in either; 1 if none does.

    A frame that one of them lacks counts as empty there. Another size is another video: 0.
    """
    if (made.height, made.width) != (truth.height, truth.width):
        return 0.0
    a, b = (
        {f: counts for f, counts, area in zip(m.frame_idx, m.rle, m.area_px, strict=True) if area}
        for m in (made, truth)
    )
    shown = a.keys() | b.keys()
    both = a.keys() & b.keys()
    same = sum(float(rle.iou([a[f]], [b[f]], made.height, made.width)[0, 0]) for f in both)
    return same / len(shown) if shown else 1.0


def wilson(right: int, of: int) -> Share:
    """A proportion with its 95 % confidence interval. Source: Wilson 1927, the score interval."""
    if not of:
        return Share(right=0, of=0, low=0.0, high=1.0)
    z = 1.959964
    p, weight = right / of, 1 + z * z / of
    centre = (p + z * z / (2 * of)) / weight
    half = z / weight * sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return Share(right=right, of=of, low=max(0.0, centre - half), high=min(1.0, centre + half))


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What one person's operations in a track ticket amount to."""

    clicks: int
    clicked_frames: int
    edited_frames: int


def effort_of(operations: Sequence[Operation], frames: Iterable[int]) -> dict[str, Effort]:
    """What each person put into a masklet, from its ticket's operations, in order. frames: its annotated ones.

    This defines what the figures count and what is published with a masklet:

    - A click is a point that was placed or moved, or a box that was drawn. It was spent, so undoing it does not take it
      back. A prompt holds all that stands on its frame, of which what stood there before is not counted again.
    - An edited frame is one on which a prompt, a stroke or "absent" stands in the end, neither undone nor cleared, as
      in the draft. It is the edited frame of whoever edited it last.
    """
    acts = [(operation, json.loads(operation.payload)) for operation in operations]
    clicks: dict[str, Counter[int]] = defaultdict(Counter)
    on_frame: dict[int, list[tuple[str, dict[str, object]]]] = defaultdict(list)  # prompts, and {} where they ended
    undone: set[object] = set()
    for o, said in acts:
        about = said.get("operation_id")
        if o.kind in ("undo", "redo") and isinstance(about, str):
            (undone.add if o.kind == "undo" else undone.discard)(about)
        elif o.kind == "prompt" and o.frame_idx is not None:
            before = next((prompt for by, prompt in reversed(on_frame[o.frame_idx]) if by not in undone), {})
            clicks[o.person][o.frame_idx] += _clicks_from(before, said)
            on_frame[o.frame_idx].append((o.operation_id, said))
        elif o.kind in ("stroke", "clear") and o.frame_idx is not None:
            on_frame[o.frame_idx].append((o.operation_id, {}))
        elif o.kind == "absent":
            for frame in set(_emptied(said, on_frame)):
                on_frame[frame].append((o.operation_id, {}))
    edited: dict[int, str] = {}
    locked: set[int] = set()
    annotated = sorted(frames)
    for o, said in acts:
        if o.operation_id in undone:
            continue
        if o.kind == "absent":
            edited |= dict.fromkeys(set(_emptied(said, annotated)) - locked, o.person)
        elif o.frame_idx is None:
            continue
        elif o.kind == "lock":
            (locked.add if said.get("on", True) else locked.discard)(o.frame_idx)
        elif o.kind in ("prompt", "stroke"):
            edited[o.frame_idx] = o.person
        elif o.kind == "clear":
            edited.pop(o.frame_idx, None)
    last = Counter(edited.values())
    return {
        person: Effort(
            clicks=clicks[person].total(),
            clicked_frames=sum(1 for n in clicks[person].values() if n),
            edited_frames=last[person],
        )
        for person in sorted({*clicks, *last})
    }


def _clicks_from(before: Mapping[str, object], now: Mapping[str, object]) -> int:
    """The clicks that led from one prompt of a frame to the next: fewer points, and as many boxes, took none."""
    old, new = (len(points) if isinstance(points := prompt.get("points_xy"), list) else 0 for prompt in (before, now))
    boxes = int(bool(now.get("box_xyxy")) and now.get("box_xyxy") != before.get("box_xyxy"))
    moved = int(bool(new) and new == old and not boxes)
    return max(0, new - old) + moved + boxes


def _emptied(said: Mapping[str, object], frames: Iterable[int]) -> list[int]:
    """Those of `frames` on which "absent" says that the object is not there; none if it is malformed."""
    first, last = said.get("first"), said.get("last")
    if not isinstance(first, int) or not isinstance(last, int):
        return []
    return [frame for frame in frames if first <= frame <= last]


def check_new_ticket(ticket: NewTicket) -> None:
    """ValueError if the pipeline may not open this ticket."""
    check_id(ticket.ticket_id, "ticket_id")
    check_id(ticket.video_id, "video_id")
    if ticket.skill is not None:
        check_id(ticket.skill, "skill")
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


def check_gold(gold: NewGold) -> None:
    """ValueError if this cannot be a gold ticket."""
    check_new_ticket(gold.ticket)
    if gold.ticket.kind is Kind.VERIFY and gold.expected is not None and gold.truth is None:
        if gold.expected in (Verdict.ACCEPT, Verdict.REFINE, Verdict.REJECT):
            return
    elif gold.ticket.kind is Kind.TRACK and gold.truth is not None and gold.expected is None:
        check_masklet(gold.truth)
        return
    raise ValueError(f"gold {gold.ticket.ticket_id}: a verify ticket has an expected verdict, a track ticket a truth")


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
    for field in ("score", "object_score", "stability"):
        if not all(map(isfinite, getattr(masklet, field))):
            raise ValueError(f"{name}: {field} must be finite")
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
        if not isinstance(payload.get("operation_id"), str):
            raise ValueError(f"{operation.kind} of which operation_id? {operation.payload[:80]!r}")
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
    if outcome.seconds is not None and not 0 <= outcome.seconds <= MAX_S:
        raise ValueError(f"seconds must be between 0 and {MAX_S:g}, not {outcome.seconds}")
    if made is not None:
        check_masklet(made)
        if made.video_id != ticket.video_id:
            raise ValueError(f"the ticket is about video {ticket.video_id}, the masklet about {made.video_id}")
        if made.masklet_id == ticket.masklet_id:
            raise ValueError(f"masklet {made.masklet_id} is what the ticket was about: the new one needs its own id")


def next_ticket_id(ticket: Ticket, kind: Kind) -> str:
    """The id of the ticket that follows `ticket`: the same each time."""
    return content_id(ticket.ticket_id, kind.value, str(ticket.attempt + 1))
