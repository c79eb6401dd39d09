"""Commands about checkpoints: train, rounds, evaluate."""

from __future__ import annotations

import dataclasses
import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from engine.cli import console
from engine.cli.console import Json
from engine.cli.data import newest
from engine.settings import Settings
from model.training.parameter_groups import TrainedParts
from storage.wording import counted

if TYPE_CHECKING:
    from engine.datasets.labelled import Dataset
    from engine.protocols.beside import Scores
    from engine.protocols.groups import Groups
    from engine.rounds.chain import Link
    from engine.rounds.record import RoundResult
    from engine.services import Services
    from validation.paired import Change

AIRFLOW_S = 10.0  # seconds to wait for each of Airflow's answers
SPLITS = ("train", "val", "test", "all")


def train(
    release: Annotated[str | None, typer.Option(help="Round: a release. Default: the newest.")] = None,
    data: Annotated[
        str | None, typer.Option(help="No round: a release, an SA-V folder or a DAVIS root to train on.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="With --data: where the checkpoint goes.")] = None,
    parent: Annotated[
        str | None, typer.Option("--from", help="With --data: the checkpoint to start from. Default: the serving one.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="With --data: full (the paper's), mask-only (of phase 2), quick, or a FILE.json.")
    ] = "quick",
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:1. Default: the setting.")] = None,
    split: Annotated[str, typer.Option(help="With --data: the videos to train on: train, val, test or all.")] = "train",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps. Default: the setting's or the recipe's.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate. Default: the setting's or the recipe's.")] = None,
    parts: Annotated[
        str | None,
        typer.Option("--train", help="all, memory (all but the image encoder) or decoder. Default: the setting's."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    as_json: Json = False,
) -> None:
    """One retraining round: train, evaluate on held-out videos, promote if the gate passes. With --data: train only."""
    settings = Settings()
    if device:
        settings = settings.model_copy(update={"model": settings.model.model_copy(update={"device": device})})
    known = get_args(TrainedParts)
    if parts is not None and parts not in known:
        raise ValueError(f"--train is {', '.join(known[:-1])} or {known[-1]}, not {parts!r}")
    changes = {"steps": steps, "lr": lr, "parts": parts, "seed": seed}
    if data is None and folder is None:
        if parent is not None or recipe != "quick" or split != "train":
            raise ValueError("a round starts from the serving checkpoint, with its own recipe and split: see --data")
        _train_round(settings, release, changes, as_json)
        return
    if data is None or folder is None or release is not None:
        raise ValueError("training without a round takes --data and --out, and no --release")
    trained = _train_on(settings, data, split, folder, parent, recipe, changes)
    if trained is None:
        return
    if as_json:
        console.print_json({key: trained[key] for key in ("checkpoint", "steps", "loss")})
    else:
        loss = "" if trained["loss"] is None else f", loss {trained['loss']:.3f}"
        console.out.print(f"{folder}: {counted(trained['steps'], 'step')} on {data} from {trained['parent']}{loss}")


def _train_round(settings: Settings, release: str | None, changes: dict[str, Any], as_json: bool) -> None:
    from engine import loop
    from engine.rounds.starting import Budget
    from engine.services import connect

    with connect(settings) as s, console.bar("training") as bar:
        chosen = release or newest(s)
        result = loop.retrain(s, chosen, Budget(**changes), progress=bar, tell=console.print_dim)
    if as_json:
        console.print_json(result)
        return
    verdict = "promoted" if result.promoted else _how_to_approve(result.round_id) if result.waits else "not promoted"
    console.out.print(f"{result.round_id}: J&F {100 * result.jf_before:.1f} -> {100 * result.jf_after:.1f}, {verdict}")
    for reason in result.reasons:
        console.out.print(f"  {reason}")


def _train_on(
    settings: Settings, data: str, split: str, folder: Path, parent: str | None, recipe: str, changes: dict[str, Any]
) -> dict[str, Any] | None:
    """Trains outside of rounds. Under torchrun only the first process prints, and the others return None."""
    from engine.rounds import recipes, record
    from engine.services import connect

    on_cpu = settings.model.model_copy(update={"device": "cpu"})  # each process moves the model to its own GPU later
    with connect(settings.model_copy(update={"model": on_cpu})) as s:
        found = open_data(s, data, split)
        from engine.rounds import training  # after the data was found: importing the model takes seconds
        from model import devices
        from model.training import parallel

        leads = parallel.leads()
        with console.bar("training", leads) as bar:
            begun = s.model(record.checkpoint_of(s, parent) if parent else s.checkpoint(), to_train=True)
            chosen = recipes.fitted(recipes.recipe_of(recipe, begun.image_size), **changes)
            last: list[float] = []

            def report(progress: Any) -> None:
                last[:] = [progress.losses["total"]]
                bar(progress.step, progress.steps, f"{progress.stage}, loss {progress.losses['total']:.3f}")

            training.train_on(
                found,
                folder,
                chosen,
                begun,
                device=devices.pick_device(settings.model.device),
                tracked=lambda: s.registry.track(str(folder.absolute()), "training"),
                look_through=bar,
                report=report,
            )
    if not leads:
        return None
    steps = sum(stage.steps for stage in chosen.stages)
    loss = last[0] if last else None
    return {"checkpoint": str(folder), "steps": steps, "loss": loss, "parent": begun.name}


def _how_to_approve(round_id: str) -> str:
    return f"waits for approval: masklets rounds approve {round_id}"


rounds_app = typer.Typer(help="Every round: its parent checkpoint, J&F before and after, and the gate's decision.")


@rounds_app.command("rollback")
def rollback(
    to: Annotated[
        str | None,
        typer.Option(help="An earlier checkpoint. Default: the parent of the serving round."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take a promotion back: an earlier checkpoint serves again, without a restart. Nothing is deleted."""
    from engine.rounds import rollback
    from engine.services import connect

    with connect() as s:
        done = rollback.rollback(s, to)
    if as_json:
        console.print_json(done)
    else:
        console.out.print(f"{done.serving} serves again; promotions taken back: {', '.join(done.taken_back)}")


Round = Annotated[str, typer.Argument(help="The id of a round that waits for approval.")]
By = Annotated[str | None, typer.Option(help="Who answers. Default: the name of this login.")]
Why = Annotated[str, typer.Option(help="The reason, for the record.")]


@rounds_app.command("approve")
def approve(round_id: Round, by: By = None, why: Why = "", as_json: Json = False) -> None:
    """Promote the checkpoint of a round that passed the gate and waits for a person's approval."""
    _answer(round_id, True, by, why, as_json)


@rounds_app.command("reject")
def reject(round_id: Round, by: By = None, why: Why = "", as_json: Json = False) -> None:
    """Keep the serving checkpoint, although the round passed the gate. An answer cannot be changed."""
    _answer(round_id, False, by, why, as_json)


def _answer(round_id: str, approved: bool, by: str | None, why: str, as_json: bool) -> None:
    from engine.rounds import record, retraining
    from engine.services import connect

    with connect() as s:
        if (earlier := record.result_of(s, round_id)) is not None:
            raise ValueError(f"{round_id} was already {'promoted' if earlier.promoted else 'decided: not promoted'}")
        result = retraining.answer(s, round_id, approved=approved, by=by or getpass.getuser(), why=why)
        _answer_in_airflow(s.settings, result)
    if as_json:
        console.print_json(result)
    else:
        verdict = "promoted" if result.promoted else "not promoted"
        console.out.print(f"{round_id}: {verdict}; {'; '.join(result.reasons)}")


def _answer_in_airflow(settings: Settings, result: RoundResult) -> None:
    """Gives the same answer to the run in Airflow that asks about a round: no other run of `retrain` starts before.

    The Airflow is that of `airflow.url`, or the one that runs in `home`. If it does not answer, a line says so.
    """
    from engine.processes import airflow
    from engine.processes.airflow_client import AirflowError
    from engine.serving import delivery

    if settings.airflow.url is None:
        here = settings.airflow.model_copy(update={"url": airflow.running_at(settings.airflow_home), "password": None})
        settings = settings.model_copy(update={"airflow": here})
    if settings.airflow.url is None:
        return
    try:
        with delivery.airflow_client(settings, AIRFLOW_S) as client:
            client.answer("retrain", "approve", result.round_id, "Approve" if result.promoted else "Reject")
    except AirflowError as error:
        console.print_dim(f"the decision stands, but a run in Airflow may still wait for it: answer it there ({error})")


@rounds_app.callback(invoke_without_command=True)
def list_rounds(
    context: typer.Context,
    picture: Annotated[
        Path | None, typer.Option(help="Draw J&F, clicks, seconds and cost over the rounds: FILE.html or FILE.png.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Every round: its release and who made its masklets, the checkpoint before and after, J&F, and the decision."""
    if context.invoked_subcommand is not None:
        return
    from engine.rounds import chain
    from engine.services import connect

    with connect() as s:
        links = chain.links(s)
    table = [ROUND_COLUMNS, *(_round_row(link) for link in links)]
    if picture is not None:
        from engine.rounds import chain_picture

        chain_picture.draw(links, table, picture)
    if as_json:
        console.print_json([chain.as_json(link) for link in links])
        return
    if not links:
        console.out.print("no round yet: masklets train")
        return
    console.print_rows(table[0], table[1:])
    if picture is not None:
        console.out.print(f"drawn: {picture}")


ROUND_COLUMNS = (
    *("round", "release", "from", "masklets", "steps", "J&F before", "after", "general set", "serves then"),
    *("clicks a masklet", "s a frame", "hours", "masklets by checkpoint", "gate"),
)


SAID_OF = {
    "running": "running",
    "stopped": "stopped, run again to continue",
    "failed": "failed, and does not continue by itself",
}


def _round_row(link: Link) -> tuple[str, ...]:
    """A row of the table of rounds. Clicks, seconds and hours are of the masklets since the round before."""
    from engine.rounds.record import RoundState

    begun, added, result = link.begun, link.added, link.result
    if link.state is RoundState.WAITS:
        gate = _how_to_approve(begun.round_id)
    elif result is None:
        gate = SAID_OF[link.state]
    else:
        gate = "promoted" if result.promoted else "; ".join(result.reasons)
        gate += ", taken back" if link.taken_back else ""
    return (
        begun.round_id,
        begun.release,
        begun.parent,
        str(begun.masklets),
        str(begun.steps),
        *("" if jf is None else f"{100 * jf.mean:.1f}" for jf in (link.before, link.after)),
        _general_set(result),
        link.checkpoint_after or "",
        *("" if value is None else f"{value:.1f}" for value in (added.clicks_a_masklet, added.seconds_a_frame)),
        "" if added.hours is None else f"{added.hours:.2f}",
        ", ".join(f"{number} {name}" for name, number in link.made_by.items()) or "not recorded",
        gate,
    )


def _general_set(result: RoundResult | None) -> str:
    """J&F on the general set, before the first of the rounds that may forget together and after this one."""
    if result is None or result.general_after is None:
        return ""
    first = result.general_first or result.general_before or 0.0  # an earlier version recorded no first one
    return f"{100 * first:.1f} -> {100 * result.general_after:.1f} in {counted(result.general_rounds, 'round')}"


def evaluate(
    checkpoint: Annotated[
        str, typer.Argument(help="A round's id, micro, a hub name, a folder or a .pt file.")
    ] = "micro",
    data: Annotated[
        str | None,
        typer.Option(
            "--data", "--release", help="A release, an SA-V folder or a DAVIS root. Default: the newest release."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "val",
    protocol: Annotated[
        str, typer.Option(help="mask, box, 1-click, 3-click or 5-click on the first frame; interactive; or image.")
    ] = "3-click",
    objects: Annotated[int | None, typer.Option(min=1, help="Interactive and image: at most so many objects.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the result into this PNG.")] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Compare groups: by a metadata column, size, motion, visible or entry."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a checkpoint on held-out videos of any dataset, with simulated prompts."""
    from engine import pictures
    from engine.protocols import beside, first_frame, groups, interactive
    from engine.rounds import record
    from engine.services import connect

    if protocol not in (*first_frame.PROTOCOLS, "interactive", "image"):
        known = ", ".join(first_frame.PROTOCOLS)
        raise ValueError(f"the protocols are {known}, interactive and image, not {protocol!r}")
    if objects and protocol in first_frame.PROTOCOLS:
        raise ValueError(f"--objects is for interactive and image; {protocol} takes every object")
    result: Any
    more: Scores | None = None
    with connect() as s, console.bar("videos") as bar:
        chosen = open_data(s, data, split)
        loaded = s.model(record.checkpoint_of(s, checkpoint))
        if by is not None:
            _print_groups(groups.measure(chosen, loaded, by, bar), f"{checkpoint} on {chosen.name}, {split}", as_json)
            return
        if protocol == "interactive":
            result = interactive.measure(chosen, loaded, most_objects=objects, progress=bar)
        elif protocol == "image":
            result = interactive.measure_images(chosen, loaded, most_objects=objects, progress=bar)
        else:
            collected = beside.Beside()
            result = first_frame.measure(chosen, loaded, protocol, bar, collected.add)
            more = collected.scores()
    if picture and protocol == "interactive":
        title = f"{checkpoint}, {counted(result.objects, 'object')}"
        pictures.draw_curves(result.offline_jf, result.online_jf, title, picture)
    elif picture:
        pictures.draw_bars(_points(result), f"{checkpoint}, {protocol}", picture)
    if as_json:
        console.print_json(result if more is None else dataclasses.asdict(result) | _json_beside(more))
        return
    points = [(name, f"{value:.1f}") for name, value in _points(result).items()] if protocol != "interactive" else []
    count = str(result.masklets if protocol in first_frame.PROTOCOLS else result.objects)
    rows = [*(points or _interactive_rows(result)), *_rows_beside(more), ("objects", count)]
    console.print_rows((), rows, title=f"{checkpoint} on {chosen.name}, {split}: {protocol}")
    if picture:
        console.out.print(f"drawn: {picture}")


def _json_beside(found: Scores) -> dict[str, Any]:
    """The measures beside J&F as fields of the JSON."""
    overall = found.jf
    return {"j": overall and overall.j, "f": overall and overall.f, "mose": found.mose, "hota": found.hota}


def _rows_beside(found: Scores | None) -> list[tuple[str, str]]:
    """The measures beside J&F as rows of the table; those that could not be measured are left out."""
    if found is None:
        return []
    named = {} if found.jf is None else {"J": found.jf.j, "F": found.jf.f}
    if (adaptive := found.mose) is not None:
        of_frames = {"J&Ḟ": adaptive.all, "J&Ḟ, disappeared": adaptive.gone, "J&Ḟ, reappeared": adaptive.back}
        named |= {name: score.jf for name, score in of_frames.items() if score is not None}
    if (tracks := found.hota) is not None:
        named |= {"HOTA": tracks.hota, "DetA": tracks.det, "AssA": tracks.ass, "LocA": tracks.loc}
    return [(name, f"{100 * value:.1f}") for name, value in named.items()]


def _print_groups(found: Groups, title: str, as_json: bool) -> None:
    """The groups of a column as a table, with a warning for each that is too small."""
    if as_json:
        console.print_json(found)
        return

    def cell(jf: Change) -> str:
        return f"{100 * jf.mean:.1f} ({100 * jf.low:.1f} to {100 * jf.high:.1f})"

    protocols = tuple(found.groups[0].jf)
    rows = [(g.value, str(g.masklets), str(g.videos), *map(cell, g.jf.values())) for g in found.groups]
    if found.gap:
        rows.append(("gap", "", "", *(f"{100 * found.gap[protocol]:.1f}" for protocol in protocols)))
    heads = [f"J&F, {protocol} (95 % interval)" for protocol in protocols]
    console.print_rows((found.column, "masklets", "videos", *heads), rows, title=title)
    for group in found.groups:
        if not group.is_large_enough:
            size = f"{counted(group.masklets, 'masklet')} of {counted(group.videos, 'video')}"
            console.out.print(f"{group.value}: {size} are too few to say; not in the gap")


def open_data(s: Services, where: str | None, split: str) -> Dataset:
    """The dataset that `--data` names. Default: the newest release."""
    from engine.datasets import layouts

    if split not in SPLITS:
        raise ValueError(f"the splits are {', '.join(SPLITS[:-1])} and {SPLITS[-1]}, not {split!r}")
    place = newest(s) if where is None else where
    return layouts.open_dataset(place, blobs=s.blobs, split=None if split == "all" else split)


def _points(result: Any) -> dict[str, float]:
    """The metrics of a first-frame or an image protocol, 0 to 100, by their labels."""
    if hasattr(result, "miou_1"):
        return {"mIoU, 1 click": result.miou_1, "mIoU, 5 clicks": result.miou_5}
    slices = {f"J&F, {name.replace('size=', '')}": 100 * value for name, value in result.slices.items()}
    return {"J&F": 100 * result.jf} | slices


def _interactive_rows(result: Any) -> list[tuple[str, str]]:
    """The metrics of the interactive protocol, as rows of a table."""
    rows = []
    for number, (offline, online) in enumerate(zip(result.offline_jf, result.online_jf, strict=True), 1):
        label = f"{counted(number, 'frame')} clicked on, offline and online"
        rows.append((label, f"J&F {offline:.1f} and {online:.1f}"))
    return rows + [
        ("their means", f"J&F {result.offline_mean_jf:.1f} and {result.online_mean_jf:.1f}"),
        ("modelled time of an annotator, offline", f"{result.offline_modelled_s:.0f} s an object"),
        ("modelled time of an annotator, online", f"{result.online_modelled_s:.0f} s an object"),
        ("single frames, 1 and 5 clicks", f"mIoU {result.image_miou_1:.1f} and {result.image_miou_5:.1f}"),
    ]
