"""Withdrawing a video: a release and the tables without it, and its files erased.

Nothing is changed in place. A new release lists manifests without the video, and a commit takes its rows out of the
tables; a large file with other videos is written again without it. Earlier releases keep their files, unless these are
erased: then a reader of an earlier release gets the rows of the other videos. `withdrawn.py` keeps the record.

Errors: ReleaseError, BlobError, TablesError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from storage import arrow
from storage.blobs.base import Blobs
from storage.dataset import batch_manifests, compacted, parts, releases, withdrawn
from storage.dataset.batch_manifests import KINDS, BatchRef, CountedRow, Files, ReleaseFile
from storage.dataset.release_counts import counts_with, counts_without
from storage.dataset.releases import Release
from storage.dataset.withdrawn import Withdrawal
from storage.iceberg import table_upkeep
from storage.iceberg.table_errors import TablesError
from storage.iceberg.tables import Tables
from storage.records import Masklet, Operation, Video, content_id

_RECORDS: dict[str, type[arrow.Record]] = {"masklets": Masklet, "videos": Video, "operations": Operation}


def held_by(release: Release) -> list[Withdrawal]:
    """The withdrawn videos that a release holds. Its cost follows the withdrawn videos."""
    return [found for found in withdrawn.all_of(release.blobs) if release.holds(found.video_id)]


def empty_parts(blobs: Blobs, video_id: str, batch_ids: Iterable[str]) -> None:
    """Sees to it that no stage reads rows of a video any more: no tickets are opened, no verifier learns from it."""
    for batch_id in batch_ids:
        parts.write_part(blobs, kind="candidates", batch_id=batch_id, video_id=video_id, rows=[])
        for kind in ("candidates", "masklets", "operations"):
            parts.empty(blobs, kind, batch_id, video_id)


def release_without(release: Release, video_id: str, name: str, work: Path) -> Release:
    """A release with the rows of another one, but those of a video. work: a local folder for a file in the making.

    The caller sees to it that nobody makes another release meanwhile.
    """
    erased = any(not release.blobs.exists(file.key) for file in release.published_files(video_id))
    first, refs = release.first, list[BatchRef]()
    if _lists(release.first_files, video_id):  # of format 1, which lists files: from now on they are a batch
        listed = _listed(release.blobs, release.first_files, video_id, work)
        first, ref = None, batch_manifests.store(release.blobs, f"first-without-{video_id}", listed)
        for other in {file.video_id for file in listed["masklets"]} - {None}:
            parts.mark_published(release.blobs, str(other), ref.batch_id)
        refs.append(ref)
    concerned = set(release.refs_of(video_id))
    for ref in release.batches:
        if ref in concerned:
            files = batch_manifests.read(release.blobs, ref)
            listed = _listed(release.blobs, files, video_id, work)
            if any(list(files[kind]) != listed[kind] for kind in KINDS):
                ref = replace(batch_manifests.store(release.blobs, ref.batch_id, listed), covers=ref.covers)
        refs.append(ref)
    if erased:  # a process that was paused during the erasure made the release: it counts rows that nobody can read
        files = release.first_files if first else dict.fromkeys(KINDS, ())
        left = replace(release, batches=tuple(refs), first_files=files)
        counts = counts_with({}, _counted(left.iter_masklets()), {})
    else:
        counts = counts_without(release.counts, _counted(release.iter_masklets([video_id])))
    return releases.write(
        release.blobs, name, first, refs, counts=counts, extra=release.extra, snapshots=release.snapshots
    )


def _counted(masklets: Iterable[Masklet]) -> list[CountedRow]:
    return [CountedRow(m.video_id, sum(area > 0 for area in m.area_px), m.split, m.kind) for m in masklets]


def take_from_tables(blobs: Blobs, tables: Tables, act: Withdrawal, work: Path) -> None:
    """Takes the rows of a video out of the tables. The snapshots say who withdrew it, when and why."""
    facts = {f"engine.withdrawn.{name}": getattr(act, name) for name in ("video_id", "by", "at", "why")}
    root = f"{blobs.uri}/"
    for name, record in _RECORDS.items():
        rewrite_id = f"withdrawn-{act.video_id}"
        while tables.batch(name, rewrite_id) is not None:  # a publish was paused meanwhile, and brought rows later
            rewrite_id += "-again"
        old, new = list[str](), list[str]()
        for address in tables.files_of(name, act.video_id):
            changed, left = _rewritten(blobs, name, address.removeprefix(root), act.video_id, work, record)
            old += [address] if changed else []
            new += [blobs.uri_of(left.key)] if left else []
        if old:
            rewrite = table_upkeep.Rewrite(rewrite_id, frozenset(old), tuple(new))
            for line in table_upkeep.replace(tables, name, [rewrite], facts):
                raise TablesError(line)


def erase(blobs: Blobs, video_id: str, batch_ids: Iterable[str], work: Path) -> int:
    """Erases every file with rows of a video from all releases, and returns their number. Can run again after a kill.

    batch_ids: the batches that have parts of it; their markers then say that it has no rows. Its media are the
    caller's. A snapshot of a table that had one of these files cannot be read any more, with a tag or without.
    """
    erased = 0
    for key, kind in sorted(_large_files(blobs)):
        if not blobs.exists(key):
            continue
        changed, left = _rewritten(blobs, kind, key, video_id, work, _RECORDS[kind])
        if changed:
            _erase(blobs, key, None if left is None else left.key)
            erased += 1
    for kind in parts.KINDS:
        for batch_id in sorted(set(batch_ids)):
            parts.empty(blobs, kind, batch_id, video_id)
            now = parts.marker(blobs, kind, batch_id, video_id)
            for key in list(blobs.keys(f"parts/{kind}/batch={batch_id}/{video_id}-")):
                if now is None or key != now.key:
                    _erase(blobs, key, None)
                    erased += 1
    return erased


def _erase(blobs: Blobs, key: str, now: str | None) -> None:
    withdrawn.mark_erased(blobs, key, now)
    blobs.delete(key)


def _large_files(blobs: Blobs) -> set[tuple[str, str]]:
    """The files with several videos, with their kind."""
    found, seen = set[tuple[str, str]](), set[str]()
    for name in releases.names(blobs):
        release = releases.load(blobs, name)
        listed = [release.first_files]
        for ref in release.batches:
            if ref.key not in seen:
                seen.add(ref.key)
                listed.append(batch_manifests.read(blobs, ref))
        found |= {
            (file.key, kind)
            for files in listed
            for kind in _RECORDS
            for file in files.get(kind, ())
            if not file.video_id
        }
    # those of the acts, which no release names, and those of a compaction that is not finished
    return found | {(key, kind) for kind in _RECORDS for key in blobs.keys(f"compacted/{kind}/")}


def _lists(files: Files, video_id: str) -> bool:
    return any(file.video_id == video_id for kind in KINDS for file in files[kind])


def _listed(blobs: Blobs, files: Files, video_id: str, work: Path) -> Mapping[str, list[ReleaseFile]]:
    """The files of a manifest without those of a video; a file with other videos is written again."""
    listed: dict[str, list[ReleaseFile]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        for file in files[kind]:
            changed, left = file.video_id == video_id, None
            if file.video_id is None and kind in _RECORDS:
                changed, left = _rewritten(blobs, kind, file.key, video_id, work, _RECORDS[kind])
            if left is not None or not changed:
                listed[kind].append(left or file)
    return listed


def _rewritten(
    blobs: Blobs, kind: str, key: str, video_id: str, work: Path, record: type[arrow.Record]
) -> tuple[bool, ReleaseFile | None]:
    """Whether a file has rows of a video; and the file with its other rows, if there are any.

    The same file and video give the same key, so a release and a table get the same file.
    """
    if not compacted.read(blobs, key, blobs.size(key), record, {video_id}):
        return False, None
    table = arrow.read_parquet(blobs.read(key))
    left = table.filter(pc.not_equal(table["video_id"], video_id))
    if len(left) == 0:
        return True, None
    path = work / f"{content_id('without', key, video_id)}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        rows = compacted.write(path, record, _by_video(left))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        new = f"compacted/{kind}/{path.stem}-{digest[:16]}.parquet"
        if not blobs.create(new, path):
            blobs.write(new, path)  # of a killed run, perhaps so old that a sweep would remove it: now it is new
        return True, ReleaseFile(key=new, sha256=digest, size=path.stat().st_size, rows=rows)
    finally:
        path.unlink(missing_ok=True)


def _by_video(table: pa.Table) -> Iterator[pa.Table]:
    """The rows of each video, in the order of the table."""
    ids = table["video_id"].to_pylist()
    start = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or ids[at] != ids[start]:
            yield table.slice(start, at - start)
            start = at
