"""The page in a real browser through crashes, reloads, lost connections and lost leases: nothing is lost."""

from __future__ import annotations

import json

import pytest

from annotation_queue.database import Database
from annotation_queue.records import Person, Role, State
from annotation_queue.tickets.store import TicketStore
from benchmarks.queue import PrivatePostgres
from storage.records import STRIDE
from tests.annotation_queue.browsing import EVERY_DATABASE, FRAMES, Page, draft, is_disc
from tests.annotation_queue.synthetic_queue import (
    PASSWORD,
    ServerProcess,
    centre,
    verify_tickets,
)


def propagate_a_click(page):
    """A click on the disc of frame 8, and its propagation both ways, which is still on its way afterwards."""
    page.point(*centre(8))
    page.settled()
    page.press("y")
    page.until(lambda: "Propagating" in page.text("#badges"))


def test_an_answer_given_without_a_connection_arrives_later(verifying, tickets):
    page = verifying(2)
    assert page.ahead() == "ticket-0001"
    page.context.set_offline(True)
    page.press("a")
    page.until(lambda: "1 answer kept here" in page.text("#save"))
    assert page.tab.get_attribute("body", "data-view") == "work"  # the next ticket was here already
    assert tickets.find(state=State.DONE) == []
    page.tab.close()  # closing the tab loses nothing
    page.tab = page.context.new_page()
    page.context.set_offline(False)
    page.tab.goto(page.url)
    page.until(lambda: len(tickets.find(state=State.DONE)) == 1)


def test_a_login_in_another_tab_costs_no_answer(verifying, tickets):
    page = verifying()
    page.context.request.post(f"{page.url}/api/login", data={"name": "vera", "password": PASSWORD})
    page.press("a")
    page.until(lambda: len(tickets.find(state=State.DONE)) == 1)
    page.until(lambda: page.text("#save") == "Saved")


def test_a_lost_lease_is_reported_and_the_next_ticket_is_one_key_away(open_page, tickets, clock, monkeypatch):
    monkeypatch.setattr("annotation_queue.api.logins.HEARTBEAT_S", 0.5)
    first, second = verify_tickets(2, FRAMES)
    tickets.open_batch("b", [first])
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.context.set_offline(True)
    victor = Person(name="victor", roles=frozenset({Role.VERIFIER}))

    def claimed():  # a heartbeat that the server was still at work on may renew the lease once more
        clock.ahead += 100
        return tickets.claim(victor, claim_id=f"c{clock.ahead}") is not None

    page.until(claimed)
    tickets.open_batch("c", [second])
    page.context.set_offline(False)
    page.says("went back to the queue")
    page.press("Enter")
    page.shows("work")
    assert tickets.ticket("ticket-0000").leased_by == "victor"


def test_a_reload_takes_up_the_same_ticket(verifying, tickets):
    page = verifying(4)
    page.press("a")
    page.until(lambda: len(tickets.find(state=State.DONE)) == 1)
    page.paused_at_start()
    held = [page.ticket(), page.ahead()]
    page.tab.reload()
    page.paused_at_start()
    assert [page.ticket(), page.ahead()] == held == ["ticket-0001", "ticket-0002"]
    assert {t.ticket_id for t in tickets.find(state=State.LEASED)} == set(held)


def test_work_without_a_connection_survives_a_closed_tab(correcting, tickets):
    page = correcting()
    page.context.set_offline(True)
    page.press("b")
    page.drag((300, 200), (360, 220))
    page.press("f")
    page.until(lambda: "2 changes kept here" in page.text("#save"))
    assert tickets.operations("track-1") == []
    page.tab.close()
    page.tab = page.context.new_page()
    page.context.set_offline(False)
    page.tab.goto(page.url)
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["stroke", "lock"])
    assert draft(tickets).locked == {0} and draft(tickets).masks[0].area_px > 1400


