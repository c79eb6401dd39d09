"""Portraits: a small picture of the object that a ticket is about, cut out of its best frame.

Knows nothing about HTTP or people. A ticket's masklet never changes, and neither do the frames of a video.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import cv2
import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from annotation_queue.errors import NoSuchMasklet
from annotation_queue.records import Ticket
from storage import rle
from storage.pixels import Mask, Rgb, box_of
from storage.records import Masklet
from storage.videos.video import jpeg

SIDE_PX = 96
MARGIN = 0.15  # around the object, of its longer side
DIMMED = 0.45  # brightness of what is not the object
KEPT = 4096  # portraits, each of about 3 KB


class Portraits:
    """Makes portraits and keeps the last ones. Safe to use from several threads."""

    def __init__(self, masklet_of: Callable[[str], Masklet], frame_of: Callable[[str, int], bytes]) -> None:
        """masklet_of: the masklet of a ticket; raises NoSuchMasklet. frame_of: a frame of a video as JPEG."""
        self._masklet_of, self._frame_of = masklet_of, frame_of
        self._lock = threading.Lock()
        self._kept: LRUCache[tuple[str, ...], bytes] = LRUCache(KEPT)

    def of(self, ticket: Ticket) -> bytes:
        """JPEG, SIDE_PX on each side: the object, or the whole first frame if no masklet shows one."""
        key = (ticket.video_id,) if ticket.masklet_id is None else (ticket.batch_id, ticket.masklet_id)
        with self._lock:
            kept = self._kept.get(key)
        if kept is None:
            kept = self._made(ticket)
            with self._lock:
                self._kept[key] = kept
        return kept

    def _made(self, ticket: Ticket) -> bytes:
        try:
            frame_idx, mask = best_frame(self._masklet_of(ticket.ticket_id))
        except NoSuchMasklet:
            frame_idx, mask = 0, None
        data = np.frombuffer(self._frame_of(ticket.video_id, frame_idx), np.uint8)
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if bgr is None:
            raise ValueError(f"frame {frame_idx} of video {ticket.video_id} is not a picture")
        return jpeg(cut_out(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), mask), quality=85)


def best_frame(masklet: Masklet) -> tuple[int, Mask | None]:
    """The frame that shows most of the object and that the model is most sure of, with its mask, bool (H, W).

    A masklet that shows nothing gives its first frame, and None.
    """
    worth = [area * score for area, score in zip(masklet.area_px, masklet.score, strict=True)]
    best = max(range(len(worth)), key=worth.__getitem__)
    if not masklet.area_px[best]:
        return masklet.frame_idx[0], None
    return masklet.frame_idx[best], rle.decode(masklet.rle[best], masklet.height, masklet.width)


def cut_out(rgb: Rgb, mask: Mask | None) -> Rgb:
    """A square around the object with everything else dimmed, uint8 (SIDE_PX, SIDE_PX, 3); the whole frame if there is
    no object. What lies beyond the frame is black.

    rgb: uint8 (H, W, 3). mask: bool (H, W), or None.
    """
    height, width = rgb.shape[:2]
    box = None if mask is None else box_of(mask)
    if mask is None or box is None:
        x0, y0, x1, y1 = 0, 0, width, height
        side = max(width, height)
        lit = rgb
    else:
        x0, y0, x1, y1 = box
        side = round(max(x1 - x0, y1 - y0) * (1 + 2 * MARGIN)) + 2
        lit = np.where(mask[:, :, None], rgb, (rgb * DIMMED).astype(np.uint8))
    left, top = (x0 + x1 - side) // 2, (y0 + y1 - side) // 2
    square: NDArray[np.uint8] = np.zeros((side, side, 3), np.uint8)
    inside = lit[max(0, top) : top + side, max(0, left) : left + side]
    y, x = max(0, -top), max(0, -left)
    square[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    small: Rgb = cv2.resize(square, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return small
