"""Comments on the page: written, pointed, sent without a connection, read by the next person; and reasons in words."""

from __future__ import annotations

import json

import pytest

from annotation_queue.database import Database
from annotation_queue.records import NewComment, Reason, State, Submission
from annotation_queue.tickets import comments
from storage.records import Verdict
from tests.annotation_queue.annotators import LEA, VERA, VICTOR, claim
from tests.annotation_queue.browsing import EVERY_DATABASE, FRAMES, Page
from tests.annotation_queue.synthetic_queue import ServerProcess, centre, track_ticket, verify_tickets


def said(tickets, ticket_id, who=LEA):
    return comments.read(tickets.database, ticket_id, who)


def write(page, text):
    """Open the comments by their key, and send one."""
    page.press("Shift+C")
    page.tab.fill("#comment-text", text)
    page.press("Control+Enter")


def is_at_point(page, frame_idx):
    """Whether the tip of the pin, its lower left corner, is at the middle of the disc."""
    pin, (x, y) = box_of_pin(page), page.on_screen(*centre(frame_idx))
    return pin is not None and abs(pin["x"] - x) < 3 and abs(pin["y"] + pin["height"] - y) < 3


def box_of_pin(page):
    """The pin's box on the screen; None while the page draws it anew."""
    return page.tab.evaluate("document.querySelector('.pin')?.getBoundingClientRect()?.toJSON() ?? null")


def by_lead(tickets, ticket_id, text, comment_id, **place):
    new = NewComment(comment_id=comment_id, text=text, created_at="2026-01-01T00:00:00Z", **place)
    comments.add(tickets.database, ticket_id, LEA, new, tickets.clock())


@EVERY_DATABASE
def test_a_comment_is_written_with_keys_and_is_about_the_frame_on_screen(verifying, tickets):
    page = verifying()
    page.press("ArrowRight")
    page.at(4)
    write(page, "the ear <b>is</b> missing")
    page.until(lambda: len(said(tickets, "ticket-0000")) == 1)
    (comment,) = said(tickets, "ticket-0000")
    assert (comment.person, comment.frame_idx, comment.x) == ("vera", 4, None)
    assert comment.text == "the ear <b>is</b> missing"
    page.until(lambda: "<b>is</b>" in page.text("#thread") and "not sent yet" not in page.text("#thread"))
    page.press("Escape")
    assert page.tab.is_hidden("#comments") and page.text("#open-comments") == "Comments 1"
    page.until(lambda: "vera: the ear" in page.text("#badges"))
    page.press("ArrowRight")
    page.at(8)
    page.until(lambda: "the ear" not in page.text("#badges"))
    page.press("a")
    page.until(lambda: tickets.ticket("ticket-0000").state is State.DONE)


def test_letters_in_a_comment_are_no_keys(verifying, tickets):
    page = verifying(2)
    page.press("Shift+C")
    page.tab.keyboard.type("a x e ? u")
    assert page.tab.input_value("#comment-text") == "a x e ? u"
    page.settled()  # an answer would have been sent by now
    assert tickets.find(state=State.DONE) == [] and page.tab.locator(".reason").count() == 0
    page.press("Escape")
    page.press("Shift+C")
    assert page.tab.input_value("#comment-text") == "a x e ? u", "what is not sent stays"


def test_a_comment_goes_on_after_a_click_beside_it_and_no_letter_of_it_answers(verifying, tickets):
    page = verifying(2)
    page.press("Shift+C")
    page.tab.click("#comment-point")
    page.point(*centre(0))
    page.until(lambda: page.tab.locator(".pin").count() == 1)
    page.tab.keyboard.type("wrong edge")
    page.tab.click("#comment-frame")
    page.tab.keyboard.type(" here")
    assert page.tab.input_value("#comment-text") == "wrong edge here" and not page.tab.is_checked("#comment-on-frame")
    page.tab.click("#timeline")
    page.press("w")
    page.until(lambda: "not sent yet" in page.text("#notice"))
    page.press("a", "e", "u", "x", "Backspace")
    page.settled()
    assert page.ticket() == "ticket-0000" and page.tab.locator(".reason").count() == 0
    assert page.tab.get_attribute("body", "data-kind") == "verify" and tickets.find(state=State.DONE) == []
    page.press("Escape")
    assert page.tab.is_hidden("#comments") and page.tab.is_hidden("#notice")
    page.press("a")
    page.until(lambda: tickets.ticket("ticket-0000").state is State.DONE)


