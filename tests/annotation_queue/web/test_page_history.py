"""Looking back: one's finished tickets, links that open a ticket at a frame, and names instead of ids."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotation_queue.records import State
from annotation_queue.tickets.batches import set_name
from storage.records import Verdict
from tests.annotation_queue.annotators import VERA, claim, finish
from tests.annotation_queue.browsing import FRAMES, Page
from tests.annotation_queue.synthetic_queue import centre, track_ticket, verify_tickets


def looking(page):
    """Wait for a ticket that is only looked at."""
    page.shows("work")
    page.tab.wait_for_selector("#back-to-work")
    page.until(page.ticket)


def test_a_finished_ticket_opens_from_the_history_to_be_looked_at(verifying, tickets):
    page = verifying(3)
    page.press("x", "9")
    page.until(lambda: tickets.ticket("ticket-0000").state is State.DONE and page.text("#save") == "Saved")
    page.paused_at_start()
    assert page.ahead() == "ticket-0002"
    held = {t.ticket_id: t.lease_token for t in tickets.find(state=State.LEASED)}
    page.tab.click("#open-history")
    page.until(lambda: page.tab.locator("#finished li").count() == 1 and "video-0.mp4" in page.text("#finished li"))
    assert "Verify: Reject, something else" in page.text("#finished li")
    page.until(lambda: page.tab.evaluate("document.querySelector('#finished img').naturalWidth") == 96)
    page.tab.click("#finished button")
    looking(page)
    assert "Reject by vera: something else" in page.text("#answered")
    for key in ("a", "x", "Backspace", "w", "e", "u"):  # no key changes anything
        page.press(key)
    page.press("Home", "ArrowRight")
    page.at(4)
    assert page.tab.locator(".reason").count() == 0 and page.tab.is_visible("#back-to-work")
    assert {t.ticket_id: t.lease_token for t in tickets.find(state=State.LEASED)} == held, "no other ticket is claimed"
    assert tickets.ticket("ticket-0000").state is State.DONE
    page.press("Enter")
    page.until(lambda: page.tab.locator("#verdict-accept").count() == 1)
    page.press("a")
    page.until(lambda: tickets.ticket("ticket-0001").state is State.DONE)


def test_a_correction_opens_with_the_masks_that_were_submitted(correcting, tickets):
    page = correcting(0)
    page.press("b")
    page.drag((300, 200), (360, 220))
    page.settled()
    drawn = page.look()["mask"]
    page.press("Enter", "Enter")
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)
    page.shows("message")
    page.tab.click("#open-history")
    page.tab.click("#finished button")
    looking(page)
    page.press("Home")
    assert page.at(0)["mask"] == drawn and "Submitted by ann" in page.text("#answered")
    page.drag((100, 100), (140, 120))
    page.settled()
    assert page.tab.is_hidden("#tools") and [o.kind for o in tickets.operations("track-1")] == ["stroke", "submit"]
    page.press("Escape")
    page.shows("message")


def test_a_ticket_that_is_opened_while_nothing_is_left_stays_on_screen(verifying, tickets):
    page = verifying(1)
    held, free = [], []  # the page asks how much is left before it says that nothing is
    page.tab.route("**/api/stats", lambda route: route.continue_() if free else held.append(route))
    page.press("a")
    page.until(lambda: tickets.ticket("ticket-0000").state is State.DONE and held)
    page.tab.click("#open-history")
    page.tab.click("#finished button")
    looking(page)
    free.append(True)
    for route in held:
        route.continue_()
    page.until(lambda: "1 done in the last hour" in page.text("#left"))
    assert page.tab.get_attribute("body", "data-view") == "work" and page.ticket() == "ticket-0000"


def test_the_history_comes_page_by_page(open_page, tickets):
    tickets.open_batch("b", verify_tickets(30, frame_count=8))
    done = [finish(tickets, VERA, Verdict.ACCEPT).ticket.ticket_id for _ in range(30)]
    page = open_page()
    page.log_in()
    page.shows("message")
    page.tab.click("#open-history")
    page.until(lambda: page.tab.locator("#finished li").count() == 24 and page.tab.is_visible("#more-history"))
    page.tab.click("#more-history")
    page.until(lambda: page.tab.locator("#finished li").count() == 30 and page.tab.is_hidden("#more-history"))
    sources = page.tab.evaluate("[...document.querySelectorAll('#finished img')].map((i) => i.src.split('/').at(-2))")
    assert sources == done[::-1]


def test_a_link_opens_a_finished_ticket_at_a_frame(open_page, tickets):
    tickets.open_batch("b", verify_tickets(2, FRAMES))
    finish(tickets, VERA, Verdict.ACCEPT)
    page = open_page()
    page.tab.goto(f"{page.url}/#ticket=ticket-0000&frame=50")
    page.log_in()
    looking(page)
    page.at(48)  # the nearest annotated frame
    assert tickets.find(state=State.LEASED) == [], "looking claims nothing"
    page.press("Escape")
    page.paused_at_start()
    assert page.tab.evaluate("location.hash") == "", "another ticket is on screen"


def test_keys_of_the_picture_work_where_one_only_looks_and_no_lease_is_counted(open_page, tickets):
    tickets.open_batch("b", verify_tickets(2, FRAMES))
    finish(tickets, VERA, Verdict.ACCEPT)
    page = open_page()
    page.tab.goto(f"{page.url}/#ticket=ticket-0000&frame=8")
    page.log_in()
    looking(page)
    page.at(8)
    assert page.tab.inner_text("#back-to-work kbd") == "⏎"
    page.tab.evaluate(
        """async () => {
          const { session } = await import("/web/shared/session.js");
          const { showLease } = await import("/web/ticket/bar.js");
          session.current.renewedAt = -1e9;
          showLease();
        }"""
    )
    assert page.tab.is_hidden("#lease")
    page.tab.click("#view")
    page.press("Escape")
    assert page.tab.is_hidden("#view-menu") and page.tab.is_visible("#back-to-work")
    page.tab.keyboard.down("d")
    page.press("ArrowRight")
    page.tab.keyboard.up("d")
    assert page.named() == 8, "the arrow moved the picture"
    page.press("ArrowRight")
    page.at(12)


def test_a_link_opens_the_ticket_that_one_holds_to_work_on(verifying, tickets):
    page = verifying(3)
    assert page.ahead() == "ticket-0001"
    page.tab.evaluate("location.hash = '#ticket=ticket-0000&frame=20'")
    page.at(20)
    page.tab.evaluate("location.hash = '#ticket=ticket-0001&frame=40'")
    page.at(40)
    page.until(lambda: page.tab.locator("#verdict-accept").count() == 1)
    page.press("a")
    page.until(lambda: tickets.ticket("ticket-0001").state is State.DONE)
    page.until(lambda: page.ticket() == "ticket-0000")  # the one from before comes again
    page.press("a")
    page.until(lambda: tickets.ticket("ticket-0000").state is State.DONE)


def test_a_reload_at_a_link_takes_up_that_ticket(verifying):
    page = verifying(3)
    assert page.ahead() == "ticket-0001"
    page.tab.evaluate("location.hash = '#ticket=ticket-0001&frame=40'")
    page.at(40)
    page.tab.reload()
    page.until(lambda: page.ticket() == "ticket-0001")
    page.at(40)
    assert page.tab.locator("#verdict-accept").count() == 1 and "video-1" in page.text("#facts")


def test_a_ticket_that_another_tab_holds_can_only_be_looked_at(verifying, tickets):
    page = verifying(2)
    second = Page(page.context, f"{page.url}/#ticket=ticket-0000&frame=8")
    looking(second)
    assert "another tab" in second.text("#notice")
    assert second.problems == []


@pytest.mark.parametrize("named", ["ticket-0001", "none", "../../etc", ""])
def test_a_link_to_what_one_may_not_see_says_so_and_work_goes_on(open_page, tickets, named):
    tickets.open_batch("b", verify_tickets(1, FRAMES))
    page = open_page()
    page.tab.goto(f"{page.url}/#ticket={named}")
    page.log_in()
    page.paused_at_start()
    assert page.tab.locator("#verdict-accept").count() == 1
    if named in ("ticket-0001", "none"):
        page.until(lambda: f"ticket {named} is not in vera's hands" in page.text("#notice"))


def test_a_lead_looks_at_any_ticket_and_writes_to_its_holder(correcting, open_page, tickets):
    page = correcting(0)
    page.press("b")
    page.drag((300, 200), (360, 220))
    page.settled()
    lead = open_page()
    lead.log_in("lea")
    lead.shows("message")
    lead.tab.evaluate("location.hash = '#ticket=track-1&frame=0'")
    looking(lead)
    assert "In the hands of ann" in lead.text("#answered")
    assert lead.at(0)["mask"] == page.look()["mask"], "what she has drawn so far"
    lead.press("Shift+C")
    lead.tab.fill("#comment-text", "good so far")
    lead.press("Control+Enter")
    lead.until(lambda: lead.text("#save") == "Saved")
    assert tickets.ticket("track-1").leased_by == "ann"
    page.press("Shift+C")
    page.until(lambda: "good so far" in page.text("#thread"))


def test_the_link_to_the_frame_on_screen_is_copied(verifying):
    page = verifying()
    page.press("ArrowRight", "ArrowRight")
    page.at(8)
    page.press("Shift+C")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.tab.click("#comment-link .copy")
    page.until(lambda: "✓" in page.text("#comment-link"))
    assert page.tab.evaluate("navigator.clipboard.readText()") == f"{page.url}/#ticket=ticket-0000&frame=8"


def test_names_stand_for_ids_which_are_their_titles(open_page, tickets):
    (ticket,) = verify_tickets(1, FRAMES)
    tickets.open_batch("0123456789abcdef", [replace(ticket, ticket_id="fedcba9876543210")])
    set_name(tickets.database, "0123456789abcdef", "kitchen")
    page = open_page()
    page.log_in("lea")
    page.paused_at_start()
    page.until(lambda: page.text("#batch").startswith("kitchen · "))
    assert page.tab.get_attribute("#batch .known", "title") == "0123456789abcdef"
    page.until(lambda: "video-0.mp4" in page.text("#facts"))
    assert page.tab.get_attribute("#facts .known", "title") == "video-0"
    lead = Page(page.context, f"{page.url}/web/lead.html")
    lead.until(lambda: "kitchen · " in lead.text("#batches") and "kitchen · " in lead.text("#leased"))
    lead.until(lambda: "video-0.mp4" in lead.text("#leased"))
    lead.until(lambda: "0123456789abcdef" not in lead.text("main"))
    assert "fedcba98…" in lead.text("#leased") and "fedcba9876543210" not in lead.text("main")
    lead.until(lambda: lead.tab.evaluate("document.querySelector('#leased img').naturalWidth") == 96)
    lead.tab.click("#leased .copy >> nth=0")
    lead.until(lambda: "✓" in lead.text("#leased"))
    assert lead.problems == []


def test_looking_at_a_ticket_counts_as_no_work_on_it(open_page, tickets):
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES)])
    lead = open_page()
    lead.tab.goto(f"{lead.url}/#ticket=track-1")
    lead.log_in("lea")
    looking(lead)
    lead.point(*centre(0))
    lead.tab.evaluate("dispatchEvent(new Event('pagehide'))")
    assert lead.tab.evaluate("localStorage.getItem('masklets.times')") is None
    assert tickets.operations("track-1") == [] and claim(tickets, VERA) is None
