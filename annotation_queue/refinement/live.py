"""The routes of live refinement: an operation goes in, what the model makes of it streams out.

POST /api/tickets/{id}/refine keeps the operation first, like any other, and answers in lines of JSON: "kept", then a
"frame" for each mask, then "done" once the masks are a version, whole, or "failed"; "alive" every few seconds until
then. The same operation again answers from its version. Dropping the connection cancels the work; nothing is changed
by half.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from annotation_queue import schema
from annotation_queue.draft import VERSION, Draft, FrameMask, Version, draft_of, effective, prompt_of
from annotation_queue.errors import QueueError
from annotation_queue.records import NewOperation, Person, Ticket, VideoInfo
from annotation_queue.refinement.segmenter import Pinned, Segmenter, propagation
from annotation_queue.refinement.turns import Cancelled, Job, Turns
from annotation_queue.rules import ID_LENGTH, ID_PATTERN
from annotation_queue.tickets.store import Store
from storage.records import STRIDE, Masklet, Operation

Id = Annotated[str, Path(pattern=ID_PATTERN, max_length=ID_LENGTH)]
ANSWERED = ("prompt", "propagate")  # the operations that the model answers
ALIVE_S = 5.0  # how often an answer without news says that it is still to come


@dataclass(frozen=True, kw_only=True)
class Refine:
    """An operation under a lease, to be answered by the model."""

    token: int
    operation: NewOperation


@dataclass(frozen=True, kw_only=True)
class Warm:
    """Where an annotator will begin: the embeddings around this frame are computed ahead."""

    token: int
    frame_idx: int = 0


@dataclass(frozen=True)
class _Ahead:
    """A ticket whose frames are encoded ahead, in this order."""

    ticket_id: str
    token: int
    video_id: str
    frame_idx: Sequence[int]


class Versions:
    """The masks that operations made, in the queue's database."""

    def __init__(self, store: Store) -> None:
        self._database = store.database

    def of_ticket(self, ticket_id: str) -> dict[str, Version]:
        """By operation."""
        v = schema.versions
        with self._database.read() as c:
            rows = c.scalars(select(v.c.content).where(v.c.ticket_id == ticket_id))
            found = [VERSION.validate_json(content) for content in rows]
        return {version.operation_id: version for version in found}

    def keep(self, ticket_id: str, version: Version) -> Version:
        """Keeps a version, and returns the one that is there: the first that came, if two did."""
        v = schema.versions
        row = {"operation_id": version.operation_id, "ticket_id": ticket_id, "created_at": time.time()}
        try:
            with self._database.write() as c:
                c.execute(insert(v).values(content=VERSION.dump_json(version).decode(), **row))
            return version
        except IntegrityError:
            with self._database.read() as c:
                content = c.scalar(select(v.c.content).where(v.c.operation_id == version.operation_id))
            assert content is not None
            return VERSION.validate_json(content)


