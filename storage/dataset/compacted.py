"""Compacted files: the rows of many videos in one Parquet file, sorted by video. Writes them, and reads a few videos.

A video's rows are in one row group, or in a few that belong to it alone. So the statistics in the footer say where they
are, and the rest of the file is not read: a footer and one row group are two requests, however large the file is.
Knows Parquet and blobs; does not know batches or releases.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage import arrow
from storage.arrow import R
from storage.blobs.base import Blobs

GROUP_BYTES = 2**20  # of a row group, in memory: about 100 masklets of SA-V. Smaller ones make the footer long
_TAIL = 256 * 1024  # bytes that are read to find the footer: that of 64 MB takes 0.15 MB
_APART = 8  # row groups that are read one by one; for more, everything between the first and the last is read at once


def write(path: Path, record: type[Any], videos: Iterable[pa.Table]) -> int:
    """Writes the rows of each video, in this order, and returns their number. Holds one row group in memory.

    videos: tables of one video each, sorted by video; several of one video follow each other.
    Raises ValueError for rows that a later version of the program made.
    """
    count = 0
    with arrow.writer(record, path) as file:
        for group in _groups(arrow.widened(record, table) for table in videos):
            file.write_table(group, row_group_size=max(len(group), 1))
            count += len(group)
    return count


def _groups(videos: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Whole videos together, until they are enough for a row group."""
    waiting, size = list[pa.Table](), 0
    for table in videos:
        waiting.append(table)
        size += table.nbytes
        if size >= GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def read(blobs: Blobs, key: str, size: int, record: type[R], video_ids: Collection[str]) -> list[R]:
    """The rows of these videos, in the order of the file. Reads the footer and the row groups that may hold them.

    size: bytes of the blob. Raises BlobError; ValueError or an Arrow error for a file that holds no such rows.
    """
    ranges = _Ranges(lambda start, length: blobs.read(key, length, start), size)
    ranges.load(max(0, size - _TAIL), size)
    with arrow.opened(ranges) as file:
        wanted = [n for n in range(file.metadata.num_row_groups) if _may_hold(file.metadata.row_group(n), video_ids)]
        places = [_place(file.metadata.row_group(n)) for n in wanted]
        if len(wanted) > _APART:
            ranges.load(places[0][0], places[-1][1])
        rows = list[R]()
        for n, (start, end) in zip(wanted, places, strict=True):
            ranges.load(start, end)
            table = arrow.read_group(file, n)
            rows += arrow.from_arrow(record, table.filter(pc.is_in(table["video_id"], pa.array(list(video_ids)))))
    return rows


def groups(
    blobs: Blobs,
    key: str,
    size: int,
    columns: Collection[str],
    *,
    video_ids: Collection[str] | None = None,
    first: int = 0,
) -> Iterator[tuple[int, pa.Table]]:
    """Row groups from row `first` of a file on, each with the number of its first row. None is read before it is taken.

    columns: those that the file lacks are left out.  video_ids: skips the groups that hold none of these videos.
    Raises as `read` does.
    """
    ranges = _Ranges(lambda start, length: blobs.read(key, length, start), size)
    ranges.load(max(0, size - _TAIL), size)
    with arrow.opened(ranges) as file:
        at = 0
        for n in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(n)
            if at + group.num_rows > first and (video_ids is None or _may_hold(group, video_ids)):
                ranges.load(*_place(group))
                yield at, arrow.read_group(file, n, columns)
            at += group.num_rows


def iterate(data: bytes, record: type[R]) -> Iterator[R]:
    """All rows of a Parquet file; only those of one row group are records at the same time."""
    with arrow.opened(pa.BufferReader(data)) as file:
        for n in range(file.metadata.num_row_groups):
            yield from arrow.from_arrow(record, arrow.read_group(file, n))


def _may_hold(group: Any, video_ids: Collection[str]) -> bool:
    for n in range(group.num_columns):
        column = group.column(n)
        if column.path_in_schema == "video_id":
            found = column.statistics
            if found is None or not found.has_min_max:
                return True
            return any(found.min <= video_id <= found.max for video_id in video_ids)
    return True


def _place(group: Any) -> tuple[int, int]:
    """Where a row group begins and ends in its file."""
    columns = [group.column(n) for n in range(group.num_columns)]
    starts = [c.dictionary_page_offset or c.data_page_offset for c in columns]
    return min(starts), max(s + c.total_compressed_size for s, c in zip(starts, columns, strict=True))


class _Ranges(io.RawIOBase):
    """A file of which pieces are loaded one by one. A read outside of them loads its own piece."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._at = 0
        self._loaded: list[tuple[int, bytes]] = []

    def load(self, start: int, end: int) -> None:
        """Loads the bytes from `start` to `end`, unless they are loaded."""
        if end > start and self._piece(start, end - start) is None:
            self._loaded = [*self._loaded[:1], (start, self._fetch(start, end - start))]  # the first is the footer

    def _piece(self, start: int, length: int) -> bytes | None:
        for first, data in self._loaded:
            if first <= start and start + length <= first + len(data):
                return data[start - first : start - first + length]
        return None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        length = max(0, self._size - self._at) if size < 0 else min(size, max(0, self._size - self._at))
        if length == 0:
            return b""
        found = self._piece(self._at, length)
        found = self._fetch(self._at, length) if found is None else found
        self._at += len(found)
        return found
