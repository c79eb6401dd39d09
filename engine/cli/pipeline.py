"""Commands of the loop without Airflow: run, ingest, quarantine, stats."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from engine.cli import console, people
from engine.cli.console import Json
from engine.progress import prefixed
from engine.settings import Settings

if TYPE_CHECKING:
    from engine.services import Services
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
    from engine.services import connect
    from engine.serving.queue_process import QueueProcess
    from engine.stages import batches, propose
    from engine.stages import review as reviews
    from engine.stages.batches import BatchStage

    settings = Settings()
    facts: dict[str, Any] = {}
    with console.terminable(), connect(settings) as s:
        facts["ingest"] = dataclasses.asdict(_ingest(s, videos))
        for batch_id in propose.pending(s):
            todo = [v for chunk in propose.chunks(s, batch_id) for v in chunk]
            with console.bar("auto-masklets") as bar:
                for number, video_id in enumerate(todo, 1):
                    propose.propose_videos(s, batch_id, [video_id], prefixed(bar, f"{number} of {len(todo)}"))
            propose.finish(s, batch_id)
        with QueueProcess(settings, deliver=not simulate, tell=console.print_dim) as queue:
            for batch_id in reviews.to_open(s):
                reviews.open_batch(s, batch_id)
            stages = batches.reached(s.blobs)
            open_batches = sorted(
                b for b, marks in stages.items() if BatchStage.IN_REVIEW in marks and BatchStage.PUBLISHED not in marks
            )
            facts["batches"] = open_batches
            if simulate:
                mine = batches_of(s, videos)
                facts |= close_review(s, [b for b in open_batches if b in mine], queue.check)
            if as_json:
                console.print_json(facts)  # now: the review may stay open for days
            else:
                _print_run(facts)
            if review and not simulate:
                person, password = people.first_person(s)
                left = sum(s.queue.batch(b).remaining for b in open_batches)
                tell = console.err if as_json else console.out
                tell.print(f"{left} tickets to do at {settings.queue_url}, as {person} with {password}", soft_wrap=True)
                tell.print("Ctrl-C ends it; decisions are kept, and a batch is published when its last ticket closes.")
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
    table = Table("stage", "what", "reason", "detail")
    for row in rows:
        table.add_row(row.stage, row.subject, row.reason, row.detail)
    console.out.print(table if rows else "nothing was refused")


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


def batches_of(s: Services, videos: str) -> set[str]:
    """The batches with videos of this folder or prefix: people may be at work on the others."""
    rows = s.tables.videos()
    if videos.startswith("s3://"):
        return {v.batch_id for v in rows if v.source_uri.startswith(videos.rstrip("/") + "/")}
    folder = Path(videos).resolve()
    return {v.batch_id for v in rows if folder in Path(v.source_uri).resolve().parents}


def close_review(s: Services, batch_ids: list[str], check: Callable[[], None]) -> dict[str, Any]:
    """Closes the review of these batches and publishes them; returns what was simulated and the releases."""
    from annotation_queue.records import Role, State
    from engine.demo import simulated_people
    from engine.stages import batches, publish
    from engine.stages import review as reviews
    from engine.stages.batches import BatchStage

    hired = []
    _, accounts = s.open_queue()
    for name, role in (("sim-annotator", Role.ANNOTATOR), ("sim-verifier", Role.VERIFIER), ("sim-lead", Role.LEAD)):
        password = secrets.token_urlsafe(12)
        accounts.add(name, [role], password)
        hired.append(simulated_people.Credentials(name, password))
    total, waiting = simulated_people.Tally(), False
    for batch_id in batch_ids:
        total.add(simulated_people.work(s, hired, batch_id=batch_id))
        while s.queue.tickets(batch_id=batch_id, state=State.LEASED, limit=1):
            if not waiting:
                console.print_dim("waiting until leased tickets come back: a person holds them, or a killed run did")
                waiting = True
            check()
            time.sleep(1)
            total.add(simulated_people.work(s, hired, batch_id=batch_id))
        if batch_id in batches.pending(s.blobs, BatchStage.COLLECTED):
            reviews.collect(s, batch_id)
        publish.publish_batch(s, batch_id)
    facts = [batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) or {} for batch_id in batch_ids]
    return {"simulated": simulated_people.as_json(total), "releases": [fact.get("release", "") for fact in facts]}


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
