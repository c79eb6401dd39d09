"""What an answer leads to: it is counted, and it settles its ticket or opens the ticket that follows.

Works inside the transactions of `TicketStore`, on a ticket that `TicketStore` has locked. The batch is locked last.

Two kinds of tickets take several answers. A verify ticket of the overlap share is open again after each verdict until
it has all of them; a person gets it once only. If several people make one masklet, each has their own ticket. It opens
when the ticket before it is done, and nobody sees another person's masklet. The next ticket is about the masklet that
agrees best with the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from annotation_queue import audit, schema
from annotation_queue.draft import changed_masks, draft_of, masklet_of, with_origin
from annotation_queue.effort import Effort, effort_of
from annotation_queue.errors import NoSuchVideo
from annotation_queue.labels import Label
from annotation_queue.records import FinishResult, Kind, Person, QueuePolicy, State, Submission, Ticket, VideoInfo
from annotation_queue.rules import NEXT, check_masklet, lane_of, next_ticket_id
from annotation_queue.tickets import batches, gold, instances, leases, masklets, ontologies, operations, tallies
from annotation_queue.tickets.rows import (
    MASKLET,
    NOT_RESERVED,
    OPEN_ROW,
    mean_score_of,
    operation_of,
    sent_masklet,
    to_ticket,
    with_effort,
)
from annotation_queue.tickets.sharing import Majority, closest, majority, object_of, overlap_of
from annotation_queue.tickets.tallies import Tally
from annotation_queue.versions import versions_of
from storage.iou import mean_iou
from storage.records import STRIDE, Masklet, Verdict

PINS = (Verdict.REFINE, Verdict.UNSURE)  # verdicts after which the next person is shown the same frame
_SET_DONE = update(schema.tickets).where(schema.tickets.c.ticket_id == bindparam("of_ticket")).returning(schema.tickets)
_ANSWERS = (
    select(schema.leases)
    .where(schema.leases.c.ticket_id == bindparam("ticket_id"), schema.HAS_FINISHED)
    .order_by(schema.leases.c.token)
)
_ANSWERS_ABOUT = (
    select(schema.leases)
    .join(schema.tickets, schema.tickets.c.ticket_id == schema.leases.c.ticket_id)
    .where(schema.tickets.c.object_id == bindparam("object_id"), schema.HAS_FINISHED)
    .order_by(schema.tickets.c.ordinal)
)
SAME_WORK = (  # columns that a second ticket about the same work has, too
    *("batch_id", "kind", "video_id", "masklet_id", "phase", "priority", "payload", "made_by", "needs_lead", "attempt"),
    *("previous_ticket_id", "skill", "lane", "sent_back_by", "rework", "overlap", "object_id", "checkpoint"),
    *("mean_score", "project"),
    *("label", "attributes"),
)


@dataclass(frozen=True, kw_only=True)
class _Decision:
    """What the answers to a ticket decide."""

    answer: Majority
    made: Masklet | None  # the new masklet that the next ticket is about; None: the ticket's own masklet
    again: bool  # open the same work for a second person, without saying that it is a repeat
    agreement: float | None  # of several answers: how far two of them agree on average, 0 to 1


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is computed from the masks of an answer.

    It can take seconds, and a writing transaction makes other people wait. So it is computed before that transaction.
    """

    effort: Mapping[str, Effort] = field(default_factory=dict)  # what each person spent on the masklet
    iou: float | None = None  # with the ticket's own masklet, if another person had made that one
    agreement: Mapping[str, float] = field(default_factory=dict)  # of one shared object: by masklet_id, mean IoU
    closest_id: str | None = None  # of one shared object: the masklet that agrees best with the others
    rightness: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A submission that was checked and measured, ready to be stored."""

    seq: int  # of the ticket's last operation then; if there is another one now, prepare again
    submission: Submission  # its masklet has all fields
    changed: Mapping[int, bytes]  # by frame: masks that do not follow from the operations before
    measures: Measures
    label: Label  # of the object


def video_about(
    ticket: Ticket, submission: Submission, video_of: Callable[[str], VideoInfo] | None
) -> VideoInfo | None:
    """Size and length of an answer's video; None if nothing is compared with it, or for a verdict without its video.

    Raises NoSuchVideo for a masklet.
    """
    if video_of is None or (submission.verdict is not None and submission.frame_idx is None):
        return None
    try:
        return video_of(ticket.video_id)
    except NoSuchVideo:
        if submission.verdict is None:
            raise
        return None


def prepare(c: Connection, row: Row[Any], person: Person, submission: Submission, video: VideoInfo | None) -> Prepared:
    """Check and measure a submission; only reads. Decodes the masks. Raises ValueError for an invalid masklet.

    The masklet that the page means is built here. It is missing if the queue does not have its last operation.
    """
    seq = operations.last_seq(c, row.ticket_id)
    if submission.last_operation_id is not None:
        submission = replace(submission, masklet=_built(c, row, submission.last_operation_id, video))
    made, label = sent_masklet(submission, to_ticket(row), person), ontologies.of_answer(c, row, person.name)
    if made is None:
        measures = measure(c, row, person.name, submission.verdict, None, made_of(c, row, answers_of(c, row)))
        return Prepared(seq=seq, submission=submission, changed={}, measures=measures, label=label)
    check_masklet(made, video)
    done, versions = operations.of_ticket(c, row.ticket_id), versions_of(c, row.ticket_id)
    base = masklets.of_ticket(c, row)
    draft = draft_of((made.height, made.width), made.frame_idx, base, done, versions)
    changed = changed_masks(draft, made)
    made = with_origin(draft, made, base)
    made = with_effort(made, base, effort_of(done, made.frame_idx).values())
    made = replace(made, label=label.name, attributes=label.attributes)
    measures = measure(c, row, person.name, None, made, [*made_of(c, row, answers_of(c, row)), made])
    return Prepared(
        seq=seq, submission=replace(submission, masklet=made), changed=changed, measures=measures, label=label
    )


def _built(c: Connection, row: Row[Any], last: str, video: VideoInfo | None) -> Masklet | None:
    """The masklet that follows from a ticket's operations up to the one with the id `last`; "" is before the first."""
    done = operations.of_ticket(c, row.ticket_id)
    places = [n for n, operation in enumerate(done, start=1) if operation.operation_id == last]
    if last and not places:
        return None
    base = masklets.of_ticket(c, row)
    if base is not None:
        hw, frames = (base.height, base.width), base.frame_idx
    elif video is not None:
        hw, frames = (video.height, video.width), tuple(range(0, video.frame_count, STRIDE))
    else:
        raise ValueError(f"the size of video {row.video_id} is not known here: send the masklet itself")
    draft = draft_of(hw, frames, base, done[: places[0] if places else 0], versions_of(c, row.ticket_id))
    return masklet_of(draft, video_id=row.video_id, batch_id=row.batch_id, phase=row.phase)


