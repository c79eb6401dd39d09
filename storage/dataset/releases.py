"""Releases: a published dataset pinned by a manifest, readable with pyarrow alone.

    releases/<name>/manifest.json    written once, never changed
    manifests/                       one file a batch: see `storage/dataset/batch_manifests.py`

A release only adds to an earlier one. Its manifest lists the batches that are new since `base`, each by the key and the
hash of its batch manifest, and names `base`: an earlier release by key and hash. So publishing costs what the batch
costs, and the hash of one manifest pins every byte of the release. After `OWN` batches a manifest lists all of them
again, so reading a release takes at most three manifests. No path is absolute, so a release can be moved with its
folder, and read years later without a catalog. Releases of format 1, whose manifest lists every file, stay readable,
and may be the base of later ones.

The manifest pins the release, not an Iceberg tag: tagged snapshots stay in the metadata, which every commit writes
again. Only a name that a person gives is a tag too (`storage/dataset/release_names.py`).

Errors:
    ReleaseError            in `storage/dataset/batch_manifests.py`
    ├── NoSuchRelease
    └── NothingPublished    there is no masklet to release
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from storage import arrow
from storage.arrow import R
from storage.blobs.base import BlobError, BlobMissing, Blobs
from storage.dataset import batch_manifests, compacted, parts, release_numbers, unreleased, withdrawn
from storage.dataset.batch_manifests import KINDS, READERS, BatchRef, Files, ReleaseError, ReleaseFile, check_id
from storage.dataset.release_counts import counts_with
from storage.dataset.release_numbers import place as place
from storage.dataset.release_numbers import project_of as project_of
from storage.errors import first_line
from storage.masklet_rules import list_problem
from storage.records import Masklet, Video, in_order
from storage.wording import counted

if TYPE_CHECKING:
    from storage.iceberg.tables import Tables, TableSnapshot

OfVideo = TypeVar("OfVideo", bound=Masklet | Video)
FORMAT = 2
OWN = 16  # batches that a manifest lists before it lists all of them again
AHEAD_OF = "ahead_of"  # in `extra`: the batch whose publish makes this release of another project before its own
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FEW = 8  # videos that are looked up one by one; for more, all batch manifests are read
_NO_FILES: Files = {kind: () for kind in KINDS}


class NoSuchRelease(ReleaseError):
    """There is no such release."""


class NothingPublished(ReleaseError):
    """There is no masklet to release."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The earlier release to which a release adds."""

    name: str
    sha256: str  # of its manifest


