"""Whose request the model works on next: one thread runs the steps of all jobs.

Clicks come first, then propagations, one step of each in turn, then embeddings that are computed ahead. So no work
waits longer than one step of less urgent work. Knows nothing about masks, tickets or the model: a job is a generator.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

from cachetools import LRUCache

T = TypeVar("T")

CLICK, PROPAGATE, WARM = 0, 1, 2  # priorities: the smallest comes first
MAX_WARMING = 1000  # people whose last warm job is remembered


class Cancelled(Exception):
    """The job was cancelled."""


class Job:
    """Work in steps. `cancel` takes effect before the next step."""

    def __init__(self, steps: Generator[None], priority: int, done: Callable[[BaseException | None], None]) -> None:
        """done: called once at the end, with the error that ended the job, or None."""
        self._steps, self.priority, self._done = steps, priority, done
        self._cancelled = threading.Event()
        self.ended = threading.Event()  # set after `done` was called

    def cancel(self) -> None:
        """Ends the job: `done` is called with Cancelled."""
        self._cancelled.set()

    def step(self) -> bool:
        """Takes one step, or ends a cancelled job. Returns False once the job has ended."""
        goes_on = self._step()
        if not goes_on:
            self.ended.set()
        return goes_on

    def _step(self) -> bool:
        try:
            if not self._cancelled.is_set():
                next(self._steps)
                return True
            self._steps.close()
        except StopIteration:
            self._done(None)
        except BaseException as error:  # kept in no other variable: a cycle would keep the model that the job used
            self._done(error)
        else:
            self._done(Cancelled())
        return False


class Turns:
    """The thread that takes the steps: the most urgent job first, jobs of equal urgency in turn."""

    def __init__(self) -> None:
        self._jobs: list[tuple[int, int, Job]] = []
        self._count = 0
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._warming: LRUCache[str, Job] = LRUCache(MAX_WARMING)

    def stream(
        self,
        results: Generator[T | None],
        each: Callable[[T], None],
        done: Callable[[BaseException | None], None],
        *,
        urgent: bool = False,
    ) -> Job:
        """Adds a job that produces results one by one.

        results: each `next` is one step; None is a step without a result. Closed in the thread of the steps, also when
            the job is cancelled.
        each, done: called in the thread of the steps, `each` with every result, `done` once at the end.
        urgent: True for a click, because a person waits for it.
        Raises Cancelled after `close`.
        """

        def steps() -> Generator[None]:
            with contextlib.closing(results):
                for result in results:
                    if result is not None:
                        each(result)
                    yield None

        job = Job(steps(), CLICK if urgent else PROPAGATE, done)
        self._add(job)
        return job

    def warm(self, who: str, steps: Generator[None]) -> None:
        """Adds a job for idle moments. It replaces the last one of the same `who`."""
        job = Job(steps, WARM, lambda error: None)
        with self._ready:
            if (old := self._warming.get(who)) is not None:
                old.cancel()
            self._warming[who] = job
        self._add(job)

    def close(self) -> None:
        """Ends the thread after its current step, and cancels the jobs that are left."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _add(self, job: Job) -> None:
        with self._ready:
            if self._closed:
                raise Cancelled("the server is stopping")
            self._count += 1
            heapq.heappush(self._jobs, (job.priority, self._count, job))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="model", daemon=True)
                self._thread.start()
            self._ready.notify()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._jobs and not self._closed:
                    self._ready.wait()
                if not self._jobs:
                    return
                _, _, job = heapq.heappop(self._jobs)
                if self._closed:
                    job.cancel()
            if job.step():
                try:
                    self._add(job)
                except Cancelled:
                    job.cancel()
                    job.step()
