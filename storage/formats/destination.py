"""The folder that an export writes into: it holds one release in one format, and no name leads out of it.

Ids come from releases, and a release may come from a stranger. Each file appears under its own name only when it is
complete, so an export that was killed can be repeated.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.batch_manifests import ReleaseError, check_id
from storage.records import Video
from storage.releases import Release
from storage.whole_files import complete

MARK = ".masklets-export.json"  # says which release is in the folder, and in which format


class WrongFolder(ValueError):
    """The folder holds something else."""


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    files: list[Path]
    lost_px: int = 0  # pixels of masklets that a picture with one id a pixel cannot show; 0 if the format shows all


def open_folder(folder: Path, form: str, release: Release) -> None:
    """Makes the folder, or takes it again for the same release and format.

    Raises WrongFolder for a folder with other files: two releases in one folder could not be told apart.
    """
    told = {"format": form, "release": release.name, "manifest": release.digest}
    mark = folder / MARK
    if folder.exists() and not folder.is_dir():
        raise WrongFolder(f"{folder} is a file: choose a folder")
    if mark.is_file():
        held = json.loads(mark.read_text())
        if held != told:
            raise WrongFolder(f"{folder} holds {held.get('release')} as {held.get('format')}: choose another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise WrongFolder(f"{folder} is not empty, and no export made it: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with complete(mark) as path:
        path.write_text(json.dumps(told))


def place(folder: Path, *names: str) -> Path:
    """A path below the folder. Raises ReleaseError for a name that could lead out of it."""
    return folder.joinpath(*(check_id(name) for name in names))


def names(videos: Sequence[Video]) -> dict[str, str]:
    """The name of each video's files, by video id: the name in its source, if no other video of the release has it.

    Names that differ only in case count as the same: some file systems cannot hold both. A name that could lead out of
    the folder is not used.
    """
    taken = Counter(video.video_id.lower() for video in videos)
    taken.update(v.source_name.lower() for v in videos if v.source_name and v.source_name != v.video_id)
    found = {}
    for video in videos:
        try:
            name = check_id(video.source_name or "")
        except ReleaseError:
            name = video.video_id
        found[video.video_id] = name if taken[name.lower()] == 1 else video.video_id
    return found
