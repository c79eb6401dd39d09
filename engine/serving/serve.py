"""The queue and its page as a process: here in the foreground, or as a child that others start and stop.

When the last ticket of a batch closes, Airflow is told where there is one; without Airflow, the batch is collected and
published right here, so that a laptop needs no scheduler. A child ends with its parent, however that ends.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
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

    from annotation_queue.people.oidc import Provider
    from engine.processes.airflow import AirflowClient


MAX_ENDS = 5  # of the child within ENDS_S; then it is given up
ENDS_S = 300.0

log = logging.getLogger(__name__)
_finishing = threading.Lock()  # batches are finished one at a time: drained ones in one thread, left ones in another


class QueueFailed(Exception):
    """The queue did not start, or ended too often."""


class NotFinished(Exception):
    """A drained batch cannot be published yet."""


def app(s: Services, *, deliver: bool = True) -> FastAPI:
    """The queue's application over these services. deliver: False leaves drained batches to another process."""
    from annotation_queue.api.app import create_app
    from annotation_queue.tickets.store import GRACE_S
    from engine.serving.live_model import LiveModel
    from engine.serving.media import StoredMedia

    store, accounts = s.open_queue(GRACE_S)
    return create_app(
        store,
        StoredMedia(s),
        accounts=accounts,
        deliver=deliverer(s.settings) if deliver else None,
        secure_cookie=s.settings.queue.secure_cookie,
        segmenter=LiveModel(s),
        oidc=provider(s.settings),
    )


def provider(settings: Settings) -> Provider | None:
    """Whom people may log in with, besides by password. Raises ValueError for settings that cannot be."""
    from annotation_queue.people.oidc import Provider

    queue = settings.queue
    if queue.oidc_issuer is None:
        return None
    secret = queue.oidc_client_secret
    return Provider(
        queue.oidc_issuer,
        queue.oidc_client_id or "",
        None if secret is None else secret.get_secret_value(),
        page=settings.queue_url,
        name_claim=queue.oidc_name_claim,
        roles=[role.strip() for role in (queue.oidc_roles or "").split(",") if role.strip()],
    )


def run(settings: Settings, *, deliver: bool = True, with_parent: bool = False) -> None:
    """Serves until Ctrl-C or SIGTERM. Raises QueueFailed if the port is taken.

    deliver: False leaves drained batches to another process.
    with_parent: ends when standard input does, too.
    """
    import uvicorn

    if with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    _check_port(settings.queue.host, settings.queue.port)
    with connect(settings) as s:
        application = app(s, deliver=deliver)
        if deliver and not settings.airflow.url:
            threading.Thread(target=sweep, args=(settings,), daemon=True).start()
        uvicorn.run(
            application,
            host=settings.queue.host,
            port=settings.queue.port,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=5,  # a propagation that is cut off is asked for again
        )


def airflow(settings: Settings) -> AirflowClient:
    """The Airflow that is told of drained batches. Raises OSError where its password is nowhere."""
    from engine.processes.airflow import AirflowClient, saved_password

    assert settings.airflow.url is not None
    given = settings.airflow.password
    password = given.get_secret_value() if given else saved_password(airflow_home(settings))
    return AirflowClient(settings.airflow.url, password=password)


def deliverer(settings: Settings) -> Callable[[str], None]:
    """What is done with the id of a drained batch; the queue calls again if it raises."""

    def tell_airflow(batch_id: str) -> None:
        with airflow(settings) as client:
            client.asset_event("reviewed", {"batch_id": batch_id})

    def finish_here(batch_id: str) -> None:
        finish(settings, batch_id)

    return tell_airflow if settings.airflow.url else finish_here


def finish(settings: Settings, batch_id: str) -> None:
    """Collects and publishes a drained batch; nothing for a batch that is not of this store.

    A batch that the publish gate stops is logged and left until the next start: another try would only repeat it.
    Raises NotFinished for a batch that is not marked as in review yet; a batch without candidates drains before it is.
    """
    from engine.stages import batches, publish, review
    from engine.stages.batches import Stage

    with _finishing, connect(settings) as s:
        if batch_id not in batches.reached(s.blobs):
            return
        if batch_id in review.to_collect(s):
            review.collect(s, batch_id)
        if batch_id in publish.pending(s):
            try:
                publish.run(s, batch_id)
            except publish.PublishStopped as stopped:
                log.warning("%s", stopped)
                return
        if batches.facts(s.blobs, batch_id, Stage.PUBLISHED) is None:
            raise NotFinished(f"batch {batch_id} is drained, but not marked as in review yet")


def sweep(settings: Settings) -> None:
    """Finishes what an earlier process left: batches that it was told of and did not publish."""
    from engine.stages import publish, review

    with connect(settings) as s:
        left = sorted({*review.to_collect(s), *publish.pending(s)})
    for batch_id in left:
        try:
            finish(settings, batch_id)
        except Exception:  # the other batches do not suffer
            log.exception("batch %s is left as it is", batch_id)


def airflow_home(settings: Settings) -> Path:
    """Where the Airflow of `masklets up` lives."""
    return settings.home.absolute() / "airflow"


class QueueProcess:
    """`masklets serve` as a child process in a session of its own; leaving the context stops it.

    It ends with this process, too, even if that is killed: then its standard input, a pipe from here, is at its end.

    deliver: False leaves drained batches to the caller. progress: told in one line of every new start.
    """

    def __init__(
        self, settings: Settings, *, deliver: bool = True, progress: Callable[[str], None] = lambda line: None
    ) -> None:
        self._settings = settings
        self._words = ["serve", "--with-parent", *([] if deliver else ["--no-deliver"])]
        self._progress = progress
        self._child: subprocess.Popen[bytes] | None = None
        self._ends: list[float] = []  # when it ended by itself, on the monotonic clock

    def __enter__(self) -> Self:
        queue = self._settings.queue
        _check_port(queue.host, queue.port)
        self._settings.home.mkdir(parents=True, exist_ok=True)
        try:
            self._wait_until_up(self._spawn())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Starts the process again if it has ended. Raises QueueFailed if it does so again and again."""
        if self._child is None or self._child.poll() is None:
            return
        status, now = self._child.returncode, time.monotonic()
        self._ends = [then for then in self._ends if now - then < ENDS_S] + [now]
        if len(self._ends) >= MAX_ENDS:
            raise QueueFailed(f"the queue ended {len(self._ends)} times, at last with {status}; see {self._log}")
        self._progress(f"the queue ended with status {status}; starting it again")
        self.stop()
        self._spawn()

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
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child = None

    @property
    def _log(self) -> Path:
        return self._settings.home / "queue.log"

    def _spawn(self) -> subprocess.Popen[bytes]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MASKLETS_")}
        with self._log.open("ab") as file:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "engine.cli", *self._words],
                env=inherited | self._settings.environment(),
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        return self._child

    def _wait_until_up(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{self._settings.queue_url}/healthz", timeout=2, trust_env=False).is_success:
                    return
            except httpx.HTTPError:
                pass
            if child.poll() is not None or time.monotonic() > deadline:
                lines = self._log.read_text(errors="replace").strip().splitlines() or ["no output"]
                raise QueueFailed(f"the queue did not start: {lines[-1]}; see {self._log}")
            time.sleep(0.1)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """Waits until standard input ends, and ends this process at once: whatever it does may be cut off."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise QueueFailed(f"cannot listen on {host}:{port}: {error.strerror}") from None
