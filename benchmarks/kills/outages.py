"""Outages, as cases of `benchmarks.faults`: what a stage says while something is gone, and whether it ends right after.

In each case, a collected batch is published, or tickets are answered, while the disk is full, the catalog's database or
the bucket is gone, or the clock jumps. The error must be of the project's own kind and in one line; afterwards the same
call must succeed, and the rows must be there once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from annotation_queue.client import QueueClient
from annotation_queue.errors import LeaseLost
from annotation_queue.records import Kind, NewTicket, Role
from benchmarks import scale
from benchmarks.kills.jobs import is_typed
from benchmarks.queue import PrivatePostgres
from engine.processes.children import Child
from engine.processes.ports import free_port
from engine.services import Services, connect
from engine.settings import QueueSettings, Settings, StorageSettings
from engine.stages import publish
from storage.records import Verdict
from validation import table_checks

VIDEOS = 5
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
HOUR_S = 3600


@dataclass
class Case:
    """What was seen in a case."""

    errors: list[str] = field(default_factory=list)  # what was said, each once
    untyped: list[str] = field(default_factory=list)
    rows: int = 0  # that are missing or too many afterwards
    skipped: str = ""
    seconds: float = 0.0

    def note(self, error: Exception) -> None:
        """Adds an error, without the numbers that differ each time."""
        said = f"{type(error).__name__}: {error}"
        if not is_typed(error) or "\n" in str(error):
            self.untyped.append(said)
        if type(error).__name__ not in {each.partition(":")[0] for each in self.errors}:
            self.errors.append(said[:160])

    def as_json(self) -> dict[str, Any]:
        found = {"errors": self.errors, "untyped": self.untyped, "rows_wrong": self.rows, "seconds": self.seconds}
        return {"skipped": self.skipped} if self.skipped else found


def _published(s: Services, batch_id: str, case: Case, meanwhile: Callable[[], None]) -> None:
    """Publishes during the outage, then again until it succeeds. meanwhile: ends the outage."""
    since, first = time.monotonic(), True
    while True:
        try:
            publish.publish_batch(s, batch_id)
            break
        except Exception as error:
            case.note(error)
        if first:
            meanwhile()
            first = False
        time.sleep(0.2)
        if time.monotonic() - since > 300:
            raise RuntimeError(f"it does not end: {case.errors}")
    case.seconds = round(time.monotonic() - since, 1)
    ids = [row.masklet_id for row in s.tables.masklets()]
    case.rows = abs(len(set(ids)) - VIDEOS * scale.MASKLETS) + len(ids) - len(set(ids))


def disk_full(seconds: float) -> Case:
    """The store's disk has no room; then it has."""
    case = Case()
    with tempfile.TemporaryDirectory() as name:
        disk = Path(name) / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True)
        if mounted.returncode:
            return Case(skipped="a small disk cannot be mounted here")
        try:
            settings = Settings(home=Path(name) / "home", storage=StorageSettings(root=str(disk / "store")))
            with connect(settings) as s:
                batch_id, _ = scale.collect(s, 1, VIDEOS)
                ballast = disk / "ballast"
                with suppress(OSError), ballast.open("wb") as file:
                    while True:
                        file.write(bytes(4096))
                        file.flush()
                _published(s, batch_id, case, ballast.unlink)
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)
    return case


def database_gone(seconds: float) -> Case:
    """The catalog's PostgreSQL is killed, and comes back after some seconds."""
    case, postgres = Case(), PrivatePostgres()
    try:
        postgres.start()
        with tempfile.TemporaryDirectory() as name:
            settings = Settings(home=Path(name) / "home", storage=StorageSettings(catalog_uri=postgres.uri))
            with connect(settings) as s:
                batch_id, _ = scale.collect(s, 1, VIDEOS)
                postgres.kill()
                back = threading.Timer(seconds, postgres.start)
                _published(s, batch_id, case, back.start)
                back.join()
    finally:
        postgres.close()
    return case


