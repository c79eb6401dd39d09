"""The page in a real browser: logging in and out."""

from __future__ import annotations

from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import PASSWORD, verify_tickets


def test_a_wrong_password_is_reported_and_the_right_one_works_after_it(open_page, tickets):
    page = open_page()
    page.log_in(password="wrong password")
    page.until(lambda: "wrong" in page.text("#login-error"))
    assert page.tab.is_hidden("#open-history"), "of nobody"
    page.log_in()
    page.shows("message")
    page.tab.click("#log-out")
    page.shows("login")


def test_a_double_click_logs_in_once(open_page, tickets):
    """A second log-in would begin the work anew, and give the ticket on screen back."""
    tickets.open_batch("b", verify_tickets(2, FRAMES))
    page = open_page()
    page.shows("login")
    asked = []

    def hold(route):
        asked.append(route) if route.request.method == "POST" else route.continue_()

    page.tab.route("**/api/login", hold)
    page.tab.fill("#login-name", "vera")
    page.tab.fill("#login-password", PASSWORD)
    page.tab.dblclick("#login-form [type=submit]")
    page.until(lambda: asked)
    page.press("Enter")  # the button has the focus
    for route in asked:
        route.continue_()
    page.paused_at_start()
    page.ahead()
    assert len(asked) == 1
    assert tickets.ticket(page.ticket()).leased_by == "vera"


def test_a_failed_log_out_is_shown(verifying, tickets):
    page = verifying()
    page.tab.route("**/api/logout", lambda route: route.abort())
    page.tab.click("#log-out")
    page.until(lambda: "still logged in" in page.text("#message"))
    page.tab.unroute("**/api/logout")
    page.press("Enter")
    page.shows("login")


def test_the_form_of_the_log_in_appears_once_something_listens_to_it(open_page):
    """Before, the browser would submit it by itself, with the password in the address."""
    page = open_page()
    page.shows("login")
    modules = []
    page.tab.route("**/web/ticket/main.js", lambda route: modules.append(route))
    page.tab.route("**/web/styles/style.css", lambda route: route.abort())
    page.tab.reload(wait_until="commit")
    page.until(lambda: modules and page.tab.query_selector("#login-form"))
    assert page.tab.is_hidden("#login-form")
    modules[0].continue_()
    page.log_in()
    page.shows("message")


def test_what_the_queue_refuses_after_a_log_out_does_not_ask_to_log_in_on_the_page_that_is_left(verifying):
    """Whoever began to type in that form would lose it when the page is loaded anew."""
    page = verifying(2)
    claims, log_outs = [], []
    page.ahead()
    page.tab.route("**/api/tickets/claim", lambda route: claims.append(route))
    page.press("a")
    page.until(lambda: claims)  # the page has the second ticket, and asks for one after it
    page.tab.route("**/api/logout", lambda route: log_outs.append((route, route.fetch())))
    page.tab.click("#log-out")
    page.until(lambda: log_outs)
    page.tab.unroute("**/api/tickets/claim")
    with page.tab.expect_response("**/api/tickets/claim") as refused:
        claims[0].continue_()
    assert refused.value.status == 401
    page.tab.evaluate("fetch('/api/me').then((answer) => answer.status)")  # what came before it has been dealt with
    assert not page.tab.is_visible("#login-form")
    route, answer = log_outs[0]
    route.fulfill(response=answer)
    page.shows("login")
