"""The page in a real browser: clicks, strokes, propagations and further objects of annotators."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from annotation_queue.draft import Version, draft_of
from annotation_queue.records import Kind, NewTicket, State
from annotation_queue.tickets.rows import MASKLET
from storage import rle
from storage.records import STRIDE, Operation
from tests.annotation_queue.browsing import EVERY_DATABASE, FRAMES, draft, is_disc
from tests.annotation_queue.synthetic_queue import (
    HEIGHT,
    WIDTH,
    belongs_together,
    centre,
    hidden,
    mask,
    track_ticket,
    verify_tickets,
)


def test_an_annotator_begins_where_the_verifier_pointed(open_page, verifying, tickets):
    page = verifying()
    page.press(*["ArrowRight"] * 5)
    page.at(20)
    page.press("Shift+E", "4")
    page.until(lambda: len(tickets.find(kind=Kind.TRACK)) == 1)
    other = open_page()
    other.log_in("ann")
    other.shows("work")
    other.until(lambda: other.named() == 20)
    assert "vera pointed here" in other.text("#badges") and "drifts off the object" in other.text("#facts")
    assert "Sent back by vera" in other.text("#facts")


@EVERY_DATABASE
def test_a_masklet_is_corrected_by_a_click_and_a_propagation(correcting, tickets):
    page = correcting(8)
    page.point(*centre(8))
    page.until(lambda: page.look()["mask"] is not None and abs(page.look()["mask"][0] - centre(8)[0]) < 2)
    page.press("y")
    page.settled()
    page.until(lambda: len(tickets.operations("track-1")) == 2)
    for index in (0, 8, 40, 148):
        page.press("Home", *["ArrowRight"] * (index // STRIDE))
        assert belongs_together(page.at(index)) == index
    with page.tab.expect_request("**/finish") as sent:
        page.press("Enter")
    outcome = json.loads(sent.value.post_data)["outcome"]
    assert outcome["last_operation_id"] == tickets.operations("track-1")[1].operation_id
    assert "masklet" not in outcome, "the queue builds the masklet: nothing about it is believed from a browser"
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)
    follower = tickets.ticket(tickets.ticket("track-1").next_ticket_id)
    made = tickets.masklet(follower.ticket_id)
    assert (follower.kind, follower.made_by) == (Kind.VERIFY, "ann")
    assert made.rle == tuple(rle.encode(mask(i)) for i in made.frame_idx)
    assert made.area_px == tuple(int(mask(i).sum()) for i in made.frame_idx)
    assert (made.checkpoint, made.round, made.phase) == ("disc-finder", 3, "3")
    assert (made.click_count, made.edited_frame_count, made.parent_id) == (1, 1, "m-track-1")
    done = tickets.operations("track-1")
    assert [o.kind for o in done] == ["prompt", "propagate", "submit"]
    assert "masks" not in json.loads(done[-1].payload)  # the server derives them from the log


def test_every_tool_every_undo_and_a_reload(correcting, tickets):
    page = correcting()

    def area(i=0):
        return draft(tickets).masks[i].area_px

    assert area() == 600
    page.press("b")
    page.drag((300, 200), (360, 220))
    page.settled()
    assert 600 + 800 < area() < 600 + 4000, "a stroke of the brush"
    stroke = area()
    page.press("Shift+B")
    page.drag((550, 330), (600, 330))
    page.settled()
    assert area() < stroke - 200, "the eraser"
    erased = area()
    page.press("p")
    for corner in ((100, 250), (200, 250), (200, 330), (100, 330)):
        page.point(*corner)
    page.press("Enter")
    page.settled()
    assert abs(area() - erased - 100 * 80) < 200, "the polygon"
    page.press("q")
    page.drag((20, 140), (110, 240))
    page.settled()
    assert is_disc(draft(tickets).masks, 0), "the box"
    page.press("ArrowRight", "f", "ArrowLeft", "g", "ArrowRight", "ArrowRight", "g")
    page.settled()
    page.until(lambda: len(tickets.operations("track-1")) == 6)
    assert [area(i) for i in (0, 4, 8, 12)] == [0, 600, 0, 600], "absent, but where the frame is locked"
    page.tab.reload()
    page.correcting(0)
    assert page.look()["mask"] is None, "the reload shows what was there"
    seen = []
    for _ in range(6):
        page.press("Control+z")
        page.settled()
        page.until(lambda: len(tickets.operations("track-1")) == 7 + len(seen))
        seen.append(area())
    assert seen[0] == int(mask(0).sum()) and abs(seen[2] - erased - 8000) < 200 and seen[3:] == [erased, stroke, 600]
    assert draft(tickets).locked == set()
    for _ in range(6):
        page.press("Control+Shift+Z")
    page.settled()
    page.until(lambda: len(tickets.operations("track-1")) == 18)
    assert [area(i) for i in (0, 4, 8)] == [0, 600, 0] and draft(tickets).locked == {4}


def test_a_drawing_lands_on_no_other_frame_and_on_no_locked_frame(correcting, tickets):
    page = correcting(4)
    page.press("f", "ArrowLeft")  # the next frame is locked
    page.at(0)
    for tool, path in (("b", ((300, 200), (360, 220))), ("q", ((20, 140), (110, 240)))):
        page.press(tool)
        page.tab.mouse.move(*page.on_screen(*path[0]))
        page.tab.mouse.down()
        page.tab.mouse.move(*page.on_screen(*path[1]), steps=4)
        page.press("ArrowRight")
        page.at(4)
        page.tab.mouse.up()
        page.until(lambda: "half drawn on frame 0" in page.text("#notice"))
        page.tab.reload()
        page.correcting(0)
    page.press("p")
    for corner in ((100, 250), (200, 250), (200, 330)):
        page.point(*corner)
    page.press("ArrowRight")
    page.at(4)
    page.press("Enter")
    page.until(lambda: "half drawn on frame 0" in page.text("#notice"))
    page.press("ArrowLeft")
    page.at(0)
    for corner in ((100, 250), (200, 250), (200, 330)):
        page.point(*corner)
    page.press("f", "Enter")
    page.until(lambda: "This frame is locked" in page.text("#notice"))
    page.press("f", "Enter")  # the polygon is still there: without the lock, it is closed
    page.until(lambda: tickets.operations("track-1")[-1].kind == "stroke")
    page.press("Control+z", "b", "ArrowRight", "ArrowRight")
    page.at(8)
    page.tab.mouse.move(*page.on_screen(300, 200))
    page.tab.mouse.down()
    page.tab.mouse.move(*page.on_screen(360, 220), steps=4)
    page.press("f")  # the frame itself is locked meanwhile
    page.tab.mouse.up()
    page.until(lambda: "This frame is locked" in page.text("#notice"))
    page.settled()
    of_polygon = [("lock", 0), ("lock", 0), ("stroke", 0), ("undo", 0)]
    done = [("lock", 4), *of_polygon, ("lock", 8)]
    page.until(lambda: [(o.kind, o.frame_idx) for o in tickets.operations("track-1")] == done)
    assert [draft(tickets).masks[i].area_px for i in (0, 4, 8)] == [600] * 3


# Press a button of the mouse at a point of the window, and let it go. Playwright knows only the first three.
PRESS = """
([clientX, clientY, button]) => ["pointerdown", "pointerup"].forEach((kind) => document.querySelector("#screen")
  .dispatchEvent(new PointerEvent(kind, { clientX, clientY, button, pointerType: "mouse", bubbles: true })))
