"""The page in a real browser: what verifiers and annotators see and press, against a real server."""

from __future__ import annotations

import json
import os
import shutil
import time

import numpy as np
import pytest
from playwright.sync_api import sync_playwright
from pydantic import TypeAdapter
from synthetic_queue import (
    BLOCK,
    HEIGHT,
    LOOK,
    PASSWORD,
    WIDTH,
    ServerProcess,
    SyntheticMedia,
    SyntheticModel,
    add_people,
    belongs_together,
    centre,
    hidden,
    mask,
    serving,
    tickets,
    track_ticket,
)

from annotation_queue.api import create_app
from annotation_queue.database import Database
from annotation_queue.live import Live
from annotation_queue.records import Kind, NewTicket, Person, Role, State
from annotation_queue.refine import Version, draft_of
from annotation_queue.store import MASKLET, Store
from benchmarks.queue import PrivatePostgres
from storage import rle
from storage.records import STRIDE, Operation, Verdict

FRAMES = 156  # a clip: long enough for the disc to pass behind the pillar
ARGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
)


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

    def point(self, x, y, button="left", modifiers=()):
        """Click on a pixel of the video."""
        self.tab.mouse.click(*self.on_screen(x, y), button=button)

    def drag(self, *path):
        """Drag along pixels of the video."""
        self.tab.mouse.move(*self.on_screen(*path[0]))
        self.tab.mouse.down()
        for at in path[1:]:
            self.tab.mouse.move(*self.on_screen(*at), steps=4)
        self.tab.mouse.up()

    def on_screen(self, x, y):
        box = self.tab.locator("#screen").bounding_box()
        scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
        left = box["x"] + (box["width"] - WIDTH * scale) / 2
        return left + x * scale, box["y"] + (box["height"] - HEIGHT * scale) / 2 + y * scale

    def correcting(self, frame_idx=0):
        """Wait for a ticket to correct, and go to a frame of it."""
        self.shows("work")
        self.until(lambda: self.tab.get_attribute("body", "data-kind") == "track" and self.named() >= 0)
        self.press("Home", *["ArrowRight"] * (frame_idx // STRIDE))
        self.at(frame_idx)

    def settled(self):
        """Wait until everything is saved and the model is idle."""
        self.until(lambda: self.text("#save") == "Saved" and self.tab.locator(".badge.busy").count() == 0)

    def paused_at_start(self):
        """Wait for a ticket on screen, pause it and go to its first frame."""
        self.shows("work")
        self.until(lambda: self.named() >= 0)
        self.press("Home")
        self.until(lambda: self.named() == 0)


@pytest.fixture
def store(uri):
    database = Database(uri)
    yield Store(database)
    database.close()


@pytest.fixture
def open_page(chromium, store):
    """Opens tabs at a server with the store's tickets."""
    accounts = add_people(store.database)
    contexts, pages = [], []
    model = SyntheticModel()
    with serving(create_app(store, SyntheticMedia(FRAMES), accounts=accounts, segmenter=model)) as url:

        def new():
            context = chromium.new_context(viewport={"width": 1280, "height": 720})
            context.set_default_timeout(15_000)
            contexts.append(context)
            pages.append(Page(context, url))
            return pages[-1]

        new.accounts, new.model = accounts, model
        yield new
        problems = [problem for page in pages for problem in page.problems]
        for context in contexts:
            context.close()
    assert problems == []


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


def edges(inside, thickness):
    """Pixels from which the object ends within `thickness` px along an axis; the frame's border is no end."""
    padded = np.pad(inside, thickness, constant_values=True)
    height, width = inside.shape
    core = inside.copy()
    for d in range(-thickness, thickness + 1):
        core &= padded[thickness + d : thickness + d + height, thickness : thickness + width]
        core &= padded[thickness : thickness + height, thickness + d : thickness + d + width]
    return inside & ~core


def test_the_page_paints_a_mask_and_its_edge_pixel_by_pixel(open_page):
    chance = np.random.default_rng(4)
    masks = [np.zeros((5, 7), bool), np.ones((5, 7), bool), np.arange(35).reshape(5, 7) == 17, mask(24)]
    masks += [chance.random((31, 23)) > p for p in (0.02, 0.2, 0.8)]
    masks += [np.roll(mask(24), -40, axis=1) | mask(60), np.pad(np.ones((30, 20), bool), ((9, 0), (12, 8)))]
    page = open_page()
    for thickness in (1, 2, 5):
        painted = page.tab.evaluate(
            """async ([sent, thickness]) => {
              const { Overlay } = await import("/web/overlay.js");
              const { runs, spans } = await import("/web/rle.js");
              return sent.map(([counts, height, width]) => {
                const context = new OffscreenCanvas(width, height).getContext("2d");
                const overlay = new Overlay(height, width);
                overlay.flood([9, 9, 9, 255]);
                overlay.clear(); // what was painted before leaves no trace
                const mask = spans(runs(counts), height, width);
                overlay.fill(mask, [1, 20, 30, 255]);
                overlay.line(mask, [2, 50, 60, 255], thickness);
                overlay.drawOn(context);
                return context.getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 0).join("");
              });
            }""",
            [[[rle.encode(m).decode(), *m.shape] for m in masks], thickness],
        )
        for inside, pixels in zip(masks, painted, strict=True):
            expected = inside.astype(int) + edges(inside, thickness)
            assert pixels == "".join(map(str, expected.ravel())), (inside.shape, thickness)


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


def test_the_last_answers_can_be_taken_back(open_page, store):
    store.open_batch("b", tickets(4, FRAMES))
    page = open_page()
    page.log_in()
    page.paused_at_start()
    for number in (1, 2):
        page.press("a")
        page.until(lambda number=number: len(store.tickets(state=State.DONE)) == number)
        page.paused_at_start()
    page.until(lambda: page.text("#save") == "Saved")
    page.press("Backspace")
    page.until(lambda: "Taken back: Accept" in page.text("#notice"))
    assert [t.ticket_id for t in store.tickets(state=State.DONE)] == ["ticket-0000"]
    assert store.ticket("ticket-0001").leased_by == "vera"
    page.tab.reload()
    page.paused_at_start()
    page.press("x", "4")
    page.until(lambda: store.ticket("ticket-0001").verdict is Verdict.REJECT)
    page.paused_at_start()
    page.press("a")
    page.until(lambda: len(store.tickets(state=State.DONE)) == 3)
    assert store.ticket("ticket-0002").verdict is Verdict.ACCEPT, "what was put aside came back"


def test_an_annotator_begins_where_the_verifier_pointed(open_page, store):
    store.open_batch("b", tickets(1, FRAMES))
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.press(*["ArrowRight"] * 5)
    page.at(20)
    page.press("Shift+E", "4")
    page.until(lambda: len(store.tickets(kind=Kind.TRACK)) == 1)
    other = open_page()
    other.log_in("ann")
    other.shows("work")
    other.until(lambda: other.named() == 20)
    assert "vera pointed here" in other.text("#badges") and "drifts off the object" in other.text("#facts")


def test_a_lead_sees_figures_and_manages_people(open_page, store):
    store.open_batch("b", tickets(6, FRAMES))
    page = open_page()
    page.log_in("lea")
    page.paused_at_start()
    page.press("a")
    page.until(lambda: len(store.tickets(state=State.DONE)) == 1)
    page.tab.goto(f"{page.url}/web/lead.html")
    page.until(lambda: "lea" in page.text("#figures") and "verify" in page.text("#batches"))
    assert page.tab.get_attribute("#batches .share", "title").startswith("1 done")
    page.tab.fill("#add [name=name]", "nora")
    page.tab.fill("#add [name=password]", "a long password")
    page.tab.fill("#add [name=skills]", "thin, fast")
    page.tab.check("#add [value=annotator]")
    page.tab.click("#add button")
    page.until(lambda: "nora" in page.text("#people"))
    assert "fast, thin" in page.text("#people") or "thin, fast" in page.text("#people")
    row = page.tab.locator("#people tr", has_text="nora")
    row.get_by_text("Disable").click()
    page.until(lambda: "nora (disabled)" in page.text("#people"))
    other = open_page()
    other.log_in("nora", "a long password")
    other.until(lambda: other.text("#login-error") != "")
    other.log_in("vera")
    other.shows("work")
    assert not other.tab.is_visible("#lead")
    other.tab.goto(f"{page.url}/web/lead.html")
    other.until(lambda: "for leads and admins" in other.text("#error"))


# --- correcting ----------------------------------------------------------------------------------------------------


def draft(store, ticket_id="track-1", frames=FRAMES):
    """A ticket's draft as the server derives it."""
    return Live(store, SyntheticMedia(frames).info, SyntheticModel()).draft(store.ticket(ticket_id))


def is_disc(masks, frame_idx):
    return masks[frame_idx].rle == rle.encode(mask(frame_idx))


def test_a_masklet_is_corrected_by_a_click_and_a_propagation(open_page, store):
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    page.point(*centre(8))
    page.until(lambda: page.look()["mask"] is not None and abs(page.look()["mask"][0] - centre(8)[0]) < 2)
    page.press("y")
    page.settled()
    page.until(lambda: len(store.operations("track-1")) == 2)
    for index in (0, 8, 40, 148):
        page.press("Home", *["ArrowRight"] * (index // STRIDE))
        assert belongs_together(page.at(index)) == index
    page.press("Enter")
    page.until(lambda: store.ticket("track-1").state is State.DONE)
    follower = store.ticket(store.ticket("track-1").next_ticket_id)
    made = store.masklet(follower.ticket_id)
    assert (follower.kind, follower.made_by) == (Kind.VERIFY, "ann")
    assert made.rle == tuple(rle.encode(mask(i)) for i in made.frame_idx)
    assert made.area_px == tuple(int(mask(i).sum()) for i in made.frame_idx)
    assert (made.checkpoint, made.round, made.phase) == ("disc-finder", 3, "3")
    assert (made.click_count, made.edited_frame_count, made.parent_id) == (1, 1, "m-track-1")
    assert [o.kind for o in store.operations("track-1")] == ["prompt", "propagate", "submit"]


def test_every_tool_every_undo_and_a_reload(open_page, store):
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    area = lambda i=0: draft(store).masks[i].area_px  # noqa: E731
    assert area() == 600
    page.press("b")
    page.drag((300, 200), (360, 220))
    page.settled()
    assert 600 + 800 < area() < 600 + 4000, "a stroke of the brush"
    stroke = area()
    page.press("Shift+B")
    page.drag((550, 330), (600, 330))
    page.settled()
    assert area() < stroke - 200, "the eraser"
    erased = area()
    page.press("p")
    for corner in ((100, 250), (200, 250), (200, 330), (100, 330)):
        page.point(*corner)
    page.press("Enter")
    page.settled()
    assert abs(area() - erased - 100 * 80) < 200, "the polygon"
    page.press("q")
    page.drag((20, 140), (110, 240))
    page.settled()
    assert is_disc(draft(store).masks, 0), "the box"
    page.press("ArrowRight", "f", "ArrowLeft", "g", "ArrowRight", "ArrowRight", "g")
    page.settled()
    page.until(lambda: len(store.operations("track-1")) == 6)
    assert [area(i) for i in (0, 4, 8, 12)] == [0, 600, 0, 600], "absent, but where the frame is locked"
    page.tab.reload()
    page.correcting(0)
    assert page.look()["mask"] is None, "the reload shows what was there"
    seen = []
    for _ in range(6):
        page.press("Control+z")
        page.settled()
        page.until(lambda: len(store.operations("track-1")) == 7 + len(seen))
        seen.append(area())
    assert seen[0] == int(mask(0).sum()) and abs(seen[2] - erased - 8000) < 200 and seen[3:] == [erased, stroke, 600]
    assert draft(store).locked == set()
    for _ in range(6):
        page.press("Control+Shift+Z")
    page.settled()
    page.until(lambda: len(store.operations("track-1")) == 18)
    assert [area(i) for i in (0, 4, 8)] == [0, 600, 0] and draft(store).locked == {4}


def test_a_click_lands_where_it_is_seen_also_when_zoomed(open_page, store):
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    page.tab.mouse.move(*page.on_screen(*centre(8)))
    for _ in range(4):
        page.tab.mouse.wheel(0, -120)
    page.point(*centre(8))
    page.settled()
    prompt = json.loads(store.operations("track-1")[0].payload)
    assert np.allclose(prompt["points_xy"], [centre(8)], atol=1.0) and prompt["labels"] == [1]
    x, y = centre(8)
    page.point(x + 50, y, button="right")
    page.settled()
    prompt = json.loads(store.operations("track-1")[1].payload)
    assert prompt["labels"] == [1, 0] and abs(prompt["points_xy"][1][0] - x - 50) < 1


def test_a_propagation_stops_at_once_and_leaves_nothing(open_page, store):
    open_page.model.frame_s = 0.15
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    page.point(*centre(8))
    page.settled()
    before = draft(store).masks
    page.press("t")
    page.until(lambda: "Propagating" in page.text("#badges"))
    page.press("Escape")
    page.settled()
    page.until(lambda: [o.kind for o in store.operations("track-1")] == ["prompt", "propagate", "undo"])
    assert draft(store).masks == before
    assert page.tab.get_attribute("body", "data-view") == "work", "Escape only stopped it"
    page.press("t")
    page.until(lambda: "Propagating" in page.text("#badges"))
    page.press("ArrowRight")
    page.at(12)
    page.point(*centre(12))  # a click does not wait for the propagation, it ends it
    page.settled()
    page.until(lambda: is_disc(draft(store).masks, 12))
    assert not is_disc(draft(store).masks, 16)


def test_what_was_done_offline_survives_the_tab(open_page, store):
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    page.context.set_offline(True)
    page.press("b")
    page.drag((300, 200), (360, 220))
    page.press("f")
    page.until(lambda: "2 changes kept here" in page.text("#save"))
    assert store.operations("track-1") == []
    page.tab.close()
    page.tab = page.context.new_page()
    page.context.set_offline(False)
    page.tab.goto(page.url)
    page.until(lambda: [o.kind for o in store.operations("track-1")] == ["stroke", "lock"])
    assert draft(store).locked == {0} and draft(store).masks[0].area_px > 1400


def test_work_under_a_lost_lease_is_kept_as_a_branch(open_page, store):
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    page.context.set_offline(True)
    page.press("f")
    page.until(lambda: "1 change kept here" in page.text("#save"))
    ticket = store.ticket("track-1")
    ann = Person(name="ann", roles=frozenset({Role.ANNOTATOR}))
    store.release("track-1", ticket.lease_token, ann)
    store.claim(Person(name="bob", roles=frozenset({Role.ANNOTATOR})), claim_id="bob")
    page.context.set_offline(False)
    page.until(lambda: [o.kind for o in store.operations("track-1", branch=True)] == ["lock"])
    page.shows("message")
    assert "went back to the queue" in page.text("#message")
    assert store.operations("track-1") == []
    lead = open_page()
    lead.log_in("lea")
    lead.shows("message")
    lead.tab.goto(f"{page.url}/web/lead.html")
    lead.until(lambda: "track-1" in lead.text("#branches") and "lock" in lead.text("#branches"))


def corrects_through(chromium, uri, kill, start):
    """An annotator corrects a ticket while a part is killed in the middle of a propagation, and started again."""
    server = ServerProcess(uri, tracks=1, frames=FRAMES, slow=0.1)
    server.start()
    context = chromium.new_context(viewport={"width": 1280, "height": 720})
    try:
        page = Page(context, server.url)
        page.log_in("ann")
        page.correcting(8)
        page.point(*centre(8))
        page.settled()
        page.press("y")
        page.until(lambda: "Propagating" in page.text("#badges"))
        kill(server)
        page.press("f")  # work goes on
        page.until(lambda: "kept here" in page.text("#save"))
        start(server)
        page.settled()
        database = Database(uri)
        store = Store(database)
        found = draft(store, "track-0")
        assert found.locked == {8} and all(is_disc(found.masks, i) for i in found.frame_idx)
        page.press("Enter")
        page.until(lambda: store.ticket("track-0").state is State.DONE)
        database.close()
        assert page.problems == []
    finally:
        context.close()
        server.kill()


def test_a_killed_server_costs_an_annotator_nothing(chromium, uri):
    corrects_through(chromium, uri, lambda server: server.kill(), lambda server: server.start())


def test_a_killed_database_costs_an_annotator_nothing(chromium, postgres_server):
    """SIGKILL to every process of a PostgreSQL of its own, with fsync, while the queue's server lives on."""
    postgres = PrivatePostgres()
    postgres.start()
    try:
        corrects_through(chromium, postgres.uri, lambda _: postgres.kill(), lambda _: postgres.start())
    finally:
        postgres.close()


def test_a_reload_in_the_middle_of_a_propagation_finishes_it(open_page, store):
    open_page.model.frame_s = 0.05
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    page.point(*centre(8))
    page.settled()
    page.press("y")
    page.until(lambda: "Propagating" in page.text("#badges"))
    page.tab.reload()
    page.correcting(8)
    page.settled()
    page.until(lambda: all(is_disc(draft(store).masks, i) for i in range(0, FRAMES, STRIDE)))


def test_the_page_and_the_server_derive_the_same_draft(open_page):
    """Random operations, undone and redone, through draft.js and refine.py."""
    chance = np.random.default_rng(7)
    base = track_ticket(frame_count=48).masklet
    frames = base.frame_idx
    sent, versions = [], []
    for n in range(120):
        frame = int(chance.choice(frames))
        kind = str(chance.choice(["prompt", "stroke", "lock", "absent", "clear", "propagate", "undo", "redo"]))
        payload = {
            "prompt": {"points_xy": [[1.0, float(n)]], "labels": [1]},
            "stroke": {"mask_rle": rle.encode(mask(frame)).decode()},
            "lock": {"on": bool(chance.random() < 0.6)},
            "absent": {"first": frame, "last": frame + 8},
            "propagate": {"direction": "both"},
        }.get(kind, {})
        if kind in ("undo", "redo"):  # the page takes them off a stack: the last one that stands, the last undone one
            stack = open_page_stacks(sent)[kind]
            if not stack:
                continue
            payload = {"operation_id": stack[-1]}
        sent.append({"operation_id": f"o{n}", "kind": kind, "frame_idx": frame, "payload": payload})
        if kind in ("prompt", "propagate") and chance.random() < 0.8:
            reached = [frame] if kind == "prompt" else [i for i in frames if abs(i - frame) < 16]
            made = [
                {"frame_idx": i, "rle": rle.encode(mask(i + n)).decode(), "area_px": int(mask(i + n).sum()),
                 "score": 0.5, "object_score": 1.0, "stability": 1.0}
                for i in reached
            ]  # fmt: skip
            versions.append({"operation_id": f"o{n}", "frames": made, "checkpoint": "c", "round": 1})
    seen = open_page().tab.evaluate(
        """async ([base, operations, versions]) => {
          const { Draft } = await import("/web/draft.js");
          const draft = new Draft({}, base, base, base.frame_idx);
          for (const version of versions) draft.versions.set(version.operation_id, version);
          for (const operation of operations) draft.add(operation);
          return {
            masks: draft.frames.map((i) => draft.masks.get(i).rle),
            edited: [...draft.edited], locked: [...draft.locked],
            prompts: [...draft.prompts.keys()].filter((i) => draft.prompts.get(i)),
          };
        }""",
        [json.loads(MASKLET.dump_json(base)), sent, versions],
    )
    operations = [
        Operation(ticket_id="t", batch_id="b", video_id="v", masklet_id="m", person="ann", created_at="", seq=n,
                  **(o | {"payload": json.dumps(o["payload"])}))
        for n, o in enumerate(sent)
    ]  # fmt: skip
    known = {v["operation_id"]: TypeAdapter(Version).validate_python(v) for v in versions}
    expected = draft_of((HEIGHT, WIDTH), frames, base, operations, known)
    assert seen["masks"] == [expected.masks[i].rle.decode() for i in frames]
    assert set(seen["locked"]) == expected.locked
    unanswered = {o["frame_idx"] for o in sent if o["kind"] == "prompt" and o["operation_id"] not in known}
    assert set(seen["edited"]) - unanswered == expected.edited - unanswered


def open_page_stacks(sent):
    done, undone = [], []
    for o in sent:
        if o["kind"] == "undo":
            undone.append(done.pop(done.index(o["payload"]["operation_id"])))
        elif o["kind"] == "redo":
            done.append(undone.pop(undone.index(o["payload"]["operation_id"])))
        else:
            done.append(o["operation_id"])
            undone.clear()
    return {"undo": done, "redo": undone}


def test_phase_1_offers_no_propagation(open_page, store):
    store.open_batch("b", [track_ticket(phase="1", frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    assert page.tab.is_disabled("#tool-forward") and page.tab.is_enabled("#tool-click")
    page.press("t")
    page.until(lambda: "masked by itself" in page.text("#notice"))
    assert store.operations("track-1") == []


def test_one_who_verifies_and_corrects_chooses(open_page, store):
    store.open_batch("b", [track_ticket(frame_count=FRAMES), *tickets(3, FRAMES)])
    page = open_page()
    page.log_in("lea")
    page.paused_at_start()
    page.until(lambda: page.tab.is_visible("#turn"))
    page.tab.click("#turn")
    page.correcting(0)
    assert "1 of 3" not in page.text("#left")
    page.press("x", "7")
    page.until(lambda: store.ticket("track-1").state is State.DONE)
    page.paused_at_start()
    assert page.tab.get_attribute("body", "data-kind") == "verify"


def test_a_ticket_from_nothing_is_selected_and_what_is_unmasked_is_said(open_page, store):
    select = NewTicket(ticket_id="s", kind=Kind.SELECT, video_id="video-0", phase="3", payload='{"memory": true}')
    store.open_batch("b", [select])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    assert "Not masked yet" in page.text("#badges") and "challenging" in page.text("#question")
    page.press("Enter")
    page.until(lambda: "no mask yet" in page.text("#notice"))
    page.point(*centre(0))
    page.settled()
    page.press("Enter")
    page.until(lambda: "38 frames were never masked" in page.text("#notice"))
    page.press("Enter")
    page.until(lambda: store.ticket("s").state is State.DONE)
    assert store.ticket(store.ticket("s").next_ticket_id).kind is Kind.TRACK


def test_the_other_objects_of_the_video_can_be_seen(open_page, store):
    """Where something new is to be found they are shown from the start."""
    done, mine = tickets(1, FRAMES)[0], track_ticket(frame_count=FRAMES)
    select = NewTicket(ticket_id="s", kind=Kind.SELECT, video_id="video-0", phase="3", priority=-1)
    store.open_batch("b", [done, mine, select])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    sky = "c => [...document.querySelector('#screen').getContext('2d').getImageData(c[0], c[1], 1, 1).data]"
    before = page.tab.evaluate(sky, list(centre(8)))
    page.press("v")
    page.until(lambda: page.tab.evaluate(sky, list(centre(8))) != before)
    page.press("v")
    page.until(lambda: page.tab.evaluate(sky, list(centre(8))) == before)
    assert page.tab.get_attribute("#others", "aria-pressed") == "false"
    page.press("x", "7")
    page.correcting(8)
    assert store.ticket("s").leased_by == "ann"
    page.until(lambda: page.tab.evaluate(sky, list(centre(8))) != before)


def test_several_objects_of_a_video_are_masked_side_by_side(open_page, store):
    """N begins another object, M goes from one to the next; each keeps its draft, and after a reload, too."""
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    page.press("f")  # the first object has a locked frame now
    page.settled()
    page.press("n")
    page.until(lambda: "Not masked yet" in page.text("#badges"))
    assert page.named() == 8, "the eye stays where it was"
    [lane] = page.tab.query_selector_all("#lanes .lane")
    assert "yours" in lane.inner_text() and lane.query_selector(".touched")
    page.point(*centre(8))
    page.settled()
    page.until(lambda: "Not masked yet" not in page.text("#badges"))
    page.press("m")
    page.until(lambda: "Locked" in page.text("#badges"))
    page.press("m")
    page.until(lambda: "Locked" not in page.text("#badges") and "1 click" in page.text("#facts"))
    page.tab.reload()
    page.correcting(8)
    page.until(lambda: "Locked" not in page.text("#badges") and "1 click" in page.text("#facts"))
    page.press("m")
    page.until(lambda: "Locked" in page.text("#badges"))
    page.press("v", "v")
    page.tab.click("#lanes .lane.mine")
    page.until(lambda: "1 click" in page.text("#facts"))
    page.press("Enter", "Enter")
    opened = next(t.ticket_id for t in store.tickets() if t.ticket_id not in ("track-1",) and t.attempt == 1)
    page.until(lambda: store.ticket(opened).state is State.DONE)
    page.until(lambda: "Locked" in page.text("#badges") or page.named() >= 0)
    assert store.ticket("track-1").leased_by == "ann", "the first one comes back by itself"
    assert page.problems == []


def test_an_object_that_was_begun_by_mistake_is_dropped(open_page, store):
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    page.press("n")
    page.until(lambda: "Not masked yet" in page.text("#badges"))
    page.press("Escape")
    page.until(lambda: "Not masked yet" not in page.text("#badges"))
    page.settled()
    states = sorted((t.kind, t.state) for t in store.tickets())
    assert states == [(Kind.TRACK, State.DONE), (Kind.TRACK, State.LEASED)]


def test_stopping_a_propagation_costs_nothing_that_was_done_before_it(open_page, store):
    """A stroke whose request the network swallowed, a propagation behind it, and Escape."""
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    page.context.set_offline(True)
    page.press("b")
    page.drag((300, 200), (360, 220))
    page.press("t")
    page.until(lambda: "2 changes kept here" in page.text("#save"))
    page.press("Escape")
    page.context.set_offline(False)
    page.settled()
    page.until(lambda: [o.kind for o in store.operations("track-1")] == ["stroke", "propagate", "undo"])
    assert draft(store).masks[0].area_px > 1400 and page.tab.get_attribute("body", "data-view") == "work"
    assert not any(call.startswith("track") for call in open_page.model.calls), "the model is not asked in vain"


def test_what_waits_for_the_model_is_undone_by_escape_and_answered_after_a_redo(open_page, store):
    open_page.model.click_s = 1.0
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    page.point(*centre(8))
    page.until(lambda: "at work" in page.text("#badges"))
    page.press("Escape")
    page.settled()
    page.until(lambda: [o.kind for o in store.operations("track-1")] == ["prompt", "undo"])
    assert page.tab.get_attribute("body", "data-view") == "work" and not is_disc(draft(store).masks, 8)
    page.press("Control+Shift+Z")
    page.settled()
    page.until(lambda: is_disc(draft(store).masks, 8))
    assert page.look()["mask"] is not None
    page.press("Enter")
    page.until(lambda: store.ticket("track-1").state is State.DONE)


def test_a_ticket_goes_back_after_what_was_done_in_it(open_page, store):
    """Escape while a stroke waits behind a slow click: it is in the draft, not beside it."""
    open_page.model.click_s = 1.5
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    page.point(*centre(8))
    page.press("ArrowRight", "b")
    page.at(12)
    page.drag((300, 200), (360, 220))
    page.press("f")
    page.tab.evaluate("document.querySelector('#verdicts .back').click()")
    page.shows("message")
    page.until(lambda: store.ticket("track-1").state is State.OPEN)
    assert [o.kind for o in store.operations("track-1")] == ["prompt", "stroke", "lock"]
    assert store.operations("track-1", branch=True) == [] and draft(store).locked == {12}


def test_a_reload_after_working_offline_shows_and_submits_all_of_it(open_page, store):
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    page.context.set_offline(True)
    for _ in range(6):
        page.press("f", "ArrowRight")
    page.until(lambda: "6 changes kept here" in page.text("#save"))
    page.context.set_offline(False)
    page.tab.reload()
    page.correcting(0)
    page.settled()
    page.until(lambda: page.tab.get_attribute("#tool-lock", "aria-pressed") == "true")
    shown = []
    for frame_idx in range(0, 28, STRIDE):
        page.at(frame_idx)
        shown.append("Locked" in page.text("#badges"))
        page.press("ArrowRight")
    assert draft(store).locked == set(range(0, 24, STRIDE)), store.operations("track-1")
    assert shown == [True] * 6 + [False]


@pytest.mark.parametrize("status", [200, 403, 413])
def test_only_the_queue_itself_can_say_that_something_is_kept(open_page, store, status):
    """A proxy's login page in between is no answer."""
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    html = {"status": status, "content_type": "text/html", "body": "<html>Please log in</html>"}
    page.tab.route("**/operations", lambda route: route.fulfill(**html))
    page.press("f")
    page.until(lambda: "1 change kept here" in page.text("#save"))
    page.tab.wait_for_timeout(700)
    assert "1 change kept here" in page.text("#save") and store.operations("track-1") == []
    page.tab.unroute("**/operations")
    page.settled()
    page.until(lambda: draft(store).locked == {0})


def test_a_take_back_whose_answer_is_lost_is_made_once(open_page, store):
    store.open_batch("b", tickets(3, FRAMES))
    page = open_page()
    page.log_in()
    page.paused_at_start()
    first = page.text("#facts")
    page.press("a")
    page.until(lambda: page.text("#save") == "Saved" and page.named() >= 0)
    lost = []

    def lose(route):
        if lost:
            return route.continue_()
        lost.append(route.fetch())  # the server does it
        route.abort()

    page.tab.route("**/unsubmit", lose)
    page.press("Backspace")
    page.until(lambda: "Taken back" in page.text("#notice"))
    assert len(lost) == 1 and page.text("#facts") == first
    [back] = [t for t in store.tickets() if [o.kind for o in store.operations(t.ticket_id)] == ["verdict", "unsubmit"]]
    assert back.leased_by == "vera"


def test_a_lock_keeps_the_mask_that_was_seen(open_page, store):
    open_page.model.frame_s = 0.1
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    page.point(*centre(8))
    page.settled()
    before = draft(store).masks[24]
    page.press("t")
    page.until(lambda: "Propagating" in page.text("#badges"))
    for _ in range(4):
        page.press("ArrowRight")
    page.at(24)
    page.press("f")
    page.settled()
    page.until(lambda: draft(store).locked == {24})
    assert draft(store).masks[24] == before


def test_a_ticket_that_is_put_back_keeps_its_draft(open_page, store):
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    page.press("f")
    page.settled()
    page.press("Escape")
    page.shows("message")
    page.until(lambda: store.ticket("track-1").state is State.OPEN)
    page.press("Enter")
    page.correcting(0)
    assert "Locked" in page.text("#badges")


def test_a_key_can_be_chosen_and_given_back(open_page, store):
    store.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    page.press("?")
    page.tab.click("#keys .rebind:has(+ span:text('lock this frame, or unlock it'))")
    page.press("k", "Escape", "k")
    page.settled()
    page.until(lambda: [o.kind for o in store.operations("track-1")] == ["lock"])
    page.tab.reload()
    page.correcting(0)
    page.press("f")
    page.tab.wait_for_timeout(100)
    assert len(store.operations("track-1")) == 1, "f means nothing now"
    page.press("?")
    page.tab.click("#reset-keys")
    page.press("Escape", "f")
    page.until(lambda: len(store.operations("track-1")) == 2)
