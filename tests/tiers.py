"""Tiers of tests, by what a test needs: nothing (`fast`), seconds (`slow`), torch (`model`), a process (`server`).

A test belongs to `model` if its module imports torch, directly or through the project's modules, or if it uses a
fixture that does. It belongs to `server` if it uses a fixture that starts one, runs on PostgreSQL or S3, or says so
with `pytest.mark.server`, and to `slow` if it says so. All others are `fast`: they can neither start a process nor
listen on a port (`forbid`). With `-m fast` the modules of the other tiers are not even imported.
"""

from __future__ import annotations

import multiprocessing.process
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from tests import tree

HEAVY = frozenset({"torch", "transformers"})
MODEL_FIXTURES = frozenset({"checkpoint"})
SERVER_FIXTURES = frozenset({"queue", "chromium", "firefox", "postgres_server", "moto_url", "honest", "liar"})

_TESTS = {".".join(p.relative_to(tree.ROOT).with_suffix("").parts): p for p in (tree.ROOT / "tests").rglob("*.py")}
_MODULES = tree.files() | _TESTS


@cache
def imports_any(path: Path, libraries: frozenset[str] = HEAVY) -> bool:
    """Whether importing this file imports one of these: follows those at the top of the project's modules."""
    for each in tree.imports(path):
        if not each.at_top or each.for_types:
            continue
        if each.name.partition(".")[0] in libraries:
            return True
        name = each.name
        while name and name not in _MODULES:
            name = name.rpartition(".")[0]
        if name and _MODULES[name] != path and imports_any(_MODULES[name], libraries):
            return True
    return False


def tier_of_module(path: Path) -> str:
    """The tier that a whole test module needs at least."""
    if imports_any(path):
        return "model"
    marks = [line for line in path.read_text().splitlines() if line.startswith("pytestmark")]
    said = (tier for tier in ("server", "slow") if any(f"mark.{tier}" in line for line in marks))
    return next(said, "fast")


def tier_of(item: pytest.Item) -> str:
    """The tier of one test."""
    fixtures = frozenset(getattr(item, "fixturenames", ()))
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    on_a_server = any(isinstance(value, str) and value in ("postgres", "s3") for value in parameters)
    if item.get_closest_marker("server") or fixtures & SERVER_FIXTURES or on_a_server:
        return "server"
    if fixtures & MODEL_FIXTURES:
        return "model"
    tier = tier_of_module(item.path)
    return "slow" if tier == "fast" and item.get_closest_marker("slow") else tier


def only_fast(config: pytest.Config) -> bool:
    """Whether this run was asked for the fast tier alone."""
    return str(config.getoption("markexpr")) == "fast"


def heavy_modules() -> list[str]:
    """Which heavy libraries this process has imported."""
    return sorted(HEAVY & set(sys.modules))


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fast test, starting a process or listening on a port fails: the tier cannot become slow unnoticed."""

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("a fast test starts no process and no server: use pytest.mark.server")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    monkeypatch.setattr(socket.socket, "listen", refuse)
