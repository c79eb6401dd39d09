"""A queue of an older schema version goes on under this program, with what was done in it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, inspect, select, text

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.people.accounts import Accounts
from annotation_queue.records import Kind, Person, Role, State, Submission
from annotation_queue.tickets.store import Store
from storage.records import Verdict
from tests.annotation_queue.racing import open_and_close
from tests.annotation_queue.synthetic_queue import CHEAP, corrected, tickets

VERSION_1 = (Path(__file__).parent / "version_1.sql").read_text()
ANN = Person(name="ann", roles=frozenset({Role.ANNOTATOR}))
VERA = Person(name="vera", roles=frozenset({Role.VERIFIER}))

BATCH = "INSERT INTO batches VALUES ('b', 1000, :yes, 3, 2, NULL)"
TICKET = """
    INSERT INTO tickets (ticket_id, batch_id, kind, video_id, phase, priority, payload, attempt, created_at, ordinal,
        reasons, needs_lead, state, lease_token, leased_by, expires_at, verdict, settled, finished_by,
        finished_at, seconds)
    VALUES (:id, 'b', 'verify', 'video-0', 'auto', 0, '{}', 1, 1000, 0, '',
        :lead, :state, :token, :by, :until, :verdict, :verdict, :finished_by, :finished_at, :seconds)
"""
EMPTY = dict.fromkeys(("by", "until", "verdict", "finished_by", "finished_at", "seconds"))
LEASE = "INSERT INTO leases VALUES (:id, 1, :person, :claim, 1000)"
ADA = "INSERT INTO people VALUES ('ada', 'lead,verifier', NULL, 1000)"


@pytest.fixture
def old(uri):
    """URI of a database that version 1 made: a ticket that is done, one that is held, one that waits for a lead."""
    engine = create_engine(uri)
    with engine.begin() as c:
        for statement in VERSION_1.split(";\n"):
            if statement.strip() and not (statement.strip().startswith("--") and "CREATE" not in statement):
                c.execute(text(statement))
        c.execute(text(BATCH), {"yes": True})
        done = {"verdict": "accept", "finished_by": "vera", "finished_at": 2000.0, "seconds": 4.0}
        held = {"by": "vera", "until": 1e12}
        c.execute(text(TICKET), EMPTY | done | {"id": "done", "lead": False, "state": "done", "token": 1})
        c.execute(text(TICKET), EMPTY | held | {"id": "held", "lead": False, "state": "leased", "token": 1})
        c.execute(text(TICKET), EMPTY | {"id": "waits", "lead": True, "state": "open", "token": 0})
        for ticket_id in ("done", "held"):
            c.execute(text(LEASE), {"id": ticket_id, "person": "vera", "claim": ticket_id})
        c.execute(text(ADA))
    engine.dispose()
    return uri


def test_an_old_queue_goes_on_where_it_was(old):
    database = Database(old)
    store, accounts = Store(database), Accounts(database, hasher=CHEAP)
    lea = next(person for person in accounts.list())
    assert (lea.name, lea.roles, lea.skills) == ("ada", {Role.LEAD, Role.VERIFIER}, frozenset())
    counts = {(c.state, c.needs_lead): c.tickets for c in store.stats().counts}
    assert counts == {(State.DONE, False): 1, (State.LEASED, False): 1, (State.OPEN, True): 1}
    (recent,) = store.recent(VERA)
    assert (recent.ticket_id, recent.verdict, recent.seconds) == ("done", Verdict.ACCEPT, 4.0)
    assert store.figures().total.verdicts == {"accept": 1}
    accept = Submission(operation_id="o", created_at="", verdict=Verdict.ACCEPT)
    assert store.finish("held", 1, VERA, accept).settled is Verdict.ACCEPT
    assert store.claim(VERA, claim_id="c") is None
    assert store.claim(lea, [Kind.VERIFY], claim_id="c").ticket_id == "waits"
    assert store.unsubmit("done", VERA, operation_id="u", created_at="").lease_token == 2
    database.close()


def test_what_was_made_under_version_2_can_be_taken_back(uri):
    database = Database(uri)
    store = Store(database)
    store.open_batch("b", tickets(2))
    for verdict in (Verdict.REFINE, Verdict.ACCEPT):
        held = store.claim(VERA, claim_id=verdict)
        store.finish(held.ticket_id, 1, VERA, Submission(operation_id=verdict, created_at="", verdict=verdict))
    track = store.claim(ANN, claim_id="c")
    made = corrected(store.masklet(track.ticket_id), "made")
    store.finish(track.ticket_id, 1, ANN, Submission(operation_id="made", created_at="", masklet=made))
    with database.write() as c:  # back to the tables of version 2
        c.execute(text("DROP INDEX tickets_of_object"))
        c.execute(text("ALTER TABLE tickets DROP COLUMN object_id"))
        c.execute(text("ALTER TABLE leases DROP COLUMN masklet_id"))
        c.execute(text("UPDATE schema_version SET version = 2"))
    database.close()

    database = Database(uri)
    with database.read() as c:
        assert sorted(c.scalars(select(schema.leases.c.masklet_id)), key=str) == [None, None, "made"]
    store = Store(database)
    store.unsubmit(track.ticket_id, ANN, operation_id="u", created_at="")
    with database.read() as c:
        assert c.scalar(select(func.count()).where(schema.masklets.c.masklet_id == "made")) == 0
    database.close()


def test_the_tables_come_out_as_new_ones_are(old, tmp_path):
    Database(old).close()
    again = Database(old)  # and nothing is left to do
    fresh = Database(f"sqlite:///{tmp_path}/fresh.db")
    for table in schema.metadata.tables:
        columns, indexes = (
            [{part["name"] for part in getattr(inspect(d.engine), f"get_{what}")(table)} for d in (again, fresh)]
            for what in ("columns", "indexes")
        )
        assert columns[0] == columns[1] and indexes[0] == indexes[1], table
    with again.read() as c:
        assert c.scalar(select(schema.schema_version.c.version)) == schema.SCHEMA_VERSION
        assert c.scalar(select(func.count()).select_from(schema.schema_version)) == 1
    for database in (again, fresh):
        database.close()


def test_processes_may_bring_an_old_queue_up_at_once(old):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Event()
    processes = [spawn.Process(target=open_and_close, args=(old, start)) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
