"""How people judge masklets: their last verdicts in figures, and what suggests that somebody does not look.

A high share of accepted masklets says nothing of care: whoever accepts everything has the highest. So each person's
verdicts are held against the time that they took, the frames that were on screen, the other people and gold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, select

from annotation_queue import schema
from annotation_queue.figure_records import JudgingFigures, Proportion
from annotation_queue.records import Kind
from annotation_queue.tickets import sight
from annotation_queue.tickets.wilson import wilson
from storage.records import Verdict
from storage.wording import counted

LAST = 100  # verdicts of a person that are looked at: what somebody does now, at a cost that does not grow
ENOUGH = 20  # verdicts from which they are judged themselves
HASTY_S = 2.0  # a median below this is suspicious; the shortest clips take longer to watch
HASTIER = 1 / 3  # of the median of the others
ONE_SIDED = 0.9  # a share of accepts, or of other verdicts, from which they are compared with the others'
SHARED, AGREES = 10, 0.6  # tickets that others judged too, and the agreement below which it is suspicious
GOLDS, RIGHT = 5, 0.7  # gold tickets, and the share of right answers below which it is suspicious

_LAST: Select[Any] = (
    select(schema.leases.c.verdict, schema.leases.c.seconds, schema.leases.c.watched)
    .join(schema.tickets, schema.tickets.c.ticket_id == schema.leases.c.ticket_id)
    .where(
        schema.leases.c.person == bindparam("person"),
        schema.HAS_FINISHED,
        schema.leases.c.verdict.is_not(None),
        schema.tickets.c.kind == Kind.VERIFY.value,
    )
    .order_by(schema.leases.c.finished_at.desc())
    .limit(LAST)
)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What is known of a person's verdicts beside them."""

    agreement: float | None  # mean share of the others that gave the same verdict
    shared: int  # verdicts on tickets that others judged, too
    gold: Proportion | None  # how often they were right on gold


def judging(
    c: Connection, people: Mapping[str, Compared], watch_share: float, projects: frozenset[str] | None = None
) -> tuple[JudgingFigures, ...]:
    """The figures of these people, by name. watch_share: of the frames with the object, that a verdict needs.

    projects: only of their work in these; None: in all.
    """
    lately = _LAST.where(*sight.within(projects, schema.tickets.c.project))
    last = {name: c.execute(lately, {"person": name}).all() for name in sorted(people)}
    return tuple(
        _of(name, rows, people[name], {other: said for other, said in last.items() if other != name}, watch_share)
        for name, rows in last.items()
        if rows
    )


def _of(
    name: str, rows: Sequence[Row[Any]], known: Compared, others: Mapping[str, Sequence[Row[Any]]], watch_share: float
) -> JudgingFigures:
    watched = [row.watched for row in rows if row.watched is not None]
    plain = JudgingFigures(
        person=name,
        verdicts=len(rows),
        median_s=_median(rows),
        watched=fmean(watched) if watched else None,
        accepts=wilson(_accepts(rows), len(rows)),
        agreement=known.agreement,
        shared=known.shared,
        gold=known.gold,
        flags=(),
    )
    return JudgingFigures(**vars(plain) | {"flags": tuple(_flags(plain, others, watch_share))})


def _flags(of: JudgingFigures, others: Mapping[str, Sequence[Row[Any]]], watch_share: float) -> list[str]:
    """What is suspicious, each in one plain sentence."""
    found = []
    if of.gold is not None and of.gold.of >= GOLDS and of.gold.right < RIGHT * of.gold.of:
        found.append(f"right on {of.gold.right} of {counted(of.gold.of, 'gold ticket')}")
    if of.agreement is not None and of.shared >= SHARED and of.agreement < AGREES:
        found.append(f"the others agree with {100 * of.agreement:.0f} % of {counted(of.shared, 'shared verdict')}")
    if of.verdicts < ENOUGH:
        return found
    many = [rows for rows in others.values() if len(rows) >= ENOUGH]
    medians = [seconds for rows in many if (seconds := _median(rows)) is not None]
    usual = median(medians) if medians else None
    if of.median_s is not None and usual is not None and of.median_s < HASTIER * usual:
        found.append(f"a verdict takes {of.median_s:.1f} s, the others' {usual:.1f} s")
    elif of.median_s is not None and of.median_s < HASTY_S:
        found.append(f"a verdict takes {of.median_s:.1f} s: too short to watch a clip")
    if of.watched is not None and of.watched < watch_share:
        found.append(f"only {100 * of.watched:.0f} % of the frames were on screen")
    return found + _one_sided(of, many)


def _one_sided(of: JudgingFigures, others: Sequence[Sequence[Row[Any]]]) -> list[str]:
    share = of.accepts.right / of.accepts.of
    if max(share, 1 - share) < ONE_SIDED:
        return []
    said = f"accepts {of.accepts.right} of {of.accepts.of}"
    total = sum(map(len, others))
    if not total:
        return [f"{said}: always the same verdict"] if share in (0, 1) else []
    usual = sum(map(_accepts, others)) / total
    return [f"{said}, the others {100 * usual:.0f} %"] if not of.accepts.low <= usual <= of.accepts.high else []


def _accepts(rows: Sequence[Row[Any]]) -> int:
    return sum(row.verdict == Verdict.ACCEPT.value for row in rows)


def _median(rows: Sequence[Row[Any]]) -> float | None:
    seconds = [row.seconds for row in rows if row.seconds is not None]
    return median(seconds) if seconds else None
