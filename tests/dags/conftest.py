"""Airflow on a throwaway home: set up before the first import of airflow, which reads its configuration then."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

ROOT = Path(__file__).parents[2]
HOME = Path(tempfile.mkdtemp(prefix="masklets-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

for name in [name for name in os.environ if name.startswith(("AIRFLOW", "_AIRFLOW"))]:
    del os.environ[name]
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
    AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
    AIRFLOW__LOGGING__BASE_LOG_FOLDER=str(HOME / "logs"),
    AIRFLOW__API_AUTH__JWT_SECRET="x" * 64,
    NO_COLOR="1",
)
if str(ROOT) not in sys.path:  # `from dags.common import …`, as the supervisor's PYTHONPATH has it
    sys.path.insert(0, str(ROOT))


@pytest.fixture(autouse=True)
def outside_of_tasks() -> Iterator[None]:
    """Airflow tells a task's process where it is and never takes it back; tests after these would be in a task."""
    yield
    for name in [name for name in os.environ if name.startswith("AIRFLOW_CTX_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def bag() -> DagBag:
    """Every DAG of ours, parsed as Airflow parses them."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(ROOT / "dags")


@pytest.fixture(scope="session")
def database() -> None:
    """Airflow's database, for the tests that run a DAG."""
    from airflow.utils import db

    db.initdb()
