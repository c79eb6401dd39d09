"""What the killed processes of `benchmarks.faults` do: the stages of the loop, as Airflow's tasks call them.

Only the search of the model is replaced: every video gets the same two blocks that move, so that no model is needed and
every run finds the same. Everything else is the product. Each piece of work on a video leaves a line in a file, which
shows how much was done twice.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine.ingest import ingest, judge
from engine.services import Services, connect
from engine.settings import Settings
from engine.stages import propose, publish, review
from storage import rle
from storage.records import STRIDE, Masklet, Video, content_id
from storage.videos import normalise as storage_normalise

MASKLETS = 2  # of each video

# Errors that mean "not now": Airflow would run the task again. All others are counted as crashes.
ROOMS = ("storage.", "engine.", "annotation_queue.", "model.", "validation.")


def masklets_of(s: Services, video: Video) -> list[Masklet]:
    """Two blocks that move, on a video whose first frame can be read."""
    with s.frames(video) as reader:
        reader.read(0)
    rows = []
    indices = tuple(range(0, video.frame_count, STRIDE))
    for n in range(MASKLETS):
        masks = np.zeros((len(indices), video.height, video.width), bool)
        for t in range(len(indices)):
            masks[t, 24 * n + t : 24 * n + t + 20, 3 * t : 3 * t + 24] = True
        rows.append(
            Masklet(
                masklet_id=content_id(video.video_id, str(n), length=20),
                video_id=video.video_id,
                batch_id=video.batch_id,
                height=video.height,
                width=video.width,
                frame_idx=indices,
                rle=tuple(map(rle.encode, masks)),
                area_px=tuple(int(mask.sum()) for mask in masks),
                score=(0.9,) * len(indices),
                object_score=(5.0,) * len(indices),
                stability=(0.95,) * len(indices),
                kind="auto",
                phase="auto",
                round=0,
                checkpoint="blocks",
                prompt="{}",
                split=video.split,
            )
        )
    return rows


def is_typed(error: BaseException) -> bool:
    """Whether an error says what went wrong in the project's own words, or is the operating system's."""
    return type(error).__module__.startswith(ROOMS) or isinstance(error, OSError)


def replace_the_model(done: Path) -> None:
    """Takes the model's place in this process, and notes the work on each video."""
    normalise = storage_normalise.normalise

    def note(line: str) -> None:
        descriptor = os.open(done, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)

    def noted(source: Path, target: Path, **limits: Any) -> Any:
        made = normalise(source, target, **limits)
        note(f"ingest {source.name[-12:]}")
        return made

    def propose_video(s: Services, video: Video, *_: object) -> list[Masklet]:
        found = masklets_of(s, video)
        note(f"propose {video.video_id}")
        return found

    # These replace the model and note each call; mypy does not allow replacing a function of a module.
    judge.normalise = noted  # type: ignore[attr-defined]
    propose.propose_video = propose_video  # type: ignore[assignment]
    propose._pinned_checkpoint = lambda s, batch_id: SimpleNamespace(name="blocks")  # type: ignore[assignment,return-value]
    Services.model = lambda *_, **__: None  # type: ignore[assignment,method-assign]


def _open(s: Services, batch_id: str) -> int:
    propose.finish(s, batch_id)
    return review.open_batch(s, batch_id, "1")


JOBS: dict[str, Callable[..., Any]] = {
    "plan": ingest.plan,
    "admit": ingest.admit_piece,
    "propose": propose.propose_videos,
    "open": _open,
    "collect": lambda s, batch_id: review.collect(s, batch_id) and None,
    "publish": publish.publish_batch,
}


def work(line: Connection, settings: Settings, done: Path, environment: dict[str, str]) -> None:
    """Does the jobs that come over a line, until it is closed. Answers with the result, or with the error."""
    os.environ.update(environment)
    replace_the_model(done)
    s: Services | None = None
    while True:
        try:
            name, arguments = line.recv()
        except EOFError:
            return
        try:
            s = s or connect(settings)
            answer: tuple[str, Any] = ("done", JOBS[name](s, *arguments))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            answer = ("failed", (is_typed(error), said, traceback.format_exc()))
            if s is not None:
                s.__exit__(None, None, None)
                s = None
        line.send(answer)


def serve(settings: Settings, environment: dict[str, str]) -> None:
    """A queue server: what `masklets serve --no-deliver` runs."""
    from engine.serving import serve as serving

    os.environ.update(environment)
    serving.serve(settings, deliver=False)
