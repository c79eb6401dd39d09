"""The whole loop on synthetic clips, through the real DAGs, with simulated annotators: what `make demo` runs.

Everything happens in one folder: clips are rendered, Airflow and the queue are started as `masklets up` starts them,
people are simulated over HTTP, and one retraining round closes the loop. Nothing
here knows how a stage works; it waits for the marks that the stages leave.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from annotation_queue.records import Role
from engine import batches, report, rounds, simulate, synthetic
from engine.airflow import Airflow
from engine.batches import Stage
from engine.serve import QueueProcess, airflow_home, free_port
from engine.services import Services, connect
from engine.settings import (
    AirflowSettings,
    AutoSettings,
    IngestSettings,
    ModelSettings,
    QueueSettings,
    ReviewSettings,
    RoundSettings,
    Settings,
)
from engine.simulate import Credentials, Tally

T = TypeVar("T")

CLIPS = 6
SCENE = synthetic.Scene(height=240, width=320, frames=72, objects=(2, 4), clutter=(0, 2), size=(0.14, 0.32), leave=0.15)
PEOPLE = (("annotator-1", Role.ANNOTATOR), ("annotator-2", Role.ANNOTATOR), ("verifier-1", Role.VERIFIER))
STAGE_LIMIT_S = 900.0

Tell = Callable[[str], None]  # one line of progress


class DemoStalled(Exception):
    """A stage did not end."""


@dataclass(frozen=True)
class Result:
    """Where the demo left its figures."""

    summary: report.Summary
    report: Path
    sav: list[Path]


def settings(folder: Path) -> Settings:
    """The demo's own settings: nothing of the user's environment or files changes what it shows."""
    return Settings(
        home=folder,
        ingest=IngestSettings(source=str((folder / "videos").absolute()), held_out_share=0.34),
        auto=AutoSettings(chunk_videos=2, max_objects=8, min_iou=0.7, min_stability=0.85),
        model=ModelSettings(checkpoint="micro", device="cpu", threads=2),
        queue=QueueSettings(port=free_port()),
        review=ReviewSettings(phase="3", held_out_by_hand=True),
        rounds=RoundSettings(min_new_masklets=1, steps=40, lr=1e-4, min_gain=0.0),
        airflow=AirflowSettings(port=free_port(), parallelism=2, ingest_every_s=3600, reconcile_every_s=60),
    )


def run(folder: Path, tell: Tell, *, clips: int = CLIPS) -> Result:
    """Runs the demo in `folder`, which is emptied first if an earlier demo filled it."""
    _empty(folder)
    chosen = settings(folder)
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], T]) -> T:
        begun = time.monotonic()
        result = work()
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - begun
        return result

    tell(f"rendering {clips} clips with ground truth")
    timed("rendering clips", lambda: synthetic.write_videos(folder / "videos", clips, SCENE, seed=7))
    people = _hire(chosen)
    airflow = Airflow(
        airflow_home(chosen),
        port=chosen.airflow.port,
        parallelism=chosen.airflow.parallelism,
        gpu_slots=chosen.airflow.gpu_slots,
        environment=chosen.environment(),
        progress=tell,
    )
    told = chosen.model_copy(update={"airflow": chosen.airflow.model_copy(update={"url": airflow.url})})
    with QueueProcess(told) as queue:
        begun = time.monotonic()
        with airflow, connect(told) as s:
            seconds["starting Airflow"] = time.monotonic() - begun

            def check() -> None:
                airflow.check()
                queue.check()

            tell(f"Airflow at {airflow.url}, the queue at {told.queue_url}")
            airflow.client.trigger_dag("ingest")
            batch_id = timed("ingest", lambda: _until(lambda: _first_batch(s), "ingest", tell, check))
            timed(
                "auto-masklets",
                lambda: _until(lambda: _reached(s, batch_id, Stage.IN_REVIEW), "auto_masklets", tell, check),
            )
            tell("review: simulated annotators claim tickets over HTTP")
            tally = timed("review", lambda: simulate.work(s, people, progress=_every(10, tell)))
            timed("collect", lambda: _until(lambda: _reached(s, batch_id, Stage.COLLECTED), "collect", tell, check))
            timed("publish", lambda: _until(lambda: _reached(s, batch_id, Stage.PUBLISHED), "publish", tell, check))
            published = batches.facts(s.blobs, batch_id, Stage.PUBLISHED) or {}
            if published.get("release"):
                timed("retraining round", lambda: _until(lambda: _decided(s), "retrain", tell, check))
            tell("writing the report")
            summary = report.summarise(s, batch_id, seconds=seconds, modelled_annotation_s=tally.modelled_s)
            title = "Masklet Engine demo: synthetic clips, simulated annotators"
            page = report.write(s, batch_id, summary, folder / "report.html", title=title)
            exported = _export(s, summary.release, folder / "sa-v")
            (folder / "summary.json").write_text(
                json.dumps(asdict(summary) | {"simulated": simulate.as_json(tally)}, indent=1, default=str)
            )
    return Result(summary, page, exported)


def _empty(folder: Path) -> None:
    """Removes what an earlier demo left; refuses a folder that is not a demo's."""
    mark = folder / ".masklets-demo"
    if folder.exists() and any(folder.iterdir()):
        if not mark.exists():
            raise ValueError(f"{folder} is not empty and not a demo's: choose another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _hire(chosen: Settings) -> list[Credentials]:
    """Gives each simulated person an account in the queue, with a random password."""
    hired = []
    with connect(chosen) as s:
        _, accounts = s.open_queue()
        for name, role in PEOPLE:
            password = secrets.token_urlsafe(12)
            accounts.add(name, [role], password)
            hired.append(Credentials(name, password))
    return hired


def _first_batch(s: Services) -> str:
    """The batch that ingest made; "" while there is none."""
    return next(iter(sorted(batches.reached(s.blobs))), "")


def _reached(s: Services, batch_id: str, stage: Stage) -> bool:
    return stage in batches.reached(s.blobs).get(batch_id, set())


def _decided(s: Services) -> bool:
    return any(rounds.outcome_of(s, round_id) for round_id in rounds.ids(s))


def _until(done: Callable[[], T], stage: str, tell: Tell, check: Callable[[], None]) -> T:
    """Waits until a stage has left its mark. Raises DemoStalled after fifteen minutes."""
    tell(f"waiting for the DAG {stage}")
    deadline = time.monotonic() + STAGE_LIMIT_S
    while not (result := done()):
        check()
        if time.monotonic() > deadline:
            raise DemoStalled(f"{stage} did not end within {STAGE_LIMIT_S:.0f} s: see the task logs in airflow/logs")
        time.sleep(0.5)
    return result


def _every(count: int, tell: Tell) -> Callable[[Tally], None]:
    """Tells of every `count`-th ticket."""
    seen = 0

    def progress(tally: Tally) -> None:
        nonlocal seen
        seen += 1
        if seen % count == 0:
            verdicts = ", ".join(f"{n} {v}" for v, n in sorted(tally.verdicts.items()))
            tell(f"review: {seen} tickets ({verdicts}; {tally.tracked} tracked, {tally.clicks} clicks)")

    return progress


def _export(s: Services, release: str, folder: Path) -> list[Path]:
    from storage import releases
    from storage.formats import sav

    return sav.export(releases.load(s.blobs, release), folder) if release else []