def test_a_point_is_chosen_in_the_picture_and_shown_there_to_the_next_person(verifying, open_page, tickets):
    page = verifying()
    page.press("ArrowRight")
    page.at(4)
    page.press("Shift+C")
    page.tab.fill("#comment-text", "here")
    page.tab.click("#comment-point")
    page.until(lambda: page.tab.is_visible("#notice"))
    playing = page.tab.get_attribute("#play", "class")
    page.point(*centre(4))
    page.until(lambda: page.tab.locator(".pin").count() == 1)
    assert page.tab.is_hidden("#notice"), "it asked for the click"
    assert page.tab.get_attribute("#play", "class") == playing, "the click does nothing else"
    page.tab.click("#comment-form .primary")
    page.until(lambda: len(said(tickets, "ticket-0000")) == 1)
    (comment,) = said(tickets, "ticket-0000")
    assert comment.frame_idx == 4 and abs(comment.x - centre(4)[0]) < 2 and abs(comment.y - centre(4)[1]) < 2
    page.press("Escape", "Shift+E", "4")
    page.until(lambda: tickets.ticket("ticket-0000").state is State.DONE)
    anns = open_page()
    anns.log_in("ann")
    anns.correcting(0)
    assert anns.tab.locator(".pin").count() == 0
    anns.press("Shift+C")
    anns.until(lambda: "here" in anns.text("#thread"))
    anns.tab.click("#thread button")
    anns.at(4)
    anns.until(lambda: anns.tab.locator(".pin").count() == 1)
    for width, height in ((1280, 720), (2560, 1440)):  # texts are larger on a large screen
        anns.tab.set_viewport_size({"width": width, "height": height})
        anns.until(lambda: is_at_point(anns, 4))
    x, _ = anns.on_screen(*centre(4))
    anns.press("Escape", "+")
    anns.until(lambda: (pin := box_of_pin(anns)) is not None and abs(pin["x"] - x) > 5)


@EVERY_DATABASE
def test_a_comment_without_a_connection_is_kept_and_sent_once(verifying, tickets):
    page = verifying()
    page.context.set_offline(True)
    write(page, "written on a train")
    page.until(lambda: "1 change kept here" in page.text("#save"))
    page.until(lambda: "not sent yet" in page.text("#thread"))
    page.tab.close()
    page.tab = page.context.new_page()
    page.context.set_offline(False)
    page.tab.goto(page.url)
    page.until(lambda: [c.text for c in said(tickets, "ticket-0000")] == ["written on a train"])


def test_a_comment_whose_answer_is_lost_is_stored_once(verifying, tickets):
    page = verifying()
    lost = []

    def lose(route):
        if route.request.method != "POST" or lost:
            return route.continue_()
        lost.append(route.fetch())  # the queue stores it
        route.abort()

    page.tab.route("**/comments", lose)
    write(page, "only once")
    page.until(lambda: bool(lost) and page.text("#save") == "Saved")
    page.until(lambda: "not sent yet" not in page.text("#thread"))
    assert [c.text for c in said(tickets, "ticket-0000")] == ["only once"]
    assert page.tab.locator("#thread li").count() == 1


