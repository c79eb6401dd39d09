"""The queue as an ASGI application: `create_app` puts the routers together.

The files of this folder are the only place that knows HTTP. Each route parses, calls the backend and returns. Bodies
and answers are frozen records as JSON.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import ParamSpec, TypeVar

from cachetools import TTLCache, cached
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from annotation_queue.api import (
    batches,
    comments,
    history,
    logins,
    numbers,
    ontologies,
    overseeing,
    people,
    pictures,
    pipeline,
    refinement,
    releases,
    tickets,
    videos,
)
from annotation_queue.api.backend import Backend, Media, Pipeline, ReleaseSource
from annotation_queue.api.edge import Edge, Shares
from annotation_queue.api.errors import add_handlers
from annotation_queue.api.page import add_page
from annotation_queue.api.pools import Pool
from annotation_queue.people.accounts import Accounts
from annotation_queue.people.oidc import Provider
from annotation_queue.portraits import Portraits
from annotation_queue.records import Person, PlannedPhase, Stuck
from annotation_queue.refinement.live import Live
from annotation_queue.refinement.segmenter import Segmenter
from annotation_queue.refinement.timings import Timings
from annotation_queue.tickets.ontologies import Ontologies
from annotation_queue.tickets.store import TicketStore

P = ParamSpec("P")
T = TypeVar("T")

ROUTERS = (
    logins.router,
    people.router,
    tickets.router,
    comments.router,
    history.router,
    pictures.router,
    videos.router,
    batches.router,
    ontologies.router,
    numbers.router,
    overseeing.router,
)

STATS_S = 1.0  # maximum age of the numbers of /api/stats
STUCK_S = 10.0  # maximum age of the batches of /api/stuck: the pipeline's store may be far away
CAMPAIGN_S = 30.0  # maximum age of /api/campaign: it reads a marker of each published batch
CACHED = 100  # results for different groups of projects
FIGURES_S = 1.0  # maximum age of those of /api/figures and /metrics
HASHES = 2  # passwords that are hashed at once: each takes 64 MiB and several cores for a tenth of a second
PROVIDER_CALLS = 8  # log-ins through a provider at once: they wait for its answers
LOGINS_WAITING = 32  # log-ins of each kind that may wait, for some seconds; the next one gets 503
DELIVER_S = 1.0  # between two looks for drained batches to deliver
SEES_S = 10.0  # how long a person's right to see a video is cached: the page asks for its frames one by one


def create_app(
    tickets: TicketStore,
    media: Media,
    *,
    accounts: Accounts | None = None,
    deliver: Callable[[str], object] | None = None,
    secure_cookie: bool = False,
    segmenter: Segmenter | None = None,
    timings: Timings | None = None,
    oidc: Provider | None = None,
    stuck: Callable[[], list[Stuck]] = list,
    campaign: Callable[[], list[PlannedPhase]] = list,
    overview: Pipeline | None = None,
    release_source: ReleaseSource | None = None,
) -> FastAPI:
    """The API under /api, and the page at /.

    accounts: the people; those of the tickets' database by default.
    deliver: called in a thread with the id of each drained batch, and called again later if it raises; None leaves the
        outbox to another process.
    secure_cookie: True where the page is served over HTTPS.
    segmenter: the model of live refinement; None means that masklets are corrected by hand alone.
    timings: counts how long the model's answers take.
    oidc: the provider through which people may log in, besides by password.
    stuck: the batches that the pipeline cannot take further; those that cannot be delivered are added.
    campaign: the phases of the pipeline's plan and how far each is.
    overview: what leads see of the pipeline; without it, the page about the pipeline has nothing to show.
    release_source: the releases that leads look through; without it, the page about releases has nothing to show.
    """
    timings = timings or Timings()
    backend = Backend(
        tickets=tickets,
        timings=timings,
        accounts=accounts or Accounts(tickets.database),
        ontologies=Ontologies(tickets.database, tickets.clock),
        media=media,
        live=None if segmenter is None else Live(tickets, media.info, segmenter, timings),
        oidc=oidc,
        secure_cookie=secure_cookie,
        hashing=Pool("hashing", threads=HASHES, waiting=LOGINS_WAITING),
        provider=Pool("provider", threads=PROVIDER_CALLS, waiting=LOGINS_WAITING),
        stats=_cached(tickets.stats, STATS_S),
        figures=_cached(tickets.figures, FIGURES_S),
        stuck=_cached(lambda: _with_undelivered(stuck(), tickets.undelivered()), STUCK_S),
        campaign=_cached(campaign, CAMPAIGN_S),
        pipeline=overview,
        portraits=Portraits(tickets.masklet, media.frame),
        sees_video=_remember_yes(tickets.may_see_video, SEES_S),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with (
            _open(backend),
            _delivering(tickets, deliver) if deliver else contextlib.nullcontext(),
        ):
            yield

    return _application(backend, lifespan, release_source)


def _application(
    backend: Backend,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    release_source: ReleaseSource | None,
) -> FastAPI:
    """The routers over a backend; those of the provider and of live refinement only where the backend has them."""
    app = FastAPI(
        title="Masklet Engine: the review queue",
        version="1",
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
    )
    app.state.backend = backend
    app.add_middleware(Edge)
    app.add_middleware(Shares)  # around Edge
    add_handlers(app)
    routers = [
        *ROUTERS,
        *([logins.oidc_router] if backend.oidc is not None else []),
        *([refinement.router] if backend.live is not None else []),
        *([pipeline.router] if backend.pipeline is not None else []),
        *([releases.router_of(release_source)] if release_source is not None else []),
    ]
    for router in routers:
        app.router.routes.extend(router.routes)  # `include_router` would build each of them a second time
    add_page(app)
    return app


@contextlib.contextmanager
def _open(backend: Backend) -> Iterator[None]:
    """Closes the threads of a backend when the block ends."""
    try:
        yield
    finally:
        backend.hashing.close()
        backend.provider.close()
        if backend.live is not None:
            backend.live.close()


def _with_undelivered(stuck: list[Stuck], undelivered: list[Stuck]) -> list[Stuck]:
    """Both, each batch once: the pipeline knows its own stage, the outbox only that the delivery failed."""
    known = {batch.batch_id for batch in stuck}
    return [*stuck, *(batch for batch in undelivered if batch.batch_id not in known)]


def _cached(compute: Callable[P, T], max_age_s: float) -> Callable[P, T]:
    """The function with values that are at most `max_age_s` old. Threads that ask at once wait for one computation."""
    cache: TTLCache[Hashable, T] = TTLCache(CACHED, max_age_s)
    return cached(cache, condition=threading.Condition())(compute)


def _remember_yes(ask: Callable[[Person, str], bool], max_age_s: float) -> Callable[[Person, str], bool]:
    """The question with True cached for `max_age_s`. False is not cached: the right may be given a moment later."""
    cache: TTLCache[tuple[Person, str], bool] = TTLCache(10_000, max_age_s)
    lock = threading.Lock()

    def allowed(person: Person, about: str) -> bool:
        with lock:
            if (person, about) in cache:
                return True
        if not ask(person, about):
            return False
        with lock:
            cache[person, about] = True
        return True

    return allowed


@contextlib.contextmanager
def _delivering(tickets: TicketStore, deliver: Callable[[str], object]) -> Iterator[None]:
    """Delivers drained batches in a thread while the block runs."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(DELIVER_S):
            with contextlib.suppress(SQLAlchemyError):  # the database does not answer: the outbox waits
                tickets.deliver(deliver)

    thread = threading.Thread(target=run, name="deliver", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)
