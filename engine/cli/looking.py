"""Commands to look at releases: stats, browse, show, diff, card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli import console, pipeline
from engine.cli.console import Json
from engine.cli.data import newest
from storage.wording import counted


def stats(
    release: Annotated[
        str | None, typer.Argument(help="A release, or `newest`. Default: the state of batches.")
    ] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write one page with tables, plots and pictures.")] = None,
    as_json: Json = False,
) -> None:
    """How far every batch has come, which are stuck and why; of a release, SA-V's tables."""
    if release is None and page is None:
        pipeline.stats(as_json)
        return
    from engine.services import connect
    from engine.views import figures, tables
    from storage.dataset import releases

    with connect() as s:
        chosen = releases.load(s.blobs, newest(s) if release in (None, "newest") else str(release))
        with console.bar("stats") as bar:
            found = figures.of(chosen, s.tables, bar)
        if page is not None:
            from engine.views import report

            report.write(chosen, found, page)
    if as_json:
        console.print_json(found.as_json())
        return
    for table in tables.of(found):
        head, *rows = table.rows
        console.print_rows(head if any(head) else (), rows, table.title)
    if page is not None:
        console.out.print(f"{chosen.name}: written to {page}")


def browse(
    release: Annotated[str | None, typer.Argument(help="A release. Default: the newest.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 7266,
    window: Annotated[bool, typer.Option("--window/--no-window", help="Open the page in a browser.")] = True,
) -> None:
    """Look through a release in a browser of this machine: filter its masklets, play its videos. Until Ctrl-C."""
    import webbrowser

    from engine.services import connect
    from engine.serving import serve
    from storage.dataset import releases

    def opened(address: str) -> None:
        console.out.print(f"{chosen.name}: {address}   (Ctrl-C ends it)")
        if window:
            webbrowser.open(address)

    with connect() as s:
        chosen = releases.load(s.blobs, release or newest(s))
        serve.browse(s, chosen.name, port, opened)


def show(
    video: Annotated[str, typer.Argument(help="An id, a unique beginning of one, or the name of the source file.")],
    release: Annotated[str | None, typer.Option(help="A release. Default: the newest.")] = None,
    style: Annotated[str, typer.Option(help="fill, outline or cut-out.")] = "fill",
    out: Annotated[Path | None, typer.Option(help="FILE.mp4. Default: the video's id, in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Render a video of a release with its masklets: a film (mp4), and a contact sheet (jpg) beside it."""
    from engine.pictures import Style
    from engine.services import connect
    from engine.views import show as views
    from storage.dataset import releases

    chosen = console.member(style, Style, "styles")
    with connect() as s:
        pinned = releases.load(s.blobs, release or newest(s))
        found = views.find(pinned, video)
        path = out or Path(f"{found.video_id}.mp4")
        with console.bar("show") as bar:
            written = views.write(pinned, found, path, chosen, bar)
    if as_json:
        console.print_json(written)
        return
    made = f"{counted(written.masklets, 'masklet')} on {counted(written.frames, 'annotated frame')}"
    console.out.print(f"{made}: {written.film} and {written.sheet}")


def diff(
    before: Annotated[str, typer.Argument(help="A release: its name or its folder. Or the id of a masklet.")],
    after: Annotated[str, typer.Argument(help="What to compare it with: another one of the same.")],
    out: Annotated[Path, typer.Option(help="The frames that differ most: FILE.jpg.")] = Path("diff.jpg"),
    as_json: Json = False,
) -> None:
    """Compare two releases, or two versions of a masklet: in numbers, and the frames that differ most in pictures."""
    from engine.services import connect
    from engine.views import versions

    if out.suffix.lower() not in (".jpg", ".jpeg"):
        raise ValueError(f"the picture is a FILE.jpg, not {out}")
    with connect() as s, console.bar("diff") as bar:
        compared = versions.compare(s, before, after, bar)
        drawn = compared.draw(out)
    if as_json:
        console.print_json(compared.as_json() | {"picture": str(out) if drawn else None})
        return
    for title, rows in compared.tables():
        console.print_rows(rows[0], rows[1:], title)
    console.out.print(f"the frames that differ most: {out}" if drawn else "no mask differs: no picture")


def card(
    release: Annotated[str | None, typer.Argument(help="A release. Default: the newest.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write it to this file, such as README.md. Default: print it.")
    ] = None,
) -> None:
    """The card of a release: what it holds, how it was made and checked, licences, known limits. Markdown."""
    from engine.services import connect
    from engine.views import card as cards
    from engine.views import figures
    from storage.dataset import releases

    with connect() as s, console.bar("card") as bar:
        chosen = releases.load(s.blobs, release or newest(s))
        text = cards.write(s, chosen, figures.of(chosen, s.tables, bar))
    if out is None:
        print(text, end="")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    console.out.print(f"{chosen.name}: its card is {out}")
