"""Compaction: the parts of many batches become one large file, sorted by video, for quick scans and few requests.

    compacted/<table>/<group_id>-<sha256[:16]>.parquet     the rows of a group of batches
    compacted/groups/<group_id>.json                       create-only: the group is written, and which manifests say so

A group is as many neighbouring batches of a release as fill `LEAST` bytes, so each row is written again once, ever.
Nothing is changed in place. The parts stay for the releases that name them; a new release names the large files, and
then the tables do. A process that is killed leaves at most a large file that nobody names; the next run goes on.
Which batches are a group follows from the release, so two processes write the same files.

A group has two manifests: one with the file of masklets, which a reader of one video opens, and one with everything
else. Errors: ReleaseError, PartError, BlobError, TablesError.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage import arrow
from storage.blobs.base import BlobMissing, Blobs, read_json
from storage.dataset import batch_manifests, compacted, increments, parts, releases, withdrawn
from storage.dataset.batch_manifests import READERS, BatchRef, ReleaseError, ReleaseFile
from storage.dataset.releases import Release
from storage.errors import first_line
from storage.iceberg import table_upkeep
from storage.iceberg.table_upkeep import Rewrite
from storage.iceberg.tables import Tables
from storage.records import Masklet, Operation, Video, content_id

LEAST = 64 * 2**20  # bytes of masklets in a large file
AT_ONCE = 100  # large files that one commit of a table takes: a commit reads all its manifests
_PREFIX = "compacted-"  # of the id that a group has instead of a batch id
_RECORDS: dict[str, type[arrow.Record]] = {"masklets": Masklet, "videos": Video, "operations": Operation}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Batches that were compacted together."""

    group_id: str
    old: tuple[BatchRef, ...]
    new: tuple[BatchRef, ...]  # the manifests of the large files


def is_compacted(ref: BatchRef) -> bool:
    """Whether a manifest is of a group, not of a batch."""
    return ref.batch_id.startswith(_PREFIX)


def plan(release: Release, least: int = LEAST) -> Iterator[tuple[BatchRef, ...]]:
    """The groups of batches that can be compacted now. The last batches wait until they fill a file.

    Opens the manifests of the batches that are not compacted.
    """
    waiting, size = list[BatchRef](), 0
    for ref in release.batches:
        files = () if is_compacted(ref) else batch_manifests.read(release.blobs, ref)["masklets"]
        if is_compacted(ref) or any(file.video_id is None for file in files):  # of another tool: it stays as it is
            continue
        waiting.append(ref)
        size += sum(file.size for file in files)
        if size >= least:
            yield tuple(waiting)
            waiting, size = [], 0


def write(blobs: Blobs, refs: Sequence[BatchRef], work: Path) -> Group:
    """Writes the large files of a group of batches, and their manifests. A group that was written is not read again.

    work: a local folder for the file in the making.
    Raises ReleaseError for a part that is missing or damaged, or that a later version of the program made.
    """
    group_id = content_id("compacted", *(ref.sha256 for ref in refs))
    marker = _marker(group_id)
    try:
        new = tuple(BatchRef(**ref) for ref in read_json(blobs, marker)["manifests"])
        return Group(group_id=group_id, old=tuple(refs), new=new)
    except BlobMissing:
        pass
    listed = [batch_manifests.read(blobs, ref) for ref in refs]
    old = {kind: [file for files in listed for file in files[kind]] for kind in batch_manifests.KINDS}
    tabled = {**{kind: old[kind] for kind in ("masklets", "videos")}, "operations": _operations(blobs, refs)}
    large = {kind: _merged(blobs, kind, group_id, files, work) for kind, files in tabled.items() if files}
    covers = tuple(ref.batch_id for ref in refs)
    replaces = {kind: {"old": [file.key for file in tabled[kind]], "new": file.key} for kind, file in large.items()}
    mine = batch_manifests.store(blobs, f"{_PREFIX}{group_id}", {"masklets": [large["masklets"]]})
    others = {"videos": [large["videos"]] if "videos" in large else [], "media": old["media"]}
    rest = batch_manifests.store(blobs, f"{_PREFIX}{group_id}-rest", others, replaces=replaces)
    new = (replace(mine, covers=covers), rest)
    blobs.create(marker, json.dumps({"manifests": [ref.as_json() for ref in new]}).encode())
    return Group(group_id=group_id, old=tuple(refs), new=new)


def is_current(newest: Release, group: Group) -> bool:
    """Whether a release can take a group: it has the batches, and no file of them is of a withdrawn video."""
    if not set(group.old) <= set(newest.batches):
        return False
    replaced = [
        of for ref in group.new for of in batch_manifests.read_json(newest.blobs, ref).get("replaces", {}).values()
    ]
    video_ids = {parts.video_of(key) for of in replaced for key in of["old"]}
    return not withdrawn.among(newest.blobs, {video_id for video_id in video_ids if video_id is not None})


