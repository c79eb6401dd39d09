"""The queue's rules: tables and pure functions.

What each finished ticket leads to, what a person may do, and what is valid input. Knows no database, network or clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from annotation_queue import labels
from annotation_queue.errors import NotAllowed
from annotation_queue.records import (
    PROJECT_PATTERN,
    Kind,
    NewComment,
    NewGold,
    NewOperation,
    NewTicket,
    Person,
    Reason,
    Role,
    Submission,
    Ticket,
    VideoInfo,
)
from storage.masklet_rules import masklet_problems
from storage.records import Masklet, Verdict, content_id

# The order in which claims try the kinds, unless the client gives another order: nearly finished work first.
HANDED_OUT = (Kind.VERIFY, Kind.TRACK, Kind.SELECT)

# What each finished ticket leads to. The verdict None means that the person made a masklet.
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
OVERSEERS = frozenset({Role.LEAD, Role.ADMIN, Role.PIPELINE})  # roles that see every ticket, video and mask
TRAINED = "trained"  # the skill of a person who needs no warm-up
GOLD_LANE = "gold"

# The prompts that a phase may allow. They are the words of the list `prompts` in a ticket's payload.
PROMPTS = ("click", "box", "mask", "stroke", "propagate")

# The kinds of an annotator's operations, each with the keys of its payload. The queue itself adds the kinds "verdict",
# "submit" and "unsubmit".
OPERATION_KINDS = (
    "prompt",  # points_xy and labels, box_xyxy: all prompts that the frame now has
    "stroke",  # mask_rle: the frame's mask after a brush, an eraser or a polygon
    "propagate",  # direction: "forward", "backward" or "both"; last: the frame that it does not go beyond, if there is
    # one; first: the same for the backward half of "both"
    "stop",  # operation_id: the propagation that ends here; last: the last of its frames that the page had then;
    # spare: a frame that it does not change, because a person locked the mask from before
    "lock",  # on: true if no propagation may change the frame
    "absent",  # first, last: the object is absent from the first to the last frame, both included
    "clear",  # takes all edits of the frame back; its mask is again the one from before them
    "label",  # label: the class of the object, or null; attributes: by name. Both replace what was chosen before
    "undo",  # operation_id
    "redo",  # operation_id
)

# For the kind "prompt": the payload's keys, and the word of PROMPTS that each one stands for.
PROMPT_KEYS = {"points_xy": "click", "box_xyxy": "box", "mask_rle": "mask"}

ID_PATTERN = r"^[A-Za-z0-9](?:\.?[A-Za-z0-9_:+@-])*$"  # no slash and no "..": an id is never a path
ID_LENGTH = 128
MAX_SIDE_PX = 16_384
MAX_DEPTH = 32  # levels of lists and objects in a payload; deeper nesting could overflow a reader's stack
MAX_FRAME_IDX = 10_000_000
MAX_OPERATIONS = 10_000  # of a ticket; masking 240 frames by hand takes about 2,000
MAX_PAYLOAD = 1 << 20  # characters of an operation's payload; a ragged mask of a 4K video takes 130,000
FULL = 64 << 20  # characters of all payloads of a ticket; then only short operations are taken, and the answer
SHORT = 8 << 10  # characters of the payloads of one request that count as short
MAX_POINTS = 100  # of a prompt; the model takes about 0.7 ms for each, and other people's clicks wait for it
MAX_TIME = 64  # characters of a time
MAX_TEXT = 2000  # characters of what a person writes: a comment, or what they add to their reasons
MAX_S = 1e9  # s spent on a ticket, by a client's clock; keeps the sums finite


def check_id(value: str, what: str = "id") -> str:
    """Return `value`; ValueError unless it is an id: letters, digits and _ : + @ - and single dots."""
    if len(value) > ID_LENGTH or not re.fullmatch(ID_PATTERN, value):
        raise ValueError(f"invalid {what}: {value[:80]!r}")
    return value


def check_project(value: str) -> str:
    """Return `value`; ValueError unless it is the name of a project, or "" for the unnamed one."""
    if value and not re.fullmatch(PROJECT_PATTERN, value):
        raise ValueError(f"the name of a project has 1 to 40 of a-z, 0-9 and -, and no - first, not {value[:80]!r}")
    return value


def check_payload(value: str) -> str:
    """Return `value`; ValueError unless it is a JSON object of at most MAX_DEPTH levels."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError(f"payload is not a JSON object: {value[:80]!r}")
    level: list[object] = [parsed]
    for _ in range(MAX_DEPTH):
        level = [part for each in level for part in _parts(each)]
    if level:
        raise ValueError(f"payload has more than {MAX_DEPTH} nested levels: {value[:80]!r}")
    return value


