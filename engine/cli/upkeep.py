"""Commands for the upkeep of the store and its releases: compact, tag, tidy, withdraw, reproduce."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import console
from engine.cli.console import Json
from engine.cli.data import newest
from storage.wording import counted


def compact(
    least_mib: Annotated[
        float, typer.Option(min=0.001, help="MiB of a large file; the newest batches wait until they fill one.")
    ] = 64.0,
    as_json: Json = False,
) -> None:
    """Write the small files of published batches again as large ones. The new release has the same rows as the last.

    Earlier releases keep their files. Can run at any time, on the machine that publishes.
    """
    from engine.services import connect
    from engine.stages import upkeep

    with connect() as s, console.bar("compact") as bar:
        done = upkeep.compact(s, bar, round(least_mib * 2**20))
    if as_json:
        console.print_json(done)
        return
    for problem in done.problems:
        console.out.print(problem, style="yellow")
    made = f"{counted(done.parts, 'file')} into {counted(done.groups, 'large file')}, release {done.release}"
    console.out.print(made if done.groups else f"nothing to compact: no {least_mib:g} MiB of published batches")


def tag(
    name: Annotated[str, typer.Argument(help="The new name, such as v1.0.")],
    release: Annotated[str | None, typer.Option(help="A release. Default: the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Give a release a name of your own. Its snapshot is tagged too, so other readers of Iceberg find it."""
    from engine.services import connect
    from engine.views import card
    from storage.dataset import release_names, releases

    with connect() as s:
        chosen = releases.load(s.blobs, release or newest(s))
        named, tagged = release_names.give_name(s.blobs, s.tables, chosen, name)
        card.keep(named, f"It is another name of {chosen.name}.")
    if as_json:
        console.print_json({"release": chosen.name, "name": name, "tagged": tagged})
        return
    console.out.print(f"{name} is {chosen.name}")
    if not tagged:
        console.out.print("without a tag in Iceberg: its snapshot has expired", style="yellow")


def tidy(as_json: Json = False) -> None:
    """Remove what killed processes left, old snapshots of the tables, and files that nothing has named for a day.

    Can run at any time, on any machine: once a day is enough.
    """
    from engine.services import connect
    from engine.stages import upkeep

    with connect() as s:
        done = upkeep.tidy(s)
    if as_json:
        console.print_json(done)
        return
    for problem in done.problems:
        console.out.print(problem, style="yellow")
    console.out.print(
        f"{counted(done.removed, 'partial file')} removed; {done.freed_bytes / 2**20:.1f} MiB of the cache freed"
    )
    left = f"; {counted(done.waiting, 'file')} that nothing names can go in a day" if done.waiting else ""
    console.out.print(f"{counted(done.expired, 'snapshot')} expired, {counted(done.swept, 'file')} swept{left}")


def withdraw(
    video: Annotated[str, typer.Argument(help="The id of a video.")],
    why: Annotated[str, typer.Option(help="The reason, which is recorded.")],
    by: Annotated[str | None, typer.Option(help="Who withdraws it. Default: your login name.")] = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="Also delete its files, from earlier releases too. Cannot be undone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take a video and all that came of it out of the dataset. The new release and the tables are without it.

    Earlier releases keep it, unless you say --erase, and `validate` and `export` say so. Also without --erase, `tidy`
    deletes what no release names on its second run, a day later: the video's candidates, the acts of its annotators
    and its unpublished masklets. The queue rejects its open tickets. Run it again after a kill, or if the queue did
    not answer, on the machine that publishes.
    """
    from getpass import getuser

    from engine.services import connect
    from engine.stages import withdrawing

    with connect() as s:
        done = withdrawing.withdraw(s, video, by=by or getuser(), why=why, erase=erase)
    if as_json:
        console.print_json(done)
    else:
        said = f"{video} withdrawn by {done.act.by} at {done.act.at}: {done.act.why}"
        console.out.print(said + (f"; {counted(done.erased, 'file')} erased" if erase else ""))
        console.out.print(f"release {done.release}" if done.release else "no release holds it")
        for name in done.held_by:
            console.out.print(f"{name} holds it", style="yellow")
        if done.rejected:
            console.out.print(f"{counted(done.rejected, 'open ticket')} rejected")
        if done.trouble:
            console.err.print(done.trouble, style="yellow")
    if done.trouble:
        raise typer.Exit(1)


def reproduce(
    release: Annotated[str | None, typer.Argument(help="A release. Default: the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Make the manifests of a release again from its files, and compare their hashes with the stored ones.

    Reads every byte of the release.
    """
    from engine.services import connect
    from storage.dataset import releases, reproduction

    with connect() as s, console.bar("reproduce") as bar:
        chosen = releases.load(s.blobs, release or newest(s))
        found = reproduction.reproduce(chosen, bar)
    if as_json:
        console.print_json({"release": chosen.name, "sha256": found.sha256, "differences": found.differences})
    else:
        for line in found.differences:
            console.out.print(line, style="red")
        same = "identical" if not found.differences else counted(len(found.differences), "difference")
        console.out.print(f"{chosen.name}: {same}, manifest sha256 {found.sha256}")
    if found.differences:
        raise typer.Exit(1)
