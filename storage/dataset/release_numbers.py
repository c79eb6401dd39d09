"""The numbers in the names of releases: a project gives each once, so a late release never counts as its newest.

    release-numbers/[<project>.]<number>    create-only: the name of the release that has it; made before its manifest

A process that was paused while another one made a release finds its number taken, and makes none. A process that was
paused after it took a number makes an older release than the newest. A number whose release was never made stays
unused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from storage.blobs.base import BlobMissing, Blobs
from storage.dataset.batch_manifests import ReleaseError

_OF_PIPELINE = re.compile(r"(?:(?P<project>[a-z0-9][a-z0-9-]*)\.)?release-(?P<number>\d+)(?:-(?P<end>.*))?")
_WITHOUT = "without-"


class NumberTaken(ReleaseError):
    """Another process has made a release meanwhile: run it again."""


def project_of(name: str) -> str:
    """The project that the pipeline made a release for; "" for the unnamed one, and for a name that a person gave."""
    found = _OF_PIPELINE.fullmatch(name)
    return (found["project"] or "") if found else ""


def place(name: str) -> tuple[int, str]:
    """Sorts the names of a project's releases by age. A later release holds every masklet of an earlier one.

    A name is `[<project>.]release-<number>-…`; one that a person gives has no number.
    """
    found = _OF_PIPELINE.fullmatch(name)
    return (int(found["number"]) if found else 0, name)


def end_without(video_id: str) -> str:
    """The end of the name of a release that is made because a video was withdrawn."""
    return f"{_WITHOUT}{video_id}"


def video_left_out(name: str) -> str | None:
    """The video without which a release was made, because it was withdrawn; None for any other release."""
    found = _OF_PIPELINE.fullmatch(name)
    end = (found["end"] or "") if found else ""
    return end.removeprefix(_WITHOUT) if end.startswith(_WITHOUT) else None


def new_name(blobs: Blobs, known: Iterable[str], end: str, project: str = "") -> str:
    """The name of the next release of a project. known: the names of its releases. end: what follows the number."""
    number = max((place(name)[0] for name in known), default=0)
    while True:
        number += 1
        name = f"{project and project + '.'}release-{number:04d}-{end}"
        if _owner(blobs, name) in (None, name):  # itself: a killed run had taken it
            return name


def take(blobs: Blobs, name: str) -> None:
    """Takes the number of a name. Raises NumberTaken if another release has it. A name of a person has none."""
    if place(name)[0]:
        blobs.create(_key(name), name.encode())
        if (owner := _owner(blobs, name)) != name:
            raise NumberTaken(f"release {name}: {owner} has this number, another process was faster: run it again")


def _owner(blobs: Blobs, name: str) -> str | None:
    """The release that has the number of this name."""
    try:
        return blobs.read(_key(name)).decode()
    except BlobMissing:
        return None


def _key(name: str) -> str:
    project = project_of(name)
    return f"release-numbers/{project and project + '.'}{place(name)[0]:04d}"
