"""A queue over synthetic clips, for the tests: `python synthetic_queue.py --help` serves one.

Every frame carries its own index as pixels, a strip of 16 black and white blocks along its upper edge, and a disc
whose place depends only on the index. So a test that sees a frame and a mask can tell whether they belong together.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import uvicorn
from argon2 import PasswordHasher
from fastapi import FastAPI

from annotation_queue.api.app import create_app
from annotation_queue.database import Database
from annotation_queue.draft import Draft, FrameMask
from annotation_queue.errors import NoSuchFrame, NoSuchVideo
from annotation_queue.people.accounts import PIPELINE, Accounts
from annotation_queue.records import Kind, NewTicket, QueuePolicy, Role, VideoInfo
from annotation_queue.tickets.store import TicketStore
from storage import rle
from storage.records import FPS, STRIDE, Masklet, Prompt
from tests.free_ports import free_port

HEIGHT, WIDTH = 360, 640
BLOCK = 8  # px, one bit of the strip
RADIUS = 34  # px, of the disc
PASSWORD = "correct horse"
# The page takes a verdict at once, however little was watched: most tests are about something else.
HASTY = QueuePolicy(watch_share=0, watch_fault_share=0, watch_least=0)
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PEOPLE = {
    "ann": {Role.ANNOTATOR},
    "vera": {Role.VERIFIER},
    "victor": {Role.VERIFIER},
    "lea": {Role.LEAD},
    "pipeline": {Role.PIPELINE},
}

# What is on screen: the index that the frame carries, the frame that the page names, and where its mask is. The mask's
# outline has a canvas of its own, in pixels of the screen; its middle is given in pixels of the video.
LOOK = """
([block, bits]) => {
  const canvas = document.querySelector("#screen");
  const strip = canvas.getContext("2d").getImageData(0, 0, bits * block, block).data;
  let carried = 0;
  for (let bit = 0; bit < bits; bit++) {
    const at = 4 * ((block >> 1) * bits * block + bit * block + (block >> 1));
    if (strip[at] > 127) carried += 2 ** bit;
  }
  const outline = document.querySelector("#outline");
  const { data, width, height } = outline.getContext("2d").getImageData(0, 0, outline.width, outline.height);
  let [n, sx, sy] = [0, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = 4 * (y * width + x);
      if (data[at] === 214 && data[at + 1] === 196 && data[at + 3] === 255) { n++; sx += x + 0.5; sy += y + 0.5; }
    }
  }
  const [picture, stage] = [canvas.getBoundingClientRect(), outline.getBoundingClientRect()];
  const scale = Math.min(picture.width / canvas.width, picture.height / canvas.height);
  const left = picture.left + (picture.width - canvas.width * scale) / 2 - stage.left;
  const top = picture.top + (picture.height - canvas.height * scale) / 2 - stage.top;
  const ratio = outline.width / stage.width;
  return {
    carried,
    named: Number(canvas.dataset.frame),
    readout: Number(document.querySelector("#frame").textContent),
    mask: n ? [(sx / n / ratio - left) / scale, (sy / n / ratio - top) / scale] : null,
  };
}
"""


def centre(frame_idx: int) -> tuple[int, int]:
    """(x, y) of the disc, px: one pixel to the right each frame, so that x tells the frame."""
    return 60 + 2 * frame_idx, int(190 + 70 * np.sin(frame_idx / 14))


def hidden(frame_idx: int) -> bool:
    """Whether the disc is behind the pillar."""
    return 300 < centre(frame_idx)[0] < 350


def mask(frame_idx: int) -> np.ndarray:
    """The disc's mask, bool (HEIGHT, WIDTH)."""
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    if not hidden(frame_idx):
        cv2.circle(canvas, centre(frame_idx), RADIUS, 1, -1)
    return canvas.astype(bool)


def picture(frame_idx: int) -> np.ndarray:
    """The frame, uint8 (HEIGHT, WIDTH, 3), BGR."""
    ramp = np.linspace(0, 1, HEIGHT)[:, None, None]
    image = np.array([[[150, 120, 84]]]) * (1 - ramp) + np.array([[[64, 92, 96]]]) * ramp
    image = np.repeat(image, WIDTH, axis=1).astype(np.uint8)
    for i in range(7):  # hills that stand still
        axes, green = (120, 60 + 17 * (i % 3)), (58, 84 + 6 * i, 70)
        cv2.ellipse(image, (i * 110, HEIGHT), axes, 0, 180, 360, green, -1, cv2.LINE_AA)
    x, y = centre(frame_idx)
    if not hidden(frame_idx):
        cv2.circle(image, (x, y), RADIUS, (70, 130, 214), -1, cv2.LINE_AA)
        cv2.circle(image, (x - 10, y - 11), 9, (120, 176, 240), -1, cv2.LINE_AA)
    cv2.rectangle(image, (300, 60), (350, HEIGHT), (72, 74, 78), -1)
    for bit in range(16):
        colour = (255, 255, 255) if frame_idx >> bit & 1 else (0, 0, 0)
        cv2.rectangle(image, (bit * BLOCK, 0), (bit * BLOCK + BLOCK - 1, BLOCK - 1), colour, -1)
    return image


