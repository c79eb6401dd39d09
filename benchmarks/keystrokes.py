"""A day's work by the keyboard, counted: key presses, clicks and seconds of each act, on the real page.

    python -m benchmarks.keystrokes [--json] [--browser chromium|PATH]

Runs the real server as a process with `micro` as its model, and does each act as a person does it who knows the keys.
The page itself counts what reaches it: presses of keys, of modifiers and of the pointer. The act is done when the queue
has its result, which is checked.

`modelled_s` is the time of a practised person by the keystroke-level model: K, a key or modifier, 0.28 s (an average
typist who is no secretary); P, pointing, 1.1 s; a click 0.2 s; H, a hand from the keyboard to the mouse or back, 0.4 s;
M, preparing, 1.35 s once an act. Nobody looks at the video in it: watching and deciding come on top, in every tool.
Source: Card, Moran, Newell: The keystroke-level model for user performance time with interactive systems. CACM 23(7),
1980. Differs: one M an act, not one before each chunk.

`machine_s` is what the page and the model took in this run: from the first key until the queue has the result. It
depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from annotation_queue.records import Kind, NewTicket, State
from annotation_queue.tickets.ontologies import Ontologies
from annotation_queue.tickets.store import TicketStore
from benchmarks.browsers.coded import PASSWORD, fill
from benchmarks.page import ARGS, AT_ONCE, MIDDLE
from engine.processes import ports
from engine.services import connect
from engine.serving.queue_process import QueueProcess
from engine.settings import IngestSettings, ModelSettings, QueueSettings, Settings
from storage.ontology import ObjectClass, Ontology

K_S, P_S, CLICK_S, H_S, M_S = 0.28, 1.1, 0.2, 0.4, 1.35
FRAMES = 48  # of a video: 12 annotated ones
PATIENCE_S = 120.0

# Counts presses from now on. A key that is held counts once.
COUNT = """
() => {
  window.pressed = { keys: 0, modifiers: 0, clicks: 0, hands: 0, hand: "keys" };
  const turn = (to) => {
    if (window.pressed.hand !== to) window.pressed.hands++;
    window.pressed.hand = to;
  };
  if (window.counts) return;
  window.counts = true;
  addEventListener("keydown", ({ key, repeat }) => {
    if (repeat) return;
    turn("keys");
    window.pressed[["Shift", "Control", "Alt", "Meta"].includes(key) ? "modifiers" : "keys"]++;
  }, true);
  addEventListener("pointerdown", () => {
    turn("mouse");
    window.pressed.clicks++;
  }, true);
}
"""


def modelled_s(*, keys: int, modifiers: int, clicks: int, hands: int) -> float:
    """The seconds of one act by the keystroke-level model. hands: moves of a hand between keyboard and mouse."""
    return round(M_S + (keys + modifiers) * K_S + clicks * (P_S + CLICK_S) + hands * H_S, 2)


@dataclass(frozen=True, kw_only=True)
class Act:
    """One act, counted."""

    keys: int
    modifiers: int
    clicks: int
    hands: int  # moves of a hand between keyboard and mouse
    modelled_s: float
    machine_s: float


class Bench:
    """A person at a tab of the page, and the queue that they work for."""

    def __init__(self, page: Page, tickets: TicketStore) -> None:
        self.page, self.tickets = page, tickets
        self._begun = 0.0

    def begin(self) -> None:
        """Count from now on."""
        self.page.evaluate(COUNT)
        self._begun = time.monotonic()

    def end(self, done: Callable[[], bool]) -> Act:
        """What was pressed since `begin`, once the act is done. Raises TimeoutError."""
        self.until(done)
        machine_s = time.monotonic() - self._begun
        seen = self.page.evaluate("() => window.pressed")
        counts = {name: int(seen[name]) for name in ("keys", "modifiers", "clicks", "hands")}
        return Act(**counts, modelled_s=modelled_s(**counts), machine_s=round(machine_s, 2))

    def until(self, done: Callable[[], bool]) -> None:
        """Wait for the page or the queue. Raises TimeoutError."""
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain; the page says: {self.page.inner_text('body')[:300]}")
            self.page.wait_for_timeout(5)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def frame(self) -> int:
        """The frame_idx on screen, or -1."""
        return int(self.page.get_attribute("#screen", "data-frame") or -1)

    def ready(self, kind: str) -> str:
        """The id of the ticket on screen, once it is of this kind and its first frame is shown."""
        self.until(lambda: self.page.get_attribute("body", "data-view") == "work" and self.frame() >= 0)
        self.until(lambda: self.page.get_attribute("body", "data-kind") == kind)
        found = "() => import('/web/shared/session.js').then(({ session }) => session.current?.ticket.ticket_id ?? '')"
        self.until(lambda: bool(self.page.evaluate(found)))
        return str(self.page.evaluate(found))

    def at_start(self) -> None:
        """Pause on the first frame."""
        self.press("Home")
        self.until(lambda: self.frame() == 0)

    def finished(self, ticket_id: str, verdict: str | None) -> Callable[[], bool]:
        """Whether the queue has this answer to a ticket."""

        def check() -> bool:
            ticket = self.tickets.ticket(ticket_id)
            return ticket.state is State.DONE and ticket.verdict == verdict

        return check

    def idle(self) -> bool:
        """Whether everything is saved and the model has answered."""
        return self.page.inner_text("#save") == "Saved" and self.page.locator(".badge.busy").count() == 0

    def log_of(self, ticket_id: str, kind: str) -> list[dict[str, Any]]:
        """The payloads of one kind of operation of a ticket."""
        return [json.loads(o.payload) for o in self.tickets.operations(ticket_id) if o.kind == kind]


def verifying(of: Bench) -> dict[str, Act]:
    """The acts of a person who verifies."""
    found = {}
    ticket = of.ready("verify")  # the one that asks for a label
    of.begin()
    of.press("1", "a")
    found["label and accept"] = of.end(of.finished(ticket, "accept"))
    assert of.tickets.ticket(ticket).label == "car"

    ticket = of.ready("verify")
    of.begin()
    of.press("a")
    found["accept"] = of.end(of.finished(ticket, "accept"))

    ticket = of.ready("verify")
    of.begin()
    of.press("x", "1")
    found["reject with a reason"] = of.end(of.finished(ticket, "reject"))

    ticket = of.ready("verify")
    of.at_start()
    of.begin()
    of.press("Shift+ArrowRight")  # ten annotated frames on
    of.until(lambda: of.frame() == 40)
    of.press("e")
    found["refine at a frame"] = of.end(of.finished(ticket, "refine"))
    assert of.tickets.operations(ticket)[-1].frame_idx == 40, "the verdict points to the frame on screen"

    ticket = of.ready("verify")
    of.begin()
    of.press("Shift+E", "2")
    found["refine with a reason"] = of.end(of.finished(ticket, "refine"))

    of.ready("verify")
    of.press("Shift+S")
    of.until(lambda: of.page.locator("#tiles article.watched").count() == 6)
    held = [ticket.ticket_id for ticket in of.tickets.find(state=State.LEASED)]
    of.begin()
    of.press(*"aaaaaa")
    six = of.end(lambda: sum(of.finished(each, "accept")() for each in held) >= 6)
    found["accept six on the sheet"] = six
    return found


def correcting(of: Bench) -> dict[str, Act]:
    """The acts of a person who corrects."""
    found = {}
    ticket = of.ready("track")
    of.at_start()
    of.until(of.idle)
    x, y = of.page.evaluate(MIDDLE)
    of.begin()
    of.press("ArrowRight")
    of.until(lambda: of.frame() == 4)
    of.page.mouse.click(x, y)
    of.until(lambda: len(of.log_of(ticket, "prompt")) == 1 and of.idle())
    of.press("t")
    of.until(lambda: len(of.log_of(ticket, "propagate")) == 1 and of.idle())
    of.press("Enter")
    found["correct a drift"] = of.end(of.finished(ticket, None))

    ticket = of.ready("track")
    of.at_start()
    of.begin()
    of.press("g", "Shift+ArrowRight")
    of.until(lambda: of.frame() == 40)
    of.press("g")
    found["absent stretch"] = of.end(lambda: of.log_of(ticket, "absent") == [{"first": 0, "last": 40}])
    return found


def ask_for_a_label(tickets: TicketStore) -> None:
    """Opens a ticket that people get first, and that needs one of two classes before its masklet is accepted."""
    classes = (ObjectClass(name="car", colour="#e6194b", key="1"), ObjectClass(name="bus", colour="#3cb44b", key="2"))
    version = Ontologies(tickets.database, tickets.clock).add(Ontology(classes=classes))
    like = tickets.find(kind=Kind.VERIFY, limit=1)[0]
    masklet = replace(tickets.masklet(like.ticket_id), masklet_id="labelled")
    rules = json.loads(like.payload) | {"ontology": version, "label_at": "verify"}
    ticket = NewTicket(
        ticket_id="labelled",
        kind=Kind.VERIFY,
        video_id=like.video_id,
        masklet=masklet,
        phase=like.phase,
        priority=1,
        payload=json.dumps(rules),
    )
    tickets.open_batch("labelled", [ticket])


@contextmanager
def tab(browser: Any, url: str, name: str) -> Iterator[Page]:
    """A tab with a person logged in."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(url)
    page.fill("#login-name", name)
    page.fill("#login-password", PASSWORD)
    page.press("#login-password", "Enter")
    yield page
    context.close()


