"""Processes claim tickets from `TicketStore` directly, as fast as they can: is a ticket ever leased to two of them?

Each process claims the best open ticket and releases it at once, so that all of them compete for the same few tickets.
Each process records itself which tickets it held and when; the database's own records are not used.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.queues import Queue

import numpy as np
from numpy.typing import NDArray

from annotation_queue.client import new_id
from annotation_queue.database import Database
from annotation_queue.records import Kind, Person, Role
from annotation_queue.tickets.store import TicketStore

PROCESSES = 6
REPORT = 500  # claims between two reports of a process
Holds = NDArray[np.float64]  # (N, 4): the ticket's number, the lease's token, seconds from and to


def _claim_and_release(uri: str, name: str, claims: int, lease_s: float, reports: Queue[Holds]) -> None:
    """The work of one process. Reports its leases in parts of REPORT."""
    os.nice(5)
    database = Database(uri)
    tickets = TicketStore(database, lease_s=lease_s)
    person = Person(name=name, roles=frozenset({Role.VERIFIER}))
    held: list[tuple[float, float, float, float]] = []
    for n in range(1, claims + 1):
        while (ticket := tickets.claim(person, [Kind.VERIFY], claim_id=new_id())) is None:
            pass  # the other processes hold all open tickets
        since = time.monotonic()  # the same clock in all processes of a machine
        number = float(ticket.ticket_id.rpartition("-")[2])
        until = time.monotonic()
        tickets.release(ticket.ticket_id, ticket.lease_token, person)
        held.append((number, ticket.lease_token, since, until))
        if len(held) == REPORT or n == claims:
            reports.put(np.array(held))
            held.clear()
    database.close()


def race(uri: str, claims: int, lease_s: float, said: Callable[[int], None]) -> tuple[int, int]:
    """Makes about `claims` claims with PROCESSES processes. Returns the claims made and the leases given twice.

    said: called with the number of claims so far.
    """
    spawn = multiprocessing.get_context("spawn")
    reports: Queue[Holds] = spawn.Queue()
    each = -(-claims // PROCESSES)
    workers = [
        spawn.Process(target=_claim_and_release, args=(uri, f"p{n}", each, lease_s, reports), daemon=True)
        for n in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    parts: list[Holds] = []
    count = 0
    while count < each * PROCESSES:
        parts.append(reports.get(timeout=120))
        count += len(parts[-1])
        said(count)
    for worker in workers:
        worker.join()
    return count, doubles(np.concatenate(parts))


def doubles(held: Holds) -> int:
    """Leases that were given twice: with the same token, or while another process held the ticket."""
    held = held[np.lexsort((held[:, 2], held[:, 0]))]  # by ticket, then by time
    same = held[1:, 0] == held[:-1, 0]
    latest = held[:-1, 3].copy()
    for i in range(1, len(latest)):  # the latest end of all earlier leases of the ticket
        if same[i - 1]:
            latest[i] = max(latest[i], latest[i - 1])
    overlapping = int(np.sum(same & (held[1:, 2] < latest)))
    return overlapping + len(held) - len(np.unique(held[:, :2], axis=0))
