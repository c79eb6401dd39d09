"""The command `masklets`. Each command parses, calls the engine, and says what came of it; it knows no more.

Long work shows a progress bar on a terminal, a line now and then elsewhere, and can be stopped with Ctrl-C and run
again. A mistake is one line on standard error and status 2; `--json` prints one JSON object for programs.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from engine.settings import Settings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="An open data engine for promptable video segmentation: videos in, verified masklets and better models out.",
)
users_app = typer.Typer(no_args_is_help=True, help="The people of the review queue.")
app.add_typer(users_app, name="users")
gold_app = typer.Typer(no_args_is_help=True, help="Tickets with a known answer, mixed into people's work.")
app.add_typer(gold_app, name="gold")

# What is printed holds names of files and people: nothing in it is markup.
out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)

STOPPED = 130  # the status of a command that was stopped
LINE_S = 30.0  # how often long work says how far it is, where nobody sees its bar

E = TypeVar("E", bound=StrEnum)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def main() -> None:
    """The entry point: runs a command, and turns what a caller can mend into one line."""
    try:
        status = app(standalone_mode=False)  # None, or the status of a typer.Exit; Typer makes one of Ctrl-C, too
        if status == STOPPED:
            raise KeyboardInterrupt
        sys.exit(status)
    except (typer.Abort, KeyboardInterrupt):
        err.print("stopped; run it again to go on")
        sys.exit(STOPPED)
    except ValidationError as error:
        for problem in error.errors():
            place = "__".join(str(p) for p in problem["loc"]).upper()
            line = f"masklets: setting MASKLETS_{place}: {problem['msg']}"
            err.print(line, style="red", soft_wrap=True)
        sys.exit(2)
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("typer", "click"):
            show = getattr(error, "show", None)
            if show:
                show()
            sys.exit(getattr(error, "exit_code", 2))
        if not _is_expected(error):
            raise
        line = (str(error).strip() or (type(error).__doc__ or type(error).__name__)).splitlines()[0]
        err.print(f"masklets: {line}", style="red", soft_wrap=True)
        sys.exit(2)


def _is_expected(error: Exception) -> bool:
    """Our own named outcomes, and mistakes in what was asked for; anything else is a bug and keeps its traceback."""
    ours = type(error).__module__.partition(".")[0] in ("engine", "storage", "model", "validation", "annotation_queue")
    paths = FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError | PermissionError
    return ours or isinstance(error, ValueError | ConnectionError | paths)


# ------------------------------------------------------------------------------------------------------ the whole loop


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything goes; an earlier demo in it is removed.")] = Path(
        "masklets-demo"
    ),
    clips: Annotated[int, typer.Option(min=3, help="Synthetic clips to render.")] = 6,
    as_json: Json = False,
) -> None:
    """The whole loop on synthetic clips with simulated annotators, through the DAGs, offline."""
    from engine.demo import demo as whole
    from engine.demo import report

    begun = time.monotonic()
    with _terminable(), err.status("starting") as status:

        def tell(line: str) -> None:
            status.update(Text(line))
            err.print(Text.assemble((f"{time.monotonic() - begun:6.1f} s", "dim"), f"  {line}"), soft_wrap=True)

        result = whole.run(folder, tell, clips=clips)
    if as_json:
        print(json.dumps(dataclasses.asdict(result.summary) | {"report": str(result.report)}, default=str))
        return
    table = Table(title=f"The whole loop in {time.monotonic() - begun:.0f} s", show_header=False)
    for label, value in report.table(result.summary):
        table.add_row(label, value)
    out.print(table)
    out.print(f"report: {result.report.absolute()}", soft_wrap=True)
    out.print(f"SA-V JSON: {len(result.sav)} files in {(folder / 'sa-v').absolute()}", soft_wrap=True)


@app.command()
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
    with _terminable(), connect(settings) as s:
        facts["ingest"] = dataclasses.asdict(_ingest(s, videos))
        for batch_id in propose.pending(s):
            todo = [v for chunk in propose.chunks(s, batch_id) for v in chunk]
            with _bar("auto-masklets") as bar:
                for number, video_id in enumerate(todo, 1):
                    propose.propose_videos(s, batch_id, [video_id], _labelled(bar, f"{number} of {len(todo)}"))
            propose.finish(s, batch_id)
        with QueueProcess(settings, deliver=not simulate, tell=_say_dim) as queue:
            for batch_id in reviews.to_open(s):
                reviews.open_batch(s, batch_id)
            stages = batches.reached(s.blobs)
            open_batches = sorted(
                b for b, marks in stages.items() if BatchStage.IN_REVIEW in marks and BatchStage.PUBLISHED not in marks
            )
            facts["batches"] = open_batches
            if simulate:
                mine = _batches_of(s, videos)
                facts |= _simulate(s, [b for b in open_batches if b in mine], queue.check)
            if as_json:
                print(json.dumps(facts, default=str), flush=True)  # the review may stay open for days
            else:
                _say_run(facts)
            if review and not simulate:
                person, password = _first_person(s)
                left = sum(s.queue.batch(b).remaining for b in open_batches)
                tell = err if as_json else out
                tell.print(f"{left} tickets to do at {settings.queue_url}, as {person} with {password}", soft_wrap=True)
                tell.print(
                    "Ctrl-C ends it; what was decided is kept, and a batch is published when its last ticket closes."
                )
                while True:
                    queue.check()
                    time.sleep(0.5)


@app.command()
def up() -> None:
    """Everything on one machine: Airflow with its page, the queue with its page; Ctrl-C stops it all."""
    from engine.processes.airflow import Airflow
    from engine.processes.ports import free_port
    from engine.services import connect
    from engine.serving.queue_process import QueueProcess

    settings = Settings()
    port = settings.airflow.port or free_port()  # the queue must know it before Airflow is there
    airflow = Airflow(
        settings.airflow_home,
        host=settings.airflow.host,
        port=port,
        parallelism=settings.airflow.parallelism,
        gpu_slots=settings.airflow.gpu_slots,
        environment=settings.environment(),
        tell=_say_dim,
    )
    here = settings.airflow.model_copy(update={"url": airflow.url, "password": None})
    told = settings.model_copy(update={"airflow": here})
    with _terminable(), QueueProcess(told, tell=_say_dim) as queue, airflow:
        with connect(settings) as s:
            person, password = _first_person(s)
        out.print(f"Airflow       {airflow.url}  as admin with {airflow.password}", soft_wrap=True)
        out.print(f"review queue  {settings.queue_url}  as {person} with {password}", soft_wrap=True)
        source = settings.ingest.source
        out.print(f"videos from   {source or 'nowhere yet: set MASKLETS_INGEST__SOURCE'}", soft_wrap=True)
        while True:
            airflow.check()
            queue.check()
            time.sleep(0.5)


@app.command()
def serve(
    deliver: Annotated[bool, typer.Option(hidden=True)] = True,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """The queue and its page alone."""
    from engine.serving import serve as queue

    queue.serve(Settings(), deliver=deliver, with_parent=with_parent)


# ------------------------------------------------------------------------------------------------------------- stages


@app.command()
def ingest(
    videos: Annotated[str | None, typer.Argument(help="A folder, or s3://bucket/prefix; else the setting.")] = None,
    as_json: Json = False,
) -> None:
    """Admit new videos, and quarantine what is unfit with a reason."""
    from engine.services import connect

    with connect() as s:
        report = _ingest(s, videos)
    if as_json:
        print(json.dumps(dataclasses.asdict(report)))
    else:
        _say_ingest(dataclasses.asdict(report))


@app.command()
def quarantine(as_json: Json = False) -> None:
    """What was refused, and why."""
    from engine.services import connect

    with connect() as s:
        rows = s.tables.quarantine()
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    table = Table("stage", "what", "reason", "detail")
    for row in rows:
        table.add_row(row.stage, row.subject, row.reason, row.detail)
    out.print(table if rows else "nothing was refused")


@app.command()
def stats(as_json: Json = False) -> None:
    """Where every batch stands, and what is published."""
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
        print(json.dumps(facts, default=str))
        return
    for batch_id, stage in reached.items():
        out.print(f"batch {batch_id}  {stage[2:]}")
    out.print(f"{len(names)} releases" + (f", the newest {names[-1]}: {_counts(counts)}" if names else ""))
    out.print(f"{facts['quarantined']} quarantined; the checkpoint that proposes is {facts['checkpoint']}")


@app.command()
def validate(
    release: Annotated[str | None, typer.Argument(help="A release; else the newest.")] = None, as_json: Json = False
) -> None:
    """Check a release: files against their hashes, every mask against its row and its video."""
    from engine.services import connect
    from storage import releases
    from validation import masklet_checks

    with connect() as s:
        chosen = releases.load(s.blobs, release or _newest(releases.names(s.blobs)))
        videos = {v.video_id: v for v in chosen.videos()}
        problems = chosen.verify()
        count = 0
        for row in chosen.iter_masklets():
            count += 1
            problems += [
                f"{row.masklet_id}: {p.check}: {p.detail}" for p in masklet_checks.check(row, videos.get(row.video_id))
            ]
    if as_json:
        print(json.dumps({"release": chosen.name, "masklets": count, "problems": problems}))
    else:
        for problem in problems:
            out.print(problem, style="red")
        out.print(f"{chosen.name}: {count} masklets of {len(videos)} videos, {len(problems)} problems")
    if problems:
        raise typer.Exit(1)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    release: Annotated[str | None, typer.Option(help="A release; else the newest.")] = None,
    form: Annotated[str, typer.Option("--format", help="sa-v or davis.")] = "sa-v",
    media: Annotated[bool, typer.Option(help="SA-V: the videos too. DAVIS always has its pictures.")] = False,
    as_json: Json = False,
) -> None:
    """Write a release as SA-V JSON files, or as DAVIS pictures and palette PNGs."""
    from engine.services import connect
    from storage import releases
    from storage.formats import davis, sav

    if form not in ("sa-v", "davis"):
        raise ValueError(f"the formats are sa-v and davis, not {form!r}")
    with connect() as s:
        chosen = releases.load(s.blobs, release or _newest(releases.names(s.blobs)))
        written = davis.export(chosen, folder) if form == "davis" else sav.export(chosen, folder, media=media)
    if as_json:
        print(json.dumps({"release": chosen.name, "files": list(map(str, written))}))
    else:
        out.print(f"{chosen.name}: {len(written)} files in {folder}")


@app.command("import-sav")
def import_sav(
    folder: Annotated[Path, typer.Argument(help="Holds NAME.mp4 and NAME_manual.json or NAME_auto.json.")],
    as_json: Json = False,
) -> None:
    """Bring an SA-V dataset in as published masklets: its videos are ingested, its masklets checked like any other."""
    from engine.services import connect
    from engine.stages import import_sav

    with connect() as s, _bar("import") as bar:
        report = import_sav.import_folder(s, folder, bar)
    if as_json:
        print(json.dumps(dataclasses.asdict(report)))
    else:
        out.print(f"{report.videos} videos, {report.masklets} masklets, release {report.release or 'none'}")
        if report.quarantined:
            out.print(f"{report.quarantined} videos quarantined; see masklets quarantine")
        if report.skipped:
            out.print(f"{report.skipped} videos left as they are: they were ingested before, to be proposed for")


# -------------------------------------------------------------------------------------------------------------- rounds


@app.command()
def train(
    release: Annotated[str | None, typer.Option(help="Round: a release; else the newest.")] = None,
    data: Annotated[
        str | None, typer.Option(help="No round: a release, an SA-V folder or a DAVIS root to train on.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="With --data: where the checkpoint goes.")] = None,
    parent: Annotated[
        str | None, typer.Option("--from", help="With --data: a checkpoint to begin with; else the one that serves.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="With --data: full (the paper's), mask-only (of phase 2), quick, or a FILE.json.")
    ] = "quick",
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1; else the setting.")] = None,
    split: Annotated[str, typer.Option(help="With --data: what is trained on: train, val, test or all.")] = "train",
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; else the setting or the recipe's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; else the setting or the recipe's.")] = None,
    seed: int = 1,
    as_json: Json = False,
) -> None:
    """One retraining round: train, evaluate on held-out videos, promote if the gate passes. With --data: train only."""
    from engine.rounds import rounds
    from engine.services import connect
    from storage import releases

    settings = Settings()
    if device:
        settings = settings.model_copy(update={"model": settings.model.model_copy(update={"device": device})})
    if data is not None or folder is not None:
        if data is None or folder is None or release is not None:
            raise ValueError("training without a round takes --data and --out, and no --release")
        _train_on(settings, data, split, folder, parent, recipe, {"steps": steps, "lr": lr, "seed": seed}, as_json)
        return
    if parent is not None or recipe != "quick" or split != "train":
        raise ValueError("a round begins with the checkpoint that serves, by its own recipe and split: see --data")
    with connect(settings) as s:
        round_id = rounds.start(s, release or _newest(releases.names(s.blobs)), steps=steps, lr=lr, seed=seed)
        with _bar("training") as bar:
            rounds.train(s, round_id, lambda p: bar(p.step, p.steps, f"loss {p.losses['total']:.3f}"))
        err.print("evaluating on the held-out videos", style="dim")
        rounds.evaluate(s, round_id)
        outcome = rounds.decide(s, round_id)
    if as_json:
        print(json.dumps(dataclasses.asdict(outcome)))
    else:
        verdict = "promoted" if outcome.promoted else "not promoted"
        out.print(f"{round_id}: J&F {100 * outcome.jf_before:.1f} -> {100 * outcome.jf_after:.1f}, {verdict}")
        for reason in outcome.reasons:
            out.print(f"  {reason}")


def _train_on(
    settings: Settings,
    data: str,
    split: str,
    folder: Path,
    parent: str | None,
    recipe: str,
    change: dict[str, Any],
    as_json: bool,
) -> None:
    """Trains outside of rounds. Under torchrun the first process alone says anything."""
    from engine.rounds import rounds, training
    from engine.services import connect
    from model import devices, parallel

    on_cpu = settings.model.model_copy(update={"device": "cpu"})  # from there each process takes it to its own GPU
    with connect(settings.model_copy(update={"model": on_cpu})) as s, _bar("training", parallel.leads()) as bar:
        found = _dataset(s, data, split)
        begun = s.model(rounds.checkpoint_of(s, parent) if parent else s.checkpoint(), to_train=True)
        chosen = training.fitted(training.recipe_of(recipe, begun.image_size), **change)
        last: list[float] = []

        def report(progress: Any) -> None:
            last[:] = [progress.losses["total"]]
            bar(progress.step, progress.steps, f"{progress.stage}, loss {progress.losses['total']:.3f}")

        training.run(
            found,
            folder,
            chosen,
            begun,
            device=devices.pick_device(settings.model.device),
            tracked=lambda: s.registry.track(str(folder.absolute()), "training"),
            look_through=bar,
            report=report,
        )
    if not parallel.leads():
        return
    total = sum(stage.steps for stage in chosen.stages)
    if as_json:
        print(json.dumps({"checkpoint": str(folder), "steps": total, "loss": last[0] if last else None}))
    else:
        out.print(f"{folder}: {total} steps on {data} from {begun.name}" + (f", loss {last[0]:.3f}" if last else ""))


@app.command("rounds")
def rounds_(as_json: Json = False) -> None:
    """Every round: what it began with, J&F before and after, and what the gate said."""
    from engine.rounds import rounds
    from engine.services import connect

    with connect() as s:
        rows = [(rounds.start_of(s, r), rounds.outcome_of(s, r)) for r in rounds.ids(s)]
    if as_json:
        print(json.dumps([dataclasses.asdict(a) | (dataclasses.asdict(b) if b else {}) for a, b in rows]))
        return
    table = Table("round", "release", "from", "masklets", "steps", "J&F before", "after", "gate")
    for begun, outcome in rows:
        figures = (
            ("", "", "running")
            if outcome is None
            else (
                f"{100 * outcome.jf_before:.1f}",
                f"{100 * outcome.jf_after:.1f}",
                "promoted" if outcome.promoted else "; ".join(outcome.reasons),
            )
        )
        table.add_row(begun.round_id, begun.release, begun.parent, str(begun.masklets), str(begun.steps), *figures)
    out.print(table if rows else "no round yet: masklets train")


@app.command()
def evaluate(
    checkpoint: Annotated[
        str, typer.Argument(help="A round's id, micro, a hub name, a folder or a .pt file.")
    ] = "micro",
    data: Annotated[
        str | None,
        typer.Option("--data", "--release", help="A release, an SA-V folder or a DAVIS root; else the newest release."),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "val",
    protocol: Annotated[
        str, typer.Option(help="mask, box, 1-click, 3-click or 5-click on the first frame; interactive; or image.")
    ] = "3-click",
    objects: Annotated[int | None, typer.Option(min=1, help="Interactive and image: at most so many objects.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw what was reached into this PNG.")] = None,
    as_json: Json = False,
) -> None:
    """What a checkpoint reaches on held-out videos of any dataset, with simulated prompts."""
    from engine.protocols import first_frame as exams
    from engine.protocols import interactive
    from engine.rounds import rounds
    from engine.services import connect

    if protocol not in (*exams.PROTOCOLS, "interactive", "image"):
        raise ValueError(f"the protocols are {', '.join(exams.PROTOCOLS)}, interactive and image, not {protocol!r}")
    if objects and protocol in exams.PROTOCOLS:
        raise ValueError(f"--objects is for interactive and image; {protocol} takes every object")
    with connect() as s, _bar("videos") as bar:
        chosen = _dataset(s, data, split)
        loaded = s.model(rounds.checkpoint_of(s, checkpoint))
        result: Any
        if protocol == "interactive":
            result = interactive.measure(chosen, loaded, most_objects=objects, progress=bar)
        elif protocol == "image":
            result = interactive.measure_images(chosen, loaded, most_objects=objects, progress=bar)
        else:
            result = exams.measure(chosen, loaded, protocol, bar)
    if picture and protocol == "interactive":
        interactive.picture(result, checkpoint, picture)
    elif picture:
        exams.picture(_points(result), f"{checkpoint}, {protocol}", picture)
    if as_json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    table = Table(title=f"{checkpoint} on {chosen.name}, {split}: {protocol}", show_header=False)
    if protocol == "interactive":
        for number, (offline, online) in enumerate(zip(result.offline_jf, result.online_jf, strict=True), 1):
            frames = f"{number} frame{'s' if number > 1 else ''} clicked on"
            table.add_row(f"{frames}, offline and online", f"J&F {offline:.1f} and {online:.1f}")
        table.add_row("their means", f"J&F {result.offline_mean_jf:.1f} and {result.online_mean_jf:.1f}")
        table.add_row("modelled time of an annotator, offline", f"{result.offline_modelled_s:.0f} s an object")
        table.add_row("modelled time of an annotator, online", f"{result.online_modelled_s:.0f} s an object")
        table.add_row("single frames, 1 and 5 clicks", f"mIoU {result.image_miou_1:.1f} and {result.image_miou_5:.1f}")
    else:
        for name, points in _points(result).items():
            table.add_row(name, f"{points:.1f}")
    table.add_row("objects", str(result.masklets if protocol in exams.PROTOCOLS else result.objects))
    out.print(table)
    if picture:
        out.print(f"drawn: {picture}", soft_wrap=True)


# -------------------------------------------------------------------------------------------------------------- people


@users_app.command("add")
def users_add(
    name: str,
    role: Annotated[list[str], typer.Option(help="annotator, verifier, lead, admin or pipeline; may be repeated.")],
    skill: Annotated[
        list[str] | None, typer.Option(help="What tickets may ask for; may be repeated. Else left as they are.")
    ] = None,
    password: Annotated[
        str | None, typer.Option(help="Else one is made and printed.", envvar="MASKLETS_PASSWORD")
    ] = None,
) -> None:
    """Add a person, or change the roles, the skills and the password of one."""
    from annotation_queue.records import Role
    from engine.services import connect

    roles = [_known(word, Role, "roles") for word in role]
    chosen = password or secrets.token_urlsafe(12)
    with connect() as s:
        _, accounts = s.open_queue()
        accounts.add(name, roles, chosen, skills=skill)
    out.print(f"{name} ({', '.join(role)})" + ("" if password else f", password {chosen}"))


@users_app.command("list")
def users_list(as_json: Json = False) -> None:
    """Everybody, with their roles, skills and tokens."""
    from engine.services import connect

    with connect() as s:
        _, accounts = s.open_queue()
        everybody = accounts.accounts()
    if as_json:
        print(json.dumps({"people": [dataclasses.asdict(person) for person in everybody]}))
        return
    for person in everybody:
        parts = [", ".join(person.roles), f"knows {', '.join(person.skills)}" if person.skills else ""]
        parts += [f"token {t.token_id} ({', '.join(t.scopes or ['unlimited'])})" for t in person.tokens]
        parts += ["disabled" if person.disabled else ""]
        out.print(f"{person.name}  {'; '.join(part for part in parts if part)}", soft_wrap=True)


@users_app.command("disable")
def users_disable(name: str) -> None:
    """Shut a person out, and end their logins and tokens."""
    from engine.services import connect

    with connect() as s:
        s.open_queue()[1].disable(name)
    out.print(f"{name} is shut out")


@users_app.command("enable")
def users_enable(name: str) -> None:
    """Let a person who was shut out log in again."""
    from engine.services import connect

    with connect() as s:
        s.open_queue()[1].disable(name, False)
    out.print(f"{name} may log in again")


@users_app.command("remove")
def users_remove(name: str) -> None:
    """Remove a person; what they did stays."""
    from engine.services import connect

    with connect() as s:
        _, accounts = s.open_queue()
        if not accounts.remove(name):
            raise ValueError(f"there is no {name!r}")
    out.print(f"{name} is removed")


@users_app.command("token")
def users_token(
    name: str,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, annotate or pipeline; may be repeated. Else whatever they may do.")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.01, help="How long it lasts. Else until it is revoked.")] = None,
) -> None:
    """A new token for a program that works as this person."""
    from annotation_queue.records import Scope
    from engine.services import connect

    scopes = [_known(word, Scope, "scopes") for word in scope] if scope else None
    with connect() as s:
        _, accounts = s.open_queue()
        out.print(accounts.issue_token(name, scopes, expires_s=None if days is None else days * 86400))


@users_app.command("revoke")
def users_revoke(
    name: str,
    token_id: Annotated[str | None, typer.Argument(help="As the list shows it. Else every token and login.")] = None,
) -> None:
    """End a token of a person, or all of them."""
    from engine.services import connect

    with connect() as s:
        _, accounts = s.open_queue()
        if token_id is None:
            out.print(f"{accounts.revoke_tokens(name)} tokens and logins of {name} are ended")
        else:
            accounts.revoke_token(name, token_id)
            out.print(f"token {token_id} of {name} is ended")


@users_app.command("audit")
def users_audit(limit: Annotated[int, typer.Option(min=1)] = 50, as_json: Json = False) -> None:
    """Who did what to people and tokens, which verdicts were taken back, what leads decided; the latest first."""
    from datetime import datetime

    from engine.services import connect

    with connect() as s:
        _, accounts = s.open_queue()
        lines = accounts.audited(limit=limit)
    if as_json:
        print(json.dumps({"audit": [dataclasses.asdict(line) for line in lines]}))
        return
    for line in lines:
        when = datetime.fromtimestamp(line.at).isoformat(" ", "seconds")
        out.print(f"{when}  {line.actor}  {line.action}  {line.subject}  {line.detail}", soft_wrap=True)


@gold_app.command("add")
def gold_add(batch: Annotated[str, typer.Argument(help="As `masklets stats` shows it.")]) -> None:
    """Make gold of what was decided in a batch: what was accepted as it was, and what was corrected."""
    from annotation_queue.people.accounts import OPERATOR
    from annotation_queue.records import Person
    from engine.services import connect
    from engine.stages import review

    with connect() as s:
        store, _ = s.open_queue()
        known = review.gold_of(s, store.batch_result(batch))
        added = store.add_gold(batch, known, by=Person(name=OPERATOR, roles=frozenset()))
    out.print(f"{added} new gold tickets beside batch {batch}, of {len(known)} that it gives")


@gold_app.command("list")
def gold_list(as_json: Json = False) -> None:
    """Every gold ticket, and how people did."""
    from engine.services import connect

    with connect() as s:
        every = s.open_queue()[0].gold()
    if as_json:
        print(json.dumps({"gold": [dataclasses.asdict(gold) for gold in every]}))
        return
    for gold in every:
        answer = gold.expected or "a masklet"
        out.print(f"{gold.gold_id}  batch {gold.batch_id}  {gold.kind}: {answer}; {gold.right} of {gold.done} right")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check that this machine can do the work: source, store, catalog, queue, Airflow, checkpoint, video codecs."""
    from engine.cli import doctor as checks

    results = checks.diagnose(Settings())
    if as_json:
        print(json.dumps([dataclasses.asdict(r) for r in results]))
    else:
        for r in results:
            mark, style = ("ok  ", "green") if r.ok else ("FAIL", "red")
            out.print(Text.assemble((mark, style), f" {r.name}: {r.detail}"), soft_wrap=True)
    if not all(r.ok for r in results):
        raise typer.Exit(1)