def measure(
    c: Connection,
    row: Row[Any],
    name: str,
    verdict: Verdict | None,
    made: Masklet | None,
    all_made: Sequence[Masklet],
) -> Measures:
    """Measure the answer of a person; only reads. all_made: the masklets of one shared object's answers, in order."""
    if row.gold_id is not None:
        return Measures(rightness=gold.rightness_of(c, row, verdict, made))
    found = Measures()
    if row.object_id is not None and all_made:
        best, ious = closest(all_made)
        agreement = dict(zip((m.masklet_id for m in all_made), ious, strict=True)) if len(all_made) > 1 else {}
        found = replace(found, agreement=agreement, closest_id=best.masklet_id)
    if made is None:
        return found
    base = masklets.of_ticket(c, row) if row.made_by not in (None, name) else None
    return replace(
        found,
        effort=effort_of(operations.of_ticket(c, row.ticket_id), made.frame_idx),
        iou=None if base is None else mean_iou(made, base),
    )


def submit(
    c: Connection, policy: QueuePolicy, row: Row[Any], person: Person, prepared: Prepared, now: float
) -> FinishResult:
    """Store the holder's submission as an operation, end the lease, and settle the ticket or open the next one.

    Raises ValueError if the ticket asks for a label and has none, and for one that only another object may have.
    """
    ticket, is_gold, submission = to_ticket(row), row.gold_id is not None, prepared.submission
    ontologies.check_answer(c, row, submission.verdict, prepared.label)
    instances.check_answer(c, ticket, submission.verdict, prepared.label)
    operation = operation_of(submission, keep_masklet=is_gold, changed=prepared.changed)
    operations.append(c, ticket, operations.Sender(person=person, token=ticket.lease_token, now=now), [operation])
    leases.end(c, ticket.ticket_id, ticket.lease_token, submission, prepared.label, now)
    if not is_gold:
        return _answer(c, policy, row, person, prepared, now)
    gold.finish(c, row, policy, submission, person.name, now, prepared.measures.rightness)
    return finished(c, leases.lock_ticket(c, ticket.ticket_id))


