"""Commands about datasets: validate, export, and the imports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import console
from engine.cli.console import Json, Project
from engine.progress import Progress
from storage.wording import counted

if TYPE_CHECKING:
    from engine.ingest.readers import Reader
    from engine.services import Services
    from engine.stages.imports import ImportReport
    from storage.dataset.releases import Release
    from storage.formats.destination import Exported
    from storage.formats.timeline import Timeline


def _as_sav(release: Release, folder: Path, media: bool, line: Timeline, progress: Progress) -> Exported:
    from storage.formats import sav

    return sav.export(release, folder, media=media, line=line, progress=progress)


def _as_sav_frames(release: Release, folder: Path, media: bool, line: Timeline, progress: Progress) -> Exported:
    from storage.formats import sav_frames

    return sav_frames.export(release, folder, line=line, progress=progress)


def _as_davis(release: Release, folder: Path, media: bool, line: Timeline, progress: Progress) -> Exported:
    from storage.formats import davis

    return davis.export(release, folder, line=line, progress=progress)


def _as_mose(release: Release, folder: Path, media: bool, line: Timeline, progress: Progress) -> Exported:
    from storage.formats import mose

    return mose.export(release, folder, line=line, progress=progress)


def _as_youtube_vos(release: Release, folder: Path, media: bool, line: Timeline, progress: Progress) -> Exported:
    from storage.formats import mose

    return mose.export(release, folder, youtube_vos=True, line=line, progress=progress)


def _as_coco(release: Release, folder: Path, media: bool, line: Timeline, progress: Progress) -> Exported:
    from storage.formats import coco

    return coco.export(release, folder, media=media, line=line, progress=progress)


def _as_youtube_vis(release: Release, folder: Path, media: bool, line: Timeline, progress: Progress) -> Exported:
    from storage.formats import youtube_vis

    return youtube_vis.export(release, folder, media=media, line=line, progress=progress)


def _as_cvat(release: Release, folder: Path, media: bool, line: Timeline, progress: Progress) -> Exported:
    from storage.formats import cvat

    return cvat.export(release, folder, media=media, line=line, progress=progress)


def _as_cvat_masks(release: Release, folder: Path, media: bool, line: Timeline, progress: Progress) -> Exported:
    from storage.formats import cvat

    return cvat.export(release, folder, masks=True, media=media, line=line, progress=progress)


def _as_yolo(release: Release, folder: Path, media: bool, line: Timeline, progress: Progress) -> Exported:
    from storage.formats import yolo

    return yolo.export(release, folder, line=line, progress=progress)


def _as_hf(release: Release, folder: Path, media: bool, line: Timeline, progress: Progress) -> Exported:
    from engine.verifier.keeping import is_verifier
    from storage.formats import hub

    return hub.export(
        release, folder, media=media, line=line, progress=progress, is_person=lambda name: not is_verifier(name)
    )


MOST_PRINTED = 5  # masklets whose stated figures differ from those of their masks
Review = Annotated[bool, typer.Option("--review", help="The masklets become tickets, instead of a release.")]
Export = Callable[["Release", Path, bool, "Timeline", Progress], "Exported"]
#: The formats of `export`: each function writes a release into a folder.
EXPORTS: dict[str, Export] = {
    "sa-v": _as_sav,
    "sa-v-frames": _as_sav_frames,
    "davis": _as_davis,
    "mose": _as_mose,
    "youtube-vos": _as_youtube_vos,
    "coco": _as_coco,
    "youtube-vis": _as_youtube_vis,
    "cvat": _as_cvat,
    "cvat-masks": _as_cvat_masks,
    "yolo": _as_yolo,
    "hf": _as_hf,
}


def written(
    s: Services, form: str, release: Release, folder: Path, media: bool, line: Timeline, progress: Progress
) -> Exported:
    """Writes a release into a folder in one of the EXPORTS; a dataset for the Hub with its card, too."""
    done = EXPORTS[form](release, folder, media, line, progress)
    if form == "hf":
        from engine.views import hub

        done.files.extend(hub.describe(s, release, folder, line))
    return done


def newest(s: Services) -> str:
    """The name of the last release: of the unnamed project, or else of the only project that has any.

    Raises ValueError if there is none, with the batches that are stuck; and if several projects have releases.
    """
    from engine import trouble
    from storage.dataset import releases

    named = releases.names(s.blobs)
    last = {releases.project_of(name): name for name in named if releases.place(name)[0]}
    if named and not last:  # people gave all of these names
        return named[-1]
    if "" in last or len(last) == 1:
        return last.get("") or next(iter(last.values()))
    if last:
        raise ValueError(f"name a release; the newest of each project: {', '.join(last.values())}")
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
    from engine import trouble
    from engine.services import connect
    from storage.dataset import releases, withdrawal
    from validation import mask_warnings, release_checks

    with connect() as s:
        chosen = releases.load(s.blobs, release or newest(s))
        found = release_checks.check(chosen)
        limits = mask_warnings.Thresholds(**s.settings.checks.model_dump())
        seen = mask_warnings.of_release(chosen, limits) if look else mask_warnings.Summary()
        stuck = trouble.of_everything(s)
        gone = withdrawal.held_by(chosen)
    if as_json:
        facts = {"release": chosen.name, "masklets": found.masklets, "problems": found.problems}
        facts["withdrawn"] = [dataclasses.asdict(act) for act in gone]
        facts["warnings"] = mask_warnings.as_json(seen)
        console.print_json(facts | {"stuck": [dataclasses.asdict(batch) for batch in stuck]})
    else:
        for problem in found.problems:
            console.out.print(problem, style="red")
        for line in seen.lines():
            console.out.print(f"warning: {line}", style="yellow")
        for act in gone:
            console.out.print(f"withdrawn: {act.video_id} by {act.by} at {act.at}: {act.why}", style="yellow")
        for batch in stuck:  # what the newest release lacks; no problem of this one
            console.out.print(trouble.line(batch), style="yellow")
        checked = f"{counted(found.masklets, 'masklet')} of {counted(found.videos, 'video')}"
        console.out.print(f"{chosen.name}: {checked}, {counted(len(found.problems), 'problem')}")
    if found.problems:
        raise typer.Exit(1)


def export(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    release: Annotated[str | None, typer.Option(help="A release. Default: the newest.")] = None,
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(EXPORTS)}.")] = "sa-v",
    media: Annotated[
        bool, typer.Option(help="sa-v, cvat, cvat-masks, hf: the videos too. coco, youtube-vis: the pictures too.")
    ] = False,
    timeline: Annotated[
        str,
        typer.Option(help="Whose frame numbers and times: stored (24 fps) or source (the file that you handed in)."),
    ] = "stored",
    as_json: Json = False,
) -> None:
    """Write a release in the format of other tools. Run it again after an interruption: it goes on."""
    from engine.services import connect
    from engine.stages import withdrawing
    from storage.dataset import releases
    from storage.formats.timeline import Timeline

    if form not in EXPORTS:
        raise ValueError(f"the formats are {', '.join(EXPORTS)}, not {form!r}")
    line = console.member(timeline, Timeline, "timelines")
    with connect() as s, console.bar("export") as bar:
        chosen = withdrawing.permitted(s, releases.load(s.blobs, release or newest(s)))
        done = written(s, form, chosen, folder, media, line, bar)
    if as_json:
        files = list(map(str, done.files))
        facts = {"release": chosen.name, "files": files, "lost_px": done.lost_px, "repeats": done.repeats}
        console.print_json(facts | ({"iou": _agreement(done)} if done.agreement.masks else {}))
        return
    console.out.print(f"{chosen.name}: {counted(len(done.files), 'file')} in {folder}")
    if done.agreement.masks:
        agreed = f"IoU with the masks {done.agreement.mean:.3f} on average, {done.agreement.least:.3f} at least"
        console.out.print(f"{counted(done.agreement.masks, 'mask')} as polygons: {agreed}")
    if done.repeats:
        console.out.print(
            f"{counted(done.repeats, 'annotated frame')} left out: the source shows the same frame as in another one"
        )
    if done.lost_px:
        console.out.print(
            f"{counted(done.lost_px, 'pixel')} of masklets lost: another masklet covers them, {form} has one id a pixel"
        )


def _agreement(done: Exported) -> dict[str, float]:
    found = done.agreement
    return {"masks": found.masks, "mean": round(found.mean, 6), "least": round(found.least, 6)}


def import_sav(
    folder: Annotated[Path, typer.Argument(help="Holds NAME.mp4 and NAME_manual.json or NAME_auto.json.")],
    review: Review = False,
    project: Project = "",
    as_json: Json = False,
) -> None:
    """Import an SA-V dataset as published masklets: its videos are ingested, its masklets checked like any other."""
    from engine.ingest.readers import sav_reader

    _import(folder, sav_reader, review, project, as_json)


def import_coco(
    folder: Annotated[
        Path, typer.Argument(help="Holds videos, and COCO files: NAME/00012.jpg is frame 12 of NAME.mp4.")
    ],
    review: Review = False,
    project: Project = "",
    as_json: Json = False,
) -> None:
    """Import COCO instances with `track_id` (RLE or polygons), as import-sav imports SA-V."""
    from engine.ingest.readers import coco_reader

    _import(folder, coco_reader, review, project, as_json)


def import_youtube_vis(
    folder: Annotated[Path, typer.Argument(help="Holds videos, and YouTube-VIS files that name their pictures.")],
    review: Review = False,
    project: Project = "",
    as_json: Json = False,
) -> None:
    """Import YouTube-VIS annotations, as import-sav imports SA-V."""
    from engine.ingest.readers import youtube_vis_reader

    _import(folder, youtube_vis_reader, review, project, as_json)


def import_cvat(
    folder: Annotated[Path, typer.Argument(help="Holds NAME.mp4 and NAME.xml, exported as CVAT for video 1.1.")],
    review: Review = False,
    project: Project = "",
    as_json: Json = False,
) -> None:
    """Import polygons and masks of CVAT for video, as import-sav imports SA-V."""
    from engine.ingest.readers import cvat_reader

    _import(folder, cvat_reader, review, project, as_json)


def _import(folder: Path, reader_of: Callable[[Path], Reader], review: bool, project: str, as_json: bool) -> None:
    from engine.services import connect
    from engine.stages.imports import import_folder

    with connect() as s, console.bar("import") as bar:
        report = import_folder(s, folder, bar, reader_of, review, project)
    if as_json:
        console.print_json(report)
    else:
        _print_import(report, review)
    if report.stuck:
        raise typer.Exit(1)


def _print_import(report: ImportReport, review: bool) -> None:
    imported = f"{counted(report.videos, 'video')}, {counted(report.masklets, 'masklet')}"
    console.out.print(f"{imported}, {'to be reviewed' if review else 'release ' + (report.release or 'none')}")
    if report.failed:
        console.out.print(f"{counted(report.failed, 'masklet')} failed a check; see masklets quarantine")
    if report.quarantined:
        console.out.print(f"{counted(report.quarantined, 'video')} quarantined; see masklets quarantine")
    if report.bad_files:
        console.out.print(f"{counted(report.bad_files, 'annotation file')} with bad rows; see masklets quarantine")
    if report.differing:
        console.out.print(f"{counted(report.differing, 'masklet')} whose file states other figures than the masks have")
        for line in report.differences[:MOST_PRINTED]:
            console.out.print(f"  {line}")
    if report.skipped:
        console.out.print(f"{counted(report.skipped, 'video')} skipped: already ingested, waiting for auto-masklets")
    for line in report.stuck:
        console.out.print(line, style="red")