def measure(path: str) -> dict[str, Any]:
    """Does every act once, on a new server."""
    with tempfile.TemporaryDirectory(prefix="masklets-keys-") as folder:
        videos = Path(folder) / "videos"
        videos.mkdir()
        settings = Settings(
            home=Path(folder) / "home",
            ingest=IngestSettings(source=str(videos), near_duplicates=False),
            model=ModelSettings(checkpoint="micro", device="cpu"),
            queue=QueueSettings(port=ports.free_port(), **AT_ONCE),
        )
        with connect(settings) as s:
            fill(s, videos, frames=FRAMES, verify=10, track=3, crowd=(1, 24))
            tickets, _ = s.open_queue()
            ask_for_a_label(tickets)
            with QueueProcess(settings, deliver=False), sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=path, args=ARGS)
                with tab(browser, settings.queue_url, "vera") as page:
                    acts = verifying(Bench(page, tickets))
                with tab(browser, settings.queue_url, "ann") as page:
                    acts |= correcting(Bench(page, tickets))
                version = browser.version
                browser.close()
    return {
        "acts": {name: asdict(act) for name, act in acts.items()},
        "browser": f"Chromium {version}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--browser", default="chromium", help="chromium, or the path of one")
    chosen = parser.parse_args()
    path = shutil.which(chosen.browser)
    if path is None:
        sys.exit(f"{chosen.browser} not found: install it, or give its path with --browser")
    found = measure(path)
    if chosen.json:
        print(json.dumps(found))
        return
    for name, act in found["acts"].items():
        print(f"{name:26}" + "  ".join(f"{key} {value}" for key, value in act.items()))
    print(f"{found['browser']}, {found['machine']}")


if __name__ == "__main__":
    main()
