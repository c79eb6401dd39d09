"""Releases as people browse them: masklets by filters, page by page, and videos with their masks.

A page reads only the columns that it shows, one Parquet file after the other, and ends after MOST_LOOKED masklets,
whether it found enough or not. So its cost does not grow with the release; only the first page of a release reads the
list of all its files. A search in a bucket downloads the files that it looks through, once; of a large file, a page
without a search, or of one video, reads the row groups that it needs. Withdrawn videos are left out.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from cachetools import Cache, LRUCache, TTLCache
from numpy.typing import NDArray

from annotation_queue import thumbnails
from annotation_queue.errors import NoSuchMasklet, NoSuchRelease, NoSuchVideo
from annotation_queue.given_verdicts import ONLY
from annotation_queue.release_records import (
    MaskletMasks,
    ReleaseFilter,
    ReleaseMasklet,
    ReleaseMasks,
    ReleaseName,
    ReleasePage,
    Releases,
    ReleaseVideo,
)
from engine.ingest import pseudonyms
from engine.services import Services
from engine.serving.media import StoredMedia
from engine.views import figures
from storage import arrow, rle
from storage.blobs.base import BlobMissing
from storage.dataset import compacted, releases, withdrawal, withdrawn
from storage.dataset.batch_manifests import ReleaseError, ReleaseFile
from storage.dataset.releases import Release
from storage.records import Masklet, Operation

MOST_LOOKED = 20_000  # masklets that are looked at for one page
MOST_OPENED = 400  # files: those that are not compacted have a dozen masklets each
MOST_RELEASES = 30  # that are listed; a link may name any
SMALL = 2**20  # bytes of a file that is always read whole: it takes one request
OPEN_RELEASES, OPEN_VIDEOS, KNOWN_VERDICTS = 4, 16, 4096  # kept in memory
COLUMNS = (
    *("masklet_id", "video_id", "kind", "phase", "label", "split", "checkpoint", "annotated_by", "verified_by"),
    *("verdict", "edited_frame_count", "click_count", "frame_idx", "area_px", "score"),
)
AT_ONCE = 100  # videos whose verdicts are read by one scan
SEES_S = 30.0  # after which a withdrawal is seen
_ID = re.compile(r"[A-Za-z0-9._-]{1,200}")
V = TypeVar("V")
IsPerson = Callable[[str | None], bool]


class ReleaseBrowser:
    """The releases of a store. Safe to use from several threads."""

    def __init__(self, s: Services, media: StoredMedia) -> None:
        self._s, self._media = s, media
        self._lock = threading.Lock()
        self._releases: TTLCache[str, Release] = TTLCache(OPEN_RELEASES, SEES_S)
        self._files: LRUCache[str, list[ReleaseFile]] = LRUCache(OPEN_RELEASES)
        self._videos: LRUCache[tuple[str, str], list[Masklet]] = LRUCache(OPEN_VIDEOS)
        self._verdicts: LRUCache[str, Mapping[str, float]] = LRUCache(KNOWN_VERDICTS)

    def releases(self) -> Releases:
        """The releases, the newest first."""
        found = []
        for name in releases.names(self._s.blobs)[: -MOST_RELEASES - 1 : -1]:
            counts = releases.load(self._s.blobs, name).counts
            found.append(ReleaseName(name=name, videos=counts["videos"], masklets=counts["masklets"]))
        return Releases(alone=False, releases=tuple(found))

    def page(self, name: str, wanted: ReleaseFilter, after: str | None, limit: int) -> ReleasePage:
        """The masklets that pass a filter. after: "FILE.ROW", from which to look on. Raises NoSuchRelease."""
        release = self._opened(name)
        files = self._kept(self._files, name, lambda: list(replace(release, hidden=frozenset()).files("masklets")))
        is_wanted = self._recognised(wanted.person)
        if wanted.video_id is not None:
            files = release.published_files(wanted.video_id) or [f for f in files if f.video_id == wanted.video_id]
        first, row = map(int, (after or "0.0").split("."))
        found, looked = list[ReleaseMasklet](), 0
        for n in range(first, len(files)):
            if looked >= MOST_LOOKED or n - first >= MOST_OPENED:
                return self._page(found, f"{n}.0", looked)
            if wanted.disagreement_from and (n - first) % AT_ONCE == 0:
                self._verdicts_of(file.video_id for file in files[n : n + AT_ONCE] if file.video_id)
            begin = row if n == first else 0
            for at, masklet in self._passing(release, files[n], wanted, is_wanted, begin):
                if len(found) == limit:
                    return self._page(found, f"{n}.{at}", looked + at - begin)
                found.append(masklet)
            looked += max(0, (files[n].rows or 0) - begin)
        return self._page(found, None, looked)

    def video(self, name: str, video_id: str) -> ReleaseVideo:
        """A video and its masklets, without their masks. Raises NoSuchRelease, NoSuchVideo."""
        rows = self._masklets(name, video_id)
        table = arrow.to_arrow(Masklet, rows, COLUMNS)
        about = self._with_verdicts([masklet for _, masklet in _described(table, range(len(rows)))])
        return ReleaseVideo(info=self._media.info(video_id), masklets=tuple(about))

    def masks(self, name: str, video_id: str, first: int, end: int) -> ReleaseMasks:
        """The masks of a video on its frames from `first` to before `end`. Raises NoSuchRelease, NoSuchVideo."""
        found = []
        for row in self._masklets(name, video_id):
            some = range(bisect_left(row.frame_idx, first), bisect_left(row.frame_idx, end))
            shown = [t for t in some if row.area_px[t]]
            frames, counts = (row.frame_idx[t] for t in shown), (row.rle[t].decode("ascii") for t in shown)
            found.append(MaskletMasks(frame_idx=tuple(frames), rle=tuple(counts)))
        return ReleaseMasks(first=first, end=end, masklets=tuple(found))

    def check(self, name: str, video_id: str) -> None:
        """Raises NoSuchRelease; NoSuchVideo for a video that was withdrawn. Reads nothing of the video."""
        if video_id in self._opened(name).hidden:
            raise NoSuchVideo(f"release {name} has no video {video_id}")

    def frame(self, name: str, video_id: str, frame_idx: int) -> bytes:
        """JPEG of exactly this frame of a video of the release. Raises NoSuchRelease, NoSuchVideo, NoSuchFrame."""
        self._masklets(name, video_id)
        return self._media.frame(video_id, frame_idx)

    def thumbnail(self, name: str, video_id: str, masklet_id: str) -> bytes:
        """JPEG of the frame that shows most of an object. Raises NoSuchRelease, NoSuchVideo, NoSuchMasklet."""
        row = next((row for row in self._masklets(name, video_id) if row.masklet_id == masklet_id), None)
        if row is None or not row.frame_idx:
            raise NoSuchMasklet(f"release {name}: video {video_id} has no masklet {masklet_id}")
        t = int(np.argmax(row.area_px))
        mask = rle.decode(row.rle[t], row.height, row.width)
        return thumbnails.thumbnail(self._media.frame(video_id, row.frame_idx[t]), mask if mask.any() else None)

    def _opened(self, name: str) -> Release:
        """A release without its withdrawn videos."""

        def load() -> Release:
            try:
                release = releases.load(self._s.blobs, name)
            except (ReleaseError, ValueError) as error:
                raise NoSuchRelease(str(error)) from None
            return release.without(act.video_id for act in withdrawal.held_by(release))

        return self._kept(self._releases, name, load)

    def _masklets(self, name: str, video_id: str) -> list[Masklet]:
        """The masklets of a video. Raises NoSuchVideo if the release has none."""
        release = self._opened(name)
        found = self._kept(self._videos, (name, video_id), lambda: release.masklets([video_id]))
        if not found or video_id in release.hidden:
            raise NoSuchVideo(f"release {name} has no video {video_id}")
        return found

    def _kept(self, cache: Cache[Any, V], key: Any, make: Callable[[], V]) -> V:
        with self._lock, suppress(KeyError):  # `in` first would ask the clock twice: it may expire in between
            return cache[key]
        made = make()  # two threads may make the same
        with self._lock:
            cache[key] = made
        return made

    def _passing(
        self, release: Release, file: ReleaseFile, wanted: ReleaseFilter, is_wanted: IsPerson, first: int
    ) -> Iterator[tuple[int, ReleaseMasklet]]:
        """The masklets of a file from row `first` on that pass a filter, each with its row."""
        described = (
            (begin + n, row)
            for begin, table in self._tables(file, wanted, first)
            for n, row in _described(table, [n for n in _chosen(table, wanted, is_wanted) if begin + n >= first])
        )
        passing = ((n, row) for n, row in described if row.video_id not in release.hidden and _within(row, wanted))
        if not wanted.disagreement_from:
            yield from passing
            return
        while some := list(islice(passing, AT_ONCE)):
            for (n, _), masklet in zip(some, self._with_verdicts([row for _, row in some]), strict=True):
                if (masklet.disagreement or 0.0) >= wanted.disagreement_from:
                    yield n, masklet

    def _tables(self, file: ReleaseFile, wanted: ReleaseFilter, first: int) -> Iterator[tuple[int, pa.Table]]:
        """The columns that a list shows, in pieces of a file, each with the number of its first row."""
        pieces = self._pieces(file.key, file.size, wanted, first)
        try:
            head = next(pieces, None)
        except BlobMissing:  # erased with a withdrawn video
            if (rest := withdrawn.instead_of(self._s.blobs, file.key)) is None:
                return
            pieces = self._pieces(rest, self._s.blobs.size(rest), wanted, first)
            head = next(pieces, None)
        if head is not None:
            yield head
            yield from pieces

    def _pieces(self, key: str, size: int, wanted: ReleaseFilter, first: int) -> Iterator[tuple[int, pa.Table]]:
        video_ids = None if wanted.video_id is None else {wanted.video_id}
        if size > SMALL and (video_ids or wanted == ReleaseFilter()):
            yield from compacted.groups(self._s.blobs, key, size, COLUMNS, video_ids=video_ids, first=first)
            return
        with arrow.opened(self._s.blobs.fetch(key)) as opened:
            names = [name for name in COLUMNS if name in opened.schema_arrow.names]
            yield 0, opened.read(names, use_threads=False)

    def _recognised(self, person: str | None) -> IsPerson:
        """Whether a name in a release is the person's: releases have pseudonyms, earlier ones have names.

        person: a name in the queue, or a pseudonym.
        """
        if person is None or not self._s.blobs.exists(pseudonyms.KEY):  # then nobody has a pseudonym here
            return lambda name: name == person
        called = cache(pseudonyms.of(self._s.blobs))
        return lambda name: name is not None and (name == person or name == called(person) or called(name) == person)

    def _page(self, found: Sequence[ReleaseMasklet], following: str | None, looked: int) -> ReleasePage:
        return ReleasePage(masklets=tuple(self._with_verdicts(found)), next=following, looked=looked)

    def _with_verdicts(self, masklets: Sequence[ReleaseMasklet]) -> list[ReleaseMasklet]:
        """With what people's verdicts about them say, if the store has the operations."""
        of = self._verdicts_of(masklet.video_id for masklet in masklets)
        return [replace(each, disagreement=of.get(each.video_id, {}).get(each.masklet_id)) for each in masklets]

    def _verdicts_of(self, video_ids: Iterable[str]) -> dict[str, Mapping[str, float]]:
        """video_id -> `disagreements`. One scan of the operations for all videos that are not in memory."""
        ids = {video_id for video_id in video_ids if _ID.fullmatch(video_id)}
        with self._lock:
            found = {video_id: self._verdicts[video_id] for video_id in ids if video_id in self._verdicts}
        if new := sorted(ids - found.keys()):
            acts: dict[str, list[Operation]] = {video_id: [] for video_id in new}
            listed = ", ".join(f"'{video_id}'" for video_id in new)
            for act in self._s.tables.operations(where=f"video_id in ({listed}) and {ONLY}"):
                acts[act.video_id].append(act)
            made = {video_id: disagreements(of_video) for video_id, of_video in acts.items()}
            with self._lock:
                self._verdicts.update(made)
            found |= made
        return found


