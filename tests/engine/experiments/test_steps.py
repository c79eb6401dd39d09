"""The steps of an experiment: each one runs once, a killed run goes on, and a failure stops only what needs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.experiments import steps
from engine.experiments.plan import QUICK
from engine.experiments.steps import Experiment, Failure, Step
from storage.lease import InUse
from tests.engine.experiments import toy_steps

pytestmark = pytest.mark.server

SLOW = [Step("first", (), toy_steps.first), Step("slow", ("first",), toy_steps.slow)]


def experiment_in(folder: Path) -> Experiment:
    """An experiment in a folder; toy steps look at no plan."""
    return Experiment(folder / "cells", "cells", QUICK)


def ignore(done: int, total: int, name: str) -> None:
    """A `Progress` for tests."""


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_killed_run_leaves_no_process_and_goes_on_with_the_steps_that_have_no_result(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    runner = subprocess.Popen([sys.executable, "-m", "tests.engine.experiments.run_toys", str(tmp_path)])
    try:
        while not (experiment.folder / "pid").exists():
            assert runner.poll() is None
            time.sleep(0.02)
        with pytest.raises(InUse):
            steps.run([experiment], SLOW, ignore)
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    worker = int((experiment.folder / "pid").read_text())
    while not _ended(worker):  # it would do the step a second time, beside the next run
        time.sleep(0.02)
    assert experiment.is_done("first") and not experiment.is_done("slow")
    (experiment.folder / "go").touch()
    seen: list[tuple[int, int]] = []
    assert steps.run([experiment], SLOW, lambda done, total, name: seen.append((done, total))) == []
    assert (experiment.folder / "ran").read_text() == "first\n"
    assert experiment.result("slow")["value"] == 2
    assert seen[0] == (1, 2) and seen[-1] == (2, 2)


def test_a_step_that_fails_stops_only_the_steps_that_need_it_and_is_tried_again(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    table = [
        Step("broken", (), toy_steps.broken),
        Step("later", ("broken",), toy_steps.first),
        Step("first", (), toy_steps.first),
    ]
    failed = [Failure("cells", "broken", "nothing to measure in cells")]
    told: list[Failure] = []
    assert steps.run([experiment], table, ignore, told.append) == failed == told
    assert experiment.is_done("first") and not experiment.is_done("later")
    assert steps.run([experiment], [replace(table[0], work=toy_steps.first), table[1]], ignore) == []
    assert experiment.is_done("later")


def test_a_folder_keeps_its_plan(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    assert steps.run([experiment], [], ignore) == []
    with pytest.raises(ValueError, match="another plan"):
        steps.run([replace(experiment, plan=replace(QUICK, steps=3))], [], ignore)


def test_the_seconds_of_a_step_are_those_of_all_its_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SAVE_EVERY_S", 0.01)
    experiment = experiment_in(tmp_path)
    spent = experiment.spent_file("long")

    def stopped(_: Experiment) -> steps.Result:
        deadline = time.process_time() + 60
        while not spent.exists() or json.loads(spent.read_text())["cpu_seconds"] < 0.2:
            assert time.process_time() < deadline  # a kill would leave what the file says now
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        steps.perform(experiment, Step("long", (), stopped))
    before = json.loads(spent.read_text())
    steps.perform(experiment, Step("long", (), lambda _: {"value": 1}))
    result = experiment.result("long")
    assert result["value"] == 1 and not spent.exists()
    assert result["cpu_seconds"] >= before["cpu_seconds"] >= 0.2 and result["seconds"] >= before["seconds"]
