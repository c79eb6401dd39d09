"""Airflow's configuration on one machine: the secrets in its home, and the environment variables of every component.

Knows nothing of processes.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from engine.files import write_secret
from engine.processes.airflow_client import USER, AirflowError
from engine.processes.children import environment_without

ROOT = Path(__file__).parents[2]  # the folder that holds `engine` and `dags`
WATCHED = (
    "AIRFLOW__TRACES__",
    "AIRFLOW__METRICS__",
)  # settings about OpenTelemetry and StatsD, which people may choose


def write_secrets(home: Path) -> None:
    """Makes the keys and the password of this home once."""
    if not (home / "secrets.json").exists():
        fernet = base64.urlsafe_b64encode(os.urandom(32)).decode()
        made = {"jwt": secrets.token_urlsafe(48), "session": secrets.token_urlsafe(48), "fernet": fernet}
        write_secret(home / "secrets.json", json.dumps(made))
    if not (home / "passwords.json").exists():
        write_secret(home / "passwords.json", json.dumps({USER: secrets.token_urlsafe(12)}))


def saved_password(home: Path) -> str:
    """The password of the user `admin` on this home. Raises AirflowError if Airflow was never started there."""
    try:
        return str(json.loads((home / "passwords.json").read_text())[USER])
    except FileNotFoundError:
        raise AirflowError(f"Airflow was never started on {home}") from None


def variables(
    home: Path, environment: Mapping[str, str], *, dags: Path, host: str, port: int, url: str, parallelism: int
) -> dict[str, str]:
    """The environment of every component, and so of every task.

    environment: variables for the tasks, over those of this process. Of this process, no MASKLETS_ variable is passed,
    and of Airflow's own only those of WATCHED.
    """
    kept = environment_without("AIRFLOW_", "_AIRFLOW_", "MASKLETS_") | dict(environment)
    kept |= {name: value for name, value in os.environ.items() if name.startswith(WATCHED)}
    secret = json.loads((home / "secrets.json").read_text())
    local = "127.0.0.1,localhost"
    return kept | {
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]),
        "NO_PROXY": ",".join(filter(None, [kept.get("NO_PROXY"), local])),
        "no_proxy": ",".join(filter(None, [kept.get("no_proxy"), local])),
        "NO_COLOR": "1",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(parallelism),  # all workers start at once, and each costs memory
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(parallelism),
        "AIRFLOW__CORE__MAX_MAP_LENGTH": "16384",  # chunks of one batch
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__FERNET_KEY": secret["fernet"],
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__API__HOST": host,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secret["session"],
        "AIRFLOW__API__INSTANCE_NAME": "Masklet Engine",
        "AIRFLOW__API_AUTH__JWT_SECRET": secret["jwt"],
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",  # seconds; the files change with a release only
        # A worker's slot stays blocked for one heartbeat interval after a short task, so the interval is the shortest
        # possible. Airflow kills a task after a number of failed heartbeats, so this number must be large: otherwise a
        # restart of the API server kills every task.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "60",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30.0",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        # How soon Airflow notices lost tasks. Two busy cores delay a heartbeat, so each limit is several times that.
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "10",
    }
