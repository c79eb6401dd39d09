"""Kills, S3 errors and outages: is anything lost, is anything doubled?

    python -m benchmarks.faults [--quick] [--json]

The loop runs twice over the same short videos, from a bucket to the last release: once quietly, once under faults. The
workers, the committer and the queue server are real processes, killed by SIGKILL at random moments; jobs are handed out
and run again as Airflow's scheduler does it. More videos go through Airflow itself, whose scheduler is killed, too
(`kills/on_airflow.py`). The store is a moto server behind a proxy that spoils 5 % of the requests
(`kills/s3_proxy.py`); catalog and queue are on a PostgreSQL server of their own. Only the model's search is replaced by
two blocks a video (`kills/jobs.py`), so that 200 videos take minutes.

    lost, doubled   rows of the tables `videos`, `masklets`, `operations` and `quarantine` that only the quiet run has,
                    or the other one has beyond it; rows are compared whole, by hash, without the pseudonyms of people
                    (each store has a key for them), the ids and times of operations, which people's programs make, and
                    the hash of an encoded video, as libx264 may give other bytes; `verify` compares it with the file
    equal           no such row, and the last release under faults holds the same masklets and passes `verify`
    most_lost       videos at work in one killed worker, at most
    repeated        videos that were decoded or searched again
    left            marks of attempts that nobody ended: two of them would condemn a video
    bad_inputs      generated videos, masks, JSON, Parquet and PNG files (`bad_inputs.py`): each is read, or refused
    crashes         errors without a type of the project's own
    hangs           jobs or inputs without an end in time
    airflow         the figures of the part on Airflow; they are in the sums, too

Needs PostgreSQL; the part on Airflow also redis-server and nginx. `--quick` is smaller, without that part: under 45
seconds on a quiet machine. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from annotation_queue.records import Role, Ticket
from benchmarks import bad_inputs
from benchmarks.kills import jobs, reviewer, s3_proxy
from benchmarks.kills.processes import CONTEXT, Crew, Killer, QueueServer, Tally
from benchmarks.kills.servers import BUCKET, ENVIRONMENT, SOURCE, SpoiltBucket, make_videos, moto, new_database
from benchmarks.queue import PrivatePostgres
from engine import batches
from engine.processes.ports import free_port
from engine.services import Services, connect
from engine.settings import IngestSettings, LogSettings, QueueSettings, Settings, StorageSettings
from engine.stages import propose, review
from storage.dataset import releases
from storage.records import Verdict

COMMITTERS = 2
SHARE = 0.05  # of the requests to the bucket that are spoilt
HANGS = 1.25  # a "timeout" of the bucket lasts for so many times what the clients wait
WEIGHTS = {"worker": 6, "committer": 3, "queue": 1, "scheduler": 4}  # how often each role is killed
PRELOADED = [  # what the processes would import: a process that takes a killed one's place begins at once
    "annotation_queue.api.app",
    "benchmarks.kills.jobs",
    "benchmarks.kills.s3_proxy",
    "boto3",
    "engine.serving.serve",
    "great_expectations",
    "psycopg",
    "pyiceberg.catalog.sql",
    "pyiceberg.io.pyarrow",
    "uvicorn",
]


@dataclass(frozen=True)
class Size:
    """How much is tried."""

    videos: int  # a multiple of `batch`
    batch: int  # videos of a batch: a multiple of 5, so that the split of a batch does not depend on the others'
    workers: int
    kills: int
    timeout_s: float  # of a request to the bucket; a busy machine needs more than a moment for an answer
    bad_inputs: int
    airflow_videos: int = 0  # videos, and kills, of the run on Airflow
    airflow_kills: int = 0
    trainer_kills: int = 0
    outage_s: float = 0  # seconds of each outage; 0: none


FULL = Size(
    videos=200,
    batch=20,
    workers=4,
    kills=50,
    timeout_s=4,
    bad_inputs=1000,
    airflow_videos=40,
    airflow_kills=10,
    trainer_kills=4,
    outage_s=60,
)
QUICK = Size(videos=6, batch=3, workers=3, kills=3, timeout_s=0.6, bad_inputs=240)


@dataclass(frozen=True)
class Place:
    """Where a run keeps everything."""

    folder: Path
    root: str
    endpoint: str
    catalog_uri: str
    queue_uri: str
    port: int

    def settings(self, name: str, size: Size) -> Settings:
        """The settings of one machine: homes are separate."""
        return Settings(
            home=self.folder / name,
            storage=StorageSettings(
                root=self.root, s3_endpoint=self.endpoint, s3_timeout_s=size.timeout_s, catalog_uri=self.catalog_uri
            ),
            # all videos show the same two blocks
            ingest=IngestSettings(source=SOURCE, batch_videos=size.batch, near_duplicates=False),
            queue=QueueSettings(port=self.port, database_uri=self.queue_uri),
            logs=LogSettings(level="error"),
        )


def is_rejected(masklet_id: str) -> bool:
    """Whether the reviewer rejects a masklet: every tenth, always the same ones."""
    return int(hashlib.sha256(masklet_id.encode()).hexdigest(), 16) % 10 == 0


def verdict_on(ticket: Ticket, _: int = 0) -> Verdict:
    """The reviewer's verdict."""
    assert ticket.masklet_id is not None
    return Verdict.REJECT if is_rejected(ticket.masklet_id) else Verdict.ACCEPT


