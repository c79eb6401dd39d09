"""The limits of bodies: nothing is parsed that is too large, or that comes from a person who has no use for it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import cv2
import httpx
import numpy as np
import pytest

from annotation_queue.api.app import create_app
from annotation_queue.api.asking import COOKIE
from annotation_queue.api.bodies import BYTES_A_VALUE, LARGE, SMALL
from annotation_queue.database import Database
from annotation_queue.tickets.store import TicketStore
from storage import rle
from tests.annotation_queue.api.running import open_batch
from tests.annotation_queue.synthetic_queue import SyntheticMedia, SyntheticModel, add_people, candidate, verify_tickets

PART = 64 << 10  # bytes
FINISH = LARGE["POST", "/api/tickets/{ticket_id}/finish"]


@pytest.fixture
def asgi(tmp_path):
    """Sends a request to an application whose ticket `t` is held by vera. Returns the answer and the parts it read."""
    database = Database(f"sqlite:///{tmp_path}/queue.db")
    accounts, tickets = add_people(database), TicketStore(database)
    tickets.open_batch("b", verify_tickets(1, frame_count=8, prefix="t"))
    people = {person.name: person for person in accounts.list()}
    tickets.claim(people["vera"], claim_id="c", ticket_id="t-0000")
    app = create_app(tickets, SyntheticMedia(8), accounts=accounts)

    def send(name, path, parts, method="POST"):
        headers = [(b"content-type", b"application/json")]
        headers += [(b"authorization", f"Bearer {accounts.issue_token(name)}".encode())] if name else []
        scope = {"type": "http", "asgi": {"version": "3.0"}, "method": method, "path": path, "headers": headers}
        scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("q", 80), "client": None}
        sent, answer, read = iter(parts), [], 0

        async def receive():
            nonlocal read
            part = next(sent, None)
            read += part is not None
            return {"type": "http.request", "body": part or b"", "more_body": part is not None}

        async def keep(message):
            answer.append(message)

        asyncio.run(app(scope, receive, keep))
        body = json.loads(b"".join(m.get("body", b"") for m in answer[1:]))
        return answer[0]["status"], body["error"], read

    yield send
    database.close()


def test_a_body_over_its_limit_is_refused_while_it_arrives(queue, browser):
    def endless():
        for _ in range(SMALL // PART + 2):
            yield b" " * PART

    declared = browser.post("/api/tickets/claim", content=b" " * (SMALL + 1))
    streamed = browser.post("/api/login", content=endless(), headers={"Content-Type": "application/json"})
    for answer in (declared, streamed):
        assert answer.status_code == 413 and "larger than" in answer.json()["error"]


def test_a_large_body_is_read_only_from_logged_in_people(queue, browser, vera, pipeline, request):
    def parts():
        for _ in range(SMALL // PART + 2):
            yield b" " * PART
        yield b"{"

    ticket = vera.claim(batch_id=open_batch(pipeline, request, 1).batch_id).ticket_id
    strangers = [{}, {"Authorization": "Bearer wrong"}, {"Cookie": f"{COOKIE}=wrong"}]
    known = [{"Authorization": vera._http.headers["Authorization"]}, {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}]
    for who in strangers + known:
        headers = {**who, "Content-Type": "application/json", "X-CSRF-Token": browser.headers["X-CSRF-Token"]}
        for content in (b" " * SMALL + b"{", parts()):  # with a declared length, and without
            answer = httpx.post(f"{queue.url}/api/tickets/{ticket}/finish", content=content, headers=headers)
            expected = (
                (401, "NotLoggedIn") if who in strangers else (422, "ValueError")
            )  # 422: the body was read and parsed
            assert (answer.status_code, answer.json()["kind"]) == expected


@pytest.mark.parametrize(
    ("name", "path", "method", "status", "says"),
    [
        (None, "/api/tickets/t-0000/finish", "POST", 401, "Log in"),
        ("ann", "/api/tickets/t-0000/finish", "POST", 403, "never held"),
        ("ann", "/api/tickets/t-0000/operations", "POST", 403, "never held"),
        ("ann", "/api/tickets/t-0000/refine", "POST", 403, "never held"),
        ("ann", "/api/tickets/nothing-here/finish", "POST", 403, "never held"),
        ("ann", "/api/batches/b", "PUT", 403, "only leads"),
        ("ann", "/api/batches/b/gold", "POST", 403, "only leads"),
    ],
)
def test_no_part_is_read_of_a_large_body_that_has_no_use(asgi, name, path, method, status, says):
    answered, error, read = asgi(name, path, (b"{}," * PART for _ in range(100)), method)
    assert (answered, read) == (status, 0) and says in error


def test_a_holder_sends_at_most_the_limit_of_the_route(asgi):
    path = "/api/tickets/t-0000/finish"
    status, error, read = asgi("vera", path, (b'"' * PART for _ in range(2 * FINISH // PART)))
    assert (status, read) == (413, FINISH // PART + 1) and error == f"the body is larger than {FINISH} bytes"
    status, error, read = asgi("vera", path, (b"[]," * PART for _ in range(100)))
    most = FINISH // BYTES_A_VALUE
    assert (status, read) == (413, most // (2 * PART) + 1) and error == f"the body has more than {most} JSON values"


def test_the_largest_masklet_is_taken(vera, pipeline, request):
    """240 ragged masks of 1080p, 40 s: they are read, and then refused, since a verifier gives verdicts."""
    ticket = vera.claim(batch_id=open_batch(pipeline, request, 1).batch_id)
    ragged = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(1080, 1920)), (0, 0), 5) > 0
    made = replace(
        candidate("made", ticket.video_id, frame_count=960),
        height=1080,
        width=1920,
        rle=(rle.encode(ragged),) * 240,
        area_px=(int(ragged.sum()),) * 240,
    )
    assert sum(map(len, made.rle)) > 10_000_000
    with pytest.raises(ValueError, match="cannot be finished with a masklet"):
        vera.finish(ticket, masklet=made)


def test_every_limit_is_of_a_route_that_exists(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/queue.db")
    paths = create_app(TicketStore(database), SyntheticMedia(8), segmenter=SyntheticModel()).openapi()["paths"]
    assert all(method.lower() in paths[path] for method, path in LARGE)
    database.close()
