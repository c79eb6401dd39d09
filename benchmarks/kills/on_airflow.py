"""The loop on Airflow's Celery workers while the scheduler, workers and queue servers are killed: is anything lost?

A part of `benchmarks.faults`. The servers are those of `benchmarks.fleet`, with two workers for each queue; the store
spoils requests, and only the model's search is replaced, in the workers. The tables must be those of a quiet run
without Airflow.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import faults
from benchmarks.fleet import POLICY, Fleet, published
from benchmarks.kills import jobs, reviewer
from benchmarks.kills.processes import Killer, Tally
from benchmarks.kills.servers import SOURCE, SpoiltBucket, make_videos, moto
from benchmarks.queue import PrivatePostgres
from engine.processes.children import DEATHS_S, MAX_DEATHS
from engine.services import connect
from engine.settings import Settings

DONE = "MASKLETS_BENCHMARK_DONE"  # the variable with the file where the work on videos is noted
REPLACED = f"""
import os, sys
if "celery" in sys.argv:
    from pathlib import Path
    from benchmarks.kills.jobs import replace_the_model
    replace_the_model(Path(os.environ["{DONE}"]))
"""
WORKERS = {"worker-cpu": "cpu", "worker-gpu": "gpu", "worker-cpu-2": "cpu", "worker-gpu-2": "gpu"}
# A server is killed only when it has run for so long: then the supervisor always starts it again.
OLD_S = DEATHS_S / (MAX_DEATHS - 1) + 5
BUSY = 3  # processes below a Celery worker that runs a task; below one that waits there are two
PATIENCE_S = 3600.0


def under_kills(videos: int, kills: int, timeout_s: float, seed: int) -> dict[str, Any]:
    """Both runs, and their difference. timeout_s: of a request to the bucket."""
    size = replace(faults.FULL, videos=videos, batch=videos // 4, kills=kills, timeout_s=timeout_s)
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="masklets-airflow-") as name, moto() as honest, ExitStack() as stack:
        folder = Path(name)
        make_videos(honest, videos)
        quiet = faults.quiet_place(folder, honest)
        faults.say("the quiet run")
        faults.loop(quiet, size, Tally())
        faults.say("the run under faults")
        bucket = SpoiltBucket(honest, faults.SHARE, seed, faults.HANGS * timeout_s)
        stack.callback(bucket.close)
        postgres = PrivatePostgres()
        stack.callback(postgres.close)
        postgres.start()
        fleet = prepared(folder / "fleet", bucket, postgres, size)
        stack.callback(lambda: fleet.supervisor.end((list(fleet.supervisor.children.values()), 5.0)))
        fleet.start()
        there = fleet.settings("look")
        seen = there.model_copy(update={"storage": there.storage.model_copy(update={"s3_endpoint": honest})})
        since = time.monotonic()
        storm(fleet, seen, size, tally, seed)
        found: dict[str, Any] = {
            "videos": videos,
            "kills": sum(tally.kills.values()),
            "kills_by_role": dict(tally.kills),
            "spared": tally.spared,
            "most_lost": tally.most_lost,
            "s3_errors": sum(bucket.errors.values()),
            "faults_s": round(time.monotonic() - since),
        }
        with connect(seen) as s:
            found["left"] = len(list(s.blobs.keys("attempts/")))
        return found | faults.compare(quiet.settings("quiet", size), seen)


def prepared(folder: Path, bucket: SpoiltBucket, postgres: PrivatePostgres, size: faults.Size) -> Fleet:
    """The fleet, before its start."""
    folder.mkdir()
    done = folder / "done"
    done.touch()
    settings = {
        DONE: str(done),
        "MASKLETS_STORAGE__S3_TIMEOUT_S": str(size.timeout_s),
        "MASKLETS_INGEST__BATCH_VIDEOS": str(size.batch),
    }
    return Fleet(folder, bucket.url, postgres, workers=WORKERS, policy=POLICY + REPLACED, settings=settings)


def storm(fleet: Fleet, seen: Settings, size: faults.Size, tally: Tally, seed: int) -> None:
    """The loop under kills. seen: the settings with which the bucket is looked at without errors."""
    vera = reviewer.Vera(fleet.queue_url, faults.verdict_on)
    vera.start()
    done = fleet.folder / "done"
    with connect(seen) as s, ThreadPoolExecutor(1) as pool:
        roles = {
            "worker": old(fleet, *WORKERS, children=BUSY),
            "scheduler": old(fleet, "scheduler"),
            "queue": old(fleet, "queue-0", "queue-1"),
        }

        def progress() -> int:
            return faults.count_lines(done) + vera.answers

        total = size.videos * (2 + jobs.MASKLETS)
        arguments = (Killer(s.blobs, tally, seed), roles, size.kills, total, progress, vera.over)
        fleet.client.trigger_dag("ingest", {"source": SOURCE}, "storm")
        killing = pool.submit(faults.kill_all, *arguments)
        told = time.monotonic()

        def is_published() -> bool:
            nonlocal told
            videos = published(s)
            if time.monotonic() - told > 30:
                told = time.monotonic()
                faults.say(f"  {progress()} of {total} works and answers, {videos} published, {dict(tally.kills)}")
            return videos >= size.videos

        try:
            fleet.wait(is_published, "the last release", PATIENCE_S)
        finally:
            vera.over.set()
            vera.join()
        killing.result()


def old(fleet: Fleet, *names: str, children: int = 0) -> Callable[[], list[int]]:
    """Of these servers, those that have run for OLD_S, and have so many children and grandchildren now."""

    def pids() -> list[int]:
        found = []
        for name in names:
            try:
                process = psutil.Process(fleet.supervisor.children[name].pid)
                has_run_s = time.time() - process.create_time()
                if has_run_s > OLD_S and len(process.children(recursive=True)) >= children:
                    found.append(process.pid)
            except psutil.NoSuchProcess:  # it is being started again
                continue
        return found

    return pids