def loop(place: Place, size: Size, tally: Tally, *, kills: int = 0, honest: str = "", seed: int = 1) -> dict[str, Any]:
    """The whole loop over the source: ingest to the last release. Returns what was done how often.

    honest: the address of the bucket without faults, for the killer to look at.
    """
    done = place.folder / "done"
    done.touch()
    served = place.settings("queue", size)
    with ExitStack() as stack:
        with connect(served) as s:
            _, accounts = s.open_queue()
            accounts.add(reviewer.NAME, [Role.VERIFIER], reviewer.PASSWORD)
        vera = reviewer.Vera(served.queue_url, verdict_on)
        server = QueueServer(served, ENVIRONMENT)
        stack.callback(server.close)
        vera.start()
        stack.callback(vera.join)
        stack.callback(vera.over.set)
        token = (served.home / "pipeline.token").read_text().strip()

        def of(name: str) -> Callable[[int], Settings]:
            def settings(number: int) -> Settings:
                own = place.settings(f"{name}-{number}", size)
                return own.model_copy(update={"queue": own.queue.model_copy(update={"token": SecretStr(token)})})

            return settings

        look = stack.enter_context(connect(replace(place, endpoint=honest or place.endpoint).settings("look", size)))
        look.settings = of("look")(0).model_copy(update={"storage": look.settings.storage})
        workers = Crew("worker", size.workers, of("worker"), done, ENVIRONMENT, tally)
        committers = Crew("committer", COMMITTERS, of("committer"), done, ENVIRONMENT, tally)
        if kills:
            roles = {"worker": workers.busy, "committer": committers.busy, "queue": server.busy}
            killing = (Killer(look.blobs, tally, seed), roles, kills, size.videos * (2 + jobs.MASKLETS))
            pool = stack.enter_context(ThreadPoolExecutor(1))
            stack.callback(vera.over.set)  # ends the killer, before the pool waits for it
            killer = pool.submit(kill_all, *killing, lambda: count_lines(done) + vera.answers, vera.over)

        def carry(batch_id: str) -> None:
            while chunks := propose.chunks(look, batch_id):
                with ThreadPoolExecutor(len(chunks)) as each:
                    list(each.map(lambda chunk: workers.do("propose", batch_id, chunk), chunks))
            committers.do("open", batch_id)
            while batch_id not in review.to_collect(look) and not _is_collected(look, batch_id):
                time.sleep(0.2)
            committers.do("collect", batch_id)
            committers.do("publish", batch_id)

        def admit(piece_id: str) -> None:
            for batch_id in workers.do("admit", piece_id):
                carry(batch_id)

        threading.Thread(target=_tell, args=(vera, done, tally), daemon=True).start()
        try:
            while True:
                # A worker that is killed before it names its batches leaves them to the next look, as in Airflow.
                pieces, begun = committers.do("plan"), list(batches.unfinished(look.blobs))
                if not pieces and not begun:
                    break
                with ThreadPoolExecutor(len(pieces) + len(begun)) as pool:
                    try:
                        for work in [*(pool.submit(admit, p) for p in pieces), *(pool.submit(carry, b) for b in begun)]:
                            work.result()
                    except BaseException:
                        workers.abort()
                        committers.abort()
                        raise
        finally:
            workers.close()
            committers.close()
        vera.over.set()
        if kills:
            killer.result()  # raises what stopped it
        left = len(list(look.blobs.keys("attempts/")))
    lines = done.read_text().splitlines()
    return {"work": len(lines), "repeated": len(lines) - len(set(lines)), "answers": vera.answers, "left": left}


def _is_collected(s: Services, batch_id: str) -> bool:
    return batches.facts(s.blobs, batch_id, batches.BatchStage.COLLECTED) is not None


def kill_all(
    killer: Killer,
    roles: Mapping[str, Callable[[], list[int]]],
    kills: int,
    total: int,
    progress: Callable[[], int],
    over: threading.Event,
) -> None:
    """Kills one process whenever the progress has reached one of so many random marks up to `total`.

    roles: of each role the processes that may be killed now.
    """
    chance = killer.chance
    for mark in sorted(chance.uniform(0, 0.95 * total) for _ in range(kills)):
        while progress() < mark and not over.wait(0.02):
            pass
        time.sleep(chance.uniform(0, 0.1))
        while not over.is_set():
            (role,) = chance.choices(list(roles), weights=[WEIGHTS[role] for role in roles])
            pids = roles[role]()
            if pids and killer.kill(role, chance.choice(pids)):
                break
            time.sleep(0.01)


def _tell(vera: reviewer.Vera, done: Path, tally: Tally) -> None:
    """Says now and then how far a run has come."""
    while not vera.over.wait(10):
        say(f"  {count_lines(done)} videos worked on, {vera.answers} answers, kills {dict(tally.kills)}")


def count_lines(path: Path) -> int:
    """Lines of a file."""
    return path.read_bytes().count(b"\n")


def rows_of(settings: Settings) -> dict[str, Counter[str]]:
    """The hash of every row of each table, with how often it is there."""
    with connect(settings) as s:
        tables = {name: s.tables.scan(name).to_pylist() for name in ("videos", "masklets", "operations", "quarantine")}
    left_out = {"video_sha256", "operation_id", "created_at", "annotated_by", "verified_by"}  # pseudonyms of a store
    return {
        name: Counter(
            hashlib.sha256(repr(sorted((k, v) for k, v in row.items() if k not in left_out)).encode()).hexdigest()
            for row in rows
        )
        for name, rows in tables.items()
    }


def released(settings: Settings) -> tuple[list[str], list[str]]:
    """The masklets of the last release, and what `verify` finds wrong with it."""
    with connect(settings) as s:
        release = releases.load(s.blobs, releases.names(s.blobs)[-1])
        return sorted(row.masklet_id for row in release.iter_masklets()), release.verify()


def compare(quiet: Settings, stormy: Settings) -> dict[str, Any]:
    """What differs between the tables and the last releases of two runs."""
    calm, found = rows_of(quiet), rows_of(stormy)
    lost = {name: sum((calm[name] - found[name]).values()) for name in calm}
    doubled = {name: sum((found[name] - calm[name]).values()) for name in calm}
    masklets, wrong = released(stormy)
    same = not any([*lost.values(), *doubled.values()]) and masklets == released(quiet)[0] and not wrong
    rows = {name: sum(count.values()) for name, count in calm.items()}
    return {
        "rows": rows,
        "lost": sum(lost.values()),
        "doubled": sum(doubled.values()),
        "equal": same,
        "different": {name: [lost[name], doubled[name]] for name in calm if lost[name] or doubled[name]},
    }


def quiet_place(folder: Path, endpoint: str) -> Place:
    """The place of a run without faults, in a folder and SQLite; only the videos come from the bucket."""
    home = folder / "quiet"
    home.mkdir()
    return Place(
        folder=home,
        root=str(home / "store"),
        endpoint=endpoint,
        catalog_uri=f"sqlite:///{home}/catalog.db",
        queue_uri=f"sqlite:///{home}/queue.db",
        port=free_port(),
    )


@contextmanager
def scene(size: Size, seed: int) -> Iterator[tuple[Place, Place, Place, SpoiltBucket]]:
    """The servers and the videos: places for a quiet run, for one under faults, and for a look at the latter."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory(prefix="masklets-faults-") as name, moto() as honest, ExitStack() as stack:
        folder = Path(name)
        with ThreadPoolExecutor(1) as beside:
            made = beside.submit(PrivatePostgres)
            make_videos(honest, size.videos)
            postgres = made.result()
        stack.callback(postgres.close)
        postgres.start()
        quiet = quiet_place(folder, honest)
        (folder / "stormy").mkdir()
        bucket = SpoiltBucket(honest, SHARE, seed, HANGS * size.timeout_s)
        stack.callback(bucket.close)
        stormy = Place(
            folder=folder / "stormy",
            root=f"s3://{BUCKET}/data",
            endpoint=bucket.url,
            catalog_uri=new_database(postgres, "catalog"),
            queue_uri=new_database(postgres, "queue"),
            port=free_port(),
        )
        yield quiet, stormy, replace(stormy, endpoint=honest), bucket


def under_kills(size: Size, seed: int) -> dict[str, Any]:
    """The main part: both runs, and their difference."""
    calm = Tally()
    with scene(size, seed) as (quiet, stormy, seen, bucket):
        since = time.monotonic()
        say("the quiet run")
        loop(quiet, size, calm)
        say(f"the run under faults ({time.monotonic() - since:.0f} s)")
        found = storm(stormy, size, bucket, seen.endpoint, seed)
        say("comparing")
        found |= compare(quiet.settings("quiet", size), seen.settings("seen", size))
    add(found, {"crashes": len(calm.crashes), "crash": calm.crashes[:1], "hangs": calm.hangs})
    return found


def airflow_part(size: Size, seed: int) -> dict[str, Any]:
    """The part on Airflow."""
    from benchmarks.kills import on_airflow

    found = on_airflow.under_kills(size.airflow_videos, size.airflow_kills, size.timeout_s, seed)
    summed = ("videos", "kills", "kills_by_role", "s3_errors", "most_lost", "lost", "doubled", "left", "equal")
    troubles = ("crashes", "crash", "hangs")
    return {name: found[name] for name in (*summed, *troubles)} | {"airflow": found}


def storm(place: Place, size: Size, bucket: SpoiltBucket, honest: str, seed: int) -> dict[str, Any]:
    """The loop under kills and S3 errors. honest: the address of the bucket without errors."""
    tally, since = Tally(), time.monotonic()
    work = loop(place, size, tally, kills=size.kills, honest=honest, seed=seed)
    errors = bucket.errors
    return {
        "videos": size.videos,
        "workers": size.workers,
        "kills": sum(tally.kills.values()),
        "kills_by_role": dict(tally.kills),
        "spared": tally.spared,
        "s3_errors": sum(errors.values()),
        "s3_errors_by_kind": errors,
        "s3_requests": bucket.counts[len(s3_proxy.KINDS)],
        "most_lost": tally.most_lost,
        **work,
        "retried": dict(tally.retried),
        "crashes": len(tally.crashes),
        "crash": tally.crashes[:1],
        "hangs": tally.hangs,
        "faults_s": time.monotonic() - since,
    }


def add(found: dict[str, Any], more: dict[str, Any]) -> None:
    """Adds a part's figures to those of the same names: counts are summed, lists joined; all must be equal."""
    for name, value in more.items():
        if name not in found:
            found[name] = value
        elif isinstance(value, dict):
            add(found[name], value)
        elif name == "most_lost":
            found[name] = max(found[name], value)
        elif isinstance(value, bool):
            found[name] = found[name] and value
        else:
            found[name] += value


def say(line: str) -> None:
    """Prints a line about the progress."""
    print(line, file=sys.stderr, flush=True)


def trainer_part(size: Size, seed: int) -> dict[str, Any]:
    """The part with a trainer."""
    from benchmarks.kills import trainer

    found = trainer.under_kills(size.trainer_kills, seed)
    return found | {"kills_by_role": {"trainer": found["trainer_kills"]}}


def outages_part(size: Size, seed: int) -> dict[str, Any]:
    """The part with outages."""
    from benchmarks.kills import outages

    with moto() as honest:
        bucket = SpoiltBucket(honest, 0.0, seed)
        try:
            return outages.try_all(size.outage_s, bucket)
        finally:
            bucket.close()


PARTS: dict[str, Callable[[Size, int], dict[str, Any]]] = {
    "kills": under_kills,
    "inputs": lambda size, seed: bad_inputs.try_all(CONTEXT, size.bad_inputs, seed),
    "airflow": airflow_part,
    "trainer": trainer_part,
    "outages": outages_part,
}
QUICK_PARTS = ("kills", "inputs")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="fewer videos and kills, and only the parts kills and inputs"
    )
    parser.add_argument("--json", action="store_true", help="no effect: standard output is always one JSON line")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the kills and the S3 errors")
    parser.add_argument("--only", choices=tuple(PARTS), help="only this part")
    chosen = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    size = QUICK if chosen.quick else FULL
    CONTEXT.set_forkserver_preload(PRELOADED)  # before the first process
    names = QUICK_PARTS if chosen.quick else tuple(PARTS)
    if chosen.only:
        if chosen.only not in names:
            parser.error(f"--quick has no part {chosen.only}")
        names = (chosen.only,)
    for program in ("redis-server", "nginx") if "airflow" in names else ():
        if shutil.which(program) is None:
            sys.exit(f"benchmarks.faults: {program} is not installed")
    found: dict[str, Any] = {}
    with ThreadPoolExecutor(1) as beside:  # the bad inputs need no server and meet no kills
        inputs = beside.submit(PARTS["inputs"], size, chosen.seed) if "inputs" in names else None
        for name in names:
            say(name)
            more = inputs.result() if inputs and name == "inputs" else PARTS[name](size, chosen.seed)
            say(json.dumps({name: more}))
            add(found, more)
    found |= {"seed": chosen.seed, "quick": chosen.quick}
    print(json.dumps({name: round(v, 1) if isinstance(v, float) else v for name, v in found.items()}))


if __name__ == "__main__":
    main()
