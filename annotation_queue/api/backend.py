"""What the routes call: one `Backend` for each application, given to every route that asks for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Annotated, Generic, Protocol, TypeVar

from fastapi import Depends, Request

from annotation_queue.people.accounts import Accounts
from annotation_queue.people.oidc import Provider
from annotation_queue.records import Person, QueueFigures, Stats, VideoInfo
from annotation_queue.refinement.live import Live
from annotation_queue.tickets.store import Store

T = TypeVar("T")


class Media(Protocol):
    """Where the page's videos come from. Methods are called from several threads."""

    def info(self, video_id: str) -> VideoInfo:
        """Size and length of a video. Raises NoSuchVideo."""

    def frame(self, video_id: str, frame_idx: int) -> bytes:
        """JPEG of exactly this frame of the stored 24 fps video. Raises NoSuchVideo, NoSuchFrame."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Everything that the routes call."""

    store: Store
    accounts: Accounts
    media: Media
    live: Live | None  # None: no model, masklets are corrected by hand
    oidc: Provider | None  # None: people log in by password only
    secure_cookie: bool
    stats: Callable[[], Stats]  # cached
    figures: Callable[[], QueueFigures]  # cached
    sees_video: Callable[[Person, str], bool]  # cached where True


async def backend_of(request: Request) -> Backend:
    """The backend of the application that answers this request."""
    backend: Backend = request.app.state.backend
    return backend


Queue = Annotated[Backend, Depends(backend_of)]


class Cached(Generic[T]):
    """A function without arguments whose value is computed again when it is older than `keep_s`."""

    def __init__(self, compute: Callable[[], T], keep_s: float) -> None:
        self._compute = compute
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._value: T | None = None
        self._until = 0.0

    def __call__(self) -> T:
        """The value. Threads that ask meanwhile wait for the one that computes it."""
        with self._lock:
            if self._value is None or time.monotonic() >= self._until:
                self._value = self._compute()
                self._until = time.monotonic() + self._keep_s
            return self._value


class Remembered:
    """A yes-or-no question whose answer yes is remembered for `keep_s`; a no is asked again."""

    def __init__(self, ask: Callable[..., bool], keep_s: float) -> None:
        self._ask = ask
        self._keep_s = keep_s
        self._until: dict[Hashable, float] = {}

    def __call__(self, *about: Hashable) -> bool:
        """The answer for these arguments."""
        now = time.monotonic()
        if self._until.get(about, 0.0) >= now:
            return True
        if not self._ask(*about):
            return False
        if len(self._until) > 10_000:
            self._until.clear()
        self._until[about] = now + self._keep_s
        return True
