"""The page on which leads look through all tickets: the list, acts, replays, two versions side by side, kept work."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

import pytest
from sqlalchemy import select

from annotation_queue import schema
from annotation_queue.draft import draft_of
from annotation_queue.errors import TakenBack
from annotation_queue.records import Kind, NewComment, NewOperation, Reason, Submission
from annotation_queue.refinement.live import Live
from annotation_queue.tickets import comments
from annotation_queue.tickets.batches import set_name
from annotation_queue.versions import versions_of
from storage import rle
from storage.iou import mean_iou
from storage.records import Verdict
from tests.annotation_queue.annotators import ANN, LEA, VERA, VICTOR, claim, finish, prompt
from tests.annotation_queue.browsing import EVERY_DATABASE, FRAMES
from tests.annotation_queue.synthetic_queue import (
    SyntheticMedia,
    SyntheticModel,
    mask,
    track_ticket,
    verify_tickets,
)


@pytest.fixture
def as_lead(open_page):
    """Opens the page of all tickets, as Lea; what: the part of its address behind #."""

    def at(what="", name="lea"):
        page = open_page()
        page.log_in(name)
        page.until(lambda: page.tab.get_attribute("body", "data-view") in ("work", "message"))
        page.tab.goto(f"{page.url}/web/browser.html#{what}")
        return page

    return at


def ids(page):
    """The ids of the tickets in the list, in order."""
    names = page.tab.locator(".card-of").evaluate_all("cards => cards.map(card => card.id)")
    return [name.removeprefix("card-") for name in names]


def shows(page, *expected):
    page.until(lambda: ids(page) == list(expected) and "Looking" not in page.text("#found"))


def text_of(page, ticket_id):
    return page.tab.inner_text(f"#card-{ticket_id}")


# --- the list ------------------------------------------------------------------------------------------------------


def test_a_lead_filters_the_tickets_and_comes_back_to_them_by_their_address(as_lead, tickets):
    tickets.open_batch("a", verify_tickets(2, FRAMES, prefix="one"))
    tickets.open_batch("b", verify_tickets(3, FRAMES, prefix="two"))
    finish(tickets, VICTOR, Verdict.REJECT, Reason.DUPLICATE)
    held = claim(tickets, VICTOR)
    page = as_lead("batch_id=b")
    shows(page, "two-0002", "two-0001", "two-0000")
    assert page.tab.input_value("[name=batch_id]") == "b", "the filters show what the address says"
    pictures = "images => images.filter(image => image.complete && image.naturalWidth === 320).length"
    page.until(lambda: page.tab.locator(".card-of img").evaluate_all(pictures) == 3)
    page.tab.select_option("[name=batch_id]", "")
    page.tab.select_option("[name=reason]", "duplicate")
    shows(page, "one-0000")
    assert "reject, settled" in text_of(page, "one-0000") and "Same object" in text_of(page, "one-0000")
    assert "reason=duplicate" in page.tab.evaluate("location.hash")
    page.tab.click(".card-of a")
    page.tab.wait_for_selector(".step")
    page.press("Escape")
    shows(page, "one-0000")
    page.tab.get_by_role("button", name="Clear").click()
    page.tab.select_option("[name=person]", "victor")
    shows(page, held.ticket_id, "one-0000")
    page.tab.get_by_role("button", name="Clear").click()
    page.tab.fill("[name=text]", held.ticket_id)
    page.press("Enter")
    shows(page, held.ticket_id)
    page.tab.fill("[name=score_to]", "0.1")
    page.press("Enter")
    page.until(lambda: page.text("#found") == "No ticket passes these filters.")


def test_the_list_names_videos_and_batches_and_the_link_back_keeps_its_filters(as_lead, tickets):
    tickets.open_batch("a", verify_tickets(2, FRAMES, prefix="one"))
    tickets.open_batch("b", verify_tickets(1, FRAMES, prefix="two"))
    set_name(tickets.database, "b", "the second")
    page = as_lead("batch_id=b")
    shows(page, "two-0000")
    assert "the second" in page.tab.inner_text("[name=batch_id] option:checked")
    page.until(lambda: "video-0.mp4" in text_of(page, "two-0000"))
    page.tab.click(".card-of a")
    page.tab.wait_for_selector(".step")
    page.until(lambda: "video-0.mp4" in page.text("#ticket-facts") and "the second" in page.text("#ticket-facts"))
    page.tab.click("#ticket .to-list")
    page.until(lambda: page.tab.evaluate("location.hash") == "#batch_id=b" and page.tab.is_visible("#cards"))
    shows(page, "two-0000")


