"""The page in a real browser when a person takes a ticket again: after its lease was lost, or after they left it."""

from __future__ import annotations

from tests.annotation_queue.annotators import LEA
from tests.annotation_queue.browsing import FRAMES, draft, is_disc
from tests.annotation_queue.synthetic_queue import centre, track_ticket

# Of the ticket on screen: its frames with their masks, and the frames that are locked.
SHOWN = """
import("/web/shared/session.js").then(({ session }) => {
  const { masks, locked } = session.current.draft;
  return [[...masks].map(([i, m]) => [i, m.rle]), [...locked]];
})
"""
# Whether each change that the queue does not have is on disk.
STORED = """
import("/web/ticket/sending.js").then(({ outbox }) => outbox.pending().map(({ stored }) => stored === true))
"""
ASIDE = """
import("/web/shared/session.js").then(({ session }) => session.aside.map(({ ticket }) => ticket.ticket_id))
"""


def shows_what_counts(page, tickets):
    """Whether the draft on the page is the one that the server would submit."""
    masks, locked = page.tab.evaluate(SHOWN)
    counts = draft(tickets)
    return dict(masks) == {i: m.rle.decode() for i, m in counts.masks.items()} and set(locked) == counts.locked


def test_what_waited_under_a_lost_lease_is_not_shown_under_the_next_one(correcting, open_page, tickets):
    """The queue keeps it beside the ticket. A click that had arrived before counts, and is answered."""
    page = correcting(8)
    open_page.model.answers_clicks.clear()
    page.point(*centre(8))
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["prompt"])
    page.press("ArrowRight")
    page.at(12)
    page.press("f")  # it is sent after the click
    page.until(lambda: page.tab.evaluate(STORED) == [True])
    first = tickets.ticket("track-1").lease_token
    tickets.end_lease("track-1", first, by=LEA)
    late = []

    def hold(route):
        late.append(route) if route.request.post_data_json["token"] == first else route.continue_()

    page.tab.route("**/refine", hold)
    page.tab.reload()
    page.correcting(8)
    page.until(lambda: late)
    assert tickets.ticket("track-1").lease_token > first and shows_what_counts(page, tickets)
    open_page.model.answers_clicks.set()
    late[0].continue_()
    page.settled()
    page.until(lambda: is_disc(draft(tickets).masks, 8))
    assert shows_what_counts(page, tickets)
    assert [o.kind for o in tickets.operations("track-1", branch=True)] == ["lock"]


def test_a_left_ticket_that_comes_again_late_waits_behind_the_one_on_screen(open_page, tickets):
    tickets.open_batch("b", [track_ticket(f"track-{n}", frame_count=FRAMES) for n in (1, 2)])
    page = open_page()
    releases = []
    page.tab.route("**/release", lambda route: releases.append(route), times=1)
    page.log_in("ann")
    page.correcting()
    page.press("Shift+R")
    page.until(lambda: releases)
    page.press("Backspace")  # it can be taken again only once the queue has got it back
    page.press("Enter")
    page.until(lambda: page.ticket() == "track-2")
    assert page.ahead() is None
    releases[0].continue_()
    page.until(lambda: "You have the ticket again" in page.text("#notice"))
    assert page.ticket() == "track-2" and tickets.ticket("track-1").leased_by == "ann"
    page.press("Shift+R")
    page.says("back in the queue")
    page.press("Enter")
    page.until(lambda: page.ticket() == "track-1")


def test_a_ticket_taken_again_after_a_pause_waits_behind_what_was_opened_meanwhile(open_page, tickets):
    tickets.open_batch("b", [track_ticket(f"track-{n}", frame_count=FRAMES) for n in (1, 2)])
    page = open_page()
    page.tab.clock.install()
    page.tab.reload()  # so that every timer of the page is of this clock
    page.log_in("ann")
    page.correcting()
    assert page.ahead() == "track-2"
    page.tab.clock.fast_forward(601_000)
    page.until(lambda: "Nobody has touched this page" in page.text("#notice"))
    beats = []
    page.tab.route("**/track-1/heartbeat", lambda route: beats.append(route), times=1)
    page.press("x")  # only shows that somebody is here
    page.until(lambda: beats)
    page.tab.evaluate("location.hash = '#ticket=track-2'")
    page.until(lambda: page.ticket() == "track-2")
    beats[0].continue_()
    page.until(lambda: page.tab.evaluate(ASIDE) == ["track-1"])
    assert page.ticket() == "track-2"
    assert {t.leased_by for t in tickets.find()} == {"ann"}
