"""Airflow on one machine: starts its components, restarts those that die, and ends them.

For `masklets up` and the demo.

Runs the `airflow` command and never imports it. It is safe to kill everything at any time: tasks that were cut off run
again after the next start, and continue from the markers in the store.

There is no triggerer: none of our tasks defers, and each process costs memory. Knows nothing of our settings: the
caller passes the MASKLETS_ variables for the tasks.

    with Airflow(home, environment={"MASKLETS_HOME": "/data"}) as airflow:
        run_id = airflow.client.trigger_dag("ingest", {"source": "/videos"})
        airflow.client.dag_run_state("ingest", run_id)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

from engine.files import alone, held, private_file, private_folder
from engine.processes import airflow_config
from engine.processes.airflow_client import AirflowClient, AirflowError, AirflowUnreachable
from engine.processes.children import Child, ChildFailed, Supervisor, end_left, remember
from engine.processes.ports import check_port
from engine.progress import Tell, ignore
from storage.lease import InUse
from storage.whole_files import complete

DAGS = airflow_config.ROOT / "dags"
DAG_IDS = ("ingest", "auto_masklets", "collect", "publish", "retrain", "reconcile", "upkeep", "doctor")
POOL = "gpu"

COMPONENTS: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),  # the API server reads the logs from disk
    "dag-processor": ("dag-processor",),
}


class AlreadyRunning(AirflowError):
    """Another process runs Airflow on this home."""


class DagsBroken(AirflowError):
    """A DAG file does not parse."""


class NotReady(AirflowError):
    """Airflow was not ready in time."""


class Airflow:
    """One Airflow: its home and its processes. A context manager: entering starts it, leaving stops it.

    home: folder of its database, logs and secrets; made if missing, and kept from run to run.
    dags: folder of the DAG files.
    port: 0 takes a free one.
    parallelism: tasks at once.
    gpu_slots: size of the pool `gpu`.
    environment: variables for the tasks, over those of this process. No MASKLETS_ variable of this process is passed.
        Relative paths mean the same as here.
    tell: gets one line about each step.
    """

    def __init__(
        self,
        home: Path,
        *,
        dags: Path = DAGS,
        host: str = "127.0.0.1",
        port: int = 8080,
        parallelism: int = 4,
        gpu_slots: int = 1,
        environment: Mapping[str, str] | None = None,
        tell: Tell = ignore,
    ) -> None:
        self.home = home.absolute()
        self.port = port
        self._dags = dags.absolute()
        self._host, self._parallelism, self._gpu_slots = host, parallelism, gpu_slots
        self._environment = dict(environment or {})
        self._tell = tell
        self._supervisor = Supervisor(tell, self._remember)
        self._held = ExitStack()  # the home, while it runs
        self._client: AirflowClient | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where this machine reaches its pages and its API."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "::") else self._host
        return f"http://{host}:{self.port}"

    @property
    def password(self) -> str:
        """The password of the user `admin`, made at the first start."""
        return airflow_config.saved_password(self.home)

    @property
    def client(self) -> AirflowClient:
        """A client of this Airflow, for one thread at a time."""
        if self._client is None:
            self._client = AirflowClient(self.url, password=self.password)
        return self._client

    def pids(self) -> dict[str, int]:
        """The process of each component; also the id of its session."""
        return {name: child.pid for name, child in self._supervisor.children.items()}

    def check(self) -> None:
        """Raises ChildFailed if a component died too often. For the loop that waits while Airflow runs."""
        self._supervisor.check()

    def start(self, timeout_s: float = 300.0) -> None:
        """Starts every component and waits until the DAGs are parsed.

        First ends what a killed process left running on this home. Leaves nothing running if it fails.
        Raises AlreadyRunning, PortTaken, ChildFailed, DagsBroken or NotReady.
        """
        private_folder(self.home)
        self._held.enter_context(at_rest(self.home, self._tell))
        self._held.callback(_sessions(self.home).unlink, missing_ok=True)
        try:
            self.port = check_port(self._host, self.port)
            self._held.callback(_url(self.home).unlink, missing_ok=True)
            with complete(_url(self.home)) as file:
                file.write_text(self.url)
            airflow_config.write_secrets(self.home)
            deadline = time.monotonic() + timeout_s
            since = datetime.now(UTC)
            self._migrate(deadline)
            self._tell("starting Airflow")
            for name, arguments in COMPONENTS.items():
                self._spawn(name, arguments)
            self._supervisor.watch()
            self._wait(lambda: self._alive(since), "Airflow is not healthy", deadline)
            self._tell("reading the DAGs")
            self._wait(lambda: self._parsed(since), "the DAGs are not parsed", deadline)
        except BaseException:
            self.stop()
            raise

    def stop(self, grace_s: float = 10.0) -> None:
        """Ends every component, with SIGTERM first; can be repeated. A second Ctrl-C kills them at once.

        Tasks that still run after `grace_s` seconds are killed, and run again after the next start.
        """
        children = self._supervisor.children
        others = [child for name, child in children.items() if name != "api-server"]
        server = [child for name, child in children.items() if name == "api-server"]
        try:
            self._supervisor.end((others, grace_s), (server, 5.0))  # in this order: ending tasks report to the server
        finally:
            if self._client is not None:
                self._client.close()
                self._client = None
            self._held.close()

    # -- starting

    def _migrate(self, deadline: float) -> None:
        """Brings the database to this version of Airflow. It takes seconds, so it is done once for each version."""
        stamp = self.home / "migrated"
        now = version("apache-airflow-core")
        if (self.home / "airflow.db").exists() and stamp.exists() and stamp.read_text() == now:
            return
        self._tell("preparing Airflow's database")
        private_file(self.home / "airflow.db")
        child = self._spawn("db-migrate", ("db", "migrate"))
        status = child.wait(max(1.0, deadline - time.monotonic()))
        if status is None:
            raise NotReady(f"Airflow's database was not ready in time: {child.last_line()}")
        if status:
            raise ChildFailed(f"airflow db migrate ended with {status}: {child.last_line()}")
        del self._supervisor.children["db-migrate"]
        stamp.write_text(now)

    def _spawn(self, name: str, arguments: Sequence[str]) -> Child:
        variables = airflow_config.variables(
            self.home,
            self._environment,
            dags=self._dags,
            host=self._host,
            port=self.port,
            url=self.url,
            parallelism=self._parallelism,
        )
        command = [sys.executable, "-m", "airflow", *arguments]
        child = Child(name, command, log=self.home / "logs" / f"{name}.log", environment=variables)
        self._supervisor.start(child)
        return child

    def _remember(self) -> None:
        remember(list(self._supervisor.children.values()), _sessions(self.home))

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
        """Whether every component gave a heartbeat after `since`. The database may hold older ones."""
        health = self.client.health()
        if any(beat is None or beat < since for beat in (health.scheduler, health.dag_processor)):
            return False
        self.client.set_pool(POOL, self._gpu_slots)  # until then, a task of the pool waits
        return True

    def _parsed(self, since: datetime) -> bool:
        if broken := self.client.import_errors(since):
            raise DagsBroken("; ".join(broken))
        return self.client.parsed(since) >= set(DAG_IDS)


@contextmanager
def at_rest(home: Path, tell: Tell = ignore) -> Iterator[None]:
    """Ends what a killed process left running on a home, and keeps Airflow from starting there inside the block.

    Raises AlreadyRunning while a running Airflow holds the home.
    """
    with ExitStack() as inside:
        try:
            inside.enter_context(alone(_lock(home), wait=False))
        except InUse:
            raise AlreadyRunning(f"another process runs Airflow on {home}") from None
        end_left(_sessions(home), tell)
        yield


def running_at(home: Path) -> str | None:
    """The address of the Airflow that runs on a home, for another process of this machine; None if none runs."""
    with suppress(FileNotFoundError):  # it was stopped meanwhile, or has only begun
        url = _url(home).read_text()
        return url if held(_lock(home)) else None
    return None


def _lock(home: Path) -> Path:
    return home / "supervisor.lock"


def _url(home: Path) -> Path:
    """The file with the address of the Airflow that runs on this home. A killed one leaves it."""
    return home / "url"


def _sessions(home: Path) -> Path:
    """The file of the sessions that run on this home."""
    return home / "sessions.json"
