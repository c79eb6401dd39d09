"""Names that people give to releases."""

from __future__ import annotations

from collections.abc import Sequence

from storage.blobs.base import Blobs
from storage.dataset import release_numbers, releases
from storage.dataset.releases import Release
from storage.iceberg.tables import Tables


def give_name(blobs: Blobs, tables: Tables, release: Release, name: str) -> tuple[Release, bool]:
    """Gives a release a second name, of a person's choice, and tags its snapshot for other readers of Iceberg.

    Returns the release under this name, and whether its snapshot is tagged: an old one may be expired.
    Raises ValueError for a malformed name, one of the pipeline's, or one that another release has.
    """
    if release_numbers.place(releases.checked(name))[0]:
        raise ValueError(f"{name!r}: names that begin with release- and a number are the pipeline's")
    if blobs.exists(releases.key_of(name)):
        named = releases.load(blobs, name)
    else:
        named = releases.write(
            blobs,
            name,
            release.base or release.first,  # a release of format 1 lists files, so the new one adds nothing to it
            release.own,
            counts=release.counts,
            extra=release.extra,
            snapshots=release.snapshots,
        )
    if (named.batches, named.first) != (release.batches, release.first):
        raise ValueError(f"{name!r} is already the name of another release")
    snapshot_id = release.snapshots["masklets"]
    if not tables.has_snapshot("masklets", snapshot_id):
        return named, False
    tables.tag("masklets", name, snapshot_id)
    return named, True


def ends(blobs: Blobs, names: Sequence[str]) -> set[int]:
    """The snapshots of the table of masklets at which everything was in releases: the newest of each project.

    names: of all releases, the newest last.
    """
    found: dict[str, int] = {}
    for name in reversed(names):
        if (project := releases.project_of(name)) not in found and (release := releases.load(blobs, name)).is_end:
            found[project] = release.snapshots["masklets"]
    return set(found.values())
