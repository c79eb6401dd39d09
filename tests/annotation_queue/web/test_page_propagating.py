"""The page in a real browser during a propagation: its masks appear as they come, and nothing computed is lost."""

from __future__ import annotations

import json
import threading

import pytest

from annotation_queue.database import Database
from annotation_queue.records import State
from annotation_queue.tickets.store import TicketStore
from annotation_queue.versions import versions_of
from storage import rle
from storage.records import STRIDE
from tests.annotation_queue.annotators import LEA
from tests.annotation_queue.browsing import EVERY_DATABASE, FRAMES, Page, draft, is_disc
from tests.annotation_queue.synthetic_queue import ServerProcess, belongs_together, centre, mask

SHOWN = """
import('/web/shared/session.js').then(({ session }) => [...session.current.draft.masks].map(([i, m]) => [i, m.rle]))
"""


class Gate:
    """Lets the model compute as many frames as a test says, so that a propagation stands still in between."""

    def __init__(self, model):
        self._gate, self._track, self.computed = threading.Semaphore(0), model.track, []
        self.begun = 0  # propagations
        model.track = self._tracking

    def _tracking(self, *given):
        self.begun += 1
        for made in self._track(*given):
            if made is not None:
                while not self._gate.acquire(timeout=0.05):
                    yield None  # other work may come between, and the job may be cancelled
                self.computed.append(made.frame_idx)
            yield made

    def let(self, frames):
        self._gate.release(frames)


@pytest.fixture
def gate(open_page):
    return Gate(open_page.model)


def came(page, frames, of=None):
    """Wait until this many frames of a propagation are on the page."""
    page.until(lambda: f"Propagating · {frames} of {'' if of is None else f'{of} frame'}" in page.text("#badges"))


def propagating(page, gate, frames, key="t", at=8):
    """A click on the disc, and its propagation, of which this many frames have come."""
    page.point(*centre(at))
    page.settled()
    page.press(key)
    gate.let(frames)
    came(page, frames)


def kinds(tickets):
    return [o.kind for o in tickets.operations("track-1")]


def stopped(tickets):
    """Whether the first propagation has ended: a stop is in the log before the model hears of it."""
    first = next(o.operation_id for o in tickets.operations("track-1") if o.kind == "propagate")
    with tickets.database.read() as c:
        return "stop" in kinds(tickets) and versions_of(c, "track-1")[first].complete


def discs(page, tickets):
    """The frames whose mask is the disc: of the server's draft, and of the page's, which has the same masks."""
    page.settled()
    masks = draft(tickets).masks
    page.until(lambda: dict(page.tab.evaluate(SHOWN)) == {i: m.rle.decode() for i, m in draft(tickets).masks.items()})
    return [i for i in sorted(masks) if is_disc(masks, i)]


def test_masks_appear_on_the_page_as_they_are_computed(correcting, gate, tickets):
    page = correcting(8)
    page.point(*centre(8))
    page.settled()
    page.press("t")
    page.press(*["ArrowRight"] * 3)
    before = page.at(20)["mask"]
    gate.let(2)
    came(page, 2, of=36)
    assert page.look()["mask"] == before, "frame 20 is the third one"
    gate.let(1)
    page.until(lambda: page.look()["mask"] != before)  # without a key, and long before the end
    assert belongs_together(page.look()) == 20
    came(page, 3, of=36)
    assert "left" in page.text("#badges")
    page.press("ArrowLeft")
    assert belongs_together(page.at(16)) == 16
    gate.let(100)
    assert discs(page, tickets) == list(range(8, FRAMES, STRIDE))


STOPS = {
    "Escape": lambda page: page.press("Escape"),
    "another propagation": lambda page: page.press("Shift+T"),
    "a click": lambda page: page.point(*centre(page.named())),
    "a stroke": lambda page: (page.press("b"), page.drag((300, 200), (360, 220))),
    "a lock of a frame that it has not reached": lambda page: (page.press("End"), page.at(FRAMES - 4), page.press("f")),
    "absent": lambda page: (page.press("End"), page.at(FRAMES - 4), page.press("g", "g")),
}