@EVERY_DATABASE
def test_a_killed_server_costs_no_comment(chromium, uri):
    server = ServerProcess(uri, tracks=1, frames=FRAMES)
    server.start()
    context = chromium.new_context(viewport={"width": 1280, "height": 720})
    try:
        page = Page(context, server.url)
        page.log_in("ann")
        page.correcting(8)
        write(page, "before")
        page.until(lambda: page.text("#save") == "Saved")
        server.kill()
        page.press("Escape")
        write(page, "while nothing answers")
        page.until(lambda: "kept here" in page.text("#save"))
        server.start()
        page.settled()
        database = Database(uri)
        found = comments.read(database, "track-0", LEA)
        database.close()
        assert [(comment.text, comment.frame_idx) for comment in found] == [("before", 8), ("while nothing answers", 8)]
        assert page.tab.locator("#thread li").count() == 2 and page.problems == []
    finally:
        context.close()
        server.kill()


def test_a_comment_that_arrives_after_the_lease_is_in_the_thread(correcting, tickets, clock):
    page = correcting()
    page.context.set_offline(True)
    write(page, "which object is meant?")
    page.until(lambda: "1 change kept here" in page.text("#save"))
    tickets.end_lease("track-1", tickets.ticket("track-1").lease_token, by=LEA)
    page.context.set_offline(False)
    page.until(lambda: [c.text for c in said(tickets, "track-1")] == ["which object is meant?"])


def test_a_reply_of_the_lead_comes_while_the_thread_is_open(verifying, tickets):
    page = verifying()
    page.tab.clock.install()
    page.tab.reload()
    page.paused_at_start()
    page.press("Shift+C")
    by_lead(tickets, "ticket-0000", "mind the ear", "c-1", frame_idx=9)
    page.tab.clock.fast_forward(11_000)
    page.until(lambda: "mind the ear" in page.text("#thread"))
    page.tab.click("#thread button")
    page.at(8)  # the nearest annotated frame
    page.until(lambda: "lea: mind the ear" in page.text("#badges"))


def test_a_reason_in_words_reaches_the_corrector(verifying, open_page, tickets):
    page = verifying()
    page.press("Shift+E", "Shift+C")
    page.tab.keyboard.type("slides off at 4, and again")
    page.press("Enter")
    page.settled()
    assert tickets.find(state=State.DONE) == [], "digits in the text choose no reason"
    page.press("4")
    page.until(lambda: tickets.ticket("ticket-0000").state is State.DONE)
    assert tickets.ticket("ticket-0000").reasons == (Reason.DRIFT,)
    anns = open_page()
    anns.log_in("ann")
    anns.correcting(0)
    anns.until(lambda: "slides off at 4, and again" in anns.text("#facts"))


def test_words_are_dropped_with_the_reason_that_they_were_for(verifying, tickets):
    page = verifying()
    page.press("x", "Shift+C")
    page.tab.keyboard.type("no")
    page.press("Escape", "Escape", "Shift+E")
    assert page.tab.input_value("#in-words") == ""
    page.press("4")
    page.until(lambda: tickets.ticket("ticket-0000").state is State.DONE)
    (verdict,) = tickets.operations("ticket-0000")
    assert "text" not in json.loads(verdict.payload)


DUPLICATE = str(1 + list(Reason).index(Reason.DUPLICATE))


@pytest.mark.parametrize("way", ["key", "list", "picture", "unknown"])
def test_the_same_object_is_chosen_by_key_from_the_list_or_in_the_picture(open_page, tickets, way):
    first, *others = verify_tickets(11, FRAMES)  # of five videos: objects 0, 5 and 10 are in one
    tickets.open_batch("b", [first, *others])
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.press("Home")
    page.at(0)
    page.press("x", DUPLICATE)
    page.until(lambda: page.tab.locator("[id^=same-]").count() == 3)
    assert page.tab.locator("#other-objects .other").count() == 2, "they are shown"
    assert tickets.find(state=State.DONE) == []
    if way == "key":
        page.press("2")
    elif way == "list":
        page.tab.click("#same-0")
    elif way == "unknown":
        page.press("0")
    else:
        page.point(10, 300)
        page.until(lambda: "No other object is there" in page.text("#notice"))
        page.point(*centre(0))
    page.until(lambda: tickets.ticket("ticket-0000").state is State.DONE)
    (verdict,) = tickets.operations("ticket-0000")
    recorded = {"key": "ticket-m0010", "list": "ticket-m0005", "picture": "ticket-m0005", "unknown": None}
    assert json.loads(verdict.payload).get("same_as") == recorded[way]
    assert tickets.ticket("ticket-0000").reasons == (Reason.DUPLICATE,)
    page.until(lambda: page.tab.get_attribute("#others", "aria-pressed") == "false")


