"""The page in a real browser: what a verifier sees and presses, against a real server."""

from __future__ import annotations

import json
import os
import shutil
import time

import numpy as np
import pytest
from playwright.sync_api import sync_playwright
from synthetic_queue import (
    BLOCK,
    HEIGHT,
    PASSWORD,
    WIDTH,
    SyntheticMedia,
    add_people,
    centre,
    hidden,
    mask,
    serving,
    tickets,
)

from annotation_queue.api import create_app
from annotation_queue.database import Database
from annotation_queue.records import Kind, NewTicket, Person, Role, State
from annotation_queue.store import Store
from storage import rle
from storage.records import STRIDE, Verdict

FRAMES = 156  # a clip: long enough for the disc to pass behind the pillar
ARGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
)

# What is on the canvas: the index that the frame carries, the frame that the page names, and where its mask is.
# The page paints the mask only in one colour, over known pixels, so the overlay is found as what differs.
LOOK = """
([block, bits]) => {
  const canvas = document.querySelector("#screen");
  const c = canvas.getContext("2d");
  const strip = c.getImageData(0, 0, bits * block, block).data;
  let carried = 0;
  for (let bit = 0; bit < bits; bit++) {
    const at = 4 * ((block >> 1) * bits * block + bit * block + (block >> 1));
    if (strip[at] > 127) carried += 2 ** bit;
  }
  const { data, width, height } = c.getImageData(0, 0, canvas.width, canvas.height);
  let [n, sx, sy] = [0, 0, 0];
  for (let y = block * 2; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = 4 * (y * width + x);
      // the violet line around the mask: more blue than anything in the synthetic clips
      if (data[at + 2] > 235 && data[at] > 190) { n++; sx += x; sy += y; }
    }
  }
  return {
    carried,
    named: Number(canvas.dataset.frame),
    readout: Number(document.querySelector("#frame").textContent),
    mask: n ? [sx / n, sy / n] : null,
  };
}
"""


