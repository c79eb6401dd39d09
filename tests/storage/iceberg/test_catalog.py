"""The catalog with compressed, cached metadata: other readers of Iceberg read the same tables."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import DataScan
from pyiceberg.table.metadata import TableMetadataUtil

from storage import arrow
from storage.iceberg.catalog import SharedMetadata
from storage.iceberg.tables import Tables
from storage.records import Masklet


def commit(tables: Tables, folder: Path, batch_id: str, rows: list[Masklet]) -> None:
    path = folder / f"{batch_id}.parquet"
    path.write_bytes(arrow.to_parquet(Masklet, rows))
    tables.commit("masklets", [path], batch_id)


def plain(tmp_path: Path) -> SqlCatalog:
    return SqlCatalog("masklets", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=str(tmp_path / "root/warehouse"))


def test_a_plain_catalog_reads_our_tables_and_we_read_its_commits(tables, tmp_path, masklet):
    commit(tables, tmp_path, "b1", [masklet("a")])
    catalog = plain(tmp_path)
    table = catalog.load_table("engine.masklets")
    assert table.metadata_location.endswith(".gz.metadata.json")
    assert table.scan().to_arrow().column("masklet_id").to_pylist() == ["a"]
    path = tmp_path / "theirs.parquet"
    path.write_bytes(arrow.to_parquet(Masklet, [masklet("b")]))
    table.add_files([str(path)])
    assert [row.masklet_id for row in tables.masklets()] == ["a", "b"]
    commit(tables, tmp_path, "b2", [masklet("c")])
    assert [row.masklet_id for row in tables.masklets()] == ["a", "b", "c"]
    catalog.close()


def test_the_metadata_of_a_table_is_read_once_and_is_what_the_file_says(tables, tmp_path, masklet, monkeypatch):
    commit(tables, tmp_path, "b1", [masklet("a")])
    tables.tag("masklets", "r1")
    parsed, real = [], TableMetadataUtil.parse_raw

    def counted(text):
        parsed.append(text)
        return real(text)

    monkeypatch.setattr(TableMetadataUtil, "parse_raw", counted)
    first = tables.load("masklets")
    assert tables.load("masklets").metadata is first.metadata and len(parsed) == 1
    assert isinstance(first.metadata, SharedMetadata)
    assert copy.deepcopy(first.metadata).snapshots[0] is first.metadata.snapshots[0]
    for n in range(3):  # what a commit makes of shared metadata changes no other look at it
        before = first.metadata.model_dump_json()
        commit(tables, tmp_path, f"later-{n}", [masklet(f"later-{n}")])
        assert first.metadata.model_dump_json() == before
    catalog = plain(tmp_path)
    assert catalog.load_table("engine.masklets").metadata.model_dump() == tables.load("masklets").metadata.model_dump()
    catalog.close()


def test_the_tables_of_an_earlier_version_get_our_properties_once(tmp_path, masklet, monkeypatch):
    address = f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "root/warehouse")
    with monkeypatch.context() as patch:
        patch.setattr("storage.iceberg.tables._PROPERTIES", {"write.metadata.previous-versions-max": "50"})
        with Tables.open(*address) as tables:
            commit(tables, tmp_path, "b1", [masklet("a")])
    with Tables.open(*address) as tables:
        table = tables.load("masklets")
        assert table.properties["write.metadata.previous-versions-max"] == "10"
        assert [row.masklet_id for row in tables.masklets()] == ["a"]
    with Tables.open(*address) as tables:
        assert tables.load("masklets").metadata_location == table.metadata_location


@pytest.mark.parametrize("found", [1, 250])
def test_masklets_of_many_videos_are_found_without_opening_the_files_of_others(
    tables, tmp_path, masklet, found, monkeypatch
):
    paths = []
    for n in range(4):
        path = tmp_path / f"{n}.parquet"
        path.write_bytes(arrow.to_parquet(Masklet, [masklet(f"m{n}", f"v{n}", "b1")]))
        paths.append(path)
    tables.commit("masklets", paths, "b1")
    planned, real = [], DataScan.plan_files

    def counted(self):
        files = list(real(self))
        planned.append(len(files))
        return files

    monkeypatch.setattr(DataScan, "plan_files", counted)
    asked = ["v1", *(f"w{n}" for n in range(found))]
    assert tables.published_masklets(asked, but="b2") == {"m1": "b1"}
    assert sum(planned) == 1
    assert tables.published_masklets(asked, but="b1") == tables.published_masklets([], but="b2") == {}