def test_escape_goes_from_the_objects_to_the_reasons_and_then_to_the_verdicts(open_page, tickets):
    tickets.open_batch("b", verify_tickets(6, FRAMES))
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.press("x", DUPLICATE)
    page.until(lambda: page.tab.locator("[id^=same-]").count() == 2)
    page.press("Escape")
    page.until(lambda: page.tab.locator("[id^=reason-]").count() == 5)
    assert page.tab.get_attribute("#others", "aria-pressed") == "false" and page.tab.is_hidden("#other-objects")
    page.press("Escape")
    page.until(lambda: page.tab.locator("#verdict-accept").count() == 1)


def test_without_another_object_the_reason_alone_is_recorded(verifying, tickets):
    page = verifying()
    page.press("x", DUPLICATE)
    page.until(lambda: tickets.ticket("ticket-0000").state is State.DONE)


def test_without_the_other_objects_the_reasons_stay_and_nothing_is_recorded(open_page, tickets):
    tickets.open_batch("b", verify_tickets(6, FRAMES))
    page = open_page()
    page.tab.route("**/others", lambda route: route.fulfill(status=500, body="{}"))
    page.log_in()
    page.paused_at_start()
    page.press("x", DUPLICATE)
    page.until(lambda: "cannot be fetched" in page.text("#notice"))
    assert page.tab.locator("[id^=reason-]").count() == 5 and tickets.find(state=State.DONE) == []


def test_the_comments_can_be_closed_while_an_object_is_to_be_clicked(open_page, tickets):
    tickets.open_batch("b", verify_tickets(6, FRAMES))
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.press("Home", "x", DUPLICATE)
    page.until(lambda: page.tab.locator("[id^=same-]").count() == 2)
    page.until(lambda: "Which object is it the same as?" in page.tab.text_content("#spoken"))
    page.tab.click("#open-comments")
    page.tab.click("#close-comments")
    page.at(0)
    page.point(*centre(0))
    page.until(lambda: tickets.ticket("ticket-0000").state is State.DONE)


def test_a_refused_comment_goes_back_into_its_box(verifying, tickets, monkeypatch):
    page = verifying()
    monkeypatch.setattr(comments, "MOST", 0)
    write(page, "one too many")
    page.until(lambda: "A comment was refused" in page.text("#notice"))
    page.until(lambda: page.tab.input_value("#comment-text") == "one too many")
    assert page.tab.locator("#thread li").count() == 0


def test_the_thread_of_a_correction_goes_on_in_its_check(open_page, tickets):
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    write(page, "the disc hides behind the pillar")
    page.press("Escape", "b")
    page.drag((300, 200), (360, 220))
    page.settled()
    page.press("Enter")
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)
    veras = open_page()
    veras.log_in()
    veras.paused_at_start()
    veras.until(lambda: veras.text("#open-comments") == "Comments 1")
    veras.press("Shift+C")
    veras.until(lambda: "behind the pillar" in veras.text("#thread"))


def test_a_sent_back_ticket_has_the_words_in_its_rules(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    answer = Submission(operation_id="o", created_at="", verdict=Verdict.REFINE, text="look at the edge")
    done = tickets.finish(held.ticket_id, held.lease_token, VERA, answer)
    assert json.loads(tickets.ticket(done.next_ticket_id).payload)["pinned"]["text"] == "look at the edge"
    assert claim(tickets, VICTOR) is None
