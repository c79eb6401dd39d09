"""Commands for those who operate the pipeline: why, publish, plan, backup, restore."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import console
from engine.cli.console import Json
from engine.progress import ignore
from storage.errors import first_line
from storage.wording import counted

if TYPE_CHECKING:
    from annotation_queue.pipeline_records import BatchStanding, BatchTickets, StageProgress
    from annotation_queue.tickets.store import TicketStore
    from engine.services import Services


def why(
    batch: Annotated[
        str | None, typer.Argument(help="The id of a batch, or its beginning. Default: all that are not published.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Why a batch waits: what each stage has done, whose turn it is, the last error, and what happens next."""
    from engine import batches
    from engine.services import connect
    from engine.serving import why as reasons

    with connect() as s:
        tickets = _queue(s)
        if batch:
            found = [reasons.of_batch(s, batches.find(s.blobs, batch), tickets)]
        else:
            found = [reasons.of_each(s, batch_id, tickets) for batch_id in sorted(batches.unfinished(s.blobs))]
    if as_json:
        console.print_json(found[0] if batch else found)
    elif batch:
        _print_batch(found[0])
    elif found:
        console.print_rows(("batch", "videos", "waits for"), [(b.batch_id, str(b.videos), b.waits_for) for b in found])
    else:
        console.out.print("no batch waits: all are published")


def _queue(s: Services) -> TicketStore | None:
    """The queue's database; None, and a line about it, if it cannot be read."""
    try:
        return s.read_queue()
    except Exception as error:  # of SQLAlchemy or of the driver: the rest of the answer is still true
        console.err.print(f"the queue's database cannot be read: {first_line(error)}", style="yellow")
        return None


def _print_batch(found: BatchStanding) -> None:
    name = f" ({found.name})" if found.name else ""
    kind = ", imported" if found.imported else f", proposed by {found.checkpoint}" if found.checkpoint else ""
    phase = f", phase {found.phase}" if found.phase else ""
    console.out.print(f"batch {found.batch_id}{name}: {counted(found.videos, 'video')}{kind}{phase}")
    rows = [(stage.stage, f"{stage.done} of {counted(stage.of, stage.noun)}", _mark(stage)) for stage in found.stages]
    console.print_rows(("stage", "done", "state"), rows)
    if found.tickets is not None:
        console.print_rows(("tickets", "open", "held", "done"), _ticket_rows(found.tickets))
    for stuck in found.stuck:
        console.out.print(f"{stuck.stage} fails since {console.local_time(stuck.since)}: {stuck.error}", style="red")
    if found.refused:
        refused = [(r.stage, r.reason, str(r.rows), ", ".join(r.examples), r.detail) for r in found.refused]
        console.print_rows(("stage", "check", "rows", "such as", "first detail"), refused)
    if found.quarantined:
        console.out.print(f"{counted(found.quarantined, 'row')} quarantined; see masklets quarantine", style="yellow")
    console.out.print(f"waits for  {found.waits_for}")
    if found.next:
        console.out.print(f"next       {found.next}")
    if found.due is not None:
        console.out.print(f"expected   {console.local_time(found.due)}")


def _mark(stage: StageProgress) -> str:
    return "done" if stage.complete else "begun" if stage.done else "waits"


def _ticket_rows(tickets: BatchTickets) -> list[tuple[str, str, str, str]]:
    by_kind: dict[str, dict[str, int]] = defaultdict(lambda: {"open": 0, "leased": 0, "done": 0})
    for count in tickets.counts:
        kind = f"{count.kind} (for a lead)" if count.needs_lead else str(count.kind)
        by_kind[kind][count.state.value] += count.tickets
    return [(kind, str(n["open"]), str(n["leased"]), str(n["done"])) for kind, n in sorted(by_kind.items())]


