"""A lease that is lost: the page says why, and its owner looks at the late work, applies it again or dismisses it."""

from __future__ import annotations

import json

import pytest

from annotation_queue.errors import TakenBack
from annotation_queue.records import NewOperation, State
from storage import rle
from storage.records import Verdict
from tests.annotation_queue.annotators import ANN, LEA, VERA, claim, outcome
from tests.annotation_queue.browsing import FRAMES, draft, is_disc
from tests.annotation_queue.synthetic_queue import candidate, mask, track_ticket, verify_tickets


def stroke(frame_idx, name):
    payload = json.dumps({"mask_rle": rle.encode(mask(frame_idx)).decode()})
    when = "2026-01-01T00:00:00Z"
    return NewOperation(operation_id=name, kind="stroke", created_at=when, frame_idx=frame_idx, payload=payload)


def came_late(tickets):
    """Ann drew on two frames of a ticket and submitted it after Lea had taken it back."""
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES)])
    held = claim(tickets, ANN)
    tickets.end_lease(held.ticket_id, held.lease_token, by=LEA)
    made = candidate("made", held.video_id, FRAMES)
    sent = [stroke(0, "late-0"), stroke(8, "late-8")]
    undo = NewOperation(
        operation_id="late-undo", kind="undo", created_at=sent[0].created_at, payload='{"operation_id": "late-8"}'
    )
    with pytest.raises(TakenBack):
        tickets.append_operations(held.ticket_id, held.lease_token, ANN, [*sent, undo])
    return held, made


def kept_of(page):
    page.until(lambda: page.tab.is_visible("#kept"))
    page.tab.click("#kept")
    page.tab.wait_for_selector("#kept-list[open] .kept")


def test_the_page_says_who_took_the_ticket_back(verifying, tickets):
    page = verifying(2)
    assert page.ahead() == "ticket-0001"
    held = tickets.ticket("ticket-0000")
    tickets.end_lease(held.ticket_id, held.lease_token, by=LEA)
    page.press("a")
    page.until(lambda: "1 ticket" in page.text("#kept"))
    assert "Kept work" in page.text("#notice") and "ran out" not in page.text("body")
    page.until(lambda: page.ticket() == "ticket-0001")
    current = tickets.ticket("ticket-0001")
    tickets.end_lease(current.ticket_id, current.lease_token, by=LEA)
    page.tab.evaluate("async () => (await import('/web/ticket/leases.js')).renewAll()")
    page.says("lea took this ticket back")
    assert "ran out" not in page.text("#message")


def test_late_work_is_shown_as_pictures_and_applied_to_its_ticket(open_page, tickets):
    held, _ = came_late(tickets)
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    assert not is_disc(draft(tickets).masks, 0)
    kept_of(page)
    assert "2 drawn masks" in page.text("#kept-works") and "1 undo" in page.text("#kept-works")
    page.until(lambda: "video-0.mp4" in page.text("#kept-works"))
    page.until(lambda: page.tab.locator("#kept-works canvas").count() == 2)
    pixel = "c => [...c.getContext('2d').getImageData(30, 95, 1, 1).data]"
    page.until(lambda: page.tab.locator("#kept-works canvas").first.evaluate(pixel)[2] > 150)  # violet on the disc
    page.tab.click("#kept-works .primary")
    page.until(lambda: page.tab.is_hidden("#kept"))
    page.settled()
    done = draft(tickets)
    assert is_disc(done.masks, 0) and not is_disc(done.masks, 8), "the undo is applied, too"
    assert tickets.kept(ANN) == [] and [o.kind for o in tickets.operations(held.ticket_id)] == [
        "stroke",
        "stroke",
        "undo",
    ]
    page.press("Enter", "Enter")
    page.until(lambda: tickets.ticket(held.ticket_id).state is State.DONE)