"""


def test_the_buttons_for_back_and_forward_make_no_click(correcting, tickets):
    page = correcting(8)
    for button in (3, 4, 0):
        page.tab.evaluate(PRESS, [*page.on_screen(*centre(8)), button])
    page.settled()
    assert [json.loads(o.payload)["labels"] for o in tickets.operations("track-1")] == [[1]]


ZOOM = "new DOMMatrix(getComputedStyle(document.querySelector('#screen')).transform).a"


def test_a_click_lands_under_the_pointer_also_when_zoomed(correcting, tickets):
    page = correcting(8)
    page.tab.mouse.move(*page.on_screen(*centre(8)))
    for _ in range(4):
        page.tab.mouse.wheel(0, -120)
    page.until(lambda: page.tab.evaluate(ZOOM) > 4.9)  # all four: 4.95
    page.point(*centre(8))
    page.settled()
    prompt = json.loads(tickets.operations("track-1")[0].payload)
    assert np.allclose(prompt["points_xy"], [centre(8)], atol=1.0) and prompt["labels"] == [1]
    x, y = centre(8)
    page.point(x + 50, y, button="right")
    page.settled()
    prompt = json.loads(tickets.operations("track-1")[1].payload)
    assert prompt["labels"] == [1, 0] and abs(prompt["points_xy"][1][0] - x - 50) < 1


def test_a_frame_is_emptied_and_drawn_anew(correcting, tickets):
    page = correcting(8)
    assert "Empty" in page.text("#tool-clear") and draft(tickets).masks[8].area_px == 600
    page.press("Delete")
    page.until(lambda: "Absent in this frame" in page.text("#badges") and "Forget" in page.text("#tool-clear"))
    page.settled()
    assert draft(tickets).masks[8].area_px == 0
    page.press("b")
    page.drag((300, 200), (360, 220))
    page.until(lambda: "Absent" not in page.text("#badges"))
    page.settled()
    drawn = rle.decode(draft(tickets).masks[8].rle, HEIGHT, WIDTH)
    assert drawn[200, 300] and not drawn[330, 575], "nothing is left of what was there"
    page.press("Delete")  # the frame counts as untouched: a propagation may change it
    page.until(lambda: "Empty" in page.text("#tool-clear"))
    page.press("Delete")
    page.until(lambda: "Absent in this frame" in page.text("#badges"))
    page.settled()
    assert draft(tickets).masks[8].area_px == 0


def test_the_page_and_the_server_derive_the_same_draft(open_page):
    """Random operations, undone and redone, through draft.js and draft.py."""
    chance = np.random.default_rng(7)
    base = track_ticket(frame_count=48).masklet
    assert base is not None
    frames = base.frame_idx
    sent: list[dict[str, Any]] = []
    versions: list[dict[str, Any]] = []
    for n in range(120):
        frame = int(chance.choice(frames))
        kinds = ["prompt", "stroke", "lock", "absent", "clear", "propagate", "stop", "submit", "undo", "redo"]
        kind = str(chance.choice(kinds))
        payload = {
            "prompt": {"points_xy": [[1.0, float(n)]], "labels": [1]},
            "stroke": {"mask_rle": rle.encode(mask(frame)).decode()},
            "lock": {"on": bool(chance.random() < 0.6)},
            "absent": {"first": frame, "last": frame + 8},
            "propagate": {"direction": "both"},
            "submit": {"masks": {str(i): rle.encode(mask(i + n + 2)).decode() for i in (frame, frame + 4)}},
        }.get(kind, {})
        if kind == "stop":
            payload = {"operation_id": f"o{int(chance.integers(n + 1))}", "last": frame}
            payload |= {"spare": int(chance.choice(frames))} if chance.random() < 0.7 else {}
        if kind in ("undo", "redo"):  # the page takes them off a stack: the last one that stands, the last undone one
            stack = open_page_stacks(sent)[kind]
            if not stack:
                continue
            payload = {"operation_id": stack[-1]}
        sent.append({"operation_id": f"o{n}", "kind": kind, "frame_idx": frame, "payload": payload})
        if kind in ("prompt", "propagate") and chance.random() < 0.8:
            reached = [frame] if kind == "prompt" else [i for i in frames if abs(i - frame) < 16]
            made = [
                {"frame_idx": i, "rle": rle.encode(mask(i + n)).decode(), "area_px": int(mask(i + n).sum()),
                 "score": 0.5, "object_score": 1.0, "stability": 1.0}
                for i in reached
            ]  # fmt: skip
            whole = kind == "prompt" or bool(chance.random() < 0.6)
            about = {"operation_id": f"o{n}", "frames": made, "checkpoint": f"c{n}", "round": n}
            versions.append(about | {"complete": whole})
    seen = open_page().tab.evaluate(
        """async ([base, operations, versions]) => {
          const { Draft } = await import("/web/shared/draft.js");
          const draft = new Draft({}, base, base, base.frame_idx);
          for (const version of versions) draft.versions.set(version.operation_id, version);
          for (const operation of operations) draft.add(operation);
          return {
            masks: draft.frames.map((i) => draft.masks.get(i).rle),
            edited: [...draft.edited], locked: [...draft.locked],
            checkpoint: draft.checkpoint.checkpoint,
          };
        }""",
        [json.loads(MASKLET.dump_json(base)), sent, versions],
    )
    operations = [
        Operation(ticket_id="t", batch_id="b", video_id="v", masklet_id="m", person="ann", created_at="", seq=n,
                  **(o | {"payload": json.dumps(o["payload"])}))
        for n, o in enumerate(sent)
    ]  # fmt: skip
    known = {v["operation_id"]: TypeAdapter(Version).validate_python(v) for v in versions}
    expected = draft_of((HEIGHT, WIDTH), frames, base, operations, known)
    assert seen["masks"] == [expected.masks[i].rle.decode() for i in frames]
    assert set(seen["locked"]) == expected.locked and seen["checkpoint"] == expected.checkpoint
    unanswered = {o["frame_idx"] for o in sent if o["kind"] == "prompt" and o["operation_id"] not in known}
    assert set(seen["edited"]) - unanswered == expected.edited - unanswered


def open_page_stacks(sent):
    done, undone = [], []
    for o in sent:
        if o["kind"] == "stop":
            continue
        if o["kind"] == "undo":
            undone.append(done.pop(done.index(o["payload"]["operation_id"])))
        elif o["kind"] == "redo":
            done.append(undone.pop(undone.index(o["payload"]["operation_id"])))
        else:
            done.append(o["operation_id"])
            undone.clear()
    return {"undo": done, "redo": undone}


def test_a_focused_control_keeps_its_keys_and_a_clicked_one_gives_them_back(correcting, tickets):
    page = correcting(8)
    page.press("f")
    page.settled()
    page.tab.focus("#tool-undo")
    page.press("Enter", "Enter", "Enter")  # the button has nothing left to undo then, and submits nothing
    page.settled()
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["lock", "undo"])
    page.tab.focus("#verdict-reject")
    page.press("Enter", "Enter")
    page.until(lambda: page.tab.locator(".reason").count() == 5)
    page.press("Escape")
    page.tab.click("#view")
    page.tab.focus("#brightness")
    page.press("ArrowRight", "Enter")
    assert page.tab.input_value("#brightness") == "1.1" and page.named() == 8
    page.tab.focus("#others")
    page.press("Space")
    page.until(lambda: page.tab.get_attribute("#others", "aria-pressed") == "true")
    assert "playing" not in page.tab.get_attribute("#play", "class").split()
    page.settled()
    assert tickets.ticket("track-1").state is State.LEASED
    for control in ("#others", "#view", "#brightness", "#theme", "#tool-brush"):
        page.tab.click(control)
        page.press("Home")
        page.at(0)
        page.press("ArrowRight")
        page.at(4)
    page.press("Space")
    page.until(lambda: "playing" in page.tab.get_attribute("#play", "class").split())


def test_the_picture_is_moved_brightened_and_compared_with_the_first_masks(correcting, tickets):
    page = correcting(8)

    def place():
        return page.tab.locator("#screen").bounding_box()["x"]

    pixel = "c => [...document.querySelector('#screen').getContext('2d').getImageData(c[0], c[1], 1, 1).data]"
    page.press("+", "+")
    before = place()
    page.tab.keyboard.down("d")
    page.drag((300, 200), (310, 200), (330, 200))
    page.until(lambda: place() > before + 20)
    dragged = place()
    page.press("ArrowRight")
    page.until(lambda: abs(place() - dragged + 60) < 1)
    page.tab.keyboard.up("d")
    page.press("ArrowRight")
    page.at(12)
    page.press("ArrowLeft", "0")
    page.at(8)
    assert tickets.operations("track-1") == [], "the drag was no click"
    dim = page.tab.evaluate(pixel, [500, 100])
    page.press("l", "l", "l")
    assert page.tab.input_value("#brightness") == "1.3"
    page.until(lambda: page.tab.evaluate(pixel, [500, 100])[0] > dim[0] + 10)
    page.press("Shift+L", "Shift+L", "Shift+L")
    page.until(lambda: page.tab.evaluate(pixel, [500, 100]) == dim)
    page.point(*centre(8))
    page.settled()
    spot = [575, 320]  # the edge of the mask before the click
    assert page.outlined(*spot) == set()
    page.press("o", "o", "o")
    page.until(lambda: page.text("#modes [aria-checked=true]") == "Before")
    page.until(lambda: page.outlined(*spot) == {(255, 190, 70)})
    page.press("o")
    page.until(lambda: page.outlined(*spot) == set())


def test_phase_1_offers_no_propagation(open_page, tickets):
    tickets.open_batch("b", [track_ticket(phase="1", frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    assert page.tab.is_disabled("#tool-forward") and page.tab.is_enabled("#tool-click")
    page.press("t")
    page.until(lambda: "masked by itself" in page.text("#notice"))
    page.settled()  # a propagation would have been sent by now
    assert tickets.operations("track-1") == []


def test_a_select_ticket_warns_of_frames_without_a_mask(open_page, tickets):
    select = NewTicket(ticket_id="s", kind=Kind.SELECT, video_id="video-0", phase="3", payload='{"memory": true}')
    tickets.open_batch("b", [select])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    assert "Not masked yet" in page.text("#badges") and "challenging" in page.text("#question")
    page.press("Enter")
    page.until(lambda: "no mask yet" in page.text("#notice"))
    page.point(*centre(0))
    page.settled()
    page.press("Enter")
    page.until(lambda: "38 frames never masked" in page.text("#notice"))
    page.press("Enter")
    page.until(lambda: tickets.ticket("s").state is State.DONE)
    assert tickets.ticket(tickets.ticket("s").next_ticket_id).kind is Kind.TRACK


def test_the_other_objects_of_the_video_can_be_seen(open_page, tickets):
    """In a select ticket they are shown from the start."""
    done, mine = verify_tickets(1, FRAMES)[0], track_ticket(frame_count=FRAMES)
    select = NewTicket(ticket_id="s", kind=Kind.SELECT, video_id="video-0", phase="3", priority=-1)
    tickets.open_batch("b", [done, mine, select])
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    sky = "c => [...document.querySelector('#screen').getContext('2d').getImageData(c[0], c[1], 1, 1).data]"
    before = page.tab.evaluate(sky, list(centre(8)))
    page.press("v")
    page.until(lambda: page.tab.evaluate(sky, list(centre(8))) != before)
    row = page.tab.locator("#other-objects .other").last
    page.until(lambda: row.count() and "in view in 33 of 39 frames" in row.get_attribute("aria-label"))
    columns = row.locator("canvas").evaluate(
        """(canvas, [at, gone]) => [at, gone].map((x) => [4, 14, 17].map((y) =>
            [...canvas.getContext("2d").getImageData(x * canvas.width, (y * canvas.height) / 20, 1, 1).data]))""",
        [(11 + 0.5) / 39, next((i + 0.5) / 39 for i in range(39) if hidden(4 * i))],
    )
    (here, low, _), (nothing, *gone) = columns
    assert here == [86, 180, 233, 255] != nothing and low != gone[0], "presence and score"
    page.press("v")
    page.until(lambda: page.tab.evaluate(sky, list(centre(8))) == before)
    assert page.tab.get_attribute("#others", "aria-pressed") == "false"
    page.press("x", "7")
    page.correcting(8)
    assert tickets.ticket("s").leased_by == "ann"
    page.until(lambda: page.tab.evaluate(sky, list(centre(8))) != before)


@EVERY_DATABASE
def test_several_objects_of_a_video_are_masked_side_by_side(correcting, tickets):
    """N begins another object, M goes from one to the next; each keeps its draft, and after a reload, too."""
    page = correcting(8)
    page.press("f")  # the first object has a locked frame now
    page.settled()
    page.press("n")
    page.until(lambda: "Not masked yet" in page.text("#badges"))
    assert page.named() == 8, "the eye stays where it was"
    rows = page.tab.locator("#other-objects .other")
    page.until(lambda: rows.count() == 1 and "1 locked" in (rows.get_attribute("aria-label") or ""))
    assert "yours" in rows.inner_text()
    page.point(*centre(8))
    page.settled()
    page.until(lambda: "Not masked yet" not in page.text("#badges"))
    page.press("m")
    page.until(lambda: "Locked" in page.text("#badges"))
    page.press("m")
    page.until(lambda: "Locked" not in page.text("#badges") and "1 click" in page.text("#facts"))
    page.tab.reload()
    page.correcting(8)
    page.until(lambda: "Locked" not in page.text("#badges") and "1 click" in page.text("#facts"))
    page.press("m")
    page.until(lambda: "Locked" in page.text("#badges"))
    page.press("v", "v")
    page.tab.click("#other-objects .other.mine")
    page.until(lambda: "1 click" in page.text("#facts"))
    page.press("Enter", "Enter")
    opened = next(t.ticket_id for t in tickets.find() if t.ticket_id not in ("track-1",) and t.attempt == 1)
    page.until(lambda: tickets.ticket(opened).state is State.DONE)
    page.until(lambda: "Locked" in page.text("#badges") or page.named() >= 0)
    assert tickets.ticket("track-1").leased_by == "ann", "the first one comes back by itself"
    assert page.problems == []


def test_an_object_that_was_begun_by_mistake_is_dropped(correcting, tickets):
    page = correcting()
    page.press("n")
    page.until(lambda: "Not masked yet" in page.text("#badges"))
    page.press("Shift+R")
    page.until(lambda: "Not masked yet" not in page.text("#badges"))
    page.settled()
    states = sorted((t.kind, t.state) for t in tickets.find())
    assert states == [(Kind.TRACK, State.DONE), (Kind.TRACK, State.LEASED)]
