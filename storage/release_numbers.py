"""The numbers in the names of releases: each is given once, so a late release never counts as the newest.

    release-numbers/<number>    create-only: the name of the release that has it; made before its manifest

A process that was paused while another one made a release finds its number taken, and makes none. A process that was
paused after it took a number makes an older release than the newest. A number whose release was never made stays
unused.
"""

from __future__ import annotations

from collections.abc import Iterable

from storage.batch_manifests import ReleaseError
from storage.blobs.base import BlobMissing, Blobs


class NumberTaken(ReleaseError):
    """Another process has made a release meanwhile: run it again."""


def place(name: str) -> tuple[int, str]:
    """Sorts the names of releases by age. A name is `release-<number>-…`; one that a person gives has no number."""
    number = name.split("-")[1:2]
    return (int(number[0]) if number and number[0].isdecimal() else 0, name)


def new_name(blobs: Blobs, known: Iterable[str], end: str) -> str:
    """The name of the next release. known: the names of all releases. end: what follows the number."""
    number = max((place(name)[0] for name in known), default=0)
    while True:
        number += 1
        name = f"release-{number:04d}-{end}"
        if _owner(blobs, number) in (None, name):  # itself: a killed run had taken it
            return name


def take(blobs: Blobs, name: str) -> None:
    """Takes the number of a name. Raises NumberTaken if another release has it. A name of a person has none."""
    if number := place(name)[0]:
        blobs.create(_key(number), name.encode())
        if (owner := _owner(blobs, number)) != name:
            raise NumberTaken(f"release {name}: {owner} has this number, another process was faster: run it again")


def _owner(blobs: Blobs, number: int) -> str | None:
    try:
        return blobs.read(_key(number)).decode()
    except BlobMissing:
        return None


def _key(number: int) -> str:
    return f"release-numbers/{number:04d}"
