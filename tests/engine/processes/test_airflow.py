"""The supervisor with a real Airflow, started once, and the client's errors over a fake network."""

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

import httpx
import psutil
import pytest
from pydantic import SecretStr

from engine.cli import doctor
from engine.demo import demo
from engine.processes.airflow import Airflow, AlreadyRunning, at_rest, saved_password
from engine.processes.airflow_client import (
    AirflowClient,
    AirflowDenied,
    AirflowError,
    AirflowRefused,
    AirflowUnreachable,
    DagRun,
    UnknownName,
)
from engine.processes.ports import PortTaken
from engine.services import connect
from engine.settings import AirflowSettings, Settings

DAG_FILE = '''
"""DAGs that write where they have been."""
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
        from engine import settings  # the tasks see the engine, and the settings they were given
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


def sessions(leaders: set[int]) -> set[int]:
    """The living processes of these sessions."""
    found = set()
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in leaders and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
        except (OSError, psutil.Error):
            pass
    return found


def test_airflow_starts_runs_dags_survives_a_killed_scheduler_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "small.py").write_text(DAG_FILE)
    told: list[str] = []
    airflow = Airflow(
        tmp_path / "airflow",
        dags=tmp_path / "dags",
        dag_ids=("ring", "bell", "door"),
        port=0,
        parallelism=2,
        environment={"MASKLETS_HOME": str(tmp_path), "MASKLETS_QUEUE__PORT": "4321"},
        progress=told.append,
    )
    with airflow:
        first = airflow.pids()
        assert set(first) == {"api-server", "scheduler", "dag-processor"}
        for name in ("passwords.json", "secrets.json"):
            assert (tmp_path / "airflow" / name).stat().st_mode & 0o777 == 0o600
        with pytest.raises(AlreadyRunning, match=str(tmp_path)):
            Airflow(tmp_path / "airflow").start()

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
        until(lambda: client.dag_run_state("ring", "once") in ("success", "failed"))
        until(lambda: (tmp_path / "bell").exists() and (tmp_path / "door").exists())
        assert client.dag_run_state("ring", "once") == "success"
        assert {run.state for run in client.task_runs("ring", "once")} == {"success"}
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
    with pytest.raises(AirflowUnreachable, match="does not answer"):
        AirflowClient(airflow.url, password=airflow.password).health()


def test_what_a_killed_supervisor_left_is_ended_and_what_only_has_its_number_is_not(tmp_path: Path) -> None:
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


def test_a_home_is_at_rest_once_what_was_left_on_it_is_ended_and_nobody_starts_there_meanwhile(tmp_path: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    row = {"name": "scheduler", "pid": left.pid, "started_s": psutil.Process(left.pid).create_time()}
    (tmp_path / "sessions.json").write_text(json.dumps([row]))
    told: list[str] = []
    with at_rest(tmp_path, told.append):
        assert left.wait(10) == -signal.SIGKILL
        with pytest.raises(AlreadyRunning), at_rest(tmp_path):
            pass
    with at_rest(tmp_path, told.append):
        pass
    assert told == ["ending a scheduler that was left running"]


def test_the_tasks_see_our_settings_and_not_those_of_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLETS_STORAGE__ROOT", "s3://mine/precious")
    monkeypatch.setenv("SOMETHING_ELSE", "stays")
    airflow = Airflow(tmp_path, environment={"MASKLETS_HOME": "/data"})
    airflow._write_secrets()
    variables = airflow._variables()
    assert {k: v for k, v in variables.items() if k.startswith("MASKLETS_")} == {"MASKLETS_HOME": "/data"}
    assert variables["SOMETHING_ELSE"] == "stays"


def test_a_demo_empties_an_earlier_one_but_no_living_one_and_no_other_folder(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with demo._alone(folder):
        (folder / "store").mkdir()
        (folder / "queue.db").write_text("")
        with pytest.raises(demo.DemoRunning, match=str(folder)):
            demo.run(folder, print)
        assert (folder / "store").exists()
    with at_rest(folder / "airflow"), pytest.raises(AlreadyRunning):  # `masklets up` to look at its results
        demo.run(folder, print)
    assert (folder / "store").exists()
    with demo._alone(folder):
        demo._empty(folder)
        assert [path.name for path in folder.iterdir()] == [demo.MARK]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="not a demo's"):
        demo.run(tmp_path / "mine", print)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("dag_id", "states", "line"),
    [
        ("publish", ["running", "failed"], "publish failed"),
        ("retrain", ["success"], "retrain ended without a decision"),
    ],
)
def test_the_demo_stops_when_the_mark_it_waits_for_cannot_come(
    dag_id: str, states: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "LOOK_S", 0.0)

    def runs(name: str) -> list[DagRun]:
        return [DagRun(name, str(i), state, None, None) for i, state in enumerate(states)]

    with pytest.raises(demo.DemoStalled, match=line):
        demo._until(lambda: False, dag_id, lambda: None, runs)


def test_the_demo_waits_while_airflow_is_away_or_at_work_and_takes_a_mark_that_comes_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "LOOK_S", 0.0)
    answers = iter(["away", "running", "success", "failed"])
    marked: list[bool] = []

    def runs(name: str) -> list[DagRun]:
        if (answer := next(answers)) == "away":
            raise AirflowUnreachable("being started again")
        if answer == "failed":
            marked.append(True)  # by another run, just before this one is seen to have failed
        return [DagRun(name, "once", answer, None, None)]

    assert demo._until(lambda: bool(marked), "collect", lambda: None, runs)
    assert list(answers) == []


def test_the_password_of_a_home_that_never_ran_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(AirflowError, match="never started"):
        saved_password(tmp_path)


class FakeAirflow:
    """Answers as Airflow's API does; `tokens` are accepted."""

    def __init__(self) -> None:
        self.tokens = ["first"]
        self.logins = 0
        self.asset_id = 1
        self.events: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            self.logins += 1
            return httpx.Response(201, json={"access_token": self.tokens[-1]})
        if request.headers["Authorization"] != f"Bearer {self.tokens[-1]}":
            return httpx.Response(401, json={"detail": "Invalid token"})
        if request.url.path == "/api/v2/assets":
            assets = [{"id": 99, "name": "reviewed-again"}, {"id": self.asset_id, "name": "reviewed"}]
            return httpx.Response(200, json={"assets": assets})
        if request.url.path == "/api/v2/assets/events":
            body = json.loads(request.content)
            if body["asset_id"] != self.asset_id:
                return httpx.Response(404, json={"detail": "no such asset"})
            self.events.append(body["asset_id"])
            return httpx.Response(200, json={})
        return httpx.Response(503, text="starting")


def test_the_client_logs_in_again_when_its_token_is_too_old_and_looks_up_an_asset_that_has_moved() -> None:
    fake = FakeAirflow()
    with AirflowClient("http://airflow", password="p", transport=httpx.MockTransport(fake)) as client:
        client.asset_event("reviewed")
        client.asset_event("reviewed")
        assert fake.logins == 1
        fake.tokens.append("second")
        fake.asset_id = 2
        client.asset_event("reviewed")
    assert fake.logins == 2
    assert fake.events == [1, 1, 2]


def test_an_airflow_that_is_starting_or_gone_is_unreachable_and_worth_another_try() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    for answer, match in ((FakeAirflow(), "503"), (gone, "refused")):
        with AirflowClient("http://airflow", password="p", transport=httpx.MockTransport(answer)) as client:
            with pytest.raises(AirflowUnreachable, match=match):
                client.dag_runs("ingest")