def test_a_ticket_that_comes_after_the_list_is_back_is_not_opened(as_lead, tickets):
    tickets.open_batch("b", verify_tickets(1, FRAMES, prefix="two"))
    page = as_lead()
    shows(page, "two-0000")
    steps = page.tab.evaluate(
        """async () => {
          const { close, showStory } = await import("/web/leads/story.js");
          const shown = showStory("two-0000", { stride: 4 }, [], () => {});
          close();
          await shown;
          return document.querySelectorAll(".step").length;
        }"""
    )
    assert steps == 0


def test_a_ticket_that_fails_late_closes_none_that_was_opened_since(as_lead, tickets):
    tickets.open_batch("b", verify_tickets(2, FRAMES))
    page = as_lead()
    page.until(lambda: len(ids(page)) == 2)
    waits = []
    page.tab.route("**/tickets/ticket-0000/history", lambda route: waits.append(route))
    page.tab.evaluate("location.hash = 'ticket=ticket-0000'")
    page.until(lambda: waits)
    page.tab.evaluate("location.hash = 'ticket=ticket-0001'")
    page.tab.wait_for_selector(".step")
    with page.tab.expect_event("requestfailed"):
        waits[0].abort()
    assert page.tab.is_visible("#ticket") and page.tab.is_hidden("#list") and page.text("#error") == ""


def test_a_lead_goes_through_many_tickets_page_by_page(as_lead, tickets):
    tickets.open_batch("b", verify_tickets(70, 8))
    page = as_lead("order=score")
    page.until(lambda: page.text("#found") == "60 shown")
    page.tab.click("#more")
    page.until(lambda: page.text("#found") == "70 found" and page.tab.is_hidden("#more"))
    assert len(set(ids(page))) == 70


def test_the_page_is_for_leads_only(as_lead):
    page = as_lead(name="vera")
    page.until(lambda: "for leads and admins" in page.text("#error"))
    assert page.tab.locator(".card-of").count() == 0


# --- acts ----------------------------------------------------------------------------------------------------------


# Both before the first one is answered.
ENTER_TWICE = "field => [1, 2].forEach(() => field.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' })))"


def select_all(page, count):
    page.until(lambda: page.tab.locator(".pick input").count() == count)
    page.tab.locator(".pick input").first.click()
    page.tab.locator(".pick input").last.click(modifiers=["Shift"])
    assert f"{count} tickets selected" in page.text("#bulk")


@EVERY_DATABASE
def test_a_lead_assigns_many_tickets_at_once_and_reads_what_became_of_each(as_lead, tickets):
    tickets.open_batch("b", verify_tickets(4, FRAMES))
    finish(tickets, VERA, Verdict.ACCEPT)
    page = as_lead("batch_id=b&kind=verify")
    select_all(page, 4)
    page.tab.select_option("#bulk [aria-label=Person]", "victor")
    page.tab.get_by_role("button", name="Assign", exact=True).click()
    page.until(lambda: "3 tickets done, 1 refused" in page.text("#bulk"))
    assert "ticket-0000: it is done: reopen it first" in page.text("#bulk")
    page.until(lambda: "for victor" in text_of(page, "ticket-0003"))
    assert claim(tickets, VERA) is None and claim(tickets, VICTOR) is not None
    page.press("Escape")
    page.until(lambda: page.tab.is_hidden("#bulk"))


