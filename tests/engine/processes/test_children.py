"""Child processes: those that die, their own children, and which processes end together."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine.processes.children import Child, ChildFailed, Supervisor, environment_without, stay, terminate
from engine.progress import ignore

pytestmark = pytest.mark.server

SLEEPS = "import time; time.sleep(60)"
HAS_A_CHILD = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '{SLEEPS}']).pid, flush=True)"


def python(folder: Path, program: str, **variables: str) -> Child:
    return Child("the child", [sys.executable, "-c", program], log=folder / "logs" / "child.log", environment=variables)


def runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def first_line(child: Child) -> str:
    deadline = time.monotonic() + 60
    while not (child.log.exists() and child.log.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return child.log.read_text().splitlines()[0]


def test_a_child_that_dies_is_restarted_four_times_and_then_given_up_with_its_last_line(tmp_path: Path) -> None:
    child = python(tmp_path, "print('the reason'); raise SystemExit(3)")
    told: list[str] = []
    assert child.status() is None and not child.restart_if_dead(told.append), "it was not started"
    child.start()
    for _ in range(4):
        assert child.wait(60) == 3
        assert child.restart_if_dead(told.append)
    assert child.wait(60) == 3
    with pytest.raises(ChildFailed, match=r"the child died 5 times \(3\): the reason \(see .*child.log\)"):
        child.restart_if_dead(told.append)
    assert told == ["the child died (3); starting it again"] * 4


def test_a_supervisor_restarts_what_dies_until_that_is_too_often_and_ends_the_others(tmp_path: Path) -> None:
    told: list[str] = []
    changes: list[int] = []
    supervisor: Supervisor = Supervisor(told.append, lambda: changes.append(len(supervisor.children)))
    dying, living = python(tmp_path, "raise SystemExit(3)"), python(tmp_path, SLEEPS)
    living.name = "the other"
    try:
        supervisor.start(dying)
        supervisor.start(living)
        assert dying.wait(60) == 3 and told == [], "before `watch` it stays dead"
        supervisor.watch()
        with pytest.raises(ChildFailed, match="the child died 5 times"):
            stay(supervisor.check)
        assert told == ["the child died (3); starting it again"] * 4
        assert changes == [1, 2, 2, 2, 2, 2]
        assert living.status() is None
    finally:
        supervisor.end(([dying, living], 10.0))
    assert living.status() == -15 and supervisor.children == {}


def test_a_supervisor_that_cannot_start_a_child_again_says_so(tmp_path: Path) -> None:
    full: list[OSError] = []

    def changed() -> None:  # remembers the sessions in a file
        if full:
            raise full[0]

    supervisor = Supervisor(lambda line: None, changed)
    dying = python(tmp_path, "raise SystemExit(3)")
    try:
        supervisor.start(dying)
        full.append(OSError(28, "No space left on device"))
        supervisor.watch()
        with pytest.raises(ChildFailed, match="cannot be started again: .*No space left"):
            stay(supervisor.check)
    finally:
        supervisor.end(([dying], 10.0))


def test_a_restart_kills_what_the_dead_child_left_in_its_session(tmp_path: Path) -> None:
    child = python(tmp_path, HAS_A_CHILD)
    child.start()
    orphan = int(first_line(child))
    assert child.wait(60) == 0 and runs(orphan)
    child.restart_if_dead(ignore)
    try:
        assert not runs(orphan)
    finally:
        child.kill()


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace_with_its_whole_session(tmp_path: Path) -> None:
    stubborn = python(tmp_path, f"import signal; signal.signal(15, signal.SIG_IGN); {HAS_A_CHILD}; {SLEEPS}")
    stubborn.start()
    grandchild = int(first_line(stubborn))
    terminate([stubborn], 0.1)
    assert stubborn.status() is None and runs(grandchild)
    stubborn.kill()
    assert stubborn.status() == -9 and not runs(grandchild)
    stubborn.kill()  # can be repeated


def test_a_child_gets_only_the_environment_that_was_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLETS_SECRET", "x")
    monkeypatch.setenv("SOMETHING_ELSE", "stays")
    passed = environment_without("MASKLETS_") | {"MASKLETS_HOME": "/data"}
    others = {name: value for name, value in os.environ.items() if not name.startswith("MASKLETS_")}
    assert passed == others | {"MASKLETS_HOME": "/data"}
    program = "import os; print(sorted(k for k in os.environ if k.startswith(('MASKLETS', 'SOMETHING'))))"
    child = python(tmp_path, program, **passed)
    child.start()
    assert first_line(child) == "['MASKLETS_HOME', 'SOMETHING_ELSE']"
    child.kill()