def bucket_gone(seconds: float, bucket: Any) -> Case:
    """Every connection to the bucket breaks for some seconds. bucket: a `servers.SpoiltBucket`."""
    case = Case()
    with tempfile.TemporaryDirectory() as name:
        storage = StorageSettings(root="s3://faults/outage", s3_endpoint=bucket.url, s3_timeout_s=2)
        with connect(Settings(home=Path(name) / "home", storage=storage)) as s:
            batch_id, _ = scale.collect(s, 1, VIDEOS)
            bucket.gone.value = 1

            def comes_back() -> None:
                bucket.gone.value = 0

            back = threading.Timer(seconds, comes_back)
            _published(s, batch_id, case, back.start)
            back.join()
    return case


def clock_jumps(seconds: float) -> Case:
    """The clock of the queue's machine jumps forward by an hour and back by two, while two people answer tickets.

    Each holds a ticket during each jump. Where a lease ended so, and somebody else took the ticket, the work counts
    nowhere: in the end each ticket has exactly one verdict.
    """
    if not FAKETIME.exists():
        return Case(skipped="libfaketime is not installed")
    case, tickets, since = Case(), 12, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(home=Path(name) / "home", queue=QueueSettings(port=free_port()))
        offset = Path(name) / "offset"
        with connect(settings) as s:
            store, accounts = s.open_queue()
            tokens = []
            for person in ("ann", "bob"):
                accounts.add(person, [Role.VERIFIER])
                tokens.append(accounts.issue_token(person))
            rows = [row for n in range(tickets) for row in scale.masklets_of(f"v{n}", "b", "train")[:1]]
            made = [
                NewTicket(ticket_id=f"t{n}", kind=Kind.VERIFY, video_id=row.video_id, masklet=row)
                for n, row in enumerate(rows)
            ]
            store.open_batch("b", made)
            with _served(settings, offset), _people(settings, tokens) as people:
                for jump in (0, HOUR_S, -HOUR_S, 0):
                    held = [client.claim([Kind.VERIFY]) for client in people]
                    offset.write_text(f"{jump:+d}")
                    for client, ticket in zip(people, held, strict=True):
                        if ticket is None:
                            continue
                        try:
                            client.finish(ticket, verdict=Verdict.ACCEPT)
                        except LeaseLost as error:
                            case.note(error)
                while (ticket := people[0].claim([Kind.VERIFY])) is not None:
                    people[0].finish(ticket, verdict=Verdict.ACCEPT)
            verdicts = [o for n in range(tickets) for o in store.operations(f"t{n}") if o.kind == "verdict"]
    case.rows = abs(len(verdicts) - tickets) + len(verdicts) - len({o.ticket_id for o in verdicts})
    case.seconds = round(time.monotonic() - since, 1)
    return case


@contextmanager
def _served(settings: Settings, offset: Path) -> Iterator[None]:
    """A queue server whose clock is ahead by what the file says, seconds."""
    offset.write_text("+0")
    fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
    child = Child(
        "the queue",
        [sys.executable, "-m", "engine.cli", "serve", "--no-deliver"],
        log=settings.home / "queue.log",
        environment=dict(os.environ) | settings.environment() | fake | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"},
    )
    child.start()
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{settings.queue_url}/healthz", trust_env=False).is_success:
                    break
            time.sleep(0.1)
        yield
    finally:
        child.kill()


@contextmanager
def _people(settings: Settings, tokens: list[str]) -> Iterator[list[QueueClient]]:
    people = [QueueClient(settings.queue_url, token=token, patience_s=60) for token in tokens]
    try:
        yield people
    finally:
        for client in people:
            client.close()


def try_all(seconds: float, bucket: Any) -> dict[str, Any]:
    """All cases, each with an outage of so many seconds. bucket: a `servers.SpoiltBucket` that spoils nothing."""
    passed = table_checks.Report(success=True, results=(), docs_index=None)
    cases: dict[str, Callable[[], Case]] = {
        "disk_full": lambda: disk_full(seconds),
        "database_gone": lambda: database_gone(seconds),
        "bucket_gone": lambda: bucket_gone(seconds, bucket),
        "clock_jumps": lambda: clock_jumps(seconds),
    }
    found = {}
    with mock.patch.object(table_checks, "check_tables", return_value=passed):
        for name, case in cases.items():
            print(f"{datetime.now():%H:%M:%S} {name}", file=sys.stderr, flush=True)
            found[name] = case()
    return {
        "outages": {name: case.as_json() for name, case in found.items()},
        "crashes": sum(len(case.untyped) for case in found.values()),
        "lost": sum(case.rows for case in found.values()),
    }