def disagreements(operations: Iterable[Operation]) -> dict[str, float]:
    """masklet_id -> share of people's verdicts about it that differ from the most frequent one.

    operations: verdicts and take-backs, all of each ticket.
    """
    verdicts = figures.verdicts_by_masklet(operations)
    return {masklet_id: 1 - max(Counter(of).values()) / len(of) for masklet_id, of in verdicts.items()}


def _chosen(table: pa.Table, wanted: ReleaseFilter, is_wanted: IsPerson) -> list[int]:
    """The rows that pass the filters on texts. is_wanted: whether a name is that of the wanted person."""
    keep = np.ones(table.num_rows, bool)
    exact = {name: getattr(wanted, name) for name in ("video_id", "kind", "phase", "split", "checkpoint")}
    for name, value in exact.items():
        if value is not None:
            keep &= np.array([each == value for each in _column(table, name)], bool)
    if wanted.label is not None:
        keep &= np.array([(each or "") == wanted.label for each in _column(table, "label")], bool)
    if wanted.person is not None:
        pairs = zip(_column(table, "annotated_by"), _column(table, "verified_by"), strict=True)
        keep &= np.array([any(map(is_wanted, pair)) for pair in pairs], bool)
    if wanted.text is not None:
        pairs = zip(_column(table, "masklet_id"), _column(table, "video_id"), strict=True)
        keep &= np.array([any(wanted.text in each for each in pair) for pair in pairs], bool)
    return [int(n) for n in np.flatnonzero(keep)]


