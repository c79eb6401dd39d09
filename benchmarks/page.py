"""The review page in a real browser: from the key or the pointer to the paint, and whether the right frame is painted.

    python -m benchmarks.page [--quick] [--json] [--seeks 10000] [--browser chromium|firefox|PATH]

The real server as a process, `micro` as its model, a store with ingested videos whose frames carry their own number as
black and white blocks. A time ends at the animation frame after the one that painted. `--quick` does the same with
fewer actions, which the counts show. Milliseconds depend on the machine; the gates are `wrong_frames` and the counts.
In Firefox the verifier's half is measured: frames, steps, verdicts.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, sync_playwright

from annotation_queue.records import Kind, NewTicket, Role
from benchmarks import firefox
from engine import ingest, phases, serve
from engine.serve import QueueProcess
from engine.services import Services, connect
from engine.settings import IngestSettings, ModelSettings, QueueSettings, Settings
from storage import rle, video
from storage.records import STRIDE, Masklet, Video

HEIGHT, WIDTH = 720, 1280
BLOCK, BITS = 16, 12  # px and number of the blocks that carry a frame's number
PASSWORD = "benchmark password"
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

# Waits, in the page, for an event of the canvas, and for the frame after it; ms from `before()` to then.
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

CLICK = """
async ([x, y]) => {
  const point = { clientX: x, clientY: y, bubbles: true, pointerId: 1, button: 0, buttons: 1, isPrimary: true };
  const answered = window.watch("answered", (kind) => kind === "prompt");
  const before = performance.now();
  document.querySelector("#screen").dispatchEvent(new PointerEvent("pointerdown", point));
  return (await answered) - before;
}
"""


LOG_IN = """
([name, password]) => {
  document.querySelector("#login-name").value = name;
  document.querySelector("#login-password").value = password;
  document.querySelector("#login-form").requestSubmit();
}
"""


class Tab(Protocol):
    """What is asked of a tab of any browser."""

    def evaluate(self, expression: str, arg: Any = None, /) -> Any: ...


def disc(frame_idx: int) -> tuple[int, int]:
    """Where the disc is on a frame, px."""
    return 200 + 3 * frame_idx % 800, int(400 + 120 * np.sin(frame_idx / 20))


def picture(frame_idx: int, ground: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame that carries its number, with a disc over noise: uint8 (HEIGHT, WIDTH, 3)."""
    image = ground.copy()
    cv2.circle(image, disc(frame_idx), 90, (214, 130, 70), -1, cv2.LINE_AA)
    for bit in range(BITS):
        colour = (255, 255, 255) if frame_idx >> bit & 1 else (0, 0, 0)
        cv2.rectangle(image, (bit * BLOCK, 0), (bit * BLOCK + BLOCK - 1, BLOCK - 1), colour, -1)
    return image


def masklet(of: Video, number: int) -> Masklet:
    """The disc's true masklet."""
    frames = tuple(range(0, of.frame_count, STRIDE))
    masks = []
    for i in frames:
        canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.circle(canvas, disc(i), 90, 1, -1)
        masks.append(canvas.astype(bool))
    return Masklet(
        masklet_id=f"{of.video_id}-{number}",
        video_id=of.video_id,
        batch_id="",
        height=HEIGHT,
        width=WIDTH,
        frame_idx=frames,
        rle=tuple(rle.encode(m) for m in masks),
        area_px=tuple(int(m.sum()) for m in masks),
        score=(0.9,) * len(frames),
        object_score=(5.0,) * len(frames),
        stability=(0.95,) * len(frames),
        kind="auto",
        phase="auto",
        round=0,
        checkpoint="truth",
        prompt='{"frame_idx": 0}',
    )