def publish(
    batch: Annotated[str, typer.Argument(help="The id of a batch, or its beginning.")],
    without_refused: Annotated[
        bool,
        typer.Option("--without-refused", help="Also if the checks refused most rows: they stay in the quarantine."),
    ] = False,
    why: Annotated[str, typer.Option(help="With --without-refused: the reason, which is recorded.")] = "",
    by: Annotated[str | None, typer.Option(help="Who decides. Default: your login name.")] = None,
    as_json: Json = False,
) -> None:
    """Publish what is collected of a batch now: the whole batch, or the increments that are due."""
    from getpass import getuser

    from engine import batches
    from engine.services import connect
    from engine.stages import publish as stage

    with connect() as s:
        batch_id = batches.find(s.blobs, batch)
        if without_refused:
            release = stage.leave_out(s, batch_id, by=by or getuser(), why=why)
        else:
            release = stage.publish_batch(s, batch_id)
    if as_json:
        console.print_json({"batch_id": batch_id, "release": release})
    else:
        console.out.print(f"published in {release}" if release else "there is no masklet to release")


def plan(
    videos: Annotated[float | None, typer.Option(help="Number of videos. Default: SA-V's 50,900.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Mean length of a video. Default: SA-V's 13.9.")] = None,
    people: Annotated[float | None, typer.Option(help="People who annotate. Default: 50.")] = None,
    changed: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=NUMBER: any assumption of the list, such as gpu_usd_h=4. May be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What a dataset of SA-V's size, or of yours, needs: GPU-hours, storage, requests, tickets, people, weeks, money.

    Every assumption is printed with where it comes from: measured by a benchmark, published, or assumed.
    """
    from engine.views import plan as plans

    given = dict(_assignment(text) for text in changed or [])
    named = {"videos": videos, "clip_s": seconds, "people": people}
    made = plans.make(given | {name: value for name, value in named.items() if value is not None})
    if as_json:
        console.print_json(made.as_json())
        return
    console.print_rows(
        ("needed", "how much", "unit", "from"), [(n.name, _amount(n.value), n.unit, n.how) for n in made.needs]
    )
    console.print_rows(
        ("assumption", "value", "unit", "source"),
        [(one.name, _amount(one.value), one.unit, one.source) for one in made.assumptions],
    )


def _assignment(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if equals:
            return name.strip(), float(value)
    except ValueError:
        pass
    raise ValueError(f"--set takes NAME=NUMBER, not {text!r}")


def _amount(value: float) -> str:
    """`1,234`, `12.3`, `0.0004`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    as_json: Json = False,
) -> None:
    """Copy the databases of queue, catalog and registry while everything runs. Copy the store after it, not before.

    PostgreSQL is copied by pg_dump, SQLite by its online backup. The copies hold password hashes: keep them secret.
    """
    from engine.serving import backup as backups
    from engine.settings import Settings

    made = backups.backup(Settings(), folder, ignore if as_json else console.print_dim)
    if as_json:
        console.print_json(made)
        return
    for part in made.parts:
        console.out.print(f"{part.name}: {part.file}, {part.size / 2**20:.1f} MiB, sha256 {part.sha256[:16]}…")
    for line in made.left_out:
        console.out.print(f"left out, {line}", style="yellow")
    console.out.print(f"complete; now copy the store {made.store}, unless it is a bucket with a backup of its own")


def restore(
    folder: Annotated[Path, typer.Argument(help="What masklets backup wrote.")],
    as_json: Json = False,
) -> None:
    """Restore a backup into empty databases, and let them follow the store. Nothing else may run meanwhile."""
    from engine.serving import backup as backups
    from engine.settings import Settings

    done = backups.restore(Settings(), folder, ignore if as_json else console.print_dim)
    if as_json:
        console.print_json(done)
        return
    console.out.print(f"restored: {', '.join(done.parts)}")
    if done.tables:
        console.out.print(f"the store is newer: {', '.join(done.tables)} follow it")
    if done.opened_again:
        again = counted(len(done.opened_again), "batch")
        console.out.print(f"{again} unknown to the queue: their tickets are opened again ({done.opened_again[0]} …)")
    for note in done.notes:
        console.out.print(note, style="yellow")
