"""Runs the steps of experiments: each one once, two at a time, each in a process that only this program starts.

A step's result is one JSON file, which appears whole or not at all, so a killed experiment goes on where it was. Knows
nothing of what the steps do.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

from engine.experiments.plan import Plan
from engine.files import alone
from engine.progress import Progress
from storage.errors import first_line
from storage.whole_files import complete

WORKERS = 2  # processes, each with one thread
SAVE_EVERY_S = 10.0  # between two writes of the seconds that a step has taken

Result = dict[str, Any]  # JSON


@dataclass(frozen=True)
class Experiment:
    """All steps on one domain. folder: of its homes, training runs and results."""

    folder: Path
    domain: str
    plan: Plan

    def result(self, step: str) -> Result:
        """The result of a finished step. Raises FileNotFoundError."""
        found: Result = json.loads(self._file(step).read_text())
        return found

    def results(self, steps: Sequence[str]) -> dict[str, Result]:
        """The results of those steps that are finished."""
        return {step: self.result(step) for step in steps if self.is_done(step)}

    def is_done(self, step: str) -> bool:
        """Whether the step has its result."""
        return self._file(step).exists()

    def keep(self, step: str, result: Mapping[str, object]) -> None:
        """Writes the result of a step."""
        write_json(self._file(step), result)

    def spent_file(self, step: str) -> Path:
        """Where the seconds of a step are kept until it has its result."""
        return self.folder / "steps" / f"{step}.spent"

    def _file(self, step: str) -> Path:
        return self.folder / "steps" / f"{step}.json"


@dataclass(frozen=True)
class Step:
    """One step of an experiment. work: a function of a module, or a `partial` of one, because it is pickled."""

    name: str
    needs: tuple[str, ...]  # names of steps
    work: Callable[[Experiment], Mapping[str, object]]


@dataclass(frozen=True)
class Failure:
    """A step that failed: the next run tries it again, and the steps that need it."""

    domain: str
    step: str
    reason: str


def run(
    experiments: Sequence[Experiment],
    steps: Sequence[Step],
    progress: Progress,
    tell: Callable[[Failure], None] = lambda failure: None,
) -> list[Failure]:
    """Runs the steps that have no result yet, and those that need them afterwards. Returns the steps that failed.

    An earlier step goes first. A step that fails stops only the steps that need it. tell: gets each failure at once.
    Raises InUse if another process works in a folder; ValueError if the folder belongs to another plan.
    """
    with _locked(experiments):
        for experiment in experiments:
            _check_plan(experiment)
        todo = [(experiment, step) for experiment in experiments for step in steps]
        waiting = [(experiment, step) for experiment, step in todo if not experiment.is_done(step.name)]
        failures: list[Failure] = []
        with _workers() as pool:
            running: dict[Future[None], tuple[Experiment, Step]] = {}
            while True:
                for experiment, step in list(waiting):
                    if len(running) < WORKERS and all(experiment.is_done(name) for name in step.needs):
                        waiting.remove((experiment, step))
                        running[pool.submit(perform, experiment, step)] = (experiment, step)
                names = ", ".join(f"{experiment.domain} {step.name}" for experiment, step in running.values())
                progress(len(todo) - len(waiting) - len(running) - len(failures), len(todo), names)
                if not running:
                    return failures
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    experiment, step = running.pop(future)
                    if (error := future.exception()) is not None:
                        failures.append(Failure(experiment.domain, step.name, first_line(error)))
                        tell(failures[-1])


def perform(experiment: Experiment, step: Step) -> None:
    """Does one step in this process and keeps its result, with the seconds that it took in all its attempts."""
    spent_file = experiment.spent_file(step.name)
    with _timed(spent_file) as spent:
        result = dict(step.work(experiment))
        experiment.keep(step.name, result | spent())
    spent_file.unlink()


@contextmanager
def _timed(path: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """Yields what tells the seconds spent so far, with those of earlier attempts. A kill loses at most SAVE_EVERY_S."""
    before: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    begun, used, over = time.monotonic(), _cpu_s(), threading.Event()

    def spent() -> dict[str, float]:
        now = {"seconds": time.monotonic() - begun, "cpu_seconds": _cpu_s() - used}
        return {name: round(before.get(name, 0.0) + value, 1) for name, value in now.items()}

    def keep() -> None:
        while not over.wait(SAVE_EVERY_S):
            write_json(path, spent())

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield spent
    finally:
        over.set()
        keeper.join()
        write_json(path, spent())


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file, which appears whole or not at all."""
    with complete(path, one_writer=True) as temporary:
        temporary.write_text(json.dumps(value, indent=1))


def _cpu_s() -> float:
    """CPU seconds of this process and of its children that ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@contextmanager
def _locked(experiments: Sequence[Experiment]) -> Iterator[None]:
    if not experiments:
        yield
        return
    with alone(experiments[0].folder / "lock", wait=False), _locked(experiments[1:]):
        yield


def _check_plan(experiment: Experiment) -> None:
    """Keeps the plan in the folder. Raises ValueError if the folder has another one."""
    path, plan = experiment.folder / "plan.json", json.loads(json.dumps(asdict(experiment.plan)))
    if not path.exists():
        write_json(path, plan)
    elif json.loads(path.read_text()) != plan:
        raise ValueError(f"{experiment.folder} holds an experiment of another plan: choose another folder")


@contextmanager
def _workers() -> Iterator[ProcessPoolExecutor]:
    """The processes of the steps. They end with this one, also if it is killed or stopped."""
    others = active_children()
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"), initializer=_begin_worker) as pool:
        try:
            yield pool
        except BaseException:
            for child in active_children():
                if child not in others:
                    child.terminate()
            raise


def _begin_worker() -> None:
    """Ends this process when its parent ends, also if that is killed."""
    parent = parent_process()
    assert parent is not None  # the pool has started this process

    def follow() -> None:
        parent.join()
        os._exit(1)  # its step is done again

    threading.Thread(target=follow, daemon=True).start()
