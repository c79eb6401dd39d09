"""The hashes of all admitted videos, for finding near duplicates: read once by a run, then only what is new.

    videos/<video_id>/looks.npz        one look a second, made before the video is admitted; see `near_duplicates`
    hashes/<level>/<id>.npz            hashes of many videos, without pictures: level 0 is one batch

Sixteen files of a level become one file of the next level, so a run over 51,000 videos reads at most some 50 files, and
10 MB. Files are replaced, never changed: a reader that misses one lists them again, and a video in two files counts
once. A video that no batch has yet is found by its mark below `uncommitted/`.

A damaged file is replaced: one below `hashes/` from the looks at the videos that no other file has, looks from their
video. So ingest goes on.

Of two machines that admit near duplicates within the same seconds, neither may see the other's: both are admitted.
Within one process, this cannot happen.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock

import numpy as np

from engine import batches
from engine.batches import BatchStage
from engine.ingest import near_duplicates
from engine.ingest.near_duplicates import Alike, Looker, Looks, Match, Table
from storage.blobs.base import BlobDamaged, BlobMissing, Blobs
from storage.records import content_id
from storage.videos import video
from storage.videos.reader import FrameUnreadable
from storage.wording import counted

_PREFIX = "hashes/"
_FILES = 16  # of a level that become one of the next
_TRIES = 5  # listings of files that other processes replace meanwhile
_READERS = 8

_log = logging.getLogger(__name__)


def looks_key(video_id: str) -> str:
    """Where the looks at a video are."""
    return f"videos/{video_id}/looks.npz"


def dump(looks: Looks) -> bytes:
    """The looks at an admitted video as they are stored."""
    return _npz(hashes=looks.hashes, flat=looks.flat, pictures=looks.pictures)


def load(blobs: Blobs, video_id: str) -> Looks | None:
    """The looks at an admitted video; None for a withdrawn one, and one of an earlier version."""
    try:
        found = _arrays(blobs, looks_key(video_id), "hashes", "flat", "pictures")
    except BlobMissing:
        return None
    except BlobDamaged as error:
        return _looked_again(blobs, video_id, error)
    return Looks(found["hashes"], found["flat"], found["pictures"])


def _looked_again(blobs: Blobs, video_id: str, why: BlobDamaged) -> Looks | None:
    """Replaces damaged looks by those at the stored video. None: they cannot be, and copies of it are not found."""
    import av

    looker = Looker()
    try:
        with blobs.local(f"videos/{video_id}/video.mp4") as path:
            pictures = (av.VideoFrame.from_ndarray(rgb, format="rgb24") for _, rgb in video.frames(path))
            for _ in looker.through(pictures):
                pass
    except (BlobMissing, FrameUnreadable) as error:
        _log.warning("%s; copies of this video are not found: %s", why, error)
        return None
    looks = looker.looks().each_second()
    blobs.write(looks_key(video_id), dump(looks))
    _log.warning("%s; it was made again from the video", why)
    return looks


class HashIndex:
    """What a run of ingest knows of all admitted videos. For several threads."""

    def __init__(self, blobs: Blobs, waiting: str) -> None:
        """waiting: the prefix of the marks of videos that no batch has yet."""
        self._blobs, self._waiting = blobs, waiting
        self._lock = Lock()
        self._files: dict[str, Table] = {}  # by key
        self._new: dict[str, Looks | None] = {}  # videos that are in no file yet; None: nothing is known of one
        self._whole = _joined([])
        self._missed: dict[object, dict[str, Looks]] = {}  # for each search: the videos that came after it began

    def check_in(self, video_id: str, new: Looks, how: Alike | None, keep: bool = False) -> Match | None:
        """The near duplicate of a new video; if there is none, the video is known from now on.

        how: None: nothing is compared. keep: the video is known even if it is a near duplicate.
        Several threads search at once; then each compares with what came meanwhile. Raises BlobError.
        """
        search, missed, found = object(), dict[str, Looks](), None
        if how is not None:
            with self._lock:
                self._refresh()
                known = {name: looks for name, looks in self._new.items() if looks is not None}
                table = _joined([self._whole, table_of(known)])
                self._missed[search] = missed
        try:
            if how is not None:
                found = near_duplicates.find(new, table, self._looks_at, how, but=video_id)
            with self._lock:
                if how is not None and found is None:
                    found = near_duplicates.find(new, table_of(missed), missed.get, how, but=video_id)
                if found is None or keep:
                    self._new[video_id] = new.each_second()
                    for others in self._missed.values():
                        others[video_id] = new.each_second()
                return found
        finally:
            with self._lock:
                self._missed.pop(search, None)

    def _looks_at(self, video_id: str) -> Looks | None:
        return self._new.get(video_id) or load(self._blobs, video_id)

    def _refresh(self) -> None:
        """Reads the files and videos that came since the last time."""
        for _ in range(_TRIES):
            keys = list(self._blobs.keys(_PREFIX))
            new = [key for key in keys if key not in self._files]
            try:
                with ThreadPoolExecutor(_READERS) as pool:
                    found = dict(zip(new, pool.map(partial(_read_if_whole, self._blobs), new), strict=True))
            except BlobMissing:  # replaced by a larger file
                continue
            read = {key: table for key, table in found.items() if table is not None}
            if len(read) == len(found):
                break
            whole = [table for key, table in (self._files | read).items() if key in keys]
            _replace(self._blobs, found.keys() - read.keys(), set(_joined(whole).video_ids.tolist()))
        else:
            raise BlobDamaged(f"{_PREFIX}: its files are replaced faster than they can be read")
        if new or len(keys) != len(self._files):
            self._files = {key: (self._files | read)[key] for key in keys}
            self._whole = _joined(self._files.values())
            in_files = set(self._whole.video_ids.tolist())
            self._new = {video_id: looks for video_id, looks in self._new.items() if video_id not in in_files}
        for key in list(self._blobs.keys(self._waiting)):
            if (video_id := key.removeprefix(self._waiting)) not in self._new:
                self._new[video_id] = load(self._blobs, video_id)


def add_batch(blobs: Blobs, batch_id: str, video_ids: Sequence[str]) -> None:
    """Writes the hashes of a batch's videos, and makes one file of sixteen. May be killed, and run twice."""
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda video_id: load(blobs, video_id), video_ids))
    known = {name: looks for name, looks in zip(video_ids, found, strict=True) if looks is not None}
    if known:
        blobs.create(f"{_PREFIX}0/{batch_id}.npz", _written(table_of(known)))
        _merge(blobs)