@EVERY_DATABASE
def test_work_under_a_lost_lease_is_kept_as_a_branch(correcting, open_page, tickets):
    page = correcting()
    lead = open_page()
    lead.log_in("lea")
    lead.says("Nothing left")
    lead.tab.clock.install()
    lead.tab.goto(f"{page.url}/web/lead.html")
    lead.until(lambda: lead.text("#branches") == "Nothing.")
    page.context.set_offline(True)
    page.press("f")
    page.until(lambda: "1 change kept here" in page.text("#save"))
    lead.tab.locator("#leased tr", has_text="ann").get_by_text("Take back").click()
    lead.until(lambda: lead.text("#leased") == "Nobody holds a ticket.")
    tickets.claim(Person(name="bob", roles=frozenset({Role.ANNOTATOR})), claim_id="bob")
    page.context.set_offline(False)
    page.until(lambda: [o.kind for o in tickets.operations("track-1", branch=True)] == ["lock"])
    page.says("went back to the queue")
    assert tickets.operations("track-1") == []
    lead.tab.clock.fast_forward(3_000)  # then the page of the lead asks again
    lead.until(lambda: "track-1" in lead.text("#branches") and "Lock" in lead.text("#branches"))


def corrects_through(chromium, uri, kill, start):
    """An annotator corrects a ticket while a part is killed in the middle of a propagation, and started again."""
    server = ServerProcess(uri, tracks=1, frames=FRAMES, slow=0.1)
    server.start()
    context = chromium.new_context(viewport={"width": 1280, "height": 720})
    try:
        page = Page(context, server.url)
        page.log_in("ann")
        page.correcting(8)
        propagate_a_click(page)
        kill(server)
        page.press("f")  # work goes on
        page.until(lambda: "kept here" in page.text("#save"))
        start(server)
        page.settled()
        database = Database(uri)
        tickets = TicketStore(database)
        found = draft(tickets, "track-0")
        assert found.locked == {8} and all(is_disc(found.masks, i) for i in found.frame_idx)
        page.press("Enter")
        page.until(lambda: tickets.ticket("track-0").state is State.DONE)
        database.close()
        assert page.problems == []
    finally:
        context.close()
        server.kill()


@EVERY_DATABASE
def test_a_killed_server_costs_an_annotator_nothing(chromium, uri):
    corrects_through(chromium, uri, lambda server: server.kill(), lambda server: server.start())


def test_a_killed_database_costs_an_annotator_nothing(chromium, postgres_server):
    """SIGKILL to every process of a PostgreSQL of its own, with fsync, while the queue's server lives on."""
    postgres = PrivatePostgres()
    postgres.start()
    try:
        corrects_through(chromium, postgres.uri, lambda _: postgres.kill(), lambda _: postgres.start())
    finally:
        postgres.close()


def test_a_reload_in_the_middle_of_a_propagation_finishes_it(correcting, open_page, tickets):
    open_page.model.frame_s = 0.05
    page = correcting(8)
    propagate_a_click(page)
    page.tab.reload()
    page.correcting(8)
    page.settled()
    page.until(lambda: all(is_disc(draft(tickets).masks, i) for i in range(0, FRAMES, STRIDE)))


def test_stopping_a_propagation_keeps_the_work_before_it(correcting, open_page, tickets):
    """A stroke whose request the network swallowed, a propagation behind it, and Escape."""
    page = correcting()
    page.context.set_offline(True)
    page.press("b")
    page.drag((300, 200), (360, 220))
    page.press("t")
    page.until(lambda: "2 changes kept here" in page.text("#save"))
    page.press("Escape")
    page.context.set_offline(False)
    page.settled()
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["stroke", "propagate", "stop"])
    assert draft(tickets).masks[0].area_px > 1400 and page.tab.get_attribute("body", "data-view") == "work"
    assert not any(call.startswith("track") for call in open_page.model.calls), "the model is not asked in vain"


def test_escape_undoes_a_click_that_waits_for_the_model_and_redo_has_it_answered(correcting, open_page, tickets):
    page = correcting(8)
    open_page.model.answers_clicks.clear()
    page.point(*centre(8))
    page.until(lambda: "at work" in page.text("#badges"))
    page.press("Escape")
    page.settled()
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["prompt", "undo"])
    assert page.tab.get_attribute("body", "data-view") == "work" and not is_disc(draft(tickets).masks, 8)
    open_page.model.answers_clicks.set()
    page.press("Control+Shift+Z")
    page.settled()
    page.until(lambda: is_disc(draft(tickets).masks, 8))
    assert page.look()["mask"] is not None
    page.press("Enter")
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)