# -------------------------------------------------------------------------------------------------------------- helpers


def _known(word: str, words: type[E], what: str) -> E:
    """The member that a word names. Raises ValueError."""
    if word not in {member.value for member in words}:
        raise ValueError(f"the {what} are {', '.join(member.value for member in words)}, not {word!r}")
    return words(word)


def _ingest(s: Any, videos: str | None) -> Any:
    from engine.stages import ingest as stage

    with _bar("ingest") as bar:
        return stage.admit(s, videos, bar)


def _batches_of(s: Any, videos: str) -> set[str]:
    """The batches with videos of this folder or prefix: people may be at work on the others."""
    rows = s.tables.videos()
    if videos.startswith("s3://"):
        return {v.batch_id for v in rows if v.source_uri.startswith(videos.rstrip("/") + "/")}
    folder = Path(videos).resolve()
    return {v.batch_id for v in rows if folder in Path(v.source_uri).resolve().parents}


def _simulate(s: Any, batch_ids: list[str], check: Callable[[], None]) -> dict[str, Any]:
    """Closes the review of these batches and publishes them; returns what was simulated and the releases."""
    from annotation_queue.records import Role, State
    from engine.demo import simulated_people as people
    from engine.stages import batches, publish
    from engine.stages import review as reviews
    from engine.stages.batches import BatchStage

    hired = []
    _, accounts = s.open_queue()
    for name, role in (("sim-annotator", Role.ANNOTATOR), ("sim-verifier", Role.VERIFIER), ("sim-lead", Role.LEAD)):
        password = secrets.token_urlsafe(12)
        accounts.add(name, [role], password)
        hired.append(people.Credentials(name, password))
    total, waiting = people.Tally(), False
    for batch_id in batch_ids:
        total.add(people.work(s, hired, batch_id=batch_id))
        while s.queue.tickets(batch_id=batch_id, state=State.LEASED, limit=1):
            if not waiting:
                _say_dim("somebody holds tickets, or a run that was killed did: waiting until they come back")
                waiting = True
            check()
            time.sleep(1)
            total.add(people.work(s, hired, batch_id=batch_id))
        if batch_id in batches.pending(s.blobs, BatchStage.COLLECTED):
            reviews.collect(s, batch_id)
        publish.publish_batch(s, batch_id)
    facts = [batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) or {} for batch_id in batch_ids]
    return {"simulated": people.as_json(total), "releases": [fact.get("release", "") for fact in facts]}


