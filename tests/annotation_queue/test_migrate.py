"""The migrations: what they make, what they take over and what they refuse; on SQLite and on PostgreSQL."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text

from annotation_queue import migrate, schema
from annotation_queue.database import Database, WrongSchema
from annotation_queue.records import Person, Role
from annotation_queue.tickets import tallies
from annotation_queue.tickets.store import TicketStore
from tests.annotation_queue.racing import open_and_close
from tests.annotation_queue.synthetic_queue import verify_tickets

pytestmark = pytest.mark.usefixtures("no_tables")


def tables(uri):
    """Columns, indexes and row counts of every table."""
    engine = create_engine(uri)
    found = inspect(engine)
    with engine.connect() as c:
        seen = {
            name: (
                [(column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(name)],
                sorted(str(index["name"]) for index in found.get_indexes(name)),
                c.scalar(text(f"SELECT count(*) FROM {name}")),
            )
            for name in found.get_table_names()
        }
    engine.dispose()
    return seen


def version_3(uri):
    """A database as the program made it before there were revisions."""
    engine = create_engine(uri)
    with engine.begin() as c:
        schema.metadata.create_all(c)
        c.execute(text("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)"))
        c.execute(text("INSERT INTO schema_version VALUES (3)"))
    engine.dispose()


def test_a_new_database_has_the_tables_of_the_schema_and_no_others(uri, tmp_path):
    Database(uri).close()
    engine = create_engine(uri)
    with engine.connect() as c:
        assert compare_metadata(MigrationContext.configure(c, opts={"compare_type": True}), schema.metadata) == []
    engine.dispose()
    made = tables(uri)
    assert made.pop("alembic_version")[2] == 1
    plain = f"sqlite:///{tmp_path}/plain.db"
    schema.metadata.create_all(create_engine(plain))
    if uri.startswith("sqlite"):
        assert made == tables(plain)
    assert {name: indexes for name, (_, indexes, _) in made.items()} == {
        name: indexes for name, (_, indexes, _) in tables(plain).items()
    }


def test_the_schema_names_the_last_revision():
    assert ScriptDirectory.from_config(migrations()).get_current_head() == schema.REVISION


def test_opening_a_database_that_is_up_to_date_changes_nothing_and_runs_no_migration(uri, monkeypatch):
    database = Database(uri)
    TicketStore(database).open_batch("b", verify_tickets(1, frame_count=4))
    database.close()
    before = tables(uri)
    monkeypatch.setattr(migrate, "upgrade", lambda _: pytest.fail("a migration runs"))
    Database(uri).close()
    assert tables(uri) == before


def test_running_the_migrations_twice_changes_nothing(uri):
    database = Database(uri)
    before = tables(uri)
    with database.write() as c:
        migrate.upgrade(c)
    database.close()
    assert tables(uri) == before


@pytest.mark.server
def test_concurrent_processes_can_create_the_database(uri):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Event()
    processes = [spawn.Process(target=open_and_close, args=(uri, start)) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert tables(uri)["alembic_version"][2] == 1


def test_threads_can_create_different_databases_at_once(tmp_path):
    uris = [f"sqlite:///{tmp_path}/{n}.db" for n in range(4)]
    with ThreadPoolExecutor(len(uris)) as pool:
        for database in pool.map(Database, uris):
            database.close()
    assert [tables(uri)["alembic_version"][2] for uri in uris] == [1, 1, 1, 1]


def test_a_database_of_version_3_is_migrated_with_its_rows(uri):
    version_3(uri)
    engine = create_engine(uri)
    with engine.begin() as c:
        c.execute(text("INSERT INTO people (name, roles, created_at) VALUES ('ada', 'lead', 1000)"))
    engine.dispose()
    Database(uri).close()
    taken = tables(uri)
    assert taken["people"][2] == 1 and taken["alembic_version"][2] == 1 and "schema_version" not in taken


REVISIONS = [f"{number:04d}" for number in range(1, int(schema.REVISION) + 1)]
#: A batch and a ticket in the columns that every revision has.
BATCH: dict[str, Any] = {"batch_id": "b", "created_at": 1.0, "sealed": True, "total": 1, "remaining": 1}
TICKET: dict[str, Any] = {
    "ticket_id": "t",
    "batch_id": "b",
    "kind": "track",
    "video_id": "v",
    "phase": "",
    "priority": 0,
    "payload": '{"ontology": "pets"}',
    "reasons": "",
    "needs_lead": False,
    "attempt": 1,
    "created_at": 1.0,
    "ordinal": 0,
    "state": "open",
    "lease_token": 0,
}


def migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", "annotation_queue:migrations")
    return config


def upgrade(connection: Connection, revision: str) -> None:
    """Makes the tables as they were at a revision."""
    config = migrations()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def insert(connection: Connection, table: str, row: dict[str, Any]) -> None:
    connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES (:{', :'.join(row)})"), row)


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_database_of_each_revision_is_migrated_with_its_tickets(uri, revision):
    engine = create_engine(uri)
    with engine.begin() as c:
        upgrade(c, revision)
        insert(c, "batches", BATCH)
        insert(c, "tickets", TICKET)
    tickets = TicketStore(Database(uri))
    ann = Person(name="ann", roles=frozenset({Role.ANNOTATOR}), projects=frozenset({""}))
    assert tickets.claim(ann, claim_id="c").ticket_id == "t"
    tickets.database.close()
    with engine.connect() as c:
        assert compare_metadata(MigrationContext.configure(c, opts={"compare_type": True}), schema.metadata) == []
    engine.dispose()


def test_the_rolling_sums_of_before_there_were_labels_go_on(uri):
    engine = create_engine(uri)
    with engine.begin() as c:
        upgrade(c, "0003")
        keys = dict.fromkeys(("batch_id", "phase", "checkpoint", "maker"), "") | {"kind": "verify", "person": "vera"}
        row = keys | {"verdict": "accept", "needs_lead": False, "answers": 3.0}
        insert(c, "tallies", row)
    engine.dispose()
    tickets = TicketStore(Database(uri))
    assert tickets.figures().total.answers == 3
    with tickets.database.write() as c:
        tallies.add(c, [row | {"label": label, "project": "", "answers": 1.0} for label in ("", "dog")])
    assert (tickets.figures().total.answers, tickets.figures().labels[0].answers) == (5, 1)
    tickets.database.close()


def test_batches_and_tickets_of_before_there_were_projects_are_of_the_unnamed_one(uri):
    engine = create_engine(uri)
    with engine.begin() as c:
        upgrade(c, "0007")
        insert(c, "batches", BATCH)
        insert(c, "tickets", TICKET)
        sums: dict[str, Any] = {
            "batch_id": "b",
            "kind": "track",
            "phase": "",
            "checkpoint": "",
            "person": "",
            "maker": "",
        }
        sums |= {"verdict": "", "needs_lead": False, "label": "", "added": 1.0}
        insert(c, "tallies", sums)
    engine.dispose()
    tickets = TicketStore(Database(uri))
    assert tickets.batch("b").project == tickets.ticket("t").project == ""
    assert [batch.open for batch in tickets.figures().batches] == [1]
    with tickets.database.read() as c:
        readers = c.execute(text("SELECT version, project FROM ontologies_of_projects")).all()
    assert readers == [("pets", "")]
    ann = Person(name="ann", roles=frozenset({Role.ANNOTATOR}), projects=frozenset({"", "cats"}))
    assert tickets.claim(ann, claim_id="c").ticket_id == "t"
    tickets.database.close()


@pytest.mark.parametrize("version", [1, 2, 99])
def test_a_database_of_another_version_is_rejected(uri, version):
    version_3(uri)
    engine = create_engine(uri)
    with engine.begin() as c:
        c.execute(text(f"UPDATE schema_version SET version = {version}"))
    engine.dispose()
    before = tables(uri)
    with pytest.raises(WrongSchema, match=f"schema version {version}, ") as caught:
        Database(uri)
    assert "\n" not in str(caught.value) and tables(uri) == before


def test_a_database_of_an_unknown_revision_is_rejected(uri):
    database = Database(uri)
    with database.write() as c:
        c.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(WrongSchema, match="revision '9999' is unknown") as caught:
        Database(uri)
    assert "\n" not in str(caught.value)
