"""Commands of the loop without Airflow: run, ingest, quarantine, stats."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import console, people
from engine.cli.console import Json
from engine.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from engine.services import Services
    from engine.serving.queue_process import QueueProcess
    from engine.stages.ingest import IngestReport


def run(
    videos: Annotated[str, typer.Argument(help="A folder, or s3://bucket/prefix.")],
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Close the review without people; needs ground truth beside the videos.")
    ] = False,
    review: Annotated[bool, typer.Option(help="Serve the review page until Ctrl-C.")] = True,
    as_json: Json = False,
) -> None:
    """Ingest, auto-masklets, and open the review; all in this process, without Airflow."""
    from engine import loop
    from engine.demo import simulated_review
    from engine.services import connect
    from engine.serving.queue_process import QueueProcess
    from engine.stages import batches

    settings = Settings()
    facts: dict[str, Any] = {}
    with console.terminable(), connect(settings) as s:
        facts["ingest"] = dataclasses.asdict(_ingest(s, videos))
        for batch_id in loop.PROPOSE.pending(s):
            with console.bar(loop.PROPOSE.name) as bar:
                loop.PROPOSE.work(s, batch_id, bar)
        with QueueProcess(settings, deliver=not simulate, tell=console.print_dim) as queue:
            for batch_id in loop.OPEN_REVIEW.pending(s):
                loop.OPEN_REVIEW.work(s, batch_id, None)
            open_batches = batches.in_review(s.blobs)
            facts["batches"] = open_batches
            if simulate:
                mine = batches.with_videos_from(s, videos)  # people may be at work on the others
                chosen = [batch_id for batch_id in open_batches if batch_id in mine]
                tally, facts["releases"] = simulated_review.close_reviews(s, chosen, queue.check, console.print_dim)
                facts["simulated"] = tally.as_json()
            if as_json:
                console.print_json(facts)  # now: the review may stay open for days
            else:
                _print_run(facts)
            if review and not simulate:
                _serve_review(s, queue, open_batches, console.err if as_json else console.out)


def _serve_review(s: Services, queue: QueueProcess, batch_ids: list[str], to: Console) -> None:
    """Says where the review is and keeps its process running. Never returns: Ctrl-C ends it."""
    person, password = people.first_person(s)
    left = sum(s.queue.batch(batch_id).remaining for batch_id in batch_ids)
    to.print(f"{left} tickets to do at {s.settings.queue_url}, as {person} with {password}")
    to.print("Ctrl-C ends it; decisions are kept, and a batch is published when its last ticket closes.")
    while True:
        queue.check()
        time.sleep(0.5)


def ingest(
    videos: Annotated[str | None, typer.Argument(help="A folder, or s3://bucket/prefix. Default: the setting.")] = None,
    as_json: Json = False,
) -> None:
    """Admit new videos, and quarantine unfit ones with a reason."""
    from engine.services import connect

    with connect() as s:
        report = _ingest(s, videos)
    if as_json:
        console.print_json(report)
    else:
        print_ingest(dataclasses.asdict(report))


def quarantine(as_json: Json = False) -> None:
    """Everything that was refused, and why."""
    from engine.services import connect

    with connect() as s:
        rows = s.tables.quarantine()
    if as_json:
        console.print_json(rows)
        return
    if not rows:
        console.out.print("nothing was refused")
        return
    console.print_rows(
        ("stage", "what", "reason", "detail"), [(row.stage, row.subject, row.reason, row.detail) for row in rows]
    )


def stats(as_json: Json = False) -> None:
    """How far every batch has come, and what is published."""
    from engine.services import connect
    from engine.stages import batches
    from storage import releases

    with connect() as s:
        reached = {b: sorted(m.value for m in marks)[-1] for b, marks in sorted(batches.reached(s.blobs).items())}
        names = releases.names(s.blobs)
        counts = dict(releases.load(s.blobs, names[-1]).counts) if names else {}
        facts = {
            "batches": reached,
            "releases": names,
            "newest": counts,
            "quarantined": len(s.tables.quarantine()),
            "checkpoint": s.checkpoint().name,
        }
    if as_json:
        console.print_json(facts)
        return
    for batch_id, stage in reached.items():
        console.out.print(f"batch {batch_id}  {stage[2:]}")
    counted = ", ".join(f"{counts[k]} {k}" for k in ("videos", "masklets", "masks") if k in counts)
    console.out.print(f"{len(names)} releases" + (f", the newest {names[-1]}: {counted}" if names else ""))
    console.out.print(f"{facts['quarantined']} quarantined; the serving checkpoint is {facts['checkpoint']}")


def _ingest(s: Services, videos: str | None) -> IngestReport:
    from engine.stages import ingest as stage

    with console.bar("ingest") as bar:
        return stage.admit(s, videos, bar)


def print_ingest(facts: Mapping[str, Any]) -> None:
    """One line about an `IngestReport`, given as a mapping."""
    ignored = f", {facts['ignored']} other files ignored" if facts["ignored"] else ""
    postponed = f", {facts['postponed']} still changing: run it again" if facts["postponed"] else ""
    if facts["admitted"] or facts["quarantined"]:
        line = (
            f"{facts['admitted']} videos admitted, {facts['quarantined']} quarantined, {facts['unchanged']} unchanged"
        )
        console.out.print(line + ignored + postponed + ("; see masklets quarantine" if facts["quarantined"] else ""))
    elif facts["unchanged"] or facts["postponed"]:
        console.out.print(f"nothing new: {facts['unchanged']} videos were judged before{ignored}{postponed}")
    else:
        console.out.print(f"there are no videos{ignored}")


def _print_run(facts: Mapping[str, Any]) -> None:
    print_ingest(facts["ingest"])
    for release in facts.get("releases", []):
        console.out.print(f"published {release or 'nothing: every candidate was rejected'}")
