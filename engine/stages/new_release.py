"""The release that follows a commit: which name it gets, and which commits of other projects need theirs first."""

from __future__ import annotations

from collections.abc import Sequence

from engine import batches
from engine.services import Services
from storage.dataset import increments, release_names, release_numbers, releases, unreleased
from storage.dataset.releases import Release


def of_commit(s: Services, commit_id: str, known: Sequence[str]) -> Release | None:
    """Writes the manifest of the project's release. The name holds a number and the commit, so a rerun finds it.

    commit_id: the batch, or its increment. known: the names of all releases. None: so far every candidate of the
    project was rejected.

    Afterwards everything that is committed is in a release of its project: the next release of any project looks no
    further back. So it first makes those of other projects whose publish was killed between its commit and its release.
    """
    project = _project_of(s, commit_id)
    ends = release_names.ends(s.blobs, known)
    several = any(map(releases.project_of, known))
    of_project: dict[str, list[str]] = {}
    for name in known:
        if releases.place(name)[0] or not several:  # else a person gave it to a release of any project
            of_project.setdefault(releases.project_of(name), []).append(name)
    while True:
        current = s.tables.snapshot_id("masklets")
        waiting = [] if current is None else unreleased.since(s.tables, current, ends)
        owners = {each.batch_id: _project_of(s, each.batch_id) for each in waiting}
        if project not in of_project and project not in owners.values():
            return None
        newest: dict[str, str] = {}  # project -> its last commit without a release; ours comes last
        for commit, owner in owners.items():
            if commit is not None and owner != project:
                newest[owner] = commit
        newest[project] = commit_id
        names = {of: _name(s, of_project.get(of, []), commit, of) for of, commit in newest.items()}
        # otherwise, another process may have taken a number for less than this release would leave out
        if s.tables.snapshot_id("masklets") == current:
            break
    made: Release | None = None
    for of, commit in newest.items():
        extra = {"batch_id": increments.batch_of(commit)} | ({"project": of} if of else {})
        if of != project:
            extra[releases.AHEAD_OF] = increments.batch_of(commit_id)
        try:
            made = releases.make(
                s.blobs,
                s.tables,
                names[of],
                extra=extra,
                known=of_project.get(of, []),
                ends=ends,
                mine={found for found, owner in owners.items() if owner == of}.__contains__,
                snapshot=current,
            )
        except releases.NothingPublished:
            return None
    return made


def beside(release: Release, known: Sequence[str]) -> str:
    """What a new release is beside the one before. known: the names of the releases that were there before."""
    place, project = releases.place(release.name), releases.project_of(release.name)
    before = [name for name in known if releases.project_of(name) == project and releases.place(name) < place]
    return f"It adds to {before[-1]}." if before else "It adds to no other release."


def _project_of(s: Services, commit_id: str | None) -> str:
    """The project of a commit's batch; what another tool has added to the table is of the unnamed one."""
    return "" if commit_id is None else batches.project_of(s.blobs, increments.batch_of(commit_id))


def _name(s: Services, known: Sequence[str], commit_id: str, project: str) -> str:
    """The name of the release that a commit gets: the one that it has, or a new one. known: of the project."""
    mine = next((name for name in known if name.endswith(commit_id)), None)
    if mine and any(commit_id in (ref.batch_id, *ref.covers) for ref in releases.load(s.blobs, known[-1]).batches):
        return mine
    # also if a process that was paused made it, and the newest release is without the commit
    return release_numbers.new_name(s.blobs, known, commit_id, project)
