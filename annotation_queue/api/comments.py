"""Comments on tickets: a thread for each object, read and continued at any of its tickets."""

from __future__ import annotations

from fastapi import APIRouter

from annotation_queue.api.asking import Id, SeenTicket, Somebody
from annotation_queue.api.backend import Queue
from annotation_queue.api.sent import Sent
from annotation_queue.records import Comment, NewComment
from annotation_queue.rules import check_comment
from annotation_queue.tickets import comments, shown

router = APIRouter(tags=["comments"])


@router.get("/api/tickets/{ticket_id}/comments")
def thread(found: SeenTicket, who: Somebody, queue: Queue) -> list[Comment]:
    """The comments that this person sees at the ticket, the oldest first."""
    return shown.comments(comments.read(queue.tickets.database, found.ticket_id, who), found, who)


@router.post("/api/tickets/{ticket_id}/comments")
def comment(ticket_id: Id, body: Sent[NewComment], who: Somebody, queue: Queue) -> Comment:
    """Adds a comment. For overseers, and for people who hold or held the ticket."""
    comments.check_may_write(queue.tickets.database, ticket_id, who)
    check_comment(body, queue.media.info(queue.tickets.ticket(ticket_id).video_id))
    return comments.add(queue.tickets.database, ticket_id, who, body, queue.tickets.clock())
