"""Tables beside the videos: metadata.csv and metadata.parquet, in any folder of a source, say who filmed what where.

The column `file_name` names a video by its path below the folder of the table, as for the folders of Hugging Face's
`datasets`. `author`, `environment` and `split` have a meaning here, every other column is kept as it is. Of several
tables, the one in the nearest folder describes a video.

What a table says is read when its videos are judged, and it decides their splits for ever. So the videos below a table
that cannot be read wait until it can, and a video with an impossible row is refused until the row is corrected. Knows
no store.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, time
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

from engine.ingest import splits
from engine.ingest.faces import FACES
from engine.settings import IngestSettings
from storage import arrow
from storage.blobs.base import BlobError, Blobs, BlobUnreachable
from storage.formats.imported import MAX_METADATA
from storage.records import content_id
from storage.wording import counted

TABLES = ("metadata.csv", "metadata.parquet")
_READERS = 8  # tables that are read at once: most of the time is waiting for a bucket
_FILE_NAME = ("file_name", "filename")
_OWN = (splits.NEAR_DUPLICATE_OF, FACES)  # ingest writes these
_INT, _FLOAT = re.compile(r"-?(0|[1-9]\d{0,17})"), re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Row:
    """What a table says about a video."""

    at: str  # table and row, for messages
    values: str = "{}"  # JSON object with sorted keys; the author as in the table
    split: str | None = None
    problem: str | None = None  # why the video cannot be admitted, in one line

    @property
    def digest(self) -> str:
        """Changes with what it says, and not with its place."""
        return content_id(self.values, self.split or "", self.problem or "")


@dataclass
class Metadata:
    """What all tables of a source say. Keys are paths below the source."""

    rows: dict[str, Row] = field(default_factory=dict)  # by key of a video
    bad: list[tuple[str, str]] = field(default_factory=list)  # key of a table, what is wrong with it in one line
    broken: list[str] = field(default_factory=list)  # the folders of the tables that cannot be read, with "/"
    notes: list[str] = field(default_factory=list)  # lines about rows without a video, and videos without a row

    def waits(self, key: str) -> bool:
        """Whether a video is below a table that cannot be read."""
        return any(key.startswith(folder) for folder in self.broken)


class _BadTable(Exception):
    """What is wrong with a table, in one line."""


def read(source: Blobs, keys: Collection[str], settings: IngestSettings, is_video: Callable[[str], bool]) -> Metadata:
    """What the tables of a source say. keys: of all its files. Raises BlobUnreachable."""
    found, as_key = Metadata(), _as_key(keys)
    tables = sorted((key for key in keys if PurePosixPath(key).name in TABLES), key=lambda key: (key.count("/"), key))
    folders = Counter(_folder(key) for key in tables)
    silent: dict[str, list[str]] = {}  # by folder of a table: the videos for which it is the nearest, without a row
    with ThreadPoolExecutor(_READERS) as pool:
        contents = [pool.submit(source.read, key) for key in tables]
    for key, content in zip(tables, contents, strict=True):
        folder = _folder(key)
        try:
            if folders[folder] > 1:
                raise _BadTable("a folder has one table: metadata.csv or metadata.parquet")
            rows, bad = _rows(key, content.result(), settings, as_key)
        except BlobUnreachable:
            raise
        except (_BadTable, BlobError) as error:
            found.bad.append((key, f"{error}; the videos below it wait"))
            found.broken.append(folder)
            continue
        found.bad += [(key, line) for line in bad]
        found.rows |= rows
        silent[folder] = []
        strays = [
            f"{row.at.rpartition(', ')[2]}: {name.removeprefix(folder)}"
            for name, row in rows.items()
            if name not in keys
        ]
        if strays:
            found.notes.append(f"{key}: {_so_many(len(strays), 'row', 'name', 'names')} no file, first {strays[0]}")
    for video in sorted(key for key in keys if is_video(key) and key not in found.rows):
        if (nearest := next((folder for folder in _above(video) if folder in silent), None)) is not None:
            silent[nearest].append(video)
    for key in tables:
        if mine := silent.get(_folder(key)):
            found.notes.append(f"{key}: {_so_many(len(mine), 'video', 'have', 'has')} no row, first {mine[0]}")
    return found


def _so_many(number: int, noun: str, many: str, one: str) -> str:
    return f"{counted(number, noun)} {one if number == 1 else many}"


def _folder(key: str) -> str:
    """The folder of a table: "" or with "/" at its end."""
    return key.rpartition("/")[0] + "/" if "/" in key else ""


def _above(key: str) -> Iterator[str]:
    """The folders above a file, as `_folder` writes them, the nearest first."""
    while key:
        key = _folder(key.rstrip("/"))
        yield key


def _as_key(keys: Collection[str]) -> Callable[[str], str]:
    """Gives the key that a table means by a path: the same text, or the one key with the same letters in another form.

    File names from macOS may have "é" as two characters (Unicode's NFD); most programs write it as one (NFC).
    """
    composed: dict[str, list[str]] = {}
    for key in keys:
        composed.setdefault(unicodedata.normalize("NFC", key), []).append(key)

    def as_key(path: str) -> str:
        alike = composed.get(unicodedata.normalize("NFC", path), [])
        return alike[0] if len(alike) == 1 else path

    return as_key


def _rows(
    key: str, data: bytes, settings: IngestSettings, as_key: Callable[[str], str]
) -> tuple[dict[str, Row], list[str]]:
    """The rows of a table by the key of their video, and lines about rows that name none.

    as_key: gives the key for a path below the source. Raises _BadTable.
    """
    columns, table, first = _parquet(data) if key.endswith(".parquet") else _csv(data)
    if twice := [name for name, number in Counter(columns).items() if number > 1]:
        raise _BadTable(f"two columns are called {twice[0]!r}")
    if own := set(columns) & set(_OWN):
        raise _BadTable(f"a column is called {min(own)!r}, which ingest writes itself")
    name_column = next((name for name in _FILE_NAME if name in columns), None)
    if name_column is None:
        raise _BadTable(f"it has no column file_name, only {', '.join(map(repr, columns)) or 'none'}")
    rows: dict[str, Row] = {}
    bad, sides = [], dict[tuple[str, str], tuple[str, str]]()  # sides: of a group, its split and where that stands
    for number, values in enumerate(table, first):
        if not values:
            continue
        at = f"{key}, row {number}"
        name = str(values.pop(name_column, None) or "").replace("\\", "/")
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts:
            bad.append(f"row {number} names no file below the table's folder: {name!r:.80}")
            continue
        row = _row(at, values)
        group = None if row.problem or row.split is None else splits.group_of(json.loads(row.values), settings)
        if group is not None and row.split is not None:
            side, where = sides.setdefault(group, (row.split, f"row {number}"))
            if side != row.split:
                row = replace(row, problem=f"split {row.split!r}, but the {group[0]} has {side!r} in {where}")
        video = as_key(_folder(key) + str(path))
        before = rows.get(video)
        if before is not None and before.digest != row.digest:
            row = replace(before, problem=f"{before.at.rpartition(', ')[2]} and row {number} name the same file")
        rows[video] = row
    return rows, bad


def _row(at: str, values: Mapping[str, Any]) -> Row:
    said = dict(values)
    split = said.pop("split", None) or said.pop("video_split", None)
    said = {splits.COLUMNS.get(name, name): value for name, value in said.items()}
    try:
        text = json.dumps(said, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        return Row(at, problem=" ".join(str(error).split()))
    if len(text) > MAX_METADATA:
        return Row(at, problem=f"more than {MAX_METADATA} characters of metadata")
    if split is not None and split not in splits.SPLITS:
        return Row(at, text, problem=f"split {split!r:.80} is not one of {', '.join(splits.SPLITS)}")
    return Row(at, text, split)


def _csv(data: bytes) -> tuple[list[str], Iterable[dict[str, Any]], int]:
    """Columns, rows without their empty cells, and the number of the first one in a spreadsheet. Raises _BadTable."""
    try:
        text = data.decode("utf-8-sig")
        header = text.partition("\n")[0]
        delimiter = max(",;\t", key=header.count)  # spreadsheets of some languages write ; or tabs
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)]
    except UnicodeDecodeError:
        raise _BadTable("it is not UTF-8") from None
    except csv.Error as error:
        raise _BadTable(str(error)) from None
    columns = [cell.strip() for cell in lines[0]] if lines else []
    for number, line in enumerate(lines[1:], 2):
        if len(line) > len(columns):
            raise _BadTable(f"row {number} has {counted(len(line), 'cell')}, the header {len(columns)}")
    cells = [[cell.strip() for cell in line] + [""] * (len(columns) - len(line)) for line in lines[1:]]
    typed = [_typed(name, [line[n] for line in cells]) for n, name in enumerate(columns)]
    rows = [
        {name: value for name, value in zip(columns, line, strict=True) if value is not None and name}
        for line in zip(*typed, strict=True)
    ]
    return [name for name in columns if name], rows, 2


def _typed(name: str, cells: Sequence[str]) -> list[Any]:
    """The cells of a column as numbers or truth values, if all of them are; None for an empty one."""
    filled = [cell for cell in cells if cell]
    kind: Callable[[str], Any] = str
    if name not in (*_FILE_NAME, *splits.NAMES):
        if all(_INT.fullmatch(cell) for cell in filled):
            kind = int
        elif all(_FLOAT.fullmatch(cell) and math.isfinite(float(cell)) for cell in filled):
            kind = float
        elif all(cell.lower() in ("true", "false") for cell in filled):
            kind = _is_true
    return [kind(cell) if cell else None for cell in cells]


def _is_true(cell: str) -> bool:
    return cell.lower() == "true"


def _parquet(data: bytes) -> tuple[list[str], Iterable[dict[str, Any]], int]:
    """As `_csv`; rows are counted from 1. Raises _BadTable."""
    try:
        table = arrow.read_parquet(data)
        names = table.column_names
    except Exception as error:  # Arrow raises many types
        raise _BadTable(f"it is no Parquet file: {_brief(error)}") from None
    columns = []
    for name, column in zip(names, table.columns, strict=True):
        try:  # a Parquet file may hold what Python cannot: text that is not UTF-8, a day after the year 9999
            columns.append([None if _is_empty(value) else _plain(value) for value in column.to_pylist()])
        except Exception as error:
            raise _BadTable(f"its column {name!r} cannot be read: {_brief(error)}") from None
    rows = [
        {name: value for name, value in zip(names, line, strict=True) if value is not None}
        for line in zip(*columns, strict=True)
    ]
    return names, rows, 1


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))


def _plain(value: Any) -> Any:
    """A value of Arrow as JSON has it; dates as ISO 8601."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return value.strip() if isinstance(value, str) else value
