"""Batch manifests: the files that one batch added to the dataset, with their sizes, hashes and counts.

    manifests/<batch_id>-<sha256[:16]>.json.gz    written once, when the batch is released; gzip holds JSON

A release lists batch manifests (`releases.py`). Nothing here reads an earlier batch, so a batch costs the same however
many there are. The hashes of parts and videos come from their markers and rows. Does not know releases or tags.

Errors:
    ReleaseError            also for a manifest that is missing, damaged, or names a file outside the store
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from storage import arrow
from storage.blobs.base import BlobMissing, Blobs
from storage.dataset import increments, parts, withdrawn
from storage.dataset.parts import video_of
from storage.records import Video

if TYPE_CHECKING:
    from storage.iceberg.tables import Tables, TableSnapshot

FORMAT = 1
KINDS = ("masklets", "videos", "media")
READERS = 8
_CACHED = 64  # batch manifests in memory; one of 100 videos takes 0.2 MB
_COUNTED = ("video_id", "area_px", "kind", "split")
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")  # also a file name on every system, and never ".."


class ReleaseError(Exception):
    """A release cannot be made or read."""


def check_id(name: str) -> str:
    """An id of a release, which exports use as a file name. Raises ReleaseError if it could be another path."""
    if not _ID.fullmatch(name):
        raise ReleaseError(f"not an id: {name!r:.80} (1 to 200 of A-Z a-z 0-9 . _ -, not beginning with a dot)")
    return name


@dataclass(frozen=True, kw_only=True)
class ReleaseFile:
    """One file of a release."""

    key: str  # below the root
    sha256: str
    size: int  # bytes
    rows: int | None = None  # of a Parquet part
    video_id: str | None = None  # the only video in the file; None if there may be several


Files = Mapping[str, tuple[ReleaseFile, ...]]  # by kind, see KINDS


@dataclass(frozen=True, kw_only=True)
class BatchRef:
    """One batch of a release: where its manifest is, and the hash that pins it."""

    batch_id: str
    key: str
    sha256: str  # of the manifest's bytes
    covers: tuple[str, ...] = ()  # the batches that were compacted into this one

    def __post_init__(self) -> None:
        object.__setattr__(self, "covers", tuple(self.covers))  # JSON gives a list

    def is_of(self, batch_ids: Collection[str]) -> bool:
        """Whether it is of one of these batches, also if it is one of several increments, or compacted."""
        return any(increments.batch_of(batch_id) in batch_ids for batch_id in (self.batch_id, *self.covers))

    def as_json(self) -> dict[str, Any]:
        """For a release's manifest. A version that knows no compaction reads what a batch of one says."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value != ()}


@dataclass(frozen=True)
class CountedRow:
    """What the counts of a release need to know of a masklet."""

    video_id: str
    masks: int  # that are not empty
    split: str
    kind: str


def load(blobs: Blobs, ref: BatchRef) -> Files:
    """The files of a batch. Recent ones are cached: a manifest never changes. Raises ReleaseError, BlobError."""
    return _cached(blobs, ref)


@lru_cache(maxsize=_CACHED)
def _cached(blobs: Blobs, ref: BatchRef) -> Files:
    return read(blobs, ref)


def forget() -> None:
    """Empties the cache."""
    _cached.cache_clear()


