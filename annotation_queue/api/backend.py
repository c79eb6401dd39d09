"""What the routes call: one `Backend` for each application, given to every route that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from annotation_queue.api.pools import Pool
from annotation_queue.figure_records import QueueFigures
from annotation_queue.people.accounts import Accounts
from annotation_queue.people.oidc import Provider
from annotation_queue.portraits import Portraits
from annotation_queue.records import Person, PlannedPhase, Stats, Stuck, VideoInfo
from annotation_queue.refinement.live import Live
from annotation_queue.tickets.ontologies import Ontologies
from annotation_queue.tickets.store import TicketStore


class Media(Protocol):
    """Where the page's videos come from. Methods are called from several threads."""

    def info(self, video_id: str) -> VideoInfo:
        """Size and length of a video. Raises NoSuchVideo."""

    def frame(self, video_id: str, frame_idx: int) -> bytes:
        """JPEG of exactly this frame of the stored 24 fps video. Raises NoSuchVideo, NoSuchFrame."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Everything that the routes call."""

    tickets: TicketStore
    accounts: Accounts
    ontologies: Ontologies
    media: Media
    live: Live | None  # None: no model, masklets are corrected by hand
    oidc: Provider | None  # None: people log in by password only
    secure_cookie: bool
    hashing: Pool  # checks and makes passwords
    provider: Pool  # talks to `oidc`
    stats: Callable[[], Stats]  # cached
    figures: Callable[[], QueueFigures]  # cached
    stuck: Callable[[], list[Stuck]]  # cached
    campaign: Callable[[], list[PlannedPhase]]  # cached
    portraits: Portraits
    sees_video: Callable[[Person, str], bool]  # cached if True


async def backend_of(request: Request) -> Backend:
    """The backend of the application that answers this request."""
    backend: Backend = request.app.state.backend
    return backend


Queue = Annotated[Backend, Depends(backend_of)]
