"""Checks the workers from inside their tasks: settings, versions, pools, store, databases, checkpoint.

Started by hand after a setup or an upgrade. Each kind of worker runs `masklets doctor` in the environment that its
tasks have, and logs what it found. If a check fails, its task fails and says which.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

from dags.common import COMMON, GPU

log = logging.getLogger(__name__)


def look() -> None:
    """Runs the checks in a process of its own, as a person on this machine would. Raises if one fails."""
    done = subprocess.run([sys.executable, "-m", "engine.cli", "doctor", "--json"], capture_output=True, text=True)
    try:
        checks = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise AirflowFailException(f"masklets doctor did not run: {said}") from None
    for check in checks:
        log.info("%s %s: %s", "ok  " if check["ok"] else "FAIL", check["name"], check["detail"])
    if failed := [f"{check['name']}: {check['detail']}" for check in checks if not check["ok"]]:
        raise AirflowFailException("; ".join(failed))


@dag(
    schedule=None,
    tags=["masklets", "operations"],
    doc_md=__doc__,
    **COMMON,
)
def doctor():
    @task
    def on_a_worker() -> None:
        """Checks a worker of the default pool."""
        look()

    @task(pool=GPU)
    def on_a_gpu_worker() -> None:
        """Checks a worker of the pool for models."""
        look()

    on_a_worker()
    on_a_gpu_worker()


doctor()
