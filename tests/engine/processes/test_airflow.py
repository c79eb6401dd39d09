"""The supervisor of Airflow with a real Airflow. It is started once for all tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from engine.cli import doctor
from engine.processes import airflow_config
from engine.processes.airflow import Airflow, AlreadyRunning, at_rest, running_at
from engine.processes.airflow_client import (
    AirflowClient,
    AirflowDenied,
    AirflowError,
    AirflowRefused,
    AirflowUnreachable,
    UnknownName,
)
from engine.processes.ports import PortTaken
from engine.services import connect
from engine.settings import AirflowSettings, Settings

pytestmark = pytest.mark.server

DAG_FILE = '''
"""DAGs that leave a file for each task that ran."""
import os
from datetime import datetime
from pathlib import Path
from airflow.sdk import Asset, AssetAlias, Param, dag, task

BELL, DOOR, CHOSEN = Asset("bell"), Asset("door"), AssetAlias("chosen")
START = {"start_date": datetime(2026, 1, 1), "catchup": False}

def leave(name, text=""):
    Path(os.environ["MASKLETS_HOME"], name).write_text(text)

@dag(schedule=None, params={"count": Param(2, type="integer")}, **START)
def ring():
    @task
    def plan(params=None):
        return list(range(params["count"]))
    @task(pool="gpu")
    def work(number):
        from engine import settings  # tasks can import the engine, and see the settings that were passed
        leave(f"work-{number}", f"{os.getcwd()} {settings.Settings().queue.port}")
    @task(outlets=[CHOSEN])
    def tell(outlet_events=None):
        outlet_events[CHOSEN].add(BELL)
    work.expand(number=plan()) >> tell()

@dag(schedule=[BELL], **START)
def bell():
    @task
    def heard():
        leave("bell")
    heard()

@dag(schedule=[DOOR], **START)
def door():
    @task
    def opened():
        leave("door")
    opened()

ring(), bell(), door()
'''


def until(done: Callable[[], object], limit_s: float = 150.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def has_ended(client: AirflowClient, dag_id: str, run_id: str) -> bool:
    """Whether a run ended. At the first task, the API server loads more modules and is silent for a while."""
    try:
        return client.dag_run_state(dag_id, run_id) in ("success", "failed")
    except AirflowUnreachable:
        return False


def sessions(leaders: set[int]) -> set[int]:
    """The processes of these sessions, without zombies."""
    found = set()
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in leaders and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
        except (OSError, psutil.Error):
            pass
    return found


def test_airflow_runs_dags_survives_a_killed_scheduler_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.processes.airflow.DAG_IDS", ("ring", "bell", "door"))
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "small.py").write_text(DAG_FILE)
    told: list[str] = []
    airflow = Airflow(
        tmp_path / "airflow",
        dags=tmp_path / "dags",
        port=0,
        parallelism=2,
        environment={"MASKLETS_HOME": str(tmp_path), "MASKLETS_QUEUE__PORT": "4321"},
        tell=told.append,
    )
    with airflow:
        first = airflow.pids()
        assert set(first) == {"api-server", "scheduler", "dag-processor"}
        assert (tmp_path / "airflow").stat().st_mode & 0o777 == 0o700
        for name in ("passwords.json", "secrets.json", "airflow.db"):
            assert (tmp_path / "airflow" / name).stat().st_mode & 0o777 == 0o600
        with pytest.raises(AlreadyRunning, match=str(tmp_path)):
            Airflow(tmp_path / "airflow").start()
        assert running_at(tmp_path / "airflow") == airflow.url

        client = airflow.client
        assert client.trigger_dag("ring", {"count": 3}, "once") == "once"
        assert client.trigger_dag("ring", {"count": 3}, "once") == "once"
        client.asset_event("door", {"batch_id": "0"})
        with pytest.raises(UnknownName, match="nothing"):
            client.trigger_dag("nothing")
        with pytest.raises(UnknownName, match="nothing"):
            client.asset_event("nothing")
        with pytest.raises(AirflowRefused, match="not of type 'integer'"):
            client.trigger_dag("ring", {"count": "many"})
        until(lambda: has_ended(client, "ring", "once"))
        until(lambda: (tmp_path / "bell").exists() and (tmp_path / "door").exists())
        assert client.dag_run_state("ring", "once") == "success"
        assert [(tmp_path / f"work-{i}").read_text() for i in range(3)] == [f"{os.getcwd()} 4321"] * 3
        assert {run.dag_id for run in client.dag_runs()} == {"ring", "bell", "door"}
        with AirflowClient(airflow.url, password="wrong") as stranger, pytest.raises(AirflowDenied):
            stranger.health() and stranger.dag_runs()
        for password, ok in (airflow.password, True), ("wrong", False):
            told_of = AirflowSettings(url=airflow.url, password=SecretStr(password))
            with connect(Settings(home=tmp_path / "home", airflow=told_of)) as s:
                assert doctor._try("airflow", doctor._airflow, s).ok is ok

        os.kill(first["scheduler"], signal.SIGKILL)
        until(lambda: airflow.pids()["scheduler"] != first["scheduler"])
        assert not sessions({first["scheduler"]})
        assert told[-1] == "scheduler died (-9); starting it again"
        airflow.check()
        leaders = {*first.values(), *airflow.pids().values()}
        assert sessions(leaders)
    assert not sessions(leaders)
    assert not (tmp_path / "airflow" / "sessions.json").exists()
    assert running_at(tmp_path / "airflow") is None
    with pytest.raises(AirflowUnreachable, match="does not answer"):
        AirflowClient(airflow.url, password=airflow.password).health()


def test_start_ends_the_sessions_of_a_killed_supervisor_but_no_other_program_with_the_same_pid(tmp_path: Path) -> None:
    sleeper = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    command = [sys.executable, "-c", f"{sleeper}; print(flush=True); time.sleep(60)"]
    left, other, orphans = (subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) for _ in range(3))
    try:
        for child in (left, other, orphans):
            assert child.stdout is not None
            child.stdout.readline()
        rows = [
            {"name": "scheduler", "pid": left.pid, "started_s": psutil.Process(left.pid).create_time()},
            {"name": "api-server", "pid": other.pid, "started_s": 1.0},
            {"name": "scheduler", "pid": orphans.pid, "started_s": psutil.Process(orphans.pid).create_time()},
        ]
        orphans.kill()  # its child stays in its session
        orphans.wait()
        assert len(sessions({orphans.pid})) == 1
        (tmp_path / "sessions.json").write_text(json.dumps(rows))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(PortTaken, match="cannot listen on 127.0.0.1"):
                Airflow(tmp_path, port=taken.getsockname()[1]).start()
        assert not sessions({left.pid, orphans.pid})
        assert len(sessions({other.pid})) == 2
    finally:
        for child in (left, other, orphans):
            for pid in sessions({child.pid}):
                os.kill(pid, signal.SIGKILL)
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def test_at_rest_ends_what_was_left_running_and_refuses_a_second_holder(tmp_path: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    row = {"name": "scheduler", "pid": left.pid, "started_s": psutil.Process(left.pid).create_time()}
    (tmp_path / "sessions.json").write_text(json.dumps([row]))
    told: list[str] = []
    with at_rest(tmp_path, told.append):
        assert left.wait(60) == -signal.SIGKILL
        with pytest.raises(AlreadyRunning), at_rest(tmp_path):
            pass
    with at_rest(tmp_path, told.append):
        pass
    assert told == ["ending a scheduler that was left running"]


def test_tasks_get_the_settings_that_were_passed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLETS_STORAGE__ROOT", "s3://mine/precious")
    monkeypatch.setenv("SOMETHING_ELSE", "stays")
    airflow_config.write_secrets(tmp_path)
    variables = airflow_config.variables(
        tmp_path,
        {"MASKLETS_HOME": "/data"},
        dags=tmp_path,
        host="127.0.0.1",
        port=8080,
        url="http://127.0.0.1:8080",
        parallelism=1,
    )
    assert {k: v for k, v in variables.items() if k.startswith("MASKLETS_")} == {"MASKLETS_HOME": "/data"}
    assert variables["SOMETHING_ELSE"] == "stays"


def test_airflow_gets_the_settings_of_opentelemetry_and_no_others_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = {
        "AIRFLOW__TRACES__OTEL_ON": "True",
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "OTEL_SERVICE_NAME": "masklets",
    }
    for name, value in (watched | {"AIRFLOW__CORE__EXECUTOR": "Foreign", "AIRFLOW_HOME": "/elsewhere"}).items():
        monkeypatch.setenv(name, value)
    airflow_config.write_secrets(tmp_path)
    variables = airflow_config.variables(
        tmp_path, {}, dags=tmp_path, host="127.0.0.1", port=8080, url="http://127.0.0.1:8080", parallelism=1
    )
    assert watched.items() <= variables.items()
    assert (variables["AIRFLOW__CORE__EXECUTOR"], variables["AIRFLOW_HOME"]) == ("LocalExecutor", str(tmp_path))


def test_the_password_of_a_home_where_airflow_never_started_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(AirflowError, match="never started"):
        airflow_config.saved_password(tmp_path)