def _parts(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def kinds_of(roles: frozenset[Role]) -> frozenset[Kind]:
    """The kinds of tickets that a person with these roles may hold."""
    return frozenset[Kind]().union(*(KINDS_OF[role] for role in roles))


def why_not(person: Person, ticket: Ticket) -> str | None:
    """One line saying why `person` may not hold `ticket`, or None if they may.

    `tickets/claims.py` has the same rules as SQL, because a claim finds its ticket by an index; a test compares them.
    Only the SQL excludes tickets that the person has already answered.
    """
    if person.projects is not None and ticket.project not in person.projects:
        return f"{person.name} does not belong to the project of this ticket"
    if ticket.kind not in kinds_of(person.roles):
        return f"{person.name} has no role for {ticket.kind} tickets"
    if ticket.kind is Kind.VERIFY and ticket.made_by == person.name:
        return f"{person.name} made this masklet: another person must verify it"
    if ticket.needs_lead and Role.LEAD not in person.roles:
        return "a verifier was unsure of this masklet: a lead must decide"
    if Role.LEAD in person.roles:
        return None
    if ticket.skill is not None and ticket.skill not in person.skills:
        return f"this ticket needs the skill {ticket.skill}"
    if ticket.kind is Kind.VERIFY and ticket.sent_back_by == person.name:
        return f"{person.name} sent this masklet back: another verifier must check the correction"
    return None


def lane_of(*, needs_lead: bool, skill: str | None, project: str) -> str:
    """What a ticket asks of a person besides the role, as one word for the index.

    The person belongs to its project, and is a lead, has a skill, or neither.
    """
    needed = "lead" if needs_lead else "" if skill is None else f"skill:{skill}"
    return f"{project}/{needed}" if project else needed  # no id has a slash


def lanes_of(person: Person, project: str) -> list[str]:
    """The lanes of a project from which a person gets tickets.

    A lead can claim a ticket with another skill only by its id.
    """
    lead = [lane_of(needs_lead=True, skill=None, project=project)] if Role.LEAD in person.roles else []
    skills = (None, *sorted(person.skills))
    plain, *skilled = (lane_of(needs_lead=False, skill=skill, project=project) for skill in skills)
    return [plain, *lead, *skilled]


def is_in_share(word: str, share: float) -> bool:
    """Whether the hash of an id falls into a share in [0, 1]. The result is the same on every machine."""
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
    labels.check_rules(payload)
    if (ticket.decided is None) != (ticket.decided_by is None):
        raise ValueError(f"ticket {ticket.ticket_id}: decided and decided_by are given together")
    if ticket.decided_by is not None:
        check_id(ticket.decided_by, "decided_by")
        if ticket.kind is not Kind.VERIFY or ticket.decided not in (Verdict.ACCEPT, Verdict.REJECT):
            raise ValueError(f"ticket {ticket.ticket_id}: only a verify ticket is opened decided, by accept or reject")
    if ticket.masklet is None:
        if ticket.kind is Kind.VERIFY:
            raise ValueError(f"verify ticket {ticket.ticket_id} has no masklet")
        return
    if ticket.masklet.video_id != ticket.video_id:
        raise ValueError(
            f"ticket {ticket.ticket_id} is about {ticket.video_id}, but its masklet is about another video"
        )
    check_masklet(ticket.masklet)


def check_gold(gold: NewGold) -> None:
    """ValueError if this cannot be a gold ticket."""
    check_new_ticket(gold.ticket)
    if gold.ticket.decided is not None:
        raise ValueError(f"gold {gold.ticket.ticket_id}: people must be able to answer it")
    if gold.ticket.kind is Kind.VERIFY and gold.expected is not None and gold.truth is None:
        if gold.expected in (Verdict.ACCEPT, Verdict.REFINE, Verdict.REJECT):
            return
    elif gold.ticket.kind is Kind.TRACK and gold.truth is not None and gold.expected is None:
        check_masklet(gold.truth)
        return
    raise ValueError(
        f"gold {gold.ticket.ticket_id}: a verify ticket needs an expected verdict, a track ticket a true masklet"
    )


def check_masklet(masklet: Masklet, video: VideoInfo | None = None) -> None:
    """ValueError unless a masklet is valid. Decodes its masks, so call it outside of writing transactions.

    video: its video; without it, only the masklet itself is checked.
    """
    check_id(masklet.masklet_id, "masklet_id")
    check_id(masklet.video_id, "video_id")
    name = f"masklet {masklet.masklet_id}"
    if not (0 < masklet.height <= MAX_SIDE_PX and 0 < masklet.width <= MAX_SIDE_PX):
        raise ValueError(f"{name}: invalid size {masklet.height}x{masklet.width}")
    if problems := masklet_problems(masklet, video):
        raise ValueError(f"{name}: {next(iter(problems.values()))}")


def check_frame(frame_idx: int | None, video: VideoInfo | None = None) -> None:
    """ValueError for a number that is no frame of the video. video: without it, of any video."""
    most = MAX_FRAME_IDX if video is None else video.frame_count - 1
    if frame_idx is not None and not 0 <= frame_idx <= most:
        raise ValueError(f"frame_idx must be between 0 and {most}, not {frame_idx}")


def check_operation(operation: NewOperation) -> None:
    """ValueError for a malformed operation. Parses its payload, so call it outside of transactions."""
    check_id(operation.operation_id, "operation_id")
    check_time(operation.created_at)
    if operation.kind not in OPERATION_KINDS:
        raise ValueError(f"unknown kind of operation: {operation.kind[:40]!r}")
    check_frame(operation.frame_idx)
    if len(operation.payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload has at most {MAX_PAYLOAD} characters, not {len(operation.payload)}")
    payload = json.loads(check_payload(operation.payload))
    if operation.kind == "label":
        labels.of_payload(payload)
    if operation.kind in ("undo", "redo", "stop") and not isinstance(payload.get("operation_id"), str):
        raise ValueError(f"{operation.kind} needs an operation_id: {operation.payload[:80]!r}")
    points = payload.get("points_xy")
    if isinstance(points, (list, dict, str)) and len(points) > MAX_POINTS:
        raise ValueError(f"a prompt has at most {MAX_POINTS} points, not {len(points)}")


def check_time(value: str) -> None:
    """ValueError for a text that is too long to be a time."""
    if len(value) > MAX_TIME:
        raise ValueError(f"invalid time: {value[:80]!r}")


def check_text(text: str) -> None:
    """ValueError for a text of a person that is empty or too long."""
    if not text.strip() or len(text) > MAX_TEXT:
        raise ValueError(f"a text has 1 to {MAX_TEXT} characters, not {len(text.strip())}")


def check_comment(comment: NewComment, video: VideoInfo) -> None:
    """ValueError for a malformed comment, or one about a place that the video does not have."""
    check_id(comment.comment_id, "comment_id")
    check_time(comment.created_at)
    check_text(comment.text)
    check_frame(comment.frame_idx, video)
    if (comment.x is None) != (comment.y is None):
        raise ValueError("a point has both x and y")
    if comment.x is None or comment.y is None:
        return
    if comment.frame_idx is None:
        raise ValueError("a point needs the frame that it is on")
    if not (0 <= comment.x <= video.width and 0 <= comment.y <= video.height):  # true for NaN, too
        raise ValueError(f"a point lies within {video.width}x{video.height} px, not at {comment.x}, {comment.y}")


def check_allowed(ticket: Ticket, operation: NewOperation) -> None:
    """NotAllowed for a well-formed operation that the ticket's kind or phase does not permit."""
    if operation.kind in ("undo", "redo"):
        return
    if ticket.kind is Kind.VERIFY and operation.kind != "label":
        raise NotAllowed(f"a verify ticket takes a verdict, not a {operation.kind}")
    allowed = json.loads(ticket.payload).get("prompts")
    if allowed is None:
        return
    payload = json.loads(operation.payload) if operation.kind == "prompt" else {}
    used = {word for key, word in PROMPT_KEYS.items() if payload.get(key)} if operation.kind == "prompt" else set()
    used |= {operation.kind} & set(PROMPTS)
    if refused := sorted(used - set(allowed)):
        raise NotAllowed(f"phase {ticket.phase} does not allow {', '.join(refused)} in this ticket")


def check_submission(ticket: Ticket, submission: Submission) -> None:
    """ValueError if `submission` cannot finish `ticket`."""
    check_id(submission.operation_id, "operation_id")
    check_time(submission.created_at)
    made = submission.masklet
    if [submission.verdict, made, submission.last_operation_id].count(None) != 2:
        raise ValueError(
            "a submission has one of a verdict, a masklet and the last operation that a masklet follows from"
        )
    if (ticket.kind, submission.verdict) not in NEXT:
        answer = submission.verdict or "a masklet"
        raise ValueError(f"a {ticket.kind} ticket cannot be finished with {answer}")
    if submission.verdict is Verdict.REJECT and not submission.reasons:
        raise ValueError("a rejection needs a reason")
    if submission.verdict is Verdict.UNSURE and ticket.needs_lead:
        raise ValueError("a verifier was already unsure: a lead must decide")
    if submission.seconds is not None and not 0 <= submission.seconds <= MAX_S:
        raise ValueError(f"seconds must be between 0 and {MAX_S:g}, not {submission.seconds}")
    if submission.watched is not None and not 0 <= submission.watched <= 1:  # true for NaN, too
        raise ValueError(f"watched must be between 0 and 1, not {submission.watched}")
    if submission.text is not None:
        check_text(submission.text)
    if submission.same_as is not None:
        check_id(submission.same_as, "same_as")
        if Reason.DUPLICATE not in submission.reasons or submission.same_as == ticket.masklet_id:
            raise ValueError(f"same_as names another masklet, for the reason {Reason.DUPLICATE}")
    if made is not None:
        if made.video_id != ticket.video_id:
            raise ValueError(f"the ticket is about video {ticket.video_id}, the masklet about {made.video_id}")


def next_ticket_id(ticket: Ticket, kind: Kind) -> str:
    """The id of the next ticket after `ticket`; it depends only on the ticket and the kind."""
    return content_id(ticket.ticket_id, kind.value, str(ticket.attempt + 1))