def fill(s: Services, folder: Path, frames: int, verify: int, track: int) -> None:
    """Ingests coded videos, and opens tickets over them: `verify` and `track` of each kind."""
    ground = np.random.default_rng(0).integers(60, 190, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    ground = np.asarray(cv2.resize(ground, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)
    for n in range(2):
        shade = np.clip(ground.astype(np.int16) + 20 * n, 0, 255).astype(np.uint8)
        video.write(folder / f"coded-{n}.mp4", (picture(i, shade) for i in range(frames)))
    ingest.run(s, str(folder))
    videos = s.tables.videos()
    store, accounts = s.open_queue()
    for name in ("ann", "bob", "vera"):
        accounts.add(name, [Role.VERIFIER if name == "vera" else Role.ANNOTATOR], PASSWORD)
    model = {v.video_id: masklet(v, 0) for v in videos}
    tickets = []
    for n in range(verify + track):
        of = videos[n % len(videos)]
        kind = Kind.VERIFY if n < verify else Kind.TRACK
        row = replace(model[of.video_id], masklet_id=f"m-{n}")
        phase = "auto" if kind is Kind.VERIFY else "3"
        payload = "{}" if kind is Kind.VERIFY else phases.payload("3")
        tickets.append(
            NewTicket(
                ticket_id=f"t-{n:05d}", kind=kind, video_id=of.video_id, masklet=row, phase=phase, payload=payload
            )
        )
    store.open_batch("benchmark", tickets)


@contextmanager
def tab(browser: Browser, url: str, name: str) -> Iterator[Page]:
    """Somebody who is logged in and has a ticket on the screen."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(url)
    page.fill("#login-name", name)
    page.fill("#login-password", PASSWORD)
    page.press("#login-password", "Enter")
    page.wait_for_selector("body[data-view=work]")
    page.evaluate(WATCH)
    yield page
    context.close()


def p95(values: list[float]) -> float:
    """The 95th percentile, rounded."""
    return round(float(np.percentile(values, 95)), 1) if values else float("nan")


def verifying(page: Tab, verdicts: int, steps: int, seeks: int, frames: int) -> dict[str, Any]:
    """Verdicts, steps and seeks of one verifier."""
    page.evaluate(KEY, " ")
    time.sleep(3)  # every frame of the ticket arrives
    rng, wrong, times = np.random.default_rng(1), 0, []
    length = -(-frames // STRIDE)
    position = -1
    for _ in range(seeks):
        position = int((position + 1 + rng.integers(length - 1)) % length)
        ms, carried, named = page.evaluate(SEEK, [position, length])
        times.append(ms)
        wrong += carried != named or named != position * STRIDE
    page.evaluate(KEY, "Home")
    time.sleep(0.3)
    stepped, handlers = [], []
    for n in range(steps):
        ms, handler = page.evaluate(PRESS, ["ArrowRight" if n % 20 < 10 else "ArrowLeft", "painted"])
        stepped.append(ms)
        handlers.append(handler)
    shown, following = [], []
    for _ in range(verdicts):
        time.sleep(1.2)  # as long as somebody looks at the least
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


def correcting(browser: Browser, url: str, clicks: int) -> dict[str, Any]:
    """Clicks of one annotator, alone and while another one propagates, and how fast a propagation is cancelled."""
    with tab(browser, url, "ann") as ann, tab(browser, url, "bob") as bob:
        for page in (ann, bob):
            page.wait_for_selector("body[data-kind=track]")
        ann.wait_for_timeout(500)
        box = ann.locator("#screen").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        ann.evaluate(CLICK, [x, y])  # the model is loaded now
        ann.wait_for_timeout(4000)  # and the embeddings are computed ahead
        alone = [ann.evaluate(CLICK, [x + 9 * n, y + 5 * n]) for n in range(clicks)]
        bob.evaluate(CLICK, [x, y])
        together: list[float] = []
        while len(together) < clicks:
            bob.evaluate("document.activeElement?.blur()")
            bob.keyboard.press("t")
            bob.wait_for_selector(".badge.busy")
            for n in range(min(4, clicks - len(together))):
                together.append(ann.evaluate(CLICK, [x - 9 * n, y - 5 * len(together)]))
            bob.keyboard.press("Escape")
            bob.wait_for_selector(".badge.busy", state="detached")
        cancels = []
        for _ in range(max(3, clicks // 4)):
            bob.keyboard.press("t")
            bob.wait_for_selector(".badge.busy")
            cancels.append(
                bob.evaluate(
                    """async () => {
                      const before = performance.now();
                      window.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
                      while (document.querySelector(".badge.busy")) await new Promise(requestAnimationFrame);
                      return performance.now() - before;
                    }"""
                )
            )
            bob.wait_for_timeout(300)
    return {
        "click_p95_ms": p95(alone),
        "click_while_propagating_p95_ms": p95(together),
        "cancel_p95_ms": p95(cancels),
        "clicks": len(alone) + len(together),
    }


def measure(path: str, *, seeks: int, verdicts: int, steps: int, clicks: int, frames: int) -> dict[str, Any]:
    """Everything, on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="masklets-page-") as folder:
        videos = Path(folder) / "videos"
        videos.mkdir()
        settings = Settings(
            home=Path(folder) / "home",
            ingest=IngestSettings(source=str(videos)),
            model=ModelSettings(checkpoint="micro", device="cpu"),
            queue=QueueSettings(port=serve.free_port()),
        )
        with connect(settings) as s:
            fill(s, videos, frames, verify=verdicts + 4, track=4)
        with QueueProcess(settings, deliver=False):
            if "firefox" in Path(path).name:
                with firefox.started(path) as fox:
                    vera = fox.tab()
                    vera.goto(settings.queue_url)
                    vera.until("() => document.body.dataset.view === 'login'")
                    vera.evaluate(LOG_IN, ["vera", PASSWORD])
                    vera.until("() => document.body.dataset.view === 'work'")
                    vera.evaluate(WATCH)
                    found = verifying(vera, verdicts, steps, seeks, frames)
                    return found | {"browser": f"Firefox {fox.version}"}
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=path, args=ARGS)
                with tab(browser, settings.queue_url, "vera") as page:
                    found = verifying(page, verdicts, steps, seeks, frames)
                found |= correcting(browser, settings.queue_url, clicks)
                found["browser"] = f"Chromium {browser.version}"
                browser.close()
                return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer actions")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeks", type=int, default=10_000)
    parser.add_argument("--browser", default="chromium", help="chromium, firefox, or the path of one")
    chosen = parser.parse_args()
    path = firefox.installed() if chosen.browser == "firefox" else shutil.which(chosen.browser)
    if path is None:
        sys.exit(f"no {chosen.browser}: install it, or give a path with --browser")
    quick: dict[str, int] = {"seeks": 60, "verdicts": 5, "steps": 40, "clicks": 6, "frames": 96}
    whole: dict[str, int] = {"seeks": chosen.seeks, "verdicts": 60, "steps": 400, "clicks": 40, "frames": 240}
    found = measure(path, **(quick if chosen.quick else whole))
    found |= {"quick": chosen.quick, "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}
    print(json.dumps(found) if chosen.json else "\n".join(f"{key:32} {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
