"""What people look back at: their own finished tickets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from annotation_queue.api.asking import Somebody
from annotation_queue.api.backend import Queue
from annotation_queue.records import HistoryPage
from annotation_queue.rules import ID_LENGTH
from annotation_queue.tickets import own_history, shown

router = APIRouter(tags=["history"])


@router.get("/api/me/history")
def finished(
    who: Somebody,
    queue: Queue,
    after: Annotated[str | None, Query(max_length=2 * ID_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 24,
) -> HistoryPage:
    """The tickets that this person finished, the latest first, page by page."""
    return shown.history(own_history.page(queue.tickets.database, who, after=after, limit=limit), who)
