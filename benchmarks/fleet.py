"""A fleet on one machine: Airflow on Celery, two workers, two queue servers behind nginx, everything killed at random.

    python -m benchmarks.fleet [--json] [--videos 12] [--kills 6] [--soak MINUTES] [--keep]

Real servers: PostgreSQL (databases of Airflow, the queue, the catalog and MLflow), Redis as Celery's broker, a moto
server as the store, two `masklets serve` behind nginx, Airflow's API server, scheduler and DAG processor, and Celery
workers with homes of their own: one takes the queue `cpu`, the other one `gpu`, by a task policy that follows the pool.
Simulated: the store (moto), and the reviewer, who accepts everything over HTTP.

1. The loop: the DAGs bring the videos from the bucket to a release, with the checkpoint `micro`, while workers, the
   scheduler and queue servers are killed by SIGKILL. All videos must be published, no masklet twice.
2. `workers_speedup`: seconds that one worker and that two workers need to ingest the same number of videos. Every
   request to the store waits for `DELAY_S`, so that the store's distance is the limit and not this machine's two cores.

With `--soak MINUTES` instead: one video a minute goes through the loop, nothing is killed, and the resident memory of
each server with its children is sampled. The result is its growth in the second half, MiB. Two hours show a leak that
twenty minutes do not. Every second verdict is "refine", and an annotator then clicks and propagates, so each queue
server has its live model in memory.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import numpy as np
import psutil
from boto3.exceptions import Boto3Error

from annotation_queue.client import QueueClient, new_id, now
from annotation_queue.errors import LeaseLost
from annotation_queue.records import Kind, NewOperation, Role, Ticket
from benchmarks.kills.reviewer import NAME, PASSWORD, Vera
from benchmarks.kills.servers import BUCKET, ENVIRONMENT, SpoiltBucket, make_videos, moto, new_database
from benchmarks.queue import PrivatePostgres
from engine import batches
from engine.batches import BatchStage
from engine.processes import airflow_config
from engine.processes.airflow import DAG_IDS, DAGS, POOL
from engine.processes.airflow_client import AirflowClient, AirflowError
from engine.processes.children import Child, Supervisor
from engine.processes.ports import free_port
from engine.services import Services, connect
from engine.settings import Settings
from storage import rle
from storage.dataset import releases
from storage.records import Verdict

BATCH = 4  # videos of a piece
DELAY_S = 1.0  # of each request to the store, while the throughput is measured
PIECES = 4  # tasks of each measurement of the throughput
PATIENCE_S = 1200.0
POLICY = """
def task_policy(task):
    task.queue = "gpu" if task.pool == "gpu" else "cpu"
