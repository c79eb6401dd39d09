"""The sheet: calm masklets side by side, each accepted at a glance or opened."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from annotation_queue.records import Kind, NewGold, QueuePolicy, State
from storage.records import Verdict
from tests.annotation_queue.annotators import LEA
from tests.annotation_queue.synthetic_queue import candidate, verify_tickets

CALM = 40  # frames: the disc is in view all the time, and its scores are high
LIVELY = 96  # frames: the scores dip
WATCHING = QueuePolicy(watch_share=1.0, watch_fault_share=0, watch_least=1)


def done(tickets):
    return sorted(t.ticket_id for t in tickets.find(state=State.DONE))


def places(page):
    """The tiles with a masklet."""
    return page.tab.locator("#tiles article")


def said(page):
    return page.text("#sheet-said")


def watched(page, count):
    """Wait until this many tiles have been seen as far as an accept needs."""
    page.until(lambda: page.tab.locator("#tiles article.watched").count() >= count)


@pytest.fixture
def on_sheet(open_page, tickets):
    """Opens a tab in which Vera has the sheet on screen."""

    def at(count=3, lively=0, policy=None, height=720):
        if policy:
            tickets.policy = policy
        batch = [*verify_tickets(count, CALM, "calm"), *verify_tickets(lively, LIVELY, "lively")]
        tickets.open_batch("b", batch)
        page = open_page()
        page.tab.set_viewport_size({"width": 900 if height < 720 else 1280, "height": height})
        page.log_in()
        page.shows("work")
        page.press("Shift+S")
        page.shows("sheet")
        page.until(lambda: places(page).count() >= min(count, 12))
        return page

    return at


def test_calm_masklets_play_side_by_side_and_each_is_accepted_by_one_key(on_sheet, tickets):
    page = on_sheet(3)
    first = page.tab.locator("#tiles canvas").first
    page.until(lambda: first.get_attribute("data-frame") is not None)
    before = first.get_attribute("data-frame")
    page.until(lambda: first.get_attribute("data-frame") != before)
    page.press("a")
    page.until(lambda: done(tickets) == ["calm-0000"])
    page.press("a", "a")
    page.until(lambda: done(tickets) == ["calm-0000", "calm-0001", "calm-0002"])
    assert {tickets.ticket(name).verdict for name in done(tickets)} == {Verdict.ACCEPT}


def test_no_accept_before_the_frames_were_on_screen_and_what_was_watched_is_logged(open_page, tickets):
    tickets.policy = WATCHING
    tickets.open_batch("b", verify_tickets(2, CALM, "calm"))
    page, held, free = open_page(), [], []
    later = re.compile(r"/frames/(1[2-9]|2\d|3\d)\.jpg")
    page.tab.route(later, lambda route: route.continue_() if free else held.append(route))
    page.log_in()
    page.shows("work")
    page.press("Shift+S")
    page.shows("sheet")
    page.until(lambda: "Seen 3 of 10" in places(page).first.inner_text())
    page.press("a")
    page.until(lambda: "Watch 7 more frames before you accept" in said(page))
    assert done(tickets) == []
    free.append(True)
    for route in held:
        route.continue_()
    watched(page, 2)
    page.press("a")
    page.until(lambda: len(done(tickets)) == 1)
    (name,) = done(tickets)
    assert json.loads(tickets.operations(name)[0].payload)["watched"] == 1.0


def test_a_tile_out_of_view_does_not_count_as_watched(on_sheet):
    page = on_sheet(4, policy=WATCHING, height=500)  # two rows, of which one is in view
    watched(page, 2)
    last = places(page).nth(3)
    assert last.locator("p").inner_text() == "Seen 0 of 10 frames"
    last.scroll_into_view_if_needed()
    page.until(lambda: "watched" in last.get_attribute("class"))


def test_what_is_not_calm_waits_and_comes_after_the_sheet(on_sheet, tickets):
    page = on_sheet(2, lively=2)
    assert places(page).count() == 2
    page.press("a", "a")
    page.until(lambda: len(done(tickets)) == 2)
    page.says("2 masklets of yours")
    page.press("Enter")
    page.paused_at_start()
    page.press("a")
    page.until(lambda: len(done(tickets)) == 3)


def test_a_masklet_that_is_opened_is_judged_alone_and_the_sheet_comes_back(on_sheet, tickets):
    page = on_sheet(3)
    page.press("ArrowRight", "Enter")
    page.paused_at_start()
    page.press("x")
    page.tab.wait_for_selector(".reason")
    page.press("1")
    page.shows("sheet")
    page.until(lambda: done(tickets) == ["calm-0001"])
    assert tickets.ticket("calm-0001").verdict is Verdict.REJECT
    page.until(lambda: places(page).count() == 2)


def test_the_last_accept_can_be_taken_back(on_sheet, tickets):
    page = on_sheet(2)
    page.press("Backspace")
    page.until(lambda: "no answer to take back" in page.text("#notice"))
    assert page.tab.get_attribute("body", "data-view") == "sheet", "nothing was taken back: the sheet stays"
    page.press("a")
    page.until(lambda: done(tickets) == ["calm-0000"] and page.text("#save") == "Saved")
    page.press("Backspace")
    page.until(lambda: "Taken back" in page.text("#notice"))
    assert done(tickets) == [] and tickets.ticket("calm-0000").leased_by == "vera"


def test_every_tile_is_leased_and_a_lost_lease_takes_its_tile_away_with_a_sentence(on_sheet, tickets):
    page = on_sheet(3)
    leased = tickets.find(state=State.LEASED)
    assert {t.ticket_id for t in leased} == {"calm-0000", "calm-0001", "calm-0002"}
    taken = next(t for t in leased if t.ticket_id == "calm-0001")
    tickets.end_lease(taken.ticket_id, taken.lease_token, by=LEA)
    page.tab.evaluate("import('/web/ticket/leases.js').then(({ renewAll }) => renewAll())")
    page.until(lambda: "Masklet 2 went back to the queue. lea took" in said(page))


def test_a_lost_ticket_that_waits_aside_makes_room(on_sheet, tickets):
    aside = (
        "import('/web/shared/session.js').then(({ session }) => session.aside.map((held) => held.ticket.lease_token))"
    )
    page = on_sheet(1, lively=1)
    page.until(lambda: page.tab.evaluate(aside) == [tickets.ticket("lively-0000").lease_token] != [None])
    taken = tickets.ticket("lively-0000")
    tickets.end_lease(taken.ticket_id, taken.lease_token, by=LEA)
    page.tab.evaluate("import('/web/ticket/leases.js').then(({ renewAll }) => renewAll())")
    page.until(lambda: tickets.ticket("lively-0000").lease_token not in {None, taken.lease_token})
    page.until(lambda: page.tab.evaluate(aside) == [tickets.ticket("lively-0000").lease_token])


def test_a_ticket_of_the_sheet_that_a_link_opens_leaves_the_sheet(on_sheet, tickets):
    page = on_sheet(3)
    page.tab.evaluate("location.hash = '#ticket=calm-0001'")
    page.paused_at_start()
    page.press("a")
    page.shows("sheet")
    page.until(lambda: done(tickets) == ["calm-0001"])
    page.until(lambda: places(page).count() == 2)


def test_a_failure_can_be_read_on_the_sheet_and_afterwards(on_sheet):
    page = on_sheet(1)
    page.tab.evaluate("import('/web/ticket/login.js').then(({ fail }) => fail(new Error('the disk is full')))")
    assert page.tab.is_visible("#notice") and "the disk is full" in page.text("#notice")
    page.press("Escape")
    page.shows("work")
    assert page.tab.is_visible("#notice"), "it is about more than the sheet"


def test_leases_of_tiles_are_renewed(on_sheet, tickets):
    page = on_sheet(2)
    before = {t.ticket_id: t.expires_at for t in tickets.find(state=State.LEASED)}
    page.tab.evaluate("import('/web/ticket/leases.js').then(({ renewAll }) => renewAll())")
    page.until(lambda: all(tickets.ticket(name).expires_at > at for name, at in before.items()))


def test_a_reload_keeps_the_tickets_of_the_sheet(on_sheet, tickets):
    page = on_sheet(3)
    held = {t.ticket_id for t in tickets.find(state=State.LEASED)}
    page.tab.reload()
    page.shows("work")
    page.press("Shift+S")
    page.shows("sheet")
    page.until(lambda: places(page).count() == 3)
    assert {t.ticket_id for t in tickets.find(state=State.LEASED)} == held


def test_leaving_gives_back_nothing_and_shows_one_at_a_time(on_sheet, tickets):
    page = on_sheet(3)
    page.press("Escape")
    page.paused_at_start()
    page.press("a")
    page.until(lambda: len(done(tickets)) == 1)
    page.paused_at_start()  # and not the sheet


def test_gold_comes_among_the_tiles_and_looks_like_work(on_sheet, tickets):
    tickets.open_batch("gold", verify_tickets(1, CALM, "base"))
    gold = replace(
        verify_tickets(1, CALM, "gold")[0], masklet=replace(candidate("g", frame_count=CALM), video_id="video-0")
    )
    tickets.add_gold("gold", [NewGold(ticket=gold, expected=Verdict.ACCEPT)], by=LEA)
    page = on_sheet(3, policy=QueuePolicy(watch_share=0, watch_fault_share=0, watch_least=0, gold_share=1.0))
    page.until(lambda: places(page).count() == 5)
    held = tickets.find(state=State.LEASED, kind=Kind.VERIFY)
    assert len(held) == 5
    page.until(lambda: page.tab.locator("#tiles canvas[data-frame]").count() == 5)
    shown = {places(page).nth(n).evaluate("e => e.outerHTML.replace(/[0-9]+/g, '')") for n in range(5)}
    assert len({html.replace(" watched", "") for html in shown}) <= 2  # the one with the focus differs


def test_an_answer_that_comes_after_its_lease_is_named(on_sheet, tickets):
    page = on_sheet(2)
    taken = tickets.ticket("calm-0000")
    tickets.end_lease(taken.ticket_id, taken.lease_token, by=LEA)
    page.press("a")
    page.until(lambda: "One answer was refused" in said(page))
    assert tickets.ticket("calm-0000").verdict is None


CALM_RULE = """
async ([change]) => {
  const { isCalm } = await import("/web/ticket/calm.js");
  const { Timeline } = await import("/web/shared/timeline.js");
  const n = change.frames ?? 20;
  const masklet = {
    frame_idx: Array.from({ length: n }, (_, i) => 4 * i), rle: Array(n).fill("04o0"), area_px: Array(n).fill(100),
    score: Array(n).fill(0.95), ...change.masklet,
  };
  const timeline = new Timeline(masklet, { frame_count: 4 * n }, 4, change.threshold);
  return isCalm({ ticket: { kind: "verify", needs_lead: false, rework: false, ...change.ticket },
                  rules: change.rules ?? {}, timeline, labelling: { asks: () => change.asks ?? false } });
}
"""


@pytest.mark.parametrize(
    ("change", "calm"),
    [
        ({}, True),
        ({"frames": 121}, False),
        ({"masklet": {"score": [0.95] * 19 + [0.6]}}, False),
        ({"masklet": {"score": [0.8] * 20}}, False),
        ({"masklet": {"area_px": [100] * 19 + [300]}}, False),
        ({"masklet": {"area_px": [100] * 19 + [0]}}, False),
        ({"ticket": {"needs_lead": True}}, False),
        ({"ticket": {"rework": True}}, False),
        ({"ticket": {"kind": "track"}}, False),
        ({"asks": True}, False),
        ({"masklet": {"score": [0.95] * 19 + [0.6]}, "threshold": 0.5}, False),
        ({"threshold": 1.0}, True),
        ({"rules": {"pinned": {"frame_idx": 4, "by": "vera", "reasons": []}}}, False),
    ],
)
def test_a_masklet_is_calm_by_one_rule(open_page, change, calm):
    assert open_page().tab.evaluate(CALM_RULE, [change]) is calm
