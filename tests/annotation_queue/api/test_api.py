"""The routes, over HTTP from a real server."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import httpx
import pytest

from annotation_queue.api.app import FIGURES_S, STATS_S, create_app
from annotation_queue.api.asking import COOKIE
from annotation_queue.api.edge import SMALL_BODY
from annotation_queue.client import QueueClient, new_id
from annotation_queue.database import Database
from annotation_queue.errors import (
    BatchSealed,
    LeaseLost,
    NoSuchBatch,
    NoSuchFrame,
    NoSuchTicket,
    NoSuchVideo,
    NotAllowed,
    NotLoggedIn,
    QueueUnreachable,
    WrongPassword,
)
from annotation_queue.records import Kind, NewOperation, NewTicket, QueuePolicy, Reason, Role, Scope, State
from annotation_queue.tickets.store import Store
from storage.records import Verdict
from tests.annotation_queue.synthetic_queue import (
    PASSWORD,
    SyntheticMedia,
    add_people,
    candidate,
    corrected,
    picture,
    serving,
    tickets,
)


class Queue:
    """One server for all tests of this file; each test opens batches of its own."""

    def __init__(self, url, accounts, told):
        self.url = url
        self.accounts = accounts
        self.told = told

    def client(self, name):
        return QueueClient(self.url, token=self.accounts.issue_token(name), patience_s=5)


@pytest.fixture(scope="module")
def queue(tmp_path_factory):
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('queue')}/queue.db")
    accounts = add_people(database)
    told = []
    app = create_app(Store(database), SyntheticMedia(48), accounts=accounts, deliver=told.append, deliver_every_s=0.05)
    with serving(app) as url:
        yield Queue(url, accounts, told)
    database.close()


@pytest.fixture
def vera(queue):
    with queue.client("vera") as client:
        yield client


@pytest.fixture
def ann(queue):
    with queue.client("ann") as client:
        yield client


@pytest.fixture
def pipeline(queue):
    with queue.client("pipeline") as client:
        yield client


@pytest.fixture
def browser(queue):
    """A plain HTTP client that logged in as a browser does."""
    with httpx.Client(base_url=queue.url) as http:
        answer = http.post("/api/login", json={"name": "vera", "password": PASSWORD})
        http.headers["X-CSRF-Token"] = answer.json()["csrf"]
        yield http


def open_batch(pipeline, request, count):
    prefix = request.node.name.replace("[", "-").replace("]", "")[:60]
    return pipeline.open_batch(prefix, tickets(count, frame_count=8, prefix=prefix))


# --- the whole way ---------------------------------------------------------------------------------------------------


def test_a_batch_goes_from_the_pipeline_through_people_and_back(queue, pipeline, vera, ann, request):
    batch = open_batch(pipeline, request, 3)
    assert open_batch(pipeline, request, 3) == batch
    for verdict in (Verdict.ACCEPT, Verdict.REJECT, Verdict.REFINE):
        ticket = vera.claim([Kind.VERIFY], batch_id=batch.batch_id)
        assert vera.masklet(ticket).masklet_id == ticket.masklet_id
        reasons = [Reason.DRIFT] if verdict is Verdict.REJECT else []
        vera.finish(ticket, verdict=verdict, reasons=reasons, frame_idx=4, seconds=1.5)
    assert vera.claim(batch_id=batch.batch_id) is None
    track = ann.claim(batch_id=batch.batch_id)
    points = '{"points_xy": [[9, 9]], "labels": [1]}'
    click = NewOperation(operation_id=new_id(), kind="prompt", created_at="", frame_idx=4, payload=points)
    assert ann.append_operations(track, [click]).stored == 1
    assert ann.append_operations(track, [click]).repeated == 1
    made = corrected(ann.masklet(track), f"{batch.batch_id}-better")
    finished = ann.finish(track, masklet=made)
    assert vera.claim(batch_id=batch.batch_id) is None  # she sent it back
    with queue.client("victor") as victor:
        verify = victor.claim(batch_id=batch.batch_id)
        assert verify.ticket_id == finished.next_ticket_id
        assert victor.masklet(verify).rle == made.rle
        assert victor.finish(verify, verdict=Verdict.ACCEPT).batch_drained

    result = pipeline.batch_result(batch.batch_id)
    assert result.batch.drained and batch.batch_id in pipeline.drained_batches()
    assert sorted(s.verdict for s in result.settled) == ["accept", "accept", "reject"]
    assert {s.masklet.annotated_by for s in result.settled} == {None, "ann"}
    assert [o.kind for o in result.operations].count("verdict") == 4
    deadline = time.monotonic() + 5
    while batch.batch_id not in queue.told and time.monotonic() < deadline:
        time.sleep(0.02)
    assert queue.told.count(batch.batch_id) == 1


def test_a_large_batch_is_opened_in_parts(pipeline, request):
    assert open_batch(pipeline, request, 230).total == 230
    assert len(pipeline.tickets(batch_id=pipeline.batches()[0].batch_id, limit=500)) == 230


def test_a_ticket_without_a_masklet_has_none(pipeline, ann, request):
    name = request.node.name
    pipeline.open_batch(name, [NewTicket(ticket_id=name, kind=Kind.TRACK, video_id="video-0", phase="1")])
    ticket = ann.claim(ticket_id=name)
    assert ann.masklet(ticket) is None
    assert ann.finish(ticket, verdict=Verdict.REJECT, reasons=[Reason.UNTRACKABLE]).settled is Verdict.REJECT


def test_what_the_queue_refuses_comes_back_as_its_exception(queue, pipeline, vera, ann, request):
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
        pipeline.open_batch(batch.batch_id, tickets(1, prefix="late"))
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


def test_frames_are_exact_and_may_be_kept_for_ever(pipeline, vera, browser, request):
    batch = open_batch(pipeline, request, 1)
    assert vera.claim(batch_id=batch.batch_id).video_id == "video-0"
    assert vera.video("video-0").frame_count == 48
    answer = browser.get("/api/videos/video-0/frames/31.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert "immutable" in answer.headers["cache-control"] and "private" in answer.headers["cache-control"]
    assert "Cookie" in answer.headers["vary"], "but not for whoever logs in next at the same browser"
    assert answer.content == vera.frame("video-0", 31) == SyntheticMedia(48).frame("video-0", 31)
    assert picture(31).shape == (360, 640, 3)


def test_the_numbers_are_there(pipeline, request):
    open_batch(pipeline, request, 1)
    time.sleep(STATS_S + 0.1)
    counts = {(c.kind, c.state): c.tickets for c in pipeline.stats().counts}
    assert counts[(Kind.VERIFY, State.OPEN)] >= 1


# --- who may ask -----------------------------------------------------------------------------------------------------


def test_nothing_is_told_to_whoever_did_not_log_in(queue):
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


def test_a_cookie_needs_its_csrf_header_and_a_token_does_not(queue, browser):
    body = {"claim_id": new_id()}
    assert browser.post("/api/tickets/claim", json=body).status_code in (200, 204)
    for wrong in ("", "x", "é".encode()):
        answer = browser.post("/api/tickets/claim", json=body, headers={b"X-CSRF-Token": wrong})
        assert (answer.status_code, answer.json()["kind"]) == (403, "NotAllowed")
    assert browser.get("/api/me", headers={"X-CSRF-Token": ""}).status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(queue):
    answer = httpx.post(f"{queue.url}/api/login", json={"name": "vera", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith(f"{COOKIE}=") and "httponly" in cookie and "samesite=strict" in cookie
    assert PASSWORD not in answer.text


def test_logging_out_ends_the_login(browser):
    assert browser.get("/api/me").json()["name"] == "vera"
    cookie = f"{COOKIE}={browser.cookies[COOKIE]}"
    answer = browser.post("/api/logout")
    assert answer.status_code == 204 and answer.headers["clear-site-data"] == '"cache"', "what waits to be sent stays"
    assert browser.get("/api/me", headers={"Cookie": cookie}).status_code == 401


def test_a_client_asks_no_proxy(queue, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with queue.client("vera") as client:
        assert client.stats()


def test_a_client_logs_in_with_a_password_and_again_when_its_login_has_ended(queue):
    with QueueClient(queue.url, username="vera", password=PASSWORD) as client:
        assert client.stats()
        queue.accounts.revoke_tokens("vera")
        assert client.stats()
    with QueueClient(queue.url, username="vera", password="wrong password") as client:
        with pytest.raises(WrongPassword):
            client.stats()
    with QueueClient(queue.url, token="wrong") as client:
        with pytest.raises(NotLoggedIn):
            client.stats()


def test_a_ticket_is_shown_to_who_holds_it_and_to_overseers(queue, pipeline, vera, request):
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
        shown = {t.ticket_id for t in victor.tickets(batch_id=batch.batch_id)}
        assert shown == {t.ticket_id for t in pipeline.tickets(batch_id=batch.batch_id, state=State.OPEN)}


def test_a_ticket_that_is_not_there_is_refused_like_one_that_is_not_ones_own(vera, pipeline, request):
    batch = open_batch(pipeline, request, 1)
    (there,) = (t.ticket_id for t in pipeline.tickets(batch_id=batch.batch_id))
    for way in ("", "/masklet", "/operations", "/others"):
        refusals = []
        for ticket_id in (there, "nothing-here"):
            answer = vera._http.get(f"/api/tickets/{ticket_id}{way}")
            refusals.append((answer.status_code, answer.text.replace(ticket_id, "…")))
        assert refusals[0] == refusals[1] and refusals[0][0] == 403


def test_nobody_reads_another_s_verdict_before_their_own(queue, request):
    store = Store(queue.accounts._database, policy=QueuePolicy(overlap=2, overlap_share=1.0))
    store.open_batch(request.node.name, tickets(1, frame_count=8, prefix=request.node.name))
    with queue.client("vera") as vera, queue.client("victor") as victor, queue.client("lea") as lea:
        first = vera.claim(batch_id=request.node.name)
        vera.finish(first, verdict=Verdict.REFINE)
        back = vera.unsubmit(first.ticket_id)  # this says, too, what she had answered
        vera.finish(back, verdict=Verdict.ACCEPT)
        second = victor.claim(batch_id=request.node.name)
        assert second.ticket_id == first.ticket_id and victor.operations(first.ticket_id) == []
        assert [o.kind for o in vera.operations(first.ticket_id)] == ["verdict", "unsubmit", "verdict"]
        assert len(lea.operations(first.ticket_id)) == 3
        victor.finish(second, verdict=Verdict.ACCEPT)
        assert len(victor.operations(first.ticket_id)) == 4, "now it is decided"


def test_a_video_is_shown_to_who_has_a_ticket_on_it(queue, pipeline, request):
    prefix = request.node.name
    alone = replace(tickets(1, frame_count=8, prefix=prefix)[0], video_id="video-alone")
    pipeline.open_batch(prefix, [replace(alone, masklet=replace(alone.masklet, video_id="video-alone"))])
    with queue.client("victor") as victor, queue.client("vera") as vera:
        for path in ("/api/videos/video-alone", "/api/videos/video-alone/frames/3.jpg"):
            assert victor._http.get(path).status_code == 403
        victor.claim(batch_id=prefix)
        assert victor.frame("video-alone", 3)
        assert vera._http.get("/api/videos/video-alone/frames/3.jpg").status_code == 403


def test_a_token_does_what_its_scopes_and_its_person_both_allow(queue, request):
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


# --- people and numbers ----------------------------------------------------------------------------------------------


def test_a_verdict_is_taken_back_over_the_api(pipeline, vera, request):
    batch = open_batch(pipeline, request, 2)
    ticket = vera.claim(batch_id=batch.batch_id)
    vera.finish(ticket, verdict=Verdict.REFINE, seconds=3.0)
    recent = vera.recent()[0]
    assert (recent.ticket_id, recent.verdict, recent.seconds) == (ticket.ticket_id, Verdict.REFINE, 3.0)
    back = vera.unsubmit(ticket.ticket_id)
    assert back.leased_by == "vera" and back.lease_token == ticket.lease_token + 1
    assert ticket.ticket_id not in {r.ticket_id for r in vera.recent()}
    vera.finish(back, verdict=Verdict.ACCEPT)
    with pytest.raises(NotAllowed, match="last 10"):
        pipeline.unsubmit(ticket.ticket_id)


def test_a_lead_ends_a_lease_over_the_api(queue, pipeline, vera, request):
    batch = open_batch(pipeline, request, 1)
    ticket = vera.claim(batch_id=batch.batch_id)
    with pytest.raises(NotAllowed, match="only leads"):
        vera.end_lease(ticket)
    with queue.client("lea") as lea:
        (seen,) = lea.tickets(batch_id=batch.batch_id, state=State.LEASED)
        assert lea.end_lease(seen).state is State.OPEN
    with pytest.raises(LeaseLost):
        vera.heartbeat(ticket)


def test_how_far_batches_are_is_for_overseers(queue, pipeline, vera, request):
    batch = open_batch(pipeline, request, 1)  # a ticket of one that is done is gold
    for path in ("/api/batches", f"/api/batches/{batch.batch_id}"):
        assert [client._http.get(path).status_code for client in (vera, pipeline)] == [403, 200]


def test_a_payload_nested_without_end_is_refused(pipeline, ann, request):
    name = request.node.name
    pipeline.open_batch(name, [NewTicket(ticket_id=name, kind=Kind.TRACK, video_id="video-0", phase="1")])
    ticket = ann.claim(ticket_id=name)
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    act = NewOperation(operation_id=new_id(), kind="stroke", created_at="", frame_idx=0, payload=deep)
    with pytest.raises(ValueError, match="payload"):
        ann.append_operations(ticket, [act])


def test_the_figures_are_for_overseers_and_for_prometheus(queue, pipeline, vera, request):
    open_batch(pipeline, request, 1)
    with pytest.raises(NotAllowed, match="leads, admins"):
        vera.figures()
    time.sleep(FIGURES_S + 0.1)
    assert request.node.name[:60] in {batch.batch_id for batch in pipeline.figures().batches}
    assert httpx.get(f"{queue.url}/metrics").status_code == 401
    answer = pipeline._http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'masklets_\w+(\{\w+="[^"\n]*"(,\w+="[^"\n]*")*\})? [-+.0-9e]+', line) for line in samples)
    ours = f'masklets_tickets{{batch="{request.node.name[:60]}",kind="verify",state="open"}} 1'
    assert ours in samples and '"vera"' not in answer.text


def test_leads_manage_people_and_never_admins(queue):
    queue.accounts.add("boss", [Role.ADMIN])
    with queue.client("lea") as lea, queue.client("boss") as boss, queue.client("vera") as vera:
        http, post = lea._http, lea._http.post
        assert vera._http.get("/api/people").status_code == 403
        ned = {"name": "ned", "roles": ["verifier"], "skills": ["birds"], "password": PASSWORD}
        account = post("/api/people", json=ned).json()
        assert (account["roles"], account["skills"], account["tokens"]) == (["verifier"], ["birds"], [])
        for body in ({"name": "ned", "roles": ["admin"]}, {"name": "boss", "roles": ["verifier"]}):
            assert post("/api/people", json=body).status_code == 403
        assert post("/api/people/boss/disable", json={}).status_code == 403
        assert post("/api/people/boss/tokens", json={}).status_code == 403
        assert boss._http.post("/api/people", json={"name": "eve", "roles": ["admin"]}).status_code == 200
        issued = post("/api/people/ned/tokens", json={"scopes": ["read"], "expires_s": 3600}).json()
        listed = next(a for a in http.get("/api/people").json() if a["name"] == "ned")
        assert [t["token_id"] for t in listed["tokens"]] == [issued["token_id"]]
        bearer = {"Authorization": f"Bearer {issued['token']}"}
        assert httpx.get(f"{queue.url}/api/me", headers=bearer).json()["skills"] == ["birds"]
        assert http.delete(f"/api/people/ned/tokens/{issued['token_id']}").status_code == 204
        assert httpx.get(f"{queue.url}/api/me", headers=bearer).status_code == 401
        assert http.delete(f"/api/people/ned/tokens/{issued['token_id']}").status_code == 422
        login = {"name": "ned", "password": PASSWORD}
        cookie = httpx.post(f"{queue.url}/api/login", json=login).cookies
        assert post("/api/people/ned/disable", json={}).status_code == 204
        assert httpx.get(f"{queue.url}/api/me", cookies=cookie).status_code == 401
        assert httpx.post(f"{queue.url}/api/login", json=login).status_code == 401
        assert post("/api/people/ned/disable", json={"disabled": False}).status_code == 204
        assert httpx.post(f"{queue.url}/api/login", json=login).status_code == 200
        said = [(line["actor"], line["action"]) for line in http.get("/api/audit").json() if line["subject"] == "ned"]
        by_lea = [("lea", action) for action in ("disable", "revoke token", "issue token", "set person")]
        failed, logged_in = ("(nobody)", "fail to log in"), ("ned", "log in")
        assert said == [logged_in, ("lea", "enable"), failed, by_lea[0], logged_in, *by_lea[1:]]
        assert PASSWORD not in http.get("/api/audit").text and issued["token"] not in http.get("/api/audit").text


# --- the edges -------------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_while_it_arrives(queue, browser):
    def endless():
        for _ in range(SMALL_BODY // 65536 + 2):
            yield b" " * 65536

    declared = browser.post("/api/tickets/claim", content=b" " * (SMALL_BODY + 1))
    streamed = browser.post("/api/login", content=endless(), headers={"Content-Type": "application/json"})
    for answer in (declared, streamed):
        assert answer.status_code == 413 and "larger than" in answer.json()["error"]


def test_a_large_body_is_read_only_for_who_is_logged_in(queue, browser, ann):
    def parts():
        for _ in range(SMALL_BODY // 65536 + 2):
            yield b" " * 65536
        yield b"{"

    strangers = [{}, {"Authorization": "Bearer wrong"}, {"Cookie": f"{COOKIE}=wrong"}]
    known = [{"Authorization": ann._http.headers["Authorization"]}, {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}]
    for who in strangers + known:
        headers = {**who, "Content-Type": "application/json", "X-CSRF-Token": browser.headers["X-CSRF-Token"]}
        for content in (b" " * SMALL_BODY + b"{", parts()):  # of a length that is told, and not
            answer = httpx.post(f"{queue.url}/api/tickets/t/finish", content=content, headers=headers)
            expected = (401, "NotLoggedIn") if who in strangers else (422, "ValueError")  # the latter: it was parsed
            assert (answer.status_code, answer.json()["kind"]) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/api/videos/..%2f..%2fetc%2fpasswd",
        "/api/videos/%2e%2e/frames/0.jpg",
        "/api/videos/video-0/frames/-1.jpg",
        "/api/videos/video-0/frames/99999999999999999999.jpg",
        "/api/tickets/a%00b",
        "/web/..%2fapi.py",
        "/web/%2e%2e%2fapi.py",
        "/web/api.py",
        "/nowhere",
    ],
)
def test_no_path_reaches_the_file_system(browser, path):
    answer = browser.get(path)
    assert answer.status_code in (404, 422)
    assert set(answer.json()) == {"error", "kind"} and "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "claim_id"),
        ({"claim_id": "../x"}, "not a claim_id"),
        ({"claim_id": "c", "kinds": ["dance"]}, "kinds"),
    ],
)
def test_a_malformed_body_is_answered_with_one_line(browser, body, says):
    answer = browser.post("/api/tickets/claim", json=body)
    assert answer.status_code == 422 and says in answer.json()["error"]


@pytest.mark.parametrize("uri", ["sqlite", "postgres"], indirect=True)
def test_what_no_database_holds_is_refused(uri):
    database = Database(uri)
    store, headers = Store(database), {"Authorization": f"Bearer {add_people(database).issue_token('vera')}"}
    store.open_batch("b", tickets(1, frame_count=4))
    with serving(create_app(store, SyntheticMedia(8))) as url, httpx.Client(base_url=url, headers=headers) as http:
        ticket = http.post("/api/tickets/claim", json={"claim_id": "c"}).json()["ticket_id"]
        answer = http.post(f"/api/tickets/{ticket}/heartbeat", json={"token": 10**30})
        assert answer.status_code == 422 and len(answer.json()["error"]) < 100
        for seconds in ("NaN", "Infinity", "-1"):
            said = f'{{"operation_id": "n", "created_at": "", "verdict": "accept", "seconds": {seconds}}}'
            body = {"content": f'{{"token": 1, "outcome": {said}}}', "headers": {"Content-Type": "application/json"}}
            answer = http.post(f"/api/tickets/{ticket}/finish", **body)
            assert answer.status_code == 422 and "seconds" in answer.json()["error"]
        nul = {"operation_id": "o", "created_at": "\0", "verdict": "accept"}
        answer = http.post(f"/api/tickets/{ticket}/finish", json={"token": 1, "outcome": nul})
        assert answer.status_code in (200, 422)  # SQLite holds it
    database.close()


def test_a_masklet_that_is_no_masklet_is_refused(pipeline):
    bad = replace(candidate("m"), rle=(b"~~",) * 12)
    with pytest.raises(ValueError, match="masklet m"):
        pipeline.open_batch("bad", [NewTicket(ticket_id="bad", kind=Kind.VERIFY, video_id="video-0", masklet=bad)])


def test_every_answer_carries_the_security_headers(browser):
    for path in ("/", "/web/main.js", "/api/me", "/nowhere"):
        headers = browser.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_is_served_and_cached_by_its_content(browser):
    page = browser.get("/")
    assert "Masklet review" in page.text
    for name in ("main.js", "style.css", "rle.js", "mark.svg"):
        answer = browser.get(f"/web/{name}")
        assert answer.status_code == 200
        again = browser.get(f"/web/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304


def test_the_api_describes_itself(browser):
    api = browser.get("/api/openapi.json").json()
    assert {"Ticket", "Masklet", "Submission", "Batch"} <= set(api["components"]["schemas"])


# --- a queue out of reach --------------------------------------------------------------------------------------------


class Flaky(httpx.HTTPTransport):
    """Loses the answer of every other request: the queue has acted, the client does not know."""

    def __init__(self):
        super().__init__()
        self.requests = 0

    def handle_request(self, request):
        response = super().handle_request(request)
        self.requests += 1
        if self.requests % 2:
            response.read()
            response.close()
            raise httpx.ReadError("the answer was lost")
        return response


def test_lost_answers_change_nothing(queue, pipeline, request):
    name = request.node.name
    token = queue.accounts.issue_token("vera")
    with QueueClient(queue.url, token=queue.accounts.issue_token("pipeline"), transport=Flaky()) as client:
        client.open_batch(name, tickets(3, frame_count=4, prefix=name))
    with QueueClient(queue.url, token=token, transport=Flaky()) as client:
        seen = []
        while ticket := client.claim(batch_id=name):
            seen.append((ticket.ticket_id, ticket.lease_token))
            client.heartbeat(ticket)
            client.finish(ticket, verdict=Verdict.ACCEPT)
    assert [token for _, token in seen] == [1, 1, 1]
    result = pipeline.batch_result(name)
    assert (result.batch.total, len(result.settled), len(result.operations)) == (3, 3, 3)


def test_a_queue_that_never_answers_is_an_error_in_the_end():
    with QueueClient("http://127.0.0.1:9", token="t", patience_s=0.3) as client:
        with pytest.raises(QueueUnreachable, match="127.0.0.1:9"):
            client.stats()


def test_a_client_whose_login_does_not_stick_is_told_so():
    """As over plain HTTP, where a client sends no Secure cookie."""
    asked = []

    def answer(request):
        asked.append(request.url.path)
        if request.url.path == "/api/login":
            return httpx.Response(200, json={"csrf": "c"})
        assert len(asked) < 20, "for ever"
        return httpx.Response(401, json={"kind": "NotLoggedIn", "error": "log in first"})

    known = {"username": "vera", "password": PASSWORD}
    with QueueClient("http://queue", **known, transport=httpx.MockTransport(answer)) as client:
        for logins in (2, 3):  # one to begin with, and one more a call
            with pytest.raises(NotLoggedIn, match="log in first"):
                client.stats()
            assert asked.count("/api/login") == logins


def test_a_client_needs_exactly_one_way_to_log_in():
    for wrong in ({}, {"username": "vera"}, {"token": "t", "username": "vera", "password": "p"}):
        with pytest.raises(ValueError, match="token, or"):
            QueueClient("http://127.0.0.1:9", **wrong)
