"""Logging in and out, as a browser does."""

from __future__ import annotations

import json

import httpx
import pytest

from annotation_queue.api.asking import COOKIE
from annotation_queue.client import new_id
from annotation_queue.people.accounts import token_id_of
from annotation_queue.records import Scope
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


@pytest.mark.parametrize("scopes", [None, [Scope.READ]])
def test_logging_out_revokes_the_token_that_asks_and_no_other_credential(queue, browser, scopes):
    token, other = queue.accounts.issue_token("vera", scopes), queue.accounts.issue_token("vera")
    with httpx.Client(base_url=queue.url, headers={"Authorization": f"Bearer {token}"}) as program:
        assert program.get("/api/me").status_code == 200
        assert program.post("/api/logout", headers={"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}).status_code == 204
        assert program.get("/api/me").status_code == 401
    line = queue.accounts.audited(limit=1)[0]
    assert (line.actor, line.action) == ("vera", "revoke token") and token_id_of(token) in line.detail
    assert browser.get("/api/me").status_code == 200
    assert httpx.get(f"{queue.url}/api/me", headers={"Authorization": f"Bearer {other}"}).status_code == 200


def test_a_hundred_wrong_guesses_are_slowed_down_and_say_for_how_long(queue):
    wrong = {"name": "victor", "password": "wrong"}
    answers = [httpx.post(f"{queue.url}/api/login", json=wrong) for _ in range(100)]
    checked = [answer for answer in answers if answer.status_code == 401]
    early = [answer for answer in answers if answer.status_code == 429]
    assert len(checked) + len(early) == 100 and early, "some are rejected before the password is checked"
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in early)
    assert f"wait {early[-1].headers['retry-after']} s" in early[-1].json()["error"]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_form_of_another_site_logs_nobody_in(queue, content_type):
    body = json.dumps({"name": "vera", "password": PASSWORD}).encode()
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = httpx.post(f"{queue.url}/api/login", content=body, headers=headers)
    assert answer.status_code == 422 and "set-cookie" not in answer.headers


def test_the_keys_of_the_page_belong_to_the_person_and_not_to_the_browser(queue, browser):
    assert browser.get("/api/me").json()["keys"] == {}
    assert browser.put("/api/me/keys", json={"keys": {"accept": "j", "reject": "Shift+J"}}).status_code == 204
    again = httpx.post(f"{queue.url}/api/login", json={"name": "vera", "password": PASSWORD})  # another browser
    assert again.json()["keys"] == browser.get("/api/me").json()["keys"] == {"accept": "j", "reject": "Shift+J"}
    ann = {"Authorization": f"Bearer {queue.accounts.issue_token('ann')}"}
    assert httpx.get(f"{queue.url}/api/me", headers=ann).json()["keys"] == {}
    for wrong in ({"a" * 41: "j"}, {"accept": "j" * 41}, {"accept": ""}, {f"action-{n}": "j" for n in range(101)}):
        assert browser.put("/api/me/keys", json={"keys": wrong}).status_code == 422
    assert browser.put("/api/me/keys", json={"keys": {}}).status_code == 204
    assert browser.get("/api/me").json()["keys"] == {}