def read(blobs: Blobs, ref: BatchRef) -> Files:
    """`load` without the cache. Checks the hash first."""
    manifest = read_json(blobs, ref)
    try:
        return files_of(manifest["files"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(f"{ref.key}: cannot be read ({error})") from error


def read_json(blobs: Blobs, ref: BatchRef) -> dict[str, Any]:
    """The JSON of a manifest. Raises ReleaseError, BlobError."""
    try:
        data = blobs.read(ref.key)
    except (BlobMissing, ValueError) as error:  # ValueError: the key is a path
        raise ReleaseError(f"{ref.key}: missing ({error})") from error
    if (found := hashlib.sha256(data).hexdigest()) != ref.sha256:
        raise ReleaseError(f"{ref.key}: sha256 {found[:16]}…, its release says {ref.sha256[:16]}…")
    try:
        manifest = json.loads(gzip.decompress(data))
        if manifest["format"] != FORMAT:
            raise ReleaseError(f"{ref.key}: format {manifest['format']}, this version reads {FORMAT}")
        return dict(manifest)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(f"{ref.key}: cannot be read ({error})") from error


def files_of(listed: Mapping[str, Iterable[Mapping[str, Any]]]) -> Files:
    """Files from their JSON. Raises ReleaseError for an id that could be a path; TypeError, KeyError for other JSON."""
    files = {kind: tuple(ReleaseFile(**file) for file in listed[kind]) for kind in KINDS}
    for file in (file for of in files.values() for file in of if file.video_id is not None):
        check_id(file.video_id or "")
    return files


def write(
    blobs: Blobs, tables: Tables, snapshot: TableSnapshot, is_known: Callable[[str], bool]
) -> tuple[BatchRef, list[CountedRow]]:
    """Writes the manifest of what a snapshot of `masklets` added. Returns it with the rows to count.

    is_known: whether an earlier batch of the release lists the files of this video. Running again changes nothing.
    Raises ReleaseError, also for a file that is missing; TablesError, PartError, BlobError.
    """
    batch_id = snapshot.batch_id or f"snapshot-{snapshot.snapshot_id}"
    try:
        masklets = _masklet_files(blobs, tables, snapshot)
        rows = _counted(blobs, masklets)
        needed = sorted({row.video_id for row in rows})
        videos = _videos(blobs, tables, batch_id, needed, is_known)
        listed = {
            "masklets": masklets,
            "videos": [file for file, _ in videos],
            "media": _media(blobs, [video for _, video in videos if not is_known(video.video_id)]),
        }
    except BlobMissing as error:
        raise ReleaseError(f"batch {batch_id}: {error}") from error
    ref = store(blobs, batch_id, listed)
    of = increments.batch_of(batch_id)
    for video_id in needed:  # a batch that an earlier version committed has no such marks yet
        if of not in parts.published_in(blobs, video_id):
            parts.mark_published(blobs, video_id, of)
    return ref, rows


def store(blobs: Blobs, batch_id: str, files: Mapping[str, Iterable[ReleaseFile]], **more: Any) -> BatchRef:
    """Writes a manifest: the same files give the same bytes and the same key. more: further keys of its JSON."""
    listed = {kind: [plain(file) for file in files.get(kind, ())] for kind in KINDS}
    manifest = {"format": FORMAT, "batch_id": batch_id, "files": listed, **more}
    data = gzip.compress(json.dumps(manifest, separators=(",", ":")).encode(), mtime=0)
    digest = hashlib.sha256(data).hexdigest()
    key = f"manifests/{batch_id}-{digest[:16]}.json.gz"
    blobs.create(key, data)
    return BatchRef(batch_id=batch_id, key=key, sha256=digest)


def plain(file: ReleaseFile) -> dict[str, Any]:
    """A file as JSON."""
    return {name: value for name, value in dataclasses.asdict(file).items() if value is not None}


def _masklet_files(blobs: Blobs, tables: Tables, snapshot: TableSnapshot) -> list[ReleaseFile]:
    """The data files that a snapshot added, without those of withdrawn videos, which may be erased.

    A part that lost rows has no marker: it is read once for its hash.
    """
    root = f"{blobs.uri}/"
    found = tables.added_files("masklets", snapshot.snapshot_id)
    if outside := next((file.uri for file in found if not file.uri.startswith(root)), None):
        raise ReleaseError(f"{outside}: a data file of masklets lies outside {blobs.uri}")
    owners = {file.uri: video_of(file.uri.removeprefix(root)) for file in found}
    known = {video_id for video_id in owners.values() if video_id is not None}
    batch_id = increments.batch_of(snapshot.batch_id or "")
    marked = parts.markers(blobs, "masklets", batch_id, known) if batch_id else []
    hashes = {marker.key: marker.sha256 for marker in marked}
    gone = withdrawn.among(blobs, known)
    files = []
    for file in found:
        if owners[file.uri] in gone:
            continue
        key = file.uri.removeprefix(root)
        digest = hashes.get(key) or measure(blobs, key)[1]
        files.append(ReleaseFile(key=key, sha256=digest, size=file.size, rows=file.rows, video_id=owners[file.uri]))
    return files


def _counted(blobs: Blobs, files: Iterable[ReleaseFile]) -> list[CountedRow]:
    def rows(file: ReleaseFile) -> list[CountedRow]:
        columns = arrow.read_parquet(blobs.read(file.key), _COUNTED).to_pydict()
        return [
            CountedRow(video_id, sum(area > 0 for area in areas), split, kind)
            for video_id, areas, kind, split in zip(*(columns[name] for name in _COUNTED), strict=True)
        ]

    with ThreadPoolExecutor(READERS) as pool:
        return [row for of in pool.map(rows, files) for row in of]


def _videos(
    blobs: Blobs, tables: Tables, batch_id: str, needed: Collection[str], is_known: Callable[[str], bool]
) -> list[tuple[ReleaseFile, Video]]:
    """The parts of the videos with their rows; without those of other batches that the release lists already.

    A batch has its own videos. Only for others is the table searched.
    """
    marked = parts.markers(blobs, "videos", increments.batch_of(batch_id), needed)
    own = {marker.video_id: marker for marker in marked}
    others = [video_id for video_id in needed if video_id not in own and not is_known(video_id)]
    found = {video_id: own[video_id] for video_id in needed if video_id in own}
    for row in tables.videos_by_id(others):
        if (marker := parts.marker(blobs, "videos", row.batch_id, row.video_id)) is not None:
            found[row.video_id] = marker
    if absent := [video_id for video_id in others if video_id not in found]:
        raise ReleaseError(f"batch {batch_id}: masklets of unknown videos: {', '.join(absent[:3])}")

    def described(marker: parts.Marker) -> tuple[ReleaseFile, Video]:
        (row,) = parts.read_part(blobs, marker)
        size = blobs.size(marker.key) if marker.size is None else marker.size
        file = ReleaseFile(key=marker.key, sha256=marker.sha256, size=size, rows=marker.rows, video_id=marker.video_id)
        return file, row

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(described, found.values()))


def _media(blobs: Blobs, videos: Iterable[Video]) -> list[ReleaseFile]:
    """The media files of the videos. The hash of a normalised video comes from its row."""

    def files(video: Video) -> list[ReleaseFile]:
        found = [
            ReleaseFile(
                key=video.video_key,
                sha256=video.video_sha256,
                size=blobs.size(video.video_key),
                video_id=video.video_id,
            )
        ]
        for key in (video.frames_key, video.truth_key):
            if key is not None:
                size, digest = measure(blobs, key)
                found.append(ReleaseFile(key=key, sha256=digest, size=size, video_id=video.video_id))
        return found

    with ThreadPoolExecutor(READERS) as pool:
        return [file for found in pool.map(files, videos) for file in found]


def measure(blobs: Blobs, key: str) -> tuple[int, str]:
    """Bytes and sha256 of a blob."""
    with blobs.local(key) as path, path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest
