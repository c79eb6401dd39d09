"""The whole loop, twice, on synthetic clips, through the real DAGs, with simulated annotators: what `make demo` runs.

Everything happens in one folder, locked by one demo at a time. Clips of a domain that the model never saw are rendered,
Airflow and the queue start as with `masklets up`, and simulated people review a first batch over HTTP. A retraining
round learns from it, and a second batch shows what that changed. This module does not know how a stage works; it waits
for the markers that the stages write.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from annotation_queue.records import Role
from engine import batches, loop
from engine.demo import report, simulated_people, simulated_review, summary
from engine.demo.simulated_people import Credentials
from engine.demo.summary import BatchFigures, Summary
from engine.demo.tally import Tally
from engine.files import alone
from engine.processes.airflow import Airflow, at_rest
from engine.processes.airflow_client import AirflowClient, AirflowUnreachable, DagRun
from engine.processes.ports import free_port
from engine.progress import Tell
from engine.rounds import record
from engine.services import Services, connect
from engine.serving.queue_process import QueueProcess
from engine.settings import (
    AirflowSettings,
    AutoSettings,
    CampaignSettings,
    IngestSettings,
    ModelSettings,
    QueueSettings,
    ReviewSettings,
    RoundSettings,
    Settings,
    StorageSettings,
)
from engine.synthetic import video_files
from engine.synthetic.domains.catalogue import DOMAINS
from engine.synthetic.domains.drawing import Size
from storage.lease import InUse
from storage.wording import counted

T = TypeVar("T")

DOMAIN = "cells"
CLIPS, MORE_CLIPS = 9, 6  # of the first and of the second batch; a third is held out
SIZE = Size(height=240, width=320, frames=24)
PEOPLE = (
    ("annotator-1", Role.ANNOTATOR),
    ("annotator-2", Role.ANNOTATOR),
    ("reviewer-1", Role.VERIFIER),
    ("reviewer-2", Role.VERIFIER),  # a corrected masklet needs another reviewer than the one that sent it back
)
THREADS = 2  # CPU threads of what works alone: the round, and this process, which tracks for the annotators
STEPS = 150  # of the round: a quarter of what a round has at least by default, so that the demo takes few minutes
NEVER = 1_000_000  # new masklets: the demo starts its round itself, and no other one
STAGE_LIMIT_S = 3600.0  # a round took ten minutes beside other work; a DAG that fails is noticed at once
MARK = ".masklets-demo"  # this file marks a folder as a demo's
LOOK_S = 3.0  # between requests to Airflow while a stage is awaited


class DemoStalled(Exception):
    """A stage did not end."""


class DemoRunning(Exception):
    """Another demo runs in this folder."""


@dataclass(frozen=True)
class DemoResult:
    """The outputs of a demo."""

    summary: Summary
    report: Path
    sav: list[Path]


def settings(folder: Path) -> Settings:
    """The demo's own settings. Every section is given, so the user's environment and files change nothing."""
    chosen = Settings(
        home=folder,
        storage=StorageSettings(),
        ingest=IngestSettings(source=str((folder / "videos").absolute()), held_out_share=1 / 3),
        auto=AutoSettings(chunk_videos=3, max_objects=6, keyframe_s=0),  # later searches take as long as the first
        model=ModelSettings(checkpoint="micro", device="cpu", threads=1, embeddings_gib=0.25),
        queue=QueueSettings(port=free_port()),
        review=ReviewSettings(phase="3", select=True, held_out_by_hand=True),
        rounds=RoundSettings(min_new_masklets=NEVER, steps=STEPS, threads=THREADS),
        campaign=CampaignSettings(phases=()),
        airflow=AirflowSettings(
            port=free_port(), parallelism=2, gpu_slots=2, ingest_every_s=3600, reconcile_every_s=300
        ),
    )
    return chosen.model_copy(update={"projects": {}})  # pydantic would add those of a file to an empty dict


def run_demo(folder: Path, tell: Tell, *, domain: str = DOMAIN, seed: int = 1) -> DemoResult:
    """Runs the demo in `folder`. Removes an earlier demo in it first.

    domain: a key of DOMAINS, the kind of video.  seed: of the clips and of the round.

    Raises DemoRunning, AlreadyRunning if an Airflow uses the folder, DemoStalled, ValueError for a folder that is not a
    demo's.
    """
    with _alone(folder):
        chosen = settings(folder)
        with at_rest(chosen.airflow_home, tell):
            _empty(folder)
        return _Demo(folder, chosen, tell, domain, seed).run()


class _Demo:
    """One run of the demo: two batches with a round between them."""

    def __init__(self, folder: Path, chosen: Settings, tell: Tell, domain: str, seed: int) -> None:
        self.folder, self.settings, self.tell, self.domain, self.seed = folder, chosen, tell, domain, seed
        self.seconds: dict[str, float] = {}  # by stage, measured
        self.check: Callable[[], None] = lambda: None  # raises if a server ended

    def run(self) -> DemoResult:
        with connect(self.settings) as s:
            people = simulated_review.hire(s, PEOPLE)
        chosen = self.settings.airflow
        airflow = Airflow(
            self.settings.airflow_home,
            port=chosen.port,
            parallelism=chosen.parallelism,
            gpu_slots=chosen.gpu_slots,
            environment=self.settings.environment(),
            tell=self.tell,
        )
        told = self.settings.model_copy(update={"airflow": chosen.model_copy(update={"url": airflow.url})})
        self._render(range(1, CLIPS + 1))
        with QueueProcess(told, tell=self.tell) as queue:
            begun = time.monotonic()
            ours = told.model_copy(update={"model": told.model.model_copy(update={"threads": THREADS})})
            with airflow, connect(ours) as s:
                self.seconds["starting Airflow"] = time.monotonic() - begun

                def check() -> None:
                    airflow.check()
                    queue.check()

                self.check = check
                self.tell(f"Airflow at {airflow.url}, the queue at {told.queue_url}")
                done = [self._batch(s, airflow, people)]
                round_id = self._round(s, airflow, done[0].release) if done[0].release else None
                self._render(range(CLIPS + 1, CLIPS + MORE_CLIPS + 1))
                done.append(self._batch(s, airflow, people))
                return self._report(s, done, round_id)

    def _render(self, numbers: range) -> None:
        self.tell(f"rendering {counted(len(numbers), 'clip')} of the domain {self.domain!r} with ground truth")
        draw = DOMAINS[self.domain].render
        with self._timed("rendering clips"):
            video_files.write_clips(self.folder / "videos", lambda n: draw(self.seed * 1_000_003 + n, SIZE), numbers)

    def _batch(self, s: Services, airflow: Airflow, people: list[Credentials]) -> BatchFigures:
        """Takes the videos that were rendered last through the loop, up to their release."""
        earlier = set(batches.reached(s.blobs))
        _started(airflow.client, loop.INGEST.dag_id, {}, self.check)
        with self._timed("ingest"):
            batch_id = self._until(airflow.client.dag_runs, lambda: _new_batch(s, earlier), loop.INGEST)
        with self._timed("auto-masklets"):
            self._until(airflow.client.dag_runs, lambda: _reached(s, batch_id, loop.OPEN_REVIEW), loop.OPEN_REVIEW)
        self.tell("review: simulated annotators claim tickets over HTTP")
        with self._timed("review"):
            tally = simulated_people.work(s, people, batch_id=batch_id, progress=_every(10, self.tell))
        for stage in (loop.COLLECT, loop.PUBLISH):
            with self._timed(stage.name):
                self._until(airflow.client.dag_runs, partial(_reached, s, batch_id, stage), stage)
        return summary.of_batch(s, batch_id, tally)

    def _round(self, s: Services, airflow: Airflow, release: str) -> str:
        """Retrains on a release, as an engineer starts a round on Airflow's page; returns the round's id."""
        run_id = _started(airflow.client, loop.RETRAIN.dag_id, {"release": release, "seed": self.seed}, self.check)
        with self._timed("retraining round"):
            return self._until(_only(run_id, airflow.client.dag_runs), lambda: _decided(s), loop.RETRAIN)

    def _until(self, runs: Callable[[str], list[DagRun]], done: Callable[[], T], stage: loop.Stage) -> T:
        self.tell(f"waiting for the DAG {stage.dag_id}")
        return _until(done, stage.dag_id, self.check, runs)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - begun

    def _report(self, s: Services, done: list[BatchFigures], round_id: str | None) -> DemoResult:
        self.tell("writing the report")
        found = summary.of_demo(s, self.domain, done, round_id, self.seconds)
        title = f"Masklet Engine demo: the domain {self.domain!r}, simulated annotators"
        page = report.write(s, found, self.folder / "report.html", title=title)
        exported = _export(s, done[-1].release or done[0].release, self.folder / "sa-v")
        (self.folder / "summary.json").write_text(json.dumps(asdict(found), indent=1, default=str))
        return DemoResult(found, page, exported)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Locks the folder by its mark file; the lock ends with the process.

    Raises DemoRunning while another process holds the lock, ValueError for a folder that is not a demo's.
    """
    mark = folder / MARK
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise ValueError(f"{folder} is not empty and not a demo's: choose another folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(alone(mark, wait=False))
        except InUse:
            raise DemoRunning(f"another demo runs in {folder}: end it, or choose another folder") from None
        yield


def _empty(folder: Path) -> None:
    """Removes the files of an earlier demo, but not the mark file: it is locked."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()


def _new_batch(s: Services, earlier: set[str]) -> str:
    """The batch that ingest created; "" if it does not exist yet."""
    return next(iter(sorted(set(batches.reached(s.blobs)) - earlier)), "")


def _reached(s: Services, batch_id: str, stage: loop.Stage) -> bool:
    return stage.mark in batches.reached(s.blobs).get(batch_id, set())


def _decided(s: Services) -> str:
    """The id of the round that was decided; "" as long as there is none."""
    return next((round_id for round_id in record.ids(s) if record.result_of(s, round_id)), "")


def _until(done: Callable[[], T], dag_id: str, check: Callable[[], None], runs: Callable[[str], list[DagRun]]) -> T:
    """Waits for the marker of a stage. Raises DemoStalled if its DAG failed, or after STAGE_LIMIT_S."""
    begun = looked = time.monotonic()
    while not (result := done()):
        check()
        now = time.monotonic()
        if now - looked >= LOOK_S:
            looked = now
            with suppress(AirflowUnreachable):  # it is restarting
                reason = _why_it_cannot_finish(runs(dag_id))
                if reason and not done():  # the marker may have been written in between
                    raise DemoStalled(f"the DAG {dag_id} {reason}: see its task logs in airflow/logs/dag_id={dag_id}")
        if now - begun > STAGE_LIMIT_S:
            raise DemoStalled(f"{dag_id} did not end within {STAGE_LIMIT_S:.0f} s: see the task logs in airflow/logs")
        time.sleep(0.5)
    return result


def _started(client: AirflowClient, dag_id: str, conf: Mapping[str, object], check: Callable[[], None]) -> str:
    """Starts a run of a DAG; returns its id. Asks again while Airflow fails: a busy machine may find SQLite locked.

    Raises DemoStalled after STAGE_LIMIT_S.
    """
    run_id = f"demo__{uuid4().hex}"  # asking again for the same run starts no second one

    def start() -> str:
        with suppress(AirflowUnreachable):
            return client.trigger_dag(dag_id, conf, run_id)
        return ""

    return _until(start, dag_id, check, lambda _: [])


def _only(run_id: str, runs: Callable[[str], list[DagRun]]) -> Callable[[str], list[DagRun]]:
    """Only the run that the demo started. The release wakes its DAG too, and that run ends without a decision."""
    return lambda dag_id: [run for run in runs(dag_id) if run.run_id == run_id]


def _why_it_cannot_finish(runs: list[DagRun]) -> str:
    """Why these runs can no longer write the marker; "" if they still can."""
    if any(run.state == "failed" for run in runs):
        return "failed"
    retrained = [run for run in runs if run.dag_id == loop.RETRAIN.dag_id]  # other stages are retried
    if any(run.state == "success" for run in retrained):
        return "ended without a decision"
    return ""


def _every(count: int, tell: Tell) -> Callable[[Tally], None]:
    """Reports every `count`-th ticket."""
    seen = 0

    def progress(tally: Tally) -> None:
        nonlocal seen
        seen += 1
        if seen % count == 0:
            verdicts = ", ".join(f"{n} {v}" for v, n in sorted(tally.verdicts.items()))
            done = f"{verdicts}; {tally.tracked} tracked, {counted(tally.work.clicks, 'click')}"
            tell(f"review: {counted(seen, 'ticket')} ({done})")

    return progress


def _export(s: Services, release: str, folder: Path) -> list[Path]:
    from storage.dataset import releases
    from storage.formats import sav

    return sav.export(releases.load(s.blobs, release), folder).files if release else []
