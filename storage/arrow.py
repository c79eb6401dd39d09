"""Records as Arrow tables and Parquet bytes: the one place that knows a schema.

The columns are the fields of the record, in order. A field with a default is a nullable column. So files that were
written before the field existed can still be read: a missing column, or a null, gives the default.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import first_line
from storage.records import Masklet, Operation, Quarantined, Video

Record = Video | Masklet | Operation | Quarantined
R = TypeVar("R")  # any frozen dataclass whose fields have types of _TYPES

_TYPES: dict[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    str | None: pa.string(),
    int | None: pa.int64(),
    tuple[int, ...]: pa.list_(pa.field("element", pa.int32())),  # "element" is the name in the Parquet file
    tuple[str, ...]: pa.list_(pa.field("element", pa.string())),
    tuple[float, ...]: pa.list_(pa.field("element", pa.float64())),
    tuple[bytes, ...]: pa.list_(pa.field("element", pa.binary())),
}


class NotRows(ValueError):
    """These bytes are not a Parquet file of this record."""


ROWS_A_GROUP = 128  # rows in a Parquet row group, the least that a reader decodes
LEVEL = 9  # of zstd: masks of SA-V take 7 % less than at Arrow's level 1, for a millisecond a masklet; reading is alike


def schema(record: type[Any]) -> pa.Schema:
    """The Arrow schema of a record's table."""
    hints = _hints(record)  # type: ignore[arg-type]  # a class is hashable
    return pa.schema([pa.field(f.name, _TYPES[hints[f.name]], nullable=_nullable(f, hints)) for f in _fields(record)])


def to_arrow(record: type[R], rows: Sequence[R], columns: Sequence[str] | None = None) -> pa.Table:
    """Records as a table, one row each, in the given order. columns: None for all."""
    its = schema(record)
    if columns is not None:
        its = pa.schema([its.field(name) for name in columns])
    return pa.table({name: [getattr(row, name) for row in rows] for name in its.names}, schema=its)


def problem(row: Record) -> str | None:
    """One line about why a record cannot be a row of its table, or None. Never raises, for any values."""
    try:
        to_arrow(type(row), [row])
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        return first_line(error)
    return None


