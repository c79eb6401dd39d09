"""A round's training in several processes, on one machine or on several: starts them, and finds them again.

The setting `rounds.launcher`, such as `torchrun --standalone --nproc-per-node 8`, is the command that starts the
processes of `engine.rounds.member`. torchrun and its processes outlive a killed caller, and torchrun holds the round's
lock: a retry on this machine waits for them and starts no others. A caller that is asked to stop (Ctrl-C, SIGTERM) ends
them, and they end when torchrun is killed; the next caller continues from the last saved step. Knows nothing of models.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.processes.children import Child, environment_without, terminate
from engine.settings import Settings

if TYPE_CHECKING:
    from model.training.trainer import TrainingProgress

MEMBER = "engine.rounds.member"
# Why a member stopped, in one line. Once one has stopped, the others lose their connection to it and stop too: their
# reasons must not replace one that a retry cannot fix, so this has a file of its own.
PROBLEM = "problem.txt"
PROBLEM_FOR_GOOD = "problem_for_good.txt"
LOOK_S = 1.0  # between two looks at a training that runs
END_S = 40.0  # for a launcher that is asked to end: torchrun waits for its processes for 30 s, then kills them


class TrainingFailed(Exception):
    """The processes of a training ended without a checkpoint."""


class FailedForGood(TrainingFailed, ValueError):
    """The processes of a training ended for a reason that a retry cannot fix."""


def train_in_processes(
    settings: Settings,
    round_id: str,
    folder: Path,
    lock: Path,
    finished: Callable[[], bool],
    report: Callable[[TrainingProgress], None],
) -> None:
    """Trains a round by the launcher of the settings, or waits for the training of it that runs on this machine.

    folder: the round's, with curve.jsonl.  lock: the round's.  finished: whether the checkpoint is stored.
    Raises TrainingFailed, FailedForGood; ValueError if the launcher cannot be started.
    """
    curve = _Curve(folder / "curve.jsonl", report)
    with _inherited(lock, curve.look) as held:
        if finished():
            return
        for name in (PROBLEM, PROBLEM_FOR_GOOD):
            (folder / name).unlink(missing_ok=True)
        status = _launched(settings, round_id, folder / "training.log", held, curve.look)
    if not finished():
        raise _failure(folder, status)


def leave_problem(folder: Path, problem: str, *, for_good: bool) -> None:
    """Leaves the reason of a member that stops, in one line. for_good: a retry cannot fix it."""
    folder.mkdir(parents=True, exist_ok=True)  # another machine than the caller's may not have it
    (folder / (PROBLEM_FOR_GOOD if for_good else PROBLEM)).write_text(problem)


def _failure(folder: Path, status: int) -> TrainingFailed:
    """The error for the reason that the members left. status: of the launcher, for members that left none."""
    kinds: tuple[tuple[str, type[TrainingFailed]], ...] = ((PROBLEM_FOR_GOOD, FailedForGood), (PROBLEM, TrainingFailed))
    for name, kind in kinds:
        if (folder / name).exists():
            return kind(f"{(folder / name).read_text()} (see {folder / 'training.log'})")
    return TrainingFailed(f"the launcher ended with status {status} (see {folder / 'training.log'})")


def _launched(settings: Settings, round_id: str, log: Path, held: int, look: Callable[[], None]) -> int:
    """The exit status of the launcher. It ends with all that it started if this process is asked to stop."""
    assert settings.rounds.launcher is not None
    command = [*shlex.split(settings.rounds.launcher), "-m", MEMBER, round_id]
    environment = environment_without("MASKLETS_") | settings.environment()
    child = Child("the training", command, log=log, environment=environment, inherits=(held,))
    try:
        child.start()
    except OSError as error:
        raise ValueError(f"rounds.launcher: {error}") from error
    try:
        while (status := child.wait(LOOK_S)) is None:
            look()
        return status
    except BaseException:
        try:
            terminate([child], END_S)  # torchrun alone can end its processes: they are not in its session
        finally:
            child.kill()
        raise


@contextmanager
def _inherited(lock: Path, wait: Callable[[], None]) -> Iterator[int]:
    """Holds a lock file as `engine.files.alone` does, by a file descriptor that a child process can inherit.

    The lock lasts until every process that has the descriptor has closed it. wait: called while others hold it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(LOOK_S)
                wait()
        yield descriptor
    finally:
        os.close(descriptor)


class _Curve:
    """Reports the lines that a training adds to its curve, so that a caller sees the progress of other processes."""

    def __init__(self, path: Path, report: Callable[[TrainingProgress], None]) -> None:
        self._path, self._report = path, report
        self._at = path.stat().st_size if path.exists() else 0

    def look(self) -> None:
        """Reports what is new."""
        from model.training.trainer import TrainingProgress

        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    break
                self._at += len(line)
                self._report(TrainingProgress(**json.loads(line)))
