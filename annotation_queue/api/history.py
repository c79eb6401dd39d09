"""What people look back at: their own finished tickets, and a small picture of each ticket's object."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from annotation_queue.api.asking import SeenTicket, Somebody
from annotation_queue.api.backend import Queue
from annotation_queue.api.videos import ASK_AGAIN
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


@router.get("/api/tickets/{ticket_id}/portrait.jpg", response_class=Response)
def portrait(found: SeenTicket, request: Request, queue: Queue) -> Response:
    """A small picture of the ticket's object; of its video, if it has no masklet."""
    headers = ASK_AGAIN | {"ETag": f'"{found.masklet_id or found.video_id}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(queue.portraits.of(found), media_type="image/jpeg", headers=headers)