def _first_person(s: Any) -> tuple[str, str]:
    """The account for trying things out, made once and kept in the home: a lead, who may take every ticket."""
    from annotation_queue.records import Role
    from engine.files import write_secret

    path = s.home / "first-user.txt"
    _, accounts = s.open_queue()
    if not path.exists() or "lead" not in {person.name for person in accounts.list()}:  # the database may be another
        password = secrets.token_urlsafe(9)
        accounts.add("lead", [Role.LEAD, Role.VERIFIER], password)
        write_secret(path, password)
    return "lead", path.read_text().strip()


def _say_ingest(facts: Mapping[str, Any]) -> None:
    ignored = f", {facts['ignored']} other files ignored" if facts["ignored"] else ""
    postponed = f", {facts['postponed']} still changing: run it again" if facts["postponed"] else ""
    if facts["admitted"] or facts["quarantined"]:
        line = (
            f"{facts['admitted']} videos admitted, {facts['quarantined']} quarantined, {facts['unchanged']} unchanged"
        )
        out.print(line + ignored + postponed + ("; see masklets quarantine" if facts["quarantined"] else ""))
    elif facts["unchanged"] or facts["postponed"]:
        out.print(f"nothing new: {facts['unchanged']} videos were judged before{ignored}{postponed}")
    else:
        out.print(f"there are no videos{ignored}")


