"""A backup holds all that was acknowledged; a restore into an empty home gives it back, and follows a newer store."""

import json
import os
import sqlite3
import sys
import uuid
from contextlib import suppress

import pytest
from sqlalchemy import MetaData, create_engine, select, text
from sqlalchemy.engine import make_url

from annotation_queue.records import Kind, NewTicket, Role
from engine import batches
from engine.batches import BatchStage
from engine.cli import main
from engine.services import connect
from engine.serving import backup
from engine.serving.backup import BackupError
from engine.settings import ModelSettings, QueueSettings, Settings, StorageSettings
from storage.blobs.folder import LocalBlobs
from storage.dataset import parts
from storage.records import Quarantined
from tests.annotation_queue.conftest import postgres_server  # noqa: F401  a fixture
from tests.storage.killed_writes import Killed, kill_at

pytestmark = pytest.mark.slow

BATCH, LATE = "0123456789abcdef", "fedcba9876543210"


class Place:
    """Where the databases of one installation are; all installations share one store."""

    def __init__(self, root, name, uris):
        self.root, self.name, self.uris = root, name, uris

    @property
    def settings(self):
        return Settings(
            home=self.root / self.name,
            storage=StorageSettings(root=str(self.root / "store"), catalog_uri=self.uris.get("catalog")),
            queue=QueueSettings(database_uri=self.uris.get("queue")),
            model=ModelSettings(registry_uri=self.uris.get("registry")),
        )


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    """Makes installations with empty databases, of SQLite or of PostgreSQL."""
    if request.param == "sqlite":
        yield lambda name: Place(tmp_path, name, {})
        return
    server = request.getfixturevalue("postgres_server")
    engine, made = create_engine(server, isolation_level="AUTOCOMMIT"), []

    def on_postgres(name):
        uris = {}
        for part in ("queue", "catalog", "registry"):
            made.append(f"{part}_{uuid.uuid4().hex[:12]}")
            with engine.connect() as c:
                c.execute(text(f"CREATE DATABASE {made[-1]}"))
            uris[part] = make_url(server).set(database=made[-1]).render_as_string(hide_password=False)
        return Place(tmp_path, name, uris)

    yield on_postgres
    with engine.connect() as c, suppress(Exception):
        for name in made:
            c.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def sqlite_place(tmp_path):
    return lambda name: Place(tmp_path, name, {})


def refuse(s, n):
    """One more commit to the table `quarantine`."""
    batch_id = f"q{n}"
    row = Quarantined(stage="ingest", subject=f"{n}.mp4", reason="failed", detail="d", batch_id=batch_id)
    parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id="ingest", rows=[row])
    parts.commit_batch(s.blobs, s.tables, "quarantine", batch_id)


def open_review(s, batch_id):
    tickets, _ = s.open_queue()
    tickets.open_batch(batch_id, [NewTicket(ticket_id=f"t-{batch_id}", kind=Kind.TRACK, video_id="v")])
    for mark in (BatchStage.INGESTED, BatchStage.PROPOSED, BatchStage.IN_REVIEW):
        batches.mark(s.blobs, batch_id, mark, {"videos": ["v"]})


def fill(settings):
    with connect(settings) as s:
        open_review(s, BATCH)
        s.open_queue()[1].add("ada", [Role.ANNOTATOR], "a password of ada")
        refuse(s, 1)
        registry = create_engine(settings.registry_uri)
        with registry.begin() as c:  # MLflow would need seconds for its tables
            c.execute(text("CREATE TABLE rounds (name TEXT, jf FLOAT)"))
            c.execute(text("INSERT INTO rounds VALUES ('round-1', 0.5)"))
        registry.dispose()
        artifact = s.home / "mlflow-artifacts" / "1" / "curve.png"
        artifact.parent.mkdir(parents=True)
        artifact.write_bytes(b"picture")


def content(uri):
    """All rows of all tables of a database."""
    engine, metadata = create_engine(uri), MetaData()
    try:
        metadata.reflect(engine)
        with engine.connect() as c:
            return {
                name: sorted(map(str, map(tuple, c.execute(select(table))))) for name, table in metadata.tables.items()
            }
    finally:
        engine.dispose()


