"""Real stores for the tests: a folder, and an S3 that runs in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.blobs.base import Blobs
from storage.blobs.folder import LocalBlobs
from storage.blobs.s3 import S3Blobs
from storage.iceberg.tables import Tables
from tests.free_ports import free_port


@dataclass(frozen=True)
class Server:
    """An S3 server for one test."""

    endpoint_url: str
    bucket: str


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(moto_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Server]:
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    client = boto3.client("s3", endpoint_url=moto_url)
    bucket = f"bucket-{abs(hash(request.node.nodeid))}"
    client.create_bucket(Bucket=bucket)
    yield Server(moto_url, bucket)
    client.close()


@pytest.fixture(params=["disk", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """The same tests over both stores."""
    if request.param == "disk":
        return LocalBlobs(tmp_path / "a root")
    server: Server = request.getfixturevalue("s3")
    return S3Blobs(server.bucket, "a/prefix", endpoint_url=server.endpoint_url, cache=tmp_path / "cache")


@pytest.fixture
def disk(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "root")


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    with Tables.open(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "root" / "warehouse")) as opened:
        yield opened