def _say_dim(line: str) -> None:
    err.print(line, style="dim", soft_wrap=True)


def _say_run(facts: Mapping[str, Any]) -> None:
    _say_ingest(facts["ingest"])
    for release in facts.get("releases", []):
        out.print(f"published {release or 'nothing: every candidate was rejected'}")


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{counts[k]} {k}" for k in ("videos", "masklets", "masks") if k in counts)


def _dataset(s: Any, where: str | None, split: str) -> Any:
    """What `--data` names, else the newest release."""
    from engine.datasets import labelled
    from storage import releases

    if split not in ("train", "val", "test", "all"):
        raise ValueError(f"the splits are train, val, test and all, not {split!r}")
    place = _newest(releases.names(s.blobs)) if where is None else where
    return labelled.open_dataset(place, blobs=s.blobs, split=None if split == "all" else split)


def _points(result: Any) -> dict[str, float]:
    """The figures of an exam on first frames or on images, 0 to 100, by what they say."""
    if hasattr(result, "miou_1"):
        return {"mIoU, 1 click": result.miou_1, "mIoU, 5 clicks": result.miou_5}
    slices = {f"J&F, {name.replace('size=', '')}": 100 * value for name, value in result.slices.items()}
    return {"J&F": 100 * result.jf} | slices


def _newest(names: list[str]) -> str:
    if not names:
        raise ValueError("there is no release yet: nothing was published")
    return names[-1]


@contextmanager
def _bar(label: str, shown: bool = True) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on a terminal, else a line every LINE_S; call it with the number done, the total and a word."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[word]}", markup=False), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, disable=not (shown and err.is_terminal), transient=True) as progress:
        task = progress.add_task(label, total=None, word="")
        said = time.monotonic()

        def show(done: int, total: int, word: str) -> None:
            nonlocal said
            progress.update(task, completed=done, total=total, word=word)
            if shown and progress.disable and time.monotonic() - said >= LINE_S:
                said = time.monotonic()
                err.print(f"{label}: {done}/{total} {word}", style="dim", soft_wrap=True)

        yield show


def _labelled(bar: Callable[[int, int, str], None], label: str) -> Callable[[int, int, str], None]:
    return lambda done, total, word: bar(done, total, f"{label}, {word}")


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, so that what it started is stopped."""
    import signal

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
