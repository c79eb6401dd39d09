"""The whole loop on synthetic clips, through the real DAGs, with simulated annotators: what `make demo` runs.

Everything happens in one folder, locked by one demo at a time: clips are rendered, Airflow and the queue start as with
`masklets up`, simulated people work over HTTP, and one retraining round closes the loop. This module does not know how
a stage works; it waits for the markers that the stages write.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from annotation_queue.records import Role
from engine import loop
from engine.demo import report, scene, simulated_people, simulated_review, synthetic_videos
from engine.demo.tally import Tally
from engine.files import InUse, alone
from engine.processes.airflow import Airflow, at_rest
from engine.processes.airflow_client import AirflowUnreachable, DagRun
from engine.processes.ports import free_port
from engine.progress import Tell
from engine.rounds import record
from engine.services import Services, connect
from engine.serving.queue_process import QueueProcess
from engine.settings import (
    AirflowSettings,
    AutoSettings,
    IngestSettings,
    ModelSettings,
    QueueSettings,
    ReviewSettings,
    RoundSettings,
    Settings,
    StorageSettings,
)
from engine.stages import batches
from engine.stages.batches import BatchStage
from storage.wording import counted

T = TypeVar("T")

CLIPS = 6
SCENE = scene.Scene(height=240, width=320, frames=72, objects=(2, 4), clutter=(0, 2), size=(0.14, 0.32), leave=0.15)
PEOPLE = (
    ("annotator-1", Role.ANNOTATOR),
    ("annotator-2", Role.ANNOTATOR),
    ("verifier-1", Role.VERIFIER),
    ("verifier-2", Role.VERIFIER),  # a corrected masklet needs another verifier than the one that sent it back
)
STAGE_LIMIT_S = 900.0
MARK = ".masklets-demo"  # this file marks a folder as a demo's
LOOK_S = 3.0  # between requests to Airflow while a stage is awaited


class DemoStalled(Exception):
    """A stage did not end."""


class DemoRunning(Exception):
    """Another demo runs in this folder."""


@dataclass(frozen=True)
class Result:
    """The outputs of a demo."""

    summary: report.Summary
    report: Path
    sav: list[Path]


def settings(folder: Path) -> Settings:
    """The demo's own settings. Every part is given, so the user's environment and files change nothing."""
    return Settings(
        home=folder,
        storage=StorageSettings(),
        ingest=IngestSettings(source=str((folder / "videos").absolute()), held_out_share=0.34),
        auto=AutoSettings(chunk_videos=3, max_objects=6),
        model=ModelSettings(checkpoint="micro", device="cpu", threads=1),
        queue=QueueSettings(port=free_port()),
        review=ReviewSettings(phase="3", held_out_by_hand=True),
        rounds=RoundSettings(min_new_masklets=1, steps=16, lr=3e-5, min_gain=0.0),
        airflow=AirflowSettings(
            port=free_port(), parallelism=2, gpu_slots=2, ingest_every_s=3600, reconcile_every_s=60
        ),
    )


def run_demo(folder: Path, tell: Tell, *, clips: int = CLIPS) -> Result:
    """Runs the demo in `folder`. Removes an earlier demo in it first.

    Raises DemoRunning, AlreadyRunning if an Airflow uses the folder, DemoStalled, ValueError for a folder that is not a
    demo's.
    """
    with _alone(folder):
        chosen = settings(folder)
        with at_rest(chosen.airflow_home, tell):
            _empty(folder)
        return _run(folder, chosen, tell, clips)


def _run(folder: Path, chosen: Settings, tell: Tell, clips: int) -> Result:
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], T]) -> T:
        begun = time.monotonic()
        result = work()
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - begun
        return result

    tell(f"rendering {counted(clips, 'clip')} with ground truth")
    timed("rendering clips", lambda: synthetic_videos.write_videos(folder / "videos", clips, SCENE, seed=7))
    with connect(chosen) as s:
        people = simulated_review.hire(s, PEOPLE)
    airflow = Airflow(
        chosen.airflow_home,
        port=chosen.airflow.port,
        parallelism=chosen.airflow.parallelism,
        gpu_slots=chosen.airflow.gpu_slots,
        environment=chosen.environment(),
        tell=tell,
    )
    told = chosen.model_copy(update={"airflow": chosen.airflow.model_copy(update={"url": airflow.url})})
    with QueueProcess(told, tell=tell) as queue:
        begun = time.monotonic()
        with airflow, connect(told) as s:
            seconds["starting Airflow"] = time.monotonic() - begun

            def check() -> None:
                airflow.check()
                queue.check()

            def until(done: Callable[[], T], stage: loop.Stage) -> T:
                tell(f"waiting for the DAG {stage.dag_id}")
                return _until(done, stage.dag_id, check, airflow.client.dag_runs)

            tell(f"Airflow at {airflow.url}, the queue at {told.queue_url}")
            airflow.client.trigger_dag(loop.INGEST.dag_id)
            batch_id = timed("ingest", lambda: until(lambda: _first_batch(s), loop.INGEST))
            timed("auto-masklets", lambda: until(lambda: _reached(s, batch_id, loop.OPEN_REVIEW), loop.OPEN_REVIEW))
            tell("review: simulated annotators claim tickets over HTTP")
            tally = timed("review", lambda: simulated_people.work(s, people, progress=_every(10, tell)))
            timed("collect", lambda: until(lambda: _reached(s, batch_id, loop.COLLECT), loop.COLLECT))
            timed("publish", lambda: until(lambda: _reached(s, batch_id, loop.PUBLISH), loop.PUBLISH))
            published = batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) or {}
            if published.get("release"):
                timed("retraining round", lambda: until(lambda: _decided(s), loop.RETRAIN))
            tell("writing the report")
            summary = report.summarise(s, batch_id, seconds=seconds, modelled_annotation_s=tally.modelled_s)
            title = "Masklet Engine demo: synthetic clips, simulated annotators"
            page = report.write(s, batch_id, summary, folder / "report.html", title=title)
            exported = _export(s, summary.release, folder / "sa-v")
            (folder / "summary.json").write_text(
                json.dumps(asdict(summary) | {"simulated": tally.as_json()}, indent=1, default=str)
            )
    return Result(summary, page, exported)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Locks the folder by its mark file; the lock ends with the process.

    Raises DemoRunning while another process holds the lock, ValueError for a folder that is not a demo's.
    """
    mark = folder / MARK
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise ValueError(f"{folder} is not empty and not a demo's: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
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


def _first_batch(s: Services) -> str:
    """The batch that ingest created; "" if it does not exist yet."""
    return next(iter(sorted(batches.reached(s.blobs))), "")


def _reached(s: Services, batch_id: str, stage: loop.Stage) -> bool:
    return stage.mark in batches.reached(s.blobs).get(batch_id, set())


def _decided(s: Services) -> bool:
    return any(record.result_of(s, round_id) for round_id in record.ids(s))


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
            tell(f"review: {counted(seen, 'ticket')} ({verdicts}; {tally.tracked} tracked, {tally.clicks} clicks)")

    return progress


def _export(s: Services, release: str, folder: Path) -> list[Path]:
    from storage import releases
    from storage.formats import sav

    return sav.export(releases.load(s.blobs, release), folder).files if release else []