def _replace(blobs: Blobs, damaged: Collection[str], known: Collection[str]) -> None:
    """Puts a file with the hashes of all videos that no file has into the place of damaged ones. Lists all batches.

    known: the videos in the other files.
    """
    ingested = [batch_id for batch_id, marks in batches.reached(blobs).items() if BatchStage.INGESTED in marks]
    missing = {video_id for batch_id in ingested for video_id in batches.video_ids(blobs, batch_id)}.difference(known)
    if missing:
        add_batch(blobs, content_id("hashes", *sorted(damaged), *sorted(missing)), sorted(missing))
    for key in damaged:
        blobs.delete(key)
        _log.warning("%s was damaged: hashes of %s were written again", key, counted(len(missing), "video"))


def _merge(blobs: Blobs) -> None:
    """Joins files of a level until each has fewer than sixteen."""
    keys = sorted(blobs.keys(_PREFIX))
    levels = sorted({int(key.split("/")[1]) for key in keys})
    for level in levels:
        of_level = [key for key in keys if key.startswith(f"{_PREFIX}{level}/")]
        if len(of_level) < _FILES:
            continue
        few = of_level[:_FILES]
        try:
            whole = _joined([_read(blobs, key) for key in few])
        except (BlobMissing, BlobDamaged):  # another process joins them; the next search replaces a damaged one
            return
        blobs.create(f"{_PREFIX}{level + 1}/{content_id('hashes', *few)}.npz", _written(whole))
        for key in few:
            blobs.delete(key)
        return _merge(blobs)


def table_of(kept: Mapping[str, Looks]) -> Table:
    """The hashes of videos, each with one look a second."""
    return _joined(_table(video_id, looks) for video_id, looks in kept.items())


def _table(video_id: str, looks: Looks) -> Table:
    """The hashes of one video."""
    seconds = np.flatnonzero(~looks.flat)
    return Table(np.array([video_id]), np.array([0, len(seconds)]), seconds, looks.hashes[seconds])


def _joined(tables: Iterable[Table]) -> Table:
    """One table of several; a video that is in several of them counts once."""
    each = list(tables)
    if not each:
        return Table(np.zeros(0, np.str_), np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint64))
    names = np.concatenate([table.video_ids for table in each])
    lengths = np.concatenate([np.diff(table.starts) for table in each])
    seconds = np.concatenate([table.seconds for table in each])
    hashes = np.concatenate([table.hashes for table in each])
    _, firsts = np.unique(names, return_index=True)
    if len(firsts) < len(names):
        is_first = np.isin(np.arange(len(names)), firsts)
        kept = np.repeat(is_first, lengths)
        names, lengths, seconds, hashes = names[is_first], lengths[is_first], seconds[kept], hashes[kept]
    return Table(names, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), seconds, hashes)


def _read_if_whole(blobs: Blobs, key: str) -> Table | None:
    """A file of hashes; None for a damaged one. Raises BlobMissing."""
    try:
        return _read(blobs, key)
    except BlobDamaged:
        return None


def _written(table: Table) -> bytes:
    return _npz(
        video_ids=table.video_ids.astype("S"),
        lengths=np.diff(table.starts).astype(np.uint32),
        seconds=table.seconds.astype(np.uint32),
        hashes=table.hashes,
    )


def _read(blobs: Blobs, key: str) -> Table:
    """A file of hashes. Raises BlobMissing, BlobDamaged."""
    found = _arrays(blobs, key, "video_ids", "lengths", "seconds", "hashes")
    starts = np.concatenate([[0], np.cumsum(found["lengths"].astype(np.int64))])
    if starts[-1] != len(found["hashes"]) or len(found["seconds"]) != len(found["hashes"]):
        raise BlobDamaged(f"{key}: its columns have different lengths")
    return Table(found["video_ids"].astype(np.str_), starts, found["seconds"].astype(np.int64), found["hashes"])


def _npz(**arrays: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, **arrays)
    return sink.getvalue()


def _arrays(blobs: Blobs, key: str, *names: str) -> dict[str, np.ndarray]:
    data = blobs.read(key)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except Exception as error:  # numpy and zipfile raise many types
        raise BlobDamaged(f"{key}: {' '.join(str(error).split())}") from error