def test_a_lead_comments_many_tickets_at_once_and_reads_the_thread_beside_the_replay(as_lead, tickets):
    tickets.open_batch("b", verify_tickets(2, FRAMES))
    asked = NewComment(comment_id="asked", text="is this right?", created_at="", frame_idx=40, x=10.0, y=10.0)
    comments.add(tickets.database, "ticket-0000", VERA, asked, tickets.clock())
    page = as_lead("batch_id=b")
    select_all(page, 2)
    sent = []

    def noted(request):
        if request.url.endswith("/api/comments"):
            sent.append(request.post_data)

    page.tab.on("request", noted)
    page.tab.route("**/api/comments", lambda route: (route.fetch(), route.abort()))
    page.tab.fill("#bulk [aria-label=Comment]", "look at the edges")
    page.tab.locator("#bulk [aria-label=Comment]").evaluate(ENTER_TWICE)
    page.until(lambda: "The queue does not answer" in page.text("#bulk"))
    page.tab.get_by_role("button", name="Try again").click()
    page.until(lambda: len(sent) == 2 and "The queue does not answer" in page.text("#bulk"))
    held = []
    page.tab.unroute("**/api/comments")
    page.tab.route("**/api/comments", lambda route: held.append(route))
    page.tab.get_by_role("button", name="Send").click()
    page.until(lambda: held)
    page.tab.fill("#bulk [aria-label=Comment]", "and the next")  # before the first one is answered
    held[0].continue_()
    page.until(lambda: "2 tickets done" in page.text("#bulk"))
    page.tab.unroute("**/api/comments")
    assert page.tab.input_value("#bulk [aria-label=Comment]") == "and the next"
    assert len(sent) == 3 and sent[0] == sent[1] == sent[2], "one request for all tickets, and twice more"
    page.tab.get_by_role("button", name="Send").click()
    page.until(lambda: page.tab.input_value("#bulk [aria-label=Comment]") == "")
    both = ["look at the edges", "and the next"]
    threads = [[c.text for c in comments.read(tickets.database, f"ticket-000{n}", LEA)] for n in range(2)]
    assert threads == [["is this right?", *both], both], "each once"
    page.tab.goto(f"{page.url}/web/browser.html#ticket=ticket-0000")
    page.until(lambda: page.tab.locator("#thread li").count() == 3)
    page.tab.click("#thread button")
    page.until(lambda: page.text("#at").startswith("frame 40"))
    assert page.tab.get_attribute("#thread a", "href") == "/#ticket=ticket-0000&frame=40"
    page.tab.fill("#ticket-acts [aria-label=Comment]", "yes")
    page.tab.get_by_role("button", name="Send").click()
    page.until(lambda: page.tab.locator("#thread li").count() == 4 and "frame 40" in page.text("#thread li:last-child"))


def test_an_act_whose_answer_is_lost_is_sent_again_and_done_once(as_lead, tickets):
    tickets.open_batch("b", verify_tickets(2, FRAMES))
    page = as_lead("batch_id=b")
    select_all(page, 2)
    sent = []

    def lose(route):
        sent.append(json.loads(route.request.post_data))
        route.fetch()  # the queue does it
        route.abort()  # and the answer is lost

    page.tab.route("**/api/acts", lose)
    page.tab.fill("#bulk [aria-label=Priority]", "7")
    page.tab.get_by_role("button", name="Set").click()
    page.until(lambda: "The queue does not answer" in page.text("#bulk"))
    page.tab.unroute("**/api/acts")
    page.tab.get_by_role("button", name="Try again").click()
    page.until(lambda: "2 tickets done" in page.text("#bulk") and "refused" not in page.text("#bulk"))
    assert {t.priority for t in tickets.find(batch_id="b")} == {7} and len(sent) == 1
    with tickets.database.read() as c:
        noted = c.scalars(select(schema.audit.c.subject).where(schema.audit.c.action == "prioritise"))
        assert sorted(noted) == ["ticket-0000", "ticket-0001"], "each once"


def test_a_lead_reopens_a_ticket_from_its_replay_and_points_to_the_frame_on_screen(as_lead, tickets):
    tickets.open_batch("b", verify_tickets(3, FRAMES))
    finish(tickets, VERA, Verdict.ACCEPT)
    page = as_lead("ticket=ticket-0000")
    page.tab.wait_for_selector(".step")
    page.until(lambda: page.tab.locator(".screen").get_attribute("data-frame") == "0")
    page.press("ArrowRight", "ArrowRight")
    page.until(lambda: page.tab.locator(".screen").get_attribute("data-frame") == "8")
    page.tab.select_option("#ticket-acts [aria-label='Kind of the new ticket']", "track")
    page.tab.get_by_role("button", name="Reopen").click()
    page.until(lambda: "reopened as track ticket" in page.text("#ticket-acts"))
    page.until(lambda: page.tab.locator("#line li").count() == 2 and "lea: reopen" in page.text("#log"))
    [follower] = tickets.find(kind=Kind.TRACK)
    assert json.loads(follower.payload)["pinned"]["frame_idx"] == 8
    page.tab.locator("#line a").last.click()
    page.until(lambda: "Correct · open" in page.text("#ticket-title"))


