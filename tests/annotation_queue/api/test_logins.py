"""Logging in and out, as a browser does."""

from __future__ import annotations

import httpx

from annotation_queue.api.asking import COOKIE
from annotation_queue.client import new_id
from tests.annotation_queue.synthetic_queue import PASSWORD


def test_a_cookie_needs_its_csrf_header_and_a_token_does_not(queue, browser):
    body = {"claim_id": new_id()}
    assert browser.post("/api/tickets/claim", json=body).status_code in (200, 204)
    for wrong in ("", "x", "é".encode()):
        answer = browser.post("/api/tickets/claim", json=body, headers={b"X-CSRF-Token": wrong})
        assert (answer.status_code, answer.json()["kind"]) == (403, "NotAllowed")
    assert browser.get("/api/me", headers={"X-CSRF-Token": ""}).status_code == 200


def test_scripts_and_other_sites_cannot_use_the_cookie(queue):
    answer = httpx.post(f"{queue.url}/api/login", json={"name": "vera", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith(f"{COOKIE}=") and "httponly" in cookie and "samesite=strict" in cookie
    assert PASSWORD not in answer.text


def test_logging_out_ends_the_login(browser):
    assert browser.get("/api/me").json()["name"] == "vera"
    cookie = f"{COOKIE}={browser.cookies[COOKIE]}"
    answer = browser.post("/api/logout")
    assert answer.status_code == 204
    assert answer.headers["clear-site-data"] == '"cache"', "unsent work stays in the browser's database"
    assert browser.get("/api/me", headers={"Cookie": cookie}).status_code == 401
