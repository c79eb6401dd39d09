"""The SQL catalog of pyiceberg, with three changes: metadata is compressed, parsed once, and not copied deeply.

Every commit writes the list of all snapshots again, and every look at a table reads it. Metadata files never change, so
a parsed one is cached by its address. pyiceberg copies all snapshots about ten times for each commit, to protect what
it never changes. The file name ends in `.gz.metadata.json`, as Iceberg's other readers expect it.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import StagedTable, Table
from pyiceberg.table.metadata import TableMetadataUtil, TableMetadataV2

if TYPE_CHECKING:
    from pyiceberg.table.metadata import TableMetadata

_CACHED = 8  # metadata of tables in memory; that of 500 snapshots takes 2 MB
_PLAIN, _COMPRESSED = ".metadata.json", ".gz.metadata.json"


class SharedMetadata(TableMetadataV2):
    """Metadata whose deep copy is a shallow one. Every change of pyiceberg makes a new object (`model_copy`)."""

    def __deepcopy__(self, _memo: dict[int, Any] | None = None) -> SharedMetadata:
        return self.__copy__()


class CompressingCatalog(SqlCatalog):
    """`SqlCatalog` with compressed and cached metadata. Reads the tables of a plain one, which reads its tables."""

    def __init__(self, name: str, **properties: str) -> None:
        super().__init__(name, **properties)
        self._parsed = lru_cache(_CACHED)(self._parse)

    def forget(self) -> None:
        """Empty the cache of metadata."""
        self._parsed.cache_clear()

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
