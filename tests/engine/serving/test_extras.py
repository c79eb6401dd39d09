"""The extras of the package: a queue server runs without torch, Airflow and Great Expectations, and a training machine
without Airflow.
"""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.server

#: Runs first in the process: makes these libraries look as if they were not installed.
MISSING = """
import importlib.abc, importlib.util, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {libraries!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in {libraries!r} else found(name, package)
)
"""


def run(program, home, *, without):
    code = MISSING.format(libraries=without) + textwrap.dedent(program)
    environ = {**os.environ, "MASKLETS_HOME": str(home), "MASKLETS_CONFIG": os.devnull}
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)


def test_a_queue_server_needs_neither_torch_nor_airflow_nor_great_expectations(tmp_path):
    program = """
        import logging
        from fastapi.testclient import TestClient
        from engine.cli.main import main  # the command itself can be imported
        from engine.services import connect
        from engine.serving.serve import app

        logging.basicConfig(level="WARNING")
        with connect() as s, TestClient(app(s)) as browser:
            assert browser.get("/").status_code == 200, "the page"
            assert browser.get("/api/me").status_code == 401, "a person must log in"
            token = (s.settings.home / "pipeline.token").read_text().strip()
            assert browser.get("/api/figures", headers={"Authorization": "Bearer " + token}).is_success
        print("served")
    """
    done = run(
        program, tmp_path, without={"torch", "transformers", "mlflow", "airflow", "great_expectations", "pandas"}
    )
    assert done.stdout == "served\n", done.stderr
    assert "without live refinement" in done.stderr


@pytest.mark.parametrize("module", ["engine.rounds.training", "engine.stages.propose", "engine.cli.main"])
def test_a_training_machine_needs_no_airflow_and_no_queue_server(module, tmp_path):
    done = run(f"import {module}", tmp_path, without={"airflow", "fastapi", "uvicorn", "argon2", "joserfc", "alembic"})
    assert done.returncode == 0, done.stderr