def test_a_ticket_goes_back_after_its_operations_were_sent(correcting, open_page, tickets):
    """A ticket is left while a stroke waits behind a slow click: both are in the draft, the click is asked again."""
    page = correcting(8)
    open_page.model.answers_clicks.clear()
    page.point(*centre(8))
    page.press("ArrowRight", "b")
    page.at(12)
    page.drag((300, 200), (360, 220))
    page.press("f")
    page.tab.evaluate("document.querySelector('#verdicts .back').click()")
    page.shows("message")
    page.until(lambda: tickets.ticket("track-1").state is State.OPEN)
    assert [o.kind for o in tickets.operations("track-1")] == ["prompt", "stroke", "lock"]
    assert tickets.operations("track-1", branch=True) == [] and draft(tickets).locked == {12}
    open_page.model.answers_clicks.set()
    page.press("Enter")
    page.correcting(8)
    page.until(lambda: is_disc(draft(tickets).masks, 8))


def test_a_reload_after_working_offline_shows_and_submits_all_of_it(correcting, tickets):
    page = correcting()
    page.context.set_offline(True)
    for _ in range(6):
        page.press("f", "ArrowRight")
    page.until(lambda: "6 changes kept here" in page.text("#save"))
    page.context.set_offline(False)
    page.tab.reload()
    page.correcting(0)
    page.settled()
    page.until(lambda: page.tab.get_attribute("#tool-lock", "aria-pressed") == "true")
    shown = []
    for frame_idx in range(0, 28, STRIDE):
        page.at(frame_idx)
        shown.append("Locked" in page.text("#badges"))
        page.press("ArrowRight")
    assert draft(tickets).locked == set(range(0, 24, STRIDE)), tickets.operations("track-1")
    assert shown == [True] * 6 + [False]


@pytest.mark.parametrize("status", [200, 403, 413])
def test_only_an_answer_of_the_queue_counts_as_saved(correcting, tickets, status):
    """The login page of a proxy in between does not."""
    page = correcting()
    html = {"status": status, "content_type": "text/html", "body": "<html>Please log in</html>"}
    sent = []

    def answer(route):
        sent.append(route)
        route.fulfill(**html)

    page.tab.route("**/operations", answer)
    page.press("f")
    page.until(lambda: len(sent) >= 2)  # it is sent again
    assert "1 change kept here" in page.text("#save") and tickets.operations("track-1") == []
    page.tab.unroute("**/operations")
    page.settled()
    page.until(lambda: draft(tickets).locked == {0})


def test_a_take_back_whose_answer_is_lost_happens_once(verifying, tickets):
    page = verifying(3)
    first = page.ticket()
    page.press("a")
    page.paused_at_start()
    page.until(lambda: page.text("#save") == "Saved")
    lost = []

    def lose(route):
        if lost:
            return route.continue_()
        lost.append(route.fetch())  # the server does it
        route.abort()

    page.tab.route("**/unsubmit", lose)
    page.press("Backspace")
    page.until(lambda: "Taken back" in page.text("#notice"))
    page.until(lambda: page.ticket() == first)
    assert len(lost) == 1
    [back] = [t for t in tickets.find() if [o.kind for o in tickets.operations(t.ticket_id)] == ["verdict", "unsubmit"]]
    assert back.leased_by == "vera"


def test_a_second_tab_leaves_the_first_ones_work_alone_until_that_is_closed(correcting, open_page, tickets):
    open_page.model.frame_s = 0.1
    page = correcting(8)
    propagate_a_click(page)
    second = Page(page.context, page.url)
    second.shows("message")  # there is nothing else to correct
    page.settled()
    page.until(lambda: all(is_disc(draft(tickets).masks, i) for i in range(0, FRAMES, STRIDE)))
    tracked = [call for call in open_page.model.calls if call.startswith("track")]
    assert len(tracked) == len(set(tracked)), "the model was asked once"
    page.tab.route("**/operations", lambda route: route.abort())
    page.press("f")
    page.until(lambda: "1 change kept here" in page.text("#save"))
    second.tab.reload()
    second.shows("message")
    assert draft(tickets).locked == set()
    page.tab.close()
    page.until = second.until
    second.until(lambda: draft(tickets).locked == {8})
    assert second.problems == []


