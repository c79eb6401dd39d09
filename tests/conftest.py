"""What every test may rely on: no settings leak in from the environment, Ctrl-C works, one thread per process, and each
test has the marker of its tier.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import tiers
from tests.storage.rows import make_masklet, make_video

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several threads in each of two processes slow two cores down
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts a background job with Ctrl-C ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)

# no example fails because the machine is busy
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m fast`, modules of the other tiers are not imported: torch alone takes seconds."""
    if tiers.only_fast(config) and collection_path.name.startswith("test_") and collection_path.suffix == ".py":
        return tiers.tier_of_module(collection_path) != "fast" or None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(getattr(pytest.mark, tiers.tier_of(item)))


@pytest.fixture
def video():
    """Makes a valid row of the table `videos`."""
    return make_video


@pytest.fixture
def masklet():
    """Makes a valid row of the table `masklets`."""
    return make_masklet


HEAVY = pytest.StashKey[set[str]]()  # the heavy libraries that processes of this run imported


def pytest_configure(config: pytest.Config) -> None:
    config.stash[HEAVY] = set()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With xdist, the tests run in worker processes: each reports what it imported (`pytest_sessionfinish`)."""
    node.config.stash[HEAVY] |= set(getattr(node, "workeroutput", {}).get("heavy", ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The fast tier keeps its promise: a run of it that imported torch fails."""
    heavy = session.config.stash[HEAVY]
    heavy |= set(tiers.heavy_modules())
    if hasattr(session.config, "workeroutput"):  # this process is a worker of xdist
        session.config.workeroutput["heavy"] = sorted(heavy)
    elif tiers.only_fast(session.config) and heavy:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if tiers.only_fast(config) and (heavy := config.stash[HEAVY]):
        terminalreporter.write_line(f"the fast tests imported {', '.join(sorted(heavy))}: see tests/tiers.py", red=True)


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No MASKLETS_ variable of the developer's shell reaches a test."""
    for name in list(os.environ):
        if name.startswith("MASKLETS_") and not name.startswith("MASKLETS_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MASKLETS_CONFIG", os.devnull)


@pytest.fixture(autouse=True)
def fast_tests_stay_fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of the tier `fast` starts no process and no server."""
    if request.node.get_closest_marker("fast"):
        tiers.forbid(monkeypatch)
