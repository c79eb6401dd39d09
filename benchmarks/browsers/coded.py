"""A store for the page's benchmark: videos whose frames carry their own number, and tickets about them.

The number is drawn as black and white blocks, so a picture of a frame proves which frame it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from annotation_queue.records import Kind, NewTicket, Role
from engine.ingest import ingest
from engine.services import Services
from engine.stages import phases
from storage import rle
from storage.records import STRIDE, Masklet, Video
from storage.videos import video

HEIGHT, WIDTH = 720, 1280
BLOCK, BITS = 16, 12  # px and number of the blocks that carry a frame's number
PASSWORD = "benchmark password"
PEOPLE = {"vera": Role.VERIFIER} | dict.fromkeys(("ann", "bob", "cara", "dan"), Role.ANNOTATOR)


def disc(frame_idx: int) -> tuple[int, int]:
    """The centre of the disc on a frame, px."""
    return 200 + 3 * frame_idx % 800, int(400 + 120 * np.sin(frame_idx / 20))


def picture(frame_idx: int, ground: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame that carries its number, with a disc over noise: uint8 (HEIGHT, WIDTH, 3)."""
    image = ground.copy()
    cv2.circle(image, disc(frame_idx), 90, (214, 130, 70), -1, cv2.LINE_AA)
    for bit in range(BITS):
        colour = (255, 255, 255) if frame_idx >> bit & 1 else (0, 0, 0)
        cv2.rectangle(image, (bit * BLOCK, 0), (bit * BLOCK + BLOCK - 1, BLOCK - 1), colour, -1)
    return image


def masklet(of: Video, masklet_id: str, mask: Callable[[int], bytes]) -> Masklet:
    """A masklet from the compressed mask of each frame."""
    frames = tuple(range(0, of.frame_count, STRIDE))
    masks = tuple(mask(i) for i in frames)
    return Masklet(
        masklet_id=masklet_id,
        video_id=of.video_id,
        batch_id="",
        height=HEIGHT,
        width=WIDTH,
        frame_idx=frames,
        rle=masks,
        area_px=tuple(rle.area(m, HEIGHT, WIDTH) for m in masks),
        score=(0.9,) * len(frames),
        object_score=(5.0,) * len(frames),
        stability=(0.95,) * len(frames),
        kind="auto",
        phase="auto",
        round=0,
        checkpoint="truth",
        prompt='{"frame_idx": 0}',
    )


def on_disc(frame_idx: int) -> bytes:
    """The disc's true mask."""
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    return rle.encode(cv2.circle(canvas, disc(frame_idx), 90, 1, -1).astype(bool))


def blob(number: int, frame_idx: int) -> bytes:
    """The compressed mask of one of many objects: an irregular shape that moves and turns, below the blocks."""
    chance = np.random.default_rng(number)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radii = chance.uniform(20, 90) * (1 + 0.2 * np.sin(3 * angles) + chance.normal(0, 0.05, 60))
    room = np.array([WIDTH, HEIGHT - 200])
    start, speed, turn = chance.uniform((0, 0), room), chance.uniform(-1, 1, 2), chance.uniform(-0.05, 0.05)
    centre = (start + speed * frame_idx) % room + (0, 200)
    around = angles + turn * frame_idx
    corners = centre + np.stack([radii * np.cos(around), radii * np.sin(around)], axis=1)
    counts: bytes = coco.frPyObjects([corners.ravel().tolist()], HEIGHT, WIDTH)[0]["counts"]  # faster than a drawn mask
    return counts


def ingested(s: Services, folder: Path, lengths: list[int]) -> list[Video]:
    """Writes and ingests videos with these numbers of frames; returns them in this order."""
    for n, length in enumerate(lengths):
        ground = np.random.default_rng(n).integers(60, 190, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        ground = np.asarray(cv2.resize(ground, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)
        shade = np.clip(ground.astype(np.int16) + 20 * n, 0, 255).astype(np.uint8)
        video.write(folder / f"coded-{n}.mp4", (picture(i, shade) for i in range(length)))
    ingest.admit(s, str(folder))
    found = {Path(v.source_uri).name: v for v in s.tables.videos()}
    return [found[f"coded-{n}.mp4"] for n in range(len(lengths))]


def ticket(kind: Kind, of: Masklet) -> NewTicket:
    """A ticket for a masklet."""
    phase = "auto" if kind is Kind.VERIFY else "3"
    payload = "{}" if kind is Kind.VERIFY else phases.payload("3")
    return NewTicket(
        ticket_id=f"t-{of.masklet_id}", kind=kind, video_id=of.video_id, masklet=of, phase=phase, payload=payload
    )


def fill(s: Services, folder: Path, *, frames: int, verify: int, track: int, crowd: tuple[int, int]) -> None:
    """Ingests videos and opens tickets: `verify` and `track` of each kind on two videos of `frames` frames.

    crowd: number of objects and of frames of a third video. Each object has a verify ticket; one more object has a
    track ticket for Cara.
    """
    objects, long = crowd
    *short, crowded = ingested(s, folder, [frames, frames, long])
    tickets, accounts = s.open_queue()
    for name, role in PEOPLE.items():
        accounts.add(name, [role], PASSWORD, skills=["crowd"] if name == "cara" else [])
    models = [masklet(v, "", on_disc) for v in short]
    kinds = [Kind.VERIFY] * verify + [Kind.TRACK] * track
    tickets.open_batch(
        "benchmark", [ticket(kind, replace(models[n % 2], masklet_id=f"m-{n:05d}")) for n, kind in enumerate(kinds)]
    )
    many = [ticket(Kind.VERIFY, masklet(crowded, f"o-{n:03d}", partial(blob, n))) for n in range(objects)]
    many.append(ticket(Kind.TRACK, masklet(crowded, "o-mine", on_disc)))
    tickets.open_batch("crowd", [replace(t, skill="crowd", priority=1) for t in many])