def _within(masklet: ReleaseMasklet, wanted: ReleaseFilter) -> bool:
    """Whether a masklet passes the filters on numbers."""
    if wanted.size is not None and masklet.size != wanted.size:
        return False
    if wanted.score_from is None and wanted.score_to is None:
        return True
    low, high = wanted.score_from or 0.0, 1.0 if wanted.score_to is None else wanted.score_to
    return masklet.score is not None and low <= masklet.score <= high


def _described(table: pa.Table, rows: Iterable[int]) -> Iterator[tuple[int, ReleaseMasklet]]:
    """What a list shows of these rows of a table."""
    texts = {name: _column(table, name) for name in COLUMNS[:12]}
    lists = {name: _lists(table, name) for name in COLUMNS[12:]}
    for n in rows:
        frame_idx, area, score = (values[ends[n] : ends[n + 1]] for values, ends in lists.values())
        seen = area > 0
        mean = float(area[seen].mean()) if seen.any() else 0.0
        yield (
            n,
            ReleaseMasklet(
                masklet_id=texts["masklet_id"][n],
                video_id=texts["video_id"][n],
                kind=texts["kind"][n],
                phase=texts["phase"][n],
                label=texts["label"][n],
                split=texts["split"][n] or "train",
                checkpoint=texts["checkpoint"][n],
                annotated_by=texts["annotated_by"][n],
                verified_by=texts["verified_by"][n],
                verdict=texts["verdict"][n],
                size=figures.size_bucket(mean) if mean else "",
                area_px=mean,
                shown=int(seen.sum()),
                frames=len(area),
                score=float(score[seen].mean()) if seen.any() else None,
                edited=texts["edited_frame_count"][n] or 0,
                clicks=texts["click_count"][n] or 0,
                best=int(frame_idx[int(area.argmax())]) if len(area) else 0,
            ),
        )


def _column(table: pa.Table, name: str) -> list[Any]:
    """The values of a column; None where an earlier version wrote none."""
    return list(table[name].to_pylist()) if name in table.column_names else [None] * table.num_rows


def _lists(table: pa.Table, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The values of all lists of a column, and where the list of each row begins: (N + 1,)."""
    column = table[name].combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(column.values), np.asarray(column.offsets).astype(np.int64)