class Live:
    """Refinement in one server process. What it knows of a ticket it reads from the database each time."""

    def __init__(self, store: Store, info: Callable[[str], VideoInfo], model: Segmenter) -> None:
        """info: size and length of a video."""
        self.versions = Versions(store)
        self._store, self._info, self._model = store, info, model
        self._turns = Turns()
        self._running: dict[str, Job] = {}  # by ticket
        self._lock = threading.Lock()
        self._asked: dict[str, list[_Ahead]] = {}  # by person, the last two tickets to be warmed
        self._asking = threading.Lock()

    def close(self) -> None:
        """Ends what is running."""
        self._turns.close()

    def draft(self, ticket: Ticket) -> Draft:
        """The draft of a ticket as it stands."""
        return _draft(*self._facts(ticket), self.versions.of_ticket(ticket.ticket_id))

    def begin(self, ticket_id: str, token: int, person: Person, operation: NewOperation) -> "Answer":
        """Keeps an operation, and gives what will answer it.

        Raises as Store.append_operations does; ValueError for an operation that the model has no answer to.
        """
        _frame_of(operation)
        kept = self._store.append_operations(ticket_id, token, person, [operation])
        ticket = self._store.held(ticket_id, token, person)  # an operation that was there may be of an older lease
        versions = self.versions.of_ticket(ticket_id)
        if (made := versions.get(operation.operation_id)) is not None:
            return Answer(kept.seq, made=made)
        info, masklet, done = self._facts(ticket)
        place = next(n for n, o in enumerate(done) if o.operation_id == operation.operation_id)
        stored = done[place]  # the first that came with this id is the one that stands
        if stored not in effective(done):
            raise ValueError("this operation was undone")
        draft = _draft(info, masklet, done[:place], versions)
        frame_idx = _frame_of(stored)
        if frame_idx not in draft.frame_idx:
            raise ValueError(f"frame {frame_idx} is not an annotated frame of this ticket")
        said = json.loads(stored.payload)
        prompt = prompt_of(frame_idx, said) if stored.kind == "prompt" else None
        memory, direction = json.loads(ticket.payload).get("memory", True), str(said.get("direction", "both"))
        by: Pinned | None = None

        def frames() -> Generator[FrameMask | None]:
            nonlocal by
            by = self._model.now()  # to the end, whatever is promoted meanwhile
            if prompt is not None:
                yield from by.click(ticket_id, ticket.video_id, draft, prompt, memory=bool(memory))
            else:
                yield from propagation(by, ticket_id, ticket.video_id, draft, frame_idx, direction)

        def start(each: Callable[[FrameMask], None], done: Callable[[BaseException | None], None]) -> Job:
            def ended(error: BaseException | None) -> None:
                with self._lock:
                    if self._running.get(ticket_id) is job:
                        del self._running[ticket_id]
                done(error)

            with self._lock:  # the job is known here before its end is
                if (old := self._running.get(ticket_id)) is not None:
                    old.cancel()  # its masks would follow from what is not so any more
                job = self._turns.stream(frames(), each, ended, urgent=prompt is not None)
                self._running[ticket_id] = job
            return job

        def keep(made: tuple[FrameMask, ...]) -> Version:
            assert by is not None  # it has answered
            version = Version(
                operation_id=operation.operation_id, frames=made, checkpoint=by.checkpoint, round=by.round
            )
            return self.versions.keep(ticket_id, version)

        return Answer(kept.seq, start=start, keep=keep)

    def load(self) -> None:
        """Loads the model when nothing else waits: somebody is about to correct masklets."""
        self._turns.warm("", self._ahead([]))

    def warm(self, ticket_id: str, token: int, person: Person, frame_idx: int) -> None:
        """Computes the embeddings of a ticket's frames ahead, the nearest first. Raises LeaseLost, NotAllowed.

        A ticket that this person asked for before, and still holds, comes first: it is the one on screen.
        """
        with self._asking:
            ticket = self._store.held(ticket_id, token, person)
            frames = sorted(self.draft(ticket).frame_idx, key=lambda i: abs(i - frame_idx))
            before = self._asked.get(person.name, [])
            others = [ahead for ahead in before if ahead.ticket_id != ticket_id and self._is_held(ahead, person)]
            tickets = [*others[-1:], _Ahead(ticket_id, token, ticket.video_id, frames)]
            self._asked[person.name] = tickets
            self._turns.warm(person.name, self._ahead(tickets))

    def _is_held(self, ahead: _Ahead, person: Person) -> bool:
        try:
            return bool(self._store.held(ahead.ticket_id, ahead.token, person))
        except QueueError:
            return False

    def _ahead(self, tickets: Sequence[_Ahead]) -> Generator[None]:
        self._model.load()
        yield
        for ahead in tickets:
            yield from self._model.warm(ahead.video_id, ahead.frame_idx)

    def _facts(self, ticket: Ticket) -> tuple[VideoInfo, Masklet | None, list[Operation]]:
        masklet = self._store.masklet(ticket.ticket_id) if ticket.masklet_id is not None else None
        return self._info(ticket.video_id), masklet, self._store.operations(ticket.ticket_id)


