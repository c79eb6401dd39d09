"""Controls a headless Firefox over WebDriver BiDi, which Firefox supports itself: no driver, no framework.

Has only what the page's benchmark and tests need. Knows nothing about the page.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "ArrowLeft": "\ue012", "ArrowRight": "\ue014", "Home": "\ue011",
        "End": "\ue010", "Tab": "\ue004"}  # fmt: skip


class FirefoxFailed(Exception):
    """Firefox did not start, or a command failed."""


def installed() -> str | None:
    """The path of the Firefox of this machine, or None."""
    return shutil.which("firefox-esr") or shutil.which("firefox")


@contextmanager
def started(path: str) -> Iterator[Firefox]:
    """A new process with a new profile. The end of the context ends the process and deletes the profile.

    Raises FirefoxFailed.
    """
    with tempfile.TemporaryDirectory(prefix="masklets-firefox-", ignore_cleanup_errors=True) as profile:
        words = [path, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_address(process, Path(profile)), proxy=None, max_size=None) as socket:
                yield Firefox(process.pid, socket)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], profile: Path, patience_s: float = 60) -> str:
    """The address where Firefox listens, from a file in its profile."""
    deadline = time.monotonic() + patience_s
    while process.poll() is None and time.monotonic() < deadline:
        try:
            said = json.loads((profile / "WebDriverBiDiServer.json").read_text())
            return f"ws://{said['ws_host']}:{said['ws_port']}/session"
        except (FileNotFoundError, json.JSONDecodeError):  # the file is missing or incomplete
            time.sleep(0.05)
    raise FirefoxFailed(f"Firefox did not start: status {process.poll()}")


class Firefox:
    """One session with a Firefox process. `started` opens it."""

    def __init__(self, pid: int, socket: ClientConnection) -> None:
        self.pid, self._socket, self._count = pid, socket, 0
        self.version = str(self.send("session.new", capabilities={})["capabilities"]["browserVersion"])

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends one command and returns its result. Raises FirefoxFailed."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv(timeout=120))
            if said.get("id") != self._count:
                continue
            if said["type"] == "error":
                raise FirefoxFailed(f"{method}: {said['error']}: {said['message']}")
            return dict(said["result"])

    def tab(self, width: int = 1440, height: int = 900) -> Tab:
        """A new tab with its own window and cookies. width, height: of the viewport, px."""
        owner = self.send("browser.createUserContext")["userContext"]
        context = self.send("browsingContext.create", type="window", userContext=owner)["context"]
        self.send("browsingContext.setViewport", context=context, viewport={"width": width, "height": height})
        return Tab(self, str(context))


class Tab:
    """One tab, with the few functions of a Playwright page that are needed here."""

    def __init__(self, firefox: Firefox, context: str) -> None:
        self._firefox, self._context = firefox, context

    def goto(self, url: str) -> None:
        """Loads a page and waits for its `load` event."""
        self._firefox.send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, function: str, argument: Any = None) -> Any:
        """Calls a JavaScript function with one argument. Argument and result are sent as JSON; a promise is awaited.

        Raises FirefoxFailed with the error that the function threw.
        """
        result = self._firefox.send(
            "script.callFunction",
            functionDeclaration=f"async (sent) => JSON.stringify((await ({function})(JSON.parse(sent))) ?? null)",
            arguments=[{"type": "string", "value": json.dumps(argument)}],
            target={"context": self._context},
            awaitPromise=True,
        )
        if result["type"] == "exception":
            raise FirefoxFailed(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])

    def press(self, *keys: str) -> None:
        """Presses and releases keys, one after another: characters, or names in KEYS."""
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keyboard", "actions": actions})

    def click(self, x: float, y: float) -> None:
        """Presses and releases the first mouse button. x, y: px in the viewport."""
        move = {"type": "pointerMove", "x": round(x), "y": round(y)}
        press = [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        self._act({"type": "pointer", "id": "mouse", "actions": [move, *press]})

    def until(self, function: str, argument: Any = None, patience_s: float = 60) -> Any:
        """Waits until the function returns a true value, and returns it. Raises FirefoxFailed."""
        deadline = time.monotonic() + patience_s
        while not (found := self.evaluate(function, argument)):
            if time.monotonic() > deadline:
                raise FirefoxFailed(f"still false after {patience_s} s: {function.strip()}")
            time.sleep(0.02)
        return found

    def close(self) -> None:
        """Closes the tab."""
        self._firefox.send("browsingContext.close", context=self._context)

    def _act(self, source: dict[str, Any]) -> None:
        self._firefox.send("input.performActions", context=self._context, actions=[source])