@pytest.mark.parametrize("how", STOPS.values(), ids=STOPS)
def test_a_stopped_propagation_keeps_what_came(correcting, gate, tickets, how):
    page = correcting(8)
    propagating(page, gate, 5)
    how(page)
    page.until(lambda: stopped(tickets))
    gate.let(100)
    found = discs(page, tickets)
    computed = [i for i in gate.computed if i > 8]
    assert computed[:5] == [12, 16, 20, 24, 28] and len(computed) < 36
    assert set(computed) <= set(found), "nothing that was computed is thrown away"
    assert page.tab.get_attribute("body", "data-view") == "work"
    page.tab.reload()
    page.correcting(8)
    assert discs(page, tickets) == found


def test_what_the_page_refuses_stops_no_propagation(correcting, gate, tickets):
    page = correcting(24)
    page.press("g", "g", *["ArrowLeft"] * 4)  # the object is absent from frame 24 alone
    page.at(8)
    propagating(page, gate, 2)
    page.press("i", "i", *["ArrowRight"] * 4)  # from a frame to the same frame
    page.at(24)
    page.point(300, 200, button="right")
    page.until(lambda: "Begin with a click" in page.text("#notice"))
    came(page, 2)
    gate.let(100)
    page.settled()
    assert kinds(tickets) == ["absent", "prompt", "propagate"]


def test_a_lock_keeps_the_mask_on_screen(correcting, gate, tickets):
    page = correcting(8)
    before = draft(tickets).masks[24]
    propagating(page, gate, 3)
    page.press(*["ArrowRight"] * 4)
    page.at(24)
    page.press("f")
    gate.let(100)
    page.until(lambda: kinds(tickets) == ["prompt", "propagate", "stop", "lock"])
    assert discs(page, tickets)[:4] == [8, 12, 16, 20]
    assert draft(tickets).locked == {24} and draft(tickets).masks[24] == before


def test_a_lock_on_a_frame_that_has_come_stops_nothing(correcting, gate, tickets):
    page = correcting(8)
    propagating(page, gate, 5)
    page.press(*["ArrowRight"] * 2)
    page.at(16)
    page.press("f")
    gate.let(100)
    page.until(lambda: kinds(tickets) == ["prompt", "propagate", "lock"])
    assert discs(page, tickets) == list(range(8, FRAMES, STRIDE))


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "under way"])
def test_one_undo_takes_a_whole_propagation_back_and_redo_brings_it_again(correcting, gate, tickets, stopped):
    page = correcting(8)
    page.point(*centre(8))
    page.settled()
    before = draft(tickets).masks
    page.press("t")
    gate.let(5)
    came(page, 5)
    if stopped:
        page.press("Escape")
        page.settled()
    page.press("Control+z")
    page.until(lambda: kinds(tickets)[-1] == "undo")
    assert discs(page, tickets) == [8] and draft(tickets).masks == before
    page.press("Control+Shift+Z")
    page.until(lambda: kinds(tickets)[-1] == "redo")
    gate.let(100)
    assert discs(page, tickets) == list(range(8, 32 if stopped else FRAMES, STRIDE))
    page.press("Control+z", "Control+z")
    assert discs(page, tickets) == []


def test_only_frames_that_a_person_settled_are_safe(correcting, gate, tickets):
    page = correcting(20)
    page.press("f", "Home", *["ArrowRight"] * 2)
    page.at(8)
    page.press("i")
    page.until(lambda: "Propagate from 8" in page.text("#badges"))
    page.press("Escape")
    page.point(*centre(8))
    page.settled()
    page.press("y")
    gate.let(100)
    assert discs(page, tickets) == [0, 4, 8, 12, 16], "frame 20 is locked"


