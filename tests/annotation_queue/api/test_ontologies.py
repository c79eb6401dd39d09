"""Ontologies and labels over HTTP: who sends and who reads them, and what a program can do."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import httpx
import pytest

from annotation_queue.errors import NoSuchOntology, NotAllowed
from storage.ontology import ObjectClass, Ontology, Picture
from storage.records import Verdict
from tests.annotation_queue.synthetic_queue import candidate, verify_tickets

pytestmark = pytest.mark.server

PNG = b"\x89PNG and so on"
PETS = Ontology(
    guidelines="![a dog](dog.png)",
    classes=(ObjectClass(name="dog", colour="#e6194b", key="1"), ObjectClass(name="cat")),
    pictures={"dog.png": Picture(media_type="image/png", base64=base64.b64encode(PNG).decode())},
)


def test_the_pipeline_sends_an_ontology_and_people_read_it_with_its_pictures(queue, pipeline, vera, browser):
    version = pipeline.add_ontology(PETS)
    assert version == PETS.version == pipeline.add_ontology(PETS)
    found = vera.ontology(version)
    assert found.classes == PETS.classes and found.pictures["dog.png"].base64 == ""
    answer = browser.get(f"/api/ontologies/{version}/pictures/dog.png")
    assert (answer.content, answer.headers["content-type"]) == (PNG, "image/png")
    assert "immutable" in answer.headers["cache-control"]
    assert browser.get(f"/api/ontologies/{version}/pictures/../dog.png").status_code == 404
    assert httpx.get(f"{queue.url}/api/ontologies/{version}").status_code == 401
    with pytest.raises(NoSuchOntology):
        vera.ontology("0123456789abcdef")


def test_only_the_pipeline_sends_one_and_only_a_valid_one(vera, pipeline):
    with pytest.raises(NotAllowed, match="only the pipeline"):
        vera.add_ontology(PETS)
    with pytest.raises(ValueError, match="class 'dog' comes twice"):
        pipeline.add_ontology(Ontology(classes=(ObjectClass(name="dog"), ObjectClass(name="dog"))))


def test_a_program_labels_a_masklet_and_the_result_has_it(pipeline, vera):
    rules = json.dumps({"ontology": pipeline.add_ontology(PETS), "label_at": "verify"})
    pipeline.open_batch("labelled", [replace(each, payload=rules) for each in verify_tickets(1, prefix="labelled")])
    ticket = vera.claim(batch_id="labelled")
    with pytest.raises(ValueError, match="this ticket asks for a label: choose it before you accept"):
        vera.finish(ticket, verdict=Verdict.ACCEPT)
    with pytest.raises(ValueError, match="the label 'horse' is not in the ontology: dog, cat"):
        vera.label(ticket, "horse")
    vera.label(ticket, "cat")
    vera.finish(ticket, verdict=Verdict.ACCEPT)
    (settled,) = pipeline.batch_result("labelled").settled
    assert settled.masklet.label == "cat"
    assert [each.name for each in pipeline.figures().labels] == ["cat"]


def test_a_person_is_shown_the_label_that_a_ticket_came_with_and_an_overseer_the_one_that_it_has(pipeline, vera):
    rules = json.dumps({"ontology": pipeline.add_ontology(PETS)})
    (plain,) = verify_tickets(1, prefix="shown")
    pipeline.open_batch("shown", [replace(plain, payload=rules, masklet=replace(candidate("m"), label="dog"))])
    ticket = vera.claim(batch_id="shown")
    vera.label(ticket, "cat")
    vera.finish(ticket, verdict=Verdict.ACCEPT)
    assert vera.masklet(ticket).label == "dog" and vera.ticket(ticket.ticket_id).label is None
    assert pipeline.ticket(ticket.ticket_id).label == "cat"
