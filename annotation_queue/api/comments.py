"""Comments on tickets: a thread for each object, read and continued at any of its tickets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from annotation_queue.api.asking import Id, Overseer, SeenTicket, Somebody
from annotation_queue.api.backend import Backend, Queue
from annotation_queue.api.overseeing import MOST_TICKETS, AnId
from annotation_queue.api.sent import Sent
from annotation_queue.errors import QueueError
from annotation_queue.leads.overseeing import ActResult
from annotation_queue.records import Comment, NewComment, Person
from annotation_queue.rules import MAX_FRAME_IDX, check_comment
from annotation_queue.tickets import comments, shown
from storage.records import content_id

router = APIRouter(tags=["comments"])


@dataclass(frozen=True, kw_only=True)
class CommentAll:
    """The same comment on many tickets; the same act_id again changes nothing."""

    act_id: AnId
    ticket_ids: Annotated[tuple[AnId, ...], Field(min_length=1, max_length=MOST_TICKETS)]
    text: str
    created_at: str  # ISO 8601, UTC, on the client's clock
    frame_idx: Annotated[int, Field(ge=0, le=MAX_FRAME_IDX)] | None = None  # that it is about


@router.get("/api/tickets/{ticket_id}/comments")
def thread(found: SeenTicket, who: Somebody, queue: Queue) -> list[Comment]:
    """The comments that this person sees at the ticket, the oldest first."""
    return shown.comments(comments.read(queue.tickets.database, found.ticket_id, who), found, who)


@router.post("/api/tickets/{ticket_id}/comments")
def comment(ticket_id: Id, body: Sent[NewComment], who: Somebody, queue: Queue) -> Comment:
    """Adds a comment. For overseers, and for people who hold or held the ticket."""
    return _add(queue, ticket_id, body, who)


@router.post("/api/comments")
def comment_all(body: Sent[CommentAll], who: Overseer, queue: Queue) -> list[ActResult]:
    """Adds the same comment to many tickets: a result for each. The refusal of one does not stop the others."""
    found = []
    for ticket_id in dict.fromkeys(body.ticket_ids):
        new = NewComment(
            comment_id=content_id("comment", body.act_id, ticket_id),
            text=body.text,
            created_at=body.created_at,
            frame_idx=body.frame_idx,
        )
        try:
            _add(queue, ticket_id, new, who)
            found.append(ActResult(ticket_id=ticket_id, done=True, said="commented"))
        except (QueueError, ValueError) as error:
            found.append(ActResult(ticket_id=ticket_id, done=False, said=str(error)))
    return found


def _add(queue: Backend, ticket_id: str, new: NewComment, by: Person) -> Comment:
    comments.check_may_write(queue.tickets.database, ticket_id, by)
    check_comment(new, queue.media.info(queue.tickets.ticket(ticket_id).video_id))
    return comments.add(queue.tickets.database, ticket_id, by, new, queue.tickets.clock())
