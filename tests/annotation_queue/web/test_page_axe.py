"""axe-core finds nothing wrong with any page, in any state, in both themes."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from annotation_queue.errors import TakenBack
from annotation_queue.pipeline_records import Action
from annotation_queue.records import NewComment, Reason
from annotation_queue.tickets import comments
from benchmarks.browsers import axe
from storage.ontology import Attribute, ObjectClass, Ontology
from storage.records import Verdict
from tests.annotation_queue.annotators import ANN, LEA, VERA, claim, finish, prompt
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.pipelines import failing, refused, waiting
from tests.annotation_queue.synthetic_queue import centre, track_ticket, verify_tickets
from tests.annotation_queue.web.test_page_labels import PETS, POSE, rules


@pytest.fixture
def violations():
    """What axe-core finds on a page, in the dark and in the light theme."""
    source = axe.source()
    if source is None:
        message = "no axe-core: run `npm ci`, or set MASKLETS_TEST_AXE"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)

    def found(page):
        lines = []
        for look in ("dark", "light"):
            page.tab.emulate_media(color_scheme=look)
            lines += [f"{look}: {line}" for line in axe.violations(page.tab, source)]
        return lines

    return found


def test_nothing_is_wrong_with_logging_in_verifying_and_helping(open_page, tickets, members, violations):
    members |= {"cats": frozenset(), "dogs": frozenset()}
    tickets.open_batch("b", verify_tickets(3, FRAMES), project="cats")
    page = open_page()
    found = violations(page)
    page.log_in("lea")
    page.paused_at_start()
    assert page.tab.is_visible("#projects")
    found += violations(page)
    page.tab.click("#view")
    found += violations(page)
    page.press("Escape", "Shift+P", "Shift+D")
    found += violations(page)
    page.press("Shift+P", "Shift+D", "x")
    page.tab.wait_for_selector(".reason")
    found += violations(page)
    page.press("Escape", "?")
    page.tab.wait_for_selector("#help[open]")
    found += violations(page)
    page.tab.keyboard.type("frame back")
    found += violations(page)
    assert not found, "\n".join(found)


def test_nothing_is_wrong_with_labels_their_attributes_and_their_guidelines(open_page, tickets, violations):
    many = Ontology(
        guidelines="# Rules\n\n## Dogs\n\n- [one](https://example.org)\n\n> two\n\n`three`\n\n1. four",
        classes=tuple(ObjectClass(name=f"class {n}", colour="#ffe119", guideline="*Long.*") for n in range(12)),
        attributes=(POSE, Attribute(name="note"), Attribute(name="legs", kind="number")),
    )
    for batch_id, ontology in (("b", PETS), ("c", many)):
        payload = rules(tickets, "verify", ontology)
        opened = verify_tickets(1, FRAMES, prefix=batch_id)
        tickets.open_batch(batch_id, [replace(each, payload=payload) for each in opened])
    page = open_page()
    page.log_in("vera")
    page.paused_at_start()
    page.press("1", "Shift+G")
    page.tab.wait_for_selector(".guidelines h2")
    found = violations(page)
    page.tab.select_option("#attribute-0", "lies")
    page.press("a")
    page.tab.wait_for_selector("#label-search")
    page.tab.click("#class-3")
    page.tab.wait_for_selector("#attribute-2")
    page.tab.wait_for_selector(".guidelines h3")  # they stay open
    found += violations(page)
    assert not found, "\n".join(found)


def test_nothing_is_wrong_with_correcting_and_kept_work(open_page, tickets, violations):
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES), track_ticket("track-2", frame_count=FRAMES)])
    late = claim(tickets, ANN)
    tickets.end_lease(late.ticket_id, late.lease_token, by=LEA)
    with pytest.raises(TakenBack):
        tickets.append_operations(late.ticket_id, late.lease_token, ANN, [prompt()])
    page = open_page()
    page.log_in("ann")
    page.correcting(0)
    page.press("v", "g", "b")
    page.until(lambda: page.tab.locator("#other-objects .other").count() == 1)
    found = violations(page)
    page.tab.click("#kept")
    page.tab.wait_for_selector("#kept-works canvas")
    found += violations(page)
    assert not found, "\n".join(found)


def test_nothing_is_wrong_with_comments_reasons_and_looking_back(open_page, tickets, violations):
    tickets.open_batch("b", verify_tickets(11, FRAMES))
    done = finish(tickets, VERA, Verdict.REFINE)
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.press("Shift+C")
    page.tab.fill("#comment-text", "here")
    page.tab.click("#comment-point")
    page.point(*centre(0))
    page.press("Tab")
    page.tab.click("#comment-form .primary")
    page.until(lambda: page.tab.locator("#thread li").count() == 1 and page.tab.locator(".pin").count() == 1)
    found = violations(page)
    page.press("Escape", "x", "6")
    page.until(lambda: page.tab.locator("[id^=same-]").count() > 1)
    found += violations(page)
    page.press("Escape", "Escape")
    page.tab.click("#open-history")
    page.until(lambda: page.tab.locator("#finished li").count() == 1)
    found += violations(page)
    page.tab.click("#finished button")
    page.tab.wait_for_selector("#back-to-work")
    assert done.ticket.ticket_id == "ticket-0000"
    found += violations(page)
    assert not found, "\n".join(found)


def test_nothing_is_wrong_with_messages_and_the_leads_page(open_page, tickets, violations):
    tickets.open_batch("b", verify_tickets(2, FRAMES))
    finish(tickets, VERA, Verdict.ACCEPT)
    claim(tickets, VERA)
    page = open_page()
    page.log_in("lea")
    page.shows("message")
    found = violations(page)
    page.tab.goto(f"{page.url}/web/lead.html")
    page.until(lambda: page.tab.locator("#people tbody tr").count() > 2 and "vera" in page.text("#leased"))
    found += violations(page)
    assert not found, "\n".join(found)


def test_nothing_is_wrong_with_the_sheet(open_page, tickets, violations):
    tickets.open_batch("b", verify_tickets(5, 40))
    page = open_page()
    page.log_in()
    page.shows("work")
    page.press("Shift+S")
    page.until(lambda: page.tab.locator("#tiles article.watched").count() == 5)
    found = violations(page)
    assert not found, "\n".join(found)


def test_nothing_is_wrong_with_the_list_of_all_tickets_and_a_replay(open_page, tickets, violations):
    tickets.open_batch("b", [*verify_tickets(3, FRAMES), track_ticket(frame_count=FRAMES)])
    finish(tickets, VERA, Verdict.REJECT, Reason.DRIFT)
    late = claim(tickets, ANN)
    tickets.end_lease(late.ticket_id, late.lease_token, by=LEA)
    with pytest.raises(TakenBack):
        tickets.append_operations(late.ticket_id, late.lease_token, ANN, [prompt()])
    asked = NewComment(comment_id="c", text="is this right?", created_at="", frame_idx=40, x=10.0, y=10.0)
    comments.add(tickets.database, late.ticket_id, ANN, asked, tickets.clock())
    page = open_page()
    page.log_in("lea")
    page.paused_at_start()
    page.tab.goto(f"{page.url}/web/browser.html")
    page.until(lambda: page.tab.locator(".card-of").count() == 4)
    page.tab.locator(".pick input").last.check()
    page.tab.get_by_role("button", name="Set").click()
    page.until(lambda: "Refused" in page.text("#bulk"))
    found = violations(page)
    page.tab.goto(f"{page.url}/web/browser.html#ticket={late.ticket_id}")
    page.tab.wait_for_selector(".step")
    page.tab.select_option("#compare", late.ticket_id)
    page.until(lambda: page.tab.locator(".screen").count() == 2 and page.tab.locator("#thread li").count() == 1)
    found += violations(page)
    page.tab.goto(f"{page.url}/web/browser.html#kept")
    page.tab.wait_for_selector("#kept-works canvas")
    found += violations(page)
    assert not found, "\n".join(found)


def test_nothing_is_wrong_with_the_page_about_the_pipeline(open_page, pipeline, violations):
    pipeline.batches += [failing("3f9c0a11d2e4b567", "too few"), waiting("0" * 16, quarantined=2)]
    pipeline.rows += [refused("row-1"), refused("row-2", "other.mp4", "duplicate", None)]
    pipeline.decide("row-2", Action.SEEN, act_id="a" * 32, by="lea", why="a known copy")
    page = open_page()
    page.log_in("lea")
    page.shows("message")
    page.tab.goto(f"{page.url}/web/pipeline.html")
    page.until(
        lambda: page.tab.locator("#quarantine tbody tr").count() == page.tab.locator("#waiting .one").count() == 2
    )
    found = violations(page)
    page.tab.click("#release-row-1")
    found += violations(page)
    assert not found, "\n".join(found)
