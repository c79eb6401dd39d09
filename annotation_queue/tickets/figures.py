"""The queue in figures, from rolling sums: what each transaction adds to them, and what they come to.

Knows the tables and no rule about who may do what. The sums are in `tallies`; besides them only the indexes of leased
tickets, of the last hour and of gold are read, so that a queue of a million tickets is counted in milliseconds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Column, Connection, Label, Row, RowMapping, func, select

from annotation_queue import database as db
from annotation_queue.records import (
    BatchFigures,
    Count,
    Effort,
    Figures,
    GoldFigures,
    Kind,
    Pace,
    Share,
    State,
    Stats,
    Work,
    masklet_iou,
    wilson,
)
from annotation_queue.tickets.rows import closest
from storage.records import Masklet, Verdict

MADE = "made"  # stands where a verdict would, for a masklet
PACE_S = 900.0  # the pace of a batch is that of this long
HOUR_S = 3600.0

Sums = dict[str, float]
Tally = dict[str, Any]


# --- what a transaction adds -------------------------------------------------------------------------------------


def _of_ticket(row: Mapping[str, Any] | RowMapping, **sums: float) -> Tally:
    about = {name: row[name] for name in ("batch_id", "kind", "phase", "checkpoint")}
    return about | {"person": "", "maker": "", "verdict": "", "needs_lead": bool(row["needs_lead"])} | sums


def added(tickets: Iterable[Mapping[str, Any]]) -> list[Tally]:
    """New tickets, as rows of their table."""
    counts: Counter[tuple[tuple[str, Any], ...]] = Counter(tuple(_of_ticket(row).items()) for row in tickets)
    return [dict(key) | {"added": float(n)} for key, n in counts.items()]


def closed(row: Row[Any]) -> list[Tally]:
    """A ticket that is done."""
    return [_of_ticket(row._mapping, done=1.0)]


def _of_person(row: Row[Any], person: str, verdict: str | None, checkpoint: str, **sums: float) -> Tally:
    return {
        "batch_id": "",  # a person's work is summed over the batches: fewer rows, none of them shared
        "kind": row.kind,
        "phase": row.phase,
        "checkpoint": checkpoint,
        "person": person,
        "maker": row.made_by or "",
        "verdict": verdict or MADE,
        "needs_lead": bool(row.needs_lead),
    } | sums


def answered(
    row: Row[Any],
    lease: Row[Any],
    *,
    made: Masklet | None = None,
    effort: Mapping[str, Effort] | None = None,
    before: Masklet | None = None,
) -> list[Tally]:
    """A ticket that a person finished, whether or not other verdicts on it are still to come.

    made, effort: the masklet that they made, and who did what for it. before: what another person had made of it.
    """
    first = row.kind == Kind.VERIFY.value and not row.rework and not row.needs_lead
    sums: Sums = {"answers": 1.0, "first_pass": float(first)}
    if lease.seconds is not None:
        sums |= {"timed": 1.0, "seconds": lease.seconds}
    if made is not None:
        frames = float(len(made.frame_idx))
        sums |= {"frames": frames, "timed_frames": frames if lease.seconds is not None else 0.0}
        if before is not None:
            sums |= {"compared": 1.0, "iou": masklet_iou(made, before)}
    checkpoint = row.checkpoint if made is None else made.checkpoint
    tallies = [_of_person(row, lease.person, lease.verdict, checkpoint, **sums)]
    for person, done in (effort or {}).items():  # also of who began it and put it back
        spent = {name: float(value) for name, value in asdict(done).items()}
        tallies.append(_of_person(row, person, lease.verdict, checkpoint, **spent))
    return tallies


def agreed(row: Row[Any], answers: Sequence[Row[Any]], made: Sequence[Masklet]) -> list[Tally]:
    """The answers to what took several, each compared with the others.

    made: the masklets among them, of one object, in the answers' order.
    """
    if len(answers) < 2:
        return []
    same = Counter(answer.verdict for answer in answers)
    others = len(answers) - 1
    ious = dict(zip((m.masklet_id for m in made), closest(made)[1], strict=True)) if len(made) > 1 else {}
    tallies = []
    for answer in answers:
        sums: Sums = {"votes": 1.0, "agreement": (same[answer.verdict] - 1) / others}
        if answer.masklet_id in ious:
            sums |= {"compared": 1.0, "iou": ious[answer.masklet_id]}
        tallies.append(_of_person(row, answer.person, answer.verdict, row.checkpoint, **sums))
    return tallies


def negative(tallies: Iterable[Tally]) -> list[Tally]:
    """What takes these back."""
    return [{name: -value if name in db.TALLY_SUMS else value for name, value in tally.items()} for tally in tallies]


# --- what the sums come to ---------------------------------------------------------------------------------------


def stats(c: Connection, now: float) -> Stats:
    """The queue in numbers; the paces are those of the last hour. An expired lease counts as open."""
    le, counts = db.leases, Counter[tuple[str, str, bool]]()
    for row in _counted(c):
        key = (row.kind, bool(row.needs_lead))
        counts[(key[0], State.DONE.value, key[1])] += int(row.done)
        counts[(key[0], State.OPEN.value, key[1])] += int(row.added - row.done)
    for row in _leased(c, now):
        counts[(row.kind, State.OPEN.value, bool(row.needs_lead))] -= row.n
        counts[(row.kind, State.LEASED.value, bool(row.needs_lead))] += row.n
    (person,) = _computed(le.c.person)
    paces = c.execute(
        select(person, func.count(), func.avg(le.c.seconds))
        .where(db.HAS_FINISHED, le.c.finished_at > now - HOUR_S)  # with gold: everybody sees it
        .group_by(person)
        .order_by(func.count().desc(), person)
    ).all()
    return Stats(
        counts=tuple(
            Count(kind=Kind(kind), state=State(state), needs_lead=needs_lead, tickets=n)
            for (kind, state, needs_lead), n in sorted(counts.items())
            if n
        ),
        paces=tuple(Pace(person=name, finished=n, seconds=mean) for name, n, mean in paces),
        undelivered=_undelivered(c),
    )


def count(c: Connection, now: float) -> Figures:
    """The queue in figures."""
    y = db.tallies
    rows = c.execute(select(y).where(y.c.person != "")).all()
    verified = [row for row in rows if row.kind == Kind.VERIFY.value]
    return Figures(
        at=now,
        batches=tuple(_batches(c, now)),
        total=_work("", rows),
        people=_by(rows, lambda row: row.person),
        makers=_by(verified, lambda row: row.maker),
        phases=_by(rows, lambda row: row.phase),
        checkpoints=_by(rows, lambda row: row.checkpoint),
        gold=tuple(_gold(c)),
        undelivered=_undelivered(c),
    )


def _counted(c: Connection) -> Sequence[Any]:
    y = db.tallies
    keys = (y.c.batch_id, y.c.kind, y.c.needs_lead)
    sums = (func.sum(y.c.added).label("added"), func.sum(y.c.done).label("done"))
    return c.execute(select(*keys, *sums).where(y.c.person == "").group_by(*keys)).all()


def _leased(c: Connection, now: float) -> Sequence[Any]:
    t = db.tickets
    keys = _computed(t.c.batch_id, t.c.kind, t.c.needs_lead)
    held = (db.IS_LEASED, t.c.expires_at >= now, t.c.gold_id.is_(None))
    return c.execute(select(*keys, func.count().label("n")).where(*held).group_by(*keys)).all()


def _computed(*columns: Column[Any]) -> list[Label[Any]]:
    """Columns to group by; by the bare ones, SQLite reads a whole index in their order and not the few rows wanted."""
    return [func.coalesce(column, column).label(column.name) for column in columns]


def _undelivered(c: Connection) -> int:
    return c.scalar(select(func.count()).where(db.outbox.c.delivered_at.is_(None))) or 0


def _batches(c: Connection, now: float) -> list[BatchFigures]:
    t = db.tickets
    added_, done, leased = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in _counted(c):
        added_[row.batch_id, row.kind] += int(row.added)
        done[row.batch_id, row.kind] += int(row.done)
    for row in _leased(c, now):
        leased[row.batch_id, row.kind] += row.n
    keys = _computed(t.c.batch_id, t.c.kind)
    lately = select(*keys, func.count().label("n")).where(t.c.finished_at > now - PACE_S, t.c.gold_id.is_(None))
    lately = lately.group_by(*keys)
    pace = {(row.batch_id, row.kind): row.n / PACE_S for row in c.execute(lately)}
    found = []
    for key in sorted(added_):
        if not added_[key]:
            continue
        left, rate = added_[key] - done[key], pace.get(key, 0.0)
        found.append(
            BatchFigures(
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


def _gold(c: Connection) -> list[GoldFigures]:
    t = db.tickets
    right, score = func.count().filter(t.c.right), func.avg(t.c.score)
    done = select(t.c.finished_by, t.c.kind, func.count().label("n"), right.label("right"), score.label("score"))
    done = done.where(db.IS_GOLD, t.c.score.is_not(None)).group_by(t.c.finished_by, t.c.kind)
    return [
        GoldFigures(
            person=row.finished_by, kind=Kind(row.kind), accuracy=wilson(row.right, row.n), score=float(row.score)
        )
        for row in c.execute(done.order_by(t.c.finished_by, t.c.kind))
    ]


def _by(rows: Iterable[Row[Any]], name_of: Callable[[Row[Any]], str]) -> tuple[Work, ...]:
    groups: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        groups[name_of(row)].append(row)
    found = (_work(name, group) for name, group in sorted(groups.items()))
    return tuple(work for work in found if work.answers or work.clicks_per_clicked_frame)


def _work(name: str, rows: Sequence[Row[Any]]) -> Work:
    sums: Sums = dict.fromkeys(db.TALLY_SUMS, 0.0)
    verdicts: Counter[str] = Counter()
    accepted, made_s = 0.0, 0.0
    for row in rows:
        for key in db.TALLY_SUMS:
            sums[key] += row._mapping[key]
        verdicts[row.verdict] += int(row.answers)
        accepted += row.first_pass if row.verdict == Verdict.ACCEPT.value else 0.0
        made_s += row.seconds if row.verdict == MADE else 0.0
    first: Share | None = wilson(round(accepted), round(sums["first_pass"])) if sums["first_pass"] else None
    return Work(
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


# --- for Prometheus ----------------------------------------------------------------------------------------------


def prometheus(figures: Figures) -> str:
    """The figures as Prometheus' text format 0.0.4. People are left out: their names are nobody else's business."""
    lines: list[str] = []

    def gauge(name: str, about: str, values: Iterable[tuple[Mapping[str, str], float | None]]) -> None:
        lines.extend((f"# HELP masklets_{name} {about}", f"# TYPE masklets_{name} gauge"))
        for labels, value in values:
            if value is not None:
                inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
                lines.append(f"masklets_{name}{{{inside}}} {value:.10g}" if inside else f"masklets_{name} {value:.10g}")

    batches, total = figures.batches, figures.total
    gauge(
        "tickets",
        "Tickets by batch, kind and state.",
        (
            ({"batch": b.batch_id, "kind": b.kind.value, "state": state}, n)
            for b in batches
            for state, n in (("open", b.open), ("leased", b.leased), ("done", b.done))
        ),
    )
    expected = (({"batch": b.batch_id, "kind": b.kind.value}, b.expected_s) for b in batches)
    gauge("expected_seconds", "Time until what is open is done, at the pace of the last quarter of an hour.", expected)
    gauge("answers", "Tickets finished, by outcome.", (({"verdict": v}, n) for v, n in total.verdicts.items()))
    first = None if total.first_pass is None else total.first_pass.right / total.first_pass.of
    gauge("first_pass_ratio", "Share of masklets that their first verifier accepted.", [({}, first)])
    gauge("agreement_ratio", "Agreement on tickets that took several verdicts.", [({}, total.agreement)])
    by_phase = [({"phase": work.name}, work) for work in figures.phases]
    gauge("seconds_per_frame", "Of masklets that people made.", ((k, w.seconds_per_frame) for k, w in by_phase))
    clicks = ((k, w.clicks_per_clicked_frame) for k, w in by_phase)
    gauge("clicks_per_clicked_frame", "Of masklets that people made.", clicks)
    gauge("edited_frames_ratio", "Of masklets that people made.", ((k, w.edited_frames_share) for k, w in by_phase))
    right, of = sum(g.accuracy.right for g in figures.gold), sum(g.accuracy.of for g in figures.gold)
    gauge("gold_accuracy_ratio", "Share of gold tickets that people got right.", [({}, _ratio(right, of))])
    gauge("undelivered_batches", "Drained batches that the pipeline was not told of.", [({}, figures.undelivered)])
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
