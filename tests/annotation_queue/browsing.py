"""A person at the page, for tests: pressing keys, waiting for what the page shows, and looking at it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from annotation_queue.refinement.live import Live
from storage import rle
from storage.records import STRIDE
from tests.annotation_queue.synthetic_queue import (
    BLOCK,
    HEIGHT,
    LOOK,
    PASSWORD,
    WIDTH,
    SyntheticMedia,
    SyntheticModel,
    mask,
)

# The tests of the page use SQLite: what the page does is the same on every database. These few run on both.
EVERY_DATABASE = pytest.mark.parametrize("uri", ["sqlite", "postgres"], indirect=True)
FRAMES = 156  # a clip: long enough for the disc to pass behind the pillar


# The opaque pixels of the outlines around a point of the window, as [red, green, blue].
OUTLINED = """
([x, y, reach]) => {
  const canvas = document.querySelector("#outline");
  const { left, top, width } = canvas.getBoundingClientRect();
  const [ratio, side] = [canvas.width / width, 2 * reach + 1];
  const corner = [(x - left) * ratio - reach, (y - top) * ratio - reach].map(Math.round);
  const { data } = canvas.getContext("2d").getImageData(...corner, side, side);
  return Array.from({ length: side * side }, (_, i) => [...data.slice(4 * i, 4 * i + 4)])
    .filter((pixel) => pixel[3] === 255)
    .map((pixel) => pixel.slice(0, 3));
}
"""

# The ticket that a person works on or looks at, once a frame of it is on screen; null before.
TICKET = """
Promise.all([import("/web/shared/session.js"), import("/web/ticket/screen.js")]).then(([{ session }, { player }]) => {
  const held = session.current;
  return held && player.held === held && player.shown >= 0 ? held.ticket.ticket_id : null;
})
"""
# The ticket that comes next, once all of it has been fetched; null if the queue has none.
AHEAD = """
import("/web/shared/session.js")
  .then(({ session }) => session.ahead?.promise)
  .then((held) => held?.ticket.ticket_id ?? null)
"""


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

    def until(self, test, patience_s=60):
        """Wait until `test()` is true. The page's security policy forbids waiting inside the page."""
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
        """Wait until this frame is on screen. The caller knows that another frame was there before."""
        self.until(lambda: self.named() == frame_idx)
        return self.look()

    def ticket(self):
        """The id of the ticket of which a frame is on screen, or None.

        After an answer, the frame of the ticket before stays on screen until the next one is here.
        """
        return self.tab.evaluate(TICKET)

    def ahead(self):
        """Wait until the queue has given the ticket after the one on screen. Its id, or None if there is none."""
        return self.tab.evaluate(AHEAD)

    def shows(self, view):
        """Wait for this part of the page. A message may be the one that the next ticket is fetched: see `says`."""
        self.until(lambda: self.tab.is_visible(f"body[data-view={view}]"))

    def says(self, *texts):
        """Wait for a message, in place of a ticket, with all of these texts."""
        self.shows("message")
        self.until(lambda: all(text in self.text("#message") for text in texts))

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

    def outlined(self, x, y):
        """The colours of the outlines within 2 px of the screen around a point of the video."""
        return {tuple(pixel) for pixel in self.tab.evaluate(OUTLINED, [*self.on_screen(x, y), 2])}

    def correcting(self, frame_idx=0):
        """Wait for a ticket to correct, and go to a frame of it."""
        self.shows("work")
        self.until(lambda: self.ticket() and self.tab.get_attribute("body", "data-kind") == "track")
        self.press("Home", *["ArrowRight"] * (frame_idx // STRIDE))
        self.at(frame_idx)

    def settled(self):
        """Wait until everything is saved and the model is idle."""
        self.until(lambda: self.text("#save") == "Saved" and self.tab.locator(".badge.busy").count() == 0)

    def paused_at_start(self):
        """Wait for a ticket on screen, pause it and go to its first frame."""
        self.shows("work")
        self.until(self.ticket)
        self.press("Home")
        self.until(lambda: self.named() == 0)


def shapes(seed):
    """Masks of many kinds: empty, full, one pixel, noise, blobs, and a shape that touches the frame's border."""
    chance = np.random.default_rng(seed)
    masks = [np.zeros((5, 7), bool), np.ones((5, 7), bool), np.arange(35).reshape(5, 7) == 17, mask(24)]
    masks += [chance.random((31, 23)) > p for p in (0.02, 0.2, 0.8)]
    return masks + [np.roll(mask(24), -40, axis=1) | mask(60), np.pad(np.ones((30, 20), bool), ((9, 0), (12, 8)))]


def draft(tickets, ticket_id="track-1", frames=FRAMES):
    """A ticket's draft as the server derives it."""
    return Live(tickets, SyntheticMedia(frames).info, SyntheticModel()).draft(tickets.ticket(ticket_id))


def is_disc(masks, frame_idx):
    return masks[frame_idx].rle == rle.encode(mask(frame_idx))