def finished(c: Connection, row: Row[Any]) -> FinishResult:
    """The response to a submission for this ticket; the same if the client repeats the submission."""
    drained = row.gold_id is None and batches.read(c, row.batch_id).drained  # gold must not show that a batch is done
    return _finished(to_ticket(row), drained=drained)


def answers_of(c: Connection, row: Row[Any]) -> Sequence[Row[Any]]:
    """The leases that ended with an answer, in order: of this ticket, or of all tickets of its shared object."""
    if row.object_id is not None:
        return c.execute(_ANSWERS_ABOUT, {"object_id": row.object_id}).all()
    return c.execute(_ANSWERS, {"ticket_id": row.ticket_id}).all()


def made_of(c: Connection, row: Row[Any], answers: Sequence[Row[Any]]) -> list[Masklet]:
    """The masklets of these answers, if they are about one shared object; otherwise empty."""
    if row.object_id is None:
        return []
    texts = [masklets.content(c, row.batch_id, a.masklet_id) for a in answers if a.masklet_id is not None]
    return [MASKLET.validate_json(text) for text in texts if text is not None]


def _answer(
    c: Connection, policy: QueuePolicy, row: Row[Any], person: Person, prepared: Prepared, now: float
) -> FinishResult:
    """Count an answer. After the last answer, decide, and settle the ticket or open the next one."""
    answers, made, measures = answers_of(c, row), prepared.submission.masklet, prepared.measures
    mine, is_last = answers[-1], len(answers) >= row.overlap
    if not is_last and row.object_id is None:
        waiting = finished(
            c, leases.open_again(c, row.ticket_id, **NOT_RESERVED)
        )  # the next answer is another person's
        tallies.add(c, tallies.answer_given(row, mine))
        return waiting
    if made is not None:
        masklets.add(c, row.batch_id, [made], now)
    sums = sums_of(row, answers, mine, made, measures)
    answer = majority(answers if is_last else answers[-1:])
    if is_last:
        if row.object_id is not None and answer.verdict != Verdict.REJECT.value:
            made = next(m for m in made_of(c, row, answers) if m.masklet_id == measures.closest_id)
            answer = replace(answer, verdict=None, reasons="")
    if made is not None:
        answer = replace(answer, label=Label(name=made.label, attributes=made.attributes))
    if row.needs_lead:
        audit.note(c, now, person.name, "decide", row.ticket_id, {"verdict": answer.verdict})
    agreement = tallies.mean_agreement(answers, measures.agreement) if is_last else None
    decision = _Decision(answer=answer, made=made, again=not is_last, agreement=agreement)
    result, opened = _settle_or_follow(c, policy, row, decision, now)
    tallies.add(c, [*sums, *tallies.tickets_done([row._asdict()]), *tallies.tickets_added(opened)])
    return result


def sums_of(
    row: Row[Any], answers: Sequence[Row[Any]], mine: Row[Any], made: Masklet | None, measures: Measures
) -> list[Tally]:
    """The sums that one answer adds to the tallies; the last answer also adds the agreement of all of them.

    A take-back subtracts exactly these. answers: rows of `leases`. mine: the row of this answer, which made `made`.
    """
    sums = tallies.answer_given(row, mine, made=made, effort=measures.effort, iou=measures.iou)
    return sums + (tallies.agreement(row, answers, measures.agreement) if len(answers) >= row.overlap else [])


def _settle_or_follow(
    c: Connection, policy: QueuePolicy, row: Row[Any], decision: _Decision, now: float
) -> tuple[FinishResult, list[dict[str, Any]]]:
    """Mark a ticket as done and open the next one, if there is one. Also returns the rows of the opened tickets."""
    answer, kind = decision.answer, Kind(row.kind)
    verdict = None if answer.verdict is None else Verdict(answer.verdict)
    label = answer.label or Label(name=row.label, attributes=row.attributes)
    following = kind if decision.again else NEXT[(kind, verdict)]
    follower_id = None if following is None else next_ticket_id(to_ticket(row), following)
    if following is None and verdict is Verdict.ACCEPT:
        label = instances.numbered(c, row, label)
    changed = {
        "of_ticket": row.ticket_id,
        "state": State.DONE.value,
        "leased_by": None,
        "expires_at": None,
        "verdict": verdict,
        "reasons": answer.reasons or "",
        "finished_by": answer.person,
        "finished_at": now,
        "seconds": answer.seconds,
        "next_ticket_id": follower_id,
        "settled": verdict if following is None else None,
        "agreement": decision.agreement,
        "label": label.name,
        "attributes": label.attributes,
    }
    done = c.execute(_SET_DONE, changed).one()
    opened = []
    if following is not None and follower_id is not None:
        new = _repeat(row) if decision.again else _follower(c, policy, row, decision, follower_id, now)
        new |= {} if decision.again else {"label": label.name, "attributes": label.attributes}
        opened = [OPEN_ROW | new | {"ticket_id": follower_id, "created_at": now}]
        c.execute(insert(schema.tickets).values(**opened[0]))
    drained = batches.count(c, row.batch_id, now, more=len(opened), less=1 - len(opened))
    return _finished(to_ticket(done), drained=drained), opened


