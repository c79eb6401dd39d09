"""S3 trouble while tables and parts are read: a short one is survived, a long one is a typed error of one line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.blobs.base import BlobUnreachable
from storage.blobs.s3 import S3Blobs
from storage.dataset import parts
from storage.iceberg.table_errors import TablesError, WarehouseUnreachable
from storage.iceberg.tables import Tables

FOREVER = 10**6


class Trouble:
    """What goes wrong with requests for keys with this ending: `times` of them get a 503, or half of their body.

    "lost": the request is served, and a gateway loses the answer.
    """

    def __init__(self) -> None:
        self.begin("", "", 0)

    def begin(self, suffix: str, kind: str, times: int, methods: tuple[str, ...] = ("GET",)) -> None:
        self.suffix, self.kind, self.times, self.methods, self.hit = suffix, kind, times, methods, 0

    def happens(self, method: str, path: str) -> bool:
        if method not in self.methods or not path.endswith(self.suffix) or self.hit >= self.times:
            return False
        self.hit += 1
        return True


@contextmanager
def flaky(trouble: Trouble) -> Iterator[str]:
    """A second server for moto's buckets, with this trouble."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    honest = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
        happens = trouble.happens(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if happens and trouble.kind == "503":
            start("503 Service Unavailable", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"]
        if happens and trouble.kind == "lost":
            b"".join(honest(environ, lambda *_: lambda data: None))
            start("502 Bad Gateway", [])
            return []
        body = b"".join(honest(environ, start))
        return [body[: len(body) // 2] if happens else body]  # the length is that of the whole

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


@pytest.fixture
def blobs(s3, tmp_path, trouble) -> Iterator[S3Blobs]:
    with flaky(trouble) as endpoint:
        yield S3Blobs(s3.bucket, "data", endpoint_url=endpoint, cache=tmp_path / "cache")


@contextmanager
def opened(blobs: S3Blobs, tmp_path: Path) -> Iterator[Tables]:
    catalog = f"sqlite:///{tmp_path}/catalog.db"
    with Tables.open(catalog, f"{blobs.uri}/warehouse", s3_endpoint=blobs.endpoint_url) as tables:
        yield tables


def one_line(error: type[Exception], run: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["503", "cut"])
@pytest.mark.parametrize("suffix", [".parquet", ".avro", ".metadata.json"])
def test_trouble_while_a_table_is_read(blobs, tmp_path, trouble, masklet, kind, suffix):
    parts.write_part(blobs, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet()])
    with opened(blobs, tmp_path) as tables:
        parts.commit_batch(blobs, tables, "masklets", "b1")
        tables.forget()
        trouble.begin(suffix, kind, 1)
        assert [row.masklet_id for row in tables.masklets()] == ["m1"] and trouble.hit == 1
        tables.forget()
        trouble.begin(suffix, kind, FOREVER)
        assert one_line(WarehouseUnreachable, tables.masklets).startswith("table masklets: its files cannot be read")
        trouble.begin(suffix, kind, 0)
        assert tables.masklets() == [masklet()]


def test_trouble_while_the_tables_are_made(blobs, tmp_path, trouble):
    trouble.begin(".metadata.json", "503", FOREVER, ("PUT", "POST"))
    said = one_line(WarehouseUnreachable, lambda: opened(blobs, tmp_path).__enter__())
    assert said.startswith(f"{blobs.uri}/warehouse: its tables cannot be made")
    trouble.begin(".metadata.json", "503", 1, ("PUT", "POST"))
    with opened(blobs, tmp_path) as tables:
        assert trouble.hit == 1 and tables.masklets() == []


@pytest.mark.parametrize("kind", ["503", "cut"])
def test_trouble_while_a_part_is_committed(blobs, tmp_path, trouble, masklet, kind):
    """pyiceberg reads the end of the part itself: once our own check has read it, the trouble begins."""
    marker = parts.write_part(blobs, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet()])
    with opened(blobs, tmp_path) as tables:
        trouble.begin(".parquet", kind, FOREVER)
        one_line(TablesError, lambda: tables.commit("masklets", [blobs.uri_of(marker.key)], "b1"))
        assert tables.snapshot_id("masklets") is None
        trouble.begin(".parquet", kind, 1)
        assert tables.commit("masklets", [blobs.uri_of(marker.key)], "b1").rows == 1 and trouble.hit == 1
        assert tables.masklets() == [masklet()]


def test_trouble_while_a_snapshot_is_tagged(blobs, tmp_path, trouble, masklet):
    marker = parts.write_part(blobs, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet()])
    with opened(blobs, tmp_path) as tables:
        snapshot_id = tables.commit("masklets", [blobs.uri_of(marker.key)], "b1").snapshot_id
        trouble.begin(".metadata.json", "503", FOREVER, ("PUT", "POST"))
        said = one_line(WarehouseUnreachable, lambda: tables.tag("masklets", "release-0001"))
        assert said.startswith("table masklets: the tag release-0001 cannot be written")
        trouble.begin(".metadata.json", "503", 0)
        assert tables.tag("masklets", "release-0001") == snapshot_id


@pytest.mark.parametrize("kind", ["503", "cut"])
def test_trouble_while_a_part_is_read(blobs, tmp_path, trouble, masklet, kind, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)  # the client waits between its attempts
    parts.write_part(blobs, kind="masklets", batch_id="b1", video_id="v1", rows=[masklet()])
    trouble.begin(".parquet", kind, 1)
    assert list(parts.rows(blobs, "masklets", "b1")) == [masklet()] and trouble.hit == 1
    trouble.begin(".parquet", kind, FOREVER)
    said = one_line(BlobUnreachable, lambda: list(parts.rows(blobs, "masklets", "b1")))
    assert said.startswith(f"{blobs.uri}/parts/masklets/")


def test_a_create_whose_answer_is_lost_knows_that_it_made_the_blob(blobs, trouble):
    """Otherwise an attempt would seem to be another process's, and stay: two of them would condemn a video."""
    trouble.begin("lease", "lost", 1, ("PUT",))
    assert blobs.create("lease", b"mine") and trouble.hit == 1
    trouble.begin("lease", "lost", 1, ("PUT",))
    assert not blobs.create("lease", b"mine") and trouble.hit == 1, "another call made it"
