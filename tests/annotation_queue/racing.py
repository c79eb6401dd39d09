"""The work of the processes in the race tests. Imports little, because each process imports it again."""

from __future__ import annotations

import uuid
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event

from annotation_queue.database import Database
from annotation_queue.records import Person, Role, Submission
from annotation_queue.tickets.store import TicketStore
from storage.records import Verdict


def accept_all(uri: str, name: str, start: Event, results: Queue) -> None:
    """Work of one process: claim and accept until no ticket is left."""
    database = Database(uri)
    tickets = TicketStore(database)
    person = Person(name=name, roles=frozenset({Role.VERIFIER}))
    start.wait()
    claimed = []
    while ticket := tickets.claim(person, claim_id=uuid.uuid4().hex):
        claimed.append((ticket.ticket_id, ticket.lease_token))
        accept = Submission(operation_id=uuid.uuid4().hex, created_at="", verdict=Verdict.ACCEPT)
        tickets.finish(ticket.ticket_id, ticket.lease_token, person, accept)
    results.put((name, claimed))
    database.close()


def open_and_close(uri: str, start: Event) -> None:
    """Work of one process: create the database."""
    start.wait()
    Database(uri).close()