@cache
def jpeg(frame_idx: int) -> bytes:
    """The frame as a JPEG."""
    return cv2.imencode(".jpg", picture(frame_idx), [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def belongs_together(seen: dict[str, Any]) -> int:
    """Check that frame, readout and mask, as LOOK sees them, are of one and the same index, and return it.

    The disc moves 8 px to the right from one annotated frame to the next, so the mask of a neighbour does not pass.
    """
    index = int(seen["carried"])
    assert seen["named"] == seen["readout"] == index and index % STRIDE == 0
    if hidden(index):
        assert seen["mask"] is None
        return index
    x, y = seen["mask"]
    assert abs(x - centre(index)[0]) < 1.5 and abs(y - centre(index)[1]) < 2.5, (seen, centre(index))
    return index


class SyntheticModel:
    """Finds only the disc in every frame. A click elsewhere gives a small spot around the click.

    `frame_s` makes it slow, so that clicks can arrive during propagations.
    """

    checkpoint, round = "disc-finder", 3

    def __init__(self, frame_s: float = 0.0) -> None:
        self.frame_s = frame_s  # seconds that a tracked frame takes
        self.answers_clicks = threading.Event()  # a test clears it: clicks wait until it is set again
        self.answers_clicks.set()
        self.calls: list[str] = []

    def load(self) -> None:
        self.calls.append("load")

    def now(self) -> SyntheticModel:
        return self

    def warm(self, video_id: str, frame_idx: Sequence[int]) -> Generator[None]:
        for i in frame_idx:
            yield
            self.calls.append(f"warm {i}")

    def click(
        self, ticket_id: str, video_id: str, draft: Draft, prompt: Prompt, *, memory: bool
    ) -> Generator[FrameMask | None]:
        while not self.answers_clicks.wait(0.02):
            yield None  # other work may come between, and the click may be cancelled
        self.calls.append(f"click {prompt.frame_idx}{' alone' if not memory else ''}")
        if len(prompt.points_xy) > 20:
            raise ValueError("too many clicks")
        found = mask(prompt.frame_idx)
        inside = [found[int(y), int(x)] for x, y in prompt.points_xy]
        if prompt.box_xyxy is None and not any(inside):
            canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
            cv2.circle(canvas, tuple(int(v) for v in prompt.points_xy[-1]), 6, 1, -1)
            found = canvas.astype(bool)
        yield self._mask(prompt.frame_idx, found)

    def track(
        self, ticket_id: str, video_id: str, draft: Draft, source: int, frame_idx: Sequence[int]
    ) -> Generator[FrameMask | None]:
        for i in frame_idx:
            time.sleep(self.frame_s / 2)
            yield None
            time.sleep(self.frame_s / 2)
            self.calls.append(f"track {i}")
            yield self._mask(i, mask(i))

    def _mask(self, frame_idx: int, found: np.ndarray) -> FrameMask:
        area = int(found.sum())
        return FrameMask(
            frame_idx=frame_idx,
            rle=rle.encode(found),
            area_px=area,
            score=0.9,
            object_score=6.0 if area else -6.0,
            stability=0.98,
        )


class SyntheticMedia:
    """Clips of `frame_count` frames, any number of them: every id that begins with "video" is one."""

    def __init__(self, frame_count: int) -> None:
        self.frame_count = frame_count

    def info(self, video_id: str) -> VideoInfo:
        if not video_id.startswith("video"):
            raise NoSuchVideo(f"no video {video_id}")
        size = {"height": HEIGHT, "width": WIDTH, "frame_count": self.frame_count}
        return VideoInfo(video_id=video_id, fps=FPS, name=f"{video_id}.mp4", **size)

    def frame(self, video_id: str, frame_idx: int) -> bytes:
        if frame_idx >= self.info(video_id).frame_count:
            raise NoSuchFrame(f"video {video_id} has no frame {frame_idx}")
        return jpeg(frame_idx)


def candidate(masklet_id: str, video_id: str = "video-0", frame_count: int = 48) -> Masklet:
    """A masklet of the disc, with a dip in its scores."""
    frames = tuple(range(0, frame_count, STRIDE))
    masks = [mask(i) for i in frames]
    dip = [0.36 if 40 <= i < 56 else 0.0 for i in frames]
    return Masklet(
        masklet_id=masklet_id,
        video_id=video_id,
        batch_id="batch-1",
        height=HEIGHT,
        width=WIDTH,
        frame_idx=frames,
        rle=tuple(rle.encode(m) for m in masks),
        area_px=tuple(int(m.sum()) for m in masks),
        score=tuple(round(0.94 - d + 0.02 * np.sin(i / 5), 4) for i, d in zip(frames, dip, strict=True)),
        object_score=tuple(-6.0 if hidden(i) else 7.5 for i in frames),
        stability=tuple(round(0.97 - d / 2, 4) for d in dip),
        kind="auto",
        phase="auto",
        round=2,
        checkpoint="micro",
        prompt='{"frame_idx": 0, "points_xy": [[60, 190]], "labels": [1]}',
    )


def corrected(masklet: Masklet, masklet_id: str) -> Masklet:
    """An annotator's correction of a masklet."""
    return replace(masklet, masklet_id=masklet_id, phase="3", click_count=3, edited_frame_count=1)


def verify_tickets(count: int, frame_count: int = 48, prefix: str = "ticket") -> list[NewTicket]:
    """Verify tickets over as many masklets."""
    model = candidate("m", frame_count=frame_count)
    return [
        NewTicket(
            ticket_id=f"{prefix}-{i:04d}",
            kind=Kind.VERIFY,
            video_id=f"video-{i % 5}",
            masklet=replace(model, masklet_id=f"{prefix}-m{i:04d}", video_id=f"video-{i % 5}"),
        )
        for i in range(count)
    ]


def blank(masklet: Masklet) -> Masklet:
    """The same masklet with a spot far from the disc in every frame: everything is wrong with it."""
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    canvas[320:340, 560:590] = 1
    spot = rle.encode(canvas.astype(bool))
    return replace(masklet, rle=(spot,) * len(masklet.rle), area_px=(600,) * len(masklet.rle))


def track_ticket(ticket_id: str = "track-1", *, phase: str = "3", frame_count: int = 48) -> NewTicket:
    """A ticket to correct a masklet that is wrong everywhere."""
    prompts = {"1": ["click", "box", "stroke"], "3": ["click", "box", "stroke", "propagate"]}[phase]
    return NewTicket(
        ticket_id=ticket_id,
        kind=Kind.TRACK,
        video_id="video-0",
        masklet=blank(candidate(f"m-{ticket_id}", frame_count=frame_count)),
        phase=phase,
        payload=json.dumps({"prompts": prompts, "memory": phase == "3"}),
    )


def add_people(database: Database) -> Accounts:
    """Everybody in PEOPLE, with the same password; the pipeline has none."""
    accounts = Accounts(database, hasher=CHEAP)
    for name, roles in PEOPLE.items():
        accounts.add(name, roles, None if name == PIPELINE else PASSWORD)
    return accounts


@contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serve `app` from a thread of this process; yields its URL."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", http="h11", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"  # what is asked before it serves waits
        finally:
            server.should_exit = True
            thread.join()


class ServerProcess:
    """The queue in a process of its own, to be killed."""

    def __init__(self, uri: str, **options: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, __file__, "--uri", uri, "--port", str(self.port)]
        self._command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        root = str(Path(__file__).parents[2])
        self._process = subprocess.Popen(self._command, env=os.environ | {"PYTHONPATH": root})
        _wait_until_up(self.url)

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


def _wait_until_up(url: str, patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    with httpx.Client() as http:
        while True:
            try:
                if http.get(f"{url}/healthz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing answers at {url}")
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uri", help="database; a new SQLite file by default")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--tickets", type=int, default=0, help="verify tickets to open")
    parser.add_argument("--frames", type=int, default=144, help="frames a clip")
    parser.add_argument("--tracks", type=int, default=0, help="track tickets to open")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds that a tracked frame takes")
    parser.add_argument("--lease", type=float, default=90.0, help="seconds")
    arguments = parser.parse_args()
    uri = arguments.uri or f"sqlite:///{tempfile.mkdtemp()}/queue.db"
    tickets = TicketStore(Database(uri), lease_s=arguments.lease, policy=HASTY)
    accounts = Accounts(tickets.database, hasher=CHEAP)
    if not accounts.list():  # a new password would end every login
        add_people(tickets.database)
    if arguments.tickets:
        tickets.open_batch("batch-1", verify_tickets(arguments.tickets, arguments.frames))
    if arguments.tracks:
        corrections = [track_ticket(f"track-{i}", frame_count=arguments.frames) for i in range(arguments.tracks)]
        tickets.open_batch("batch-2", corrections)
    model = SyntheticModel(arguments.slow)
    app = create_app(tickets, SyntheticMedia(arguments.frames), accounts=accounts, segmenter=model)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
