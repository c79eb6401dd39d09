"""Parts and markers: how many workers write one dataset without a lock.

For each video, a worker writes one immutable Parquet part, and then a create-only marker with the part's name and hash.
The marker decides which part counts. For each batch, one committer reads the markers, checks the parts, and commits
them to a table once. A process that dies in between leaves at most a part without a marker. Knows blobs and tables.
Does not know how rows are made.

    parts/<kind>/batch=<batch_id>/<video_id>-<sha256[:16]>.parquet
    commits/<kind>/<batch_id>/<video_id>.json
    videos/<video_id>/published/<batch_id>      empty: made before the batch's masklets of this video are committed

Errors:
    PartError
    └── PartDamaged     a part differs from its marker
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from storage import arrow
from storage.blobs.base import BlobMissing, Blobs, check_key
from storage.errors import first_line
from storage.iceberg.tables import Tables
from storage.records import Masklet, Operation, Quarantined, Video, content_id
from storage.wording import counted

#: Kinds of part, and the record of their rows. Candidates are parts only: no table holds masklets before a verdict.
KINDS: dict[str, type[arrow.Record]] = {
    "videos": Video,
    "candidates": Masklet,
    "masklets": Masklet,
    "operations": Operation,
    "quarantine": Quarantined,
}
COMMITTED = frozenset(KINDS) - {"candidates"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,199}")
_PART = re.compile(r"parts/(?P<kind>[a-z]+)/batch=(?P<batch_id>[^/]+)/(?P<video_id>[^/]+)-[0-9a-f]{16}\.parquet")
_READERS = 8  # parts that a commit reads at once: most of the time is waiting for the store


class PartError(Exception):
    """A part or a marker cannot be used."""


class PartDamaged(PartError):
    """A part differs from its marker."""


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The record that makes a part count."""

    kind: str
    batch_id: str
    video_id: str
    key: str  # blob of the part
    sha256: str  # of the part's bytes
    rows: int
    schema: str  # content_id of the Arrow schema that it was written with
    size: int | None = None  # bytes of the part; None: an earlier version wrote the marker


@dataclass(frozen=True, kw_only=True)
class CommitReport:
    """What a batch put into its table."""

    rows: int
    files: int
    snapshot_id: int | None  # None if the batch had no rows
    already: bool  # True: it was committed before, and this call changed nothing


def write_part(blobs: Blobs, *, kind: str, batch_id: str, video_id: str, rows: Sequence[arrow.Record]) -> Marker:
    """Write the rows of one video and their marker. Returns the marker that counts: the first one that was written.

    kind: a key of KINDS. rows: records of that kind; without rows, the marker says that the video is done.
    Raises ValueError for rows of another record, batch or video.
    """
    record = _record(kind)
    for row in rows:
        if not isinstance(row, record):
            raise ValueError(f"rows of {kind} are {record.__name__}, not {type(row).__name__}")
        if row.batch_id != batch_id:
            raise ValueError(f"a row of batch {row.batch_id!r} in a part of batch {batch_id!r}")
        if not isinstance(row, Quarantined) and row.video_id != video_id:
            raise ValueError(f"a row of video {row.video_id!r} in a part of video {video_id!r}")
    if (first := marker(blobs, kind, batch_id, video_id)) is not None:
        return first
    ours, data = _part(kind, batch_id, video_id, rows)
    made = blobs.create(ours.key, data)
    if blobs.create(_marker_key(kind, batch_id, video_id), _text(ours)):
        if not made:  # a killed writer left it long ago, and a sweep may have removed it meanwhile
            blobs.create(ours.key, data)
        return ours
    winner = marker(blobs, kind, batch_id, video_id)
    assert winner is not None  # a marker may be replaced, and nothing deletes one
    return winner


def marker(blobs: Blobs, kind: str, batch_id: str, video_id: str) -> Marker | None:
    """The marker of one video in a batch, or None if it has no marker yet."""
    key = _marker_key(kind, batch_id, video_id)
    try:
        return _parsed(key, blobs.read(key))
    except BlobMissing:
        return None


def video_of(key: str) -> str | None:
    """The video of a part, from the key of the part; None for a file that is not a part."""
    found = _PART.fullmatch(key)
    return found["video_id"] if found else None


def place_of(key: str) -> tuple[str, str, str] | None:
    """The kind, batch and video of a part, from its key; None for a file that is not a part."""
    found = _PART.fullmatch(key)
    return (found["kind"], found["batch_id"], found["video_id"]) if found and found["kind"] in KINDS else None


def has_marker(blobs: Blobs, kind: str, batch_id: str, video_id: str) -> bool:
    """Whether a video is done in a batch. A worker that resumes asks this first."""
    return blobs.exists(_marker_key(kind, batch_id, video_id))


