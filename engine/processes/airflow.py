"""Airflow on one machine: starts it, keeps it alive, talks to it, stops it. What `masklets up` and the demo use.

Spawns the `airflow` command and never imports it. Each component runs in a session of its own, because the tasks of a
dead scheduler outlive it in that session: whoever is restarted or stopped takes its whole session along. Work is safe
to kill at any time: the tasks that were cut off run again after the next start, and go on where their markers say.

There is no triggerer: no task of ours defers, and each process costs memory. Knows nothing of settings: the caller
passes the MASKLETS_ variables that the tasks shall see.

    with Airflow(home, environment={"MASKLETS_HOME": "/data"}) as airflow:
        run_id = airflow.client.trigger_dag("ingest", {"source": "/videos"})
        airflow.client.dag_run_state("ingest", run_id)
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil  # type: ignore[import-untyped]

from engine.files import write_secret
from engine.processes.airflow_client import USER, AirflowClient, AirflowError, AirflowUnreachable
from engine.processes.ports import check_port

# AirflowError (airflow_client.py)
# ├── AirflowUnreachable
# ├── AirflowDenied
# ├── AirflowRefused
# │   └── UnknownName
# ├── AlreadyRunning
# ├── ComponentFailed
# ├── DagsBroken
# └── NotReady

ROOT = Path(__file__).parents[2]  # the folder that holds `engine` and `dags`
DAGS = ROOT / "dags"
DAG_IDS = ("ingest", "auto_masklets", "collect", "publish", "retrain", "reconcile")
POOL = "gpu"

COMPONENTS: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),  # the API server reads the logs from disk
    "dag-processor": ("dag-processor",),
}
MAX_DEATHS = 5  # of one component within DEATHS_S; then it is given up
DEATHS_S = 300.0

Progress = Callable[[str], None]  # what is being done now, one line


class AlreadyRunning(AirflowError):
    """Another process runs Airflow on this home."""


class ComponentFailed(AirflowError):
    """A component of Airflow died again and again, or a command of it failed."""


class DagsBroken(AirflowError):
    """A DAG file does not parse."""


class NotReady(AirflowError):
    """Airflow was not ready in time."""


class Airflow:
    """One Airflow: its home, its processes, its watch. A context manager: entering starts it, leaving stops it.

    home: folder of its database, logs and secrets; made if absent. Kept from run to run.
    dags: folder of the DAG files; dag_ids: those that must be there before it counts as ready.
    port: 0 takes a free one. parallelism: tasks at once. gpu_slots: size of the pool `gpu`.
    environment: variables for the tasks, over those of this process, of which no MASKLETS_ one is passed on. Relative
        paths mean the same as here.

    Raises AlreadyRunning, PortTaken, ComponentFailed, DagsBroken or NotReady from `start`; whatever a killed process
    left running on this home is ended first.
    """

    def __init__(
        self,
        home: Path,
        *,
        dags: Path = DAGS,
        dag_ids: Sequence[str] = DAG_IDS,
        host: str = "127.0.0.1",
        port: int = 8080,
        parallelism: int = 4,
        gpu_slots: int = 1,
        environment: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.home = home.absolute()
        self.port = port
        self._dags, self._dag_ids = dags.absolute(), tuple(dag_ids)
        self._host, self._parallelism, self._gpu_slots = host, parallelism, gpu_slots
        self._environment = dict(environment or {})
        self._progress = progress or (lambda line: None)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._deaths: dict[str, list[float]] = {}
        self._failure: ComponentFailed | None = None
        self._stopping = threading.Event()
        self._watch: threading.Thread | None = None
        self._lock: IO[str] | None = None
        self._client: AirflowClient | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where this machine reaches its page and its interface."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "::") else self._host
        return f"http://{host}:{self.port}"

    @property
    def password(self) -> str:
        """The password of the user `admin`, made at the first start."""
        return saved_password(self.home)

    @property
    def client(self) -> AirflowClient:
        """A client of this Airflow; of one thread at a time."""
        if self._client is None:
            self._client = AirflowClient(self.url, password=self.password)
        return self._client

    def pids(self) -> dict[str, int]:
        """The process of each component; also the id of its session."""
        return {name: child.pid for name, child in self._children.items()}

    def check(self) -> None:
        """Raises ComponentFailed if a component was given up. For the loop that waits while Airflow runs."""
        if self._failure is not None:
            raise self._failure

    def start(self, timeout_s: float = 300.0) -> None:
        """Starts every component and waits until the DAGs are parsed; leaves nothing running if that fails."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.home / "supervisor.lock")
        self._failure = None
        self._deaths.clear()
        try:
            _end_stale(self.home, self._progress)
            self.port = check_port(self._host, self.port)
            self._write_secrets()
            deadline = time.monotonic() + timeout_s
            since = datetime.now(UTC)
            self._migrate(deadline)
            self._progress("starting Airflow")
            for name in COMPONENTS:
                self._spawn(name, COMPONENTS[name])
            self._watch = threading.Thread(target=self._keep_alive, name="airflow-watch", daemon=True)
            self._watch.start()
            self._wait(lambda: self._alive(since), "Airflow is not healthy", deadline)
            self._progress("reading the DAGs")
            self._wait(lambda: self._parsed(since), "the DAGs are not parsed", deadline)
        except BaseException:
            self.stop()
            raise

    def stop(self, grace_s: float = 10.0) -> None:
        """Ends every component, gently at first; can be repeated. A second Ctrl-C skips the patience.

        Tasks that still run when `grace_s` seconds are over are killed, and run again after the next start.
        """
        self._stopping.set()
        try:
            if self._watch is not None:
                self._watch.join()
            self._end([name for name in self._children if name != "api-server"], grace_s)
            self._end(["api-server"], 5.0)  # last, so that ending tasks can report
        finally:
            if self._watch is not None:
                self._watch.join()  # what it was starting when Ctrl-C came is ended too
            for child in self._children.values():
                _kill_session(child.pid)
                child.wait()
            self._children.clear()
            self._watch = None
            if self._client is not None:
                self._client.close()
                self._client = None
            if self._lock is not None:
                (self.home / "sessions.json").unlink(missing_ok=True)
                self._lock.close()
                self._lock = None
            self._stopping.clear()

    # -- starting

    def _write_secrets(self) -> None:
        if not (self.home / "secrets.json").exists():
            fernet = base64.urlsafe_b64encode(os.urandom(32)).decode()
            made = {"jwt": secrets.token_urlsafe(48), "session": secrets.token_urlsafe(48), "fernet": fernet}
            write_secret(self.home / "secrets.json", json.dumps(made))
        if not (self.home / "passwords.json").exists():
            write_secret(self.home / "passwords.json", json.dumps({USER: secrets.token_urlsafe(12)}))

    def _migrate(self, deadline: float) -> None:
        """Brings the database to this version of Airflow; that takes seconds, so it is done once a version."""
        stamp = self.home / "migrated"
        now = version("apache-airflow-core")
        if (self.home / "airflow.db").exists() and stamp.exists() and stamp.read_text() == now:
            return
        self._progress("preparing Airflow's database")
        child = self._spawn("db-migrate", ("db", "migrate"))
        try:
            code = child.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise NotReady(f"Airflow's database was not ready in time: {self._last_line('db-migrate')}") from None
        if code:
            raise ComponentFailed(f"airflow db migrate ended with {code}: {self._last_line('db-migrate')}")
        del self._children["db-migrate"]
        stamp.write_text(now)

    def _spawn(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        self._log(name).parent.mkdir(exist_ok=True)
        with self._log(name).open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._variables(),
            )
        self._children[name] = child
        left = [asdict(s) for s in map(_Session.of, self._children, self._children.values()) if s]
        temporary = self.home / ".sessions.json"
        temporary.write_text(json.dumps(left))
        temporary.replace(self.home / "sessions.json")
        return child

    def _variables(self) -> dict[str, str]:
        """The environment of every component, and so of every task: Airflow's configuration and ours."""
        others = ("AIRFLOW_", "_AIRFLOW_", "MASKLETS_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(others)} | self._environment
        secret = json.loads((self.home / "secrets.json").read_text())
        local = "127.0.0.1,localhost"
        return kept | {
            "AIRFLOW_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]),
            "NO_PROXY": ",".join(filter(None, [kept.get("NO_PROXY"), local])),
            "no_proxy": ",".join(filter(None, [kept.get("no_proxy"), local])),
            "NO_COLOR": "1",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self._dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(self._parallelism),  # workers are forked at once: each costs memory
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(self._parallelism),
            "AIRFLOW__CORE__MAX_MAP_LENGTH": "16384",  # chunks of one batch
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__FERNET_KEY": secret["fernet"],
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db",
            "AIRFLOW__API__HOST": self._host,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secret["session"],
            "AIRFLOW__API__INSTANCE_NAME": "Masklet Engine",
            "AIRFLOW__API_AUTH__JWT_SECRET": secret["jwt"],
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",  # seconds; the files change with a release only
            # A worker's slot stays blocked for this long after a short task, so: as short as it can be. Failed
            # heartbeats are counted, so with short intervals many must be allowed, or a restart of the API server
            # kills every task.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "60",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30.0",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # How soon lost tasks are seen. The thresholds are several times what two busy cores delay a heartbeat.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "10",
        }

    def _wait(self, ready: Callable[[], bool], otherwise: str, deadline: float) -> None:
        while True:
            self.check()
            with suppress(AirflowUnreachable):
                if ready():
                    return
            if time.monotonic() > deadline:
                raise NotReady(f"{otherwise} in time; see {self.home / 'logs'}")
            time.sleep(0.5)

    def _alive(self, since: datetime) -> bool:
        """Has every component given a sign of life of its own (a heartbeat in the database may be an older one's)?"""
        health = self.client.health()
        if any(beat is None or beat < since for beat in (health.scheduler, health.dag_processor)):
            return False
        self.client.set_pool(POOL, self._gpu_slots)  # until then, a task of the pool waits
        return True

    def _parsed(self, since: datetime) -> bool:
        if broken := self.client.import_errors(since):
            raise DagsBroken("; ".join(broken))
        return self.client.parsed(since) >= set(self._dag_ids)

    # -- running

    def _keep_alive(self) -> None:
        """Restarts what died, until it died too often."""
        while not self._stopping.wait(1.0):
            for name, child in list(self._children.items()):
                if child.poll() is None:
                    continue
                _kill_session(child.pid)  # its tasks would run on, and run twice
                now = time.monotonic()
                deaths = [t for t in self._deaths.get(name, []) if now - t < DEATHS_S] + [now]
                self._deaths[name] = deaths
                if len(deaths) >= MAX_DEATHS:
                    line = f"{name} died {len(deaths)} times: {self._last_line(name)}"
                    self._failure = ComponentFailed(line)
                    return
                self._progress(f"{name} died ({child.returncode}); starting it again")
                self._spawn(name, COMPONENTS[name])

    def _log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def _last_line(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'no output'} ({self._log(name)})"

    # -- stopping

    def _end(self, names: Sequence[str], grace_s: float) -> None:
        """Asks components to end and waits for them; what is left is killed by the caller."""
        asked = [self._children[name] for name in names if name in self._children]
        for child in asked:
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for child in asked:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))