"""
NGINX = """
user root; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{}}
http {{
  access_log off; client_max_body_size 64m; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream queue {{ server 127.0.0.1:{first}; server 127.0.0.1:{second}; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://queue; proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_read_timeout 60s;
    }}
  }}
}}
"""
WORKERS = {"worker-cpu": "cpu", "worker-gpu": "gpu"}
SOAKED = ("api-server", "scheduler", "dag-processor", "queue-0", "queue-1", "worker-cpu", "worker-gpu")
KILLED = ("worker-cpu", "worker-gpu", "scheduler", "queue-0", "queue-1")


class Fleet:
    """All servers, in one folder."""

    def __init__(
        self,
        folder: Path,
        store: str,
        postgres: PrivatePostgres,
        *,
        workers: Mapping[str, str] = WORKERS,
        policy: str = POLICY,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """workers: the queue of each.  policy: the module `airflow_local_settings`.  settings: further variables."""
        self.folder, self.store, self.workers = folder, store, workers
        uris = {name: new_database(postgres, name) for name in ("airflow", "queue", "catalog", "mlflow")}
        self.ports = {name: free_port() for name in ("airflow", "nginx", "queue-0", "queue-1", "redis")}
        self.home = folder / "airflow"
        self.home.mkdir()
        airflow_config.write_secrets(self.home)
        self.url = f"http://127.0.0.1:{self.ports['airflow']}"
        self.client = AirflowClient(self.url, password=airflow_config.saved_password(self.home))
        self.variables = ENVIRONMENT | {
            "MASKLETS_CONFIG": os.devnull,
            "MASKLETS_STORAGE__ROOT": f"s3://{BUCKET}/data",
            "MASKLETS_STORAGE__S3_ENDPOINT": store,
            "MASKLETS_STORAGE__CATALOG_URI": uris["catalog"],
            "MASKLETS_QUEUE__DATABASE_URI": uris["queue"],
            "MASKLETS_QUEUE__URL": f"http://127.0.0.1:{self.ports['nginx']}",
            "MASKLETS_QUEUE__TRUSTED_PROXIES": "127.0.0.1",
            "MASKLETS_QUEUE__OTHER_VERIFIER": "false",  # there is one reviewer
            "MASKLETS_MODEL__REGISTRY_URI": uris["mlflow"],
            "MASKLETS_MODEL__THREADS": "1",
            "MASKLETS_MODEL__EMBEDDINGS_GIB": "0.03",  # soon full, so that a soak shows what grows behind it
            "MASKLETS_INGEST__BATCH_VIDEOS": str(BATCH),
            "MASKLETS_INGEST__NEAR_DUPLICATES": "false",  # all videos show the same two blocks
            "MASKLETS_AUTO__MAX_OBJECTS": "2",
            "MASKLETS_AUTO__KEYFRAME_S": "0",
            "MASKLETS_AUTO__MIN_AGREEMENT": "0",
            "MASKLETS_AIRFLOW__URL": self.url,
            "MASKLETS_AIRFLOW__PASSWORD": airflow_config.saved_password(self.home),
            "MASKLETS_AIRFLOW__INGEST_EVERY_S": "86400",
            "MASKLETS_AIRFLOW__RECONCILE_EVERY_S": "30",
            **(settings or {}),
        }
        database = uris["airflow"]
        self.airflow = {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database,  # else asyncpg is needed
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{self.ports['redis']}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "1",
            "AIRFLOW__OPERATORS__DEFAULT_QUEUE": "cpu",
        }
        (self.home / "config").mkdir()
        (self.home / "config" / "airflow_local_settings.py").write_text(policy)
        self.supervisor = Supervisor(say)

    def settings(self, name: str) -> Settings:
        """The settings of a machine of this fleet."""
        with mock.patch.dict(os.environ, self.variables | {"MASKLETS_HOME": str(self.folder / name)}):
            return Settings()

    def start(self) -> None:
        """Starts everything, and waits until the DAGs are parsed."""
        redis = ["redis-server", "--port", str(self.ports["redis"]), "--bind", "127.0.0.1", "--save", ""]
        self.run("redis", [*redis, "--dir", str(self.folder)])
        with connect(self.settings("queue-0")) as s:
            _, accounts = s.open_queue()
            accounts.add(NAME, [Role.VERIFIER], PASSWORD)
            accounts.add("ann", [Role.ANNOTATOR], PASSWORD)
        token = (self.folder / "queue-0" / "pipeline.token").read_text().strip()
        self.variables["MASKLETS_QUEUE__TOKEN"] = token
        shutil.copytree(self.folder / "queue-0", self.folder / "queue-1")
        for name in ("queue-0", "queue-1"):
            of = {"MASKLETS_HOME": str(self.folder / name), "MASKLETS_QUEUE__PORT": str(self.ports[name])}
            self.run(name, [sys.executable, "-m", "engine.cli", "serve"], of)
        (self.folder / "nginx.conf").write_text(
            NGINX.format(
                folder=self.folder,
                port=self.ports["nginx"],
                first=self.ports["queue-0"],
                second=self.ports["queue-1"],
            )
        )
        self.run("nginx", ["nginx", "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)])
        say("preparing Airflow's database")
        migrated = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"], env=self.environment({}), capture_output=True, text=True
        )
        if migrated.returncode:
            raise RuntimeError(migrated.stderr[-2000:])
        since = datetime.now(UTC)
        for name in ("api-server", "scheduler", "dag-processor"):
            self.run(name, [sys.executable, "-m", "airflow", name])
        self.wait(lambda: bool(self.client.version()), "the API server")
        self.client.set_pool(POOL, 2)
        for name, queues in self.workers.items():
            self.worker(name, queues)
        self.supervisor.watch()
        self.wait(lambda: self.client.parsed(since) >= set(DAG_IDS), "the DAGs")
        self.wait(lambda: httpx.get(self.queue_url + "/healthz", trust_env=False).is_success, "the queue")

    @property
    def queue_url(self) -> str:
        return self.variables["MASKLETS_QUEUE__URL"]

    def worker(self, name: str, queues: str) -> None:
        """Starts a Celery worker with a home of its own."""
        command = [sys.executable, "-m", "airflow", "celery", "worker", "-q", queues, "--skip-serve-logs", "-H", name]
        self.run(name, command, {"MASKLETS_HOME": str(self.folder / name)})

    def environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """The variables of a process of Airflow, or of the queue."""
        return (
            airflow_config.variables(
                self.home,
                self.variables | dict(own),
                dags=DAGS,
                host="127.0.0.1",
                port=self.ports["airflow"],
                url=self.url,
                parallelism=8,
            )
            | self.airflow
        )

    def run(self, name: str, command: list[str], own: Mapping[str, str] | None = None) -> None:
        log = self.folder / "logs" / f"{name}.log"
        self.supervisor.start(Child(name, command, log=log, environment=self.environment(own or {})))

    def wait(self, ready: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
        """Waits for a state of the fleet. Raises RuntimeError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.supervisor.check()
            with suppress(httpx.HTTPError, AirflowError):
                if ready():
                    return
            time.sleep(0.5)
        raise RuntimeError(f"waited too long for {what}; see {self.folder}")

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """An answer of Airflow's API that no other part of the project needs."""
        headers = {"Authorization": f"Bearer {self.client.token}"}
        url = f"{self.url}/api/v2/dags/{path}"
        answer = httpx.request(method, url, json=body, headers=headers, trust_env=False, timeout=60)
        return dict(answer.raise_for_status().json())

    def pause(self, dag_id: str) -> None:
        """Starts no more runs of a DAG."""
        self.ask("PATCH", dag_id, {"is_paused": True})

    def ingest(self, source: str, run_id: str) -> float:
        """Runs the DAG on a source. Returns the seconds from the first start of a task `admit` to the last end."""
        self.client.trigger_dag("ingest", {"source": source}, run_id)
        self.wait(lambda: self.client.dag_run_state("ingest", run_id) in ("success", "failed"), f"ingest of {source}")
        found = self.ask("GET", f"ingest/dagRuns/{run_id}/taskInstances?limit=100")["task_instances"]
        done = [each for each in found if each["task_id"] == "admit"]
        if any(each["state"] != "success" for each in done):
            raise RuntimeError(f"ingest of {source}: {[each['state'] for each in done]}")
        times = [datetime.fromisoformat(each[key]) for each in done for key in ("start_date", "end_date")]
        return (max(times) - min(times)).total_seconds()