def contents(settings):
    return {
        "queue": content(settings.queue_database_uri),
        "catalog": content(settings.catalog_uri),
        "registry": content(settings.registry_uri),
    }


def test_a_restore_into_an_empty_home_gives_everything_back(place, tmp_path):
    old, new = place("old"), place("new")
    fill(old.settings)
    before = contents(old.settings)
    assert before["queue"]["tickets"] and before["catalog"]["iceberg_tables"] and before["registry"]["rounds"]
    made = backup.backup(old.settings, tmp_path / "backup")
    done = backup.restore(new.settings, tmp_path / "backup")
    assert contents(new.settings) == before
    assert (done.tables, done.opened_again, done.notes) == ((), (), [])
    assert (new.settings.home / "mlflow-artifacts" / "1" / "curve.png").read_bytes() == b"picture"
    with connect(new.settings) as s:
        assert [row.subject for row in s.tables.quarantine()] == ["1.mp4"]
    # effects before their causes, people's answers last
    assert [part.name for part in made.parts] == ["registry", "catalog", "queue", "artifacts"]


def test_the_folder_of_a_backup_may_have_any_name(sqlite_place, tmp_path):
    fill(sqlite_place("old").settings)
    folder = tmp_path / "50%20 of #1?"
    backup.backup(sqlite_place("old").settings, folder)
    backup.restore(sqlite_place("new").settings, folder)
    old, new = (sqlite_place(name).settings.queue_database_uri for name in ("old", "new"))
    assert content(new) == content(old)


def test_only_the_owner_can_read_a_backup(sqlite_place, tmp_path):
    fill(sqlite_place("old").settings)
    backup.backup(sqlite_place("old").settings, tmp_path / "backup")
    assert oct(os.stat(tmp_path / "backup").st_mode & 0o777) == "0o700"
    for file in (tmp_path / "backup").iterdir():
        assert not os.stat(file).st_mode & 0o077, file.name


def test_a_writer_in_the_middle_of_a_transaction_is_not_in_the_backup_and_does_not_stop_it(sqlite_place, tmp_path):
    old, new = sqlite_place("old"), sqlite_place("new")
    fill(old.settings)
    writer = sqlite3.connect(old.settings.home / "queue.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM tickets")
    backup.backup(old.settings, tmp_path / "backup")
    writer.execute("COMMIT")
    writer.close()
    backup.restore(new.settings, tmp_path / "backup")
    assert content(new.settings.queue_database_uri)["tickets"]


def test_a_restored_catalog_follows_a_store_that_moved_on(place, tmp_path):
    """A table keeps ten of its metadata files, so the one that the backup names is gone."""
    old, new = place("old"), place("new")
    fill(old.settings)
    backup.backup(old.settings, tmp_path / "backup")
    with connect(old.settings) as s:
        for n in range(2, 15):
            refuse(s, n)
        expected = s.tables.quarantine()
    done = backup.restore(new.settings, tmp_path / "backup")
    assert done.tables == ("quarantine",)
    with connect(new.settings) as s:
        assert s.tables.quarantine() == expected and len(expected) == 14
        refuse(s, 15)
        assert len(s.tables.quarantine()) == 15


def test_batches_that_the_restored_queue_does_not_know_are_opened_again(sqlite_place, tmp_path):
    old, new = sqlite_place("old"), sqlite_place("new")
    fill(old.settings)
    backup.backup(old.settings, tmp_path / "backup")
    with connect(old.settings) as s:
        open_review(s, LATE)  # after the backup
        batches.mark(s.blobs, BATCH, BatchStage.COLLECTED, {})
    done = backup.restore(new.settings, tmp_path / "backup")
    assert done.opened_again == (LATE,)
    assert done.notes == [
        f"1 batch with open tickets in this queue, collected after the backup: the tickets need no work ({BATCH})"
    ]
    with connect(new.settings) as s:
        assert batches.pending(s.blobs, BatchStage.IN_REVIEW) == [LATE]


