"""Child processes: each runs in a session of its own and writes to a log file; a supervisor restarts those that die.

A session is killed as a whole, because what a child started may outlive the child there: the tasks of a dead Airflow
scheduler run on, and a new scheduler would run them a second time.

A child must not outlive this process, however this process ends. There are three ways:
- A program of ours runs `end_with_parent`, which watches a pipe from this process.
- A program of ours that another program starts for us, such as torchrun, runs `end_when_orphaned`.
- The sessions of any other program are kept in a file by `remember`; the next start ends them with `end_left`.

Knows nothing about what the children do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from engine.files import private_file
from engine.progress import Tell
from storage.errors import first_line
from storage.whole_files import complete
from storage.wording import counted

MAX_DEATHS = 5  # of one child within DEATHS_S; then it is not started again
DEATHS_S = 300.0
LOOK_S = 0.5  # between two looks at the children


class ChildFailed(Exception):
    """A child process did not start, or died again and again."""


class Child:
    """One program as a child process. It can be started, started again after it died, and ended.

    name: for messages, such as "the queue".
    log: file that its output is appended to.
    environment: all its variables; nothing is inherited.
    watches_us: its standard input is a pipe that closes when this process ends, for `end_with_parent`.
    inherits: file descriptors of this process that it gets, such as that of a lock which it holds from then on.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        watches_us: bool = False,
        inherits: Sequence[int] = (),
    ) -> None:
        self.name, self.log, self._inherits = name, log, tuple(inherits)
        self._command, self._environment = list(command), dict(environment)
        self._stdin = subprocess.PIPE if watches_us else subprocess.DEVNULL
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._deaths: list[float] = []  # on the monotonic clock

    @property
    def pid(self) -> int:
        """The id of the process, which is also the id of its session."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        private_file(self.log)  # a log may hold what other users must not read
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=self._stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self._inherits,
            )
        self._killed = False

    def status(self) -> int | None:
        """The exit status; None while the process runs or before it was started."""
        return None if self._process is None else self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """The exit status; None if the process still runs after `timeout_s` seconds, or was not started."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(max(0.0, timeout_s))
        return None

    def restart_if_dead(self, tell: Tell) -> bool:
        """Starts the process again if it died, and says whether it did.

        Raises ChildFailed instead of a restart at the fifth death within five minutes.
        """
        status = self.status()
        if status is None:
            return False
        self.kill()
        now = time.monotonic()
        self._deaths = [then for then in self._deaths if now - then < DEATHS_S] + [now]
        if len(self._deaths) >= MAX_DEATHS:
            raise ChildFailed(f"{self.name} died {counted(len(self._deaths), 'time')} ({status}): {self.last_line()}")
        tell(f"{self.name} died ({status}); starting it again")
        self.start()
        return True

    def terminate(self) -> None:
        """Sends SIGTERM to the process, if it runs."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kills whatever is left of the session. Can be repeated."""
        if self._process is None or self._killed:
            return
        kill_session(self._process.pid)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._killed = True  # its id may belong to another program from now on

    def last_line(self) -> str:
        """The last line of the log, with the name of the log file."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'no output'} (see {self.log})"


class Supervisor:
    """Restarts children that die, in a thread, until one of them dies too often.

    tell: gets one line about each restart.
    changed: called when a child was started or restarted, so that its session can be remembered.
    """

    def __init__(self, tell: Tell, changed: Callable[[], None] = lambda: None) -> None:
        self.children: dict[str, Child] = {}  # by name
        self._tell, self._changed = tell, changed
        self._failure: ChildFailed | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self, child: Child) -> None:
        """Starts a child. A child that dies before `watch` is called stays dead."""
        child.start()
        self.children[child.name] = child
        self._changed()

    def watch(self) -> None:
        """Restarts children that die from now on."""
        self._failure = None
        self._watcher = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._watcher.start()

    def check(self) -> None:
        """Raises ChildFailed if a child died too often. For the loop that waits while the children run."""
        if self._failure is not None:
            raise self._failure

    def end(self, *groups: tuple[Sequence[Child], float]) -> None:
        """Ends all children: asks each group to end and waits for its seconds, then kills what is left.

        Can be repeated. A second Ctrl-C kills all of them at once.
        """
        self._stopping.set()
        try:
            self._join()
            for children, grace_s in groups:
                terminate(children, grace_s)
        finally:
            self._join()  # a child that was started during a Ctrl-C is killed too
            for child in self.children.values():
                child.kill()
            self.children.clear()
            self._watcher = None
            self._stopping.clear()

    def _join(self) -> None:
        if self._watcher is not None:
            self._watcher.join()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                for child in self.children.values():
                    if child.restart_if_dead(self._tell):
                        self._changed()
            except ChildFailed as failure:
                self._failure = failure
                return
            except Exception as error:  # of the machine, such as no memory for a process, or no space for a file
                self._failure = ChildFailed(f"a program that died cannot be started again: {first_line(error)}")
                return


def stay(*checks: Callable[[], None]) -> NoReturn:
    """Waits while children run, until one of these `check` functions raises or Ctrl-C comes."""
    while True:
        for check in checks:
            check()
        time.sleep(LOOK_S)


def terminate(children: Sequence[Child], grace_s: float) -> None:
    """Asks all of them to end and waits for at most `grace_s` seconds. The caller kills what is left."""
    deadline = time.monotonic() + grace_s
    for child in children:
        child.terminate()
    for child in children:
        child.wait(deadline - time.monotonic())


def environment_without(*prefixes: str) -> dict[str, str]:
    """The variables of this process, without those whose names begin with a prefix."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def end_with_parent() -> None:
    """In a child that watches us: waits until standard input closes, then ends this process at once."""
    while os.read(0, 1):
        pass
    os._exit(1)