@pytest.fixture(scope="module")
def chromium():
    path = os.environ.get("MASKLETS_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        message = "no Chromium: install one, or set MASKLETS_TEST_CHROMIUM"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS.split())
        yield browser
        browser.close()


class Page:
    """One person at one tab."""

    def __init__(self, context, url):
        self.tab = context.new_page()
        self.context = context
        self.url = url
        self.problems = []
        self.tab.on("pageerror", lambda error: self.problems.append(str(error)))
        self.tab.goto(url)

    def log_in(self, name="vera", password=PASSWORD):
        self.tab.fill("#login-name", name)
        self.tab.fill("#login-password", password)
        self.tab.press("#login-password", "Enter")

    def look(self):
        return self.tab.evaluate(LOOK, [BLOCK, 16])

    def press(self, *keys):
        for key in keys:
            self.tab.keyboard.press(key)

    def until(self, test, patience_s=15):
        """Wait until `test()` is true; the page forbids scripts that wait by evaluating text."""
        deadline = time.monotonic() + patience_s
        while not test():
            assert time.monotonic() < deadline, f"waited in vain; the page says: {self.text('body')[:300]}"
            self.tab.wait_for_timeout(20)

    def text(self, selector):
        return self.tab.inner_text(selector)

    def named(self):
        """The frame that the page says it shows."""
        return int(self.tab.get_attribute("#screen", "data-frame") or -1)

    def at(self, frame_idx):
        self.until(lambda: self.named() == frame_idx)
        return self.look()

    def shows(self, view):
        self.tab.wait_for_selector(f"body[data-view={view}]", timeout=15_000)

    def paused_at_start(self):
        """Wait for a ticket on screen, pause it and go to its first frame."""
        self.shows("work")
        self.until(lambda: self.named() >= 0)
        self.press("Home")
        self.until(lambda: self.named() == 0)


@pytest.fixture
def store(sqlite_uri):
    database = Database(sqlite_uri)
    yield Store(database)
    database.close()


@pytest.fixture
def open_page(chromium, store):
    """Opens tabs at a server with the store's tickets."""
    accounts = add_people(store.database)
    contexts, pages = [], []
    with serving(create_app(store, SyntheticMedia(FRAMES), accounts=accounts)) as url:

        def new():
            context = chromium.new_context(viewport={"width": 1280, "height": 720})
            context.set_default_timeout(15_000)
            contexts.append(context)
            pages.append(Page(context, url))
            return pages[-1]

        new.accounts = accounts
        yield new
        problems = [problem for page in pages for problem in page.problems]
        for context in contexts:
            context.close()
    assert problems == []


def belongs_together(seen):
    """Check that frame, readout and mask are of one and the same index, and return it.

    The disc moves 8 px to the right from one annotated frame to the next, so the mask of a neighbour does not pass.
    """
    index = seen["carried"]
    assert seen["named"] == seen["readout"] == index and index % STRIDE == 0
    if hidden(index):
        assert seen["mask"] is None
        return index
    x, y = seen["mask"]
    assert abs(x - centre(index)[0]) < 1.5 and abs(y - centre(index)[1]) < 2.5, (seen, centre(index))
    return index


def test_the_mask_on_screen_belongs_to_the_frame_on_screen(open_page, store):
    store.open_batch("b", tickets(1, FRAMES))
    page = open_page()
    page.log_in()
    page.shows("work")
    assert page.tab.evaluate("[document.querySelector('#screen').width, document.querySelector('#screen').height]") == [
        WIDTH,
        HEIGHT,
    ]
    page.until(lambda: page.named() > 0)  # it plays by itself
    played = {belongs_together(page.look()) for _ in range(25)}
    assert len(played) > 3
    page.press("Home")
    page.at(0)
    page.press("Space", "Space")  # play and pause
    page.press("Home")
    for index in range(0, FRAMES, STRIDE):
        assert belongs_together(page.at(index)) == index
        page.press("ArrowRight")
    page.press("Home", "Shift+ArrowRight")
    assert belongs_together(page.at(40)) == 40
    page.press("ArrowLeft")
    assert belongs_together(page.at(36)) == 36
    page.press("End")
    assert belongs_together(page.at(FRAMES - STRIDE)) == FRAMES - STRIDE


def test_the_page_decodes_run_lengths_as_storage_does(open_page):
    """Empty, full, one pixel, one row, one column, noise and blobs: bit for bit."""
    chance = np.random.default_rng(3)
    masks = [np.zeros((5, 7), bool), np.ones((5, 7), bool), np.eye(6, 9, 2) > 0, chance.random((1, 40)) > 0.5]
    masks += [chance.random((40, 1)) > 0.5, np.arange(35).reshape(5, 7) == 17, mask(24)]
    masks += [chance.random((31, 23)) > p for p in (0.02, 0.5, 0.98)]
    sent = [[rle.encode(m).decode(), *m.shape] for m in masks]
    decoded = open_page().tab.evaluate(
        """async (sent) => {
          const { Mask } = await import("/web/rle.js");
          return sent.map(([counts, height, width]) => {
            const { bits, area, box } = new Mask(counts, height, width);
            return [Array.from(bits).join(""), area, box];
          });
        }""",
        sent,
    )
    for expected, (bits, area, box) in zip(masks, decoded, strict=True):
        assert bits == "".join(str(int(bit)) for bit in expected.ravel())
        assert area == expected.sum()
        rows, columns = np.nonzero(expected)
        at = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if area else None
        assert box == at, expected.shape


def test_a_verifier_works_by_keyboard_alone(open_page, store):
    store.open_batch("b", tickets(5, FRAMES))
    page = open_page()
    page.press("Tab")  # the cursor is in the form already
    page.log_in()
    for keys in (["a"], ["e"], ["x", "4"], ["u"], ["x", "Escape", "a"]):
        page.paused_at_start()
        before = page.text("#facts") + str(page.tab.evaluate("sessionStorage.getItem('masklets.holds')"))
        assert "micro · round 2" in page.text("#checkpoint")
        page.press(*keys)
        page.until(
            lambda before=before: (
                page.tab.get_attribute("body", "data-view") == "message"
                or page.text("#facts") + str(page.tab.evaluate("sessionStorage.getItem('masklets.holds')")) != before
            )
        )
    page.shows("message")
    assert "Nothing left to verify" in page.text("#message")
    page.until(lambda: page.text("#save") == "Saved")
    verdicts = {t.ticket_id: (t.verdict, t.reasons) for t in store.tickets(state=State.DONE)}
    assert list(verdicts.values()) == [
        (Verdict.ACCEPT, ()),
        (Verdict.REFINE, ()),
        (Verdict.REJECT, ("drift",)),
        (Verdict.UNSURE, ()),
        (Verdict.ACCEPT, ()),
    ]
    verdict = json.loads(store.operations("ticket-0002")[0].payload)
    assert verdict["seconds"] > 0 and store.operations("ticket-0002")[0].frame_idx == 0
    store.open_batch("later", tickets(1, FRAMES, prefix="later"))
    page.shows("work")  # a new ticket appears by itself


def test_overlay_speed_and_suspects_answer_to_their_keys(open_page, store):
    store.open_batch("b", tickets(1, FRAMES))
    page = open_page()
    page.log_in()
    page.paused_at_start()
    assert page.look()["mask"] is not None
    page.tab.keyboard.down("h")
    assert page.look()["mask"] is None
    page.tab.keyboard.up("h")
    assert page.look()["mask"] is not None
    page.press("]")
    page.at(40)
    assert "low score" in page.text("#badges")
    page.press("]")
    page.until(lambda: hidden(page.named()))
    assert "Absent" in page.text("#badges")
    page.press("[")
    page.at(40)
    for mode in ("Outline", "Cut-out", "Fill"):
        page.press("o")
        assert page.text("#modes [aria-checked=true]") == mode
    page.press("s")
    assert page.text("#speed") == "4×"
    page.press("?")
    assert page.tab.is_visible("#help") and "refine" in page.text("#help")
    page.press("a")  # not while the list of keys is open
    page.press("Escape")
    assert not page.tab.is_visible("#help")
    assert store.tickets(state=State.DONE) == []


def test_an_answer_given_without_a_connection_arrives_later(open_page, store):
    store.open_batch("b", tickets(2, FRAMES))
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.until(lambda: len(json.loads(page.tab.evaluate("sessionStorage.getItem('masklets.holds')"))) == 2)
    page.context.set_offline(True)
    page.press("a")
    page.until(lambda: "1 answer kept here" in page.text("#save"))
    assert page.tab.get_attribute("body", "data-view") == "work"  # the next ticket was here already
    assert store.tickets(state=State.DONE) == []
    page.tab.close()  # and even the tab may go
    page.tab = page.context.new_page()
    page.context.set_offline(False)
    page.tab.goto(page.url)
    page.until(lambda: len(store.tickets(state=State.DONE)) == 1)


def test_a_login_in_another_tab_costs_no_answer(open_page, store):
    store.open_batch("b", tickets(1, FRAMES))
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.context.request.post(f"{page.url}/api/login", data={"name": "vera", "password": PASSWORD})
    page.press("a")
    page.until(lambda: len(store.tickets(state=State.DONE)) == 1)
    page.until(lambda: page.text("#save") == "Saved")


def test_a_lost_lease_is_said_and_the_next_ticket_is_one_key_away(open_page, store):
    store.open_batch("b", tickets(3, FRAMES))
    store.lease_s = 1.5  # heartbeats every half second
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.context.set_offline(True)
    time.sleep(1.6)
    victor = Person(name="victor", roles=frozenset({Role.VERIFIER}))
    store.lease_s = 90
    taken = store.claim(victor, claim_id="c")
    assert taken.ticket_id == "ticket-0000"
    page.context.set_offline(False)
    page.shows("message")
    assert "went back to the queue" in page.text("#message")
    page.press("Enter")
    page.shows("work")
    assert store.ticket("ticket-0000").leased_by == "victor"


def test_a_reload_takes_up_the_same_ticket(open_page, store):
    store.open_batch("b", tickets(4, FRAMES))
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.press("a")
    page.until(lambda: len(store.tickets(state=State.DONE)) == 1)
    page.until(lambda: len(store.tickets(state=State.LEASED)) == 2)
    held = [t.ticket_id for t in store.tickets(state=State.LEASED)]
    page.tab.reload()
    page.paused_at_start()
    page.until(lambda: len(store.tickets(state=State.LEASED)) == 2)
    assert [t.ticket_id for t in store.tickets(state=State.LEASED)] == held


def test_a_wrong_password_is_said_and_a_right_one_works_after_it(open_page, store):
    page = open_page()
    page.log_in(password="wrong password")
    page.until(lambda: "wrong" in page.text("#login-error"))
    page.log_in()
    page.shows("message")
    page.tab.click("#log-out")
    page.shows("login")


def test_track_tickets_are_listed_and_may_only_be_rejected(open_page, store):
    track = NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")
    store.open_batch("b", [track, *tickets(1, FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.shows("message")
    assert "not part of this version" in page.text("#message")
    page.tab.click("#message-actions button")
    page.tab.wait_for_selector("#tracks >> text=from nothing · phase 1")
    page.tab.click("#tracks >> text=Look")
    page.shows("work")
    page.until(lambda: page.named() > 0)
    assert page.look()["mask"] is None
    page.press("a", "e", "u")  # none of these is an answer here
    page.press("x", "7")
    page.shows("message")
    page.until(lambda: store.ticket("t").state is State.DONE)
    assert (store.ticket("t").verdict, store.ticket("t").reasons) == (Verdict.REJECT, ("untrackable",))
