"""The queue under load and under kills: claims of 500 people, and operations while processes are killed.

    python -m benchmarks.queue [--quick] [--json] [--database sqlite|postgres|URI] [--tickets N] [--rate R] [--race N]
        [--kills N]

Real server processes share one database; clients use HTTP. Three parts:

1. Load: claims arrive at a fixed rate, even if the queue is slower. One of 500 people makes each, followed
   by a verdict. The queue has a million tickets; some need a skill that few people have. The latency of a claim counts
   from the moment when it was due.
2. Race: processes compete for the same few tickets (see kills/race.py).
3. Kills: annotators send one operation after another while the servers are killed with SIGKILL at random moments and
   started again. With `--database postgres` the database (a private PostgreSQL with fsync, made for this run) is killed
   too.

At the end every acknowledged operation must be stored exactly once. A ticket is leased twice if two people got it with
the same token, or if one got it while another one held it.

A database named by URI must be empty, and is never killed. `--quick` measures 20,000 tickets, 8 s of load, 1,200 claims
in the race and 6 kills instead of 1,000,000, 60 s, 20,000 and 40: do not compare its figures. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import psutil
from sqlalchemy import Connection, func, insert, select, text

from annotation_queue import schema
from annotation_queue.client import QueueClient, new_id, now
from annotation_queue.database import Database
from annotation_queue.errors import NoSuchVideo
from annotation_queue.records import NewOperation, VideoInfo
from annotation_queue.tickets import tallies
from annotation_queue.tickets.store import TicketStore
from benchmarks.kills.race import race

PEOPLE = 500
CLAIMS_S = 50.0  # claims a second: 500 people with a ticket every ten seconds
SERVERS = 2
CONNECTIONS = 32  # of the load: enough that claims wait for the server's threads, not for a connection
ANNOTATORS = 6
LEASE_S = 900.0  # no lease expires during the measurement

TICKETS = """
    INSERT INTO tickets (ticket_id, batch_id, kind, video_id, phase, priority, payload, needs_lead, attempt, created_at,
        ordinal, state, lease_token, reasons, skill, lane)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
    SELECT 'ticket-' || i, 'load', 'verify', 'video-0', 'auto', CASE WHEN i % 10 = 0 THEN 9 ELSE i % 3 END, '{}', 1 = 0,
        1, 0, i, CASE WHEN i % 5 = 1 THEN 'done' ELSE 'open' END, 0, '', CASE WHEN i % 10 = 0 THEN 'rare' END,
        CASE WHEN i % 10 = 0 THEN 'skill:rare' ELSE '' END
    FROM n