def _repeat(row: Row[Any]) -> dict[str, Any]:
    """The columns of a ticket with the same work for a second person."""
    return {name: row._mapping[name] for name in SAME_WORK} | {"ordinal": row.ordinal + 1}


def _follower(
    c: Connection, policy: QueuePolicy, row: Row[Any], decision: _Decision, ticket_id: str, now: float
) -> dict[str, Any]:
    """The columns of the next ticket, which has the id `ticket_id`, after a decision."""
    answer, made = decision.answer, decision.made
    verdict = None if answer.verdict is None else Verdict(answer.verdict)
    following = NEXT[(Kind(row.kind), verdict)]
    assert following is not None
    masklet_id, made_by = (row.masklet_id, row.made_by) if made is None else (made.masklet_id, made.annotated_by)
    needs_lead, sent_back = verdict is Verdict.UNSURE, verdict is Verdict.REFINE
    maker = made_by if sent_back and made_by is not None and _is_at_work(c, policy, made_by, now) else None
    overlap = overlap_of(ticket_id, following, policy, masklet_id=masklet_id, made_by=made_by, needs_lead=needs_lead)
    return {
        "batch_id": row.batch_id,
        "kind": following.value,
        "video_id": row.video_id,
        "masklet_id": masklet_id,
        "phase": row.phase,
        "priority": row.priority,
        "payload": _pointed(c, row, answer) if verdict in PINS else row.payload,
        "made_by": made_by,
        "needs_lead": needs_lead,
        "attempt": row.attempt + 1,
        "previous_ticket_id": row.ticket_id,
        "ordinal": 0,
        "skill": row.skill,
        "lane": lane_of(needs_lead=needs_lead, skill=row.skill, project=row.project),
        "project": row.project,
        "reserved_for": maker,
        "reserved_until": None if maker is None else now + policy.rework_s,
        "sent_back_by": answer.person if sent_back and policy.other_verifier else row.sent_back_by,
        "rework": made_by is not None if sent_back else bool(row.rework),
        "overlap": overlap,
        "object_id": object_of(ticket_id, following, overlap),
        "checkpoint": row.checkpoint if made is None else made.checkpoint,
        "mean_score": row.mean_score if made is None else mean_score_of(made),
    }


def _pointed(c: Connection, row: Row[Any], answer: Majority) -> str:
    """The payload of the next ticket: also has the frame that was on screen, and the answer that was given there.

    After a tie, these are the frame, the verdict and the text of the last person.
    """
    o = schema.operations
    query = select(o.c.frame_idx, o.c.payload).where(o.c.ticket_id == row.ticket_id, o.c.person == answer.person)
    query = query.where(o.c.kind == "verdict", o.c.branch.is_(False)).order_by(o.c.seq.desc()).limit(1)
    reasons = [reason for reason in (answer.reasons or "").split(",") if reason]
    verdict = c.execute(query).one()
    pin = {"frame_idx": verdict.frame_idx, "by": answer.person, "reasons": reasons}
    said = json.loads(verdict.payload)
    pin |= {name: said[name] for name in ("verdict", "text") if name in said}
    return json.dumps(json.loads(row.payload) | {"pinned": pin})


def _is_at_work(c: Connection, policy: QueuePolicy, name: str, now: float) -> bool:
    """Whether a person finished a ticket in the last `rework_s` seconds."""
    le = schema.leases
    query = select(le.c.token).where(le.c.person == name, schema.HAS_FINISHED)
    return c.execute(query.where(le.c.finished_at > now - policy.rework_s).limit(1)).first() is not None


def _finished(ticket: Ticket, *, drained: bool) -> FinishResult:
    settled = ticket.verdict if ticket.next_ticket_id is None else None
    return FinishResult(ticket=ticket, next_ticket_id=ticket.next_ticket_id, settled=settled, batch_drained=drained)
