"""The queue and its page as a process: here in the foreground, or as a child that others start and stop.

When the last ticket of a batch closes, Airflow is told where there is one; without Airflow, the batch is collected and
published right here, so that a laptop needs no scheduler.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import httpx

from engine.services import Services, connect
from engine.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI


class QueueFailed(Exception):
    """The queue did not start."""


def app(s: Services) -> FastAPI:
    """The queue's application over these services."""
    from annotation_queue.api import create_app
    from engine.media import StoredMedia

    store, accounts = s.open_queue()
    return create_app(store, StoredMedia(s), accounts=accounts, deliver=deliverer(s.settings))


def run(settings: Settings) -> None:
    """Serves until Ctrl-C or SIGTERM. Raises QueueFailed if the port is taken."""
    import uvicorn

    _check_port(settings.queue.host, settings.queue.port)
    with connect(settings) as s:
        uvicorn.run(app(s), host=settings.queue.host, port=settings.queue.port, log_level="warning", access_log=False)


def deliverer(settings: Settings) -> Callable[[str], None]:
    """What is done with the id of a drained batch; the queue calls again if it raises."""

    def tell_airflow(batch_id: str) -> None:
        from engine.airflow import AirflowClient, saved_password

        assert settings.airflow.url is not None
        password = os.environ.get("MASKLETS_AIRFLOW_PASSWORD") or saved_password(airflow_home(settings))
        with AirflowClient(settings.airflow.url, password=password) as client:
            client.asset_event("reviewed", {"batch_id": batch_id})

    def finish_here(batch_id: str) -> None:
        from engine import publish, review

        with connect(settings) as s:
            if batch_id in review.to_collect(s):
                review.collect(s, batch_id)
            if batch_id in publish.pending(s):
                publish.run(s, batch_id)

    return tell_airflow if settings.airflow.url else finish_here


def airflow_home(settings: Settings) -> Path:
    """Where the Airflow of `masklets up` lives."""
    return settings.home.absolute() / "airflow"


class QueueProcess:
    """`masklets serve` as a child process in a session of its own; leaving the context stops it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        queue = self._settings.queue
        _check_port(queue.host, queue.port)
        self._settings.home.mkdir(parents=True, exist_ok=True)
        log = self._settings.home / "queue.log"
        with log.open("ab") as file:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "engine.cli", "serve"],
                env=os.environ | self._settings.environment(),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{self._settings.queue_url}/healthz", timeout=2, trust_env=False).is_success:
                    return self
            except httpx.HTTPError:
                pass
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.stop()
                lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
                raise QueueFailed(f"the queue did not start: {lines[-1]}; see {log}")
            time.sleep(0.1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raises QueueFailed if the process has ended."""
        if self._child is not None and self._child.poll() is not None:
            raise QueueFailed(
                f"the queue ended with status {self._child.returncode}; see {self._settings.home}/queue.log"
            )

    def stop(self) -> None:
        """Ends the process: gently, then for good."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._child = None


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise QueueFailed(f"cannot listen on {host}:{port}: {error.strerror}") from None
