"""A catalog that was restored from a backup learns again which metadata of each table is the newest.

The catalog's database only says which metadata file is current. The files themselves are in the store, and each one has
a number that grows with every commit. A backup is older than the store: the file that it names may be gone, because a
table keeps its last ten, and what was committed since would be missing. So the catalog follows the store.
"""

from __future__ import annotations

import gzip
import json
import posixpath
import re
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import create_engine, select, update
from sqlalchemy.engine import make_url

from storage.blobs.base import BlobMissing, Blobs
from storage.iceberg.table_errors import TablesError

_METADATA = re.compile(r"(?P<number>\d+)-[0-9a-f-]+(?:\.gz)?\.metadata\.json")


def follow_store(catalog_uri: str, blobs: Blobs, released: Collection[int] = ()) -> list[str]:
    """Makes each table's newest metadata in the store current. Returns the names of the tables that moved on.

    Nobody else may use the catalog. released: ids of snapshots that releases name. Two processes may have written
    metadata of one number, of which one lost the commit: the file that knows most of these snapshots is taken.
    Raises TablesError if the store has no metadata of a table.
    """
    from pyiceberg.catalog.sql import IcebergTables

    moved = []
    engine = create_engine(make_url(catalog_uri))
    try:
        with engine.begin() as c:
            for name, location in c.execute(select(IcebergTables.table_name, IcebergTables.metadata_location)).all():
                newest = _newest(blobs, str(location), set(released))
                if newest is None:
                    raise TablesError(f"table {name}: {blobs.uri} has no metadata of it; {location} is missing")
                if newest != location:
                    changed = {"metadata_location": newest, "previous_metadata_location": None}
                    c.execute(update(IcebergTables).where(IcebergTables.table_name == name).values(**changed))
                    moved.append(str(name))
    finally:
        engine.dispose()
    return sorted(moved)


def _newest(blobs: Blobs, location: str, released: set[int]) -> str | None:
    """The address of the newest metadata beside this one; None if there is none."""
    folder = posixpath.dirname(location).removeprefix(blobs.uri.rstrip("/") + "/")
    numbered = [
        (int(found["number"]), key)
        for key in blobs.keys(f"{folder}/")
        if (found := _METADATA.fullmatch(posixpath.basename(key)))
    ]
    if not numbered:
        return None
    last = max(number for number, _ in numbered)
    keys = [key for number, key in numbered if number == last]
    best = keys[0] if len(keys) == 1 else max(keys, key=lambda key: _rank(blobs, key, released))
    return blobs.uri_of(best)


def _rank(blobs: Blobs, key: str, released: set[int]) -> tuple[int, int]:
    try:
        data = blobs.read(key)
    except BlobMissing:
        return (-1, 0)
    found: dict[str, Any] = json.loads(gzip.decompress(data) if key.endswith(".gz.metadata.json") else data)
    snapshots: Sequence[dict[str, Any]] = found.get("snapshots") or ()
    return len(released & {int(one["snapshot-id"]) for one in snapshots}), int(found.get("last-updated-ms", 0))
