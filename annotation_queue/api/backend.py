"""What the routes call: one `Backend` for each application, given to every route that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from fastapi import Depends, Request

from annotation_queue.api.pools import Pool
from annotation_queue.figure_records import QueueFigures
from annotation_queue.people.accounts import Accounts
from annotation_queue.people.oidc import Provider
from annotation_queue.pipeline_records import (
    Action,
    BatchStanding,
    PipelineCounts,
    PipelineView,
    QuarantinePage,
    QuarantineRow,
)
from annotation_queue.portraits import Portraits
from annotation_queue.records import Person, PlannedPhase, Stats, Stuck, VideoInfo
from annotation_queue.refinement.live import Live
from annotation_queue.refinement.timings import Timings
from annotation_queue.release_records import ReleaseFilter, ReleaseMasks, ReleasePage, Releases, ReleaseVideo
from annotation_queue.tickets.ontologies import Ontologies
from annotation_queue.tickets.store import TicketStore


class Media(Protocol):
    """Where the page's videos come from. Methods are called from several threads."""

    def info(self, video_id: str) -> VideoInfo:
        """Size and length of a video. Raises NoSuchVideo."""

    def frame(self, video_id: str, frame_idx: int) -> bytes:
        """JPEG of exactly this frame of the stored 24 fps video. Raises NoSuchVideo, NoSuchFrame."""


class Pipeline(Protocol):
    """What leads see of the pipeline, and what they decide about its quarantine. Called from several threads."""

    def view(self) -> PipelineView:
        """Everything that the page shows but the quarantine; at most some seconds old."""

    def counts(self) -> PipelineCounts:
        """The same in numbers; at most some seconds old."""

    def batch(self, batch_id: str) -> BatchStanding:
        """Where one batch stands. Raises NoSuchBatch."""

    def quarantine(
        self, *, stage: str | None, reason: str | None, text: str | None, undecided: bool, after: int, limit: int
    ) -> QuarantinePage:
        """What was refused, filtered. text: a part of the subject or of the detail."""

    def decide(self, row_id: str, action: Action, *, act_id: str, by: str, why: str) -> QuarantineRow:
        """Records an act on a row, and returns the row as it is then. ValueError for one that is not possible."""

    def docs(self, batch_id: str, path: str) -> Path | None:
        """A file of a batch's Data Docs; None if there is none."""


class ReleaseSource(Protocol):
    """The releases that leads look through. Called from several threads."""

    def releases(self) -> Releases:
        """The releases, the newest first."""

    def page(self, name: str, wanted: ReleaseFilter, after: str | None, limit: int) -> ReleasePage:
        """The masklets that pass a filter, from `after` on: the `next` of the page before. Raises NoSuchRelease."""

    def video(self, name: str, video_id: str) -> ReleaseVideo:
        """A video and its masklets, without their masks. Raises NoSuchRelease, NoSuchVideo."""

    def masks(self, name: str, video_id: str, first: int, end: int) -> ReleaseMasks:
        """The masks of a video on its frames from `first` to before `end`. Raises NoSuchRelease, NoSuchVideo."""

    def check(self, name: str, video_id: str) -> None:
        """Raises NoSuchRelease; NoSuchVideo for a video that was withdrawn. Reads nothing of the video."""

    def frame(self, name: str, video_id: str, frame_idx: int) -> bytes:
        """JPEG of exactly this frame of a video of the release. Raises NoSuchRelease, NoSuchVideo, NoSuchFrame."""

    def thumbnail(self, name: str, video_id: str, masklet_id: str) -> bytes:
        """JPEG of the frame that shows most of an object. Raises NoSuchRelease, NoSuchVideo, NoSuchMasklet."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Everything that the routes call."""

    tickets: TicketStore
    accounts: Accounts
    ontologies: Ontologies
    media: Media
    timings: Timings  # of the model's answers
    live: Live | None  # None: no model, masklets are corrected by hand
    oidc: Provider | None  # None: people log in by password only
    secure_cookie: bool
    hashing: Pool  # checks and makes passwords
    provider: Pool  # talks to `oidc`
    stats: Callable[[frozenset[str] | None], Stats]  # of these projects; cached
    figures: Callable[[frozenset[str] | None], QueueFigures]  # of these projects; cached
    stuck: Callable[[], list[Stuck]]  # cached
    campaign: Callable[[], list[PlannedPhase]]  # cached
    pipeline: Pipeline | None  # None: this server knows only the queue
    portraits: Portraits
    sees_video: Callable[[Person, str], bool]  # cached if True


async def backend_of(request: Request) -> Backend:
    """The backend of the application that answers this request."""
    backend: Backend = request.app.state.backend
    return backend


Queue = Annotated[Backend, Depends(backend_of)]
