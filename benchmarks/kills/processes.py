"""Worker processes that the benchmark kills: each one takes jobs, and after a kill a new one takes its place.

A `Crew` hands jobs to its processes, as Airflow's scheduler does: a job whose process died, or that failed with an
error, is given to the next free process. A `Killer` sends SIGKILL at random moments of the work.
"""

from __future__ import annotations

import json
import multiprocessing
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.kills import jobs
from engine.settings import Settings
from storage.blobs.base import BlobMissing, Blobs

CONTEXT = multiprocessing.get_context("forkserver")
PATIENCE_S = 300.0  # that a job may take: after that it hangs
TRIES = 30  # of one job; Airflow's reconciler would never give up
UP_S = 60.0


@dataclass
class Tally:
    """What happened to the processes."""

    kills: Counter[str] = field(default_factory=Counter)  # by role
    spared: int = 0  # workers that were not killed, because their video had cost a worker before
    most_lost: int = 0  # videos at work in one killed process, at most
    retried: Counter[str] = field(default_factory=Counter)  # jobs that were run again, by the error's name
    hangs: int = 0  # jobs without an end in time
    crashes: list[str] = field(default_factory=list)  # errors without a type of the project, with their traceback


@dataclass
class _Job:
    name: str
    arguments: tuple[Any, ...]
    result: Future[Any]
    tries: int = 0


class Crew:
    """Processes of one role."""

    def __init__(
        self,
        role: str,
        size: int,
        settings: Callable[[int], Settings],
        done: Path,
        environment: dict[str, str],
        tally: Tally,
    ) -> None:
        """settings: those of the process with a number.  done: where the work on videos is noted."""
        self.role, self.tally = role, tally
        self._start: Callable[[int, Any], Any] = lambda number, line: CONTEXT.Process(
            target=jobs.work, args=(line, settings(number), done, environment), daemon=True
        )
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._busy: dict[int, int] = {}  # number -> pid of a process with a job
        self._lock, self._over = threading.Lock(), False
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(size)]
        for thread in self._threads:
            thread.start()

    def do(self, name: str, *arguments: Any) -> Any:
        """The result of a job, however many processes it takes. Raises RuntimeError if it fails again and again."""
        job = _Job(name, arguments, Future())
        self._jobs.put(job)
        return job.result.result()

    def busy(self) -> list[int]:
        """The processes that have a job now."""
        with self._lock:
            return list(self._busy.values())

    def abort(self) -> None:
        """No job is run any more; those that wait fail."""
        self._over = True

    def close(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        process, line = None, None
        while (job := self._jobs.get()) is not None:
            if self._over:
                job.result.set_exception(RuntimeError("the run is over"))
                continue
            if process is None or line is None or not process.is_alive():
                line, theirs = CONTEXT.Pipe()
                process = self._start(number, theirs)
                process.start()
                theirs.close()
            try:
                line.send((job.name, job.arguments))
                with self._lock:
                    self._busy[number] = process.pid
                if not line.poll(PATIENCE_S):
                    self.tally.hangs += 1
                    process.kill()
                kind, answer = line.recv()
            except (EOFError, OSError):  # it was killed
                process.join()
                process = None
                self._jobs.put(job)
                continue
            finally:
                with self._lock:
                    self._busy.pop(number, None)
            if kind == "done":
                job.result.set_result(answer)
                continue
            typed, said, trace = answer
            job.tries += 1
            self.tally.retried[said.partition(":")[0]] += 1
            if not typed:
                self.tally.crashes.append(trace)
            if job.tries == TRIES:
                job.result.set_exception(RuntimeError(f"{self.role}: {job.name} failed {TRIES} times: {said}"))
            else:
                time.sleep(0.2)
                self._jobs.put(job)
        if line is not None:
            line.close()
        if process is not None:
            process.join()


class QueueServer:
    """A queue server that is started again whenever it dies."""

    def __init__(self, settings: Settings, environment: dict[str, str]) -> None:
        self._settings, self._environment = settings, environment
        self._over = threading.Event()
        self._process: Any = None
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + UP_S
        while not self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError("the queue server does not answer")
            time.sleep(0.1)

    def busy(self) -> list[int]:
        """Its process, while it answers."""
        return [self._process.pid] if self._answers() else []

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return bool(httpx.get(f"{self._settings.queue_url}/healthz", timeout=2, trust_env=False).is_success)
        return False

    def _watch(self) -> None:
        while not self._over.is_set():
            if self._process is None or not self._process.is_alive():
                self._process = CONTEXT.Process(
                    target=jobs.serve, args=(self._settings, self._environment), daemon=True
                )
                self._process.start()
            self._over.wait(0.1)
        self._process.terminate()
        self._process.join(10)


class Killer:
    """Kills processes at random moments: one whenever the work has come as far as a random mark.

    A video at which two workers died is given up (`engine/attempts.py`): a rule of the product, and no loss. So
    that this run can be compared with one without kills, a worker is spared while it works on a video that has cost a
    worker before. A worker is stopped first, so that what it works on is known when it is killed.
    """

    def __init__(self, blobs: Blobs, tally: Tally, seed: int) -> None:
        self.blobs, self.tally, self.chance = blobs, tally, random.Random(seed)

    def kill(self, role: str, pid: int) -> bool:
        """Kills a process with all that it has started; False if it is spared, or gone."""
        try:
            first = psutil.Process(pid)
            first.suspend()
            tree = [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return False
        for each in tree[1:]:
            with suppress(psutil.NoSuchProcess):
                each.suspend()
        mine, before = self._attempts({each.pid for each in tree})
        is_spared = bool(mine & before)
        for each in reversed(tree):
            try:
                if is_spared:
                    each.resume()
                else:
                    each.kill()
            except psutil.NoSuchProcess:  # somebody else has ended it, such as its crew
                if each is first:
                    return False
        if is_spared:
            self.tally.spared += 1
            return False
        self.tally.kills[role] += 1
        self.tally.most_lost = max(self.tally.most_lost, len(mine))
        return True

    def _attempts(self, pids: AbstractSet[int]) -> tuple[set[str], set[str]]:
        """The subjects that these processes work on, and those at which another one has died."""
        mine, before = set[str](), set[str]()
        for key in self.blobs.keys("attempts/"):
            with suppress(BlobMissing):
                of = int(json.loads(self.blobs.read(key))["pid"])
                if of in pids:
                    mine.add(key.rpartition("/")[0])
                elif not _lives(of):
                    before.add(key.rpartition("/")[0])
        return mine, before


def _lives(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False
