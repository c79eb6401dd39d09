"""The pipeline's work: open batches, read how far they are, collect their results, add gold tickets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from annotation_queue.api.asking import Id, InProject, Overseer, Pipeline
from annotation_queue.api.backend import Queue
from annotation_queue.api.sent import Sent
from annotation_queue.records import Batch, Gold, NewGold, NewTicket, ResultPage, SettledVideos
from annotation_queue.rules import ID_LENGTH, ID_PATTERN, MAX_TEXT
from annotation_queue.tickets import closing, withdrawn
from annotation_queue.tickets.batches import set_name

MOST_NAMED = 100  # batches, or videos of a result, that one request may name

router = APIRouter(tags=["pipeline"])


@dataclass(frozen=True, kw_only=True)
class OpenBatch:
    """Tickets to add to a batch; `sealed` says that these are the last."""

    tickets: tuple[NewTicket, ...] = ()
    sealed: bool = True
    name: str = ""  # of the batch, for people; "": it keeps its name
    project: str = ""  # that owns the batch, for ever; "": the unnamed one


@dataclass(frozen=True, kw_only=True)
class AddGold:
    """Gold tickets to add to a batch."""

    tickets: tuple[NewGold, ...]


@dataclass(frozen=True, kw_only=True)
class AddedCount:
    """How many were new."""

    added: int


@dataclass(frozen=True, kw_only=True)
class WithdrawVideo:
    """A video that was withdrawn."""

    video_id: Annotated[str, Field(pattern=ID_PATTERN, max_length=ID_LENGTH)]
    why: Annotated[str, Field(max_length=MAX_TEXT)]  # for the history of its tickets


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """How many tickets were open or leased."""

    rejected: int


@router.put("/api/batches/{batch_id}")
def open_batch(batch_id: Id, body: Sent[OpenBatch], _: Pipeline, queue: Queue) -> Batch:
    """Opens a batch, or adds tickets to it. Tickets that it has already are skipped."""
    opened = queue.tickets.open_batch(batch_id, body.tickets, sealed=body.sealed, project=body.project)
    return set_name(queue.tickets.database, batch_id, body.name) if body.name else opened


@router.get("/api/batches")
def batches(
    who: InProject,
    _: Overseer,
    queue: Queue,
    drained: bool | None = None,
    batch: Annotated[list[Id] | None, Query(max_length=MOST_NAMED)] = None,
) -> list[Batch]:
    """Every batch, the newest first. drained: only those with (True) or without (False) nothing left to do.

    batch: only those among these ids.
    """
    return queue.tickets.batches(seen_by=who, only=batch, drained=drained)


@router.get("/api/batches/{batch_id}")
def batch(batch_id: Id, who: Overseer, queue: Queue) -> Batch:
    """How far a batch is."""
    return queue.tickets.batch(batch_id, seen_by=who)


@router.get("/api/batches/{batch_id}/result")
def result(
    batch_id: Id,
    _: Pipeline,
    queue: Queue,
    after: Annotated[str | None, Query(max_length=2 * ID_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    video: Annotated[list[Id] | None, Query(max_length=MOST_NAMED)] = None,
) -> ResultPage:
    """What people decided and did in a batch, page by page. video: about these videos only."""
    return queue.tickets.result_page(batch_id, after=after, limit=limit, only=video)


@router.get("/api/settled-videos")
def settled_videos(_: Pipeline, queue: Queue) -> list[SettledVideos]:
    """How many videos are settled in each batch that has open tickets."""
    return closing.settled_videos(queue.tickets.database)


@router.post("/api/batches/{batch_id}/close-settled")
def close_settled(batch_id: Id, _: Pipeline, queue: Queue) -> list[str]:
    """Closes the settled videos of a batch, so that nobody changes what is published. Returns all that are closed."""
    return closing.close(queue.tickets.database, batch_id, queue.tickets.clock())


@router.post("/api/batches/{batch_id}/withdraw")
def withdraw(batch_id: Id, body: Sent[WithdrawVideo], who: Pipeline, queue: Queue) -> Rejected:
    """Rejects the open and leased tickets of a withdrawn video, and closes it. Can be repeated."""
    now, tickets = queue.tickets.clock(), queue.tickets
    done = withdrawn.reject(tickets.database, batch_id, body.video_id, by=who, why=body.why, now=now)
    return Rejected(rejected=done)


@router.post("/api/batches/{batch_id}/gold")
def add_gold(batch_id: Id, body: Sent[AddGold], who: Overseer, queue: Queue) -> AddedCount:
    """Adds gold tickets; those that are there already are skipped."""
    return AddedCount(added=queue.tickets.add_gold(batch_id, body.tickets, by=who))


@router.get("/api/gold")
def gold(who: InProject, _: Overseer, queue: Queue) -> list[Gold]:
    """Every gold ticket, and how people did on it."""
    return queue.tickets.gold(seen_by=who)