"""


class NoMedia:
    """Media without videos: this benchmark shows no frames."""

    def info(self, video_id: str) -> VideoInfo:
        raise NoSuchVideo(video_id)

    def frame(self, video_id: str, frame_idx: int) -> bytes:
        raise NoSuchVideo(video_id)


def serve(uri: str, port: int) -> None:
    """The work of a server process."""
    import uvicorn

    from annotation_queue.api.app import create_app
    from engine.serving import garbage

    app = create_app(TicketStore(Database(uri), lease_s=LEASE_S), NoMedia())
    garbage.settle()  # as `masklets serve` does
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", access_log=False)


class Server:
    """The queue's server in a process that can be killed and started again at the same port."""

    def __init__(self, uri: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._uri = uri
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(
            ["annotation_queue.api.app", "uvicorn"]
        )  # otherwise each start imports for seconds
        self._process: Any = None

    def start(self) -> None:
        self._process = self._forks.Process(target=serve, args=(self._uri, self.port), daemon=True)
        self._process.start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._process.exitcode is not None:  # the database was still starting, or the port was still in use
                self._process = self._forks.Process(target=serve, args=(self._uri, self.port), daemon=True)
                self._process.start()
            try:
                if httpx.get(f"{self.url}/healthz", timeout=5, trust_env=False).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        raise TimeoutError(f"no server at {self.url}")

    def kill(self) -> None:
        self._process.kill()  # SIGKILL
        self._process.join()


class PrivatePostgres:
    """A PostgreSQL server in a temporary folder, with fsync, on a unix socket."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or sorted(Path(p) for p in [_on_path("initdb")] if p)
        if not found:
            sys.exit("benchmarks.queue: no PostgreSQL server is installed")
        self._bin = found[-1]
        self.home = Path(tempfile.mkdtemp(prefix="masklets-pg-"))
        if os.geteuid() == 0:
            shutil.chown(self.home, "postgres")
        self._run(f"{self._bin}/initdb -N -D {self.home}/data -U postgres -A trust -E UTF8 --locale=C")
        self.uri = f"postgresql+psycopg://postgres@/postgres?host={self.home}"

    def _run(self, command: str) -> None:
        words = ["su", "postgres", "-c", command] if os.geteuid() == 0 else ["sh", "-c", command]
        subprocess.run(
            words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def start(self) -> None:
        options = f"-k {self.home} -c listen_addresses= -c max_connections=100"
        self._run(f"{self._bin}/pg_ctl -D {self.home}/data -w -t 60 -l {self.home}/log -o '{options}' start")

    def kill(self) -> None:
        """Sends SIGKILL to all its processes: like a power failure, except that the disk's cache survives."""
        first = psutil.Process(int((self.home / "data" / "postmaster.pid").read_text().split()[0]))
        processes = [first, *first.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # a worker process that had already ended
                process.kill()
        psutil.wait_procs(processes, timeout=30)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)


def _on_path(name: str) -> str | None:
    found = shutil.which(name)
    return None if found is None else str(Path(found).parent)


@contextmanager
def database_of(choice: str) -> Iterator[tuple[str, PrivatePostgres | None]]:
    """The URI of the database, and its server if it may be killed. choice: "sqlite", "postgres" or a URI."""
    if choice == "sqlite":
        with tempfile.TemporaryDirectory(prefix="masklets-queue-") as folder:
            yield f"sqlite:///{folder}/queue.db", None
    elif choice == "postgres":
        postgres = PrivatePostgres()
        postgres.start()
        try:
            yield postgres.uri, postgres
        finally:
            postgres.close()
    else:
        yield choice, None


def fill(database: Database, tickets: int) -> list[str]:
    """Writes people, their tokens and tickets. Returns the tokens; the last ANNOTATORS of them are annotators'."""
    tokens = [f"mq_benchmark-{i}-{random.getrandbits(64):x}" for i in range(PEOPLE + ANNOTATORS)]
    with database.write() as c:
        people = [
            {"name": f"p{i}", "roles": "verifier" if i < PEOPLE else "annotator", "created_at": 0.0}
            for i in range(len(tokens))
        ]
        c.execute(insert(schema.people), people)
        digests = [hashlib.sha256(token.encode()).hexdigest() for token in tokens]
        c.execute(
            insert(schema.credentials),
            [{"secret_sha256": d, "name": f"p{i}", "created_at": 0.0} for i, d in enumerate(digests)],
        )
        c.execute(text(TICKETS), {"count": tickets})
        t = schema.tickets
        left = c.scalar(select(func.count()).where(t.c.state == "open")) or 0
        about = {"batch_id": "load", "created_at": 0.0, "sealed": True, "total": tickets, "remaining": left}
        c.execute(insert(schema.batches).values(**about))
        key = {"batch_id": "load", "kind": "verify", "phase": "auto", "checkpoint": "", "person": "", "maker": ""}
        sums = {"added": float(tickets), "done": float(tickets - left)}
        tallies.add(c, [key | {"verdict": "", "needs_lead": False} | sums])
    with database.write() as c:
        c.execute(text("ANALYZE"))
    return tokens


class Desk:
    """An open connection to each server. Almost a bare socket, so that the client's own time does not count."""

    def __init__(self, ports: list[int]) -> None:
        self._lines = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in ports]

    def post(self, server: int, path: str, token: str, body: dict[str, Any]) -> bytes:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        while True:  # a server closes idle connections; a repeated id changes nothing
            line = self._lines[server]
            try:
                line.request("POST", path, json.dumps(body), headers)
                answer = line.getresponse()
                content = answer.read()
            except (http.client.HTTPException, ConnectionError):
                line.close()
                continue
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status} {content[:200]!r}")
            return content


