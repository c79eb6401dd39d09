"""Portraits: the object of a ticket, cut out of its best frame, made once."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from annotation_queue.portraits import SIDE_PX, Portraits, best_frame, cut_out
from storage import rle
from tests.annotation_queue.annotators import VERA, claim
from tests.annotation_queue.synthetic_queue import (
    HEIGHT,
    WIDTH,
    SyntheticMedia,
    blank,
    candidate,
    mask,
    track_ticket,
    verify_tickets,
)


def pixels(data):
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def test_the_best_frame_is_large_and_sure():
    found = candidate("m")
    hidden = replace(found, area_px=tuple(0 for _ in found.area_px))
    sure = replace(found, score=tuple(0.9 if i == 5 else 0.1 for i in range(len(found.score))))
    frame_idx, shape = best_frame(sure)
    assert frame_idx == found.frame_idx[5] and (shape == rle.decode(found.rle[5], HEIGHT, WIDTH)).all()
    assert best_frame(hidden) == (0, None)


def test_the_object_fills_the_picture_and_the_rest_is_dark():
    media = SyntheticMedia(48)
    seen = cut_out(pixels(media.frame("video-0", 8)), mask(8))
    assert seen.shape == (SIDE_PX, SIDE_PX, 3)
    inside, corner = seen[40:56, 40:56].mean((0, 1)), seen[:6, :6].mean((0, 1))
    assert inside[0] > 190 > inside[2], "the orange disc"
    assert corner.max() < 90, "the hills behind it, dimmed"


def test_an_object_at_the_edge_gives_a_square_too():
    rgb = np.full((40, 60, 3), 200, np.uint8)
    shape = np.zeros((40, 60), bool)
    shape[:10, :30] = True
    seen = cut_out(rgb, shape)
    assert seen.shape == (SIDE_PX, SIDE_PX, 3) and seen[0, 0].max() == 0 and seen[48, 48].min() == 200
    assert cut_out(rgb, None).shape == cut_out(rgb, np.zeros((40, 60), bool)).shape == (SIDE_PX, SIDE_PX, 3)


def test_a_portrait_is_made_once_for_a_masklet(tickets):
    tickets.open_batch("b", verify_tickets(2))
    ticket, other = claim(tickets, VERA), claim(tickets, VERA)
    media, asked = SyntheticMedia(48), []

    def frame(video_id, frame_idx):
        asked.append(frame_idx)
        return media.frame(video_id, frame_idx)

    portraits = Portraits(tickets.masklet, frame)
    first = portraits.of(ticket)
    assert pixels(first).shape == (SIDE_PX, SIDE_PX, 3) and portraits.of(ticket) == first
    assert asked == [best_frame(candidate("m"))[0]]
    portraits.of(other)
    assert len(asked) == 2


def test_a_ticket_without_a_masklet_shows_its_video(tickets):
    tickets.open_batch("b", [replace(track_ticket(), masklet=None)])
    portraits = Portraits(tickets.masklet, SyntheticMedia(48).frame)
    whole = pixels(portraits.of(tickets.ticket("track-1")))
    assert whole[0].max() < 8 and whole[48].min() > 30, "a wide frame has black bars above and below"
    assert blank(candidate("m")).area_px[0] == 600
