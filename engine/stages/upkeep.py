"""Upkeep of the store: compaction, expired snapshots, and what killed processes left behind.

All of it can run at any time, on any machine, and again after a kill. `compact` takes the lock of `publish` and
`withdraw`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine import batches
from engine.progress import Progress
from engine.services import Services
from engine.stages.withdrawing import LOCK
from engine.views import card
from storage.blobs import cleaning
from storage.dataset import batch_manifests, compaction, release_names, release_numbers, releases, sweep
from storage.iceberg import table_upkeep


@dataclass(frozen=True)
class Compacted:
    """What a compaction did."""

    groups: int  # large files of masklets that were made
    parts: int  # small files of masklets whose rows are in them
    release: str  # the new release, with the same rows as the last, of each project; "": there was nothing to compact
    problems: tuple[str, ...]  # a line for each table that could not take its large file


def compact(s: Services, progress: Progress | None = None, least: int = compaction.LEAST) -> Compacted:
    """Writes the parts of published batches again as large files, and makes a release that names these.

    least: bytes of a large file; the newest batches wait until they fill one.
    Raises ReleaseError for a part that is missing or damaged; LockLost, NumberTaken if it was paused for so long that
    another process published: run it again.
    """
    every = releases.names(s.blobs)
    projects = dict.fromkeys(releases.project_of(name) for name in every if releases.place(name)[0])
    done = [_compact(s, project, progress, least) for project in projects]
    made = [each.release for each in done if each.release]
    problems = tuple(line for each in done for line in each.problems)
    groups, parts = sum(each.groups for each in done), sum(each.parts for each in done)
    return Compacted(groups, parts, ", ".join(made), problems)


def _compact(s: Services, project: str, progress: Progress | None, least: int) -> Compacted:
    """The same for the releases of one project, which has some."""
    known = releases.names(s.blobs, project)
    planned = list(compaction.plan(releases.load(s.blobs, known[-1]), least))
    written = []
    for n, refs in enumerate(planned, 1):
        with s.alone(LOCK):  # no withdrawal erases the parts meanwhile
            if set(refs) <= set(releases.load(s.blobs, releases.names(s.blobs, project)[-1]).batches):
                written.append(compaction.write(s.blobs, refs, s.home / "cache" / "compaction"))
        if progress:
            progress(n, len(planned), refs[0].batch_id)
    made, groups = "", list[compaction.Group]()
    with s.alone(LOCK) as held:
        known = releases.names(s.blobs, project)
        newest = releases.load(s.blobs, known[-1])
        for group in written:
            if compaction.is_current(newest, group):
                groups.append(group)
            else:  # a video was withdrawn meanwhile: the next compaction writes the rest
                compaction.discard(s.blobs, group)
        parts = [len(batch_manifests.read(s.blobs, ref)["masklets"]) for group in groups for ref in group.old]
        if groups:
            name = release_numbers.new_name(s.blobs, known, f"compacted-{groups[-1].group_id}", project)
            held.check()
            before, newest = newest.name, compaction.release(s.blobs, newest, name, groups)
            card.keep(newest, f"It has the masklets of {before}, in larger files.")
            made = newest.name
        problems = compaction.settle(s.blobs, s.tables, newest)
        table_upkeep.expire_all(s.tables, newest.snapshots["masklets"] if newest.is_end else None)
    return Compacted(len(groups), sum(parts), made, tuple(problems))


@dataclass(frozen=True)
class Tidied:
    """What was removed."""

    removed: int  # partial files of killed writers
    freed_bytes: int  # of the cache
    expired: int  # snapshots of the tables, never one with a tag
    swept: int  # files that nothing named for a day
    waiting: int  # files that nothing names, for less than a day
    problems: tuple[str, ...]  # why files were left alone


def tidy(s: Services) -> Tidied:
    """Removes what killed processes left in the store and in the cache, old snapshots, and files that nothing names."""
    removed = s.blobs.tidy()
    batches.copy_marks(s.blobs)
    freed = cleaning.trim(s.home / "cache", round(s.settings.storage.cache_gib * 2**30))
    released = release_names.ends(s.blobs, releases.names(s.blobs))
    expired = sum(table_upkeep.expire_all(s.tables, snapshot) for snapshot in released or [None])
    done = sweep.sweep(s.blobs, s.tables, removing=lambda: s.alone(LOCK))
    return Tidied(removed, freed, expired, done.removed, done.waiting, done.problems)
