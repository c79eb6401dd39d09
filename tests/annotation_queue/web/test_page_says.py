"""What the page says is true: notes that end, texts without a connection, people who are changed only on purpose."""

from __future__ import annotations

from annotation_queue.api import logins
from annotation_queue.records import Role, State
from storage.records import Verdict
from tests.annotation_queue.annotators import ANN, VERA, VICTOR, claim, finish, make, outcome
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import PASSWORD, add_people, track_ticket, verify_tickets

# A note, and a key that changes the draft before any timer of the page runs. Whether the note is gone then.
AT_ONCE = """
import("/web/ticket/messages.js").then(({ notice }) => {
  notice("Made by an act before.");
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "f", code: "KeyF", bubbles: true }));
  return document.querySelector("#notice").hidden;
})
"""


def test_a_note_goes_when_it_is_no_longer_true(correcting, tickets):
    page = correcting(0)
    page.press("f")
    page.settled()
    page.point(60, 190)
    page.until(lambda: "locked" in page.text("#notice") and page.tab.is_visible("#notice"))
    page.press("f")  # it is not locked any more
    page.until(lambda: not page.tab.is_visible("#notice"))
    page.press("f")
    page.point(60, 190)
    page.until(lambda: page.tab.is_visible("#notice"))
    page.press("ArrowRight")  # another frame
    page.until(lambda: not page.tab.is_visible("#notice"))
    assert page.tab.evaluate(AT_ONCE), "a key ends it, however soon after the note it comes"


def test_a_note_about_a_ticket_goes_with_it(open_page, tickets):
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES), track_ticket("track-2", frame_count=FRAMES)])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    page.press("Enter")
    page.until(lambda: "Nothing was changed" in page.text("#notice") and page.tab.is_visible("#notice"))
    page.press("x", "7")
    page.until(lambda: len(tickets.find(state=State.DONE)) == 1)
    page.until(lambda: not page.tab.is_visible("#notice"))


NO_STORAGE = "indexedDB.open = () => { throw new DOMException('', 'SecurityError'); }"
SHOW_AGAIN = "async () => (await import('/web/ticket/messages.js')).view('message')"


def test_a_note_is_seen_where_no_ticket_is_shown(open_page):
    page = open_page()
    page.tab.add_init_script(NO_STORAGE)
    page.tab.reload()
    page.shows("login")
    page.until(lambda: page.tab.is_visible("#notice"))
    assert "This browser cannot keep what you do (SecurityError)" in page.text("#notice")
    page.log_in()
    page.says("Nothing left to verify")
    page.press("Backspace")
    page.until(lambda: "no answer to take back" in page.text("#notice"))
    page.tab.evaluate(SHOW_AGAIN)  # as with each new count of what is left
    assert page.tab.is_visible("#notice")


def test_a_click_without_a_connection_does_not_say_that_the_model_works(correcting, tickets, monkeypatch):
    monkeypatch.setattr(logins, "HEARTBEAT_S", 3600.0)  # the page asks because the network has changed
    tickets.lease_s = 10_800.0
    page = correcting(0)
    beats = []
    page.tab.on("request", lambda request: beats.append(request.url) if "heartbeat" in request.url else None)
    page.context.set_offline(True)
    page.until(lambda: beats and "No connection" in page.text("#save"))
    page.point(60, 190)
    page.until(lambda: "No connection" in page.text("#badges"))
    assert "model is at work" not in page.text("#badges") and page.tab.locator(".badge.busy").count() == 0
    beats.clear()
    page.context.set_offline(False)
    page.settled()
    page.until(lambda: beats and "No connection" not in page.text("#badges"))


# How often a request was sent: once before the browser is online again, and then at once, before any timer runs.
SENT = """
async () => {
  const { untilAnswered } = await import("/web/ticket/sending.js");
  const { Unreachable } = await import("/web/shared/api.js");
  const sent = [0];
  const soon = async () => { for (let n = 0; n < 20; n++) await null; };
  untilAnswered(async () => { if (++sent[0] === 1) throw new Unreachable("no answer"); });
  await soon();
  sent.push(sent[0]);
  dispatchEvent(new Event("online"));
  await soon();
  return sent;
}
"""


