"""The page in a real Firefox: what another engine could do differently, frames, pictures, streams and keys."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest

from annotation_queue.api.app import create_app
from annotation_queue.database import Database
from annotation_queue.records import State
from annotation_queue.tickets.store import TicketStore
from benchmarks.browsers.firefox import Tab, installed, started
from storage.records import STRIDE, Verdict
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import (
    BLOCK,
    HASTY,
    HEIGHT,
    LOOK,
    PASSWORD,
    WIDTH,
    SyntheticMedia,
    SyntheticModel,
    add_people,
    belongs_together,
    centre,
    serving,
    track_ticket,
    verify_tickets,
)

# Where a position is on the timeline, and a pixel of the video on the screen: px of the viewport.
ON_TIMELINE = """
([position, length]) => {
  const box = document.querySelector("#timeline").getBoundingClientRect();
  return [box.left + 74 + ((box.width - 74 - 14) * (position + 0.5)) / length, box.top + 20];
}
"""
ON_SCREEN = """
([x, y, width, height]) => {
  const box = document.querySelector("#screen").getBoundingClientRect();
  const scale = Math.min(box.width / width, box.height / height);
  const [left, top] = [box.left + (box.width - width * scale) / 2, box.top + (box.height - height * scale) / 2];
  return [left + x * scale, top + y * scale];
}
"""


@pytest.fixture(scope="module")
def firefox():
    path = os.environ.get("MASKLETS_TEST_FIREFOX") or installed()
    if path is None:
        message = "no Firefox: install one, or set MASKLETS_TEST_FIREFOX"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with started(path) as browser:
        yield browser


@pytest.fixture
def tickets(sqlite_uri):
    database = Database(sqlite_uri)
    yield TicketStore(database, policy=HASTY)
    database.close()


@pytest.fixture
def page(firefox, tickets):
    """A tab at a server with the tickets, nobody logged in; whatever the page throws fails the test."""
    accounts = add_people(tickets.database)
    app = create_app(tickets, SyntheticMedia(FRAMES), accounts=accounts, segmenter=SyntheticModel())
    with serving(app) as url:
        tab = firefox.tab(1280, 720)
        tab.goto(url)
        tab.evaluate(
            """() => {
              window.problems = [];
              addEventListener("error", (event) => window.problems.push(event.message));
              addEventListener("unhandledrejection", (event) => window.problems.push(String(event.reason)));
            }"""
        )
        yield tab
        assert tab.evaluate("() => window.problems") == []
        tab.close()


def log_in(page: Tab, name: str, kind: str) -> None:
    page.until("() => document.activeElement.id === 'login-name'")
    page.press(*name, "Tab", *PASSWORD, "Enter")
    page.until("(kind) => document.body.dataset.kind === kind && document.querySelector('#screen').dataset.frame", kind)


def at(page: Tab, frame_idx: int) -> dict[str, object]:
    """What is on screen once the page names this frame."""
    page.until("(i) => Number(document.querySelector('#screen').dataset.frame) === i", frame_idx, patience_s=60)
    seen: dict[str, object] = page.evaluate(LOOK, [BLOCK, 16])
    return seen


def until(test, patience_s=60):
    deadline = time.monotonic() + patience_s
    while not test():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_firefox_shows_the_frame_of_the_mask_wherever_one_goes(page, tickets):
    tickets.open_batch("b", verify_tickets(2, FRAMES))
    log_in(page, "vera", "verify")
    page.until("() => document.querySelector('#screen').dataset.frame > 0")  # it plays by itself
    played: set[object] = set()
    while len(played) < 3:  # it plays in a loop, however slowly
        page.until("(seen) => !seen.includes(Number(document.querySelector('#screen').dataset.frame))", list(played))
        played.add(belongs_together(page.evaluate(LOOK, [BLOCK, 16])))
    chance = np.random.default_rng(5)
    length = FRAMES // STRIDE
    for position in chance.integers(length, size=40):
        page.click(*page.evaluate(ON_TIMELINE, [int(position), length]))
        assert belongs_together(at(page, int(position) * STRIDE)) == position * STRIDE
    page.press("Home")
    at(page, 0)
    for index in range(STRIDE, 10 * STRIDE, STRIDE):
        page.press("ArrowRight")
        assert belongs_together(at(page, index)) == index
    page.press("End")
    at(page, FRAMES - STRIDE)
    page.press("a")
    until(lambda: len(tickets.find(state=State.DONE)) == 1)
    done = tickets.find(state=State.DONE)[0]
    assert done.verdict is Verdict.ACCEPT and tickets.operations(done.ticket_id)[0].frame_idx == FRAMES - STRIDE
    page.until("() => document.querySelector('#save').textContent.includes('Saved')")


def test_firefox_corrects_with_clicks_and_streams_and_keeps_what_was_done(page, tickets):
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES)])
    log_in(page, "ann", "track")
    page.press("Home", "ArrowRight", "ArrowRight")
    at(page, 8)
    page.click(*page.evaluate(ON_SCREEN, [*centre(8), WIDTH, HEIGHT]))
    idle = (
        "() => document.querySelector('#save').textContent.includes('Saved') && !document.querySelector('.badge.busy')"
    )
    until(lambda: len(tickets.operations("track-1")) == 1)
    page.until(idle, patience_s=60)
    prompt = json.loads(tickets.operations("track-1")[0].payload)
    assert np.allclose(prompt["points_xy"], [centre(8)], atol=1.5)
    assert belongs_together(page.evaluate(LOOK, [BLOCK, 16])) == 8
    page.press("y")
    until(lambda: len(tickets.operations("track-1")) == 2)
    page.until(idle, patience_s=60)
    page.press("f", "End")
    for index in (FRAMES - STRIDE, FRAMES - 2 * STRIDE):
        assert belongs_together(at(page, index)) == index, "the propagation came to the end"
        page.press("ArrowLeft")
    page.press("Enter")
    until(lambda: tickets.ticket("track-1").state is State.DONE)
    assert [o.kind for o in tickets.operations("track-1")] == ["prompt", "propagate", "lock", "submit"]