def offer(
    ports: list[int], tokens: list[str], seconds: float, rate: float
) -> tuple[list[float], Counter[tuple[str, int]]]:
    """Makes `rate` claims a second, each with a verdict: latencies (s), and how often each lease was given."""
    chance = random.Random(1)
    latencies: list[float] = []
    leases: list[tuple[str, int]] = []
    arrivals: SimpleQueue[tuple[float, int] | None] = SimpleQueue()
    trouble: list[BaseException] = []

    def work() -> None:
        desk = Desk(ports)
        try:
            while (arrival := arrivals.get()) is not None:
                due, person = arrival
                server, token = person % len(ports), tokens[person]
                content = desk.post(server, "/api/tickets/claim", token, {"claim_id": new_id()})
                latencies.append(time.perf_counter() - due)
                ticket = json.loads(content)
                leases.append((ticket["ticket_id"], ticket["lease_token"]))
                outcome = {"operation_id": new_id(), "created_at": now(), "verdict": "accept", "seconds": 6.0}
                body = {"token": ticket["lease_token"], "outcome": outcome}
                desk.post(server, f"/api/tickets/{ticket['ticket_id']}/finish", token, body)
        except BaseException as error:  # raised below, in the main thread
            trouble.append(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(CONNECTIONS)]
    for worker in workers:
        worker.start()
    due = time.perf_counter()
    end = due + seconds
    while due < end:
        due += chance.expovariate(rate)
        time.sleep(max(0.0, due - time.perf_counter()))
        arrivals.put((due, chance.randrange(PEOPLE)))
    for _ in workers:
        arrivals.put(None)
    for worker in workers:
        worker.join()
    if trouble:
        raise trouble[0]
    return latencies, Counter(leases)


def annotate(url: str, token: str, ticket_id: str, stop: threading.Event, kept: list[str], trouble: list[str]) -> None:
    """One annotator: sends one operation after another while servers are killed.

    kept: gets the ids of acknowledged operations.  trouble: gets an error in one line.
    """
    try:
        with QueueClient(url, token=token, patience_s=120) as client:
            ticket = client.claim(ticket_id=ticket_id)
            assert ticket is not None
            while not stop.is_set():
                act = NewOperation(operation_id=new_id(), kind="stroke", created_at=now(), frame_idx=0)
                client.append_operations(ticket, [act])
                kept.append(act.operation_id)
    except Exception as error:  # reported at the end: an exception in a thread is not raised in the main thread
        trouble.append(f"{type(error).__name__}: {error}")


def kill_again_and_again(
    servers: list[Server], postgres: PrivatePostgres | None, kills: int, acknowledged: list[list[str]]
) -> None:
    """Kills and restarts one part after another while operations are being sent."""
    chance = random.Random(2)
    parts: list[Server | PrivatePostgres] = [*servers, *([postgres] if postgres else [])]
    for i in range(kills):
        before, deadline = sum(map(len, acknowledged)), time.monotonic() + 60
        while sum(map(len, acknowledged)) < before + 60 and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)  # a random moment of an operation
        part = parts[i % len(parts)]
        part.kill()
        part.start()
        if i % 50 == 49:
            _say(f"{i + 1} of {kills} kills, {sum(map(len, acknowledged))} operations")


def operations_under_kills(
    database: Database, servers: list[Server], postgres: PrivatePostgres | None, tokens: list[str], kills: int
) -> dict[str, Any]:
    """Part 3. Its figures, with `leased_again`: the tickets that two annotators held."""
    _open_track_tickets(database)
    database.close()  # its connections would break when the database is killed
    stop, trouble = threading.Event(), list[str]()
    acknowledged: list[list[str]] = [[] for _ in range(ANNOTATORS)]
    people = [
        threading.Thread(
            target=annotate,
            args=(servers[i % SERVERS].url, tokens[PEOPLE + i], f"track-{i}", stop, acknowledged[i], trouble),
        )
        for i in range(ANNOTATORS)
    ]
    for person in people:
        person.start()
    try:
        kill_again_and_again(servers, postgres, kills, acknowledged)
    finally:
        stop.set()
        for person in people:
            person.join()
    operations = sum(map(len, acknowledged))
    _say(f"{operations} operations sent during {kills} kills")
    with database.read() as c:
        return {
            "operations": operations,
            "lost_operations": sum(_lost(c, f"track-{i}", sent) for i, sent in enumerate(acknowledged)),
            "leased_again": _leased_again(c, "track-%"),
            "trouble": trouble,
        }


def _open_track_tickets(database: Database) -> None:
    """One ticket for each annotator, `track-0` and so on."""
    batch = {"batch_id": "kills", "created_at": 0.0, "sealed": False, "total": ANNOTATORS, "remaining": ANNOTATORS}
    same = {"batch_id": "kills", "kind": "track", "video_id": "video-0", "phase": "1", "priority": 0}
    same |= {"payload": "{}", "needs_lead": False, "attempt": 1, "created_at": 0.0, "ordinal": 0}
    same |= {"state": "open", "lease_token": 0, "reasons": ""}
    with database.write() as c:
        c.execute(insert(schema.batches).values(**batch))
        c.execute(insert(schema.tickets), [same | {"ticket_id": f"track-{i}"} for i in range(ANNOTATORS)])


