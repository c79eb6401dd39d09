"""No verdict on what nobody saw: the page counts the frames that were on screen, and sends their share."""

from __future__ import annotations

import json
import re

import pytest

from annotation_queue.records import QueuePolicy, State
from storage.records import STRIDE
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import hidden, verify_tickets

SHOWN = [i for i in range(0, FRAMES, STRIDE) if not hidden(i)]

LATER = re.compile(r"/frames/(2[4-9]|[3-9]\d|1\d\d)\.jpg")  # from frame 24 on


@pytest.fixture
def watching(open_page, tickets):
    """Opens a tab in which Vera has a ticket on screen, paused and with nothing watched but its first frames."""

    def at(policy=None, count=2):
        tickets.policy = policy or QueuePolicy()
        tickets.open_batch("b", verify_tickets(count, FRAMES))
        page, held, free = open_page(), [], []

        def later(route):
            """A ticket plays by itself, but not beyond the frames before these: the first one, once it is paused."""
            route.continue_() if free and "/video-0/" in route.request.url else held.append(route)

        page.tab.route(LATER, later)
        page.log_in()
        page.paused_at_start()
        free.append(True)
        for route in held:
            route.continue_()
        return page

    return at


def watch(page, count):
    """Step through the frames until so many of them with the object were on screen."""
    while seen(page) < count:
        before = page.named()
        page.press("ArrowRight")
        page.until(lambda before=before: page.named() > before)


def seen(page):
    """The frames with the object that were on screen, as the page says."""
    return int(page.text("#watched").split()[1])


def done(tickets):
    return [t.ticket_id for t in tickets.find(state=State.DONE)]


def watched(tickets, ticket_id):
    return json.loads(tickets.operations(ticket_id)[0].payload)["watched"]


def test_two_accepts_at_once_are_impossible(watching, tickets):
    page = watching()
    page.press("a", "a")
    page.until(lambda: "before you accept" in page.text("#notice"))
    page.settled()  # an answer would have been sent by now
    assert done(tickets) == []
    watch(page, len(SHOWN) / 2)
    page.until(lambda: not page.tab.is_visible("#notice"))  # it is no longer true
    page.press("a", "a")
    page.until(lambda: done(tickets) == ["ticket-0000"])
    page.paused_at_start()
    assert page.text("#watched").startswith("Seen ") and seen(page) < len(SHOWN) / 2
    page.settled()
    assert done(tickets) == ["ticket-0000"]
    assert 0.5 <= watched(tickets, "ticket-0000") < 0.6


def test_a_fault_can_be_named_after_a_few_frames_and_not_before(watching, tickets):
    page = watching(QueuePolicy(watch_fault_share=0.3))
    enough = -(-3 * len(SHOWN) // 10)
    assert seen(page) < enough, "the test begins before enough was watched"
    for key in ("e", "x", "u", "Shift+E"):
        page.press(key)
        page.until(lambda: page.tab.is_visible("#notice"))
    page.settled()
    assert done(tickets) == [] and not page.tab.locator(".reason").count()
    page.tab.click("#verdict-refine")
    watch(page, enough)
    page.press("x", "7")
    page.until(lambda: done(tickets) == ["ticket-0000"])


def test_a_frame_without_its_mask_counts_as_not_seen(watching, tickets):
    page = watching()
    before = seen(page)
    page.tab.keyboard.down("h")
    for _ in range(10):
        page.tab.keyboard.press("ArrowRight")
    page.at(40)
    assert seen(page) == before
    page.tab.keyboard.up("h")
    page.until(lambda: seen(page) == before + 1)


def test_an_answer_that_is_taken_back_needs_no_second_look(watching, tickets):
    page = watching(count=3)
    watch(page, len(SHOWN) / 2)
    page.press("a")
    page.until(lambda: done(tickets) == ["ticket-0000"])
    page.paused_at_start()
    page.until(lambda: page.text("#save") == "Saved")
    page.press("Backspace")
    page.until(lambda: "Taken back" in page.text("#notice"))
    page.until(page.ticket)
    page.press("a")
    page.until(lambda: done(tickets) == ["ticket-0000"])


WATCHING = """
async ([present, seen, watch]) => {
  const { Watching } = await import("/web/shared/watching.js");
  const watching = new Watching(String(Math.random()), present);
  for (const position of seen) watching.see(position);
  return [watching.frames, watching.share, watching.missing("accept", watch), watching.missing("reject", watch)];
}
"""


@pytest.mark.parametrize(
    ("present", "seen", "least", "found"),
    [
        ([True] * 10, [], 2, [10, 0, 5, 2]),
        ([True] * 10, [0, 1, 1, 2, 3, 4], 2, [10, 0.5, 0, 0]),
        ([True] * 3, [], 4, [3, 0, 3, 3]),  # at least four frames, so all of a short one
        ([True, False, True, False, False], [1, 3, 4], 2, [2, 0, 2, 2]),  # frames without the object do not count
        ([False] * 4, [0], 4, [4, 0.25, 3, 3]),  # an empty masklet: every frame does
        ([True], [0], 2, [1, 1, 0, 0]),
    ],
)
def test_how_much_is_missing_follows_from_the_policy(open_page, present, seen, least, found):
    watch = {"watch_share": 0.5, "watch_fault_share": 0.1, "watch_least": least}
    assert open_page().tab.evaluate(WATCHING, [present, seen, watch]) == found
