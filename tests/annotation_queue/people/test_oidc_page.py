"""The page with an OpenID Connect provider, in a browser."""

from __future__ import annotations

from contextlib import ExitStack

import httpx
import pytest
from playwright.sync_api import Browser

from annotation_queue.api.asking import COOKIE
from annotation_queue.api.logins import FLOW_COOKIE
from annotation_queue.people.accounts import Accounts
from tests.annotation_queue.browsing import Page

pytestmark = pytest.mark.filterwarnings("ignore:get_jwt_config:DeprecationWarning")  # from oidc-provider-mock


class Tabs:
    """Opens tabs at one queue, each as a browser of its own."""

    def __init__(self, browser: Browser, url: str, accounts: Accounts, stack: ExitStack) -> None:
        self.accounts = accounts
        self._browser, self._url, self._stack = browser, url, stack

    def __call__(self, path: str = "/") -> Page:
        context = self._browser.new_context(viewport={"width": 1280, "height": 720})
        context.set_default_timeout(15_000)
        context.route("**://cdn.jsdelivr.net/**", lambda route: route.abort())  # the provider's style sheet
        self._stack.callback(context.close)
        return Page(context, self._url + path)


@pytest.fixture
def open_page(chromium, queue, honest):
    """Opens tabs at a queue. The provider is another site for the browser: localhost instead of 127.0.0.1."""
    url, accounts = queue(honest)
    with ExitStack() as stack:
        yield Tabs(chromium, url, accounts, stack)


def log_in_elsewhere(page, name):
    page.tab.click("#login-elsewhere:visible")
    page.tab.fill("input[name=sub]", f"subject-of-{name}")
    page.tab.press("input[name=sub]", "Enter")


def test_the_login_button_logs_in_and_a_reload_keeps_the_login(open_page):
    page = open_page()
    page.shows("login")
    page.tab.wait_for_selector("#login-elsewhere:visible")
    assert page.text("#login-elsewhere") == "Log in with localhost"
    log_in_elsewhere(page, "vera")
    page.shows("work")
    assert page.text("#who") == "vera" and page.tab.evaluate("location.href") == page.url
    page.tab.reload()
    page.shows("work")
    assert page.text("#who") == "vera"
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert cookies[COOKIE]["sameSite"] == "Strict" and cookies[COOKIE]["httpOnly"] and FLOW_COOKIE not in cookies
    page.tab.click("#log-out")
    page.shows("login")
    assert page.problems == []


def test_a_link_to_a_ticket_survives_the_login(open_page):
    page = open_page("/#ticket=no-ticket-of-hers&frame=8")
    page.shows("login")
    log_in_elsewhere(page, "vera")
    page.shows("work")
    page.until(lambda: "ticket no-ticket-of-hers is not in" in page.text("#notice"))
    assert page.problems == []


def test_an_answer_given_after_the_login_ended_is_sent_after_the_next_login(open_page):
    page = open_page()
    log_in_elsewhere(page, "vera")
    page.shows("work")
    page.until(lambda: page.named() >= 0)
    open_page.accounts.revoke_tokens("vera")
    page.press("a")
    page.shows("login")
    log_in_elsewhere(page, "vera")
    page.shows("work")
    bearer = {"Authorization": f"Bearer {open_page.accounts.issue_token('lea')}"}

    def done():
        return httpx.get(f"{page.url}api/tickets?state=done", headers=bearer).json()

    page.until(lambda: [ticket["verdict"] for ticket in done()] == ["accept"])
    assert page.problems == []


def test_a_rejected_person_sees_the_reason_and_can_use_a_password(open_page):
    page = open_page()
    page.shows("login")
    log_in_elsewhere(page, "stranger")
    page.shows("login")
    page.until(lambda: page.text("#login-error") == "there is no account stranger here: ask an admin to add it")
    assert page.tab.evaluate("location.href") == page.url  # a reload does not try the code again
    page.log_in("vera")
    page.shows("work")
    assert page.problems == []


def test_a_link_with_the_answer_to_another_persons_login_logs_nobody_in(open_page):
    page = open_page("/?state=mallory&code=hers")
    page.shows("login")
    page.until(lambda: "begun elsewhere" in page.text("#login-error"))
