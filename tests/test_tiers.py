"""A run of the fast tests fails if one of them imports torch, also in a worker process of xdist."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import tree

pytestmark = pytest.mark.server


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "a worker"])
def test_a_fast_run_that_imports_torch_fails_and_says_so(tmp_path, workers):
    (tmp_path / "torch.py").touch()
    (tmp_path / "test_import.py").write_text("def test_it():\n    import torch\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "fast", "-p", "tests.conftest", "--rootdir", ".", *workers, "."],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{tree.ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "1 passed" in done.stdout and "the fast tests imported torch" in done.stdout