def test_a_propagation_goes_as_far_as_was_chosen(correcting, gate, tickets):
    gate.let(1000)
    page = correcting(40)
    page.point(*centre(40))
    page.settled()
    page.tab.select_option("#reach", "5")
    page.press("t")
    assert discs(page, tickets) == [40, 44, 48, 52, 56, 60]
    page.press("Shift+T")
    assert discs(page, tickets) == list(range(20, 64, STRIDE))
    page.press("Control+z", "Control+z", "y")
    assert discs(page, tickets) == list(range(20, 64, STRIDE))
    page.press("Control+z")
    page.tab.select_option("#reach", "0")
    page.press("i", "ArrowLeft", "ArrowLeft")
    page.at(32)
    page.press("i")
    assert discs(page, tickets) == [32, 36, 40]
    acts = [json.loads(o.payload) for o in tickets.operations("track-1") if o.kind == "propagate"]
    assert acts == [
        {"direction": "forward", "last": 60},
        {"direction": "backward", "last": 20},
        {"direction": "both", "first": 20, "last": 60},
        {"direction": "backward", "last": 32},
    ]


def test_a_lost_connection_in_the_middle_costs_no_mask(correcting, gate, tickets):
    page = correcting(8)
    propagating(page, gate, 5)
    page.context.set_offline(True)
    page.until(lambda: "No connection" in page.text("#save"))
    assert len([i for i, _ in page.tab.evaluate(SHOWN)]) == len(range(0, FRAMES, STRIDE))
    page.press("Escape")  # stopped without a connection: what is on the page is kept
    page.until(lambda: "Propagating" not in page.text("#badges"))
    page.context.set_offline(False)
    found = discs(page, tickets)
    assert found[:6] == [8, 12, 16, 20, 24, 28] and kinds(tickets) == ["prompt", "propagate", "stop"]
    page.press("t")
    gate.let(100)
    assert discs(page, tickets) == list(range(8, FRAMES, STRIDE))


def test_a_stop_that_came_late_is_applied_to_the_propagation(correcting, gate, tickets):
    page = correcting(8)
    propagating(page, gate, 3)
    held = tickets.ticket("track-1")
    tickets.end_lease(held.ticket_id, held.lease_token, by=LEA)
    page.press("Escape")
    page.until(lambda: page.text("#kept") == "Kept work: 1 ticket")
    page.tab.click("#kept")
    page.tab.click("#kept-works .primary")
    page.until(lambda: stopped(tickets))
    gate.let(100)
    found = discs(page, tickets)
    assert found[:4] == [8, 12, 16, 20] and len(found) < 36


def test_a_reload_goes_on_behind_what_came(correcting, gate, tickets):
    page = correcting(8)
    propagating(page, gate, 5)
    page.tab.reload()
    page.correcting(8)
    assert [i for i, counts in page.tab.evaluate(SHOWN) if counts == encoded(i)] == [8, 12, 16, 20, 24, 28]
    came(page, 5)  # of the new request: the frames that were made before come first
    gate.let(100)
    assert discs(page, tickets) == list(range(8, FRAMES, STRIDE))
    assert gate.computed == list(range(12, FRAMES, STRIDE)), "no frame was computed twice"


def test_a_ticket_that_is_left_goes_back_at_once_and_its_propagation_goes_on_later(correcting, gate, tickets):
    page = correcting(8)
    propagating(page, gate, 5)
    page.press("Shift+R")
    page.says("back in the queue")
    page.until(lambda: tickets.ticket("track-1").state is State.OPEN)
    page.press("Backspace")
    came(page, 5)  # they are there, and it goes on behind them
    gate.let(100)
    page.settled()
    assert gate.computed == list(range(12, FRAMES, STRIDE)), "no frame was computed twice"


# The frames whose masks have reached the page from now on.
HEAR = """
import("/web/shared/session.js").then(({ session }) => {
  window.heard = [];
  session.on("answer", ({ event }) => event.event === "frame" && window.heard.push(event.frame.frame_idx));
})
"""


