"""The rolling sums behind the queue's figures, and what each transaction adds to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from statistics import fmean
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    bindparam,
)

from annotation_queue import schema
from annotation_queue.database import INSERT
from annotation_queue.effort import Effort
from annotation_queue.records import (
    Kind,
)
from annotation_queue.schema import TALLY_KEYS, TALLY_SUMS
from storage.records import Masklet

MADE = "made"  # in place of a verdict: the answer is a masklet

Sums = dict[str, float]
Tally = dict[str, Any]  # a row to add: the keys and some of the sums of the table


def add(c: Connection, rows: list[Tally]) -> None:
    """Add the sums of these rows to the rows of the table with the same keys; a negative sum takes back.

    Call it last in a transaction, after the batch is locked: two transactions that wait for each other's rows would
    deadlock.
    """
    if rows:  # all in one statement, in a fixed order: others wait for these rows
        ordered = sorted(rows, key=lambda row: [str(row[key]) for key in TALLY_KEYS])
        c.execute(_adding(c.dialect.name), [dict.fromkeys(TALLY_SUMS, 0.0) | row for row in ordered])


@lru_cache  # building it takes longer than running it
def _adding(dialect: str) -> Any:
    new = INSERT[dialect](schema.tallies).values({name: bindparam(name) for name in (*TALLY_KEYS, *TALLY_SUMS)})
    sums = {name: schema.tallies.c[name] + new.excluded[name] for name in TALLY_SUMS}
    return new.on_conflict_do_update(index_elements=list(TALLY_KEYS), set_=sums)


def _of_ticket(row: Mapping[str, Any]) -> Tally:
    about = {name: row[name] for name in ("batch_id", "kind", "phase", "checkpoint", "project")}
    return about | {"person": "", "maker": "", "verdict": "", "needs_lead": bool(row["needs_lead"]), "label": ""}


def tickets_added(tickets: Iterable[Mapping[str, Any]]) -> list[Tally]:
    """What new tickets add. tickets: rows of their table."""
    return _counted(tickets, "added")


def tickets_done(tickets: Iterable[Mapping[str, Any]]) -> list[Tally]:
    """What tickets add when they are done. tickets: rows of their table."""
    return _counted(tickets, "done")


def _counted(tickets: Iterable[Mapping[str, Any]], name: str) -> list[Tally]:
    counts: Counter[tuple[tuple[str, Any], ...]] = Counter(tuple(_of_ticket(row).items()) for row in tickets)
    return [dict(key) | {name: float(n)} for key, n in counts.items()]


def _of_person(row: Row[Any], person: str, answer: Row[Any], checkpoint: str, **sums: float) -> Tally:
    """What `person` gets for work on an answer. answer: the row of `leases` that ended with it."""
    return {
        "batch_id": "",  # a person's work is summed over the batches: fewer rows, none of them shared
        "kind": row.kind,
        "phase": row.phase,
        "checkpoint": checkpoint,
        "person": person,
        "maker": row.made_by or "",
        "verdict": answer.verdict or MADE,
        "needs_lead": bool(row.needs_lead),
        "label": answer.label or "",
        "project": row.project,
    } | sums


def answer_given(
    row: Row[Any],
    lease: Row[Any],
    *,
    made: Masklet | None = None,
    effort: Mapping[str, Effort] | None = None,
    iou: float | None = None,
) -> list[Tally]:
    """What a person's answer adds, whether or not other answers are still to come.

    made: the masklet that they made. effort: what each person spent on it. iou: of `made` with the ticket's own
    masklet, if another person had made that one.
    """
    first = row.kind == Kind.VERIFY.value and not row.rework and not row.needs_lead and row.reopened_by is None
    sums: Sums = {"answers": 1.0, "first_pass": float(first)}
    if lease.seconds is not None:
        sums |= {"timed": 1.0, "seconds": lease.seconds}
    if made is not None:
        frames = float(len(made.frame_idx))
        sums |= {"frames": frames, "timed_frames": frames if lease.seconds is not None else 0.0}
        if iou is not None:
            sums |= {"compared": 1.0, "iou": iou}
    checkpoint = row.checkpoint if made is None else made.checkpoint
    gained = [_of_person(row, lease.person, lease, checkpoint, **sums)]
    for person, spent in (effort or {}).items():  # also people who began the ticket and gave it back
        by_column = {name: float(value) for name, value in asdict(spent).items()}
        gained.append(_of_person(row, person, lease, checkpoint, **by_column))
    return gained


def agreement(row: Row[Any], answers: Sequence[Row[Any]], ious: Mapping[str, float]) -> list[Tally]:
    """What the agreement of several answers adds; a single answer adds nothing.

    ious: of the masklets of these answers: by masklet_id, the mean IoU with the others of the same object.
    """
    if len(answers) < 2:
        return []
    same = Counter(answer.verdict for answer in answers)
    others = len(answers) - 1
    gained = []
    for answer in answers:
        sums: Sums = {"votes": 1.0, "agreement": (same[answer.verdict] - 1) / others}
        if answer.masklet_id in ious:
            sums |= {"compared": 1.0, "iou": ious[answer.masklet_id]}
        gained.append(_of_person(row, answer.person, answer, row.checkpoint, **sums))
    return gained


def mean_agreement(answers: Sequence[Row[Any]], ious: Mapping[str, float]) -> float | None:
    """How far two of several answers agree on average, 0 to 1: by their verdicts, or by the IoU of their masklets.

    None for a single answer. ious: as for `agreement`.
    """
    if len(answers) < 2:
        return None
    if ious:
        return fmean(ious.values())
    same = Counter(answer.verdict for answer in answers)
    return sum(n * (n - 1) for n in same.values()) / (len(answers) * (len(answers) - 1))


def negative(gained: Iterable[Tally]) -> list[Tally]:
    """What takes these sums back."""
    return [{name: -value if name in schema.TALLY_SUMS else value for name, value in tally.items()} for tally in gained]
