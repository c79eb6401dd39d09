"""The queue as Python calls: for the pipeline, for simulated annotators, for anybody's program.

Every verb may be repeated, so a request whose answer was lost is sent again with the same ids until `patience_s`
is over; then QueueUnreachable. What the queue refuses comes back as the exceptions of `records.py`.

    with QueueClient("http://localhost:8000", token=token) as queue:
        while ticket := queue.claim([Kind.VERIFY]):
            masklet = queue.masklet(ticket)
            queue.finish(ticket, verdict=Verdict.ACCEPT)
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import TypeAdapter

from annotation_queue import errors
from annotation_queue.errors import LeaseLost, NoSuchMasklet, NotLoggedIn, QueueError, QueueUnreachable
from annotation_queue.records import (
    Appended,
    Batch,
    BatchResult,
    Finished,
    Kind,
    NewGold,
    NewOperation,
    NewTicket,
    QueueFigures,
    Reason,
    Recent,
    ResultPage,
    Settled,
    State,
    Stats,
    Submission,
    Ticket,
    VideoInfo,
)
from storage.records import Masklet, Operation, Verdict

T = TypeVar("T")

CHUNK = 100  # tickets a request, when a batch is opened
CHUNK_BYTES = 8 << 20  # …or as many as fit in this, by their masks

_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def new_id() -> str:
    """A new id for an operation or a claim."""
    return uuid.uuid4().hex


def now() -> str:
    """This moment, as operations carry it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class QueueClient:
    """A connection to one queue as one person. Not for several threads at once: make one each."""

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
        """Give a token, or a name and a password; nothing is sent before the first call.

        patience_s: how long to try again while the queue does not answer.
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
            trust_env=False,  # a proxy set for the internet must not take what is meant for the queue
        )
        self._credentials = None if token is not None else {"name": username, "password": password}
        self._patience_s = patience_s
        self._logged_in = token is not None

    def close(self) -> None:
        """Close the connections; leases that are held run out by themselves."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- people's work -----------------------------------------------------------------------------------------

    def claim(
        self,
        kinds: Sequence[Kind] | None = None,
        *,
        ticket_id: str | None = None,
        batch_id: str | None = None,
    ) -> Ticket | None:
        """Lease the next ticket, or None if there is none for this person.

        kinds: in order of preference; None for whatever their roles permit.
        Raises NotAllowed, NoSuchTicket.
        """
        while True:
            body = {"claim_id": new_id(), "kinds": kinds, "ticket_id": ticket_id, "batch_id": batch_id}
            try:
                response = self._send("POST", "/api/tickets/claim", body)
            except LeaseLost:  # the answer was lost for longer than the lease lasts: that ticket is open again
                continue
            return None if response.status_code == 204 else _adapter(Ticket).validate_json(response.content)

    def heartbeat(self, ticket: Ticket) -> Ticket:
        """Keep the lease; send one every 20 s. Raises LeaseLost."""
        return self._ask(Ticket, "POST", f"/api/tickets/{ticket.ticket_id}/heartbeat", {"token": ticket.lease_token})

    def release(self, ticket: Ticket) -> Ticket:
        """Give the ticket back. Raises LeaseLost."""
        return self._ask(Ticket, "POST", f"/api/tickets/{ticket.ticket_id}/release", {"token": ticket.lease_token})

    def end_lease(self, ticket: Ticket) -> Ticket:
        """End the lease that this ticket was seen under; for leads. Raises NoSuchTicket, NotAllowed."""
        return self._ask(Ticket, "POST", f"/api/tickets/{ticket.ticket_id}/end-lease", {"token": ticket.lease_token})

    def masklet(self, ticket: Ticket) -> Masklet | None:
        """The masklet that the ticket is about, None if a person begins from nothing."""
        try:
            return self._ask(Masklet, "GET", f"/api/tickets/{ticket.ticket_id}/masklet")
        except NoSuchMasklet:
            return None

    def append_operations(self, ticket: Ticket, operations: Sequence[NewOperation]) -> Appended:
        """Keep what was done in the ticket. Raises LeaseLost (kept as a branch), NotAllowed, ValueError."""
        body = {
            "token": ticket.lease_token,
            "operations": _adapter(tuple[NewOperation, ...]).dump_python(tuple(operations), mode="json"),
        }
        return self._ask(Appended, "POST", f"/api/tickets/{ticket.ticket_id}/operations", body)

    def finish(
        self,
        ticket: Ticket,
        *,
        verdict: Verdict | None = None,
        reasons: Sequence[Reason] = (),
        masklet: Masklet | None = None,
        frame_idx: int | None = None,
        seconds: float | None = None,
        operation_id: str | None = None,
    ) -> Finished:
        """Finish the ticket with a verdict or with the masklet that was made. Raises LeaseLost, ValueError.

        operation_id: give one that was saved before the call, to be safe against this program's own death.
        """
        outcome = Submission(
            operation_id=operation_id or new_id(),
            created_at=now(),
            verdict=verdict,
            reasons=tuple(reasons),
            masklet=masklet,
            frame_idx=frame_idx,
            seconds=seconds,
        )
        body = {"token": ticket.lease_token, "outcome": _adapter(Submission).dump_python(outcome, mode="json")}
        return self._ask(Finished, "POST", f"/api/tickets/{ticket.ticket_id}/finish", body)

    def unsubmit(self, ticket_id: str) -> Ticket:
        """Take back what was finished; the ticket is held again. Raises NotAllowed, TooLate."""
        return self._ask(
            Ticket, "POST", f"/api/tickets/{ticket_id}/unsubmit", {"operation_id": new_id(), "created_at": now()}
        )

    def recent(self) -> list[Recent]:
        """The last ten tickets that this person finished, the latest first."""
        return _adapter(list[Recent]).validate_json(self._send("GET", "/api/me/recent").content)

    def ticket(self, ticket_id: str) -> Ticket:
        """A ticket as it stands. Raises NoSuchTicket, NotAllowed."""
        return self._ask(Ticket, "GET", f"/api/tickets/{ticket_id}")

    def tickets(
        self,
        *,
        kind: Kind | None = None,
        state: State | None = None,
        batch_id: str | None = None,
        limit: int = 50,
    ) -> list[Ticket]:
        """Up to `limit` (at most 500) tickets in the order in which they are handed out."""
        wanted = {"kind": kind, "state": state, "batch_id": batch_id, "limit": limit}
        query = {key: value for key, value in wanted.items() if value is not None}
        return _adapter(list[Ticket]).validate_json(self._send("GET", "/api/tickets", query=query).content)

    def operations(self, ticket_id: str, *, branch: bool = False) -> list[Operation]:
        """What was done in a ticket; `branch`: what came after its lease was lost, instead."""
        response = self._send("GET", f"/api/tickets/{ticket_id}/operations", query={"branch": branch})
        return _adapter(list[Operation]).validate_json(response.content)

    # --- videos ------------------------------------------------------------------------------------------------

    def video(self, video_id: str) -> VideoInfo:
        """Size and length of a video. Raises NoSuchVideo."""
        return self._ask(VideoInfo, "GET", f"/api/videos/{video_id}")

    def frame(self, video_id: str, frame_idx: int) -> bytes:
        """JPEG of exactly this frame. Raises NoSuchVideo, NoSuchFrame."""
        return self._send("GET", f"/api/videos/{video_id}/frames/{frame_idx}.jpg").content

    # --- the pipeline ------------------------------------------------------------------------------------------

    def open_batch(self, batch_id: str, tickets: Iterable[NewTicket]) -> Batch:
        """Open a batch with its tickets, in several requests if there are many, and seal it.

        Call again after any failure: what is there stays. Raises NotAllowed, BatchSealed, ValueError.
        """
        chunk: list[NewTicket] = []
        size = 0
        for ticket in tickets:
            weight = 0 if ticket.masklet is None else sum(len(rle) + 60 for rle in ticket.masklet.rle)
            if chunk and (len(chunk) == CHUNK or size + weight > CHUNK_BYTES):
                self._put_tickets(batch_id, chunk, sealed=False)
                chunk, size = [], 0
            chunk.append(ticket)
            size += weight
        return self._put_tickets(batch_id, chunk, sealed=True)

    def batch(self, batch_id: str) -> Batch:
        """The counts of a batch. Raises NoSuchBatch."""
        return self._ask(Batch, "GET", f"/api/batches/{batch_id}")

    def batches(self) -> list[Batch]:
        """Every batch, the newest first."""
        return _adapter(list[Batch]).validate_json(self._send("GET", "/api/batches").content)

    def drained_batches(self) -> list[str]:
        """The ids of the batches with nothing left to do."""
        response = self._send("GET", "/api/batches", query={"drained": True})
        return [batch.batch_id for batch in _adapter(list[Batch]).validate_json(response.content)]

    def batch_result(self, batch_id: str) -> BatchResult:
        """Everything that people decided and did in a batch so far. Raises NoSuchBatch."""
        settled: list[Settled] = []
        done: list[Operation] = []
        after: str | None = None
        while True:
            query = {} if after is None else {"after": after}
            response = self._send("GET", f"/api/batches/{batch_id}/result", query=query)
            page = _adapter(ResultPage).validate_json(response.content)
            settled += page.settled
            done += page.operations
            after = page.next
            if after is None:
                return BatchResult(batch=page.batch, settled=tuple(settled), operations=tuple(done))

    def add_gold(self, batch_id: str, tickets: Sequence[NewGold]) -> int:
        """Add tickets whose answer is known beside a batch; returns how many are new. Raises NotAllowed, ValueError."""
        body = {"tickets": _adapter(tuple[NewGold, ...]).dump_python(tuple(tickets), mode="json")}
        return int(self._send("POST", f"/api/batches/{batch_id}/gold", body).json()["added"])

    def figures(self) -> QueueFigures:
        """The queue in figures, at most 5 s old. Raises NotAllowed."""
        return self._ask(QueueFigures, "GET", "/api/figures")

    def stats(self) -> Stats:
        """The queue in numbers, at most a few seconds old."""
        return self._ask(Stats, "GET", "/api/stats")

    # --- inside ------------------------------------------------------------------------------------------------

    def _put_tickets(self, batch_id: str, tickets: Sequence[NewTicket], *, sealed: bool) -> Batch:
        body = {
            "tickets": _adapter(tuple[NewTicket, ...]).dump_python(tuple(tickets), mode="json"),
            "sealed": sealed,
        }
        return self._ask(Batch, "PUT", f"/api/batches/{batch_id}", body)

    def _ask(self, kind: type[T], method: str, path: str, body: object = None) -> T:
        return _adapter(kind).validate_json(self._send(method, path, body).content)

    def _send(
        self, method: str, path: str, body: object = None, *, query: dict[str, Any] | None = None
    ) -> httpx.Response:
        """Send until there is an answer, after one further login if it asks for that.

        Returns one below 400; raises what the queue refused.
        """
        deadline = time.monotonic() + self._patience_s
        attempt, again = 0, False
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
            if response is not None and response.status_code == 401 and self._credentials and not again:
                self._logged_in, again = False, True  # the login ran out; if a new one is none either, that is said
                continue
            if response is not None and response.status_code not in (502, 503, 504):
                raise _error_of(response)
            wait = min(2.0, 0.05 * 2**attempt) * random.uniform(0.5, 1.0)
            attempt += 1
            if time.monotonic() + wait > deadline:
                raise QueueUnreachable(f"{self._http.base_url}: no answer for {self._patience_s:.0f} s ({trouble})")
            time.sleep(wait)

    def _log_in(self) -> None:
        response = self._http.post("/api/login", json=self._credentials)
        if response.status_code in (502, 503, 504):
            raise httpx.ConnectError(f"{response.status_code} {response.reason_phrase}")
        if response.status_code != 200:
            raise _error_of(response)
        self._http.headers["X-CSRF-Token"] = response.json()["csrf"]
        self._logged_in = True


def _error_of(response: httpx.Response) -> Exception:
    """The exception that an answer stands for."""
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
