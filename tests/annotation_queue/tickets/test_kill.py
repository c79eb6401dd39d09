"""A server that is killed between and during operations loses nothing that it acknowledged."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest

from annotation_queue.client import QueueClient, new_id, now
from annotation_queue.database import Database
from annotation_queue.records import Kind, NewOperation, NewTicket, Person
from annotation_queue.tickets.store import TicketStore
from tests.annotation_queue.synthetic_queue import PEOPLE, ServerProcess, add_people, candidate

pytestmark = pytest.mark.server

KILLS = 2


@pytest.mark.parametrize("uri", ["sqlite"], indirect=True)
def test_a_server_that_is_killed_repeatedly_keeps_every_acknowledged_operation(uri):
    database = Database(uri)
    tickets = TicketStore(database)
    token = add_people(database).issue_token("ann")
    tickets.open_batch("b", [NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="3")])
    server = ServerProcess(uri)
    server.start()
    acknowledged = []
    stop = threading.Event()
    problems = []

    def annotate():
        """Send one stroke after another, through every death of the server."""
        try:
            with QueueClient(server.url, token=token, patience_s=60) as client:
                ticket = client.claim()
                assert ticket is not None, "the batch has one ticket for ann"
                while not stop.is_set():
                    act = NewOperation(operation_id=new_id(), kind="stroke", created_at=now())
                    client.append_operations(ticket, [act])
                    acknowledged.append(act.operation_id)
                client.finish(ticket, masklet=replace(candidate("made"), annotated_by="ann"))
        except Exception as error:  # shown by the assertion below, in the test's own thread
            problems.append(error)

    worker = threading.Thread(target=annotate)
    worker.start()
    try:
        chance = random.Random(7)
        for _ in range(KILLS):
            before = len(acknowledged)
            while len(acknowledged) < before + 15 and not problems:
                stop.wait(0.005)
            stop.wait(chance.random() * 0.02)  # anywhere within an operation
            server.kill()
            server.start()
    finally:
        stop.set()
        worker.join()
        server.kill()
    assert problems == []
    assert len(acknowledged) > 15 * KILLS
    kept = [o.operation_id for o in tickets.operations("t") if o.kind == "stroke"]
    assert kept == acknowledged  # every one, once, in the order in which they were made
    assert [o.seq for o in tickets.operations("t")] == list(range(1, len(acknowledged) + 2))
    verify = tickets.ticket("t").next_ticket_id
    assert verify is not None and tickets.ticket(verify).kind is Kind.VERIFY
    vera = Person(name="vera", roles=frozenset(PEOPLE["vera"]))
    taken = tickets.claim(vera, claim_id="after")
    assert taken.ticket_id == verify and tickets.masklet(verify).annotated_by == "ann"
    database.close()
