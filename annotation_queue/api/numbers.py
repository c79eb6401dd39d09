"""The queue in numbers: for people, for overseers, for Prometheus, and whether the server is up."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastapi import APIRouter, Response

from annotation_queue.api.asking import InProject, Overseer
from annotation_queue.api.backend import Backend, Queue
from annotation_queue.api.metrics import CONTENT_TYPE, exposition
from annotation_queue.figure_records import QueueFigures
from annotation_queue.pipeline_records import PipelineCounts
from annotation_queue.records import PlannedPhase, Stats, Stuck
from annotation_queue.tickets import shown

log = logging.getLogger(__name__)

router = APIRouter(tags=["numbers"])


@dataclass(frozen=True, kw_only=True)
class Health:
    """The server answers and reaches its database."""

    ok: bool


@router.get("/api/stats")
def stats(who: InProject, queue: Queue) -> Stats:
    """Everybody's pace; for overseers also how many tickets are in which state."""
    return shown.stats(queue.stats(who.projects), who)


@router.get("/api/figures")
def figures(who: InProject, _: Overseer, queue: Queue) -> QueueFigures:
    """Progress, effort and agreement, by batch, person, phase and checkpoint."""
    return queue.figures(who.projects)


@router.get("/api/stuck")
def stuck(who: Overseer, queue: Queue) -> list[Stuck]:
    """The stages of the pipeline that fail, each with its batch, its error and since when."""
    found = queue.stuck()
    if who.projects is None:
        return found
    return [each for each in found if each.batch_id and each.project in who.projects]  # an error may name a source


@router.get("/api/campaign")
def campaign(who: InProject, _: Overseer, queue: Queue) -> list[PlannedPhase]:
    """The phases of the plan in order, and how far each is. Empty if nothing is planned."""
    return [phase for phase in queue.campaign() if who.projects is None or phase.project in who.projects]


@router.get("/metrics", response_class=Response)
def metrics(who: Overseer, queue: Queue) -> Response:
    """The queue, the pipeline and the model's answers for Prometheus.

    It needs a token of an overseer, best with the scope `read`. No address is trusted without one: behind a proxy on
    this machine, every request would look local.
    """
    counts, up = (None, True) if who.projects is not None else _counts(queue)  # of all projects together
    return Response(exposition(queue.figures(who.projects), queue.timings, counts, up=up), media_type=CONTENT_TYPE)


def _counts(queue: Backend) -> tuple[PipelineCounts | None, bool]:
    """The pipeline in numbers, and whether it could be asked. A store that is away costs its own numbers only."""
    if queue.pipeline is None:
        return None, True
    try:
        return queue.pipeline.counts(), True
    except Exception:  # of the store, the catalog or the registry
        log.warning("the pipeline cannot be counted", exc_info=True)
        return None, False


@router.get("/healthz")
def health(queue: Queue) -> Health:
    """Whether the server is up. Anybody may ask."""
    queue.stats(None)  # asks the database
    return Health(ok=True)