def test_a_request_is_sent_again_as_soon_as_the_network_is_back(open_page):
    assert open_page().tab.evaluate(SENT) == [2, 1]


def test_a_pinch_zooms_and_places_no_click(correcting, tickets):
    page = correcting(0)
    cdp = page.context.new_cdp_session(page.tab)

    def touch(kind, points):
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    x, y = page.on_screen(60, 190)
    touch("touchStart", [{"x": x, "y": y, "id": 1}])
    touch("touchStart", [{"x": x, "y": y, "id": 1}, {"x": x + 90, "y": y + 60, "id": 2}])
    touch("touchMove", [{"x": x - 40, "y": y - 30, "id": 1}, {"x": x + 150, "y": y + 110, "id": 2}])
    touch("touchEnd", [{"x": x - 40, "y": y - 30, "id": 1}])
    touch("touchEnd", [])
    page.until(lambda: "scale" in (page.tab.get_attribute("#screen", "style") or ""))
    page.press("f")  # an act that is stored after anything that the fingers did
    page.settled()
    assert [o.kind for o in tickets.operations("track-1")] == ["lock"]
    page.press("f", "0")
    touch("touchStart", [{"x": x, "y": y, "id": 1}])
    touch("touchEnd", [])  # one finger is a click
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["lock", "lock", "prompt"])


def test_a_first_correction_is_no_second_attempt(open_page, tickets):
    tickets.open_batch("b", verify_tickets(1, FRAMES))
    finish(tickets, VERA, Verdict.REFINE)
    page = open_page()
    page.log_in("ann")
    page.correcting(8)
    assert page.text("#eyebrow") == "Correct"
    assert page.ahead() is None  # a claim that is still under way would get the ticket below
    held = next(t for t in tickets.find(state=State.LEASED))
    tickets.end_lease(held.ticket_id, held.lease_token, by=VERA)
    verify = make(tickets, ANN, claim(tickets, ANN), "made")
    again = claim(tickets, VICTOR)
    assert again.ticket_id == verify.ticket_id
    tickets.finish(again.ticket_id, again.lease_token, VICTOR, outcome(Verdict.REFINE))
    page.tab.reload()
    page.correcting(0)
    assert page.text("#eyebrow") == "Correct · once more"


def test_an_admin_reads_what_an_admin_can_do(open_page, tickets):
    add_people(tickets.database).add("boss", [Role.ADMIN], PASSWORD)
    page = open_page()
    page.log_in("boss")
    page.says("No tickets for your roles")
    assert "You manage people" in page.text("#message") and "gives you" not in page.text("#message")


def test_a_person_who_is_there_is_changed_only_when_asked(open_page, tickets):
    page = open_page()
    page.log_in("lea")
    page.shows("message")
    page.tab.goto(f"{page.url}/web/lead.html")
    page.until(lambda: "victor" in page.text("#people"))
    row = page.tab.locator("#people tr", has_text="ann").first
    page.tab.fill("#add [name=name]", "ann")
    page.tab.check("#add [value=verifier]")
    page.tab.click("#add button")
    page.until(lambda: "ann is there already, with the roles annotator" in page.text("#change-text"))
    page.tab.click("#change-no")
    assert page.tab.is_hidden("#change") and "annotator" in row.inner_text()
    page.tab.click("#add button")
    page.tab.click("#change-yes")
    page.until(lambda: "verifier" in row.inner_text())
    page.tab.fill("#add [name=name]", "a name with spaces")
    page.tab.check("#add [value=verifier]")
    page.tab.click("#add button")
    page.until(lambda: "invalid name" in page.text("#add-error"))
    form, error = (page.tab.locator(at).bounding_box() for at in ("#add", "#add-error"))
    assert 0 <= error["y"] - (form["y"] + form["height"]) < 40, "beside the form"
    assert page.text("#error") == ""
