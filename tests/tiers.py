"""Three tiers of tests, by what a test needs: `fast` (neither model nor server), `model` (torch), `server` (another process).

A test belongs to `model` if its module imports torch, directly or through the project's modules, or if it uses a fixture
that does. It belongs to `server` if it uses a fixture that starts one, runs on PostgreSQL, or says so with
`pytest.mark.server`. All others are `fast`. With `-m fast` the modules of the other tiers are not even imported.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest

from tests import map as tree

HEAVY = frozenset({"torch", "transformers"})
MODEL_FIXTURES = frozenset({"checkpoint"})
SERVER_FIXTURES = frozenset({"queue", "chromium", "firefox", "page", "postgres_server", "served", "server", "airflow"})

_MODULES = tree.files()


@cache
def _imports_torch(path: Path) -> bool:
    """Whether importing this file imports torch: follows the imports at the top of the project's modules."""
    for each in tree.imports(path):
        if not each.at_top or each.for_types:
            continue
        if each.name.partition(".")[0] in HEAVY:
            return True
        name = each.name
        while name and name not in _MODULES:
            name = name.rpartition(".")[0]
        if name and _MODULES[name] != path and _imports_torch(_MODULES[name]):
            return True
    return False


def tier_of_module(path: Path) -> str:
    """The tier that a whole test module needs at least."""
    if _imports_torch(path):
        return "model"
    return "server" if "\npytestmark = pytest.mark.server" in path.read_text() else "fast"


def tier_of(item: pytest.Item) -> str:
    """The tier of one test."""
    fixtures = frozenset(getattr(item, "fixturenames", ()))
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    on_postgres = any(isinstance(value, str) and value == "postgres" for value in parameters)
    if item.get_closest_marker("server") or fixtures & SERVER_FIXTURES or on_postgres:
        return "server"
    if fixtures & MODEL_FIXTURES:
        return "model"
    return tier_of_module(item.path)


def only_fast(config: pytest.Config) -> bool:
    """Whether this run was asked for the fast tier alone."""
    return str(config.getoption("markexpr")) == "fast"


def heavy_modules() -> list[str]:
    """Which heavy libraries this process has imported."""
    return sorted(HEAVY & set(sys.modules))