@dataclass(frozen=True, kw_only=True)
class Release:
    """A pinned dataset. Its list never changes; `verify` compares the files with the list."""

    name: str
    batches: tuple[BatchRef, ...]  # all of them, the oldest first
    snapshots: Mapping[str, int]  # table -> Iceberg snapshot id
    counts: Mapping[str, Any]  # videos, masklets, masks; the same by split and by kind
    extra: Mapping[str, str]  # notes of the maker
    blobs: Blobs = field(repr=False, compare=False)
    digest: str = field(repr=False, compare=False)  # sha256 of the manifest
    base: Base | None = field(default=None, compare=False)
    own: tuple[BatchRef, ...] = field(default=(), compare=False)  # those that its manifest lists itself
    first: Base | None = field(default=None, compare=False)  # the release of format 1 under this one, or this one
    first_files: Files = field(default_factory=lambda: _NO_FILES, repr=False, compare=False)  # of that release
    hidden: frozenset[str] = frozenset()  # videos that a reader does not get: see `storage/dataset/withdrawal.py`

    @property
    def is_end(self) -> bool:
        """Whether everything that was committed up to its snapshot is in releases of the projects."""
        return AHEAD_OF not in self.extra

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
        """The masklets, one file at a time. Of a few videos, only the files of these are opened."""
        for file in self._masklet_files(video_ids):
            rows = self._iterate(Masklet, file) if video_ids is None else self.rows_of(Masklet, file, video_ids)
            yield from (row for row in rows if row.video_id not in self.hidden)

    def files(self, kind: str, *, skip_damaged: bool = False) -> Iterator[ReleaseFile]:
        """The files of a kind (see `KINDS`), one batch manifest at a time.

        skip_damaged: skip a batch whose manifest cannot be read; otherwise, it raises ReleaseError or BlobError.
        """
        for files in self._by_batch(skip_damaged):
            yield from (file for file in files[kind] if file.video_id not in self.hidden)

    def _by_batch(self, skip_damaged: bool = False) -> Iterator[Files]:
        yield self.first_files
        for ref in self.batches:
            try:
                files = batch_manifests.load(self.blobs, ref)
            except (ReleaseError, BlobError):
                if skip_damaged:
                    continue
                raise
            yield files

    def _masklet_files(self, video_ids: Collection[str] | None) -> Iterator[ReleaseFile]:
        if video_ids is None or len(video_ids) > _FEW:
            for file in self.files("masklets"):
                if video_ids is None or file.video_id is None or file.video_id in video_ids:
                    yield file
            return
        found: dict[str, ReleaseFile] = {}
        for video_id in video_ids:
            of_it = self.published_files(video_id) or self._listed_files(video_id)
            found.update((file.key, file) for file in of_it)
        yield from found.values()

    def published_files(self, video_id: str) -> list[ReleaseFile]:
        """The files with masklets of a video, found by the marks of its publishing; none if it has no such marks.

        Opens the manifests of these batches alone.
        """
        try:
            marked = parts.published_in(self.blobs, video_id)
        except ValueError:  # no video of ours has such an id
            return []
        found = [*self._first_by_video.get(video_id, ()), *self._first_by_video.get(None, ())]
        for ref in self.batches if marked else ():
            if ref.is_of(marked):
                found += _of_video(batch_manifests.load(self.blobs, ref), video_id)
        return found

    def refs_of(self, video_id: str) -> list[BatchRef]:
        """The manifests that may list files of a video: by the marks of its publishing; all, if it has none."""
        marked = parts.published_in(self.blobs, video_id)
        if not marked:
            return list(self.batches)
        owners = {ref.batch_id for ref in self.batches if ref.is_of(marked)}
        return [ref for ref in self.batches if ref.batch_id.removesuffix("-rest") in owners]

    def holds(self, video_id: str) -> bool:
        """Whether the release lists a video, also if its files were erased."""
        listed = (batch_manifests.load(self.blobs, ref)["media"] for ref in self.refs_of(video_id))
        return any(file.video_id == video_id for files in (self.first_files["media"], *listed) for file in files)

    def without(self, video_ids: Iterable[str]) -> Release:
        """The same release for a reader who does not get these videos."""
        return replace(self, hidden=self.hidden.union(video_ids))

    def is_in_first(self, video_id: str) -> bool:
        """Whether the release of format 1 under this one may have masklets of a video: they may have no marks."""
        return video_id in self._first_by_video or None in self._first_by_video

    def _listed_files(self, video_id: str) -> list[ReleaseFile]:
        """The same from the lists alone: a release that was copied without the rest of its store has no marks."""
        refs = [self.batches[n] for n in self._batches_by_video.get(video_id, ())]
        return [file for ref in refs for file in _of_video(batch_manifests.load(self.blobs, ref), video_id)]

    @cached_property
    def _first_by_video(self) -> dict[str | None, list[ReleaseFile]]:
        found: dict[str | None, list[ReleaseFile]] = {}
        for file in self.first_files["masklets"]:
            found.setdefault(file.video_id, []).append(file)
        return found

    @cached_property
    def _batches_by_video(self) -> dict[str, list[int]]:
        """Places in `batches` of every video."""
        found: dict[str, list[int]] = {}
        for n, ref in enumerate(self.batches):
            for video_id in {file.video_id for file in batch_manifests.load(self.blobs, ref)["masklets"]}:
                found.setdefault(video_id or "", []).append(n)
        return found

    def rows(self, record: type[R], file: ReleaseFile) -> list[R]:
        """The rows of one Parquet file of the release. Raises BlobError, and ReleaseError if it holds no such rows."""
        return list(self._iterate(record, file))

    def _iterate(self, record: type[R], file: ReleaseFile) -> Iterator[R]:
        with _readable(file):
            try:
                data = self.blobs.read(file.key)
            except BlobMissing:
                if (key := withdrawn.instead_of(self.blobs, file.key)) is None:
                    return
                data = self.blobs.read(key)
            yield from compacted.iterate(data, record)

    def rows_of(self, record: type[OfVideo], file: ReleaseFile, video_ids: Collection[str]) -> list[OfVideo]:
        """The rows of these videos in one file. Of a file with many videos, only the pieces that hold them are read."""
        with _readable(file):
            if file.video_id is None:
                try:
                    return compacted.read(self.blobs, file.key, file.size, record, video_ids)
                except BlobMissing:
                    if (key := withdrawn.instead_of(self.blobs, file.key)) is None:
                        return []
                    return compacted.read(self.blobs, key, self.blobs.size(key), record, video_ids)
            return [row for row in self._iterate(record, file) if row.video_id in video_ids]

    def masklet_counts(self) -> dict[str, int]:
        """The number of masklets of each video."""
        counts: Counter[str] = Counter()
        for file in self.files("masklets"):
            if file.video_id is not None and file.rows is not None:
                counts[file.video_id] += file.rows
            else:
                counts.update(row.video_id for row in self._iterate(Masklet, file))
        return {video_id: number for video_id, number in counts.items() if video_id not in self.hidden}

    def videos(self) -> list[Video]:
        """The videos of the masklets, sorted by id; read once. Raises ReleaseError for an id that could be a path."""
        return list(self._videos)

    @cached_property
    def _videos(self) -> tuple[Video, ...]:
        needed = {file.video_id for file in self.files("media")}
        found: dict[str, Video] = {}
        for video in self.iter_videos():
            if check_id(video.video_id) in needed and (
                video.video_id not in found or video.batch_id < found[video.video_id].batch_id
            ):
                found[video.video_id] = video
        return tuple(found[video_id] for video_id in sorted(found))

    def iter_videos(self) -> Iterator[Video]:
        """Every row about a video, unchecked: also of videos without masklets, and several of one video."""
        with ThreadPoolExecutor(READERS) as pool:
            for files in self._by_batch():
                for rows in pool.map(partial(self.rows, Video), files["videos"]):
                    yield from (row for row in rows if row.video_id not in self.hidden)

    def verify(self) -> list[str]:
        """One line for every file that is missing or differs from its manifest. Reads all bytes of the release."""
        problems = []
        with ThreadPoolExecutor(READERS) as pool:
            for ref in (None, *self.batches):
                try:
                    files = self.first_files if ref is None else batch_manifests.read(self.blobs, ref)
                except (ReleaseError, BlobError) as error:
                    problems.append(str(error))
                    continue
                found = pool.map(self._problem, (file for kind in KINDS for file in files[kind]))
                problems += [problem for problem in found if problem]
        return problems

    def _problem(self, file: ReleaseFile) -> str | None:
        try:
            size, digest = batch_manifests.measure(self.blobs, file.key)
        except BlobMissing:
            return None if withdrawn.is_erased(self.blobs, file.key) else f"{file.key}: missing"
        except (BlobError, ValueError) as error:  # ValueError: the key is a path
            return f"{file.key}: {error}"
        if size != file.size:
            return f"{file.key}: {counted(size, 'byte')}, the manifest says {file.size}"
        if digest != file.sha256:
            return f"{file.key}: sha256 {digest[:16]}…, the manifest says {file.sha256[:16]}…"
        return None