def test_masks_that_come_while_a_reloaded_page_fetches_its_ticket_are_on_the_page(correcting, gate, tickets):
    page = correcting(8)
    propagating(page, gate, 5)
    held = []
    page.tab.route("**/versions", lambda route: held.append((route, route.fetch())))
    page.tab.reload()
    page.until(lambda: held and gate.begun == 2)  # it knows what was stored by now, and asks the model to go on
    page.tab.evaluate(HEAR)
    gate.let(3)
    page.until(lambda: page.tab.evaluate("window.heard").count(40) == 1)
    [(route, stored)] = held
    route.fulfill(response=stored)
    page.correcting(8)
    gate.let(100)
    assert discs(page, tickets) == list(range(8, FRAMES, STRIDE))


@EVERY_DATABASE
def test_a_killed_server_costs_no_mask_that_was_on_the_page(chromium, uri):
    """SIGKILL in the middle. Afterwards the server has every mask that the page has shown, and goes on behind it."""
    server = ServerProcess(uri, tracks=1, frames=FRAMES, slow=0.1)
    server.start()
    context = chromium.new_context(viewport={"width": 1280, "height": 720})
    try:
        page = Page(context, server.url)
        page.log_in("ann")
        page.correcting(8)
        page.point(*centre(8))
        page.settled()
        page.press("t")
        page.until(lambda: "left" in page.text("#badges"))
        server.kill()
        page.until(lambda: "No connection" in page.text("#save"))
        shown = [i for i, counts in page.tab.evaluate(SHOWN) if counts == encoded(i)]
        database = Database(uri)
        tickets = TicketStore(database)
        (about,) = [o.operation_id for o in tickets.operations("track-0") if o.kind == "propagate"]
        with database.read() as c:
            stored = [m.frame_idx for m in versions_of(c, "track-0")[about].frames]
        assert len(stored) >= 2 and set(shown) - {8} <= set(stored)
        server.start()
        page.settled()
        assert all(is_disc(draft(tickets, "track-0").masks, i) for i in range(8, FRAMES, STRIDE))
        page.press("Enter")
        page.until(lambda: tickets.ticket("track-0").state is State.DONE)
        database.close()
    finally:
        context.close()
        server.kill()


def encoded(frame_idx):
    return rle.encode(mask(frame_idx)).decode()


def test_a_model_that_fails_in_the_middle_keeps_what_it_made(correcting, gate, open_page, tickets):
    track = open_page.model.track

    def failing(*given):
        for n, made in enumerate(track(*given)):
            if n == 9:
                raise RuntimeError("out of memory")
            yield made

    open_page.model.track = failing
    gate.let(100)
    page = correcting(8)
    page.point(*centre(8))
    page.settled()
    page.press("t")
    page.until(lambda: "The model failed" in page.text("#notice"))
    page.until(lambda: kinds(tickets) == ["prompt", "propagate", "stop"])
    assert discs(page, tickets) == [8, 12, 16, 20, 24]


def test_the_time_left_follows_the_pace_of_the_masks_that_are_computed_now(open_page):
    said = open_page().tab.evaluate(
        """async () => {
          const { Progress } = await import("/web/shared/progress.js");
          const progress = new Progress(371, 5);
          const said = [progress.text];
          for (let n = 0; n < 371; n++) {
            progress.add(4 * n, n < 5 ? 0 : 1000 * n); // five at once, which were made before; then one a second
            if ([4, 5, 10, 330, 367, 370].includes(n)) said.push(progress.text);
          }
          return said;
        }"""
    )
    assert said == [
        "0 of 371 frames",
        "5 of 371 frames",
        "6 of 371 frames",
        "11 of 371 frames, about 6 min left",
        "331 of 371 frames, about 40 s left",
        "368 of 371 frames, a few seconds left",
        "371 of 371 frames, a few seconds left",
    ]
