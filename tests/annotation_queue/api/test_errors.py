"""Errors on the wire: one line, the exception's name, the right status."""

from __future__ import annotations

import httpx
import pytest

from annotation_queue.api.app import create_app
from annotation_queue.database import Database
from annotation_queue.errors import (
    BatchSealed,
    LeaseLost,
    NoSuchBatch,
    NoSuchFrame,
    NoSuchTicket,
    NoSuchVideo,
    NotAllowed,
)
from annotation_queue.records import Kind
from annotation_queue.tickets.store import TicketStore
from storage.records import Verdict
from tests.annotation_queue.api.running import open_batch
from tests.annotation_queue.synthetic_queue import SyntheticMedia, add_people, serving, verify_tickets


def test_a_client_raises_the_exception_that_the_queue_raised(queue, pipeline, vera, ann, request):
    batch = open_batch(pipeline, request, 2)
    ticket = vera.claim(batch_id=batch.batch_id)
    with pytest.raises(NotAllowed, match="no role"):
        ann.claim([Kind.VERIFY])
    with pytest.raises(NotAllowed, match="only the pipeline"):
        vera.open_batch("mine", [])
    with pytest.raises(NotAllowed, match="never held"):
        with queue.client("victor") as victor:
            victor.finish(ticket, verdict=Verdict.ACCEPT)
    with pytest.raises(ValueError, match="reason"):
        vera.finish(ticket, verdict=Verdict.REJECT)
    with pytest.raises(BatchSealed):
        pipeline.open_batch(batch.batch_id, verify_tickets(1, prefix="late"))
    with pytest.raises(NoSuchTicket):
        pipeline.ticket("nothing-here")
    with pytest.raises(NoSuchBatch):
        pipeline.batch_result("nothing-here")
    with pytest.raises(NotAllowed, match="no ticket on video"):
        vera.video("nothing-here")
    with pytest.raises(NoSuchVideo):
        pipeline.video("nothing-here")
    with pytest.raises(NoSuchFrame):
        pipeline.frame("video-0", 48)
    vera.release(ticket)
    vera.claim(ticket_id=ticket.ticket_id)
    with pytest.raises(LeaseLost):
        vera.heartbeat(ticket)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "claim_id"),
        ({"claim_id": "../x"}, "invalid claim_id"),
        ({"claim_id": "c", "kinds": ["dance"]}, "kinds"),
    ],
)
def test_a_malformed_body_gives_an_error_of_one_line(browser, body, says):
    answer = browser.post("/api/tickets/claim", json=body)
    assert answer.status_code == 422 and says in answer.json()["error"]


@pytest.mark.server
@pytest.mark.parametrize("uri", ["sqlite", "postgres"], indirect=True)
def test_values_that_the_database_cannot_store_are_refused(uri):
    database = Database(uri)
    tickets, headers = TicketStore(database), {"Authorization": f"Bearer {add_people(database).issue_token('vera')}"}
    tickets.open_batch("b", verify_tickets(1, frame_count=4))
    with serving(create_app(tickets, SyntheticMedia(8))) as url, httpx.Client(base_url=url, headers=headers) as http:
        ticket = http.post("/api/tickets/claim", json={"claim_id": "c"}).json()["ticket_id"]
        answer = http.post(f"/api/tickets/{ticket}/heartbeat", json={"token": 10**30})
        assert answer.status_code == 422 and len(answer.json()["error"]) < 100
        for seconds in ("NaN", "Infinity", "-1"):
            outcome = f'{{"operation_id": "n", "created_at": "", "verdict": "accept", "seconds": {seconds}}}'
            body, kind = f'{{"token": 1, "outcome": {outcome}}}', {"Content-Type": "application/json"}
            answer = http.post(f"/api/tickets/{ticket}/finish", content=body, headers=kind)
            assert answer.status_code == 422 and "seconds" in answer.json()["error"]
        nul = {"operation_id": "o", "created_at": "\0", "verdict": "accept"}
        answer = http.post(f"/api/tickets/{ticket}/finish", json={"token": 1, "outcome": nul})
        assert answer.status_code in (200, 422)  # SQLite can store it, PostgreSQL cannot
    database.close()
