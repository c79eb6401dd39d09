"""The limits of bodies, and the headers of every answer."""

from __future__ import annotations

import httpx

from annotation_queue.api.asking import COOKIE
from annotation_queue.api.edge import SMALL_BODY


def test_a_body_over_its_limit_is_refused_while_it_arrives(queue, browser):
    def endless():
        for _ in range(SMALL_BODY // 65536 + 2):
            yield b" " * 65536

    declared = browser.post("/api/tickets/claim", content=b" " * (SMALL_BODY + 1))
    streamed = browser.post("/api/login", content=endless(), headers={"Content-Type": "application/json"})
    for answer in (declared, streamed):
        assert answer.status_code == 413 and "larger than" in answer.json()["error"]


def test_a_large_body_is_read_only_from_logged_in_people(queue, browser, ann):
    def parts():
        for _ in range(SMALL_BODY // 65536 + 2):
            yield b" " * 65536
        yield b"{"

    strangers = [{}, {"Authorization": "Bearer wrong"}, {"Cookie": f"{COOKIE}=wrong"}]
    known = [{"Authorization": ann._http.headers["Authorization"]}, {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}]
    for who in strangers + known:
        headers = {**who, "Content-Type": "application/json", "X-CSRF-Token": browser.headers["X-CSRF-Token"]}
        for content in (b" " * SMALL_BODY + b"{", parts()):  # with a declared length, and without
            answer = httpx.post(f"{queue.url}/api/tickets/t/finish", content=content, headers=headers)
            expected = (
                (401, "NotLoggedIn") if who in strangers else (422, "ValueError")
            )  # 422: the body was read and parsed
            assert (answer.status_code, answer.json()["kind"]) == expected


def test_every_answer_carries_the_security_headers(browser):
    for path in ("/", "/web/index.html", "/api/me", "/nowhere"):
        headers = browser.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
