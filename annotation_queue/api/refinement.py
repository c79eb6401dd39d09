"""Live refinement over HTTP: an operation is sent, and the masks that the model makes of it stream back.

POST /api/tickets/{id}/refine responds in lines of JSON: "kept" once the operation is in the log, one "frame" for each
mask, and at the end "done" once all masks are stored as a version, or "failed". While the model works, "alive" comes
every few seconds. The same operation again gives its stored version. Closing the connection cancels the task.

"kept" also says how many frames the answer has at most (`frames`), and how many of them were made before (`made`). A
mask of a propagation is stored before it is sent, so closing the connection loses none: see `refinement/live.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from annotation_queue.api.asking import Id, SeenTicket, Somebody
from annotation_queue.api.backend import Backend, Queue
from annotation_queue.api.sent import Sent
from annotation_queue.api.tickets import LeaseBody
from annotation_queue.draft import FrameMask, Version
from annotation_queue.records import NewOperation
from annotation_queue.refinement.live import Live, StartedOperation
from annotation_queue.refinement.turns import Cancelled

ALIVE_S = 5.0  # after this long without a mask, "alive" is sent
PART_S = 0.2  # the masks of a propagation are stored and sent this often, together if they come faster

router = APIRouter(tags=["refinement"])  # only with a model


@dataclass(frozen=True, kw_only=True)
class Refine(LeaseBody):
    """An operation under a lease, for the model to answer."""

    operation: NewOperation


@dataclass(frozen=True, kw_only=True)
class Warm(LeaseBody):
    """Where an annotator will begin: the embeddings around this frame are computed ahead."""

    frame_idx: int = 0


@router.post("/api/tickets/{ticket_id}/refine", response_class=StreamingResponse)
async def refine(ticket_id: Id, body: Sent[Refine], who: Somebody, queue: Queue) -> StreamingResponse:
    """Appends an operation to the log, and streams the model's answer."""
    started = await run_in_threadpool(_live(queue).begin, ticket_id, body.token, who, body.operation)
    return StreamingResponse(_lines(started), media_type="application/x-ndjson")


@router.post("/api/tickets/{ticket_id}/warm", status_code=202)
def warm(ticket_id: Id, body: Sent[Warm], who: Somebody, queue: Queue) -> Response:
    """Computes embeddings of a ticket's frames ahead."""
    _live(queue).warm(ticket_id, body.token, who, body.frame_idx)
    return Response(status_code=202)


@router.post("/api/live", status_code=202)
def load(_: Somebody, queue: Queue) -> Response:
    """Loads the model ahead."""
    _live(queue).load()
    return Response(status_code=202)


@router.get("/api/tickets/{ticket_id}/versions")
def versions(ticket: SeenTicket, queue: Queue) -> list[Version]:
    """The masks that each operation of a ticket made."""
    return list(_live(queue).versions(ticket.ticket_id).values())


def _live(queue: Backend) -> Live:
    assert queue.live is not None  # its routes are not there otherwise
    return queue.live


# --- the lines of a response -------------------------------------------------------------------------------------

_END = object()


async def _lines(started: StartedOperation) -> AsyncIterator[bytes]:
    """The response, line by line. Closing the iterator cancels the task."""
    if isinstance(started.version, Version):
        made = len(started.version.frames)
        yield _line("kept", seq=started.seq, frames=made, made=made)
        for frame in started.version.frames:
            yield _line("frame", frame)
        yield _done(started.version)
        return
    task = started.version
    yield _line("kept", seq=started.seq, frames=task.most, made=len(task.made))
    for frame in task.made:
        yield _line("frame", frame)
    loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Any]()

    def put(item: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(arrived.put_nowait, item)

    job = task.start(put, lambda error: put(error or _END))
    frames, stored_at = list(task.made), -PART_S
    try:
        item = await _next(arrived)
        while item is None or isinstance(item, FrameMask):
            if item is None:
                yield _line("alive")
            elif task.prompt is None:
                await asyncio.sleep(max(0.0, stored_at + PART_S - loop.time()))
            some: list[FrameMask] = []
            while isinstance(item, FrameMask):
                some.append(item)
                item = None if arrived.empty() else arrived.get_nowait()
            if some:
                await run_in_threadpool(task.store)  # before a client gets them
                stored_at = loop.time()
            frames += some
            for frame in some:
                yield _line("frame", frame)
            item = item if item is not None else await _next(arrived)
    finally:
        job.cancel()
    if item is not _END:
        why = "cancelled" if isinstance(item, Cancelled) else type(item).__name__
        yield _line("failed", why=why, error=" ".join(str(item).split())[:300])
        return
    version = await run_in_threadpool(task.save, tuple(frames))
    if version.frames != tuple(frames):  # the model answered two requests at once: the first one's masks are stored
        for frame in version.frames:
            yield _line("frame", frame)
    yield _done(version)


async def _next(arrived: asyncio.Queue[Any]) -> Any:
    """The next item, or None if there is none within ALIVE_S."""
    try:
        return await asyncio.wait_for(arrived.get(), ALIVE_S)
    except TimeoutError:
        return None


def _done(version: Version) -> bytes:
    return _line("done", checkpoint=version.checkpoint, round=version.round, frames=len(version.frames))


def _line(event: str, frame: FrameMask | None = None, **more: object) -> bytes:
    content = {"event": event, **more}
    if frame is not None:
        content["frame"] = asdict(frame) | {"rle": frame.rle.decode()}
    return json.dumps(content).encode() + b"\n"
