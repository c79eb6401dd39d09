"""The arrows between the folders, and what each may import, read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "storage": set(),
    "model": {"storage"},
    "validation": {"storage"},
    "annotation_queue": {"storage"},
    "engine": {"storage", "model", "validation", "annotation_queue"},
    "dags": {"engine"},
}
ONLY_IN = {"airflow": {"dags"}, "torch": {"model"}, "transformers": {"model"}, "fastapi": {"annotation_queue"}}


def imports(path):
    """Every module that a file imports, with whether it is at the top level of the module."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0], node in tree.body


FILES = [(folder, path) for folder in MAY_IMPORT for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize(("folder", "path"), FILES, ids=[str(p.relative_to(ROOT)) for _, p in FILES])
def test_imports_point_down(folder, path):
    for name, at_top in imports(path):
        if name in MAY_IMPORT and name != folder:
            assert name in MAY_IMPORT[folder], f"{folder} may not import {name}"
            assert folder != "dags" or not at_top, "a DAG file imports the engine only inside its tasks"
        if name in ONLY_IN:
            assert folder in ONLY_IN[name], f"{name} belongs to {ONLY_IN[name]}"


def test_there_are_files_to_check():
    assert len(FILES) > 40
