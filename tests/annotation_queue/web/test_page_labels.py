"""Labels at the page: chosen by key, click or search, undone, asked for, and explained by guidelines."""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pydantic import TypeAdapter

from annotation_queue import labels
from annotation_queue.labels import Label
from annotation_queue.records import Kind, NewOperation, NewTicket
from annotation_queue.tickets.ontologies import Ontologies
from storage.ontology import Attribute, ObjectClass, Ontology, Picture
from storage.records import Verdict
from tests.annotation_queue.annotators import VERA, VICTOR, claim, outcome
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import candidate, centre, verify_tickets

PNG = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
GUIDELINES = """# Which is which

A *dog* barks, a **cat** does not: [more](https://example.org/pets), [never](javascript:alert(1)).

- whole animals only
- no <b>toys</b> <img src=x onerror="document.title='run'">

![a black dog](pictures/dog.png) ![missing](other.png)
"""
POSE = Attribute(name="pose", kind="choice", values=("stands", "lies"), required=True)
PETS = Ontology(
    guidelines=GUIDELINES,
    classes=(
        ObjectClass(name="dog", colour="#e6194b", key="1", attributes=(POSE,)),
        ObjectClass(name="cat", colour="#3cb44b", key="2", guideline="Not a lion."),
        ObjectClass(name="axolotl", colour="#4363d8", key="a"),
    ),
    attributes=(Attribute(name="occluded", kind="boolean"), Attribute(name="note", kind="text")),
    pictures={"pictures/dog.png": Picture(media_type="image/png", base64=base64.b64encode(PNG).decode())},
)


def rules(tickets, at, ontology=PETS):
    version = Ontologies(tickets.database, tickets.clock).add(ontology)
    return json.dumps({"ontology": version, "label_at": at})


@pytest.fixture
def verifying(open_page, tickets):
    """Vera at the first of three tickets that ask for a label."""
    tickets.open_batch("b", [replace(t, payload=rules(tickets, "verify")) for t in verify_tickets(3, FRAMES)])
    page = open_page()
    page.log_in()
    page.paused_at_start()
    return page


def said(page):
    return page.text("#label-said")


def settled(tickets):
    return [(s.masklet.label, json.loads(s.masklet.attributes or "{}")) for s in tickets.batch_result("b").settled]


def test_a_class_is_one_key_and_a_ticket_that_asks_for_one_is_not_accepted_without_it(verifying, tickets):
    page = verifying
    assert said(page) == "Label: none yet · needs a label"
    page.press("a")
    page.until(lambda: "asks for a label before you accept: 1 dog, 2 cat" in page.text("#notice"))
    assert settled(tickets) == []
    page.press("1")
    page.until(lambda: said(page) == "Label: dog · needs the attribute pose")
    page.press("2")
    page.until(lambda: said(page) == "Label: cat")
    assert page.tab.get_attribute("#class-1", "aria-pressed") == "true" and page.tab.is_hidden("#notice")
    page.press("a")
    page.until(lambda: settled(tickets) == [("cat", {})])
    page.until(lambda: said(page) == "Label: none yet · needs a label")  # the next ticket


def test_a_label_is_undone_redone_taken_away_and_still_there_after_a_reload(verifying, tickets):
    page = verifying
    page.press("1", "2", "Control+z")
    page.until(lambda: said(page).startswith("Label: dog"))
    page.press("Control+Shift+Z")
    page.until(lambda: said(page) == "Label: cat")
    page.settled()
    page.tab.reload()
    page.paused_at_start()
    assert said(page) == "Label: cat"
    page.press("2")
    page.until(lambda: said(page) == "Label: none yet · needs a label")
    page.press("Control+z", "a")
    page.until(lambda: settled(tickets) == [("cat", {})])


def test_the_label_of_a_finished_ticket_is_only_looked_at(verifying, tickets):
    page = verifying
    page.press("2", "a")
    page.until(lambda: settled(tickets) == [("cat", {})])
    page.tab.evaluate("location.hash = '#ticket=ticket-0000&frame=20'")
    page.until(lambda: page.ticket() == "ticket-0000")  # it was on screen before, until the next one came
    page.tab.wait_for_selector("#back-to-work")
    page.at(20)
    assert said(page) == "Label: cat"
    page.press("Control+z", "1", "ArrowRight")
    page.at(24)
    assert said(page) == "Label: cat"


