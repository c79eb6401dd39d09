"""The SQL catalog of pyiceberg: metadata is compressed, parsed once and not copied deeply; commits are remembered.

Every commit writes the list of all snapshots again, and every look at a table reads it. Metadata files never change, so
a parsed one is cached by its address. pyiceberg copies all snapshots about ten times for each commit, to protect what
it never changes. The file name ends in `.gz.metadata.json`, as Iceberg's other readers expect it.

A table says by its snapshots which batches were committed. The catalog remembers this of a snapshot that is expired, in
a table of its own database, `masklets_commits`: a backup of the database holds both.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import StagedTable, Table
from pyiceberg.table.metadata import TableMetadataUtil, TableMetadataV2

from storage.iceberg import avro_blocks

if TYPE_CHECKING:
    from pyiceberg.table.metadata import TableMetadata

_CACHED = 8  # metadata of tables in memory; that of 500 snapshots takes 2 MB
_PLAIN, _COMPRESSED = ".metadata.json", ".gz.metadata.json"

avro_blocks.install()

_COMMITS = sa.Table(
    "masklets_commits",
    sa.MetaData(),
    sa.Column("table_name", sa.String(255), primary_key=True),
    sa.Column("batch_id", sa.String(255), primary_key=True),
    sa.Column("snapshot_id", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("files", sa.BigInteger, nullable=False),
)


class SharedMetadata(TableMetadataV2):
    """Metadata whose deep copy is a shallow one. Every change of pyiceberg makes a new object (`model_copy`)."""

    def __deepcopy__(self, _memo: dict[int, Any] | None = None) -> SharedMetadata:
        return self.__copy__()


class CompressingCatalog(SqlCatalog):
    """`SqlCatalog` with compressed and cached metadata. Reads the tables of a plain one, which reads its tables."""

    def __init__(self, name: str, **properties: str) -> None:
        super().__init__(name, **properties)
        self._parsed = lru_cache(_CACHED)(self._parse)
        _COMMITS.metadata.create_all(self.engine)

    def forget(self) -> None:
        """Empty the cache of metadata."""
        self._parsed.cache_clear()

    def record_commits(self, table_name: str, commits: Mapping[str, Mapping[str, int]]) -> None:
        """Remember the commits of batches: by batch, its snapshot_id, rows and files. A known one is not changed."""
        from sqlalchemy.dialects import postgresql, sqlite

        insert = postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
        rows = [{"table_name": table_name, "batch_id": batch_id, **found} for batch_id, found in commits.items()]
        if rows:
            with self.engine.begin() as connection:
                connection.execute(insert(_COMMITS).on_conflict_do_nothing(), rows)

    def recorded_commit(self, table_name: str, batch_id: str) -> dict[str, int] | None:
        """The snapshot_id, rows and files of a commit whose snapshot was expired; None for another batch."""
        found = sa.select(_COMMITS.c.snapshot_id, _COMMITS.c.rows, _COMMITS.c.files).where(
            _COMMITS.c.table_name == table_name, _COMMITS.c.batch_id == batch_id
        )
        with self.engine.connect() as connection:
            row = connection.execute(found).mappings().first()
        return None if row is None else dict(row)

    def _parse(self, location: str) -> TableMetadata:
        with self._load_file_io(self.properties, location).new_input(location).open() as file:
            data = file.read()  # at once: Arrow does not retry a piece that is shorter than the answer of an S3 error
        text = gzip.decompress(data) if location.endswith(_COMPRESSED) else data
        metadata = TableMetadataUtil.parse_raw(text.decode())
        if not isinstance(metadata, TableMetadataV2):
            return metadata
        fields = {name: getattr(metadata, name) for name in TableMetadataV2.model_fields}
        return SharedMetadata.model_construct(metadata.model_fields_set, **fields)

    def _convert_orm_to_iceberg(self, orm_table: IcebergTables) -> Table:
        if not (location := orm_table.metadata_location):
            raise NoSuchTableError(f"{orm_table.table_name}: the catalog has no address of its metadata")
        metadata = self._parsed(location)
        return Table(
            identifier=(*Catalog.identifier_to_tuple(orm_table.table_namespace), orm_table.table_name),
            metadata=metadata,
            metadata_location=location,
            io=self._load_file_io(metadata.properties, location),
            catalog=self,
        )

    def _update_and_stage_table(self, *arguments: Any, **named: Any) -> StagedTable:
        staged = super()._update_and_stage_table(*arguments, **named)
        if not staged.metadata_location.endswith(_COMPRESSED):
            staged.metadata_location = staged.metadata_location.removesuffix(_PLAIN) + _COMPRESSED
        return staged


def s3_properties(warehouse_uri: str, endpoint: str | None) -> dict[str, str]:
    """What pyiceberg needs to know of a bucket; empty for a folder."""
    if urlsplit(warehouse_uri).scheme != "s3":
        return {}
    import boto3

    region = boto3.Session().region_name or "us-east-1"
    return {"s3.region": region, **({"s3.endpoint": endpoint} if endpoint else {})}