def test_the_page_says_why_nothing_of_a_complete_batch_is_reopened(as_lead, tickets):
    tickets.open_batch("b", verify_tickets(1, FRAMES))
    finish(tickets, VERA, Verdict.ACCEPT)
    page = as_lead("ticket=ticket-0000")
    page.tab.wait_for_selector(".step")
    page.tab.get_by_role("button", name="Reopen").click()
    page.until(lambda: "what is published is never changed" in page.text("#ticket-acts"))


# --- the replay ----------------------------------------------------------------------------------------------------

MASKS = """
async (id) => {
  const api = await import("/web/shared/api.js");
  const { Replay } = await import("/web/leads/replay.js");
  const history = await api.story(id);
  const { ticket } = history.card;
  const replay = new Replay(history, await api.masklet(id), await api.video(ticket.video_id), 4);
  return Array.from({ length: replay.length }, (_, n) => Object.fromEntries(replay.masksAt(n)));
}
"""


def operation(kind, frame_idx=None, **payload):
    return NewOperation(
        operation_id=uuid.uuid4().hex, kind=kind, created_at="2026-01-01T00:00:00Z", frame_idx=frame_idx,
        payload=json.dumps(payload),
    )  # fmt: skip


def drawn(frame_idx):
    return operation("stroke", frame_idx, mask_rle=rle.encode(mask(frame_idx)).decode())


def corrected(tickets):
    """Ann corrects track-1 with every kind of operation, and submits. Returns what she held."""
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES), *verify_tickets(1, FRAMES)])
    live = Live(tickets, SyntheticMedia(FRAMES).info, SyntheticModel())
    held = claim(tickets, ANN, Kind.TRACK)
    click = prompt(frame_idx=8)
    points = json.dumps({"points_xy": [[76, 227]], "labels": [1]})
    for each in (replace(click, payload=points), operation("propagate", 8, direction="forward", last=40)):
        frames, ended = [], []
        started = live.begin(held.ticket_id, held.lease_token, ANN, each)
        started.version.start(frames.append, ended.append).ended.wait(60)
        assert ended == [None]
        started.version.save(tuple(frames))
    live.close()
    stroke, undone = drawn(48), drawn(52)
    more = [stroke, operation("lock", 48, on=True), undone, operation("undo", operation_id=undone.operation_id)]
    more += [operation("absent", first=60, last=80), operation("clear", 64), drawn(84)]
    tickets.append_operations(held.ticket_id, held.lease_token, ANN, more)
    done = Submission(operation_id="s", created_at="", last_operation_id=more[-1].operation_id, seconds=9, frame_idx=84)
    tickets.finish(held.ticket_id, held.lease_token, ANN, done)
    return held


def test_each_step_of_a_replay_has_the_masks_that_the_server_derives_for_it(as_lead, tickets):
    held = corrected(tickets)
    page = as_lead(f"ticket={held.ticket_id}")
    page.tab.wait_for_selector(".step")
    seen = page.tab.evaluate(MASKS, held.ticket_id)
    log, base = tickets.operations(held.ticket_id), tickets.masklet(held.ticket_id)
    with tickets.database.read() as c:
        versions = versions_of(c, held.ticket_id)
    assert len(seen) == len(log) + 1 == 11
    for step, masks in enumerate(seen):
        right = draft_of((base.height, base.width), base.frame_idx, base, log[:step], versions)
        assert masks == {str(i): m.rle.decode() for i, m in right.masks.items()}, step
    assert seen[0] != seen[1] != seen[2], "the steps differ"


