"""Who may ask for what."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from annotation_queue.client import new_id
from annotation_queue.errors import NotAllowed
from annotation_queue.records import Role, Scope
from storage.records import Verdict
from tests.annotation_queue.api.running import open_batch
from tests.annotation_queue.synthetic_queue import verify_tickets


def test_every_route_but_health_and_login_needs_a_login(queue):
    with httpx.Client(base_url=queue.url) as http:
        paths = [path for path in http.get("/api/openapi.json").json()["paths"] if path != "/api/login"]
        assert len(paths) > 14
        for path in paths:
            url = path.replace("{frame_idx}", "0").replace("{ticket_id}", "t").replace("{batch_id}", "b")
            for method in http.get("/api/openapi.json").json()["paths"][path]:
                url = url.replace("{name}", "vera").replace("{token_id}", "x")
                answer = http.request(method, url.replace("{video_id}", "video-0"), json={})
                assert answer.status_code in ((200,) if path == "/healthz" else (401, 422)), (method, path)
                if answer.status_code == 422:
                    assert "error" in answer.json()


def test_a_ticket_is_shown_to_its_holder_and_to_overseers(queue, pipeline, vera, request):
    batch = open_batch(pipeline, request, 2)
    ticket = vera.claim(batch_id=batch.batch_id)
    ways = ["", "/masklet", "/operations"]
    with queue.client("victor") as victor, queue.client("lea") as lea:
        for client, sees in ((vera, True), (victor, False), (lea, True), (pipeline, True)):
            for way in ways:
                answer = client._http.get(f"/api/tickets/{ticket.ticket_id}{way}")
                assert answer.status_code == (200 if sees else 403), (way, answer.text)
        answer = vera._http.get(f"/api/tickets/{ticket.ticket_id}/operations", params={"branch": True})
        assert answer.status_code == 403
        assert lea.operations(ticket.ticket_id, branch=True) == []
        vera.finish(ticket, verdict=Verdict.ACCEPT)
        assert vera.masklet(ticket) is not None
        with pytest.raises(NotAllowed, match="only overseers"):
            victor.tickets(batch_id=batch.batch_id)
        held = victor.claim(batch_id=batch.batch_id)
        listed = {t.ticket_id for t in victor.tickets()}
        assert held.ticket_id in listed and ticket.ticket_id not in listed


def test_a_missing_ticket_and_another_person_s_ticket_give_the_same_error(vera, pipeline, request):
    batch = open_batch(pipeline, request, 1)
    (there,) = (t.ticket_id for t in pipeline.tickets(batch_id=batch.batch_id))
    for way in ("", "/masklet", "/operations", "/others"):
        refusals = []
        for ticket_id in (there, "nothing-here"):
            answer = vera._http.get(f"/api/tickets/{ticket_id}{way}")
            refusals.append((answer.status_code, answer.text.replace(ticket_id, "…")))
        assert refusals[0] == refusals[1] and refusals[0][0] == 403


def test_a_video_is_shown_to_people_with_a_ticket_on_it(queue, pipeline, request):
    prefix = request.node.name
    alone = replace(verify_tickets(1, frame_count=8, prefix=prefix)[0], video_id="video-alone")
    assert alone.masklet is not None
    pipeline.open_batch(prefix, [replace(alone, masklet=replace(alone.masklet, video_id="video-alone"))])
    with queue.client("victor") as victor, queue.client("vera") as vera:
        for path in ("/api/videos/video-alone", "/api/videos/video-alone/frames/3.jpg"):
            assert victor._http.get(path).status_code == 403
        victor.claim(batch_id=prefix)
        assert victor.frame("video-alone", 3)
        assert vera._http.get("/api/videos/video-alone/frames/3.jpg").status_code == 403


def test_a_token_may_do_what_its_scopes_and_its_person_both_allow(queue, request):
    lea = queue.accounts.add("lea", [Role.LEAD])
    assert lea.roles == {Role.LEAD}
    expected = {
        (Scope.READ,): (200, 403, 403, 403),
        (Scope.ANNOTATE,): (200, 204, 403, 403),
        (Scope.PIPELINE,): (200, 403, 200, 403),
        None: (200, 204, 200, 200),
    }
    for scopes, codes in expected.items():
        headers = {"Authorization": f"Bearer {queue.accounts.issue_token('lea', scopes)}"}
        with httpx.Client(base_url=queue.url, headers=headers) as http:
            got = (
                http.get("/api/figures").status_code,
                http.post("/api/tickets/claim", json={"claim_id": new_id(), "batch_id": "nothing"}).status_code,
                http.post("/api/batches/b/gold", json={"tickets": []}).status_code,
                http.post("/api/people", json={"name": "new", "roles": ["verifier"]}).status_code,
            )
            assert got[:2] + got[3:] == codes[:2] + codes[3:]
            assert got[2] == (404 if codes[2] == 200 else 403)  # there is no batch b


def test_what_leads_do_takes_a_token_without_scopes(queue):
    queue.accounts.add("lea", [Role.LEAD])
    act = {"act_id": new_id(), "action": "take back", "ticket_ids": ["nothing"]}
    asked = {
        "/api/acts": act,
        "/api/tickets/nothing/end-lease": {"token": 1},
        "/api/kept/close": {"operation_ids": [], "applied": False},
        "/api/me/kept/close": {"operation_ids": [], "applied": False},  # one's own
    }
    got = {}
    for scopes in ([Scope.ANNOTATE, Scope.PIPELINE], None):
        headers = {"Authorization": f"Bearer {queue.accounts.issue_token('lea', scopes)}"}
        with httpx.Client(base_url=queue.url, headers=headers) as http:
            got[scopes is None] = [http.post(path, json=body).status_code for path, body in asked.items()]
    assert got == {False: [403, 403, 403, 200], True: [200, 404, 200, 200]}
