"""`masklets serve` as a child process that others start and stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from engine.processes.ports import check_port
from engine.settings import Settings

MAX_ENDS = 5  # of the child within ENDS_S; then it is given up
ENDS_S = 300.0


class QueueFailed(Exception):
    """The queue did not start, or ended too often."""


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
        check_port(queue.host, queue.port)
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


def end_with_parent() -> None:
    """Waits until standard input ends, and ends this process at once: whatever it does may be cut off."""
    while os.read(0, 1):
        pass
    os._exit(1)
