"""Commands of the loop without Airflow: run, ingest, quarantine, stats."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from engine.cli import console, people
from engine.cli.console import Json, Project
from engine.settings import AutoSettings, Settings
from storage.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from annotation_queue.pipeline_records import Action, QuarantineAct
    from engine.ingest.ingest import IngestReport
    from engine.services import Services
    from engine.serving.queue_process import QueueProcess
    from engine.stages.review_progress import ReviewProgress
    from storage.records import Quarantined


def run(
    videos: Annotated[str, typer.Argument(help="A folder, or s3://bucket/prefix.")],
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Close the review without people; needs ground truth beside the videos.")
    ] = False,
    review: Annotated[bool, typer.Option(help="Serve the review page until Ctrl-C.")] = True,
    project: Project = "",
    as_json: Json = False,
) -> None:
    """Ingest, auto-masklets, and open the review; all in this process, without Airflow."""
    from engine import batches, logs, loop
    from engine.demo import simulated_review
    from engine.ingest import admitted
    from engine.services import connect
    from engine.serving.queue_process import QueueProcess

    settings = Settings()
    logs.set_up(settings.logs)
    facts: dict[str, Any] = {}
    with console.terminable(), connect(settings) as s:
        s.ontologies()  # a mistake in it is said now, not after the ingest
        facts["ingest"] = _ingest_facts(ingest_source(s, videos, project))
        for batch_id in loop.PROPOSE.pending(s):
            with console.bar(loop.PROPOSE.name) as bar:
                loop.PROPOSE.work(s, batch_id, bar)
        with QueueProcess(settings, deliver=not simulate, tell=console.print_dim) as queue:
            for batch_id in loop.OPEN_REVIEW.pending(s):
                loop.OPEN_REVIEW.work(s, batch_id, None)
            open_batches = batches.in_review(s.blobs)
            facts["batches"] = open_batches
            if simulate:
                chosen = admitted.from_source(s.blobs, open_batches, videos)  # people may be at work on the others
                tally, facts["releases"] = simulated_review.close_reviews(s, chosen, queue.check, console.print_dim)
                facts["simulated"] = tally.as_json()
            if as_json:
                console.print_json(facts)  # now: the review may stay open for days
            else:
                _print_run(facts)
            if not review and not simulate and not as_json:
                left = counted(_tickets_left(s, open_batches), "ticket")
                console.out.print(f"{left} to do; next: masklets serve, which opens the review page")
            if review and not simulate:
                _serve_review(s, queue, open_batches, console.err if as_json else console.out)


def _serve_review(s: Services, queue: QueueProcess, batch_ids: list[str], to: Console) -> None:
    """Says where the review is and keeps its process running. Never returns: Ctrl-C ends it."""
    from engine.processes.children import stay

    login = people.first_login(s)
    left = counted(_tickets_left(s, batch_ids), "ticket")
    to.print(f"{left} to do at {s.settings.queue_url}, as {login}")
    to.print("Ctrl-C ends it; decisions are kept, and a batch is published when its last ticket closes.")
    stay(queue.check)


def _tickets_left(s: Services, batch_ids: list[str]) -> int:
    return sum(s.queue.batch(batch_id).remaining for batch_id in batch_ids)


def ingest(
    videos: Annotated[str | None, typer.Argument(help="A folder, or s3://bucket/prefix. Default: the setting.")] = None,
    project: Project = "",
    as_json: Json = False,
) -> None:
    """Admit new videos, and quarantine unfit ones with a reason."""
    from engine.services import connect

    with connect() as s:
        report = ingest_source(s, videos, project)
    if as_json:
        console.print_json(_ingest_facts(report))
    else:
        print_ingest(_ingest_facts(report))


def propose(
    text: Annotated[
        str | None, typer.Option(help='What to find, as "person. dog."; the words become labels. Default: the setting.')
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the candidates of all admitted videos that wait for them."""
    from engine import batches, loop
    from engine.services import connect
    from engine.stages.propose import labels_of_words
    from storage.dataset import parts

    settings = Settings()
    if text is not None:
        try:
            auto = AutoSettings(**(settings.auto.model_dump() | {"text": text}))
        except ValidationError as error:
            raise ValueError(f"--{error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        settings = settings.model_copy(update={"auto": auto})
    with console.terminable(), connect(settings) as s:
        waiting = loop.PROPOSE.pending(s)
        for project in {batches.project_of(s.blobs, batch_id) for batch_id in waiting}:
            labels_of_words(s, project)  # a wrong word is said now
        for batch_id in waiting:
            with console.bar(loop.PROPOSE.name) as bar:
                loop.PROPOSE.work(s, batch_id, bar)
        made = {b: sum(m.rows for m in parts.markers(s.blobs, "candidates", b)) for b in waiting}
        videos = sum(len(batches.video_ids(s.blobs, b)) for b in waiting)
    if as_json:
        console.print_json({"batches": made, "videos": videos})
    else:
        found = counted(sum(made.values()), "candidate")
        console.out.print(f"{found} of {counted(videos, 'video')}")


def quarantine(
    release: Annotated[
        str | None,
        typer.Option(help="The address of a refused file: the next ingest judges it without the limit that it broke."),
    ] = None,
    seen: Annotated[
        str | None, typer.Option(help="What was refused: note that it is known, and that nothing follows.")
    ] = None,
    why: Annotated[str, typer.Option(help="The reason, which is recorded.")] = "",
    by: Annotated[str | None, typer.Option(help="Who decides. Default: your login name.")] = None,
    as_json: Json = False,
) -> None:
    """Everything that was refused, and why; or release a file, or note that a refusal is known."""
    from annotation_queue.pipeline_records import Action
    from engine.ingest import overrides
    from engine.services import connect

    if release and seen:
        raise ValueError("give --release or --seen, not both")
    with connect() as s:
        rows = s.tables.quarantine()
        subject = release or seen
        if subject is not None:
            _decide(s, rows, subject, Action.RELEASE if release else Action.SEEN, by, why, as_json)
            return
        acts = overrides.acts_on(s.blobs, {row.subject for row in rows})
    if as_json:
        console.print_json(rows)
        return
    if not rows:
        console.out.print("nothing was refused")
        return
    said = [_acts(acts.get(row.subject, []), row) for row in rows]
    cells = [(row.stage, row.subject, row.reason, row.detail) for row in rows]
    if any(said):
        decided = [(*row, act) for row, act in zip(cells, said, strict=True)]
        console.print_rows(("stage", "what", "reason", "detail", "decided"), decided)
    else:
        console.print_rows(("stage", "what", "reason", "detail"), cells)


def _decide(
    s: Services, rows: list[Quarantined], subject: str, action: Action, by: str | None, why: str, as_json: bool
) -> None:
    """Records the act for each reason for which the subject was refused, and prints it."""
    from getpass import getuser
    from uuid import uuid4

    from engine.ingest import overrides

    found = {row.reason: row for row in rows if row.subject == subject}
    if not found:
        raise ValueError(f"nothing with this address or id was refused: {subject}")
    made = [
        overrides.decide(s.blobs, row, action, act_id=uuid4().hex, by=by or getuser(), why=why)
        for row in found.values()
        if action == "seen" or len(found) == 1 or overrides.what_release_does(row)
    ]
    if not made:
        raise ValueError(f"{subject} was refused as {' and as '.join(found)}: it can only be marked as seen")
    if as_json:
        console.print_json([dataclasses.asdict(act) for act in made])
        return
    for act in made:
        does = overrides.what_release_does(found[act.reason]) if action == "release" else None
        then = f"; the next ingest {does}" if does else ""
        console.out.print(f"{subject}, refused as {act.reason}: {act.action} by {act.by}, {act.why}{then}")


def _acts(acts: list[QuarantineAct], row: Quarantined) -> str:
    return "; ".join(f"{act.action} by {act.by}: {act.why}" for act in acts if act.reason == row.reason)


def stats(as_json: Json = False) -> None:
    """How far every batch has come, which are stuck and why, and what is published."""
    from engine import batches, trouble
    from engine.services import connect
    from engine.stages import review_progress
    from storage.dataset import releases

    with connect() as s:
        reviews = review_progress.of_open_batches(s)
        reached = {b: sorted(m.value for m in marks)[-1] for b, marks in sorted(batches.reached(s.blobs).items())}
        projects = {b: batches.project_of(s.blobs, b) for b in reached} if s.settings.projects else {}
        stuck = trouble.of_everything(s)
        names = releases.names(s.blobs)
        newest = {releases.project_of(name): name for name in names if releases.place(name)[0]}
        counts = {of: dict(releases.load(s.blobs, name).counts) for of, name in sorted(newest.items())}
        facts: dict[str, Any] = {
            "batches": reached,
            "projects": projects,
            "reviews": {batch_id: dataclasses.asdict(progress) for batch_id, progress in reviews.items()},
            "stuck": [dataclasses.asdict(batch) for batch in stuck],
            "releases": names,
            "newest": counts.pop("", {}),
            "newest_of": counts,
            "quarantined": s.tables.row_count("quarantine"),
            "checkpoint": s.checkpoint().name,
        }
    if as_json:
        console.print_json(facts)
        return
    for batch_id, stage in reached.items():
        left = f"  {_review_line(reviews[batch_id])}" if batch_id in reviews else ""
        if batch_id in reviews and reviews[batch_id].published:
            left += f", {reviews[batch_id].published} of {counted(reviews[batch_id].videos, 'video')} published"
        of = f"  {projects[batch_id]}" if projects.get(batch_id) else ""
        console.out.print(f"batch {batch_id}{of}  {stage[2:]}{left}")
    for found in stuck:
        console.out.print(trouble.line(found), style="red")
    said = [counted(len(names), "release")]
    for of, name in sorted(newest.items()):
        sizes = facts["newest_of"][of] if of else facts["newest"]
        content = ", ".join(counted(sizes[f"{k}s"], k) for k in ("video", "masklet", "mask") if f"{k}s" in sizes)
        said.append(f"the newest{f' of {of}' if of else ''} {name}: {content}")
    console.out.print(", ".join(said))
    console.out.print(f"{facts['quarantined']} quarantined; the serving checkpoint is {facts['checkpoint']}")


def campaign(as_json: Json = False) -> None:
    """Where the campaign stands: its phases, and the masklets and retrainings of each. The plan is in the settings."""
    from engine.rounds.campaign import of_all, summary
    from engine.services import connect

    with connect() as s:
        phases = of_all(s)
        sentence = summary(s)
    if as_json:
        console.print_json(phases)
        return
    if phases:
        rows = [
            (
                *([of.project] if any(each.project for each in phases) else []),
                of.phase,
                of.state,
                _done(of.masklets, of.planned_masklets),
                _done(of.retrainings, of.planned_retrainings),
            )
            for of in phases
        ]
        head = ("phase", "state", "masklets", "retrainings")
        console.print_rows(("project", *head) if len(rows[0]) > len(head) else head, rows)
    console.out.print(sentence)


def _done(number: int, planned: int | None) -> str:
    return f"{number} of {planned}" if planned else ""


def _review_line(progress: ReviewProgress) -> str:
    """`3 of 12 tickets open since 2026-11-29 14:00, expected end 2026-11-29 18:30`."""
    since = f"{progress.open} of {counted(progress.total, 'ticket')} open since {console.local_time(progress.since)}"
    if progress.open == 0:
        return f"{since}: all are decided, not published yet"
    if progress.expected_end is None:
        return f"{since}, end unknown: too few answers in the last quarter of an hour"
    return f"{since}, expected end {console.local_time(progress.expected_end)}"


def ingest_source(s: Services, videos: str | None, project: str = "") -> IngestReport:
    """Ingests with a progress bar. Raises NoSource, also for an S3 prefix without objects: it may be mistyped."""
    from engine.ingest import sources
    from engine.ingest.ingest import admit

    with console.bar("ingest") as bar:
        report = admit(s, videos, bar, project=project)
    where = videos or s.settings.of_project(project).ingest.source or ""
    if report.found == 0 and where.startswith("s3://"):
        raise sources.NoSource(f"nothing below {where}: is the prefix right?")
    return report


def _ingest_facts(report: IngestReport) -> dict[str, Any]:
    return dataclasses.asdict(report) | {"hours_a_day_a_core": report.hours_a_day_a_core}


def print_ingest(facts: Mapping[str, Any]) -> None:
    """One line about an `IngestReport`, given as a mapping, and one for each kind of change to the videos."""
    ignored = f", {counted(facts['ignored'], 'other file')} ignored" if facts["ignored"] else ""
    later = "postponed (still changing, read by another machine, or below a damaged table): run it again"
    postponed = f", {facts['postponed']} {later}" if facts["postponed"] else ""
    if facts["admitted"] or facts["quarantined"]:
        admitted = f"{counted(facts['admitted'], 'video')} admitted"
        line = f"{admitted}, {facts['quarantined']} quarantined, {facts['unchanged']} unchanged"
        console.out.print(line + ignored + postponed + ("; see masklets quarantine" if facts["quarantined"] else ""))
    elif facts["unchanged"] or facts["postponed"]:
        judged = counted(facts["unchanged"], "unchanged video")
        console.out.print(f"nothing new: {judged}{ignored}{postponed}")
    else:
        console.out.print(f"there are no videos{ignored}")
    for note in facts.get("notes", ()):
        console.out.print(note)
    if speed := facts.get("hours_a_day_a_core"):
        length = facts["video_s"] / 3600
        console.out.print(f"{length:.2f} hours of video; at this speed, a core admits {speed:.0f} hours in a day")
    if facts["changed"]:
        console.out.print(f"{counted(facts['changed'], 'video')} changed:")
    for kind, videos in facts["changes"].items():
        console.out.print(f"  {kind}: {counted(videos, 'video')}")


def _print_run(facts: Mapping[str, Any]) -> None:
    print_ingest(facts["ingest"])
    for release in facts.get("releases", []):
        console.out.print(f"published {release or 'nothing: every candidate was rejected'}")
