"""The queue in figures, from the rolling sums that `tallies` writes.

Besides the sums it reads only the indexes of leased tickets, of the last hour and of gold, so that a queue of a million
tickets is counted in milliseconds. Knows no rule about who may do what.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, CompoundSelect, Connection, Label, Row, func, select, union_all

from annotation_queue import schema
from annotation_queue.figure_records import BatchProgress, GoldFigures, Proportion, QueueFigures, WorkFigures
from annotation_queue.records import Kind, Pace, QueuePolicy, State, Stats, TicketCount
from annotation_queue.tickets import sight
from annotation_queue.tickets.judging import Compared, judging
from annotation_queue.tickets.tallies import MADE, Sums
from annotation_queue.tickets.wilson import wilson
from storage.records import Verdict

Projects = frozenset[str] | None  # whose work is counted; None: that of all projects

PACE_S = 900.0  # the pace of a batch is measured over this time
HOUR_S = 3600.0
DRAINED_SHOWN = 5  # drained batches among those of the figures: the last ones


def stats(c: Connection, now: float, projects: Projects = None) -> Stats:
    """The queue in numbers; the paces are those of the last hour. An expired lease counts as open."""
    t, le, y, counts = schema.tickets, schema.leases, schema.tallies, Counter[tuple[str, str, bool]]()
    for row in _counted(c, [y.c.kind, y.c.needs_lead], sight.within(projects, y.c.project)):
        key = (row.kind, bool(row.needs_lead))
        counts[(key[0], State.DONE.value, key[1])] += int(row.done)
        counts[(key[0], State.OPEN.value, key[1])] += int(row.added - row.done)
    for row in _leased(c, now, projects):
        counts[(row.kind, State.OPEN.value, bool(row.needs_lead))] -= row.n
        counts[(row.kind, State.LEASED.value, bool(row.needs_lead))] += row.n
    (person,) = _computed(le.c.person)
    finished = (
        select(person, func.count(), func.avg(le.c.seconds))
        .where(schema.HAS_FINISHED, le.c.finished_at > now - HOUR_S)  # includes gold: everybody sees the paces
        .group_by(person)
        .order_by(func.count().desc(), person)
    )
    if mine := sight.within(projects, t.c.project):
        finished = finished.join(t, t.c.ticket_id == le.c.ticket_id).where(*mine)
    paces = c.execute(finished).all()
    return Stats(
        counts=tuple(
            TicketCount(kind=Kind(kind), state=State(state), needs_lead=needs_lead, tickets=n)
            for (kind, state, needs_lead), n in sorted(counts.items())
            if n
        ),
        paces=tuple(Pace(person=name, finished=n, seconds=mean) for name, n, mean in paces),
        undelivered=_undelivered(c, projects),
    )


def count(c: Connection, now: float, policy: QueuePolicy, projects: Projects = None) -> QueueFigures:
    """The queue, or the work of these projects, in figures."""
    y, gold = schema.tallies, _gold(c, projects)
    rows = c.execute(select(y).where(y.c.person != "", *sight.within(projects, y.c.project))).all()
    verified = [row for row in rows if row.kind == Kind.VERIFY.value]
    return QueueFigures(
        at=now,
        batches=tuple(_batches(c, now, projects)),
        total=_work("", rows),
        people=_by(rows, lambda row: row.person),
        makers=_by(verified, lambda row: row.maker),
        phases=_by(rows, lambda row: row.phase),
        checkpoints=_by(rows, lambda row: row.checkpoint),
        labels=_by([row for row in rows if row.label], lambda row: row.label),
        projects=_by(rows, lambda row: row.project) if any(row.project for row in rows) else (),
        gold=tuple(gold),
        judging=judging(c, _compared(verified, gold), policy.watch_share, projects),
        undelivered=_undelivered(c, projects),
    )


def _counted(c: Connection, keys: Sequence[Column[Any]], where: Sequence[ColumnElement[bool]]) -> Sequence[Any]:
    y = schema.tallies
    sums = (func.sum(y.c.added).label("added"), func.sum(y.c.done).label("done"))
    return c.execute(select(*keys, *sums).where(y.c.person == "", *where).group_by(*keys)).all()


def _leased(c: Connection, now: float, projects: Projects) -> Sequence[Any]:
    t = schema.tickets
    keys = _computed(t.c.batch_id, t.c.kind, t.c.needs_lead)
    held = (schema.IS_LEASED, t.c.expires_at >= now, t.c.gold_id.is_(None), *_in(projects))
    return c.execute(select(*keys, func.count().label("n")).where(*held).group_by(*keys)).all()


def _computed(*columns: Column[Any]) -> list[Label[Any]]:
    """Columns to group by. With the bare columns, SQLite would read a whole index in their order."""
    return [func.coalesce(column, column).label(column.name) for column in columns]


def _in(projects: Projects) -> list[ColumnElement[bool]]:
    """The condition on tickets. coalesce(): an index of projects is worse than those of the states and times."""
    return sight.within(projects, func.coalesce(schema.tickets.c.project, ""))


def _undelivered(c: Connection, projects: Projects) -> int:
    o = schema.outbox
    waiting = select(func.count()).where(o.c.delivered_at.is_(None), *sight.of_batches(projects, o.c.batch_id))
    return c.scalar(waiting) or 0


def _shown(projects: Projects) -> CompoundSelect[Any]:
    """The ids of the batches that are not drained, and of the last DRAINED_SHOWN that are."""
    b = schema.batches
    ids = select(b.c.batch_id).where(*sight.within(projects, b.c.project))
    drained = ids.where(b.c.drained_at.is_not(None)).order_by(b.c.drained_at.desc(), b.c.batch_id).limit(DRAINED_SHOWN)
    return union_all(ids.where(b.c.drained_at.is_(None)), select(drained.subquery().c.batch_id))


def _batches(c: Connection, now: float, projects: Projects) -> list[BatchProgress]:
    t, y = schema.tickets, schema.tallies
    added_, done, leased = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in _counted(c, [y.c.batch_id, y.c.kind], [y.c.batch_id.in_(_shown(projects))]):
        added_[row.batch_id, row.kind] += int(row.added)
        done[row.batch_id, row.kind] += int(row.done)
    for row in _leased(c, now, projects):
        leased[row.batch_id, row.kind] += row.n
    keys = _computed(t.c.batch_id, t.c.kind)
    lately = select(*keys, func.count().label("n")).where(
        t.c.finished_at > now - PACE_S, t.c.gold_id.is_(None), *_in(projects)
    )
    lately = lately.group_by(*keys)
    pace = {(row.batch_id, row.kind): row.n / PACE_S for row in c.execute(lately)}
    found = []
    for key in sorted(added_):
        if not added_[key]:
            continue
        left, rate = added_[key] - done[key], pace.get(key, 0.0)
        found.append(
            BatchProgress(
                batch_id=key[0],
                kind=Kind(key[1]),
                open=left - leased[key],
                leased=leased[key],
                done=done[key],
                per_hour=rate * HOUR_S,
                expected_s=0.0 if not left else left / rate if rate else None,
            )
        )
    return found


def _gold(c: Connection, projects: Projects) -> list[GoldFigures]:
    t = schema.tickets
    right, score = func.count().filter(t.c.right), func.avg(t.c.score)
    keys = _computed(t.c.finished_by, t.c.kind)
    done = select(*keys, func.count().label("n"), right.label("right"), score.label("score"))
    done = done.where(schema.IS_GOLD, t.c.score.is_not(None), *_in(projects)).group_by(*keys)
    return [
        GoldFigures(
            person=row.finished_by, kind=Kind(row.kind), accuracy=wilson(row.right, row.n), score=float(row.score)
        )
        for row in c.execute(done.order_by(*keys))
    ]


def _compared(verified: Iterable[Row[Any]], gold: Iterable[GoldFigures]) -> dict[str, Compared]:
    """By person, what is known of their verdicts from the sums over `verified` and from gold."""
    votes, same = Counter[str](), defaultdict[str, float](float)
    for row in verified:
        votes[row.person] += round(row.votes)
        same[row.person] += row.agreement
    right = {each.person: each.accuracy for each in gold if each.kind is Kind.VERIFY}
    return {
        name: Compared(agreement=_ratio(same[name], votes[name]), shared=votes[name], gold=right.get(name))
        for name in {*same, *right}
    }


def _by(rows: Iterable[Row[Any]], name_of: Callable[[Row[Any]], str]) -> tuple[WorkFigures, ...]:
    groups: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        groups[name_of(row)].append(row)
    found = (_work(name, group) for name, group in sorted(groups.items()))
    return tuple(work for work in found if work.answers or work.clicks_per_clicked_frame)


def _work(name: str, rows: Sequence[Row[Any]]) -> WorkFigures:
    sums: Sums = dict.fromkeys(schema.TALLY_SUMS, 0.0)
    verdicts: Counter[str] = Counter()
    accepted, made_s = 0.0, 0.0
    for row in rows:
        for key in schema.TALLY_SUMS:
            sums[key] += row._mapping[key]
        verdicts[row.verdict] += int(row.answers)
        accepted += row.first_pass if row.verdict == Verdict.ACCEPT.value else 0.0
        made_s += row.seconds if row.verdict == MADE else 0.0
    first: Proportion | None = wilson(round(accepted), round(sums["first_pass"])) if sums["first_pass"] else None
    return WorkFigures(
        name=name,
        answers=int(sums["answers"]),
        verdicts={verdict: n for verdict, n in sorted(verdicts.items()) if n},
        seconds_per_ticket=_ratio(sums["seconds"], sums["timed"]),
        seconds_per_frame=_ratio(made_s, sums["timed_frames"]),
        clicks_per_clicked_frame=_ratio(sums["clicks"], sums["clicked_frames"]),
        edited_frames_share=_ratio(sums["edited_frames"], sums["frames"]),
        first_pass=first,
        agreement=_ratio(sums["agreement"], sums["votes"]),
        masklet_iou=_ratio(sums["iou"], sums["compared"]),
    )


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None