def accept(ticket: Ticket, answers: int) -> Verdict:
    """Accepts every masklet."""
    return Verdict.ACCEPT


def refine_some(ticket: Ticket, answers: int) -> Verdict:
    """Wants a correction of every second masklet."""
    return Verdict.ACCEPT if answers % 2 else Verdict.REFINE


class Ann(threading.Thread):
    """The annotator: clicks on the object, propagates both ways, and hands in the masklet as it came, through nginx."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.over, self.masks = url, threading.Event(), 0

    def run(self) -> None:
        with QueueClient(self.url, username="ann", password=PASSWORD, patience_s=300) as client:
            while not self.over.is_set():
                ticket = client.claim([Kind.TRACK])
                if ticket is None:
                    self.over.wait(0.5)
                    continue
                with suppress(LeaseLost):
                    self.correct(client, ticket)

    def correct(self, client: QueueClient, ticket: Ticket) -> None:
        masklet = client.masklet(ticket)
        assert masklet is not None  # phase 3: people correct candidates
        frame_idx, counts = next(iter(masklet.shown().items()))
        ys, xs = np.nonzero(rle.decode(counts, masklet.height, masklet.width))
        click = {"points_xy": [[float(np.median(xs)), float(np.median(ys))]], "labels": [1]}
        for kind, said in (("prompt", click), ("propagate", {"direction": "both"})):
            operation = NewOperation(
                operation_id=new_id(),
                kind=kind,
                created_at=now(),
                frame_idx=frame_idx,
                payload=json.dumps(said),
            )
            self.masks += len(client.refine(ticket, operation))
        client.finish(ticket, masklet=masklet)


def published(s: Services) -> int:
    """Videos of the batches that are published as a whole."""
    done = [of for of, marks in batches.reached(s.blobs).items() if BatchStage.PUBLISHED in marks]
    return sum(len(batches.video_ids(s.blobs, of)) for of in done)


def the_loop(fleet: Fleet, videos: int, kills: int, chance: random.Random) -> dict[str, Any]:
    """Part 1."""
    vera = Vera(fleet.queue_url, accept)
    vera.start()
    killed = dict.fromkeys(KILLED, 0)
    since = time.monotonic()
    with connect(fleet.settings("look")) as s:
        fleet.client.trigger_dag("ingest", {"source": f"s3://{BUCKET}/incoming"}, "the-loop")
        pauses = [chance.uniform(10, 30) for _ in range(kills)]
        # each role as often as the others
        roles = [name for _ in range(0, kills, len(KILLED)) for name in chance.sample(KILLED, len(KILLED))]
        turn = time.monotonic() + 20

        def ready() -> bool:
            nonlocal turn
            if pauses and time.monotonic() > turn:
                name = roles.pop()
                fleet.supervisor.children[name].kill()  # with what it has started, as when its machine fails
                killed[name] += 1
                turn = time.monotonic() + pauses.pop()
                say(f"killed {name}; {published(s)} of {videos} videos are published")
            return published(s) >= videos

        fleet.wait(ready, "the last release", 2 * PATIENCE_S)
        seconds = time.monotonic() - since
        vera.over.set()
        vera.join()
        release = releases.load(s.blobs, releases.names(s.blobs)[-1])
        ids = [row.masklet_id for row in release.iter_masklets()]
        rows = [row.masklet_id for row in s.tables.masklets()]
        return {
            "videos": videos,
            "published": len(s.tables.videos()),
            "kills": sum(killed.values()),
            "kills_by_role": killed,
            "masklets": len(ids),
            "doubled": len(rows) - len(set(rows)),
            "released_all": sorted(ids) == sorted(rows),
            "release_problems": release.verify(),
            "answers": vera.answers,
            "loop_s": round(seconds, 1),
        }


def throughput(fleet: Fleet, bucket: SpoiltBucket) -> dict[str, Any]:
    """Part 2."""
    for dag_id in ("auto_masklets", "reconcile"):  # nothing else shall run
        fleet.pause(dag_id)
    bucket.delay_s.value = DELAY_S
    one = fleet.ingest(f"s3://{BUCKET}/one", "one-worker")
    say(f"one worker: {one:.0f} s")
    fleet.worker("worker-cpu-2", "cpu")
    log = fleet.folder / "logs" / "worker-cpu-2.log"
    fleet.wait(lambda: "ready" in log.read_text(), "the second worker")
    two = fleet.ingest(f"s3://{BUCKET}/two", "two-workers")
    bucket.delay_s.value = 0.0
    return {
        "workers_speedup": round(one / two, 2),
        "one_worker_s": round(one, 1),
        "two_workers_s": round(two, 1),
        "tasks": PIECES,
        "videos_a_task": BATCH,
        "delay_s": DELAY_S,
        "limit": "the store's delay of every request, not the cores",
    }


def soak(fleet: Fleet, honest: str, minutes: float) -> dict[str, Any]:
    """The loop at a low rate, and the memory of the servers."""
    people = (Vera(fleet.queue_url, refine_some), Ann(fleet.queue_url))
    for person in people:
        person.start()
    samples: dict[str, list[float]] = {name: [] for name in SOAKED}
    for minute in range(round(minutes)):
        fleet.supervisor.check()
        if not all(person.is_alive() for person in people):
            raise RuntimeError("a simulated person has failed")
        with suppress(AirflowError, Boto3Error):  # a busy moto server fails now and then
            make_videos(honest, 1, prefix="soak", first=5000 + minute)
            fleet.client.trigger_dag("ingest", {"source": f"s3://{BUCKET}/soak"}, f"soak-{minute}")
        time.sleep(60)
        for name, found in samples.items():
            found.append(_resident_mib(fleet.supervisor.children[name].pid))
        say(f"minute {minute + 1}: " + ", ".join(f"{name} {found[-1]:.0f}" for name, found in samples.items()))
    for person in people:
        person.over.set()
        person.join()
    vera, ann = people
    with connect(fleet.settings("look")) as s:
        published = sum(BatchStage.PUBLISHED in marks for marks in batches.reached(s.blobs).values())
    if not published:
        raise RuntimeError("no batch was published")
    few = max(1, len(samples["scheduler"]) // 8)

    def growth(found: list[float]) -> float:
        half = len(found) // 2
        return round(statistics.median(found[-few:]) - statistics.median(found[half : half + few]), 1)

    return {
        "soak_minutes": round(minutes),
        "soak_answers": vera.answers,
        "soak_live_masks": ann.masks,
        "soak_published": published,
        "growth_mib": {name: growth(found) for name, found in samples.items()},
        "resident_mib": {name: round(found[-1]) for name, found in samples.items()},
    }


def _resident_mib(pid: int) -> float:
    """The resident memory of a process and what it has started. Shared pages count for each."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        for process in [first, *first.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total / 2**20


