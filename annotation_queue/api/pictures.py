"""The small pictures of a ticket: its portrait, which is cut to the object, and its thumbnail, a whole frame."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from annotation_queue.api.asking import SeenTicket
from annotation_queue.api.backend import Backend, Queue
from annotation_queue.api.videos import ASK_AGAIN
from annotation_queue.portraits import best_frame
from annotation_queue.records import Ticket
from annotation_queue.thumbnails import thumbnail

router = APIRouter(tags=["pictures"])


@router.get("/api/tickets/{ticket_id}/portrait.jpg", response_class=Response)
def portrait(found: SeenTicket, request: Request, queue: Queue) -> Response:
    """The object, cut out; the whole first frame of the video, if the ticket has no masklet."""
    return _answer(found, request, queue, lambda: queue.portraits.of(found))


@router.get("/api/tickets/{ticket_id}/thumbnail", response_class=Response)
def whole_frame(found: SeenTicket, request: Request, queue: Queue) -> Response:
    """The frame that shows most of the object, with its mask; the first frame, if the ticket has no masklet."""

    def make() -> bytes:
        frame_idx, mask = 0, None
        if found.masklet_id is not None:
            frame_idx, mask = best_frame(queue.tickets.masklet(found.ticket_id))
        return thumbnail(queue.media.frame(found.video_id, frame_idx), mask)

    return _answer(found, request, queue, make)


def _answer(ticket: Ticket, request: Request, queue: Backend, make: Callable[[], bytes]) -> Response:
    """A JPEG that the browser keeps; it asks each time whether the ticket's masklet is still the same.

    Raises NoSuchVideo for a withdrawn video.
    """
    queue.media.info(ticket.video_id)
    headers = ASK_AGAIN | {"ETag": f'"{ticket.masklet_id or ticket.video_id}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(make(), media_type="image/jpeg", headers=headers)