@contextmanager
def at_rest(home: Path, progress: Progress = lambda line: None) -> Iterator[None]:
    """Ends what a killed supervisor left running on a home, and lets none start there for as long as the block lasts.

    Raises AlreadyRunning while a living one holds it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / "supervisor.lock"):
        _end_stale(home, progress)
        yield


def saved_password(home: Path) -> str:
    """The password of `admin` on this home, for a process that did not start Airflow. Raises AirflowError."""
    try:
        return str(json.loads((home / "passwords.json").read_text())[USER])
    except FileNotFoundError:
        raise AirflowError(f"Airflow was never started on {home}") from None


@dataclass(frozen=True)
class _Session:
    """A session as it is remembered on disk: its leader, and when that started (seconds since 1970)."""

    name: str
    pid: int
    started_s: float

    @classmethod
    def of(cls, name: str, child: subprocess.Popen[bytes]) -> _Session | None:
        try:
            return cls(name, child.pid, psutil.Process(child.pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def is_ours(self) -> bool:
        """A process id can be given to another program. While a session has members, its id is not."""
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.started_s) < 1.0)
        except psutil.NoSuchProcess:
            return any(_runs_our_python(pid) for pid in _members(self.pid))


def _end_stale(home: Path, progress: Progress) -> None:
    """Ends what a killed supervisor left: its sessions are in a file, each with the start time of its leader."""
    with suppress(FileNotFoundError, ValueError, TypeError):
        left = [_Session(**row) for row in json.loads((home / "sessions.json").read_text())]
        for session in left:
            if session.is_ours():
                progress(f"ending a {session.name} that was left running")
                _kill_session(session.pid)
    (home / "sessions.json").unlink(missing_ok=True)


def _runs_our_python(pid: int) -> bool:
    with suppress(psutil.Error):
        return Path(psutil.Process(pid).exe()) == Path(sys.executable).resolve()
    return False


def _members(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for pid in psutil.pids():
        with suppress(OSError, psutil.Error):
            if os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def _kill_session(session: int) -> None:
    """Kills every process of a session, those too that are forked meanwhile."""
    for _ in range(50):
        members = _members(session)
        if not members:
            return
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _locked(path: Path) -> IO[str]:
    """Holds a lock that goes with the process, however it ends. Raises AlreadyRunning."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise AlreadyRunning(f"another process runs Airflow on {path.parent}") from None
    return file
