"""The ids that log lines carry: batch, video, ticket and checkpoint of the work that is under way.

    with about(batch_id="3f9c…"):
        log.warning("out of memory")        # the line carries batch_id

A thread or a task that is started inside the block begins without them. Knows no format and no handler: see
`engine/logs.py`. Airflow writes a task's lines with structlog, which gets the ids too, if it is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

NAMES = ("batch_id", "video_id", "ticket_id", "checkpoint")

_ids: ContextVar[Mapping[str, str]] = ContextVar("ids", default={})  # noqa: B039  never changed in place


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """Log lines inside the block carry these ids; an empty one is left out. Raises ValueError for another name."""
    if unknown := set(ids) - set(NAMES):
        raise ValueError(f"log lines carry {', '.join(NAMES)}, not {min(unknown)}")
    given = {name: value for name, value in ids.items() if value}
    token = _ids.set({**_ids.get(), **given})
    structlog = sys.modules.get("structlog")
    bound = structlog.contextvars.bind_contextvars(**given) if structlog else {}
    try:
        yield
    finally:
        _ids.reset(token)
        if structlog:
            structlog.contextvars.reset_contextvars(**bound)


def current() -> Mapping[str, str]:
    """The ids of the work that is under way here."""
    return _ids.get()
