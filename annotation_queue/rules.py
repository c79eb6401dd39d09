"""The queue's rules: tables and pure functions.

What each finished ticket leads to, what a person may do, and what is valid input. Knows no database, network or clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from annotation_queue.errors import NotAllowed
from annotation_queue.records import Kind, NewGold, NewOperation, NewTicket, Person, Role, Submission, Ticket
from storage.masklet_rules import form_problems
from storage.records import Masklet, Verdict, content_id

HANDED_OUT = (
    Kind.VERIFY,
    Kind.TRACK,
    Kind.SELECT,
)  # order of kinds, unless the claim says otherwise: nearly finished work first


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


TRAINED = "trained"  # the skill of a person who needs no warm-up


GOLD_LANE = "gold"


# What a phase may allow an annotator to prompt with: the words of the list `prompts` in a ticket's payload.
PROMPTS = ("click", "box", "mask", "stroke", "propagate")


# The kinds of operations of an annotator, each with the keys of its payload:
ACTS = (
    "prompt",  # points_xy and labels, box_xyxy: everything that prompts on the frame now
    "stroke",  # mask_rle: the frame's mask after a brush, an eraser or a polygon
    "propagate",  # direction: "forward", "backward" or "both"
    "lock",  # on: true if no propagation may change the frame
    "absent",  # first, last: the object is absent from the first to the last frame, both included
    "clear",  # removes the frame's prompts; its mask stays
    "undo",  # operation_id
    "redo",  # operation_id
)


# The keys of an operation's payload that show which prompt it was, for the kind "prompt".
PROMPT_KEYS = {"points_xy": "click", "box_xyxy": "box", "mask_rle": "mask"}


ID_PATTERN = r"^[A-Za-z0-9](?:\.?[A-Za-z0-9_:+@-])*$"  # no slash and no "..": an id is never a path


ID_LENGTH = 128


MAX_SIDE_PX = 16_384


MAX_DEPTH = 32  # of nested lists and objects in a payload, so that no reader runs out of stack


MAX_S = 1e9  # s spent on a ticket, by a client's clock; keeps the sums finite


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
    """The kinds of tickets that a person with these roles may hold."""
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
    """What a ticket asks for besides the role, as one word that an index can hold."""
    return "lead" if needs_lead else "" if skill is None else f"skill:{skill}"


def lanes_of(person: Person) -> list[str]:
    """The lanes that a person gets tickets from. A lead can take a ticket of another skill by its id only."""
    lead = ["lead"] if Role.LEAD in person.roles else []
    return ["", *lead, *(lane_of(needs_lead=False, skill=skill) for skill in sorted(person.skills))]


def is_in_share(word: str, share: float) -> bool:
    """Whether the hash of an id falls into a share in [0, 1]: the same answer on every machine."""
    return int(content_id(word, "share"), 16) < share * 16**16


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
    if not (0 < masklet.height <= MAX_SIDE_PX and 0 < masklet.width <= MAX_SIDE_PX):
        raise ValueError(f"{name}: size {masklet.height}x{masklet.width}")
    if problems := form_problems(masklet):
        raise ValueError(f"{name}: {next(iter(problems.values()))}")


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


def check_submission(ticket: Ticket, outcome: Submission) -> None:
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
