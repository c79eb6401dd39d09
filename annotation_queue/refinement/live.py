"""Live refinement in one server process: the answer to each operation, and embeddings that are computed ahead.

An operation is first appended to the log, like any other. Then the model answers it, and the masks are stored as one
version once they are complete. If the same operation comes again, the stored version is its answer. Everything about a
ticket is read from the database each time, so any server process can go on. Knows nothing about HTTP.

The masks of a propagation are stored while it is under way, each before a client gets it. If it is cut off, such as by
a lost connection, the same operation again goes on behind them. A "stop" completes it with the masks that it has.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from annotation_queue.draft import Draft, FrameMask, Version, draft_of, effective, prompt_of
from annotation_queue.errors import QueueError, TooBusy
from annotation_queue.records import NewOperation, Person, Ticket, VideoInfo
from annotation_queue.refinement import timings
from annotation_queue.refinement.segmenter import PinnedCheckpoint, Segmenter, propagation
from annotation_queue.refinement.turns import Job, Turns
from annotation_queue.tickets.store import TicketStore
from annotation_queue.versions import add_part, add_version, complete, versions_of
from storage.log_ids import about
from storage.records import STRIDE, Masklet, Operation
from storage.wording import counted

log = logging.getLogger(__name__)

MOST_JOBS = 8  # tickets of one person that the model works on at once; a page has one or two

MODEL_KINDS = ("prompt", "propagate")  # the kinds of operations that the model answers
STOP = "stop"  # ends a propagation; its answer are the masks that the client does not have yet
STOPPED_S = 10.0  # within this time, a job ends that was told to


@dataclass(frozen=True)
class StartedOperation:
    """An operation in the log, and its version: stored already, or the task that makes it."""

    seq: int  # of the operation in its ticket
    version: Version | ModelTask


@dataclass(frozen=True)
class _Running:
    """What the model does for a ticket."""

    person: str
    operation_id: str
    job: Job


@dataclass(frozen=True)
class _TicketAhead:
    """A ticket whose frames are encoded ahead, in this order."""

    ticket_id: str
    token: int
    video_id: str
    frame_idx: Sequence[int]


class Live:
    """Live refinement over one queue and one model."""

    def __init__(
        self,
        tickets: TicketStore,
        info: Callable[[str], VideoInfo],
        model: Segmenter,
        times: timings.Timings | None = None,
    ) -> None:
        """info: size and length of a video, by its id. times: count how long the answers take."""
        self._tickets, self._info, self._model = tickets, info, model
        self._turns = Turns()
        self._times = times or timings.Timings()
        self._running: dict[str, _Running] = {}  # by ticket
        self._lock = threading.Lock()
        self._asked: dict[str, list[_TicketAhead]] = {}  # by person: the last two tickets to encode ahead
        self._asking = threading.Lock()

    def close(self) -> None:
        """Cancels the running jobs."""
        self._turns.close()

    def versions(self, ticket_id: str) -> dict[str, Version]:
        """The masks that the operations of a ticket made, by operation_id."""
        with self._tickets.database.read() as c:
            return versions_of(c, ticket_id)

    def draft(self, ticket: Ticket) -> Draft:
        """The draft of a ticket after all its operations."""
        return _draft(*self._facts(ticket), self.versions(ticket.ticket_id))

    def begin(self, ticket_id: str, token: int, person: Person, operation: NewOperation) -> StartedOperation:
        """Appends an operation to the log, and returns it with its version.

        A "stop" is answered with the masks of its propagation that come after the frame `last` of its payload.
        Raises as TicketStore.append_operations does; ValueError for an operation that the model cannot answer; TooBusy
        if the model works on MOST_JOBS other tickets of this person.
        """
        if operation.kind == STOP:
            return self._stop(ticket_id, token, person, operation)
        _frame_of(operation)
        self._check_turn(ticket_id, person)
        appended = self._tickets.append_operations(ticket_id, token, person, [operation])
        ticket = self._tickets.held(ticket_id, token, person)  # a repeated operation may come from an older lease
        versions = self.versions(ticket_id)
        stored = versions.get(operation.operation_id)
        if stored is not None and stored.complete:
            return StartedOperation(appended.seq, stored)
        return StartedOperation(appended.seq, self._task(ticket, operation.operation_id, versions))

    def _stop(self, ticket_id: str, token: int, person: Person, operation: NewOperation) -> StartedOperation:
        appended = self._tickets.append_operations(ticket_id, token, person, [operation])
        ticket = self._tickets.held(ticket_id, token, person)
        payload = json.loads(operation.payload)
        about = payload["operation_id"]
        done = self._tickets.operations(ticket_id)
        if not any(o.operation_id == about and o.kind == "propagate" for o in done):
            raise ValueError(f"operation {about:.80} is no propagation of this ticket")
        with self._lock:
            running = self._running.get(ticket_id)
        if running is not None and running.operation_id == about:
            running.job.cancel()
            running.job.ended.wait(STOPPED_S)  # then all masks that were computed are stored
        version = complete(self._tickets.database, ticket.ticket_id, about)
        frames = [mask.frame_idx for mask in version.frames]
        after = frames.index(payload["last"]) + 1 if payload.get("last") in frames else 0
        return StartedOperation(appended.seq, replace(version, frames=version.frames[after:]))

    def _check_turn(self, ticket_id: str, person: Person) -> None:
        with self._lock:
            jobs = sum(job.person == person.name and other != ticket_id for other, job in self._running.items())
        if jobs >= MOST_JOBS:
            raise TooBusy(
                f"the model works on {counted(jobs, 'ticket')} of {person.name} already: try again in a few seconds"
            )

    def _task(self, ticket: Ticket, operation_id: str, versions: Mapping[str, Version]) -> ModelTask:
        info, masklet, done = self._facts(ticket)
        place = next(n for n, o in enumerate(done) if o.operation_id == operation_id)
        operation = done[place]  # as it was first sent with this id
        if operation not in effective(done):
            raise ValueError("this operation was undone")
        draft = _draft(info, masklet, done[:place], versions)
        if _frame_of(operation) not in draft.frame_idx:
            raise ValueError(f"frame {operation.frame_idx} is not an annotated frame of this ticket")
        return ModelTask(self, ticket, operation, draft, versions.get(operation_id))

    def run(
        self, task: ModelTask, each: Callable[[FrameMask], None], done: Callable[[BaseException | None], None]
    ) -> Job:
        """Starts a task; it replaces the running job of the same ticket. each, done: as for Turns.stream."""
        ticket_id = task.ticket.ticket_id
        kind = timings.CLICK if task.prompt is not None else timings.PROPAGATION
        each = self._times.timed(kind, each)

        def ended(error: BaseException | None) -> None:
            with task.log_ids():
                try:
                    task.store()
                except Exception:  # such as a database that is down: the model's thread serves other people
                    log.warning("the last masks of a propagation could not be stored", exc_info=True)
                log.info("answered a %s%s", kind, "" if error is None else f", which ended with {type(error).__name__}")
            with self._lock:
                if self._running.get(ticket_id) == running:
                    del self._running[ticket_id]
            done(error)

        with self._lock:  # so that the job is registered before it can end
            if (old := self._running.get(ticket_id)) is not None:
                old.job.cancel()  # its masks would follow from an old draft
            job = self._turns.stream(task.frames(self._model), each, ended, urgent=task.prompt is not None)
            running = _Running(task.ticket.leased_by or "", task.operation_id, job)
            self._running[ticket_id] = running
        return job

    def add_version(self, ticket: Ticket, version: Version) -> Version:
        """Stores a version, and returns the stored one: the first, if the model answered the operation twice.

        Of one that is not complete, only masks that are not stored yet are given.
        """
        if not version.complete:
            add_part(self._tickets.database, ticket.ticket_id, version)
            return version
        return add_version(self._tickets.database, ticket.ticket_id, version)

    def load(self) -> None:
        """Loads the model when nothing else waits. A page asks for it before a person corrects masklets."""
        self._turns.warm("", self._encode([]))

    def warm(self, ticket_id: str, token: int, person: Person, frame_idx: int) -> None:
        """Computes the embeddings of a ticket's frames ahead, the nearest first. Raises LeaseLost, NotAllowed.

        The previous ticket that this person asked for comes first if they still hold it: they still work on it.
        """
        ticket = self._tickets.held(ticket_id, token, person)
        frames = sorted(self.draft(ticket).frame_idx, key=lambda i: abs(i - frame_idx))
        with self._asking:
            before = self._asked.get(person.name, [])
            others = [ahead for ahead in before if ahead.ticket_id != ticket_id and self._is_held(ahead, person)]
            tickets = [*others[-1:], _TicketAhead(ticket_id, token, ticket.video_id, frames)]
            self._asked[person.name] = tickets
            self._turns.warm(person.name, self._encode(tickets))

    def _is_held(self, ahead: _TicketAhead, person: Person) -> bool:
        try:
            return bool(self._tickets.held(ahead.ticket_id, ahead.token, person))
        except QueueError:
            return False

    def _encode(self, tickets: Sequence[_TicketAhead]) -> Generator[None]:
        self._model.load()
        yield
        for ahead in tickets:
            yield from self._model.warm(ahead.video_id, ahead.frame_idx)

    def _facts(self, ticket: Ticket) -> tuple[VideoInfo, Masklet | None, list[Operation]]:
        masklet = self._tickets.masklet(ticket.ticket_id) if ticket.masklet_id is not None else None
        return self._info(ticket.video_id), masklet, self._tickets.operations(ticket.ticket_id)


class ModelTask:
    """An operation that the model is to answer: start it once, then save the masks that it made."""

    def __init__(self, live: Live, ticket: Ticket, operation: Operation, draft: Draft, made: Version | None) -> None:
        """draft: the ticket's masks before the operation. made: what a propagation made before it was cut off.

        Raises ValueError for a malformed prompt or propagation.
        """
        payload = json.loads(operation.payload)
        self.ticket, self.operation_id = ticket, operation.operation_id
        self.prompt = prompt_of(_frame_of(operation), payload) if operation.kind == "prompt" else None
        self.made: tuple[FrameMask, ...] = () if made is None else made.frames  # stored before this task
        self._live, self._operation, self._draft = live, operation, draft
        self._stretches = [] if self.prompt is not None else draft.stretches(_frame_of(operation), payload)
        self._by: PinnedCheckpoint | None = None
        self._computed: deque[FrameMask] = deque()  # of a propagation: not stored yet
        self._storing = threading.Lock()  # one at a time, so that the masks are stored in their order

    @property
    def most(self) -> int:
        """How many frames the answer has at most."""
        return 1 if self.prompt is not None else sum(map(len, self._stretches))

    def log_ids(self) -> AbstractContextManager[None]:
        """Log lines inside the block carry the ids of this task."""
        checkpoint = "" if self._by is None else self._by.checkpoint
        ids = {"batch_id": self.ticket.batch_id, "video_id": self.ticket.video_id, "ticket_id": self.ticket.ticket_id}
        return about(**ids, checkpoint=checkpoint)

    def start(self, each: Callable[[FrameMask], None], done: Callable[[BaseException | None], None]) -> Job:
        """Asks the model. each: called with every mask; done: once at the end. Both run in the model's thread."""
        return self._live.run(self, each, done)

    def store(self) -> None:
        """Stores the masks of a propagation that were computed since the last call."""
        with self._storing:
            some = tuple(self._computed.popleft() for _ in range(len(self._computed)))
            if not some:
                return
            try:
                self._save(some, complete=False)
            except BaseException:
                self._computed.extendleft(reversed(some))
                raise

    def save(self, frames: tuple[FrameMask, ...]) -> Version:
        """Stores all masks as the operation's version, and returns the stored one."""
        return self._save(frames, complete=True)

    def _save(self, frames: tuple[FrameMask, ...], *, complete: bool) -> Version:
        assert self._by is not None  # it has answered
        version = Version(
            operation_id=self.operation_id,
            frames=frames,
            checkpoint=self._by.checkpoint,
            round=self._by.round,
            complete=complete,
        )
        return self._live.add_version(self.ticket, version)

    def frames(self, model: Segmenter) -> Generator[FrameMask | None]:
        """The masks that answer the operation, in steps; all of one checkpoint, even if another is promoted."""
        self._by = model.now()
        ids = (self.ticket.ticket_id, self.ticket.video_id)
        if self.prompt is not None:
            memory = bool(json.loads(self.ticket.payload).get("memory", True))
            yield from self._by.click(*ids, self._draft, self.prompt, memory=memory)
        else:
            made = {mask.frame_idx: mask for mask in self.made}
            source = _frame_of(self._operation)
            if source not in self._draft.masks:
                raise ValueError(f"frame {source} has no mask yet: nothing to propagate")
            for mask in propagation(self._by, *ids, self._draft, source, self._stretches, made):
                if mask is not None:
                    self._computed.append(mask)
                yield mask


def _frame_of(operation: NewOperation | Operation) -> int:
    """The frame of an operation that the model answers. ValueError for any other operation."""
    if operation.kind not in MODEL_KINDS or operation.frame_idx is None:
        raise ValueError(f"the model answers a {' or a '.join(MODEL_KINDS)} on a frame, not a {operation.kind}")
    return operation.frame_idx


def _draft(info: VideoInfo, masklet: Masklet | None, done: list[Operation], versions: Mapping[str, Version]) -> Draft:
    frames = masklet.frame_idx if masklet is not None else tuple(range(0, info.frame_count, STRIDE))
    return draft_of((info.height, info.width), frames, masklet, done, versions)