def _frame_of(operation: NewOperation | Operation) -> int:
    """The frame of an operation that the model answers. ValueError for another one."""
    if operation.kind not in ANSWERED or operation.frame_idx is None:
        raise ValueError(f"the model answers a {' or a '.join(ANSWERED)} on a frame, not a {operation.kind}")
    return operation.frame_idx


def _draft(info: VideoInfo, masklet: Masklet | None, done: list[Operation], versions: Mapping[str, Version]) -> Draft:
    frames = masklet.frame_idx if masklet is not None else tuple(range(0, info.frame_count, STRIDE))
    return draft_of((info.height, info.width), frames, masklet, done, versions)


@dataclass(frozen=True)
class Answer:
    """What answers one operation: a version that is there, or work for the model."""

    seq: int
    made: Version | None = None
    start: Callable[[Callable[[FrameMask], None], Callable[[BaseException | None], None]], Job] | None = None
    keep: Callable[[tuple[FrameMask, ...]], Version] | None = None

    async def lines(self) -> AsyncIterator[bytes]:
        """The answer, line by line; leaving the iterator cancels the work."""
        yield _line("kept", seq=self.seq)
        if self.made is not None:
            for frame in self.made.frames:
                yield _line("frame", frame)
            yield _done(self.made)
            return
        assert self.start is not None and self.keep is not None
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def put(item: object) -> None:
            with contextlib.suppress(RuntimeError):  # nobody listens any more
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        job = self.start(put, lambda error: put(error or _END))
        frames: list[FrameMask] = []
        try:
            while (item := await _within(arrived, ALIVE_S)) is None or isinstance(item, FrameMask):
                if item is None:
                    yield _line("alive")
                    continue
                frames.append(item)
                yield _line("frame", item)
        finally:
            job.cancel()
        if item is not _END:
            why = "cancelled" if isinstance(item, Cancelled) else type(item).__name__
            yield _line("failed", why=why, error=" ".join(str(item).split())[:300])
            return
        kept = await run_in_threadpool(self.keep, tuple(frames))
        if kept.frames != tuple(frames):  # the operation was answered twice at once: the first answer stands
            for frame in kept.frames:
                yield _line("frame", frame)
        yield _done(kept)


_END = object()


async def _within(arrived: asyncio.Queue[Any], patience_s: float) -> Any:
    """What arrives next, or None if nothing does in that time."""
    try:
        return await asyncio.wait_for(arrived.get(), patience_s)
    except TimeoutError:
        return None


def _done(version: Version) -> bytes:
    return _line("done", checkpoint=version.checkpoint, round=version.round, frames=len(version.frames))


def _line(event: str, frame: FrameMask | None = None, **more: object) -> bytes:
    said = {"event": event, **more}
    if frame is not None:
        said["frame"] = asdict(frame) | {"rle": frame.rle.decode()}
    return json.dumps(said).encode() + b"\n"


def add(app: FastAPI, live: Live, person: Callable[..., Awaitable[Person]], seen_ticket: Callable[..., Ticket]) -> None:
    """The routes of refinement. person, seen_ticket: the dependencies that say who asks, and what they may see."""
    Somebody = Annotated[Person, Depends(person)]

    @app.post("/api/tickets/{ticket_id}/refine", response_class=StreamingResponse, tags=["refinement"])
    async def refine(ticket_id: Id, body: Refine, who: Somebody) -> StreamingResponse:
        answer = await run_in_threadpool(live.begin, ticket_id, body.token, who, body.operation)
        return StreamingResponse(answer.lines(), media_type="application/x-ndjson")

    @app.post("/api/tickets/{ticket_id}/warm", status_code=202, tags=["refinement"])
    def warm(ticket_id: Id, body: Warm, who: Somebody) -> Response:
        live.warm(ticket_id, body.token, who, body.frame_idx)
        return Response(status_code=202)

    @app.post("/api/live", status_code=202, tags=["refinement"])
    def load(_: Somebody) -> Response:
        live.load()
        return Response(status_code=202)

    @app.get("/api/tickets/{ticket_id}/versions", tags=["refinement"])
    def versions(ticket: Annotated[Ticket, Depends(seen_ticket)]) -> list[Version]:
        return list(live.versions.of_ticket(ticket.ticket_id).values())