def end_when_orphaned(parent: int) -> None:
    """In a child of a program that is not ours: waits until that program is gone, then ends this process at once.

    parent: the id of that program, read as early as possible.
    """
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


# -- sessions that a killed process left


@dataclass(frozen=True)
class _Session:
    """A session as the file holds it: its name, its first process and when that started (seconds since 1970)."""

    name: str
    pid: int
    started_s: float

    def is_ours(self) -> bool:
        """False if another program has the id now. An id is not reused while a session of that id lives."""
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.started_s) < 1.0)
        except psutil.NoSuchProcess:
            return any(_runs_our_python(pid) for pid in _members(self.pid))


def remember(children: Sequence[Child], file: Path) -> None:
    """Writes the sessions of these children to a file, for `end_left`."""
    rows = []
    for child in children:
        with suppress(psutil.NoSuchProcess):
            rows.append(asdict(_Session(child.name, child.pid, psutil.Process(child.pid).create_time())))
    with complete(file, one_writer=True) as temporary:
        temporary.write_text(json.dumps(rows))


def end_left(file: Path, tell: Tell) -> None:
    """Kills the sessions that are in the file and still run, and removes the file."""
    with suppress(FileNotFoundError, ValueError, TypeError):
        for session in [_Session(**row) for row in json.loads(file.read_text())]:
            if session.is_ours():
                tell(f"ending a {session.name} that was left running")
                kill_session(session.pid)
    file.unlink(missing_ok=True)


def kill_session(session: int) -> None:
    """Kills every process of a session, also those that are started meanwhile."""
    for _ in range(50):
        members = _members(session)
        if not members:
            return
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _members(session: int) -> list[int]:
    """The processes of a session, without zombies."""
    found = []
    for pid in psutil.pids():
        with suppress(OSError, psutil.Error):
            if os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def _runs_our_python(pid: int) -> bool:
    with suppress(psutil.Error):
        return Path(psutil.Process(pid).exe()) == Path(sys.executable).resolve()
    return False
