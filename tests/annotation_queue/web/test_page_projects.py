"""Projects at the pages: the name in the bar, the choice between one's projects, and the filter of the leads' list."""

from __future__ import annotations

import pytest

from storage.records import Verdict
from tests.annotation_queue.annotators import VERA, finish
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import verify_tickets


@pytest.fixture
def opened(tickets, members):
    """Two projects of three tickets each. Vera belongs to both, Victor to one."""
    members |= {"cats": frozenset({"vera", "lea"}), "dogs": frozenset({"vera", "victor", "lea"})}
    for name in members:
        tickets.open_batch(f"b-{name}", verify_tickets(3, FRAMES, prefix=name), project=name)


def options(page):
    return page.tab.locator("#projects option").all_inner_texts()


def test_the_bar_names_the_project_of_the_ticket_and_offers_a_choice(open_page, opened, tickets):
    page = open_page()
    page.log_in()
    page.paused_at_start()
    assert page.text("#project") == "cats" and options(page) == ["All projects", "cats", "dogs"]
    page.tab.select_option("#projects", "dogs")
    page.until(lambda: page.text("#project") == "dogs")
    page.until(lambda: not [t for t in tickets.find(seen_by=VERA) if t.project == "cats"])
    page.tab.reload()
    page.paused_at_start()
    assert page.text("#project") == "dogs" and page.tab.input_value("#projects") == "dogs"


def test_after_the_last_ticket_of_the_chosen_project_nothing_of_another_comes(open_page, opened, tickets):
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.tab.select_option("#projects", "dogs")
    page.until(lambda: page.text("#project") == "dogs")
    for _ in range(3):
        page.paused_at_start()
        page.press("a")
    page.until(lambda: page.tab.get_attribute("body", "data-view") == "message")
    assert {t.project for t in tickets.find(limit=50) if t.finished_by == "vera"} == {"dogs"}


def test_the_sheet_keeps_to_the_chosen_project_and_offers_no_choice(open_page, tickets, members):
    """Another choice would give all tickets of the sheet back, and they would stay on screen."""
    members |= {"cats": frozenset({"vera"}), "dogs": frozenset({"vera"})}
    for name in members:
        tickets.open_batch(f"b-{name}", verify_tickets(3, 40, prefix=name), project=name)  # short ones are calm
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.tab.select_option("#projects", "dogs")
    page.until(lambda: page.text("#project") == "dogs")
    assert page.ahead() == "dogs-0001"
    claims = []
    page.tab.on("request", lambda request: claims.append(request) if request.url.endswith("/claim") else None)
    page.press("Shift+S")
    page.shows("sheet")
    page.until(lambda: len(claims) >= 2)  # for the third ticket, and for one more
    assert {claim.post_data_json.get("project") for claim in claims} == {"dogs"}
    assert page.tab.is_hidden("#projects")
    page.press("Escape")
    page.shows("work")
    assert page.tab.is_visible("#projects")


def test_a_person_of_one_project_has_no_choice(open_page, opened):
    page = open_page()
    page.log_in("victor")
    page.paused_at_start()
    assert page.text("#project") == "dogs" and page.tab.is_hidden("#projects")


def test_without_projects_the_bar_is_as_before(open_page, tickets):
    tickets.open_batch("b", verify_tickets(1, FRAMES))
    page = open_page()
    page.log_in()
    page.paused_at_start()
    assert page.tab.is_hidden("#projects") and page.tab.is_hidden("#project")


def test_leads_filter_their_list_and_see_figures_by_project(open_page, opened, tickets):
    finish(tickets, VERA, Verdict.ACCEPT)
    page = open_page()
    page.log_in("lea")
    page.until(lambda: page.tab.get_attribute("body", "data-view") in ("work", "message"))
    page.tab.goto(f"{page.url}/web/browser.html#project=dogs")
    page.until(lambda: page.tab.locator(".card-of").count() == 3)
    names = page.tab.locator(".card-of").evaluate_all("cards => cards.map(card => card.id)")
    assert all("dogs" in name for name in names)
    assert page.tab.input_value("select[name=project]") == "dogs"
    page.tab.goto(f"{page.url}/web/lead.html")
    page.tab.get_by_role("radio", name="Project").click()
    page.until(lambda: page.text("#figures table tbody tr td").startswith(("cats", "dogs")))
    page.tab.goto(f"{page.url}/web/release.html")
    page.until(lambda: "that is about all projects together" in page.text("#error"))
    page.tab.get_by_role("link", name="Tickets").click()
    page.until(lambda: page.tab.url.endswith("/web/browser.html"))
