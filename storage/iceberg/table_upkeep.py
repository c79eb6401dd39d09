"""Upkeep of the tables: expires snapshots, and replaces data files by others, each in one commit.

An expired snapshot leaves the metadata, which every commit writes again: without expiry it would grow for ever. The
files of the snapshot stay (`storage/dataset/sweep.py` removes them later), so a reader that has opened it reads on. A
snapshot with a tag is never expired, nor is one that a release may still need. Knows tables; does not know releases or
blobs.

Errors: those of `storage/iceberg/table_errors.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.errors import first_line
from storage.iceberg.table_errors import ATTEMPTS, CommitFailed, CommitUnknown, damage, is_locked, pause
from storage.iceberg.tables import BATCH_ID, RECORDS, REWRITE, Tables, snapshot_commits

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.metadata import TableMetadata


KEPT = 20  # newest snapshots of a table that stay, for people who look at the last commits


def expire_all(tables: Tables, released: int | None, *, least: int = 1) -> int:
    """Expire snapshots of every table. Returns their number.

    released: the snapshot of masklets that the newest release has: the next release needs it and all later ones. None:
    there is no release, so every snapshot of masklets stays.
    """
    others = sum(expire(tables, name, least=least) for name in RECORDS if name != "masklets")
    return others + (0 if released is None else expire(tables, "masklets", since=released, least=least))


def expire(tables: Tables, table_name: str, *, since: int | None = None, least: int = 1) -> int:
    """Expire the snapshots without a tag, but not the newest `KEPT`. Returns their number.

    since: this snapshot and all later ones stay too; if the table does not have it, nothing is expired. least: nothing
    is expired unless so many can be. The batches of the snapshots are recorded first, so no batch is committed again.
    Raises WarehouseUnreachable, TablesError.
    """
    from pyiceberg.exceptions import CommitFailedException
    from pyiceberg.table.update import RemoveSnapshotsUpdate
    from sqlalchemy.exc import SQLAlchemyError

    for attempt in range(ATTEMPTS):
        table = tables.load(table_name)
        old = _expirable(table.metadata, since)
        if len(old) < max(least, 1):
            return 0
        batches = [found for snapshot in table.metadata.snapshots for found in snapshot_commits(snapshot).items()]
        tables.catalog.record_commits(
            table_name,
            {
                batch_id: {"snapshot_id": commit.snapshot_id, "rows": commit.rows, "files": commit.files}
                for batch_id, commit in batches
                if commit.snapshot_id in old
            },
        )
        try:
            with damage(table_name):
                tables.catalog.commit_table(
                    table, (_unchanged(table.metadata),), (RemoveSnapshotsUpdate(snapshot_ids=sorted(old)),)
                )
            return len(old)
        except CommitFailedException:  # somebody committed or tagged meanwhile: look again
            pause(attempt)
        except SQLAlchemyError as error:
            if not is_locked(error):
                raise CommitUnknown(f"{table_name}: {first_line(error)}") from error
            pause(attempt)
    return 0  # the table is busy: the next upkeep does it


def _expirable(metadata: TableMetadata, since: int | None) -> set[int]:
    by_id = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}
    line, at = list[int](), metadata.current_snapshot_id
    while at is not None and at in by_id:
        line.append(at)
        at = by_id[at].parent_snapshot_id
    if since is not None and since not in line:
        return set()
    kept = max(KEPT, 0 if since is None else line.index(since) + 1)
    return set(line[kept:]) - {ref.snapshot_id for ref in metadata.refs.values()}


def _unchanged(seen: TableMetadata) -> Any:
    """A requirement of a commit: no snapshot and no tag was made since. pyiceberg would drop a new tag silently."""
    from pyiceberg.exceptions import CommitFailedException
    from pyiceberg.table.update import ValidatableTableRequirement

    class Unchanged(ValidatableTableRequirement):
        type: str = "assert-unchanged"

        def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]  # as pyiceberg's own
            if base_metadata is None or base_metadata.refs != seen.refs:
                raise CommitFailedException("the table has changed")

    return Unchanged()


@dataclass(frozen=True)
class Rewrite:
    """Data files of a table that others replace. Addresses of Parquet files."""

    rewrite_id: str  # a second call with it changes nothing
    old: frozenset[str]
    new: tuple[str, ...]


def replace(
    tables: Tables, table_name: str, rewrites: Sequence[Rewrite], facts: Mapping[str, str] | None = None
) -> list[str]:
    """Replaces data files by others in one commit: the old files leave the table, and stay where they are.

    facts: further properties of the snapshot. Opens every manifest of the table, however many files are replaced.
    Readers and committers go on meanwhile: if one commits in between, this looks again.
    Returns a line for each rewrite that was left out because another process has replaced its old files: otherwise its
    rows would come twice. Raises CommitFailed, WarehouseUnreachable, TablesError.
    """
    from pyiceberg.exceptions import CommitFailedException
    from pyiceberg.io.pyarrow import parquet_file_to_data_file
    from sqlalchemy.exc import SQLAlchemyError

    by_id = {each.rewrite_id: each for each in rewrites}
    for attempt in range(ATTEMPTS):
        table = tables.load(table_name)  # first: what is done meanwhile must not look like files that are gone
        waiting = [by_id[rewrite_id] for rewrite_id in tables.uncommitted(table_name, by_id)]
        if not waiting:
            return []
        with damage(table_name):
            found = _data_files(table, frozenset().union(*(each.old for each in waiting)))
            lost = [
                f"table {table_name}: another process has replaced {min(gone)}"
                for each in waiting
                if (gone := each.old - found.keys())
            ]
            fit = [each for each in waiting if each.old <= found.keys()]
            new = [address for each in fit for address in each.new]
            coming = [parquet_file_to_data_file(table.io, table.metadata, address) for address in new]
        if not fit:
            return lost
        ids, leaving = ",".join(each.rewrite_id for each in fit), [address for each in fit for address in each.old]
        try:
            with damage(table_name), table.transaction() as change:
                properties = {BATCH_ID: ids, REWRITE: str(len(leaving)), **(facts or {})}
                with change.update_snapshot(snapshot_properties=properties).overwrite() as files:
                    for address in leaving:
                        files.delete_data_file(found[address])
                    for file in coming:
                        files.append_data_file(file)
            return lost
        except CommitFailedException:
            pause(attempt)
        except SQLAlchemyError as error:
            if not is_locked(error):
                raise CommitUnknown(f"{table_name}, {ids:.60}: {first_line(error)}") from error
            pause(attempt)
    raise CommitFailed(f"{table_name}, {next(iter(by_id))}: lost {ATTEMPTS} races in a row")


def _data_files(table: Table, addresses: AbstractSet[str]) -> dict[str, Any]:
    """The data files of the current snapshot that have these addresses, by address."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return {}
    entries = (e for manifest in snapshot.manifests(table.io) for e in manifest.fetch_manifest_entry(table.io))
    return {e.data_file.file_path: e.data_file for e in entries if e.data_file.file_path in addresses}
