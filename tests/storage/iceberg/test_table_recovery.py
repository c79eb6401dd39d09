"""A restored catalog takes the newest metadata of the store; of two with one number, the one that releases know."""

import gzip
import json

import pytest
from sqlalchemy import text

from storage.blobs.folder import LocalBlobs
from storage.dataset import parts
from storage.iceberg import table_recovery
from storage.iceberg.table_errors import TablesError
from storage.iceberg.tables import Tables
from storage.records import Quarantined


@pytest.fixture
def store(tmp_path):
    """A catalog with one commit to the table `quarantine`, its URI, and the metadata files of that table."""
    blobs, uri = LocalBlobs(tmp_path / "store"), f"sqlite:///{tmp_path}/catalog.db"
    with Tables.open(uri, blobs.uri_of("warehouse")) as tables:
        row = Quarantined(stage="ingest", subject="a.mp4", reason="failed", detail="", batch_id="q1")
        parts.write_part(blobs, kind="quarantine", batch_id="q1", video_id="ingest", rows=[row])
        parts.commit_batch(blobs, tables, "quarantine", "q1")
        yield blobs, uri, tables


def metadata(blobs):
    return sorted(key for key in blobs.keys("warehouse/") if "/quarantine/" in key and key.endswith(".metadata.json"))


def current(tables):
    tables.forget()
    return tables.load("quarantine").metadata_location


def test_nothing_moves_where_the_catalog_is_up_to_date(store):
    blobs, uri, tables = store
    before = current(tables)
    assert table_recovery.follow_store(uri, blobs) == [] and current(tables) == before


def test_an_older_entry_moves_to_the_newest_metadata(store):
    blobs, uri, tables = store
    newest, first = current(tables), blobs.uri_of(metadata(blobs)[0])
    with tables.catalog.engine.begin() as c:
        c.execute(
            text("UPDATE iceberg_tables SET metadata_location = :a WHERE table_name = 'quarantine'"), {"a": first}
        )
    assert current(tables) == first != newest
    assert table_recovery.follow_store(uri, blobs) == ["quarantine"] and current(tables) == newest


def test_of_two_files_with_one_number_the_one_that_releases_know_is_taken(store):
    blobs, uri, tables = store
    released = tables.snapshot_id("quarantine")
    lost = json.loads(gzip.decompress(blobs.read(metadata(blobs)[-1])))
    lost |= {"snapshots": [], "last-updated-ms": lost["last-updated-ms"] + 1000}  # of a process that lost the commit
    folder, _, name = metadata(blobs)[-1].rpartition("/")
    number = name.partition("-")[0]
    other = f"{folder}/{number}-{'f' * 8}-0000-0000-0000-{'0' * 12}.gz.metadata.json"
    blobs.write(other, gzip.compress(json.dumps(lost).encode()))
    newest = current(tables)
    assert table_recovery.follow_store(uri, blobs, [released]) == [] and current(tables) == newest
    assert table_recovery.follow_store(uri, blobs) == ["quarantine"]  # nothing else tells them apart than their time


def test_a_store_without_metadata_of_a_table_is_refused(store):
    blobs, uri, _ = store
    for key in metadata(blobs):
        blobs.delete(key)
    with pytest.raises(TablesError, match="table quarantine: .* has no metadata of it"):
        table_recovery.follow_store(uri, blobs)
