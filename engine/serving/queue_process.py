"""`masklets serve` as a child process, for `masklets up`, `masklets run`, the demo and the benchmarks."""

from __future__ import annotations

import sys
import time
from typing import Self

import httpx

from engine.files import private_folder
from engine.processes.children import Child, ChildFailed, Supervisor, environment_without
from engine.processes.ports import check_port
from engine.progress import Tell, ignore
from engine.settings import Settings

START_S = 60.0  # until the queue must answer
GRACE_S = 10.0  # that the queue has to end by itself


class QueueProcess:
    """The queue of these settings. A context manager: entering starts it and waits until it answers, leaving ends it.

    A queue that dies is started again. It also ends when this process is killed.

    deliver: False leaves drained batches to the caller.
    tell: gets one line about each restart.
    """

    def __init__(self, settings: Settings, *, deliver: bool = True, tell: Tell = ignore) -> None:
        self._settings, self._supervisor = settings, Supervisor(tell)
        self._child = Child(
            "the queue",
            [sys.executable, "-m", "engine.cli", "serve", "--with-parent", *([] if deliver else ["--no-deliver"])],
            log=settings.home / "queue.log",
            environment=environment_without("MASKLETS_") | settings.environment(),
            watches_us=True,
        )

    def __enter__(self) -> Self:
        check_port(self._settings.queue.host, self._settings.queue.port)
        private_folder(self._settings.home)  # before the log is made there
        try:
            self._supervisor.start(self._child)
            self._wait_until_up()
            self._supervisor.watch()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The id of the process that runs now."""
        return self._child.pid

    def check(self) -> None:
        """Raises ChildFailed if the queue died too often. For the loop that waits while it runs."""
        self._supervisor.check()

    def stop(self) -> None:
        """Ends the queue; can be repeated."""
        self._supervisor.end(([self._child], GRACE_S))

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                if httpx.get(f"{self._settings.queue_url}/healthz", timeout=2, trust_env=False).is_success:
                    return
            except httpx.HTTPError:
                pass
            if self._child.status() is not None or time.monotonic() > deadline:
                raise ChildFailed(f"the queue did not start: {self._child.last_line()}")
            time.sleep(0.1)
