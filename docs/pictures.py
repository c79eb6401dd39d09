"""Takes a picture of every state of the review page, from a store of its own: for the README, and to compare changes.

    python docs/pictures.py FOLDER      FOLDER/review.jpg, correct.jpg, ... and states.jpg, all of them on one sheet

Needs Debian's chromium and the project's development packages; takes about two minutes of two cores.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from annotation_queue.records import Role
from engine.ingest import ingest
from engine.processes.ports import free_port
from engine.services import connect
from engine.serving.queue_process import QueueProcess
from engine.settings import (
    AutoSettings,
    ModelSettings,
    QueueSettings,
    ReviewSettings,
    Settings,
)
from engine.stages import propose, review
from engine.synthetic import scene, video_files

CHROMIUM_NAMES = ("chromium", "chromium-headless-shell", "google-chrome")
ARGS = ["--no-sandbox", "--disable-gpu"]
PASSWORD = "for pictures only"
PEOPLE = {
    "ada": [Role.ADMIN, Role.LEAD],  # who sees the pipeline, where there are several projects
    "lea": [Role.LEAD, Role.VERIFIER],
    "ann": [Role.ANNOTATOR],
    "new": [Role.ANNOTATOR],
}
SCENE = scene.Scene(height=480, width=720, frames=96, objects=(3, 4), clutter=(1, 3), size=(0.16, 0.3), leave=0.5)
SHEET = 640  # px, the width of a picture on the sheet
PROJECTS = {"harbour": 1, "street": 2}  # their videos
ONTOLOGY = """
name = "Street"
guidelines = "guidelines.md"
classes = [
  { name = "animal", guideline = "Not toys.", attributes = [{ name = "pose", values = ["stands", "lies"] }] },
  { name = "vehicle", instances = "numbered" },
  { name = "sky", instances = "one" },
]
attributes = [{ name = "occluded", kind = "boolean" }]
"""
GUIDELINES = "# What counts\n\n- whole objects only\n- no shadows\n"

# LOOK keeps the picture on screen. MIDDLE gives the middle of the pixels that have changed since, and the size.
LOOK = """
() => {
  const screen = document.querySelector("#screen");
  window.seen = screen.getContext("2d").getImageData(0, 0, screen.width, screen.height);
}
"""
MIDDLE = """
() => {
  const { data, width, height } = window.seen;
  const now = document.querySelector("#screen").getContext("2d").getImageData(0, 0, width, height).data;
  let n = 0, x = 0, y = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] === now[i] && data[i + 1] === now[i + 1] && data[i + 2] === now[i + 2]) continue;
    n++;
    x += (i / 4) % width;
    y += Math.floor(i / 4 / width);
  }
  return [x / n, y / n, width, height];
}
"""


def settings_of(folder: Path) -> Settings:
    """An installation below a folder, with several projects and labels."""
    people = [name for name in PEOPLE if name != "new"]
    projects: Any = {name: {"people": people, "ingest": {"source": str(folder / name)}} for name in PROJECTS}
    return Settings(
        home=folder / "home",
        auto=AutoSettings(max_objects=6),
        model=ModelSettings(checkpoint="micro", device="cpu"),
        queue=QueueSettings(port=free_port(), watch_share=0, watch_fault_share=0, watch_least=0),
        review=ReviewSettings(phase="3", held_out_by_hand=True, ontology=folder / "ontology.toml", label_at="verify"),
        projects=projects,
    )


def fill(settings: Settings, folder: Path) -> None:
    """Synthetic clips of each project, the masklets that `micro` proposes on them, and people."""
    (folder / "guidelines.md").write_text(GUIDELINES)
    (folder / "ontology.toml").write_text(ONTOLOGY)
    for n, (name, count) in enumerate(PROJECTS.items()):
        video_files.write_videos(folder / name, count, SCENE, seed=10 + n)
    with connect(settings) as s:
        for name in PROJECTS:
            ingest.admit(s, project=name)
        for batch_id in propose.pending(s):
            for chunk in propose.chunks(s, batch_id):
                propose.propose_videos(s, batch_id, chunk)
            propose.finish(s, batch_id)
        _, accounts = s.open_queue()
        for name, roles in PEOPLE.items():
            accounts.add(name, roles, PASSWORD)


class Camera:
    """A browser at the page, and the folder of its pictures."""

    def __init__(self, browser: Browser, url: str, out: Path) -> None:
        self._browser, self._url, self._out = browser, url, out
        self.taken: list[Path] = []

    def tab(self, width: int = 1440, height: int = 900, look: Literal["dark", "light"] = "dark") -> Page:
        """The page in a window of that size, before the log-in."""
        context = self._browser.new_context(viewport={"width": width, "height": height}, color_scheme=look)
        page = context.new_page()
        page.goto(self._url)
        page.wait_for_selector("body[data-view=login]")
        return page

    def at_work(self, name: str, width: int = 1440, height: int = 900, look: Literal["dark", "light"] = "dark") -> Page:
        """Somebody with a ticket on the screen, all its frames fetched."""
        page = self.tab(width, height, look)
        log_in(page, name)
        page.wait_for_selector("body[data-view=work]")
        page.wait_for_selector("#screen[data-frame]")
        page.wait_for_timeout(3000)
        return page

    def take(self, page: Page, name: str, *, full: bool = False) -> None:
        path = self._out / f"{name}.jpg"
        page.screenshot(path=path, type="jpeg", quality=86, full_page=full)
        self.taken.append(path)
        print(path, flush=True)

    def sheet(self) -> None:
        """All pictures on one, in the order in which they were taken."""
        cells = []
        for path in self.taken:
            picture = cv2.imread(str(path))
            assert picture is not None
            height = SHEET * 9 // 16
            scale = min(SHEET / picture.shape[1], height / picture.shape[0])
            small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            cell = np.full((height + 28, SHEET, 3), 32, np.uint8)
            cell[: small.shape[0], : small.shape[1]] = small
            cv2.putText(cell, path.stem, (8, height + 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (230,) * 3, 1, cv2.LINE_AA)
            cells.append(cell)
        cells += [np.full_like(cells[0], 32)] * (-len(cells) % 3)
        rows = [np.hstack(cells[i : i + 3]) for i in range(0, len(cells), 3)]
        cv2.imwrite(str(self._out / "states.jpg"), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 82])


def log_in(page: Page, name: str) -> None:
    page.fill("#login-name", name)
    page.fill("#login-password", PASSWORD)
    page.press("#login-password", "Enter")


def until(page: Page, done: Callable[[], bool], patience_s: float = 90.0) -> None:
    """Wait until `done()` is true, while the page goes on."""
    deadline = time.monotonic() + patience_s
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain; the page says: {page.inner_text('body')[:300]}")
        page.wait_for_timeout(50)


def at_mask(page: Page) -> tuple[float, float]:
    """The middle of the mask, px of the window."""
    page.evaluate(LOOK)
    page.keyboard.down("h")
    page.wait_for_timeout(300)
    x, y, width, height = page.evaluate(MIDDLE)
    page.keyboard.up("h")
    box = page.locator("#screen").bounding_box()
    assert box is not None
    scale = min(box["width"] / width, box["height"] / height)
    left, top = (box["width"] - width * scale) / 2, (box["height"] - height * scale) / 2
    return box["x"] + left + x * scale, box["y"] + top + y * scale


def verifying(camera: Camera) -> None:
    """Take the pictures of verifying."""
    stranger = camera.tab()
    camera.take(stranger, "log-in")
    page = camera.at_work("lea")
    page.keyboard.press("Space")
    page.keyboard.press("Home")
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_timeout(600)
    camera.take(page, "review")
    page.click("#view")
    page.wait_for_timeout(300)
    camera.take(page, "view")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+ArrowRight")
    page.wait_for_timeout(600)
    camera.take(page, "between")
    page.keyboard.press("ArrowLeft")
    for mode in ("outline", "cut-out"):
        page.keyboard.press("o")
        page.wait_for_timeout(300)
        camera.take(page, mode)
    page.keyboard.press("o")
    page.keyboard.press("v")
    page.wait_for_timeout(1500)
    page.hover("#other-0")
    camera.take(page, "others")
    page.keyboard.press("v")
    page.keyboard.press("Shift+P")
    page.keyboard.press("Shift+D")
    page.wait_for_timeout(300)
    camera.take(page, "folded")
    page.keyboard.press("Shift+P")
    page.keyboard.press("Shift+D")
    page.keyboard.press("x")
    page.wait_for_timeout(300)
    camera.take(page, "reasons")
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.keyboard.press("Shift+G")
    page.wait_for_timeout(300)
    camera.take(page, "labels")
    page.keyboard.press("Shift+G")
    page.keyboard.press("Shift+C")
    page.fill("#comment-text", "Does the shadow belong to it?")
    page.click("#comment-point")
    page.mouse.click(*at_mask(page))
    page.click("#comment-form .primary")
    page.wait_for_selector("#thread li")
    camera.take(page, "comments")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.wait_for_timeout(300)
    camera.take(page, "help")
    page.keyboard.press("Escape")
    page.wait_for_selector("#help:not([open])", state="attached")
    page.keyboard.press("Shift+S")
    page.wait_for_selector("body[data-view=sheet], body[data-view=message]")
    page.wait_for_timeout(3000)
    camera.take(page, "sheet")  # or that no masklet is calm
    page.keyboard.press("Escape" if page.get_attribute("body", "data-view") == "sheet" else "Enter")
    page.wait_for_selector("body[data-view=work]")
    page.wait_for_timeout(1500)
    for keys in ("1a", "e", "1a", "e", "1a", "e"):  # every second one is sent on, so that there is something to correct
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_timeout(1500)
    page.click("#open-history")
    page.wait_for_selector("#finished li")
    page.wait_for_timeout(1000)
    camera.take(page, "history")
    page.keyboard.press("Escape")
    page.click("#log-out")  # the tickets that the sheet had go back
    page.wait_for_selector("body[data-view=login]")
    page.context.close()
    for name, width, height, look in (
        ("light", 1440, 900, "light"),
        ("1280x720", 1280, 720, "dark"),
        ("3840x2160", 3840, 2160, "dark"),
    ):
        page = camera.at_work("lea", width, height, "light" if look == "light" else "dark")
        page.keyboard.press("Space")
        camera.take(page, name)
        page.click("#log-out")
        page.wait_for_selector("body[data-view=login]")
        page.context.close()


def correcting(camera: Camera) -> None:
    """Take the pictures of correcting."""
    page = camera.at_work("ann")
    until(page, lambda: page.get_attribute("body", "data-kind") == "track")
    page.wait_for_timeout(5000)
    camera.take(page, "correct")
    page.keyboard.press("b")
    page.hover("#stage")
    camera.take(page, "brush")
    page.keyboard.press("c")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(500)
    x, y = at_mask(page)
    page.mouse.click(x, y)
    page.wait_for_timeout(300)
    until(page, lambda: page.locator(".badge.busy").count() == 0)
    page.mouse.click(x + 160, y + 90, button="right")
    page.wait_for_timeout(300)
    until(page, lambda: page.locator(".badge.busy").count() == 0)
    camera.take(page, "clicked")
    page.keyboard.press("y")
    page.wait_for_selector(".badge.busy")
    page.wait_for_timeout(700)
    camera.take(page, "propagating")
    until(page, lambda: page.locator(".badge.busy").count() == 0)
    page.keyboard.press("f")
    page.wait_for_timeout(2500)
    camera.take(page, "locked")
    page.context.set_offline(True)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("f")
    page.wait_for_timeout(2500)
    camera.take(page, "offline")
    page.context.set_offline(False)
    until(page, lambda: page.inner_text("#save") == "Saved")
    page.keyboard.press("Enter")
    page.wait_for_timeout(2500)
    camera.take(page, "submitted")
    page.context.close()


def _chromium() -> str:
    """The path of the first browser that is installed. Raises SystemExit without one."""
    found = next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)
    return found or sys.exit(f"needs one of {', '.join(CHROMIUM_NAMES)}")


def overseeing(camera: Camera, lead: Page, url: str) -> None:
    """All tickets as pictures, one with its replay, and two of its versions side by side."""
    lead.goto(f"{url}/web/browser.html")
    lead.wait_for_selector(".card-of")
    lead.wait_for_timeout(3000)
    lead.locator(".pick input").nth(1).check()
    camera.take(lead, "tickets")
    lead.goto(f"{url}/web/browser.html#kind=track&state=done")
    lead.locator(".card-of a").first.click()
    lead.wait_for_selector(".step")
    lead.wait_for_timeout(1500)
    camera.take(lead, "replay")
    lead.select_option("#compare", index=1)
    lead.wait_for_timeout(1500)
    camera.take(lead, "versions")
    lead.goto(f"{url}/web/pipeline.html")
    lead.wait_for_selector("#waiting .one")
    lead.wait_for_timeout(500)
    camera.take(lead, "pipeline", full=True)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="masklets-pictures-") as folder, sync_playwright() as playwright:
        settings = settings_of(Path(folder))
        fill(settings, Path(folder))
        with QueueProcess(settings, deliver=False), connect(settings) as s:
            for batch_id in review.to_open(s):
                review.open_batch(s, batch_id, s.settings.review.phase)
            browser = playwright.chromium.launch(executable_path=_chromium(), args=ARGS)
            camera = Camera(browser, settings.queue_url, out)
            verifying(camera)
            correcting(camera)
            idle = camera.tab()
            log_in(idle, "new")
            idle.wait_for_selector("body[data-view=message], body[data-view=work]")
            idle.wait_for_timeout(1000)
            camera.take(idle, "idle")
            lead = camera.tab()
            log_in(lead, "ada")
            lead.wait_for_selector("body[data-view=message], body[data-view=work]")
            lead.goto(f"{settings.queue_url}/web/lead.html")
            lead.wait_for_timeout(3000)
            camera.take(lead, "figures", full=True)
            overseeing(camera, lead, settings.queue_url)
            camera.sheet()
            browser.close()


if __name__ == "__main__":
    main()
