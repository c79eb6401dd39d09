"""On screen, nothing tells gold from real work: every text, title and state of the page is the same."""

from __future__ import annotations

from dataclasses import replace

from annotation_queue.records import NewGold
from storage.records import Verdict
from tests.annotation_queue.annotators import LEA
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import HASTY, verify_tickets

# Every text that is shown, and what a pointer or a screen reader finds beside it. Not the person's name and times.
SHOWN = """
() => [...document.querySelectorAll("body *")]
  .filter((e) => e.checkVisibility({ visibilityProperty: true }) && !["who", "pace", "watched", "flash"].includes(e.id))
  .filter((e) => !e.closest("#spoken")) // what was said of frames depends on the time, and repeats what is shown
  .map((e) => [e.tagName, e.id, String(e.className), e.title, e.ariaLabel, e.children.length ? "" : e.textContent])
"""


def seen(page, tickets):
    """What a person sees of their ticket, paused at its first frame, and of the next one after their answer."""
    found = []
    page.log_in(page.person)
    for number in (0, 1):
        page.paused_at_start()
        page.press("Home", "]")  # to a frame whose badge is known
        page.at(40)
        page.until(lambda: page.text("#save") == "Saved")
        page.until(lambda: ".mp4" in page.text("#facts"))
        page.until(lambda number=number: ("done in the last hour" in page.text("#left")) == (number > 0))
        found.append(page.tab.evaluate(SHOWN))
        page.press("a")
    return found


def test_the_page_looks_the_same_with_gold_and_with_real_work(open_page, tickets):
    tickets.policy = HASTY
    (subject,) = verify_tickets(1, FRAMES, prefix="subject")
    rest = [
        replace(t, video_id="video-1", masklet=replace(t.masklet, video_id="video-1"))
        for t in verify_tickets(8, FRAMES)
        if t.masklet is not None
    ]
    assert subject.masklet is not None and len(rest) == 8
    tickets.open_batch("of-today", [replace(subject, priority=3), *rest])
    real = open_page()
    real.person = "vera"
    hers = seen(real, tickets)
    assert any(o.masklet_id == "subject-m0000" for o in tickets.operations("subject-0000")), "she had the real one"
    tickets.open_batch("of-last-month", [])
    known = replace(subject, ticket_id="known", masklet=replace(subject.masklet, masklet_id="known-m"))
    tickets.add_gold("of-last-month", [NewGold(ticket=known, expected=Verdict.ACCEPT)], by=LEA)
    tickets.policy = HASTY.model_copy(update={"gold_share": 1.0})
    golden = open_page()
    golden.person = "victor"
    his = seen(golden, tickets)
    assert tickets.gold()[0].done == 1, "he had the gold one"
    assert his == hers
