"""Separate threads for slow work, such as hashing passwords, so that it does not block all other requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from annotation_queue.errors import TooBusy

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Runs calls in a few threads; a few more calls may wait. Used from one event loop."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        """threads: calls at once. waiting: calls that may wait for a thread; more are refused."""
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most, self._inside = threads + waiting, 0

    async def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the call returns or raises. Raises TooBusy if too many calls wait."""
        if self._inside >= self._most:
            raise TooBusy()
        self._inside += 1
        try:
            return await asyncio.wrap_future(self._threads.submit(call, *args, **kwargs))
        finally:
            self._inside -= 1

    def close(self) -> None:
        """Ends the threads; calls that wait are cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)
