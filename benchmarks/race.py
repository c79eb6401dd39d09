"""Claims as fast as a few processes can make them, straight at the store: whether a ticket is ever in two hands.

Every process takes the best ticket that is there and gives it back at once, so that all of them want the same few. What
each held, and from when to when, is kept by the process itself: the database's own opinion is not asked.
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
from annotation_queue.tickets.store import Store

PROCESSES = 6
REPORT = 500  # claims between two reports of a process
Holds = NDArray[np.float64]  # (N, 4): the ticket's number, the lease's token, seconds from and to


def _claim_and_release(uri: str, name: str, claims: int, lease_s: float, reports: Queue[Holds]) -> None:
    """A process: reports what it held in parts of REPORT."""
    os.nice(5)
    database = Database(uri)
    store = Store(database, lease_s=lease_s)
    person = Person(name=name, roles=frozenset({Role.VERIFIER}))
    held: list[tuple[float, float, float, float]] = []
    for n in range(1, claims + 1):
        while (ticket := store.claim(person, [Kind.VERIFY], claim_id=new_id())) is None:
            pass  # the others hold all that there are
        since = time.monotonic()  # the same clock in all processes of a machine
        number = float(ticket.ticket_id.rpartition("-")[2])
        until = time.monotonic()
        store.release(ticket.ticket_id, ticket.lease_token, person)
        held.append((number, ticket.lease_token, since, until))
        if len(held) == REPORT or n == claims:
            reports.put(np.array(held))
            held.clear()
    database.close()


def race(uri: str, claims: int, lease_s: float, said: Callable[[int], None]) -> tuple[int, int]:
    """`claims` claims by PROCESSES at once; how many there were, and how many leases were given twice.

    said: told how many claims there were so far.
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
    """Leases that were given twice: under one token, or while somebody still held the ticket."""
    held = held[np.lexsort((held[:, 2], held[:, 0]))]  # by ticket, then by time
    same = held[1:, 0] == held[:-1, 0]
    latest = held[:-1, 3].copy()
    for i in range(1, len(latest)):  # the end of whoever held the ticket the longest so far
        if same[i - 1]:
            latest[i] = max(latest[i], latest[i - 1])
    overlapping = int(np.sum(same & (held[1:, 2] < latest)))
    return overlapping + len(held) - len(np.unique(held[:, :2], axis=0))