@contextmanager
def _readable(file: ReleaseFile) -> Iterator[None]:
    """What Arrow raises for a damaged file, as ReleaseError."""
    try:
        yield
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError) as error:
        raise ReleaseError(f"{file.key}: cannot be read ({first_line(error)})") from error


def make(
    blobs: Blobs,
    tables: Tables,
    name: str,
    *,
    extra: Mapping[str, str] | None = None,
    known: Sequence[str] | None = None,
    ends: Collection[int] = (),
    mine: Callable[[str | None], bool] = lambda _: True,
    snapshot: int | None = None,
) -> Release:
    """Pin what is published now under a name. An existing name returns its release.

    Its cost follows what was committed since the last release. known: the names of the project's releases, if the
    caller has listed them. ends: snapshots at which everything was in releases of the projects. mine: whether a batch
    is of the project. snapshot: of masklets, in place of the current one. One that is tagged with the name is taken
    before both.
    Raises ValueError for a malformed name, NothingPublished, and ReleaseError if a file is missing.
    """
    if blobs.exists(key_of(checked(name))):
        return load(blobs, name)
    if tables.snapshot_id("masklets") is None or tables.snapshot_id("videos") is None:
        raise NothingPublished(f"release {name}: the tables of masklets and videos are not both filled")
    snapshot_id = tables.tagged("masklets", name) or snapshot or tables.snapshot_id("masklets")
    assert snapshot_id is not None  # a table never becomes empty again
    every = names(blobs) if known is None else known
    parent = _before(blobs, name, [other for other in every if project_of(other) == project_of(name)])
    begin = {*ends, *(() if parent is None else parent.snapshots.values())}
    snapshots = [s for s in unreleased.since(tables, snapshot_id, begin) if mine(s.batch_id)]
    new, counts = _batches(blobs, tables, parent, snapshots)
    base, own = _chained(parent, new)
    return write(blobs, name, base, own, counts=counts, extra=extra or {}, snapshots={"masklets": snapshot_id})