def test_a_lead_steps_through_the_log_and_sees_the_frame_and_the_mask_of_each_step(as_lead, tickets):
    held = corrected(tickets)
    page = as_lead(f"ticket={held.ticket_id}")
    page.tab.wait_for_selector(".step[aria-current=step]")

    def frame():
        return page.tab.locator(".screen").first.get_attribute("data-frame")

    page.tab.locator(".step", has_text="Prompt").click()
    page.until(lambda: frame() == "8")
    page.press("ArrowDown", "ArrowDown")
    assert "Drawn mask · frame 48" in page.text(".step[aria-current=step]")
    page.until(lambda: frame() == "48")
    pixel = "c => [...c.getContext('2d').getImageData(156, 172, 1, 1).data]"
    with_mask = page.tab.locator(".screen").first.evaluate(pixel)
    page.press("ArrowUp")
    assert "Propagation" in page.text(".step[aria-current=step]")
    page.tab.fill("#scrub", str(48 // 4))
    page.until(lambda: frame() == "48" and page.tab.locator(".screen").first.evaluate(pixel) != with_mask)
    drawn = "canvas => canvas.toDataURL()"
    lanes = page.tab.locator("#lanes").evaluate(drawn)
    page.tab.click("#theme")
    page.until(lambda: page.tab.locator("#lanes").evaluate(drawn) != lanes)


def test_two_versions_stand_side_by_side_on_the_same_frame_with_their_likeness(as_lead, tickets):
    held = corrected(tickets)
    follower = tickets.ticket(held.ticket_id).next_ticket_id
    page = as_lead(f"ticket={follower}")
    page.tab.wait_for_selector(".step")
    assert page.tab.locator("#compare option").all_inner_texts() == ["nothing", "1 · by the model", "2 · by ann"]
    page.tab.select_option("#compare", held.ticket_id)
    page.until(lambda: page.tab.locator(".screen").count() == 2)
    mean = mean_iou(tickets.masklet(follower), tickets.masklet(held.ticket_id))
    page.until(lambda: f"mean {mean:.3f}" in page.text("#likeness"))
    page.tab.fill("#scrub", "12")

    def both():
        return [page.tab.locator(".screen").nth(n).get_attribute("data-frame") for n in (0, 1)]

    page.until(lambda: both() == ["48", "48"])
    assert "IoU on this frame 0.000" in page.text("#likeness")
    page.tab.click("#ticket .to-list")
    page.until(lambda: page.tab.is_hidden("#ticket"))
    assert page.tab.locator(".screens.two").count() == 0, "the next ticket has one picture"


# --- kept work -----------------------------------------------------------------------------------------------------


def came_late(tickets):
    """Ann drew on a frame of track-1 after Lea had taken it back."""
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES)])
    held = claim(tickets, ANN)
    tickets.end_lease(held.ticket_id, held.lease_token, by=LEA)
    with pytest.raises(TakenBack):
        tickets.append_operations(held.ticket_id, held.lease_token, ANN, [drawn(8)])
    return held


def test_a_lead_opens_kept_work_of_another_person_and_dismisses_it(as_lead, tickets):
    held = came_late(tickets)
    page = as_lead("kept")
    page.until(lambda: page.tab.locator("#kept-works canvas").count() == 1)
    assert "ann" in page.text("#kept-works") and "1 drawn mask" in page.text("#kept-works")
    page.until(lambda: "video-0.mp4" in page.text("#kept-works"))
    page.tab.get_by_role("link", name="Open the ticket").click()
    page.tab.wait_for_selector(".step")
    assert "came late: counts nowhere" in page.text("#log")
    seen = page.tab.evaluate(MASKS, held.ticket_id)
    assert seen[1]["8"] == rle.encode(mask(8)).decode() != seen[0]["8"], "it is shown as if it had come in time"
    page.tab.goto(f"{page.url}/web/browser.html#kept")
    page.tab.get_by_role("button", name="Dismiss").click()
    page.until(lambda: page.text("#kept-works") == "Nothing came late." and page.tab.is_hidden("#to-kept"))
    assert tickets.kept(ANN) == [] and tickets.operations(held.ticket_id) == []


def test_a_lead_applies_kept_work_of_another_person_at_the_desk(as_lead, tickets):
    held = came_late(tickets)
    tickets.open_batch("c", verify_tickets(4, FRAMES))  # so that the desk has other tickets than this one
    page = as_lead("kept")
    page.tab.get_by_role("link", name="Apply it at the desk").click()
    page.tab.wait_for_selector("#kept-list[open] .kept")
    assert "ann ·" in page.text("#kept-works")
    page.tab.click("#kept-works .primary")
    page.until(lambda: page.tab.is_hidden("#kept"))
    page.settled()
    [applied] = tickets.operations(held.ticket_id)
    assert (applied.kind, applied.person, applied.frame_idx) == ("stroke", "lea", 8)
    assert "The work of ann" in page.text("#notice") and tickets.kept(ANN) == []
