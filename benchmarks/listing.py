"""Listing the tickets of a large queue: how much faster is the index than sorting all tickets?

    python -m benchmarks.listing [--quick] [--json] [--tickets N]

The queue has 640,000 tickets, the number of masklets in SA-V: most are open, a fifth is finished. Both ways must return
the same first 50 tickets. They run one after the other, in one process and on one SQLite file; the shortest of five
times counts. `--quick` takes 40,000 tickets: do not compare its figures. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import select, text

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.records import Person, Role, State
from annotation_queue.tickets.store import TicketStore
from benchmarks.queue import TICKETS

LEAD = Person(name="lea", roles=frozenset({Role.LEAD}))
VERIFIER = Person(name="vera", roles=frozenset({Role.VERIFIER}))
FIRST = 50
REPEATS = 5


def fastest(call: Callable[[], list[str]]) -> tuple[float, list[str]]:
    """The shortest time of REPEATS calls, in ms, and the result of the call."""
    times, found = [], list[str]()
    for _ in range(REPEATS):
        since = time.perf_counter()
        found = call()
        times.append(1000 * (time.perf_counter() - since))
    return min(times), found


def by_index(tickets: TicketStore, person: Person, state: State | None) -> list[str]:
    """The ids of the first tickets in a state, as the queue lists them."""
    return [ticket.ticket_id for ticket in tickets.find(state=state, limit=FIRST, seen_by=person)]


def by_sorting(database: Database, state: State | None) -> list[str]:
    """The ids of the first tickets in a state, found by reading all and sorting them."""
    t = schema.tickets
    query = select(t).order_by(t.c.priority.desc(), t.c.created_at, t.c.ordinal, t.c.ticket_id).limit(FIRST)
    if state is not None:
        query = query.where(t.c.state == state.value)
    with database.read() as c:
        return [row.ticket_id for row in c.execute(query)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="40,000 tickets")
    parser.add_argument("--json", action="store_true", help="no effect: standard output is always one JSON line")
    parser.add_argument("--tickets", type=int, default=None, help="number of tickets in the queue")
    chosen = parser.parse_args()
    count = chosen.tickets or (40_000 if chosen.quick else 640_000)
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/queue.db")
        with database.write() as c:
            c.execute(text(TICKETS), {"count": count})
        tickets = TicketStore(database)
        for state in (None, State.OPEN, State.DONE):
            listed, found = fastest(partial(by_index, tickets, LEAD, state))
            sorting, same = fastest(partial(by_sorting, database, state))
            assert found == same
            figures[state or "any state"] = {"ms": round(listed, 1), "times_faster": round(sorting / listed, 1)}
        seen, _ = fastest(partial(by_index, tickets, VERIFIER, None))
        database.close()
    print(json.dumps({"tickets": count, "lead": figures, "verifier_ms": round(seen, 1), "quick": chosen.quick}))


if __name__ == "__main__":
    main()
