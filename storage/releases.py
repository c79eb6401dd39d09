"""Releases: a published dataset pinned by a tag and a manifest, readable with pyarrow alone.

`releases/<name>/manifest.json` lists every file of the release: the Parquet parts of masklets and videos, and the media
that they need. Each file has its key below the root, its sha256, its size and its rows. No path is absolute, so a
release can be moved with its folder, and read years later without a catalog. A manifest is written once and never
changed.

Errors:
    ReleaseError
    ├── NoSuchRelease
    └── NothingPublished    there is no masklet to release
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from storage import arrow
from storage.arrow import R
from storage.blobs.base import BlobError, BlobMissing, Blobs
from storage.errors import first_line
from storage.masklet_rules import list_problem
from storage.parts import video_of
from storage.records import Masklet, Video, in_order
from storage.wording import counted

if TYPE_CHECKING:
    from storage.tables import Tables

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_READERS = 8
_COUNTED = ("masklet_id", "video_id", "area_px", "kind", "split")  # all columns but the masks


class ReleaseError(Exception):
    """A release cannot be made or read."""


class NoSuchRelease(ReleaseError):
    """There is no such release."""


class NothingPublished(ReleaseError):
    """There is no masklet to release."""


_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")  # also a file name on every system, and never ".."


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


@dataclass(frozen=True, kw_only=True)
class Release:
    """A pinned dataset. Its list never changes; `verify` compares the files with the list."""

    name: str
    masklet_files: tuple[ReleaseFile, ...]
    video_files: tuple[ReleaseFile, ...]
    media_files: tuple[ReleaseFile, ...]  # normalised videos, frame tables, ground truth
    snapshots: Mapping[str, int]  # table -> Iceberg snapshot id
    schemas: Mapping[str, Sequence[Sequence[str]]]  # table -> (column, Arrow type), in order
    counts: Mapping[str, Any]  # videos, masklets, masks; the same by split and by kind
    extra: Mapping[str, str]  # notes of the maker
    blobs: Blobs = field(repr=False, compare=False)
    digest: str = field(repr=False, compare=False)  # sha256 of the manifest

    def masklets(self, video_ids: Collection[str] | None = None) -> list[Masklet]:
        """The masklets, `in_order`; None: of all videos. See `iter_masklets` for large releases.

        Raises ReleaseError for a masklet whose lists differ in length: it could not be exported or trained on.
        """
        found = in_order(self.iter_masklets(video_ids))
        for masklet in found:
            if problem := list_problem(masklet):
                raise ReleaseError(f"release {self.name}: masklet {masklet.masklet_id}: {problem}")
        return found

    def iter_masklets(self, video_ids: Collection[str] | None = None) -> Iterator[Masklet]:
        """The masklets, one file at a time."""
        for file in self.masklet_files:
            if video_ids is not None and file.video_id is not None and file.video_id not in video_ids:
                continue
            for masklet in self.rows(Masklet, file):
                if video_ids is None or masklet.video_id in video_ids:
                    yield masklet

    def rows(self, record: type[R], file: ReleaseFile) -> list[R]:
        """The rows of one Parquet file of the release. Raises BlobError, and ReleaseError if it holds no such rows."""
        try:
            return arrow.from_parquet(record, self.blobs.read(file.key))
        except (pa.ArrowException, ValueError, KeyError, TypeError, OSError) as error:
            raise ReleaseError(f"{file.key}: cannot be read ({first_line(error)})") from error

    def masklet_counts(self) -> dict[str, int]:
        """The number of masklets of each video."""
        counts: Counter[str] = Counter()
        for file in self.masklet_files:
            if file.video_id is not None and file.rows is not None:
                counts[file.video_id] += file.rows
            else:
                counts.update(m.video_id for m in self.rows(Masklet, file))
        return dict(counts)

    def videos(self) -> list[Video]:
        """The videos of the masklets, sorted by id. Raises ReleaseError for an id that could be a path."""
        needed = {file.video_id for file in self.media_files}
        found: dict[str, Video] = {}
        for video in self.iter_videos():
            if check_id(video.video_id) in needed and (
                video.video_id not in found or video.batch_id < found[video.video_id].batch_id
            ):
                found[video.video_id] = video
        return [found[video_id] for video_id in sorted(found)]

    def iter_videos(self) -> Iterator[Video]:
        """Every row about a video, unchecked: also of videos without masklets, and several of one video."""
        for file in self.video_files:
            yield from self.rows(Video, file)

    def verify(self) -> list[str]:
        """One line for every file that is missing or differs from the manifest. Reads all bytes of the release."""
        with ThreadPoolExecutor(_READERS) as pool:
            problems = pool.map(self._problem, (*self.masklet_files, *self.video_files, *self.media_files))
            return [problem for problem in problems if problem]

    def _problem(self, file: ReleaseFile) -> str | None:
        try:
            size, digest = _measure(self.blobs, file.key)
        except BlobMissing:
            return f"{file.key}: missing"
        except (BlobError, ValueError) as error:  # ValueError: the key is a path
            return f"{file.key}: {error}"
        if size != file.size:
            return f"{file.key}: {counted(size, 'byte')}, the manifest says {file.size}"
        if digest != file.sha256:
            return f"{file.key}: sha256 {digest[:16]}…, the manifest says {file.sha256[:16]}…"
        return None


def make(blobs: Blobs, tables: Tables, name: str, *, extra: Mapping[str, str] | None = None) -> Release:
    """Pin the current snapshots of masklets and videos under a name. An existing name returns its release.

    After an interruption, a second run continues with the snapshots that the first one tagged.
    Raises ValueError for a malformed name, NothingPublished, and ReleaseError if a file is missing.
    """
    if blobs.exists(_key(_checked(name))):
        return load(blobs, name)
    if tables.snapshot_id("masklets") is None or tables.snapshot_id("videos") is None:
        raise NothingPublished(f"release {name}: the tables of masklets and videos are not both filled")
    snapshots = {table: tables.tag(table, name) for table in ("masklets", "videos")}
    counted = tables.scan("masklets", snapshot_id=snapshots["masklets"], columns=_COUNTED)
    needed = set(counted.column("video_id").to_pylist())
    videos = [video for video in tables.videos(snapshot_id=snapshots["videos"]) if video.video_id in needed]
    if absent := needed - {video.video_id for video in videos}:
        raise ReleaseError(f"release {name}: masklets of unknown videos: {', '.join(sorted(absent)[:3])}")
    try:
        release = Release(
            name=name,
            masklet_files=_parts(blobs, tables, "masklets", snapshots["masklets"]),
            video_files=_parts(blobs, tables, "videos", snapshots["videos"]),
            media_files=_media(blobs, videos),
            snapshots=snapshots,
            schemas={
                "masklets": [[f.name, str(f.type)] for f in arrow.schema(Masklet)],
                "videos": [[f.name, str(f.type)] for f in arrow.schema(Video)],
            },
            counts=_counts(counted),
            extra=dict(extra or {}),
            blobs=blobs,
            digest="",
        )
    except BlobMissing as error:
        raise ReleaseError(f"release {name}: {error}") from error
    blobs.create(_key(name), _to_json(release))
    return load(blobs, name)  # ours, or the one of a faster process


def load(blobs: Blobs, name: str) -> Release:
    """The release of this name.

    Raises NoSuchRelease, and ReleaseError for a manifest of another format or with an id that could be a path.
    """
    try:
        data = blobs.read(_key(_checked(name)))
    except BlobMissing as error:
        known = ", ".join(names(blobs)) or "none"
        raise NoSuchRelease(f"there is no release {name!r}; there are: {known}") from error
    try:
        manifest = json.loads(data)
        if manifest["format"] != FORMAT:
            raise ReleaseError(f"release {name}: manifest format {manifest['format']}, this version reads {FORMAT}")
        files = {
            kind: tuple(ReleaseFile(**file) for file in manifest["files"][kind])
            for kind in ("masklets", "videos", "media")
        }
        for file in (file for of in files.values() for file in of if file.video_id is not None):
            check_id(file.video_id or "")
        return Release(
            name=manifest["name"],
            masklet_files=files["masklets"],
            video_files=files["videos"],
            media_files=files["media"],
            snapshots=manifest["snapshots"],
            schemas=manifest["schemas"],
            counts=manifest["counts"],
            extra=manifest["extra"],
            blobs=blobs,
            digest=hashlib.sha256(data).hexdigest(),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"release {name}: its manifest cannot be read ({error})") from error


def names(blobs: Blobs) -> list[str]:
    """The names of all releases, the newest last. A name is `release-<number>-…`."""
    keys = blobs.keys("releases/")
    found = [parts[1] for key in keys if len(parts := key.split("/")) == 3 and parts[2] == "manifest.json"]
    return sorted(found, key=place)


def place(name: str) -> tuple[int, str]:
    """Sorts the names of releases by age. A later release holds every masklet of an earlier one."""
    number = name.split("-")[1:2]
    return (int(number[0]) if number and number[0].isdecimal() else 0, name)


def _to_json(release: Release) -> bytes:
    def listed(files: tuple[ReleaseFile, ...]) -> list[dict[str, Any]]:
        return [{k: v for k, v in dataclasses.asdict(file).items() if v is not None} for file in files]

    manifest = {
        "format": FORMAT,
        "name": release.name,
        "counts": release.counts,
        "extra": release.extra,
        "snapshots": release.snapshots,
        "schemas": release.schemas,
        "files": {
            "masklets": listed(release.masklet_files),
            "videos": listed(release.video_files),
            "media": listed(release.media_files),
        },
    }
    return json.dumps(manifest, indent=1).encode()


def _parts(blobs: Blobs, tables: Tables, table: str, snapshot_id: int) -> tuple[ReleaseFile, ...]:
    """The data files of a snapshot, with the hashes of their current bytes."""
    root = f"{blobs.uri}/"
    found = tables.data_files(table, snapshot_id)
    for file in found:
        if not file.uri.startswith(root):
            raise ReleaseError(f"{file.uri}: a data file of {table} lies outside {blobs.uri}")

    keys = [file.uri.removeprefix(root) for file in found]
    with ThreadPoolExecutor(_READERS) as pool:
        measured = list(pool.map(lambda key: _measure(blobs, key), keys))
    return tuple(
        ReleaseFile(key=key, sha256=digest, size=size, rows=file.rows, video_id=video_of(key))
        for file, key, (size, digest) in zip(found, keys, measured, strict=True)
    )


def _media(blobs: Blobs, videos: Sequence[Video]) -> tuple[ReleaseFile, ...]:
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
                size, digest = _measure(blobs, key)
                found.append(ReleaseFile(key=key, sha256=digest, size=size, video_id=video.video_id))
        return found

    with ThreadPoolExecutor(_READERS) as pool:
        return tuple(file for found in pool.map(files, videos) for file in found)


def _measure(blobs: Blobs, key: str) -> tuple[int, str]:
    """Bytes and sha256 of a blob."""
    with blobs.fetch(key).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _counts(table: pa.Table) -> dict[str, Any]:
    """The size of a release: videos, masklets and non-empty masks; the same by split and by kind."""
    masks = [sum(area > 0 for area in areas) for areas in table.column("area_px").to_pylist()]
    rows = list(
        zip(
            table.column("video_id").to_pylist(),
            masks,
            table.column("split").to_pylist(),
            table.column("kind").to_pylist(),
            strict=True,
        )
    )

    def of(chosen: list[tuple[str, int, str, str]]) -> dict[str, int]:
        return {
            "videos": len({row[0] for row in chosen}),
            "masklets": len(chosen),
            "masks": sum(row[1] for row in chosen),
        }

    def by(column: int) -> dict[str, dict[str, int]]:
        return {value: of([row for row in rows if row[column] == value]) for value in sorted({r[column] for r in rows})}

    return {**of(rows), "by_split": by(2), "by_kind": by(3)}


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or name == "main":
        raise ValueError(f"a release's name is up to 100 of A-Z a-z 0-9 . _ - and not 'main', not {name!r}")
    return name


def _key(name: str) -> str:
    return f"releases/{name}/manifest.json"
