"""Releases, to be looked through: masklets by filters, page by page, and videos with their masks. Nothing is changed.

In the queue for leads and admins who see all projects, because a release is not divided into projects. `create_browser`
serves the same without a queue and without a log-in, for one person on one machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from annotation_queue.api.asking import whole_manager
from annotation_queue.api.backend import ReleaseSource
from annotation_queue.api.edge import Edge
from annotation_queue.api.errors import add_handlers
from annotation_queue.api.page import add_page
from annotation_queue.api.videos import ASK_AGAIN
from annotation_queue.release_records import ReleaseFilter, ReleaseMasks, ReleasePage, Releases, ReleaseVideo

MOST = 100  # masklets of a page
HERE = ["127.0.0.1", "localhost", "[::1]"]  # by which names the browser of one machine is asked for

Text = Annotated[str | None, Query(max_length=200)]
Share = Annotated[float | None, Query(ge=0, le=1)]
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$")]
FrameIdx = Annotated[int, Path(ge=0, le=10_000_000)]
First = Annotated[int, Query(ge=0, le=10_000_000)]
Count = Annotated[int, Query(ge=1, le=1000)]


def router_of(source: ReleaseSource, *, alone: bool = False) -> APIRouter:
    """The routes. alone: nobody is asked who they are."""
    router = APIRouter(tags=["releases"], dependencies=[] if alone else [Depends(whole_manager)])

    def picture(name: str, video_id: str, of: str, request: Request, make: Callable[[], bytes]) -> Response:
        """A JPEG that never changes. Browsers ask each time, because its video may have been withdrawn."""
        headers = ASK_AGAIN | {"ETag": f'"{name}/{video_id}/{of}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            source.check(name, video_id)
            return Response(status_code=304, headers=headers)
        return Response(make(), media_type="image/jpeg", headers=headers)

    @router.get("/api/releases")
    def releases() -> Releases:
        """The releases, the newest first."""
        return replace(source.releases(), alone=alone)

    @router.get("/api/releases/{name}/masklets")
    def masklets(
        name: Id,
        text: Text = None,
        video_id: Text = None,
        label: Text = None,
        size: Text = None,
        kind: Text = None,
        phase: Text = None,
        split: Text = None,
        person: Text = None,
        checkpoint: Text = None,
        score_from: Share = None,
        score_to: Share = None,
        disagreement_from: Share = None,
        after: Annotated[str | None, Query(pattern=r"^\d{1,9}\.\d{1,9}$")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 48,
    ) -> ReleasePage:
        """The masklets that pass the filters, page by page. A page may be short: see `looked` and `next`."""
        chosen = ReleaseFilter(
            text=text,
            video_id=video_id,
            label=label,
            size=size,
            kind=kind,
            phase=phase,
            split=split,
            person=person,
            checkpoint=checkpoint,
            score_from=score_from,
            score_to=score_to,
            disagreement_from=disagreement_from,
        )
        return source.page(name, chosen, after, limit)

    @router.get("/api/releases/{name}/videos/{video_id}")
    def video(name: Id, video_id: Id) -> ReleaseVideo:
        """A video with all its masklets, without their masks."""
        return source.video(name, video_id)

    @router.get("/api/releases/{name}/videos/{video_id}/masks")
    def masks(name: Id, video_id: Id, first: First, count: Count) -> ReleaseMasks:
        """The masks of a video on `count` frames of the stored video, from frame `first` on."""
        return source.masks(name, video_id, first, first + count)

    @router.get("/api/releases/{name}/videos/{video_id}/frames/{frame_idx}.jpg", response_class=Response)
    def frame(name: Id, video_id: Id, frame_idx: FrameIdx, request: Request) -> Response:
        """One frame as JPEG."""
        return picture(name, video_id, str(frame_idx), request, lambda: source.frame(name, video_id, frame_idx))

    @router.get("/api/releases/{name}/videos/{video_id}/{masklet_id}/thumbnail", response_class=Response)
    def thumbnail(name: Id, video_id: Id, masklet_id: Id, request: Request) -> Response:
        """A small picture of the frame that shows most of the object, with its mask."""
        return picture(name, video_id, masklet_id, request, lambda: source.thumbnail(name, video_id, masklet_id))

    return router


def create_browser(source: ReleaseSource, name: str, *, close: Callable[[], None]) -> FastAPI:
    """The application of `masklets browse`: the page at / opens the release of this name. close: at the end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        close()

    app = FastAPI(title="Masklet Engine: a release", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Edge)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HERE)  # another site's name may lead to this address
    add_handlers(app)

    @app.get("/", include_in_schema=False)
    def index() -> RedirectResponse:
        return RedirectResponse(f"/web/release.html#release={name}")

    app.include_router(router_of(source, alone=True))
    add_page(app)
    return app
