"""The review page in a real browser: the time from a key or the pointer to the paint, and wrong frames.

    python -m benchmarks.page [--quick] [--json] [--seeks 10000] [--browser chromium|firefox|PATH]
        [--database sqlite|postgres] [--kills 40] [--offline SECONDS]

Runs the real server as a process with `micro` as its model. The frames of the videos carry their own number as black
and white blocks (see browsers/coded.py). A time ends at the animation frame after the paint. Clicks are timed after the
server has encoded the frames. `scrub_p95_ms` is the time of a seek while the page shows all other objects of a video;
`browser_mb` is the browser's memory after these seeks. `first_streamed_mask_ms` is the time from the key to the first
mask of a propagation on screen. `stop_keeps_frames` is the share of a propagation's frames on the page that a stop
keeps. `click_count_equal` is the share of random work in which the page counts clicks as the releases do. At the end,
tabs of Chromium, the server and a private PostgreSQL are killed, and the network is cut (see kills/crashes.py).

`gold_tells` counts the fields in which answers about gold differ from those about real work (see gold_tells.py);
`axe_violations` what axe-core finds on the page while a person verifies, has the sheet and corrects, if `npm ci` has
installed it.

`--quick` does the same with fewer actions; the counts in the result show how many. Milliseconds depend on the machine.
The benchmark fails if a frame was wrong, one of these shares is below 1, an operation was lost, one crash lost more
than one operation in flight, gold differs from real work, or axe-core finds something.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
from playwright.sync_api import Browser, sync_playwright

from benchmarks import gold_tells
from benchmarks.browsers import axe, firefox
from benchmarks.browsers.click_counts import clicks_of, random_acts
from benchmarks.browsers.coded import PASSWORD, fill
from benchmarks.kills import crashes
from benchmarks.queue import database_of
from engine.processes import ports
from engine.services import connect
from engine.serving.queue_process import QueueProcess
from engine.settings import IngestSettings, ModelSettings, QueueSettings, Settings
from storage.records import STRIDE

# The page takes every verdict at once: what is timed is its answer to a key.
AT_ONCE: dict[str, Any] = {"watch_share": 0, "watch_fault_share": 0, "watch_least": 0}
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

# Defines in the page: `watch` waits for an event of the canvas and the next animation frame, and gives the time, ms;
# `number` reads the frame number from the blocks on the canvas.
WATCH = """
() => {
  const screen = document.querySelector("#screen");
  window.watch = (type, test = () => true) => new Promise((done, failed) => {
    const timer = setTimeout(() => failed(new Error(`no ${type} in 60 s`)), 60000);
    const seen = (event) => {
      if (!test(event.detail)) return;
      screen.removeEventListener(type, seen);
      clearTimeout(timer);
      requestAnimationFrame(() => setTimeout(() => done(performance.now())));
    };
    screen.addEventListener(type, seen);
  });
  window.number = (block, bits) => {
    const c = screen.getContext("2d");
    const strip = c.getImageData(0, 0, bits * block, block).data;
    let carried = 0;
    for (let bit = 0; bit < bits; bit++) {
      if (strip[4 * ((block >> 1) * bits * block + bit * block + (block >> 1))] > 127) carried += 2 ** bit;
    }
    return carried;
  };
}
"""

KEY = """
(key) => {
  window.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
}
"""

PRESS = """
async ([key, type]) => {
  const before = performance.now();
  const seen = window.watch(type);
  window.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const after = performance.now();
  return [(await seen) - before, after - before];
}
"""

VERDICT = """
async (key) => {
  const flash = document.querySelector("#flash");
  const shown = new Promise((done) => {
    const observer = new MutationObserver(() => {
      if (!flash.classList.contains("on")) return;
      observer.disconnect();
      requestAnimationFrame(() => setTimeout(() => done(performance.now())));
    });
    observer.observe(flash, { attributes: true });
  });
  const before = performance.now();
  const painted = window.watch("painted", (position) => position === 0);
  window.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  return [(await shown) - before, (await painted) - before];
}
"""

SEEK = """
async ([position, length]) => {
  const strip = document.querySelector("#timeline");
  const box = strip.getBoundingClientRect();
  const x = box.left + 74 + ((box.width - 74 - 14) * (position + 0.5)) / length;
  const point = { clientX: x, clientY: box.top + 30, bubbles: true, pointerId: 1, buttons: 1, isPrimary: true };
  const before = performance.now();
  const painted = window.watch("painted", (shown) => shown === position);
  strip.setPointerCapture = () => {};
  strip.dispatchEvent(new PointerEvent("pointerdown", point));
  const ms = (await painted) - before;
  return [ms, window.number(16, 12), Number(document.querySelector("#screen").dataset.frame)];
}
"""

LOG_IN = """
([name, password]) => {
  document.querySelector("#login-name").value = name;
  document.querySelector("#login-password").value = password;
  document.querySelector("#login-form").requestSubmit();
}
"""

# Waits until an element is on the page (or, if `there` is false, until it is gone).
AWAIT = """
async ([selector, there]) => {
  const deadline = performance.now() + 60000;
  while (Boolean(document.querySelector(selector)) !== there) {
    if (performance.now() > deadline) throw new Error(`${selector} is ${there ? "not there" : "still there"}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}
"""

CANCEL = """
async () => {
  const before = performance.now();
  window.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  const propagates = () => [...document.querySelectorAll(".badge.busy")].some((b) => b.textContent.startsWith("Prop"));
  while (propagates()) await new Promise(requestAnimationFrame);
  return performance.now() - before;
}
"""

# Propagates forward, and waits until the first mask of it is on screen.
STREAM = """
async () => {
  const before = performance.now();
  const streamed = window.watch("streamed");
  window.dispatchEvent(new KeyboardEvent("keydown", { key: "t", bubbles: true }));
  return (await streamed) - before;
}
"""

# The frames of the ticket's last propagation: those on the page, and those that the queue has.
PROPAGATED = """
async () => {
  const { session } = await import("/web/shared/session.js");
  const { draft, ticket } = session.current;
  const last = draft.done.findLast(({ kind }) => kind === "propagate").operation_id;
  const versions = await (await fetch(`/api/tickets/${ticket.ticket_id}/versions`)).json();
  const frames = (version) => (version?.frames ?? []).map(({ frame_idx }) => frame_idx);
  return [frames(draft.versions.get(last)), frames(versions.find((version) => version.operation_id === last))];
}
"""

# The clicks that the page counts in sequences of operations.
COUNT_CLICKS = """
async (sequences) => {
  const { clicksOf } = await import("/web/shared/effort.js");
  return sequences.map(clicksOf);
}
"""

OPEN_SHEET = """
() => document.querySelector("#sheet-open").click()
"""

# The middle of the picture, px of the viewport.
MIDDLE = """
() => {
  const box = document.querySelector("#screen").getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
}
"""

CLICK = """
async ([x, y]) => {
  const point = { clientX: x, clientY: y, bubbles: true, pointerId: 1, button: 0, buttons: 1, isPrimary: true };
  const answered = window.watch("answered", (kind) => kind === "prompt");
  const before = performance.now();
  document.querySelector("#screen").dispatchEvent(new PointerEvent("pointerdown", point));
  return (await answered) - before;
}
"""


class Tab(Protocol):
    """A tab of any browser."""

    def evaluate(self, expression: str, arg: Any = None, /) -> Any: ...


@contextmanager
def in_chromium(browser: Browser, url: str, name: str) -> Iterator[Tab]:
    """A tab of Chromium with a person logged in and a ticket on the screen."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(url)
    log_in(page, name)
    yield page
    context.close()


@contextmanager
def in_firefox(browser: firefox.Firefox, url: str, name: str) -> Iterator[Tab]:
    """The same in Firefox."""
    page = browser.tab(1440, 900)
    page.goto(url)
    log_in(page, name)
    yield page
    page.close()


def log_in(page: Tab, name: str) -> None:
    """Logs in on a loaded page and waits for a ticket on the screen."""
    page.evaluate(AWAIT, ["body[data-view=login]", True])
    page.evaluate(LOG_IN, [name, PASSWORD])
    page.evaluate(AWAIT, ["body[data-view=work]", True])
    page.evaluate(WATCH)


def p95(values: list[float]) -> float:
    """The 95th percentile, rounded."""
    return round(float(np.percentile(values, 95)), 1) if values else float("nan")


def sought(page: Tab, seeks: int, length: int) -> tuple[list[float], int]:
    """Seeks to random positions: the time of each in ms, and the number of wrong frames."""
    rng, wrong, times = np.random.default_rng(1), 0, []
    position = -1
    for _ in range(seeks):
        position = int((position + 1 + rng.integers(length - 1)) % length)
        ms, carried, named = page.evaluate(SEEK, [position, length])
        times.append(ms)
        wrong += carried != named or named != position * STRIDE
    return times, wrong


def verifying(page: Tab, verdicts: int, steps: int, seeks: int, frames: int) -> dict[str, Any]:
    """Times the verdicts, steps and seeks of one verifier."""
    page.evaluate(KEY, " ")
    time.sleep(frames / 80)  # until every frame of the ticket has arrived
    times, wrong = sought(page, seeks, -(-frames // STRIDE))
    page.evaluate(KEY, "Home")
    time.sleep(0.3)
    stepped, handlers = [], []
    for n in range(steps):
        ms, handler = page.evaluate(PRESS, ["ArrowRight" if n % 20 < 10 else "ArrowLeft", "painted"])
        stepped.append(ms)
        handlers.append(handler)
    shown, following = [], []
    for _ in range(verdicts):
        time.sleep(1.2)  # a person looks at least this long
        one, two = page.evaluate(VERDICT, "a")
        shown.append(one)
        following.append(two)
    return {
        "verdict_p95_ms": p95(shown),
        "next_ticket_p95_ms": p95(following),
        "step_p95_ms": p95(stepped),
        "step_handler_p95_ms": p95(handlers),
        "seek_p95_ms": p95(times),
        "seeks": seeks,
        "wrong_frames": wrong,
    }


def correcting(ann: Tab, bob: Tab, clicks: int) -> dict[str, Any]:
    """Times one annotator's clicks, alone and while another one propagates, and the cancelling of a propagation."""
    for page in (ann, bob):
        page.evaluate(AWAIT, ["body[data-kind=track]", True])
    time.sleep(0.5)
    x, y = ann.evaluate(MIDDLE)
    ann.evaluate(CLICK, [x, y])  # the model is loaded now
    until_idle()  # and the embeddings are computed ahead
    alone = [ann.evaluate(CLICK, [x + 9 * n, y + 5 * n]) for n in range(clicks)]
    bob.evaluate(CLICK, [x, y])
    together: list[float] = []
    while len(together) < clicks:
        bob.evaluate(KEY, "t")
        bob.evaluate(AWAIT, [".badge.busy", True])
        for n in range(min(4, clicks - len(together))):
            together.append(ann.evaluate(CLICK, [x - 9 * n, y - 5 * len(together)]))
        bob.evaluate(KEY, "Escape")
        bob.evaluate(AWAIT, [".badge.busy", False])
    cancels, streamed, shown, kept = [], [], 0, 0
    for _ in range(max(3, clicks // 4)):
        streamed.append(bob.evaluate(STREAM))
        on_page, _ = bob.evaluate(PROPAGATED)
        cancels.append(bob.evaluate(CANCEL))
        bob.evaluate(AWAIT, [".badge.busy", False])
        after, stored = bob.evaluate(PROPAGATED)
        shown, kept = shown + len(on_page), kept + len({*on_page} & {*after} & {*stored})
    sequences = [random_acts(n) for n in range(200)]
    counted = bob.evaluate(
        COUNT_CLICKS, [[act | {"payload": json.loads(act["payload"])} for act in s] for s in sequences]
    )
    equal = [clicks_of(acts) == n for acts, n in zip(sequences, counted, strict=True)]
    return {
        "first_streamed_mask_ms": p95(streamed),
        "stop_keeps_frames": kept / shown,
        "click_count_equal": sum(equal) / len(equal),
        "click_p95_ms": p95(alone),
        "click_while_propagating_p95_ms": p95(together),
        "cancel_p95_ms": p95(cancels),
        "clicks": len(alone) + len(together),
    }


def until_idle(patience_s: float = 60.0) -> None:
    """Waits until server and browser are idle: together they use less than a fifth of a core."""
    family = psutil.Process().children(recursive=True)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before = sum(sum(p.cpu_times()[:2]) for p in family if p.is_running())
        time.sleep(0.5)
        if sum(sum(p.cpu_times()[:2]) for p in family if p.is_running()) - before < 0.1:
            return


def checked_by_axe(page: Tab) -> list[str] | None:
    """What axe-core finds on a page; None where it is not installed."""
    source = axe.source()
    return None if source is None else axe.violations(page, source)


def crowded(page: Tab, crowd: tuple[int, int], seeks: int) -> dict[str, Any]:
    """Times seeks with all other objects of a video shown, and measures the browser's memory. Frames are fetched."""
    objects, frames = crowd
    length = -(-frames // STRIDE)
    page.evaluate(AWAIT, ["body[data-kind=track]", True])
    shown, _ = page.evaluate(PRESS, ["v", "painted"])
    for position in range(length):
        page.evaluate(SEEK, [position, length])
    times, wrong = sought(page, seeks, length)
    return {
        "objects": objects,
        "object_frames": length,
        "others_ms": round(shown, 1),
        "scrub_p95_ms": p95(times),
        "browser_mb": browser_mb(),
        "wrong_frames": wrong,
    }


def browser_mb() -> int:
    """Memory of the browser that this process started, MiB. Shared memory pages count once."""
    children = psutil.Process().children(recursive=True)
    browsers = [p for p in children if re.match("chrom|firefox", p.name())]
    family = {p.pid: p for browser in browsers for p in (browser, *browser.children(recursive=True))}
    pss = sum(int(p.memory_full_info().pss) for p in family.values())
    return round(pss / 2**20)


@dataclass(frozen=True)
class Size:
    """Number of actions of each kind."""

    seeks: int
    verdicts: int
    steps: int
    clicks: int
    frames: int  # of a video
    crowd: tuple[int, int]  # objects, and frames of their video
    kills: int
    offline_s: float


def measure(path: str, size: Size, database: str) -> dict[str, Any]:
    """Measures everything on a new server and database. database: see `benchmarks.queue`."""
    with tempfile.TemporaryDirectory(prefix="masklets-page-") as folder, ExitStack() as stack:
        uri, postgres = stack.enter_context(database_of(database))
        videos = Path(folder) / "videos"
        videos.mkdir()
        settings = Settings(
            home=Path(folder) / "home",
            ingest=IngestSettings(source=str(videos), near_duplicates=False),
            model=ModelSettings(checkpoint="micro", device="cpu"),
            queue=QueueSettings(port=ports.free_port(), database_uri=uri, **AT_ONCE),
        )
        with connect(settings) as s, ThreadPoolExecutor(1) as other:  # the server starts at the same time
            filled = other.submit(
                fill, s, videos, frames=size.frames, verify=size.verdicts + 4, track=8, crowd=size.crowd
            )
            server = stack.enter_context(QueueProcess(settings, deliver=False))
            filled.result()
        somebody: Callable[[str], AbstractContextManager[Tab]]
        if "firefox" in Path(path).name:
            chromium = None
            fox = stack.enter_context(firefox.started(path))
            found: dict[str, Any] = {"browser": f"Firefox {fox.version}"}
            somebody = partial(in_firefox, fox, settings.queue_url)
        else:
            chromium = stack.enter_context(sync_playwright()).chromium.launch(executable_path=path, args=ARGS)
            stack.callback(chromium.close)
            found = {"browser": f"Chromium {chromium.version}"}
            somebody = partial(in_chromium, chromium, settings.queue_url)
        with somebody("vera") as vera:
            found |= verifying(vera, size.verdicts, size.steps, size.seeks, size.frames)
            checked = checked_by_axe(vera)
            vera.evaluate(OPEN_SHEET)
            vera.evaluate(AWAIT, ["#tiles article.watched", True])
            checked = None if checked is None else [*checked, *(checked_by_axe(vera) or [])]
        with somebody("cara") as cara:
            more = crowded(cara, size.crowd, min(size.seeks, 600))
            found |= more | {"wrong_frames": found["wrong_frames"] + more["wrong_frames"]}
        with somebody("ann") as ann, somebody("bob") as bob:
            found |= correcting(ann, bob, size.clicks)
            checked = None if checked is None else [*checked, *(checked_by_axe(ann) or [])]
        found |= {
            "axe_violations": None if checked is None else len(checked),
            "gold_tells": len(gold_tells.everywhere()),
        }
        if chromium is not None:  # only Chromium's tabs are processes of their own
            found |= crashes.crashing(chromium, server, postgres, settings, size.kills, size.offline_s)
        return found | {"database": uri.split(":")[0].split("+")[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer actions")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeks", type=int, default=10_000)
    parser.add_argument("--browser", default="chromium", help="chromium, firefox, or the path of a browser")
    parser.add_argument("--database", default="sqlite", help="sqlite, postgres (a private server, killed too) or a URI")
    parser.add_argument("--kills", type=int, help="number of crashes")
    parser.add_argument("--offline", type=float, help="seconds of work without a network")
    chosen = parser.parse_args()
    path = firefox.installed() if chosen.browser == "firefox" else shutil.which(chosen.browser)
    if path is None:
        sys.exit(f"{chosen.browser} not found: install it, or give its path with --browser")
    quick = Size(seeks=40, verdicts=2, steps=20, clicks=3, frames=24, crowd=(10, 24), kills=2, offline_s=1.0)
    whole = Size(
        seeks=chosen.seeks, verdicts=60, steps=400, clicks=40, frames=240, crowd=(100, 1200), kills=40, offline_s=600.0
    )
    size = quick if chosen.quick else whole
    size = replace(
        size,
        kills=size.kills if chosen.kills is None else chosen.kills,
        offline_s=size.offline_s if chosen.offline is None else chosen.offline,
    )
    found = measure(path, size, chosen.database)
    found |= {"quick": chosen.quick, "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}
    print(json.dumps(found) if chosen.json else "\n".join(f"{key:32} {value}" for key, value in found.items()))
    shares = found["stop_keeps_frames"], found["click_count_equal"]
    if min(shares) < 1 or found["gold_tells"] or found["axe_violations"]:
        sys.exit(1)
    if found["wrong_frames"] or found.get("lost_operations") or found.get("in_flight_lost", 0) > 1:
        sys.exit(1)


if __name__ == "__main__":
    main()