def from_arrow(record: type[R], table: pa.Table) -> list[R]:
    """The records of a table, in its order. Raises ValueError if a column without a default is missing or null."""
    columns: dict[str, list[Any]] = {}
    for f in _fields(record):
        default = f.default
        if f.name in table.column_names:
            values = _values(table.column(f.name))
        else:
            values = [None] * table.num_rows
        if default is dataclasses.MISSING:
            if None in values and not schema(record).field(f.name).nullable:
                raise ValueError(f"{record.__name__} needs the column {f.name!r}, which is missing or null")
        elif default is not None:
            values = [default if v is None else v for v in values]
        columns[f.name] = values
    names = list(columns)
    return [record(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column as Python objects; lists become tuples, several times faster than by `to_pylist`."""
    if not pa.types.is_list(column.type) or column.null_count:
        return [tuple(v) if isinstance(v, list) else v for v in column.to_pylist()]
    found = list[Any]()
    for chunk in column.chunks:
        items, ends = chunk.values, np.asarray(chunk.offsets).tolist()
        flat = _bytes(items) if pa.types.is_binary(items.type) and not items.null_count else _items(items)
        found += [tuple(flat[a:b]) for a, b in itertools.pairwise(ends)]
    return found


def _items(items: pa.Array) -> list[Any]:
    if items.null_count or not (pa.types.is_integer(items.type) or pa.types.is_floating(items.type)):
        return list(items.to_pylist())
    return list(np.asarray(items).tolist())


def _bytes(items: pa.Array) -> list[bytes]:
    """The values of a binary array, cut out of its buffer."""
    _, offsets, data = items.buffers()
    ends = np.frombuffer(offsets, np.int32, len(items) + 1, 4 * items.offset).tolist()
    whole = data.to_pybytes() if data is not None else b""
    return [whole[a:b] for a, b in itertools.pairwise(ends)]


def to_parquet(record: type[R], rows: Sequence[R]) -> bytes:
    """Records as a Parquet file. With one version of Arrow, the same rows give the same bytes."""
    table = to_arrow(record, rows)
    sink = pa.BufferOutputStream()
    with writer(record, sink) as file:
        file.write_table(table, row_group_size=ROWS_A_GROUP)
    return bytes(sink.getvalue())


def writer(record: type[Any], sink: Any) -> pq.ParquetWriter:
    """A writer of Parquet files of a record, as `to_parquet` makes them. sink: a path or a stream."""
    its = schema(record)
    binary = {f.name for f in its if pa.types.is_list(f.type) and pa.types.is_binary(f.type.value_type)}
    plain = [_leaf(its, f.name) for f in its if f.name not in binary]
    return pq.ParquetWriter(
        sink, its, compression="zstd", compression_level=LEVEL, use_dictionary=plain, write_statistics=plain
    )


def widened(record: type[Any], table: pa.Table) -> pa.Table:
    """A table that an earlier version of the record made, with all columns of today: the new ones are null.

    Raises ValueError for a column that the record does not have: a later version made it, and it would be lost.
    """
    its = schema(record)
    if unknown := set(table.column_names) - set(its.names):
        raise ValueError(f"columns of a later version: {', '.join(sorted(unknown))}")
    columns = [table.column(f.name) if f.name in table.column_names else pa.nulls(len(table), f.type) for f in its]
    return pa.table(columns, schema=its)


def from_parquet(record: type[R], data: bytes) -> list[R]:
    """The records of a Parquet file that `to_parquet` made, with this or an earlier version of the record.

    Raises NotRows, for any other bytes.
    """
    table, its = read_parquet(data), schema(record)
    with _checked():
        for at, name in enumerate(table.column_names):
            if name in its.names:  # a column of another type gives no record
                table = table.set_column(at, its.field(name), table.column(at).cast(its.field(name).type))
        return from_arrow(record, table)


def read_parquet(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file. This and `read_group` are the only readers: they use no thread of Arrow's pool.

    columns: None for all. Raises NotRows for other bytes.

    After a read with that pool, Arrow may abort the process at its exit (apache/arrow 33975, 34314, 39162):
    `benchmarks/exits.py` measures it.
    """
    with _checked():
        return opened(pa.BufferReader(data)).read(None if columns is None else list(columns), use_threads=False)


@contextmanager
def _checked() -> Iterator[None]:
    """What Arrow raises for damaged bytes, as NotRows."""
    try:
        yield
    except MemoryError:  # the machine's fault, also as one of Arrow's errors
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:  # OSError: the bytes are in memory
        raise NotRows(f"not a Parquet file of these rows ({first_line(error)})") from error


def opened(source: Any) -> Any:
    """A Parquet file whose footer is read: `metadata`, and its rows by `read_group`. Close it.

    source: a stream of Arrow, or a Python object that reads, seeks and tells.
    """
    return pq.ParquetFile(source)


def read_group(file: Any, number: int, columns: Collection[str] | None = None) -> pa.Table:
    """The rows of one row group of an opened file. columns: None for all; those that the file lacks are left out."""
    known = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
    return file.read_row_group(number, known, use_threads=False)


def _leaf(schema: pa.Schema, name: str) -> str:
    """The Parquet path of a column's values."""
    return f"{name}.list.element" if pa.types.is_list(schema.field(name).type) else name


@lru_cache(maxsize=16)
def _hints(record: type[Any]) -> dict[str, Any]:
    return get_type_hints(record)


def _fields(record: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(record)


def _nullable(field: dataclasses.Field[Any], hints: dict[str, Any]) -> bool:
    return field.default is not dataclasses.MISSING or hints[field.name] in (str | None, int | None)
