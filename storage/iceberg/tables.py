"""The tables `videos`, `masklets`, `operations` and `quarantine`: Apache Iceberg over a SQL catalog.

Knows catalogs, snapshots and tags. Does not know markers, or which process commits. The data files are the immutable
Parquet parts, added by address. A commit stores its batch id in the snapshot, so a second run finds it done. Two
committers of one batch cannot both succeed: each commits only onto the snapshot that it searched for the batch.

Errors: `storage/iceberg/table_errors.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from storage import arrow
from storage.errors import first_line
from storage.iceberg.table_errors import (
    ATTEMPTS,
    CatalogUnreachable,
    CommitFailed,
    CommitUnknown,
    TablesError,
    WarehouseUnreachable,
    damage,
    is_locked,
    pause,
)
from storage.records import Masklet, Operation, Quarantined, Video, in_order, unique_videos

if TYPE_CHECKING:
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.manifest import ManifestEntry
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot, Summary

    from storage.iceberg.catalog import CompressingCatalog

RECORDS: dict[str, type[arrow.Record]] = {
    "videos": Video,
    "masklets": Masklet,
    "operations": Operation,
    "quarantine": Quarantined,
}
BATCH_ID = "engine.batch_id"  # the snapshot property that makes a commit idempotent; several are separated by commas
REWRITE = "engine.rewrite"  # the snapshot property of a commit that wrote rows again in other files, or took rows away

_CATALOG = "masklets"
_NAMESPACE = "engine"
_OPENINGS = 6
_IN = 200  # ids of one filter: with more, pyiceberg compares no bounds and opens every file
_PROPERTIES = {
    "commit.retry.num-retries": "0",  # a blind retry could add a batch twice: `commit` retries itself
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",  # each commit lists them again
    # Every commit lists the manifests: when there are 50 small ones, they are merged into ones of up to 256 KB.
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "50",
    "commit.manifest.target-size-bytes": str(2**18),
    # Bounds cost bytes in every commit: only of the columns by which files are skipped.
    "write.metadata.metrics.default": "none",
    **{f"write.metadata.metrics.column.{name}": "full" for name in ("video_id", "batch_id", "source_uri", "stage")},
}


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The commit of one batch to one table."""

    snapshot_id: int
    rows: int
    files: int
    already: bool  # it existed before this call


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A Parquet file of a table."""

    uri: str
    rows: int
    size: int  # bytes


@dataclass(frozen=True, kw_only=True)
class TableSnapshot:
    """A snapshot that added the files of one batch, or wrote rows again in other files."""

    snapshot_id: int
    batch_id: str | None  # None: another tool added them
    rewrites: bool  # by `storage/iceberg/table_upkeep.py`: it added no batch


class Tables:
    """The four tables of one warehouse. Safe to open in many processes at once."""

    def __init__(self, catalog: CompressingCatalog, warehouse_uri: str) -> None:
        self.catalog = catalog
        self.warehouse_uri = warehouse_uri

    @classmethod
    def open(cls, catalog_uri: str, warehouse_uri: str, s3_endpoint: str | None = None) -> Self:
        """Connect, and make what is missing: the catalog's own tables, ours, and the columns of new fields of a record.

        catalog_uri: of SQLAlchemy, sqlite:////absolute/path.db or postgresql+psycopg://…; the folder of an SQLite file
        is made. warehouse_uri: an absolute folder or s3://bucket/prefix, for Iceberg's metadata.
        Raises CatalogUnreachable if the catalog cannot be reached, WarehouseUnreachable if the warehouse cannot.
        """
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import SQLAlchemyError

        from storage.iceberg.catalog import CompressingCatalog, s3_properties

        url = make_url(catalog_uri)
        if url.get_backend_name() == "sqlite" and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            url = url.update_query_dict({"timeout": "60"})
        properties = {
            "uri": url.render_as_string(hide_password=False),
            "warehouse": warehouse_uri.rstrip("/"),
            "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
            "pool_pre_ping": "true",  # a connection that broke while it was idle is replaced
            **s3_properties(warehouse_uri, s3_endpoint),
        }
        for attempt in range(_OPENINGS):
            try:
                tables = cls(CompressingCatalog(_CATALOG, **properties), properties["warehouse"])
                tables._create()
                return tables
            # another process may be making the catalog's tables at this moment
            except (SQLAlchemyError, CatalogUnreachable) as error:
                if attempt == _OPENINGS - 1:
                    raise CatalogUnreachable(f"catalog {url.render_as_string()}: {first_line(error)}") from error
                pause(attempt)
            except OSError as error:
                detail = f"its tables cannot be made ({first_line(error)})"
                raise WarehouseUnreachable(f"{warehouse_uri}: {detail}") from error
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close the connections to the catalog."""
        self.catalog.close()

    def forget(self) -> None:
        """Empty the cache of metadata, as in a new process."""
        self.catalog.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Reading

    def scan(
        self,
        table_name: str,
        *,
        snapshot_id: int | None = None,
        where: str | BooleanExpression | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Rows of a table as Arrow.

        snapshot_id: None for the current one. where: an Iceberg row filter, "video_id == 'abc' and round > 2".
        columns: None for all. Raises ValueError for an unknown table, snapshot, column or filter.
        """
        from pyiceberg.expressions.visitors import bind

        table = self.load(table_name)
        if snapshot_id is not None and table.snapshot_by_id(snapshot_id) is None:
            raise ValueError(f"{table_name} has no snapshot {snapshot_id}")
        selected = tuple(columns) if columns is not None else ("*",)
        scan = table.scan(selected_fields=selected, snapshot_id=snapshot_id)
        scan = scan if where is None else scan.filter(where)
        scan.projection()  # raises ValueError for an unknown column, as `bind` does: later, it means damage
        bind(table.schema(), scan.row_filter, case_sensitive=True)
        with damage(table_name):
            return scan.to_arrow()

    def videos(self, *, snapshot_id: int | None = None, where: str | None = None) -> list[Video]:
        """The admitted videos, each once, sorted by id. Earlier versions could admit a video in two batches."""
        rows = arrow.from_arrow(Video, self.scan("videos", snapshot_id=snapshot_id, where=where))
        return unique_videos(rows)

    def addresses(self, prefix: str) -> dict[str, list[str]]:
        """The source addresses that begin with `prefix`, by batch. Files with other sources are not read.

        Grows slowly with the table: it opens a manifest for about 4,000 data files, and compares the bounds of each
        file. An import asks this once, and compaction makes the files few.
        """
        from pyiceberg.expressions import StartsWith

        rows = self.scan(
            "videos", where=StartsWith(term="source_uri", value=prefix), columns=["batch_id", "source_uri"]
        )
        found: dict[str, list[str]] = {}
        for batch_id, source_uri in zip(rows["batch_id"].to_pylist(), rows["source_uri"].to_pylist(), strict=True):
            found.setdefault(batch_id, []).append(source_uri)
        return found

    def masklets(self, *, snapshot_id: int | None = None, where: str | None = None) -> list[Masklet]:
        """The published masklets, `in_order`."""
        return in_order(arrow.from_arrow(Masklet, self.scan("masklets", snapshot_id=snapshot_id, where=where)))

    def videos_by_id(self, video_ids: Sequence[str]) -> list[Video]:
        """The rows of these videos, each once, sorted by id. Opens the files of these videos, not of all."""
        from pyiceberg.expressions import In

        found: list[Video] = []
        for few in _chunks(video_ids):
            found += arrow.from_arrow(Video, self.scan("videos", where=In(term="video_id", literals=set(few))))
        return unique_videos(found)

    def published_masklets(self, video_ids: Sequence[str], *, but: str) -> dict[str, str]:
        """The masklets of these videos that are published, with their batch; without those of batch `but`.

        Reads two columns of the files of these videos.
        """
        from pyiceberg.expressions import And, In, NotEqualTo

        found: dict[str, str] = {}
        for few in _chunks(video_ids):
            where = And(In(term="video_id", literals=set(few)), NotEqualTo(term="batch_id", value=but))
            rows = self.scan("masklets", where=where, columns=["masklet_id", "batch_id"])
            found |= zip(rows["masklet_id"].to_pylist(), rows["batch_id"].to_pylist(), strict=True)
        return found

    def operations(self, *, where: str | None = None) -> list[Operation]:
        """The acts of the annotators, sorted by ticket and in order."""
        rows = arrow.from_arrow(Operation, self.scan("operations", where=where))
        return sorted(rows, key=lambda operation: (operation.ticket_id, operation.seq, operation.operation_id))

    def quarantine(self, *, where: str | None = None) -> list[Quarantined]:
        """The refused inputs and rows, with their reasons."""
        rows = arrow.from_arrow(Quarantined, self.scan("quarantine", where=where))
        return sorted(rows, key=lambda row: (row.stage, row.subject, row.reason))

    def snapshot_id(self, table_name: str) -> int | None:
        """The current snapshot; None before the first commit."""
        snapshot = self.load(table_name).current_snapshot()
        return snapshot.snapshot_id if snapshot else None

    def tagged(self, table_name: str, name: str) -> int | None:
        """The snapshot with this tag; None if there is no such tag."""
        snapshot = self.load(table_name).snapshot_by_name(name)
        return snapshot.snapshot_id if snapshot else None

    def has_snapshot(self, table_name: str, snapshot_id: int) -> bool:
        """Whether the snapshot exists, and is not expired."""
        return self.load(table_name).snapshot_by_id(snapshot_id) is not None

    def row_count(self, table_name: str) -> int:
        """Rows of the current snapshot, as its summary says: reads no manifest and no data file."""
        snapshot = self.load(table_name).current_snapshot()
        summary = snapshot.summary if snapshot else None
        return int(summary.get("total-records") or 0) if summary else 0

    def added_files(self, table_name: str, snapshot_id: int) -> list[DataFile]:
        """The Parquet files that one snapshot added, sorted by address. Opens the manifests of this snapshot alone."""
        table = self.load(table_name)
        snapshot = table.snapshot_by_id(snapshot_id)
        if snapshot is None:
            raise ValueError(f"{table_name} has no snapshot {snapshot_id}")
        with damage(table_name):
            own = [m for m in snapshot.manifests(table.io) if m.added_snapshot_id == snapshot_id]
            entries = [e for manifest in own for e in manifest.fetch_manifest_entry(table.io) if _was_added(e)]
        files = [e.data_file for e in entries if e.snapshot_id == snapshot_id]
        found = [DataFile(uri=f.file_path, rows=f.record_count, size=f.file_size_in_bytes) for f in files]
        return sorted(found, key=lambda file: file.uri)

    def files_of(self, table_name: str, video_id: str) -> list[str]:
        """The addresses of the data files that may hold rows of a video, by their bounds."""
        from pyiceberg.expressions import EqualTo

        with damage(table_name):
            tasks = self.load(table_name).scan(row_filter=EqualTo(term="video_id", value=video_id)).plan_files()
            return sorted(task.file.file_path for task in tasks)

    def history(self, table_name: str, snapshot_id: int) -> Iterator[TableSnapshot]:
        """A snapshot and those before it, the newest first.

        Raises TablesError where one was expired, or where another tool changed rows.
        """
        from pyiceberg.table.snapshots import Operation as Kind

        metadata = self.load(table_name).metadata
        by_id = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}
        at: int | None = snapshot_id
        while at is not None:
            snapshot = by_id.get(at)
            if snapshot is None:
                raise TablesError(f"table {table_name}: snapshot {at} was expired: what it added is unknown")
            summary = snapshot.summary
            rewrites = summary is not None and summary.get(REWRITE) is not None
            if summary is not None and summary.operation != Kind.APPEND and not rewrites:
                raise TablesError(
                    f"table {table_name}: snapshot {at} was made by another tool, which changed or deleted rows"
                )
            batch_id = summary.get(BATCH_ID) if summary is not None else None
            yield TableSnapshot(snapshot_id=at, batch_id=batch_id, rewrites=rewrites)
            if snapshot.parent_snapshot_id is None and (rewrites or _has_earlier_files(summary)):
                raise TablesError(f"table {table_name}: a snapshot before {at} was expired: what it added is unknown")
            at = snapshot.parent_snapshot_id

    # Committing

    def batch(self, table_name: str, batch_id: str) -> Commit | None:
        """The commit of a batch to a table, or None if it was not committed."""
        return self._commit_of(self.load(table_name), batch_id)

    def uncommitted(self, table_name: str, batch_ids: Iterable[str]) -> list[str]:
        """Those of the batches that were not committed to a table, in their order. Reads the table's metadata once."""
        table = self.load(table_name)
        return [batch_id for batch_id in batch_ids if self._commit_of(table, batch_id) is None]

    def commit(self, table_name: str, parts: Sequence[Path | str], batch_id: str) -> Commit:
        """Add Parquet parts to a table in one snapshot. A batch that was committed before is not changed.

        parts: local files or s3:// addresses, as `arrow.to_parquet` makes them; at least one, none of another batch.
        Raises ValueError for no parts, CommitFailed, CommitUnknown.
        """
        from pyiceberg.exceptions import CommitFailedException

        if not parts:
            raise ValueError(f"batch {batch_id!r} has no parts to commit to {table_name}")
        last: Exception | None = None
        for attempt in range(ATTEMPTS):
            table = self.load(table_name)
            if (done := self._commit_of(table, batch_id)) is not None:
                return done
            try:
                table.add_files(
                    [str(part) for part in parts],
                    snapshot_properties={BATCH_ID: batch_id},
                    check_duplicate_files=False,  # it reads a manifest for each earlier commit; a part has one batch
                )
            except CommitFailedException as error:  # another process was faster: look again
                last = error
                pause(attempt)
                continue
            except (ValueError, FileNotFoundError) as error:  # a part that is missing or of another schema
                raise CommitFailed(f"{table_name}, batch {batch_id}: {first_line(error)}") from error
            except Exception as error:
                done = self._found_after(error, table_name, batch_id)
                if done is not None:
                    return done
                if not is_locked(error):
                    raise CommitUnknown(f"{table_name}, batch {batch_id}: {first_line(error)}") from error
                last = error
                pause(attempt)
                continue
            done = self._commit_of(table, batch_id)
            assert done is not None
            return dataclasses.replace(done, already=False)
        raise CommitFailed(f"{table_name}, batch {batch_id}: lost {ATTEMPTS} races in a row") from last

    def tag(self, table_name: str, name: str, snapshot_id: int | None = None) -> int:
        """Pin a snapshot under a name and return it; None pins the current one. An existing name keeps its snapshot.

        Raises ValueError if the table is empty, or if the name belongs to another snapshot than `snapshot_id`;
        WarehouseUnreachable, CommitFailed.
        """
        from pyiceberg.exceptions import CommitFailedException

        for attempt in range(ATTEMPTS):
            table = self.load(table_name)
            if (taken := table.snapshot_by_name(name)) is not None:
                if snapshot_id is not None and taken.snapshot_id != snapshot_id:
                    raise ValueError(f"the tag {name!r} of {table_name} is at {taken.snapshot_id}, not {snapshot_id}")
                return taken.snapshot_id
            current = table.current_snapshot()
            wanted = snapshot_id if snapshot_id is not None else current.snapshot_id if current else None
            if wanted is None:
                raise ValueError(f"nothing was committed to {table_name} yet: there is no snapshot to tag {name!r}")
            try:
                table.manage_snapshots().create_tag(wanted, name).commit()
            except CommitFailedException:
                pause(attempt)
                continue
            except OSError as error:
                detail = f"the tag {name} cannot be written ({first_line(error)})"
                raise WarehouseUnreachable(f"table {table_name}: {detail}") from error
            return wanted
        raise CommitFailed(f"{table_name}, tag {name}: lost {ATTEMPTS} races in a row")

    # Internals

    def _commit_of(self, table: Table, batch_id: str) -> Commit | None:
        """The commit of a batch. Looks at the snapshots first: an expired one was recorded before it was expired."""
        for snapshot in table.metadata.snapshots:
            if (found := snapshot_commits(snapshot).get(batch_id)) is not None:
                return found
        with damage(table.name()[-1]):
            recorded = self.catalog.recorded_commit(table.name()[-1], batch_id)
        return None if recorded is None else Commit(**recorded, already=True)

    def _found_after(self, error: Exception, table_name: str, batch_id: str) -> Commit | None:
        """The commit, if it succeeded in spite of the error."""
        try:
            return self.batch(table_name, batch_id)
        except Exception as second:
            raise CommitUnknown(f"{table_name}, batch {batch_id}: {first_line(error)}") from second

    def load(self, table_name: str) -> Table:
        """The table as it is now, for `table_upkeep.py`. Raises ValueError for an unknown name, TablesError."""
        if table_name not in RECORDS:
            raise ValueError(f"the tables are {', '.join(RECORDS)}, not {table_name!r}")
        with damage(table_name):
            return self.catalog.load_table((_NAMESPACE, table_name))

    def _create(self) -> None:
        from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError, TableAlreadyExistsError
        from sqlalchemy.exc import IntegrityError

        if not self.catalog.namespace_exists(_NAMESPACE):
            with contextlib.suppress(NamespaceAlreadyExistsError, IntegrityError):
                self.catalog.create_namespace(_NAMESPACE)
        for name, record in RECORDS.items():
            try:
                table = self.load(name)
            except NoSuchTableError:
                location = f"{self.warehouse_uri}/{name}"
                with contextlib.suppress(TableAlreadyExistsError):
                    self.catalog.create_table(
                        (_NAMESPACE, name), arrow.schema(record), location=location, properties=_PROPERTIES
                    )
            else:
                self._widen(table, name, record)

    def _widen(self, table: Table, name: str, record: type[arrow.Record]) -> None:
        """Add columns for the fields that a record gained since its table was made, and set our properties."""
        from pyiceberg.exceptions import CommitFailedException

        for attempt in range(ATTEMPTS):
            known = set(table.schema().column_names)
            wider = any(field.name not in known for field in arrow.schema(record))
            if not wider and _PROPERTIES.items() <= table.properties.items():
                return
            try:
                with table.transaction() as change:
                    if wider:
                        with change.update_schema() as update:
                            update.union_by_name(arrow.schema(record))
                    change.set_properties(_PROPERTIES)
                return
            except CommitFailedException:
                pause(attempt)
                table = self.load(name)
        raise CommitFailed(f"{name}: could not add its new columns")


def _has_earlier_files(summary: Summary | None) -> bool:
    """Whether a snapshot holds files that it did not add. pyiceberg forgets the parent of a snapshot if it expires."""
    return summary is not None and summary.get("total-data-files") != summary.get("added-data-files")


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + _IN] for at in range(0, len(ids), _IN))


def _was_added(entry: ManifestEntry) -> bool:
    from pyiceberg.manifest import ManifestEntryStatus

    return bool(entry.status == ManifestEntryStatus.ADDED)


def snapshot_commits(snapshot: Snapshot) -> dict[str, Commit]:
    """The commit of a snapshot, by each of its batches; a snapshot of another tool has none."""
    found = snapshot.summary.get(BATCH_ID) if snapshot.summary is not None else None
    if snapshot.summary is None or found is None:
        return {}
    rows, files = (int(snapshot.summary.get(name) or 0) for name in ("added-records", "added-data-files"))
    commit = Commit(snapshot_id=snapshot.snapshot_id, rows=rows, files=files, already=True)
    return dict.fromkeys(found.split(","), commit)
