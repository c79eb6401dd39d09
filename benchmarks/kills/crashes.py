"""Kills a working person's tab, the queue and its database, cuts the network, and counts the lost operations.

Every act is one operation: a stroke, a lock, an absent frame, an undo, a click. The tab reports when an operation is
made, and when it is on the browser's disk.

`lost_operations` are operations that were on the disk, but not in the queue after the page was opened again and showed
"Saved". `in_flight_lost` is the largest number of operations, not yet on the disk, that one crash lost.
"""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress
from typing import Any

import psutil
from playwright.sync_api import Browser, BrowserContext, Page

from annotation_queue.records import Kind
from benchmarks.browsers.coded import PASSWORD
from benchmarks.queue import PrivatePostgres
from engine.services import connect
from engine.serving.queue_process import QueueProcess
from engine.settings import Settings

ACTS = 6  # between two crashes
WATCH = """
(() => {
  const { put } = IDBObjectStore.prototype;
  IDBObjectStore.prototype.put = function (item) {
    const id = item.body?.operation_id; // the release of a ticket has no operation
    if (id) {
      console.debug(`made ${id}`);
      this.transaction.addEventListener("complete", () => console.debug(`kept ${id}`));
    }
    return put.call(this, item);
  };
})();
"""


class Person:
    """Dan corrects one masklet, and continues after every crash."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.made: set[str] = set()
        self.kept: set[str] = set()
        self._url = url
        self._holds = "[]"
        self._chance = random.Random(3)
        self._context: BrowserContext = browser.new_context(viewport={"width": 1280, "height": 720})
        self._context.add_init_script(WATCH)
        self._page = self._open()
        self._page.fill("#login-name", "dan")
        self._page.fill("#login-password", PASSWORD)
        self._page.press("#login-password", "Enter")
        self._at_work()

    def act(self) -> None:
        """One random operation on the previous or the next frame."""
        page, keys = self._page, self._page.keyboard
        keys.press(self._chance.choice(["ArrowLeft", "ArrowRight"]))
        time.sleep(self._chance.uniform(0.05, 0.15))  # a person needs at least this long
        locked = page.locator(".badge", has_text="Locked").count() > 0
        painted = page.locator("body.buffering").count() == 0
        kind = self._chance.choice(["f", "g", "Control+z", "b", "b", "c"])
        if kind == "g":
            keys.press("g")
            keys.press("g")
        elif kind in ("b", "c") and painted and not locked:
            keys.press(kind)
            box = page.locator("#screen").bounding_box()
            assert box is not None
            x, y = (self._chance.uniform(0.4, 0.6) for _ in range(2))
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            page.mouse.down()
            if kind == "b":
                page.mouse.move(box["x"] + (x + 0.05) * box["width"], box["y"] + y * box["height"], steps=3)
            page.mouse.up()
        else:
            keys.press("Control+z" if kind == "Control+z" and len(self.made) > 1 else "f")

    def crash(self) -> None:
        """Sends SIGKILL to the tab's process at a random moment during or after an act."""
        self._holds = self._page.evaluate("sessionStorage.getItem('masklets.holds')")
        self.act()
        time.sleep(self._chance.uniform(0, 0.02))
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "--type=renderer" in process.cmdline():
                    process.kill()
        self._page.close()

    def reopen(self) -> None:
        """Opens the page again after a crash."""
        self._page = self._open()
        self._at_work()

    def offline(self, seconds: float, pause_s: float) -> int:
        """Works without a network, one act every `pause_s` seconds. Returns the number of operations."""
        before, end = len(self.made), time.monotonic() + seconds
        self._context.set_offline(True)
        while time.monotonic() < end:
            self.act()
            self._page.wait_for_timeout(1000 * pause_s)  # lets Playwright receive the page's events
        self._context.set_offline(False)
        self.saved()
        return len(self.made) - before

    def saved(self) -> None:
        """Waits until the page shows that everything is saved."""
        self._page.wait_for_selector("#save[data-state=saved]", timeout=60_000)

    def close(self) -> None:
        self._context.close()

    def _open(self) -> Page:
        page = self._context.new_page()
        page.on("console", lambda line: self._said(line.text))
        # a browser restores the session storage of a tab that crashed
        page.add_init_script(f"sessionStorage.setItem('masklets.holds', {json.dumps(self._holds)})")
        page.goto(self._url)
        return page

    def _at_work(self) -> None:
        self._page.wait_for_selector("body[data-kind=track][data-view=work]", timeout=60_000)
        self._page.wait_for_selector("#screen[data-frame]", timeout=60_000)

    def _said(self, line: str) -> None:
        what, _, operation_id = line.partition(" ")
        if what == "made":
            self.made.add(operation_id)
        elif what == "kept":
            self.kept.add(operation_id)


def crashing(
    browser: Browser,
    server: QueueProcess,
    postgres: PrivatePostgres | None,
    settings: Settings,
    kills: int,
    offline_s: float,
) -> dict[str, Any]:
    """Kills the tab and the server in turn, every fourth time both and the database too.

    Then the same person works for `offline_s` seconds without a network.
    """
    dan = Person(browser, settings.queue_url)
    missing: set[str] = set()
    tabs = servers = databases = in_flight = 0
    for n in range(kills):
        of_server, of_tab, of_database = n % 2 == 1, n % 4 != 1, n % 4 == 3 and postgres is not None
        for _ in range(ACTS):
            dan.act()
        if of_database and postgres is not None:
            postgres.kill()
        if of_server:
            _kill(server)
            for _ in range(ACTS // 2):  # the person continues to work
                dan.act()
        if of_tab:
            dan.crash()
        if of_database and postgres is not None:
            postgres.start()
        if of_server:
            server.stop()
            server.__enter__()
        if of_tab:
            dan.reopen()
        dan.saved()
        now_missing = dan.made - _arrived(settings)
        in_flight = max(in_flight, len(now_missing - missing - dan.kept))
        missing, tabs, servers = now_missing, tabs + of_tab, servers + of_server
        databases += of_database
    made = dan.offline(offline_s, pause_s=min(10.0, offline_s / 8))
    missing = dan.made - _arrived(settings)
    dan.close()
    return {
        "tab_kills": tabs,
        "server_kills": servers,
        "database_kills": databases,
        "offline_s": offline_s,
        "offline_operations": made,
        "operations": len(dan.made),
        "lost_operations": len(missing & dan.kept),
        "in_flight_lost": in_flight,
    }


def _kill(server: QueueProcess) -> None:
    """Sends SIGKILL: no handler runs, nothing is flushed."""
    [child] = [p for p in psutil.Process().children() if "engine.cli" in p.cmdline()]
    child.kill()


def _arrived(settings: Settings) -> set[str]:
    """The ids of the operations in the queue, with those that arrived after their lease had ended."""
    with connect(settings) as s:
        tickets, _ = s.open_queue()
        tracks = tickets.find(batch_id="benchmark", kind=Kind.TRACK)
        found = [o for t in tracks for branch in (False, True) for o in tickets.operations(t.ticket_id, branch=branch)]
    return {o.operation_id for o in found}
