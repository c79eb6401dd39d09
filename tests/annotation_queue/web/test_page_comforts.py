"""What makes a day of correcting easier: the size of the brush, a propagation after each click, comparing versions."""

from __future__ import annotations

import json
from dataclasses import replace

from storage import rle
from tests.annotation_queue.annotators import ANN, claim, outcome
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import HEIGHT, WIDTH, centre, corrected, track_ticket, verify_tickets


def size(page):
    return int(page.tab.input_value("#brush-size"))


def painted(page, tickets, count):
    """Paint one dot beside the mask: how many pixels it is across in the queue's log."""
    page.drag((420, 120), (421, 120))
    page.until(lambda: len(tickets.operations("track-1")) == count)
    payload = json.loads(tickets.operations("track-1")[-1].payload)
    inside = rle.decode(payload["mask_rle"].encode(), HEIGHT, WIDTH)
    return int(inside[:, 400:440].any(1).sum())


def test_the_brush_has_a_size_by_number_by_wheel_and_by_keys(correcting, tickets):
    page = correcting()
    assert page.tab.locator("#brush-size").count() == 0, "a click has no size"
    page.press("b")
    page.until(lambda: size(page) == 24)
    page.press("=")
    assert size(page) == 30
    page.tab.mouse.move(*page.on_screen(420, 120))
    page.tab.keyboard.down("Shift")
    page.tab.mouse.wheel(0, -200)
    page.until(lambda: size(page) > 40)
    page.tab.keyboard.up("Shift")
    assert page.tab.evaluate("document.querySelector('#screen').style.transform") == "", "that was no zoom"
    narrow = painted(page, tickets, 1)
    page.tab.fill("#brush-size", "90")
    page.tab.press("#brush-size", "Enter")
    assert painted(page, tickets, 2) > 1.5 * narrow
    page.tab.fill("#brush-size", "5000")
    page.tab.press("#brush-size", "Enter")
    assert size(page) == 240
    page.press("-")
    page.until(lambda: size(page) == 192)
    page.tab.reload()
    page.correcting(0)
    page.press("b")
    page.until(lambda: size(page) == 192)


def kinds(tickets):
    return [operation.kind for operation in tickets.operations("track-1")]


def test_a_propagation_follows_each_click_only_if_that_was_chosen(correcting, tickets):
    page = correcting(8)
    page.point(*centre(8))
    page.settled()
    assert kinds(tickets) == ["prompt"]
    page.tab.check("#after-click")
    page.point(*centre(8))
    page.until(lambda: kinds(tickets) == ["prompt", "prompt", "propagate"])
    page.settled()
    page.until(lambda: "propagated" in page.text("#flash"))
    page.press("ArrowRight")
    page.at(12)
    page.until(lambda: page.look()["mask"] is not None and abs(page.look()["mask"][0] - centre(12)[0]) < 2)
    page.tab.reload()
    page.correcting(8)
    page.settled()
    assert page.tab.is_checked("#after-click")
    page.press("f", "ArrowRight")
    page.point(*centre(12))
    page.until(lambda: kinds(tickets)[3:] == ["lock", "prompt", "propagate"])
    page.tab.uncheck("#after-click")
    page.settled()
    page.press("ArrowRight")
    page.at(16)
    page.point(*centre(16))
    page.settled()
    assert kinds(tickets)[6:] == ["prompt"]


def test_a_click_that_the_person_left_or_undid_is_not_propagated(correcting, tickets, open_page):
    page = correcting(8)
    page.tab.check("#after-click")
    open_page.model.answers_clicks.clear()
    page.point(*centre(8))
    page.press("ArrowRight")
    page.at(12)
    open_page.model.answers_clicks.set()
    page.settled()
    assert kinds(tickets) == ["prompt"], "its mask came when another frame was on screen"
    page.press("ArrowLeft", "Control+z")
    page.at(8)
    page.settled()
    open_page.model.answers_clicks.clear()
    page.point(*centre(8))
    page.press("Control+z")
    page.until(lambda: kinds(tickets) == ["prompt", "undo", "prompt", "undo"])
    open_page.model.answers_clicks.set()
    page.point(*centre(8))
    page.until(lambda: kinds(tickets)[4:] == ["prompt", "propagate"])
    page.settled()


def test_a_verifier_compares_a_correction_with_what_it_corrects(open_page, tickets):
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES)])
    held = claim(tickets, ANN)
    first = tickets.masklet(held.ticket_id)
    (model,) = verify_tickets(1, FRAMES)
    assert model.masklet is not None
    made = replace(corrected(model.masklet, "made"), parent_id=first.masklet_id, video_id=first.video_id)
    tickets.finish(held.ticket_id, held.lease_token, ANN, outcome(masklet=made))
    page = open_page()
    page.log_in()
    page.paused_at_start()
    spot = [575, 320]  # an edge of the mask before the correction
    assert page.outlined(*spot) == set() and "Orange" not in page.text("#badges")
    page.press("Shift+V")
    page.until(lambda: page.outlined(*spot) == {(255, 190, 70)})
    assert page.text("#modes [aria-checked=true]") == "Before" and "before the correction" in page.text("#badges")
    page.press("Shift+V")
    page.until(lambda: page.outlined(*spot) == set())
    page.press("o", "o", "o")
    page.until(lambda: page.outlined(*spot) == {(255, 190, 70)})


def test_there_is_nothing_to_compare_with_before_a_correction(verifying):
    page = verifying()
    page.press("Shift+V")
    page.until(lambda: "corrected" in page.text("#notice"))
    assert not page.tab.is_visible("#modes [value=before]")