@pytest.mark.parametrize("deleted", [0, 1])
def test_a_restore_that_was_killed_is_run_again_and_opens_the_same_batches(
    sqlite_place, tmp_path, monkeypatch, deleted
):
    old = sqlite_place("old")
    fill(old.settings)
    backup.backup(old.settings, tmp_path / "backup")
    with connect(old.settings) as s:
        open_review(s, LATE)
    kill_at(monkeypatch, (LocalBlobs, "delete"))[0] = deleted
    with pytest.raises(Killed):
        backup.restore(sqlite_place("killed").settings, tmp_path / "backup")
    again = sqlite_place("again")
    assert backup.restore(again.settings, tmp_path / "backup").opened_again == (LATE,)
    with connect(again.settings) as s:
        batches.copy_marks(s.blobs)  # as `tidy` does
        assert batches.pending(s.blobs, BatchStage.IN_REVIEW) == [LATE]


def test_a_backup_that_is_not_whole_is_refused_before_anything_is_written(sqlite_place, tmp_path):
    old, new, folder = sqlite_place("old"), sqlite_place("new"), tmp_path / "backup"
    fill(old.settings)
    backup.backup(old.settings, folder)
    manifest = (folder / "manifest.json").read_bytes()
    (folder / "queue.db").write_bytes((folder / "queue.db").read_bytes()[:-1])
    with pytest.raises(BackupError, match=r"queue\.db is missing, or is not what manifest\.json says"):
        backup.restore(new.settings, folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(BackupError, match="no complete backup"):
        backup.restore(new.settings, folder)
    (folder / "manifest.json").write_bytes(manifest[:50])
    with pytest.raises(BackupError, match="damaged"):
        backup.restore(new.settings, folder)
    assert not new.settings.home.exists()


def test_a_restore_overwrites_nothing(place, tmp_path):
    old = place("old")
    fill(old.settings)
    before = contents(old.settings)
    backup.backup(old.settings, tmp_path / "backup")
    with pytest.raises(BackupError, match="exists already|has [0-9]+ tables"):
        backup.restore(old.settings, tmp_path / "backup")
    assert contents(old.settings) == before
    with pytest.raises(BackupError, match="is not empty: name a new folder"):
        backup.backup(old.settings, tmp_path / "backup")


def test_another_store_or_another_kind_of_database_is_refused(sqlite_place, tmp_path):
    fill(sqlite_place("old").settings)
    backup.backup(sqlite_place("old").settings, tmp_path / "backup")
    with pytest.raises(BackupError, match="belongs to the store"):
        backup.restore(Settings(home=tmp_path / "elsewhere"), tmp_path / "backup")
    postgres = Place(tmp_path, "new", {"queue": "postgresql+psycopg://u@127.0.0.1:9/q"})
    with pytest.raises(BackupError, match="the backup of queue is of sqlite, the settings name postgresql"):
        backup.restore(postgres.settings, tmp_path / "backup")


@pytest.mark.server
def test_a_password_is_in_the_environment_of_pg_dump_and_in_no_argument(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "pg_dump"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$PGPASSWORD" > {tmp_path}/said\necho "$@" > {tmp_path}/arguments\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    uris = {part: f"postgresql+psycopg://u:secret@db:5/{part}" for part in ("queue", "catalog", "registry")}
    with suppress(FileNotFoundError):  # the program writes no dump
        backup.backup(Place(tmp_path, "home", uris).settings, tmp_path / "backup")
    assert (tmp_path / "said").read_text() == "secret\n" and "secret" not in (tmp_path / "arguments").read_text()


def run(monkeypatch, capsys, settings, *words):
    monkeypatch.setenv("MASKLETS_HOME", str(settings.home))
    monkeypatch.setenv("MASKLETS_STORAGE__ROOT", settings.root)
    monkeypatch.setattr(sys, "argv", ["masklets", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out + printed.err


def test_the_commands_back_up_and_restore(sqlite_place, tmp_path, monkeypatch, capsys):
    old, new, folder = sqlite_place("old").settings, sqlite_place("new").settings, str(tmp_path / "backup")
    fill(old)
    code, said = run(monkeypatch, capsys, old, "backup", folder)
    assert code == 0 and "queue: queue.db" in said and f"now copy the store {tmp_path}/store" in said
    code, said = run(monkeypatch, capsys, old, "restore", folder)
    assert code == 2 and "exists already" in said
    code, said = run(monkeypatch, capsys, new, "restore", folder, "--json")
    assert code == 0 and json.loads(said)["parts"] == ["registry", "catalog", "queue", "artifacts"]
