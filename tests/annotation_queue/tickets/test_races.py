"""Threads and processes that use the queue at the same time, on SQLite and on PostgreSQL."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest
from sqlalchemy import func, select

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.records import Kind
from annotation_queue.tickets.claims import How, claiming
from annotation_queue.tickets.store import TicketStore
from benchmarks.kills.race import doubles, race
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    VERA,
    VICTOR,
    claim,
    finish,
    outcome,
)
from tests.annotation_queue.racing import accept_all
from tests.annotation_queue.synthetic_queue import verify_tickets

pytestmark = pytest.mark.server


def test_concurrent_processes_never_claim_the_same_ticket(uri):
    count = 90
    database = Database(uri)
    TicketStore(database).open_batch("b", verify_tickets(count, frame_count=8))
    spawn = multiprocessing.get_context("spawn")
    results, start = spawn.Queue(), spawn.Event()
    processes = [spawn.Process(target=accept_all, args=(uri, f"p{i}", start, results)) for i in range(3)]
    for process in processes:
        process.start()
    start.set()
    claimed = dict(results.get(timeout=240) for _ in processes)
    for process in processes:
        process.join()
    everything = [lease for leases in claimed.values() for lease in leases]
    assert len(everything) == count
    assert {token for _, token in everything} == {1}
    assert len({ticket_id for ticket_id, _ in everything}) == count
    tickets = TicketStore(database)
    assert (tickets.batch("b").remaining, tickets.batch("b").drained) == (0, True)
    with database.read() as c:
        assert c.scalar(select(func.count()).select_from(schema.outbox)) == 1
    database.close()


def test_tickets_that_change_holders_in_a_race_never_have_two_holders(uri):
    database = Database(uri)
    TicketStore(database).open_batch("b", verify_tickets(3, frame_count=8))
    said = []
    assert race(uri, 120, 900.0, said.append) == (120, 0) and said[-1] == 120
    with database.read() as c:
        assert c.scalar(select(func.count()).select_from(schema.leases)) == 120
    database.close()


@pytest.mark.parametrize(
    ("held", "double"),
    [
        ([[1, 1, 0, 2], [1, 2, 2, 3], [2, 1, 0, 9]], 0),
        ([[1, 1, 0, 2], [1, 2, 1, 3]], 1),  # while the first still held it
        ([[1, 1, 0, 9], [1, 2, 2, 3], [1, 3, 5, 6]], 2),  # and not the one before alone
        ([[1, 1, 0, 2], [1, 1, 3, 4]], 1),  # one lease, twice
    ],
)
def test_the_race_check_counts_overlapping_leases(held, double):
    assert doubles(np.array(held, float)) == double


def test_the_last_tickets_finished_at_the_same_moment_drain_the_batch_once(uri):
    database = Database(uri)
    tickets = TicketStore(database)
    for round_ in range(5):
        tickets.open_batch(f"b{round_}", verify_tickets(4, frame_count=4, prefix=f"r{round_}"))
        held = [claim(tickets, VERA) for _ in range(4)]
        together = threading.Barrier(4)

        def end(ticket, together=together):
            together.wait()
            tickets.finish(ticket.ticket_id, ticket.lease_token, VERA, outcome(Verdict.ACCEPT))

        threads = [threading.Thread(target=end, args=(ticket,)) for ticket in held]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tickets.batch(f"b{round_}").drained
    told = []
    tickets.deliver(told.append)
    assert sorted(told) == [f"b{i}" for i in range(5)]
    database.close()


def test_one_claim_sent_twice_at_the_same_moment_takes_one_ticket(uri):
    database = Database(uri)
    tickets = TicketStore(database)
    tickets.open_batch("b", verify_tickets(8, frame_count=4))
    together = threading.Barrier(4)
    got = []

    def ask():
        together.wait()
        got.append(tickets.claim(VERA, claim_id="c").ticket_id)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4 and len(set(got)) == 1
    database.close()


@pytest.mark.parametrize("uri", ["postgres"], indirect=True)
def test_a_claim_retries_when_another_claim_has_locked_the_only_ticket(uri, monkeypatch):
    """A lead's claim locks the best ticket of each lane, and takes one."""
    database = Database(uri)
    tickets = TicketStore(database)
    plain, unsure = verify_tickets(2, frame_count=4)
    tickets.open_batch("b", [unsure])
    finish(tickets, VERA, Verdict.UNSURE)
    tickets.open_batch("c", [plain])
    with database.engine.connect() as other:
        how = How(Kind.VERIFY, ("", "lead"), True, False, False, False, False)
        given = {"claim_kind": "verify", "claim_person": "lea", "claim_now": 0.0, "claim_until": 1.0}
        taken = other.execute(claiming(how), given | {"claim_ticket": None, "claim_batch": None}).one()
        waits = []

        def commit_meanwhile(seconds):
            waits.append(seconds)
            other.commit()

        monkeypatch.setattr("annotation_queue.tickets.store.time.sleep", commit_meanwhile)
        assert taken.needs_lead and claim(tickets, VERA).ticket_id == plain.ticket_id
        assert len(waits) == 1
        assert claim(tickets, VICTOR) is None and len(waits) == 1, "nothing is there: no wait"
    database.close()