def write(
    blobs: Blobs,
    name: str,
    base: Base | None,
    own: Sequence[BatchRef],
    *,
    counts: Mapping[str, Any],
    extra: Mapping[str, str],
    snapshots: Mapping[str, int],
) -> Release:
    """Writes the manifest of a release, and loads it. An existing name returns its release.

    base: the release whose batches it has too. own: its other batches. Raises NumberTaken (`release_numbers.py`).
    """
    release_numbers.take(blobs, name)
    manifest = {
        "format": FORMAT,
        "name": name,
        "counts": counts,
        "extra": dict(extra),
        "snapshots": dict(snapshots),
        "schemas": {
            "masklets": [[f.name, str(f.type)] for f in arrow.schema(Masklet)],
            "videos": [[f.name, str(f.type)] for f in arrow.schema(Video)],
        },
        "base": None if base is None else asdict(base),
        "batches": [ref.as_json() for ref in own],
    }
    blobs.create(key_of(name), json.dumps(manifest, separators=(",", ":")).encode())
    return load(blobs, name)  # ours, or the one of a faster process


def load(blobs: Blobs, name: str) -> Release:
    """The release of this name.

    Raises NoSuchRelease, and ReleaseError for a manifest of another format or with an id that could be a path.
    """
    try:
        data = blobs.read(key_of(checked(name)))
    except BlobMissing as error:
        known = ", ".join(names(blobs)) or "none"
        raise NoSuchRelease(f"there is no release {name!r}; there are: {known}") from error
    return _parsed(blobs, name, data)


def _parsed(blobs: Blobs, name: str, data: bytes) -> Release:
    """A release from its manifest, together with its base."""
    try:
        manifest = json.loads(data)
        if manifest["format"] not in (1, FORMAT):
            raise ReleaseError(
                f"release {name}: manifest format {manifest['format']}, this version reads 1 and {FORMAT}"
            )
        this = Base(name=manifest["name"], sha256=hashlib.sha256(data).hexdigest())
        release = Release(
            name=this.name,
            batches=(),
            snapshots=manifest["snapshots"],
            counts=manifest["counts"],
            extra=manifest["extra"],
            blobs=blobs,
            digest=this.sha256,
        )
        if manifest["format"] == 1:
            return replace(release, first=this, first_files=batch_manifests.files_of(manifest["files"]))
        base = None if manifest["base"] is None else Base(**manifest["base"])
        own = tuple(BatchRef(**ref) for ref in manifest["batches"])
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"release {name}: its manifest cannot be read ({error})") from error
    if base is None:
        return replace(release, batches=own, own=own)
    under = _base(blobs, name, base)
    return replace(
        release,
        batches=(*under.batches, *own),
        base=base,
        own=own,
        first=under.first,
        first_files=under.first_files,
    )