def test_a_lead_begins_without_the_label_of_the_verifier_before(open_page, tickets):
    tickets.open_batch("b", [replace(t, payload=rules(tickets, "verify")) for t in verify_tickets(1, FRAMES)])
    held = claim(tickets, VERA)
    label = NewOperation(operation_id="o-1", kind="label", created_at="", payload='{"label": "cat"}')
    tickets.append_operations(held.ticket_id, held.lease_token, VERA, [label])
    tickets.release(held.ticket_id, held.lease_token, VERA)
    page = open_page()
    page.log_in("lea")
    page.paused_at_start()
    assert said(page) == "Label: none yet · needs a label"
    page.press("1")
    page.until(lambda: said(page).startswith("Label: dog"))


def test_attributes_are_chosen_and_carried_to_another_class(verifying, tickets):
    page = verifying
    page.tab.click("#class-0")
    page.tab.select_option("#attribute-0", "lies")
    page.tab.select_option("#attribute-1", "true")
    page.tab.fill("#attribute-2", "behind a fence")
    page.tab.press("#attribute-2", "Enter")
    page.until(lambda: said(page) == "Label: dog")
    page.press("2", "1")  # a cat has no pose: it is to be said again
    page.until(lambda: said(page) == "Label: dog · needs the attribute pose")
    page.tab.select_option("#attribute-0", "stands")
    page.press("a")
    page.until(lambda: settled(tickets) == [("dog", {"note": "behind a fence", "occluded": True, "pose": "stands"})])


def test_a_key_of_the_page_stays_that_of_the_page(verifying):
    keys = verifying.tab.locator(".class kbd").all_inner_texts()
    assert keys == ["1", "2"], "the class axolotl has the key that accepts"


def test_guidelines_are_markdown_and_never_html(verifying):
    page = verifying
    page.press("Shift+G")
    page.tab.wait_for_selector(".guidelines h2")
    shown = page.tab.locator(".guidelines")
    assert page.tab.locator(".guidelines h2").all_inner_texts() == ["Which is which", "cat"]
    assert "no <b>toys</b> <img src=x onerror=" in shown.inner_text() and shown.locator("b").count() == 0
    assert shown.locator("em").all_inner_texts() == ["dog"] and shown.locator("li").count() == 2
    (link,) = shown.locator("a").all()
    assert (link.get_attribute("href"), link.get_attribute("rel")) == (
        "https://example.org/pets",
        "noopener noreferrer",
    )
    assert "never" in shown.inner_text() and "missing" in shown.inner_text()
    (picture,) = shown.locator("img").all()
    page.until(lambda: picture.evaluate("img => img.complete && img.naturalWidth === 8"))
    assert picture.get_attribute("alt") == "a black dog" and page.tab.title() == "Masklet review"
    page.press("Shift+G")
    page.until(lambda: not shown.is_visible())


def test_many_classes_are_found_by_their_name(open_page, tickets):
    many = Ontology(classes=tuple(ObjectClass(name=f"class {n:02d}") for n in range(40)))
    tickets.open_batch("b", [replace(t, payload=rules(tickets, "verify", many)) for t in verify_tickets(1, FRAMES)])
    page = open_page()
    page.log_in()
    page.paused_at_start()
    page.press("Shift+N")
    page.tab.keyboard.type("s 23")
    page.until(lambda: page.tab.locator(".class").count() == 1)
    page.press("Enter", "a")  # the second key is for the page again
    page.until(lambda: settled(tickets) == [("class 23", {})])


def test_an_object_that_is_picked_by_hand_gets_its_label_among_its_other_operations(open_page, tickets):
    payload = rules(tickets, "select")
    tickets.open_batch("b", [NewTicket(ticket_id="pick", kind=Kind.SELECT, video_id="video-0", payload=payload)])
    page = open_page()
    page.log_in("ann")
    page.correcting()
    page.point(*centre(0))
    page.settled()
    page.press("Enter")
    page.until(lambda: "asks for a label before you submit" in page.text("#notice"))
    page.press("2", "3", "1")  # 3 is no key
    page.until(lambda: said(page).startswith("Label: dog"))
    page.press("Control+z")
    page.until(lambda: said(page) == "Label: cat")
    page.press("Enter", "Enter")  # frames are not masked: the first one says so
    page.until(lambda: tickets.ticket("pick").state == "done")
    (follower,) = tickets.find(batch_id="b", kind=Kind.VERIFY) or tickets.find(batch_id="b", kind=Kind.TRACK)
    assert tickets.masklet(follower.ticket_id).label == "cat"