def marked(blobs: Blobs, kind: str, batch_id: str) -> set[str]:
    """The videos that are done in a batch: one listing, no marker is read."""
    prefix = f"commits/{kind}/{_name('batch_id', batch_id)}/"
    return {key.removeprefix(prefix).removesuffix(".json") for key in blobs.keys(prefix)}


def all_marked(blobs: Blobs, kind: str) -> set[tuple[str, str, str]]:
    """Kind, batch and video of all markers of a kind: one listing, no marker is read."""
    _record(kind)
    places = (key.removesuffix(".json").split("/") for key in blobs.keys(f"commits/{kind}/"))
    return {(kind, place[2], place[3]) for place in places if len(place) == 4}


def markers(blobs: Blobs, kind: str, batch_id: str, only: Collection[str] | None = None) -> list[Marker]:
    """The markers of a batch, sorted by video. Raises PartError for a marker that cannot be read.

    only: of these videos; one without a marker is left out. The others are neither listed nor read.
    """
    _record(kind)
    with ThreadPoolExecutor(_READERS) as pool:
        if only is not None:
            of_each = pool.map(lambda video_id: marker(blobs, kind, batch_id, video_id), sorted(only))
            return [found for found in of_each if found is not None]
        keys = list(blobs.keys(f"commits/{kind}/{_name('batch_id', batch_id)}/"))
        return [_parsed(key, data) for key, data in zip(keys, pool.map(blobs.read, keys), strict=True)]


def empty(blobs: Blobs, kind: str, batch_id: str, video_id: str) -> None:
    """Replace a marker by one of no rows: its part was erased with a withdrawn video. Does nothing without a marker."""
    if marker(blobs, kind, batch_id, video_id) is None:
        return
    _replace(blobs, *_part(kind, batch_id, video_id, []))


def rewrite(blobs: Blobs, *, kind: str, batch_id: str, video_id: str, rows: Sequence[arrow.Record]) -> None:
    """`write_part`, but a marker of other rows is replaced. For a part that is not committed and has one writer."""
    ours, data = _part(kind, batch_id, video_id, rows)
    if write_part(blobs, kind=kind, batch_id=batch_id, video_id=video_id, rows=rows).sha256 != ours.sha256:
        _replace(blobs, ours, data)


def _replace(blobs: Blobs, ours: Marker, data: bytes) -> None:
    if not blobs.create(ours.key, data):
        blobs.write(ours.key, data)  # it may be so old that a sweep would remove it: now it is new
    blobs.write(_marker_key(ours.kind, ours.batch_id, ours.video_id), _text(ours))


def _part(kind: str, batch_id: str, video_id: str, rows: Sequence[arrow.Record]) -> tuple[Marker, bytes]:
    """The marker of a part of these rows, and the bytes of the part. Nothing is written."""
    record = _record(kind)
    data = arrow.to_parquet(record, rows)
    ours = Marker(
        kind=kind,
        batch_id=batch_id,
        video_id=video_id,
        key=_part_key(kind, batch_id, video_id, data),
        sha256=hashlib.sha256(data).hexdigest(),
        rows=len(rows),
        schema=content_id(str(arrow.schema(record))),
        size=len(data),
    )
    return ours, data


def _text(marker: Marker) -> bytes:
    return json.dumps(dataclasses.asdict(marker), indent=1, sort_keys=True).encode()


def mark_published(blobs: Blobs, video_id: str, batch_id: str) -> None:
    """Note that a batch publishes masklets of a video."""
    blobs.create(f"{_published(video_id)}{_name('batch_id', batch_id)}", b"")


def published_in(blobs: Blobs, video_id: str) -> set[str]:
    """The batches that published masklets of a video, or were killed while they did. Its cost follows this video."""
    prefix = _published(video_id)
    return {key.removeprefix(prefix) for key in blobs.keys(prefix)}


def _published(video_id: str) -> str:
    return f"videos/{_name('video_id', video_id)}/published/"


def read_part(blobs: Blobs, marker: Marker) -> list[Any]:
    """The rows of a marker's part: records of KINDS[marker.kind]. Raises PartDamaged."""
    return _read(blobs, marker)


def rows(blobs: Blobs, kind: str, batch_id: str, only: Collection[str] | None = None) -> Iterator[Any]:
    """The rows of a batch, one part after the other, sorted by video. only: of these videos. Raises PartDamaged."""
    for found in markers(blobs, kind, batch_id, only):
        yield from _read(blobs, found)