def test_a_duplicated_tab_takes_other_tickets(verifying, tickets):
    page = verifying(6)
    page.until(lambda: len(tickets.find(state=State.LEASED)) == 2)
    assert page.ahead() == "ticket-0001"
    kept = page.tab.evaluate("JSON.stringify({...sessionStorage})")
    other = Page(page.context, f"{page.url}/web/mark.svg")
    other.tab.evaluate("kept => Object.assign(sessionStorage, JSON.parse(kept))", kept)
    other.tab.goto(page.url)
    other.paused_at_start()
    page.until(lambda: len(tickets.find(state=State.LEASED)) == 4)


def test_a_silent_connection_is_given_up(correcting, tickets):
    page = correcting(8)
    page.tab.clock.install()
    page.tab.reload()
    page.correcting(8)
    held = []
    page.tab.route("**/refine", lambda route: route.continue_() if len(held) > 1 else held.append(route))
    page.point(*centre(8))
    page.until(lambda: len(held) == 1)
    page.press("f")  # waits behind it
    page.tab.clock.fast_forward(21_000)
    page.until(lambda: len(held) == 2)  # asked again, and silent again
    page.press("Escape")  # nobody waits for the model any more, and the work is kept
    page.until(lambda: [o.kind for o in tickets.operations("track-1")] == ["prompt", "lock", "undo"])
    page.settled()
    page.press("ArrowRight")
    page.at(12)
    page.point(*centre(12))
    page.until(lambda: is_disc(draft(tickets).masks, 12))


def test_a_person_who_goes_away_gives_the_ticket_back_and_takes_it_up_again(correcting, tickets, clock):
    page = correcting(8)
    page.press("f")
    page.settled()
    page.tab.clock.install()
    page.tab.reload()
    page.correcting(8)
    beats = []
    page.tab.on("request", lambda request: beats.append(request.url) if "heartbeat" in request.url else None)
    page.tab.clock.fast_forward(60_000)
    page.until(lambda: beats)
    bob = Person(name="bob", roles=frozenset({Role.ANNOTATOR}))
    assert tickets.claim(bob, claim_id="early") is None
    for taken in (False, True):
        page.tab.clock.fast_forward(601_000)
        page.until(lambda: "Nobody has touched this page" in page.text("#notice"))
        beats.clear()
        page.tab.clock.fast_forward(60_000)
        clock.ahead += 100  # the lease is over
        if taken:
            assert tickets.claim(bob, claim_id="c").ticket_id == "track-1"
        assert beats == []
        page.press("x")  # only shows that somebody is here
        if not taken:
            page.until(lambda: not page.tab.is_visible("#notice"))
            page.until(lambda: page.tab.get_attribute("body", "data-view") == "work" and page.named() == 8)
            page.until(lambda: "Locked" in page.text("#badges") and page.tab.locator(".reason").count() == 0)
            assert tickets.ticket("track-1").leased_by == "ann"
    page.until(lambda: "went back to the queue" in page.text("#message"))
    assert tickets.ticket("track-1").leased_by == "bob" and draft(tickets).locked == {8}


def test_a_ticket_that_comes_after_the_person_has_turned_to_other_work_goes_back(open_page, tickets):
    page = open_page()
    asked, held = [], []

    def second(route):  # the first claim finds nothing, so that the page claims once more
        asked.append(route.request.post_data_json)
        held.append(route) if len(asked) == 2 else route.continue_()

    page.tab.route("**/claim", second)
    page.tab.clock.install()
    page.log_in("lea")
    page.until(lambda: held)
    assert asked[1] in page.tab.evaluate("JSON.parse(sessionStorage.getItem('masklets.holds'))"), "for a reload"
    page.tab.evaluate("import('/web/ticket/answers.js').then(({ switchSide }) => switchSide())")
    page.says("Nothing left")
    page.tab.clock.fast_forward(1000)  # what was to be said of the slow claim is no longer said
    assert "Nothing left" in page.text("#message")
    page.tab.evaluate("import('/web/ticket/supply.js').then(({ stopAsking }) => stopAsking())")
    tickets.open_batch("b", verify_tickets(1, FRAMES))
    held[0].continue_()
    page.until(lambda: tickets.ticket("ticket-0000").lease_token == 1)
    page.until(lambda: tickets.find(state=State.OPEN))
    assert asked[1] not in page.tab.evaluate("JSON.parse(sessionStorage.getItem('masklets.holds'))")


