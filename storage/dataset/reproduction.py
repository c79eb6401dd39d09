"""Reproduction: the manifests of a release, made again from its files, have the same hashes as the stored ones.

Every size, hash, number of rows and count is taken from the bytes of the files. From the stored manifests come only the
keys of the files, the notes of the maker, and the schema of that time.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from storage import arrow
from storage.blobs.base import BlobMissing, Blobs
from storage.dataset import batch_manifests, releases, withdrawn
from storage.dataset.batch_manifests import KINDS, READERS, BatchRef, CountedRow, ReleaseFile
from storage.dataset.release_counts import counts_with
from storage.dataset.releases import Release
from storage.errors import first_line

_COLUMNS = ("video_id", "area_px", "kind", "split")
Progress = Callable[[int, int, str], None]  # manifests done, of how many, the batch of the last one


@dataclass(frozen=True)
class Reproduced:
    """A release that was made again."""

    sha256: str  # of the manifest
    differences: tuple[str, ...]  # a line for each thing that is not as the stored manifests say


def reproduce(release: Release, progress: Progress | None = None) -> Reproduced:
    """Makes the manifests of a release again and compares them. Raises ReleaseError for one that cannot be read."""
    differences, rows = list[str](), list[CountedRow]()
    refs: dict[BatchRef, BatchRef] = {}
    for n, ref in enumerate(release.batches, 1):
        stored = batch_manifests.read_json(release.blobs, ref)
        files = {kind: _again(release.blobs, kind, stored["files"][kind], rows, differences) for kind in KINDS}
        refs[ref] = _ref_of(ref, {**stored, "files": files}, stored, differences)
        if progress:
            progress(n, len(release.batches), ref.batch_id)
    data = release.blobs.read(releases.key_of(release.name))
    manifest = json.loads(data)
    first = {kind: [batch_manifests.plain(file) for file in release.first_files[kind]] for kind in KINDS}
    files = {kind: _again(release.blobs, kind, first[kind], rows, differences) for kind in KINDS}
    counts = counts_with({}, rows, {})
    if counts != manifest["counts"]:
        differences.append(f"counts: {json.dumps(counts)}, the manifest says {json.dumps(manifest['counts'])}")
    if manifest["format"] == 1:
        text = json.dumps({**manifest, "counts": counts, "files": files}, indent=1)
    else:
        own = [refs[ref].as_json() for ref in release.own]
        text = json.dumps({**manifest, "counts": counts, "batches": own}, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != release.digest and not differences:
        differences.append(f"manifest: sha256 {digest[:16]}…, the stored one has {release.digest[:16]}…")
    return Reproduced(digest, tuple(differences))


def _ref_of(ref: BatchRef, made: dict[str, Any], stored: dict[str, Any], differences: list[str]) -> BatchRef:
    """The reference to a manifest that was made again. The same JSON counts: a later zlib may compress differently."""
    if made == stored:
        return ref
    data = gzip.compress(json.dumps(made, separators=(",", ":")).encode(), mtime=0)
    if not differences:
        differences.append(f"{ref.key}: it lists other files")
    return replace(ref, sha256=hashlib.sha256(data).hexdigest())


def _again(
    blobs: Blobs, kind: str, listed: Iterable[dict[str, Any]], rows: list[CountedRow], differences: list[str]
) -> list[dict[str, Any]]:
    """The entries of files, made from their bytes. Adds the rows of masklets to `rows`."""

    def made(entry: dict[str, Any]) -> tuple[ReleaseFile, list[CountedRow], str | None]:
        file = ReleaseFile(**entry)
        try:
            if kind == "media":
                size, digest = batch_manifests.measure(blobs, file.key)
                return replace(file, size=size, sha256=digest), [], _difference(file, size, digest)
            data = blobs.read(file.key)
            size, digest = len(data), hashlib.sha256(data).hexdigest()
            columns = arrow.read_parquet(data, _COLUMNS if kind == "masklets" else ("video_id",)).to_pydict()
        except BlobMissing:
            erased = withdrawn.is_erased(blobs, file.key)
            return file, [], f"{file.key}: {'erased with a withdrawn video' if erased else 'missing'}"
        except (pa.ArrowException, ValueError, KeyError, OSError) as error:
            return file, [], f"{file.key}: cannot be read ({first_line(error)})"
        found = (
            [
                CountedRow(video_id, sum(area > 0 for area in areas), split, of)
                for video_id, areas, of, split in zip(*(columns.get(name, ()) for name in _COLUMNS), strict=True)
            ]
            if kind == "masklets"
            else []
        )
        again = replace(file, size=size, sha256=digest, rows=len(columns["video_id"]))
        return again, found, _difference(file, size, digest)

    entries = []
    with ThreadPoolExecutor(READERS) as pool:
        for file, found, difference in pool.map(made, listed):
            entries.append(batch_manifests.plain(file))
            rows += found
            differences += [difference] if difference else []
    return entries


def _difference(file: ReleaseFile, size: int, digest: str) -> str | None:
    if (size, digest) == (file.size, file.sha256):
        return None
    return f"{file.key}: {size} bytes, sha256 {digest[:16]}…; the manifest says {file.size}, {file.sha256[:16]}…"