def discard(blobs: Blobs, group: Group) -> None:
    """Forgets a group that no release has taken. A sweep removes its files."""
    blobs.delete(_marker(group.group_id))


def _marker(group_id: str) -> str:
    return f"compacted/groups/{group_id}.json"


def release(blobs: Blobs, parent: Release, name: str, groups: Iterable[Group]) -> Release:
    """A release of the same rows as `parent` that names the large files. Groups that it does not have are skipped.

    The caller sees to it that nobody makes another release meanwhile.
    """
    refs = list(parent.batches)
    for group in groups:
        if set(group.old) <= set(refs):
            at = refs.index(group.old[0])
            refs = [ref for ref in refs if ref not in group.old]
            refs[at:at] = group.new
    return releases.write(
        blobs, name, parent.first, refs, counts=parent.counts, extra=parent.extra, snapshots=parent.snapshots
    )


def settle(blobs: Blobs, tables: Tables, newest: Release) -> list[str]:
    """Puts the large files of a release into the tables, in place of the parts. A second call changes nothing.

    Returns a line for each table that has other files than the release says, and therefore keeps them.
    """
    groups = {ref.batch_id: ref for ref in newest.batches if is_compacted(ref) and not ref.covers}
    waiting = {kind: set(tables.uncommitted(kind, groups)) for kind in _RECORDS}
    due = [ref for group_id, ref in groups.items() if any(group_id in of for of in waiting.values())]
    problems = list[str]()
    for first in range(0, len(due), AT_ONCE):
        rewrites: dict[str, list[Rewrite]] = {kind: [] for kind in _RECORDS}
        for ref in due[first : first + AT_ONCE]:
            for kind, files in batch_manifests.read_json(blobs, ref).get("replaces", {}).items():
                old, new = frozenset(blobs.uri_of(key) for key in files["old"]), blobs.uri_of(files["new"])
                rewrites[kind].append(Rewrite(ref.batch_id, old, (new,)))
        for kind, each in rewrites.items():
            problems += table_upkeep.replace(tables, kind, each)
    return problems


def _operations(blobs: Blobs, refs: Iterable[BatchRef]) -> list[ReleaseFile]:
    """The parts with the acts of the annotators, which no release lists."""
    markers = list[parts.Marker]()
    for ref in refs:
        has = increments.holder(blobs, ref.batch_id)
        of_batch = parts.markers(blobs, "operations", increments.batch_of(ref.batch_id))
        markers += [marker for marker in of_batch if has(marker.video_id)]
    gone = withdrawn.among(blobs, {marker.video_id for marker in markers})
    return [
        ReleaseFile(key=m.key, sha256=m.sha256, size=m.size or 0, rows=m.rows, video_id=m.video_id)
        for m in markers
        if m.rows and m.video_id not in gone
    ]


def _merged(blobs: Blobs, kind: str, group_id: str, files: Sequence[ReleaseFile], work: Path) -> ReleaseFile:
    """One file with the rows of all these, sorted by video. Each is compared with its hash, and read once."""
    ordered = sorted(files, key=lambda file: (file.video_id or "", file.key))
    path = work / f"{group_id}-{kind}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            rows = compacted.write(path, _RECORDS[kind], _tables(blobs, ordered))
        except (pa.ArrowException, ValueError) as error:
            raise ReleaseError(f"compaction of {kind}: {first_line(error)}") from error
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"compacted/{kind}/{group_id}-{digest[:16]}.parquet"
        if not blobs.create(key, path):
            blobs.write(key, path)  # of a killed run, perhaps so old that it would be swept: now it is new
        return ReleaseFile(key=key, sha256=digest, size=path.stat().st_size, rows=rows)
    finally:
        path.unlink(missing_ok=True)


def _tables(blobs: Blobs, files: Sequence[ReleaseFile]) -> Iterator[pa.Table]:
    def table(file: ReleaseFile) -> Any:
        try:
            data = blobs.read(file.key)
        except BlobMissing as error:
            raise ReleaseError(f"{file.key}: missing") from error
        if (found := hashlib.sha256(data).hexdigest()) != file.sha256:
            raise ReleaseError(f"{file.key}: sha256 {found[:16]}…, its manifest says {file.sha256[:16]}…")
        return arrow.read_parquet(data)

    with ThreadPoolExecutor(READERS) as pool:
        for at in range(0, len(files), READERS):  # not all at once: `map` would read ahead without a limit
            yield from list(pool.map(table, files[at : at + READERS]))