def test_another_person_at_the_same_tab_begins_with_other_tickets(verifying, tickets):
    page = verifying(9)
    page.until(lambda: len(tickets.find(state=State.LEASED)) == 2)

    def end_the_login(route):  # once the answer is given: any request that comes before it would show the login, too
        page.context.clear_cookies()
        route.abort()

    page.context.route("**/finish", end_the_login, times=1)
    page.press("a")
    page.shows("login")
    page.until(lambda: page.tab.is_visible("#save") and page.text("#save") == "1 answer kept here")
    page.log_in("victor")
    page.paused_at_start()
    page.until(lambda: page.text("#save") == "Saved")

    def of_victor():
        return [t.ticket_id for t in tickets.find(state=State.LEASED) if t.leased_by == "victor"]

    page.until(lambda: len(of_victor()) == 2)
    page.press("a")
    page.until(lambda: len(tickets.find(state=State.DONE)) == 1)
    page.until(lambda: len(of_victor()) == 2)
    page.paused_at_start()
    page.context.clear_cookies()
    page.press("a")
    page.shows("login")
    page.log_in("vera")
    page.until(lambda: tickets.ticket("ticket-0000").verdict is not None)


def three_minutes_of_work(open_page, tickets):
    """A tab with a clock that tests move, in which Vera has worked on a ticket for three minutes."""
    tickets.open_batch("b", verify_tickets(1, FRAMES))
    page = open_page()
    page.tab.clock.install()
    page.tab.reload()  # so that every timer of the page is of this clock
    page.log_in()
    page.paused_at_start()
    for _ in range(3):
        page.tab.clock.fast_forward(60_000)
        page.press("ArrowRight")
    return page


def seconds_to_accept(page, tickets):
    """Accept the ticket; the seconds that the page reports."""
    page.press("a")
    page.until(lambda: len(tickets.find(state=State.DONE)) == 1)
    return json.loads(tickets.operations("ticket-0000")[0].payload)["seconds"]


def test_the_time_at_a_ticket_survives_a_reload_and_leaves_out_pauses(open_page, tickets):
    page = three_minutes_of_work(open_page, tickets)
    page.tab.clock.fast_forward(500_000)  # of this, two minutes count
    page.tab.reload()
    page.paused_at_start()
    assert 300 <= seconds_to_accept(page, tickets) < 360
    assert page.tab.evaluate("localStorage.getItem('masklets.times')") == "[]"


def test_the_time_before_a_pause_counts_too(open_page, tickets):
    page = three_minutes_of_work(open_page, tickets)
    page.tab.clock.fast_forward(601_000)  # of this, two minutes count
    page.until(lambda: "Nobody has touched this page" in page.text("#notice"))
    page.press("x")  # only shows that somebody is here
    page.until(lambda: not page.tab.is_visible("#notice"))
    page.paused_at_start()
    assert 300 <= seconds_to_accept(page, tickets) < 360


def test_a_reload_renews_the_leases_that_it_takes_up_again(correcting, tickets, clock, monkeypatch):
    monkeypatch.setattr("annotation_queue.api.logins.HEARTBEAT_S", 1e6)
    tickets.lease_s = 9000  # a heartbeat comes long after this test
    page = correcting()
    clock.ahead += 8900  # the lease is about to end
    page.tab.reload()
    page.until(lambda: tickets.ticket("track-1").expires_at > clock() + 8000)


def test_a_ticket_that_is_put_back_keeps_its_draft(correcting, tickets):
    page = correcting()
    page.press("f")
    page.settled()
    page.press("Shift+R")
    page.shows("message")
    page.until(lambda: tickets.ticket("track-1").state is State.OPEN)
    page.press("Enter")
    page.correcting(0)
    assert "Locked" in page.text("#badges")
