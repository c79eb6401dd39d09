"""How much a storm of requests slows the queue for other people: large bodies, log-ins, frames.

    python -m benchmarks.storm [--quick] [--json] [--tree FOLDER]

A server process runs on SQLite with real password hashes. During a storm another person renews a lease again and again.
The result is the latency of these requests and the growth of the server's memory. Three storms:

1. bodies: an annotator without a ticket sends three bodies of 60 MB, all empty JSON objects.
2. logins: 300 people log in at once.
3. frames: a person asks for 400 frames of 1080p at once.

`--tree` runs the server of another checkout of this project, to compare two commits. `--quick` makes smaller storms: do
not compare its figures. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from annotation_queue.client import QueueClient
from annotation_queue.database import Database
from annotation_queue.people.accounts import Accounts
from annotation_queue.records import Kind, NewTicket, Role
from annotation_queue.tickets.store import TicketStore

ROOT = Path(__file__).parents[1]
PASSWORD = "correct horse"
VIDEO = "video-0"
PATIENCE_S = 300.0

# The program of the server. Each frame is a real JPEG of 1080p. The code is imported from the measured checkout.
SERVER = """
import gc, sys, cv2, numpy, uvicorn
from annotation_queue.api.app import create_app
from annotation_queue.database import Database
from annotation_queue.records import VideoInfo
from annotation_queue.tickets.store import TicketStore

class Media:
    picture = numpy.random.default_rng(0).integers(0, 255, (1080, 1920, 3), dtype=numpy.uint8)
    def info(self, video_id):
        return VideoInfo(video_id=video_id, height=1080, width=1920, frame_count=1000, fps=24.0)
    def frame(self, video_id, frame_idx):
        return cv2.imencode(".jpg", self.picture)[1].tobytes()

app = create_app(TicketStore(Database(sys.argv[1])), Media())
gc.collect()
gc.freeze()  # as `masklets serve` does
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


class Server:
    """The queue in a process of its own, with two people who hold a ticket each and one who holds none."""

    def __init__(self, tree: Path, folder: Path, people: int) -> None:
        uri = f"sqlite:///{folder}/queue.db"
        database = Database(uri)
        accounts = Accounts(database)
        for n in range(people):
            accounts.add(f"person-{n}", [Role.ANNOTATOR], PASSWORD if n == 0 else None)
        _share_password(database)
        names = ("steady", "stormy", "idle")
        for name in names:
            accounts.add(name, [Role.ANNOTATOR])
        self.tokens = {name: accounts.issue_token(name) for name in names}
        new = [NewTicket(ticket_id=f"t{n}", kind=Kind.TRACK, video_id=VIDEO) for n in range(2)]
        TicketStore(database).open_batch("b", new)
        database.close()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        environment = os.environ | {"PYTHONPATH": str(tree)}
        command = [sys.executable, "-c", SERVER, uri, str(port)]
        self._process = subprocess.Popen(command, cwd=folder, env=environment)
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.Client(timeout=PATIENCE_S, limits=limits, trust_env=False)  # for all threads of a storm
        self._memory = psutil.Process(self._process.pid).memory_info
        while self._process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/healthz").is_success:
                    break
            time.sleep(0.1)

    def memory(self) -> int:
        """The server's memory (resident), MiB."""
        return int(self._memory().rss >> 20)

    def ask(self, method: str, url: str, content: bytes | None, headers: dict[str, str]) -> int:
        """The status of the response; 0 if the connection failed."""
        try:
            return self._http.request(method, url, content=content, headers=headers).status_code
        except httpx.TransportError:
            return 0

    def close(self) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait()

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[name]}", "Content-Type": "application/json"}


def _share_password(database: Database) -> None:
    """Gives everybody the password hash of person-0, because hashing is slow."""
    from sqlalchemy import select, update

    from annotation_queue.schema import people

    with database.write() as c:
        hashed = c.scalar(select(people.c.password_hash).where(people.c.name == "person-0"))
        c.execute(update(people).values(password_hash=hashed))


def bodies(server: Server, bytes_each: int) -> list[Callable[[], int]]:
    """Three requests with large bodies from an annotator without a ticket."""
    content, headers = b"[" + b"{}," * (bytes_each // 3) + b"{}]", server.headers("idle")
    return [partial(server.ask, "POST", f"{server.url}/api/tickets/t0/finish", content, headers)] * 3


def logins(server: Server, people: int) -> list[Callable[[], int]]:
    """One log-in of each of these people."""
    body = [json.dumps({"name": f"person-{n}", "password": PASSWORD}).encode() for n in range(people)]
    kind = {"Content-Type": "application/json"}
    return [partial(server.ask, "POST", f"{server.url}/api/login", each, kind) for each in body]


def frames(server: Server, count: int) -> list[Callable[[], int]]:
    """Requests for `count` frames by one person."""
    url, headers = f"{server.url}/api/videos/{VIDEO}/frames", server.headers("stormy")
    return [partial(server.ask, "GET", f"{url}/{n}.jpg", None, headers) for n in range(count)]


def measure(server: Server, storm: list[Callable[[], int]]) -> dict[str, Any]:
    """Runs a storm, and measures another person's requests during it."""
    begin, most = server.memory(), 0
    latencies: list[float] = []
    over = threading.Event()
    with (
        QueueClient(server.url, token=server.tokens["steady"], timeout_s=PATIENCE_S) as steady,
        ThreadPoolExecutor(len(storm) + 1) as threads,
    ):
        ticket = steady.claim(ticket_id="t1") or steady.ticket("t1")

        def beat() -> None:
            while not over.is_set():
                since = time.perf_counter()
                steady.heartbeat(ticket)
                latencies.append(time.perf_counter() - since)
                time.sleep(0.02)

        beating = threads.submit(beat)
        since = time.perf_counter()
        asked = [threads.submit(each) for each in storm]
        while not all(each.done() for each in asked):
            most = max(most, server.memory())
            time.sleep(0.02)
        lasted = time.perf_counter() - since
        over.set()
        beating.result()
        steady.release(ticket)
    statuses = [each.result() for each in asked]
    return {
        "requests": len(storm),
        "statuses": {str(status): statuses.count(status) for status in sorted(set(statuses))},
        "storm_s": round(lasted, 1),
        "others_p50_ms": round(1000 * float(np.median(latencies)), 1),
        "others_max_ms": round(1000 * max(latencies), 1),
        "memory_mib": max(0, most - begin),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller storms")
    parser.add_argument("--json", action="store_true", help="no effect: standard output is always one JSON line")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout whose server is measured")
    chosen = parser.parse_args()
    size, people, count = (6_000_000, 30, 60) if chosen.quick else (60_000_000, 300, 400)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(chosen.tree.resolve(), Path(folder), people)
        try:
            with QueueClient(server.url, token=server.tokens["stormy"]) as stormy:
                stormy.claim(ticket_id="t0")
            for name, storm in (
                ("frames", frames(server, count)),
                ("logins", logins(server, people)),
                ("bodies", bodies(server, size)),
            ):
                print(f"{name} …", file=sys.stderr, flush=True)
                figures[name] = measure(server, storm)
        finally:
            server.close()
    print(json.dumps(figures | {"quick": chosen.quick}), flush=True)


if __name__ == "__main__":
    main()
