"""The command `push`: a release as a dataset on the Hugging Face Hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import console, data
from engine.cli.console import Json
from storage.wording import counted


def push(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub. It is made if it does not exist.")],
    release: Annotated[str | None, typer.Option(help="A release. Default: the newest.")] = None,
    private: Annotated[bool, typer.Option("--private", help="If it is made now, only its owner sees it.")] = False,
    media: Annotated[bool, typer.Option(help="The videos too.")] = True,
    folder: Annotated[
        Path | None,
        typer.Option(help="A folder of `export --format hf`. Default: one in `home`, deleted after the upload."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload a release to the Hugging Face Hub: Parquet, videos, a card, Croissant. Run it again: it goes on.

    Writes it as `export --format hf` does, then uploads the folder. The token is that of `hf auth login`, or HF_TOKEN.
    """
    from engine import hub_upload
    from engine.services import connect
    from engine.stages import withdrawing
    from storage.dataset import releases
    from storage.formats import hub
    from storage.formats.timeline import Timeline

    hub_upload.check(repo)
    with connect() as s, console.bar("export") as bar:
        chosen = withdrawing.permitted(s, releases.load(s.blobs, release or data.newest(s)))
        out = folder or s.home / "cache" / "push" / chosen.digest[:16]
        done = data.written(s, "hf", chosen, out, media, Timeline.STORED, bar)
        videos = hub.video_paths(chosen)
    address = hub_upload.upload(out, repo, f"Upload {chosen.name}", private=private, media=media, videos=videos)
    if folder is None:
        shutil.rmtree(out)  # it is as large as the release, and only an upload that was stopped needs it again
    if as_json:
        console.print_json({"release": chosen.name, "files": len(done.files), "url": address})
        return
    console.out.print(f"{chosen.name}: {counted(len(done.files), 'file')} at {address}")