LACKS = """
async ([ontology, cases]) => {
  const { Labelling } = await import("/web/shared/labelling.js");
  return cases.map(({ ticket, rules, verdict, label, attributes }) => {
    const before = { label, attributes: JSON.stringify(attributes) };
    const labelling = new Labelling(ticket, rules, ontology, before, null);
    return labelling.asks(verdict) && labelling.missing !== null;
  });
}
"""
SAID: list[tuple[str | None, dict[str, object]]]
SAID = [(None, {}), ("cat", {}), ("dog", {}), ("dog", {"pose": "lies"}), ("zebra", {})]


def test_the_page_and_the_queue_agree_on_when_a_label_is_missing(verifying, tickets):
    ticket, cases, expected = tickets.find(batch_id="b")[0], [], []
    about = itertools.product(Kind, labels.LABEL_AT, (None, "m"), (False, True), (None, *Verdict), SAID)
    for kind, at, masklet_id, begun, verdict, (label, attributes) in about:
        rules = {"ontology": "v", "label_at": at} | ({"begun_by": "ann"} if begun else {})
        each = replace(ticket, kind=kind, masklet_id=masklet_id, payload=json.dumps(rules))
        said = Label(name=label, attributes=json.dumps(attributes))
        expected.append(labels.asks(each, verdict) and labels.lacking(PETS, said, verdict) is not None)
        shown = {"kind": kind, "masklet_id": masklet_id}
        cases.append({"ticket": shown, "rules": rules, "verdict": verdict, "label": label, "attributes": attributes})
    found = verifying.tab.evaluate(LACKS, [TypeAdapter(Ontology).dump_python(PETS, mode="json"), cases])
    assert found == expected and 0 < sum(found) < len(found)


def test_a_lead_sees_the_figures_by_label(verifying, open_page, tickets):
    verifying.press("2", "a")
    verifying.until(lambda: settled(tickets) == [("cat", {})])
    lead = open_page()
    lead.log_in("lea")
    lead.tab.wait_for_selector("#lead:not([hidden])")
    lead.tab.goto(f"{lead.url}/web/lead.html")
    lead.tab.click("#by button[value=labels]")
    lead.until(lambda: lead.tab.locator("#figures tbody td:first-child").all_inner_texts() == ["cat"])


def test_a_ticket_without_an_ontology_shows_no_labels_but_the_one_that_an_import_brought(open_page, tickets):
    (ticket,) = verify_tickets(1, FRAMES)
    tickets.open_batch("b", [replace(ticket, masklet=replace(candidate("zebra", frame_count=FRAMES), label="zebra"))])
    page = open_page()
    page.log_in()
    page.paused_at_start()
    assert page.tab.is_hidden("#labels") and page.text("#facts dt:has-text('Label') + dd") == "zebra"
    page.press("1", "Shift+N")
    page.until(lambda: page.text("#notice") == "This ticket takes no label.")


def test_a_class_that_a_video_has_once_shows_which_object_has_it_and_numbers_tell_others_apart(open_page, tickets):
    scene = (ObjectClass(name="sky", key="1", instances="one"), ObjectClass(name="car", key="2", instances="numbered"))
    payload = rules(tickets, "verify", Ontology(classes=scene))
    new = [replace(t, payload=payload, video_id="video-0") for t in verify_tickets(2, FRAMES)]
    masklets = [candidate(f"m{n}", frame_count=FRAMES) for n in range(2)]
    tickets.open_batch("b", [replace(t, masklet=m) for t, m in zip(new, masklets, strict=True)])
    first = claim(tickets, VICTOR)
    sky = NewOperation(operation_id="sky", kind="label", created_at="", payload='{"label": "sky"}')
    tickets.append_operations(first.ticket_id, first.lease_token, VICTOR, [sky])
    tickets.finish(first.ticket_id, first.lease_token, VICTOR, outcome(Verdict.ACCEPT))
    page = open_page()
    page.log_in("vera")
    page.paused_at_start()
    page.press("1")
    page.until(lambda: page.text("#notice").endswith("another object has the label: object 1 on the picture."))
    assert said(page) == "Label: none yet · needs a label" and page.tab.is_visible("#other-0")
    page.press("2")
    page.tab.fill("#attribute-0", "3")
    page.press("Enter")
    page.until(lambda: said(page) == "Label: car 3")
    page.press("a")
    page.until(lambda: ("car", {"instance": 3}) in settled(tickets))
    page.tab.click("#log-out")
    page.log_in("lea")
    page.shows("message")
    page.tab.goto(f"{page.url}/web/browser.html")
    page.until(lambda: {"sky", "car 3"} <= set(page.tab.locator(".card-line span").all_inner_texts()))