def commit_batch(
    blobs: Blobs,
    tables: Tables,
    kind: str,
    batch_id: str,
    keep: Callable[[Any, int], bool] | None = None,
    *,
    only: Collection[str] | None = None,
    commit_id: str | None = None,
) -> CommitReport:
    """Put a batch into its table in one commit, with the batch id in the snapshot. A second call changes nothing.

    only: these videos of it. commit_id: that the snapshot gets in place of the batch id
    (`increments.py`).  keep: a pure test of a row and its number in its part. A part that loses rows is written again
    under a new key; the original does not change.
    Raises PartDamaged before anything is committed; CommitFailed and CommitUnknown as `Tables.commit` does.
    """
    record = _record(kind)
    if kind not in COMMITTED:
        raise ValueError(f"{kind} have no table, so they cannot be committed")
    named = commit_id or batch_id
    if (done := tables.batch(kind, named)) is not None:
        return CommitReport(rows=done.rows, files=done.files, snapshot_id=done.snapshot_id, already=True)

    def prepared(found: Marker) -> str | None:
        """The address of the file to commit for one part, or None if no row is left."""
        if found.key != _part_key_of(kind, batch_id, found.video_id, found.sha256):  # a copied marker
            raise PartDamaged(f"{found.key} is not a part of {kind} of batch {batch_id}, as its marker says")
        part_rows = _read(blobs, found)
        kept = [row for n, row in enumerate(part_rows) if keep(row, n)] if keep else part_rows
        if not kept:
            return None
        if kind == "masklets":  # before the commit: afterwards, nobody may miss that the video has masklets
            mark_published(blobs, found.video_id, batch_id)
        if len(kept) == len(part_rows):
            return blobs.uri_of(found.key)
        data = arrow.to_parquet(record, kept)
        key = _part_key(kind, batch_id, found.video_id, data)
        if not blobs.create(key, data):
            blobs.write(key, data)  # of a killed run, perhaps so old that a sweep would remove it: now it is new
        return blobs.uri_of(key)

    with ThreadPoolExecutor(_READERS) as pool:
        uris = [uri for uri in pool.map(prepared, markers(blobs, kind, batch_id, only)) if uri is not None]
    if not uris:
        return CommitReport(rows=0, files=0, snapshot_id=None, already=False)
    commit = tables.commit(kind, uris, named)
    return CommitReport(rows=commit.rows, files=commit.files, snapshot_id=commit.snapshot_id, already=commit.already)


def _read(blobs: Blobs, marker: Marker) -> list[Any]:
    try:
        data = blobs.read(marker.key)
    except BlobMissing as error:
        raise PartDamaged(f"{marker.key}: its marker exists, but the part is missing") from error
    if (found := hashlib.sha256(data).hexdigest()) != marker.sha256:
        raise PartDamaged(f"{marker.key}: sha256 {found[:16]}…, its marker says {marker.sha256[:16]}…")
    try:
        part_rows = arrow.from_parquet(_record(marker.kind), data)
    except arrow.NotRows as error:
        raise PartDamaged(f"{marker.key}: {error}") from error
    if len(part_rows) != marker.rows:
        raise PartDamaged(f"{marker.key}: {counted(len(part_rows), 'row')}, its marker says {marker.rows}")
    return part_rows


def _parsed(key: str, data: bytes) -> Marker:
    try:
        found = Marker(**json.loads(data))
        for name in ("kind", "batch_id", "video_id", "key", "sha256", "schema"):
            if not isinstance(value := getattr(found, name), str):
                raise ValueError(f"{name} is {value!r:.40}, not a string")
        for name in ("rows", "size"):
            if type(value := getattr(found, name)) is not int and (name, value) != ("size", None):
                raise ValueError(f"{name} is {value!r:.40}, not a number")
        _record(found.kind)
        check_key(found.key)
    except (ValueError, TypeError) as error:
        raise PartError(f"{key}: not a marker ({first_line(error)})") from error
    return found


def _record(kind: str) -> type[arrow.Record]:
    if kind not in KINDS:
        raise ValueError(f"the kinds of part are {', '.join(KINDS)}, not {kind!r}")
    return KINDS[kind]


def _name(what: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{what} is 1 to 200 of A-Z a-z 0-9 . _ + : - and begins with a letter or digit, not {value!r}"
        )
    return value


def _part_key(kind: str, batch_id: str, video_id: str, data: bytes) -> str:
    return _part_key_of(kind, batch_id, video_id, hashlib.sha256(data).hexdigest())


def _part_key_of(kind: str, batch_id: str, video_id: str, sha256: str) -> str:
    return f"parts/{kind}/batch={_name('batch_id', batch_id)}/{_name('video_id', video_id)}-{sha256[:16]}.parquet"


def _marker_key(kind: str, batch_id: str, video_id: str) -> str:
    _record(kind)
    return f"commits/{kind}/{_name('batch_id', batch_id)}/{_name('video_id', video_id)}.json"
