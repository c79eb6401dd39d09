"""Commands about datasets: validate, export, import-sav, tidy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import console
from engine.cli.console import Json
from storage.wording import counted

if TYPE_CHECKING:
    from engine.services import Services
    from storage.formats.destination import Exported
    from storage.releases import Release


def _as_sav(release: Release, folder: Path, media: bool) -> Exported:
    from storage.formats import sav

    return sav.export(release, folder, media=media)


def _as_davis(release: Release, folder: Path, media: bool) -> Exported:
    from storage.formats import davis

    return davis.export(release, folder)


#: The formats of `export`: each function writes a release into a folder.
EXPORTS: dict[str, Callable[[Release, Path, bool], Exported]] = {"sa-v": _as_sav, "davis": _as_davis}


def newest(s: Services) -> str:
    """The name of the last release. Raises ValueError if there is none; it names the batches that are stuck."""
    from engine.stages import trouble
    from storage import releases

    if names := releases.names(s.blobs):
        return names[-1]
    why = "; ".join(map(trouble.line, trouble.of_everything(s))) or "nothing was published"
    raise ValueError(f"there is no release yet: {why}")


def validate(
    release: Annotated[str | None, typer.Argument(help="A release. Default: the newest.")] = None,
    look: Annotated[bool, typer.Option("--warnings/--no-warnings", help="Also look for masks that look wrong.")] = True,
    as_json: Json = False,
) -> None:
    """Check a release: files, ids, every mask against its row and its video. Names batches that are stuck.

    Masks that flicker, jump or have specks, holes or ghosts are warnings: they do not fail the check.
    """
    from engine.services import connect
    from engine.stages import trouble
    from storage import releases
    from validation import mask_warnings, release_checks

    with connect() as s:
        chosen = releases.load(s.blobs, release or newest(s))
        found = release_checks.check(chosen)
        limits = mask_warnings.Thresholds(**s.settings.checks.model_dump())
        seen = mask_warnings.of_release(chosen, limits) if look else mask_warnings.Summary()
        stuck = trouble.of_everything(s)
    if as_json:
        facts = {"release": chosen.name, "masklets": found.masklets, "problems": found.problems}
        facts["warnings"] = mask_warnings.as_json(seen)
        console.print_json(facts | {"stuck": [dataclasses.asdict(batch) for batch in stuck]})
    else:
        for problem in found.problems:
            console.out.print(problem, style="red")
        for line in seen.lines():
            console.out.print(f"warning: {line}", style="yellow")
        for batch in stuck:  # what the newest release lacks; no problem of this one
            console.out.print(trouble.line(batch), style="yellow")
        checked = f"{counted(found.masklets, 'masklet')} of {counted(found.videos, 'video')}"
        console.out.print(f"{chosen.name}: {checked}, {counted(len(found.problems), 'problem')}")
    if found.problems:
        raise typer.Exit(1)


def export(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    release: Annotated[str | None, typer.Option(help="A release. Default: the newest.")] = None,
    form: Annotated[str, typer.Option("--format", help=f"{' or '.join(EXPORTS)}.")] = "sa-v",
    media: Annotated[bool, typer.Option(help="SA-V: the videos too. DAVIS always has its pictures.")] = False,
    as_json: Json = False,
) -> None:
    """Write a release as SA-V JSON files, or as DAVIS pictures and palette PNGs."""
    from engine.services import connect
    from storage import releases

    if form not in EXPORTS:
        raise ValueError(f"the formats are {' and '.join(EXPORTS)}, not {form!r}")
    with connect() as s:
        chosen = releases.load(s.blobs, release or newest(s))
        done = EXPORTS[form](chosen, folder, media)
    if as_json:
        files = list(map(str, done.files))
        console.print_json({"release": chosen.name, "files": files, "lost_px": done.lost_px})
        return
    console.out.print(f"{chosen.name}: {counted(len(done.files), 'file')} in {folder}")
    if done.lost_px:
        console.out.print(
            f"{counted(done.lost_px, 'pixel')} of masklets lost: another masklet covers them, DAVIS has one id a pixel"
        )


def import_sav(
    folder: Annotated[Path, typer.Argument(help="Holds NAME.mp4 and NAME_manual.json or NAME_auto.json.")],
    as_json: Json = False,
) -> None:
    """Import an SA-V dataset as published masklets: its videos are ingested, its masklets checked like any other."""
    from engine.services import connect
    from engine.stages.import_sav import import_folder

    with connect() as s, console.bar("import") as bar:
        report = import_folder(s, folder, bar)
    if as_json:
        console.print_json(report)
        return
    imported = f"{counted(report.videos, 'video')}, {counted(report.masklets, 'masklet')}"
    console.out.print(f"{imported}, release {report.release or 'none'}")
    if report.failed:
        console.out.print(f"{counted(report.failed, 'masklet')} failed a check; see masklets quarantine")
    if report.quarantined:
        console.out.print(f"{counted(report.quarantined, 'video')} quarantined; see masklets quarantine")
    if report.skipped:
        console.out.print(f"{counted(report.skipped, 'video')} skipped: already ingested, waiting for auto-masklets")


def tidy(as_json: Json = False) -> None:
    """Remove what killed processes left in the store and in the cache. Can run at any time, beside everything else."""
    from engine.services import connect
    from storage.blobs import cleaning

    with connect() as s:
        removed = s.blobs.tidy()
        freed = cleaning.trim(s.home / "cache", round(s.settings.storage.cache_gib * 2**30))
    if as_json:
        console.print_json({"removed": removed, "freed_bytes": freed})
        return
    console.out.print(f"{counted(removed, 'partial file')} removed; {freed / 2**20:.1f} MiB of the cache freed")