def _base(blobs: Blobs, name: str, base: Base) -> Release:
    try:
        data = blobs.read(key_of(checked(base.name)))
    except (BlobMissing, ValueError) as error:
        raise ReleaseError(f"release {name}: it adds to the release {base.name!r:.120}, which is missing") from error
    if (found := hashlib.sha256(data).hexdigest()) != base.sha256:
        raise ReleaseError(
            f"release {name}: it adds to {base.name}, whose manifest has changed: sha256 {found[:16]}…, not "
            f"{base.sha256[:16]}…"
        )
    return _parsed(blobs, base.name, data)


def names(blobs: Blobs, project: str | None = None) -> list[str]:
    """The names of all releases, the newest last. A name is `[<project>.]release-<n>-…`, or one that a person gave.

    project: only the names that the pipeline gave to releases of this project.
    """
    keys = blobs.keys("releases/")
    found = [parts[1] for key in keys if len(parts := key.split("/")) == 3 and parts[2] == "manifest.json"]
    ours = (name for name in found if project is None or (project_of(name) == project and place(name)[0]))
    return sorted(ours, key=place)


def _before(blobs: Blobs, name: str, known: Sequence[str]) -> Release | None:
    """The last release before one of this name."""
    earlier = [other for other in known if place(other) < place(name)]
    return load(blobs, max(earlier, key=place)) if earlier else None


def _batches(
    blobs: Blobs, tables: Tables, parent: Release | None, snapshots: Iterable[TableSnapshot]
) -> tuple[tuple[BatchRef, ...], dict[str, Any]]:
    """The manifests of the batches of these snapshots, and the counts of the parent with them."""
    counts: Mapping[str, Any] = {} if parent is None else parent.counts
    groups: dict[str, set[tuple[str, str]]] = {}  # video -> (split, kind) of its masklets that are counted already

    def is_known(video_id: str) -> bool:
        if video_id not in groups:
            files = [] if parent is None else parent.published_files(video_id)
            rows = [row for file in files for row in parent.rows_of(Masklet, file, {video_id})] if parent else []
            groups[video_id] = {(row.split, row.kind) for row in rows}
        return bool(groups[video_id])

    refs = []
    for snapshot in snapshots:
        ref, rows = batch_manifests.write(blobs, tables, snapshot, is_known)
        counts = counts_with(counts, rows, {v: groups[v] for v in {row.video_id for row in rows} if is_known(v)})
        for row in rows:
            groups.setdefault(row.video_id, set()).add((row.split, row.kind))
        refs.append(ref)
    return tuple(refs), dict(counts)


def _chained(parent: Release | None, new: tuple[BatchRef, ...]) -> tuple[Base | None, tuple[BatchRef, ...]]:
    """The base of the next release, and the batches that its own manifest lists."""
    if parent is None:
        return None, new
    this = Base(name=parent.name, sha256=parent.digest)
    if this == parent.first:  # format 1 lists files, no batches
        return this, new
    if len(parent.own) < OWN:
        return parent.base, (*parent.own, *new)
    if parent.base == parent.first:  # it lists all batches
        return this, new
    return parent.first, (*parent.batches, *new)


def _of_video(files: Files, video_id: str) -> list[ReleaseFile]:
    return [file for file in files["masklets"] if file.video_id in (None, video_id)]


def checked(name: str) -> str:
    if not _NAME.fullmatch(name) or name == "main":
        raise ValueError(f"a release's name is up to 100 of A-Z a-z 0-9 . _ - and not 'main', not {name!r}")
    return name


def key_of(name: str) -> str:
    """Where the manifest of a release is."""
    return f"releases/{name}/manifest.json"