def say(line: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="no effect: the last line is always JSON")
    parser.add_argument("--videos", type=int, default=12, help="of the loop")
    parser.add_argument("--kills", type=int, default=6, help="in the loop")
    parser.add_argument("--seed", type=int, default=1, help="of the kills")
    parser.add_argument("--only", choices=("loop", "speedup"), help="only this part")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="measure memory instead")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    chosen = parser.parse_args()
    for program in ("redis-server", "nginx"):
        if shutil.which(program) is None:
            sys.exit(f"benchmarks.fleet: {program} is not installed")
    os.environ.update(ENVIRONMENT)
    folder = Path(tempfile.mkdtemp(prefix="masklets-fleet-"))
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        if not chosen.keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        honest = stack.enter_context(moto())
        make_videos(honest, chosen.videos)
        for n, name in enumerate(("one", "two"), 1):
            make_videos(honest, PIECES * BATCH, prefix=name, first=1000 * n)
        bucket = SpoiltBucket(honest, share=0.0, seed=0)
        stack.callback(bucket.close)
        postgres = PrivatePostgres()
        stack.callback(postgres.close)
        postgres.start()
        fleet = Fleet(folder, bucket.url, postgres)
        stack.callback(lambda: fleet.supervisor.end((list(fleet.supervisor.children.values()), 5.0)))
        say(f"starting in {folder}")
        fleet.start()
        if chosen.soak:
            print(json.dumps(soak(fleet, honest, chosen.soak)))
            return
        if chosen.only != "speedup":
            found |= the_loop(fleet, chosen.videos, chosen.kills, random.Random(chosen.seed))
            say(json.dumps(found))
        if chosen.only != "loop":
            found |= throughput(fleet, bucket)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