def _lost(c: Connection, ticket_id: str, sent: list[str]) -> int:
    """Number of acknowledged operations of a ticket that are missing; 1 more if the others are not in order."""
    o = schema.operations
    query = select(o.c.operation_id).where(o.c.ticket_id == ticket_id).order_by(o.c.seq)
    stored = list(c.scalars(query))
    known = set(sent)
    return len(known - set(stored)) + int([x for x in stored if x in known] != sent)


def measure(choice: str, tickets: int, load_s: float, raced: int, kills: int, rate: float) -> dict[str, Any]:
    """Runs all three parts on one database."""
    with ExitStack() as stack:
        uri, postgres = stack.enter_context(database_of(choice))
        database = Database(uri)
        stack.callback(database.close)
        begun = time.perf_counter()
        tokens = fill(database, tickets)
        _say(f"{tickets} tickets in {time.perf_counter() - begun:.1f} s")
        servers = [Server(uri) for _ in range(SERVERS)]
        for server in servers:
            server.start()
            stack.callback(server.kill)
        latencies, leases = offer([server.port for server in servers], tokens, load_s, rate)
        latencies.sort()
        _say(f"{len(latencies)} claims offered at {rate:.0f} a second")
        begun = time.perf_counter()
        TicketStore(database).figures()
        figures_ms = (time.perf_counter() - begun) * 1000
        with database.read() as c:
            double = sum(1 for count in leases.values() if count > 1) + _leased_again(c, "ticket-%")
        race_claims, race_doubles = race(uri, raced, LEASE_S, _every(20_000, raced))
        killed = operations_under_kills(database, servers, postgres, tokens, kills)
    return {
        "claims": len(latencies) + race_claims,
        "race_claims": race_claims,
        "claim_p50_ms": round(_percentile(latencies, 0.5) * 1000, 1),
        "claim_p99_ms": round(_percentile(latencies, 0.99) * 1000, 1),
        "double_leases": double + race_doubles + killed["leased_again"],
        "operations": killed["operations"],
        "kills": kills,
        "lost_operations": killed["lost_operations"],
        "database": "postgresql" if uri.startswith("postgresql") else "sqlite",
        "tickets": tickets,
        "people": PEOPLE,
        "claims_per_s": rate,
        "servers": SERVERS,
        "figures_ms": round(figures_ms, 1),
        "trouble": killed["trouble"],
    }


def _leased_again(c: Connection, ids: str) -> int:
    """Number of tickets leased more than once. Nobody released a ticket of these ids."""
    le = schema.leases
    again = select(le.c.ticket_id).where(le.c.ticket_id.like(ids)).group_by(le.c.ticket_id).having(func.count() > 1)
    return len(c.execute(again).all())


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _every(step: int, of: int) -> Callable[[int], None]:
    """Prints the progress of the race every `step` claims."""
    last = 0

    def said(count: int) -> None:
        nonlocal last
        if count // step > last or count >= of:
            last = count // step
            _say(f"{count} of {of} claims in the race")

    return said


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="20,000 tickets, 8 s of load, 1,200 claims in the race, 6 kills"
    )
    parser.add_argument("--json", action="store_true", help="no effect: standard output is always one JSON line")
    parser.add_argument("--database", default="sqlite", help="sqlite, postgres (a private server, killed too) or a URI")
    parser.add_argument("--tickets", type=int)
    parser.add_argument("--race", type=int, help="claims in the race")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--rate", type=float, default=CLAIMS_S, help="claims a second (default %(default)s)")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that started processes are ended
    tickets = chosen.tickets or (20_000 if chosen.quick else 1_000_000)
    kills = chosen.kills if chosen.kills is not None else 6 if chosen.quick else 40
    raced = chosen.race if chosen.race is not None else 1_200 if chosen.quick else 20_000
    figures = measure(chosen.database, tickets, 8.0 if chosen.quick else 60.0, raced, kills, chosen.rate)
    print(json.dumps(figures | {"quick": chosen.quick}), flush=True)
    sys.exit(1 if figures["double_leases"] or figures["lost_operations"] or figures["trouble"] else 0)


if __name__ == "__main__":
    main()
