"""Locks over machines: homes of their own, one catalog and one store."""

import os
import signal
import subprocess
import sys

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from engine.services import connect
from engine.settings import Settings, StorageSettings
from storage import lease
from storage.iceberg.table_errors import TablesError
from storage.lease import InUse, LockLost
from tests.annotation_queue.conftest import postgres_server  # noqa: F401  a fixture
from tests.storage.conftest import moto_url, s3  # noqa: F401  fixtures

pytestmark = pytest.mark.server

HOLD = """
from engine.services import connect
with connect() as s, s.alone("publish"):
    print("held", flush=True)
    input()
"""


@pytest.fixture(params=["folder", "postgres", "s3"])
def machines(request, tmp_path, monkeypatch):
    """The settings of two machines."""
    storage = StorageSettings(root=str(tmp_path / "store"), catalog_uri=f"sqlite:///{tmp_path}/catalog.db")
    if request.param == "postgres":
        storage = StorageSettings(root=storage.root, catalog_uri=request.getfixturevalue("postgres_server"))
    if request.param == "s3":
        monkeypatch.setattr(lease, "TTL_S", 0.5)  # what a waiting process waits for when the holder was killed
        monkeypatch.setattr(lease, "POLL_S", 0.05)
        server = request.getfixturevalue("s3")
        root = f"s3://{server.bucket}/data"
        storage = StorageSettings(root=root, s3_endpoint=server.endpoint_url, catalog_uri=storage.catalog_uri)
    return [Settings(home=tmp_path / name, storage=storage) for name in ("one", "two")]


def test_two_machines_exclude_each_other_by_name(machines):
    with connect(machines[0]) as one, connect(machines[1]) as two:
        with one.alone("publish") as held, two.alone("deciding"):
            held.check()
            with pytest.raises(InUse), two.alone("publish", wait=False):
                pass
        with two.alone("publish", wait=False), pytest.raises(InUse), one.alone("publish", wait=False):
            pass


def test_a_lock_ends_with_its_process_also_if_that_is_killed(machines):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MASKLETS_")}
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment | machines[0].environment()
    ) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with connect(machines[1]) as s, pytest.raises(InUse), s.alone("publish", wait=False):
                pass
        finally:
            other.send_signal(signal.SIGKILL)
    with connect(machines[1]) as s, s.alone("publish") as held:
        held.check()


def test_a_holder_notices_that_its_connection_was_lost(postgres_server, tmp_path):  # noqa: F811
    settings = Settings(home=tmp_path / "home", storage=StorageSettings(catalog_uri=postgres_server))
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with connect(settings) as s, s.alone("publish") as held:
        held.check()
        with engine.connect() as c:
            holders = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            assert c.execute(text(holders)).all() == [(True,)]
        for _ in range(2):
            with pytest.raises(LockLost, match="'publish' is lost with its connection"):
                held.check()
        with s.alone("publish", wait=False) as other:
            other.check()
    engine.dispose()


def test_a_server_that_is_away_is_named_in_one_line(tmp_path):
    uri = make_url("postgresql+psycopg://me:secret@127.0.0.1:9/none").render_as_string(hide_password=False)
    with connect(Settings(home=tmp_path / "home", storage=StorageSettings(catalog_uri=uri))) as s:
        with pytest.raises(TablesError, match=r"catalog postgresql\+psycopg://me:\*\*\*@127") as caught:
            s.alone("publish").__enter__()
    assert "\n" not in str(caught.value)
