"""Databases to run the queue on: a new SQLite file, or a new database of a PostgreSQL server, for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from annotation_queue.database import Database
from annotation_queue.tickets.store import TicketStore
from tests.annotation_queue.clock import Clock

CHROMIUM = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
)

# The first is Chromium without windows, toolbars and extensions. It takes a third less processor time for a page.
CHROMIUM_NAMES = ("chromium-headless-shell", "chromium", "google-chrome")


def _as_postgres(command: str) -> list[str]:
    """The server refuses to run as root: become its own user then."""
    return ["su", "postgres", "-c", command] if os.geteuid() == 0 else ["sh", "-c", command]


def _own_server(bin_dir: Path) -> Iterator[str]:
    """A PostgreSQL server in a temporary folder, reached by a unix socket."""
    home = Path(tempfile.mkdtemp(prefix="masklets-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(home, "postgres")
        data = home / "data"
        subprocess.run(
            _as_postgres(f"{bin_dir}/initdb -D {data} -U postgres -A trust -E UTF8 --locale=C --no-sync"),
            check=True,
            capture_output=True,
        )
        options = f"-k {home} -c listen_addresses= -c fsync=off -c max_connections=100"
        started = subprocess.run(
            _as_postgres(f"{bin_dir}/pg_ctl -D {data} -w -l {home}/log -o '{options}' start"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if started.returncode:
            raise RuntimeError(f"PostgreSQL did not start: {(home / 'log').read_text()[-500:]}")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={home}"
        finally:
            subprocess.run(_as_postgres(f"{bin_dir}/pg_ctl -D {data} -m immediate stop"), stdout=subprocess.DEVNULL)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URI of a server: MASKLETS_TEST_POSTGRES, or one of our own; where CI is set, its absence is a failure."""
    if given := os.environ.get("MASKLETS_TEST_POSTGRES"):
        yield given
        return
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        message = "no PostgreSQL server: set MASKLETS_TEST_POSTGRES or install one"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    yield from _own_server(found[-1].parent)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """A database of the server that has the tables already: copying it is faster than creating them."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    Database(make_url(postgres_server).set(database=name).render_as_string(hide_password=False)).close()
    yield name
    with engine.connect() as connection, suppress(Exception):
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file of SQLite."""
    path = tmp_path_factory.mktemp("template") / "queue.db"
    Database(f"sqlite:///{path}").close()
    assert not path.with_name("queue.db-wal").exists(), "all of it is in the one file"
    return path


@pytest.fixture
def no_tables() -> None:
    """For tests of the migrations: `uri` is a database without tables."""


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], AbstractContextManager[str]]:
    """Makes a new database with empty tables, "sqlite" or "postgres", and gives its URI."""

    @contextmanager
    def made(kind: str) -> Iterator[str]:
        no_tables = "no_tables" in request.fixturenames
        if kind == "sqlite":
            if not no_tables:
                shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "queue.db")
            yield f"sqlite:///{tmp_path}/queue.db"
            return
        server = request.getfixturevalue("postgres_server")
        template = "template1" if no_tables else request.getfixturevalue("postgres_template")
        name = f"queue_{uuid.uuid4().hex[:12]}"
        engine = create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection, suppress(Exception):
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()

    return made


@pytest.fixture(params=["sqlite", "postgres"])
def uri(request: pytest.FixtureRequest, new_database: Callable[[str], AbstractContextManager[str]]) -> Iterator[str]:
    """A new, empty database of each kind."""
    with new_database(request.param) as uri:
        yield uri


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    found = filter(None, map(shutil.which, CHROMIUM_NAMES))
    path = os.environ.get("MASKLETS_TEST_CHROMIUM") or next(found, None)
    if path is None:
        message = "no Chromium: install one, or set MASKLETS_TEST_CHROMIUM"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM.split())
        yield browser
        browser.close()


@pytest.fixture
def sqlite_uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queue.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tickets(uri: str, clock: Clock) -> Iterator[TicketStore]:
    """A ticket store whose clock the test moves, on each kind of database."""
    database = Database(uri)
    yield TicketStore(database, clock=clock)
    database.close()
