"""The client, and a queue that it cannot reach."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from annotation_queue.client import QueueClient
from annotation_queue.errors import NotLoggedIn, QueueUnreachable, WrongPassword
from annotation_queue.records import NewGold
from storage.records import Verdict
from tests.annotation_queue.api.running import running
from tests.annotation_queue.synthetic_queue import PASSWORD, verify_tickets


@pytest.fixture(scope="module")
def queue(tmp_path_factory):
    with running(tmp_path_factory.mktemp("queue")) as found:
        yield found


def test_a_client_uses_no_proxy(queue, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with queue.client("vera") as client:
        assert client.stats()


def test_a_client_logs_in_with_a_password_and_again_when_its_login_ends(queue):
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


class Flaky(httpx.HTTPTransport):
    """Loses the answer to every other request, after the queue has acted."""

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


def test_repeated_requests_change_nothing(queue):
    name = "lost-answers"
    token = queue.accounts.issue_token("vera")
    with QueueClient(queue.url, token=queue.accounts.issue_token("pipeline"), transport=Flaky()) as client:
        client.open_batch(name, verify_tickets(3, frame_count=4, prefix=name))
    with QueueClient(queue.url, token=token, transport=Flaky()) as client:
        seen = []
        while ticket := client.claim(batch_id=name):
            seen.append((ticket.ticket_id, ticket.lease_token))
            client.heartbeat(ticket)
            client.finish(ticket, verdict=Verdict.ACCEPT)
    assert [token for _, token in seen] == [1, 1, 1]
    with queue.client("pipeline") as pipeline:
        result = pipeline.batch_result(name)
        some = pipeline.batch_result(name, [f"video-{n}" for n in range(1, 120)])
        assert pipeline.close_settled(name) == [] == pipeline.settled_videos(), "it is drained"
    assert (result.batch.total, len(result.settled), len(result.operations)) == (3, 3, 3)
    assert [one.video_id for one in some.settled] == ["video-1", "video-2"] and len(some.operations) == 2


def test_a_queue_that_never_answers_raises_an_error_after_the_patience():
    with QueueClient("http://127.0.0.1:9", token="t", patience_s=0.3) as client:
        with pytest.raises(QueueUnreachable, match="127.0.0.1:9"):
            client.stats()


def test_a_client_whose_new_login_is_rejected_raises_the_error():
    """This happens over plain HTTP, where a client sends no Secure cookie."""
    asked = []

    def answer(request):
        asked.append(request.url.path)
        if request.url.path == "/api/login":
            return httpx.Response(200, json={"csrf": "c"})
        assert len(asked) < 20, "the client logs in without end"
        return httpx.Response(401, json={"kind": "NotLoggedIn", "error": "log in first"})

    network = httpx.MockTransport(answer)
    with QueueClient("http://queue", username="vera", password=PASSWORD, transport=network) as client:
        for logins in (2, 3):  # the first call logs in twice, the next one once more
            with pytest.raises(NotLoggedIn, match="log in first"):
                client.stats()
            assert asked.count("/api/login") == logins


def test_a_client_takes_a_token_or_a_password_but_not_both():
    for token, username, password in ((None, None, None), (None, "vera", None), ("t", "vera", "p")):
        with pytest.raises(ValueError, match="token, or"):
            QueueClient("http://127.0.0.1:9", token=token, username=username, password=password)


class Counting(httpx.HTTPTransport):
    """Counts the bytes of each request's body."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def handle_request(self, request):
        self.sizes.append(len(request.read()))
        return super().handle_request(request)


def test_many_tickets_are_sent_in_several_requests(queue, monkeypatch):
    monkeypatch.setattr("annotation_queue.client.CHUNK", 4)
    monkeypatch.setattr("annotation_queue.client.CHUNK_BYTES", 20_000)
    small, large = verify_tickets(10, frame_count=8, prefix="small"), verify_tickets(3, frame_count=400, prefix="large")
    gold = [NewGold(ticket=replace(t, ticket_id=f"gold-{t.ticket_id}"), expected=Verdict.ACCEPT) for t in small + large]
    sent = Counting()
    token = queue.accounts.issue_token("pipeline")
    with QueueClient(queue.url, token=token, transport=sent) as client:
        assert client.open_batch("several", small + large).total == 13
        assert len(sent.sizes) == 5  # 4 + 4 + 2 small ones and a large one, then each large one alone
        sent.sizes.clear()
        assert client.add_gold("several", gold) == 13 and len(sent.sizes) == 5
        assert client.add_gold("several", gold) == 0
        assert client.open_batch("empty", []).sealed
