"""The queue as Python calls: for the pipeline, for simulated annotators, for any other program.

Every request can be repeated without harm. So a request without an answer is sent again with the same ids, until
`patience_s` is over; then QueueUnreachable is raised. The queue's errors are raised as the exceptions of `errors.py`.

    with QueueClient("http://localhost:8000", token=token) as queue:
        while ticket := queue.claim([Kind.VERIFY]):
            masklet = queue.masklet(ticket)
            queue.finish(ticket, verdict=Verdict.ACCEPT)
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

import httpx
from pydantic import TypeAdapter

from annotation_queue import errors
from annotation_queue.draft import FrameMask
from annotation_queue.errors import LeaseLost, NoSuchMasklet, NotLoggedIn, QueueError, QueueUnreachable
from annotation_queue.figure_records import QueueFigures
from annotation_queue.records import (
    AppendResult,
    Batch,
    BatchResult,
    FinishResult,
    Kind,
    NewGold,
    NewOperation,
    NewTicket,
    Reason,
    RecentAnswer,
    ResultPage,
    SettledVideos,
    State,
    Stats,
    Submission,
    Ticket,
    VideoInfo,
)
from annotation_queue.rules import MAX_TEXT
from storage.ontology import Ontology
from storage.records import Masklet, Operation, Verdict

T = TypeVar("T")

CHUNK = 100  # tickets in one request that opens a batch, at most
CHUNK_BYTES = 8 << 20  # of their masks, in one request, at most
NAMED = 50  # batches, or videos of a result, that one request names at most

AWAY = (502, 503, 504)  # statuses of a queue that does not answer now: the request is repeated


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}  # building one takes long


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def new_id() -> str:
    """A new id for an operation or a claim."""
    return uuid.uuid4().hex


def now() -> str:
    """The time now, in the format of operations: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class QueueClient:
    """A connection to one queue as one person. Not thread-safe: give each thread its own."""

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        username: str | None = None,
        password: str | None = None,
        patience_s: float = 60.0,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Takes a token, or a name and a password. Nothing is sent before the first call.

        patience_s: how long a request is repeated while the queue does not answer.
        timeout_s: of one request.
        """
        if (token is None) == (username is None or password is None):
            raise ValueError("give a token, or a username and a password")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(
            base_url=base_url,
            headers=headers,
            timeout=timeout_s,
            transport=transport,
            trust_env=False,  # a proxy for the internet must not get the queue's requests
        )
        self._credentials = None if token is not None else {"name": username, "password": password}
        self._patience_s = patience_s
        self._logged_in = token is not None

    def close(self) -> None:
        """Closes the connections. Leases are not given back: they expire."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- people's work -----------------------------------------------------------------------------------------

    def claim(
        self,
        kinds: Sequence[Kind] | None = None,
        *,
        ticket_id: str | None = None,
        batch_id: str | None = None,
        project: str | None = None,
    ) -> Ticket | None:
        """Leases the next ticket, or returns None if there is no ticket for this person.

        kinds: in order of preference; None means every kind that the person's roles permit.
        Raises NotAllowed, NoSuchTicket.
        """
        while True:
            body = {"claim_id": new_id(), "kinds": kinds, "ticket_id": ticket_id, "batch_id": batch_id}
            body |= {} if project is None else {"project": project}
            try:
                response = self._send("POST", "/api/tickets/claim", body)
            except LeaseLost:  # the repeated claim found its lease expired: claim again
                continue
            return None if response.status_code == 204 else _adapter(Ticket).validate_json(response.content)

    def heartbeat(self, ticket: Ticket) -> Ticket:
        """Renews the lease; call it every 20 s. Raises LeaseLost."""
        return self._under_lease(Ticket, ticket, "heartbeat")

    def release(self, ticket: Ticket) -> Ticket:
        """Gives the ticket back. Raises LeaseLost."""
        return self._under_lease(Ticket, ticket, "release")

    def end_lease(self, ticket: Ticket) -> Ticket:
        """Ends the lease that the ticket had when it was read; for leads. Raises NoSuchTicket, NotAllowed."""
        return self._under_lease(Ticket, ticket, "end-lease")

    def masklet(self, ticket: Ticket) -> Masklet | None:
        """The masklet that the ticket is about; None if a person begins from nothing."""
        try:
            return self._ask(Masklet, "GET", f"/api/tickets/{ticket.ticket_id}/masklet")
        except NoSuchMasklet:
            return None

    def append_operations(self, ticket: Ticket, operations: Sequence[NewOperation]) -> AppendResult:
        """Stores operations. Raises LeaseLost (they are stored as a branch), NotAllowed, ValueError."""
        sent = _adapter(tuple[NewOperation, ...]).dump_python(tuple(operations), mode="json")
        return self._under_lease(AppendResult, ticket, "operations", operations=sent)

    def refine(self, ticket: Ticket, operation: NewOperation) -> tuple[FrameMask, ...]:
        """Stores an operation, such as a click, and returns the masks that the live model makes of it.

        The same operation again returns the same masks. Raises LeaseLost, NotAllowed, ValueError; QueueError if the
        model fails, the answer is cut off, or the queue has no live model.
        """
        sent = _adapter(NewOperation).dump_python(operation, mode="json")
        body = {"token": ticket.lease_token, "operation": sent}
        answer = self._send("POST", f"/api/tickets/{ticket.ticket_id}/refine", body)
        cut = "the live model's answer was cut off"
        try:
            lines = [json.loads(line) for line in answer.text.splitlines()] or [{"event": "", "error": cut}]
        except ValueError:
            raise QueueError(cut) from None
        if lines[-1]["event"] != "done":
            raise QueueError(lines[-1].get("error", cut))
        made = (_adapter(FrameMask).validate_python(line["frame"]) for line in lines if line["event"] == "frame")
        return tuple({frame.frame_idx: frame for frame in made}.values())  # of two on one frame, the last is stored

    def label(self, ticket: Ticket, name: str | None, attributes: Mapping[str, object] | None = None) -> AppendResult:
        """Says what the ticket's object is, before the ticket is finished. None takes its label away.

        attributes: by name; they replace those of before. Raises LeaseLost; ValueError for a label or an attribute that
        the ticket's ontology does not have.
        """
        payload = json.dumps({"label": name, "attributes": dict(attributes or {})})
        operation = NewOperation(operation_id=new_id(), kind="label", created_at=now(), payload=payload)
        return self.append_operations(ticket, [operation])

    def finish(
        self,
        ticket: Ticket,
        *,
        verdict: Verdict | None = None,
        reasons: Sequence[Reason] = (),
        masklet: Masklet | None = None,
        frame_idx: int | None = None,
        seconds: float | None = None,
        watched: float | None = None,
        operation_id: str | None = None,
    ) -> FinishResult:
        """Finishes the ticket with a verdict or with the masklet that was made. Raises LeaseLost, ValueError.

        What followed is in the result only for overseers.

        operation_id: an id that the program saved before, so that it can repeat the call after a crash.
        """
        submission = Submission(
            operation_id=operation_id or new_id(),
            created_at=now(),
            verdict=verdict,
            reasons=tuple(reasons),
            masklet=masklet,
            frame_idx=frame_idx,
            seconds=seconds,
            watched=watched,
        )
        sent = _adapter(Submission).dump_python(submission, mode="json")
        return self._under_lease(FinishResult, ticket, "finish", outcome=sent)

    def new_object(self, ticket: Ticket, claim_id: str | None = None) -> Ticket:
        """Opens a track ticket for another object in the video of a ticket that this person holds, and leases it.

        claim_id: an id that the program saved before, so that it can repeat the call after a crash.
        Raises LeaseLost, NotAllowed.
        """
        return self._under_lease(Ticket, ticket, "objects", claim_id=claim_id or new_id())

    def unsubmit(self, ticket_id: str) -> Ticket:
        """Takes a finished ticket back, under a new lease. Raises NotAllowed, TooLate."""
        body = {"operation_id": new_id(), "created_at": now()}
        return self._ask(Ticket, "POST", f"/api/tickets/{ticket_id}/unsubmit", body)

    def recent(self) -> list[RecentAnswer]:
        """The last ten tickets that this person finished, the latest first."""
        return self._ask(list[RecentAnswer], "GET", "/api/me/recent")

    def ticket(self, ticket_id: str) -> Ticket:
        """A ticket in its current state. Raises NoSuchTicket, NotAllowed."""
        return self._ask(Ticket, "GET", f"/api/tickets/{ticket_id}")

    def tickets(
        self,
        *,
        kind: Kind | None = None,
        state: State | None = None,
        batch_id: str | None = None,
        limit: int = 50,
    ) -> list[Ticket]:
        """Up to `limit` (at most 500) tickets in the order in which they are handed out; for annotators and verifiers
        the tickets that they hold, without `batch_id`. Raises NotAllowed.
        """
        wanted = {"kind": kind, "state": state, "batch_id": batch_id, "limit": limit}
        query = {key: value for key, value in wanted.items() if value is not None}
        return self._ask(list[Ticket], "GET", "/api/tickets", query=query)

    def operations(self, ticket_id: str, *, branch: bool = False) -> list[Operation]:
        """What was done in a ticket. branch: what was sent after its lease was lost, instead."""
        return self._ask(list[Operation], "GET", f"/api/tickets/{ticket_id}/operations", query={"branch": branch})

    # --- videos ------------------------------------------------------------------------------------------------

    def video(self, video_id: str) -> VideoInfo:
        """Size and length of a video. Raises NoSuchVideo."""
        return self._ask(VideoInfo, "GET", f"/api/videos/{video_id}")

    def frame(self, video_id: str, frame_idx: int) -> bytes:
        """JPEG of exactly this frame. Raises NoSuchVideo, NoSuchFrame."""
        return self._send("GET", f"/api/videos/{video_id}/frames/{frame_idx}.jpg").content

    def ontology(self, version: str) -> Ontology:
        """The ontology that a ticket's payload names; its pictures without their bytes. Raises NoSuchOntology."""
        return self._ask(Ontology, "GET", f"/api/ontologies/{version}")

    # --- the pipeline ------------------------------------------------------------------------------------------

    def add_ontology(self, ontology: Ontology) -> str:
        """Sends an ontology, before the tickets under it. Returns its version. Raises NotAllowed, ValueError."""
        body = _adapter(Ontology).dump_python(ontology, mode="json")
        return str(self._send("PUT", "/api/ontologies", body).json()["version"])

    def open_batch(self, batch_id: str, tickets: Iterable[NewTicket], *, name: str = "", project: str = "") -> Batch:
        """Opens a batch with its tickets, in several requests if there are many, and seals it.

        name: of the batch, for people; "": it keeps its name. project: that owns the batch, for ever.
        Call it again after any failure: stored tickets are skipped. Raises NotAllowed, BatchSealed, ValueError.
        """
        last: list[NewTicket] = []
        for chunk in _chunks(tickets, lambda ticket: (ticket.masklet,)):
            if last:
                self._put_tickets(batch_id, last, sealed=False, project=project)
            last = chunk
        return self._put_tickets(batch_id, last, sealed=True, name=name, project=project)

    def batch(self, batch_id: str) -> Batch:
        """The counts of a batch. Raises NoSuchBatch."""
        return self._ask(Batch, "GET", f"/api/batches/{batch_id}")

    def batches(self) -> list[Batch]:
        """Every batch, the newest first."""
        return self._ask(list[Batch], "GET", "/api/batches")

    def drained_batches(self, among: Sequence[str]) -> list[str]:
        """Those of these batches that have nothing left to do, sorted; without those that the queue does not have."""
        found = list[str]()
        for at in range(0, len(among), NAMED):
            query = {"drained": True, "batch": among[at : at + NAMED]}
            found += [batch.batch_id for batch in self._ask(list[Batch], "GET", "/api/batches", query=query)]
        return sorted(found)

    def settled_videos(self) -> list[SettledVideos]:
        """How many videos are settled in each batch that has open tickets. Raises NotAllowed."""
        return self._ask(list[SettledVideos], "GET", "/api/settled-videos")

    def close_settled(self, batch_id: str) -> list[str]:
        """Closes the settled videos of a batch, so that nobody changes them. Returns all its closed videos, sorted.

        Closes nothing in a batch that is not sealed, or is drained. Raises NoSuchBatch, NotAllowed.
        """
        return list(self._send("POST", f"/api/batches/{batch_id}/close-settled").json())

    def withdraw(self, batch_id: str, video_id: str, why: str) -> int:
        """Rejects the open and leased tickets of a withdrawn video, and returns their number. Can be repeated.

        why: a sentence for the history of the tickets. Raises NoSuchBatch, NotAllowed.
        """
        body = {"video_id": video_id, "why": why[:MAX_TEXT]}
        return int(self._send("POST", f"/api/batches/{batch_id}/withdraw", body).json()["rejected"])

    def batch_result(self, batch_id: str, only: Sequence[str] | None = None) -> BatchResult:
        """Everything that people decided and did in a batch so far. only: about these videos, at least one.

        Raises NoSuchBatch.
        """
        pages = list[ResultPage]()
        for at in range(0, 1 if only is None else len(only), NAMED):
            query: dict[str, Any] = {} if only is None else {"video": only[at : at + NAMED]}
            while "after" not in query or pages[-1].next is not None:
                pages.append(self._ask(ResultPage, "GET", f"/api/batches/{batch_id}/result", query=query))
                query["after"] = pages[-1].next
        return BatchResult(
            batch=pages[-1].batch,
            settled=tuple(each for page in pages for each in page.settled),
            operations=tuple(each for page in pages for each in page.operations),
        )

    def add_gold(self, batch_id: str, tickets: Sequence[NewGold]) -> int:
        """Adds gold tickets to a batch, in several requests if there are many, and returns how many were new.

        Call it again after any failure: stored tickets are skipped. Raises NotAllowed, ValueError.
        """
        added = 0
        for chunk in _chunks(tickets, lambda gold: (gold.ticket.masklet, gold.truth)):
            body = {"tickets": _adapter(tuple[NewGold, ...]).dump_python(tuple(chunk), mode="json")}
            added += int(self._send("POST", f"/api/batches/{batch_id}/gold", body).json()["added"])
        return added

    def figures(self) -> QueueFigures:
        """Progress, effort and agreement, at most 5 s old. Raises NotAllowed."""
        return self._ask(QueueFigures, "GET", "/api/figures")

    def stats(self) -> Stats:
        """How many tickets are in which state, and everybody's pace; at most a few seconds old."""
        return self._ask(Stats, "GET", "/api/stats")

    # --- inside ------------------------------------------------------------------------------------------------

    def _put_tickets(
        self, batch_id: str, tickets: Sequence[NewTicket], *, sealed: bool, name: str = "", project: str = ""
    ) -> Batch:
        body = {
            "tickets": _adapter(tuple[NewTicket, ...]).dump_python(tuple(tickets), mode="json"),
            "sealed": sealed,
            "name": name,
            "project": project,
        }
        return self._ask(Batch, "PUT", f"/api/batches/{batch_id}", body)

    def _under_lease(self, kind: type[T], ticket: Ticket, verb: str, **more: object) -> T:
        return self._ask(kind, "POST", f"/api/tickets/{ticket.ticket_id}/{verb}", {"token": ticket.lease_token, **more})

    def _ask(
        self, kind: type[T], method: str, path: str, body: object = None, *, query: dict[str, Any] | None = None
    ) -> T:
        return _adapter(kind).validate_json(self._send(method, path, body, query=query).content)

    def _send(
        self, method: str, path: str, body: object = None, *, query: dict[str, Any] | None = None
    ) -> httpx.Response:
        """Sends a request until there is an answer, and logs in again once if the login has ended.

        Returns an answer with a status below 400. Raises the queue's own error, or QueueUnreachable.
        """
        deadline = time.monotonic() + self._patience_s
        attempt, renewed = 0, False
        while True:
            try:
                if not self._logged_in:
                    self._log_in()
                response = self._http.request(method, path, json=body, params=query)
                trouble = f"{response.status_code} {response.reason_phrase}"
            except httpx.TransportError as error:
                response, trouble = None, f"{type(error).__name__}: {error}"
            if response is not None and response.status_code < 400:
                return response
            if response is not None and response.status_code == 401 and self._credentials and not renewed:
                self._logged_in, renewed = False, True  # the login has ended; a second 401 is raised
                continue
            if response is not None and response.status_code not in AWAY:
                raise _error_of(response)
            wait = min(2.0, 0.05 * 2**attempt) * random.uniform(0.5, 1.0)
            attempt += 1
            if time.monotonic() + wait > deadline:
                raise QueueUnreachable(f"{self._http.base_url}: no answer for {self._patience_s:.0f} s ({trouble})")
            time.sleep(wait)

    def _log_in(self) -> None:
        response = self._http.post("/api/login", json=self._credentials)
        if response.status_code in AWAY:
            raise httpx.ConnectError(f"{response.status_code} {response.reason_phrase}")
        if response.status_code != 200:
            raise _error_of(response)
        self._http.headers["X-CSRF-Token"] = response.json()["csrf"]
        self._logged_in = True


def _chunks(tickets: Iterable[T], masklets: Callable[[T], Iterable[Masklet | None]]) -> Iterator[list[T]]:
    """The tickets in parts of at most CHUNK, of CHUNK_BYTES of masks. A larger one is alone in its part."""
    chunk: list[T] = []
    size = 0
    for ticket in tickets:
        weight = sum(len(rle) + 60 for masklet in masklets(ticket) if masklet is not None for rle in masklet.rle)
        if chunk and (len(chunk) == CHUNK or size + weight > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(ticket)
        size += weight
    if chunk:
        yield chunk


def _error_of(response: httpx.Response) -> Exception:
    """The exception that the queue raised, from its answer."""
    try:
        answer = response.json()
        kind, message = str(answer["kind"]), str(answer["error"])
    except (ValueError, KeyError, TypeError):
        kind, message = "", f"{response.status_code} {response.reason_phrase}"
    if kind == "ValueError" or response.status_code in (413, 422):
        return ValueError(message)
    if named := errors.BY_NAME.get(kind):
        return named(message)
    return NotLoggedIn(message) if response.status_code == 401 else QueueError(message)
