"""Small windows, and browser zoom, which makes them small: every control can be reached, and nothing covers it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from annotation_queue.tickets.batches import set_name
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import track_ticket, verify_tickets
from tests.annotation_queue.web.test_page_labels import rules

# Window sizes in CSS px: 1280×720 and 1920×1080 at a zoom of 200 %, a narrow and a low window, and at 100 %.
SIZES = [(640, 360), (960, 540), (700, 900), (1100, 420), (1199, 700), (1280, 720), (1920, 1080), (3840, 2160)]

# The controls that cannot be clicked where they are drawn, after scrolling to them.
HIDDEN = """
() => {
  const holder = document.querySelector("dialog[open], :popover-open") ?? document.body;
  const controls = [...holder.querySelectorAll("button, a, input, summary, canvas#timeline")];
  const found = [];
  for (const control of controls) {
    if (!control.checkVisibility({ visibilityProperty: true })) continue;
    control.scrollIntoView({ block: "nearest", inline: "nearest" });
    const { left, top, width, height } = control.getBoundingClientRect();
    const at = document.elementFromPoint(left + width / 2, top + height / 2);
    const ownLabel = control.closest("label")?.contains(at);
    const name = control.id || control.textContent.trim() || control.outerHTML;
    if (width < 8 || height < 8) found.push(`${name}: ${Math.round(width)}×${Math.round(height)} px`);
    else if (at === null) found.push(`${name}: outside of the window`);
    else if (!control.contains(at) && !ownLabel) found.push(`${name}: under ${at.id || at.className || at.tagName}`);
  }
  return found;
}
"""

# Whether the panel scrolls, and the last control of it can be seen before anybody has scrolled.
PANEL = """
() => {
  const panel = document.querySelector(".panel");
  const last = [...document.querySelectorAll("#verdicts button")].at(-1).getBoundingClientRect();
  return panel.scrollHeight > panel.clientHeight && panel.scrollTop === 0 && last.bottom <= innerHeight;
}
"""

SCROLLS = "panel => panel.scrollHeight - panel.clientHeight"  # px
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture
def at_every_size(open_page):
    """Opens a page once, and checks a state of it at every size and in both themes."""

    def check(page):
        for look in ("dark", "light"):
            page.tab.emulate_media(color_scheme=look)
            for width, height in SIZES:
                page.tab.set_viewport_size({"width": width, "height": height})
                page.tab.evaluate(DRAWN)  # what is placed by a script has heard of the new size
                assert page.tab.evaluate(HIDDEN) == [], (width, height, look)
                assert page.tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, height, look)

    return check


def test_every_control_of_verifying_can_be_reached(open_page, tickets, members, at_every_size):
    members |= {"a-project-with-a-long-name": frozenset(), "another-one": frozenset()}
    tickets.open_batch("b", verify_tickets(3, FRAMES), project="a-project-with-a-long-name")
    set_name(tickets.database, "b", "the videos of the first week of March")
    page = open_page()
    at_every_size(page)  # the log-in
    page.log_in("lea")
    page.paused_at_start()
    for height in (720, 1080):
        page.tab.set_viewport_size({"width": 1280, "height": height})
        page.until(lambda: page.tab.locator("aside.panel").evaluate(SCROLLS) == 0)  # everything fits
    at_every_size(page)
    page.tab.click("#view")
    at_every_size(page)
    page.press("Escape", "x")
    page.tab.wait_for_selector(".reason")
    at_every_size(page)
    page.press("Escape", "?")
    page.tab.wait_for_selector("#help[open]")
    at_every_size(page)


def test_every_control_of_correcting_can_be_reached(open_page, tickets, at_every_size):
    words = json.loads(rules(tickets, "never"))  # about labels: the panel is longer than a window of 720 px
    new = [track_ticket(name, frame_count=FRAMES) for name in ("track-1", "track-2")]
    tickets.open_batch("b", [replace(t, payload=json.dumps(json.loads(t.payload) | words)) for t in new])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    page.press("1", "v", "b")
    page.tab.set_viewport_size({"width": 1280, "height": 720})
    page.until(lambda: page.tab.evaluate(PANEL))
    page.until(lambda: page.tab.locator("#other-objects .other").count() == 1)
    at_every_size(page)
    page.press("Shift+P", "Shift+S")
    at_every_size(page)


def test_every_control_of_a_message_and_of_the_leads_page_can_be_reached(open_page, tickets, at_every_size):
    page = open_page()
    page.log_in("lea")
    page.shows("message")
    at_every_size(page)
    page.tab.goto(f"{page.url}/web/lead.html")
    page.until(lambda: page.tab.locator("#people tbody tr").count() > 2)
    at_every_size(page)


def test_every_control_of_the_list_of_all_tickets_and_of_a_replay_can_be_reached(open_page, tickets, at_every_size):
    tickets.open_batch("b", verify_tickets(3, FRAMES))
    page = open_page()
    page.log_in("lea")
    page.paused_at_start()
    page.tab.goto(f"{page.url}/web/browser.html")
    page.until(lambda: page.tab.locator(".card-of").count() == 3)
    page.tab.locator(".pick input").last.check()
    at_every_size(page)
    page.tab.goto(f"{page.url}/web/browser.html#ticket=ticket-0000")
    page.tab.wait_for_selector(".step")
    at_every_size(page)