def test_of_a_long_list_only_what_is_looked_at_is_drawn_small_and_while_it_is_open(open_page, tickets):
    came_late(tickets)
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    (operation, *_) = page.tab.evaluate("async () => (await import('/web/shared/api.js')).kept()")
    works = [operation | {"ticket_id": f"ticket-{n}", "operation_id": f"late-{n}"} for n in range(30)]
    page.tab.route("**/api/me/kept", lambda route: route.fulfill(json=works))
    page.tab.evaluate("async () => (await import('/web/ticket/kept.js')).refreshKept()")
    kept_of(page)
    rows = page.tab.locator("#kept-works .kept")
    page.until(lambda: rows.first.locator("canvas").count() == 1)
    rows.last.scroll_into_view_if_needed()
    page.until(lambda: rows.last.locator("canvas").count() == 1)
    assert rows.count() == 30 and rows.nth(15).locator("canvas").count() == 0
    assert rows.first.locator("canvas").evaluate("canvas => [canvas.width, canvas.height]") == [320, 180]
    page.press("Escape")
    page.until(lambda: rows.count() == 0)


def test_a_submitted_masklet_is_applied_frame_by_frame(open_page, tickets):
    held, made = came_late(tickets)
    with pytest.raises(TakenBack):
        tickets.finish(held.ticket_id, held.lease_token, ANN, outcome(masklet=made))
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    kept_of(page)
    assert "a submitted masklet" in page.text("#kept-works")
    page.tab.click("#kept-works .primary")
    page.until(lambda: page.tab.is_hidden("#kept"))
    page.settled()
    page.until(lambda: all(is_disc(draft(tickets).masks, i) for i in made.frame_idx))


def test_a_stopped_propagation_is_repeated_as_far_as_it_had_come(open_page):
    """Or not at all: what it did not reach are frames that the person kept."""
    acts = [
        ("all", "propagate", 8, {"direction": "forward"}),
        ("ahead", "propagate", 8, {"direction": "both", "last": 60}),
        ("ahead-end", "stop", None, {"operation_id": "ahead", "last": 20}),
        ("behind", "propagate", 20, {"direction": "both", "last": 60}),
        ("behind-end", "stop", None, {"operation_id": "behind", "last": 12}),
        ("back", "propagate", 20, {"direction": "backward"}),
        ("back-end", "stop", None, {"operation_id": "back", "last": 16}),
        ("none", "propagate", 8, {"direction": "forward"}),
        ("none-end", "stop", None, {"operation_id": "none", "last": None}),
        ("none-undone", "undo", None, {"operation_id": "none"}),
        ("in-time-end", "stop", None, {"operation_id": "in-time", "last": 24}),
    ]
    keys = ("operation_id", "kind", "frame_idx", "content")
    repeated = open_page().tab.evaluate(
        "async (operations) => (await import('/web/shared/kept_work.js')).repeated({ operations })",
        [dict(zip(keys, act, strict=True)) for act in acts],
    )
    assert [tuple(act[key] for key in keys) for act in repeated] == [
        acts[0],
        ("ahead", "propagate", 8, {"direction": "forward", "last": 20}),
        ("behind", "propagate", 20, {"direction": "both", "first": 12, "last": 60}),
        ("back", "propagate", 20, {"direction": "backward", "last": 16}),
        acts[-1],
    ]


def test_late_work_is_dismissed_and_cannot_be_applied_to_a_decided_ticket(open_page, tickets):
    tickets.open_batch("b", verify_tickets(1, FRAMES))
    held = claim(tickets, VERA)
    tickets.end_lease(held.ticket_id, held.lease_token, by=LEA)
    with pytest.raises(TakenBack):
        tickets.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.ACCEPT))
    other = claim(tickets, LEA)
    tickets.finish(other.ticket_id, other.lease_token, LEA, outcome(Verdict.ACCEPT))
    page = open_page()
    page.log_in()
    page.shows("message")
    kept_of(page)
    assert "the verdict Accept" in page.text("#kept-works")
    page.tab.click("#kept-works .primary")
    page.until(lambda: "it is decided" in page.text("#kept-works .said"))
    page.tab.click("#kept-works .quiet")
    page.until(lambda: page.tab.is_hidden("#kept") and page.tab.is_hidden("#kept-list"))
    assert tickets.kept(VERA) == [] and len(tickets.branches()) == 1
