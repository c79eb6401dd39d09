"""Labels in the loop: a batch keeps its ontology, people are asked for a label, and the release has it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotation_queue.client import QueueClient
from annotation_queue.records import Kind, Person, QueuePolicy, Role, State
from engine import batches
from engine.cli import doctor
from engine.demo import simulated_people, simulated_review
from engine.ingest import admitted
from engine.services import connect
from engine.settings import ReviewSettings, Settings
from engine.stages import labelling, propose, publish, review, routing
from engine.stages.gold import gold_tickets
from storage import ontology
from storage.dataset import releases
from storage.ontology import OntologyError
from storage.records import Verdict
from tests.engine.admitting import admit_batch

PETS = """
attributes = [{ name = "pose", values = ["stands", "lies"], required = true }]
[[classes]]
name = "dog"
[[classes]]
name = "cat"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "ontology.toml"
    path.write_text(PETS)
    return path


class Queue:
    """Keeps what is sent to it."""

    def __init__(self, s):
        self.sent = []
        vars(s)["queue"] = self  # in place of the client

    def add_ontology(self, found):
        self.sent.append(found.version)
        return found.version


def test_a_batch_keeps_the_ontology_and_the_question_of_its_first_opening(tmp_path, file):
    asking = ReviewSettings(ontology=file, label_at="verify")
    first = ontology.read(file).version
    with connect(Settings(home=tmp_path / "home", review=asking)) as s:
        queue = Queue(s)
        rules = labelling.pinned_rules(s, "b" * 16)
        assert rules == {"ontology": first, "label_at": "verify"} and queue.sent == [first]
    file.write_text(PETS.replace("cat", "wolf"))
    second = ontology.read(file).version
    with connect(Settings(home=tmp_path / "home", review=asking)) as s:
        queue = Queue(s)
        assert labelling.pinned_rules(s, "b" * 16) == rules and queue.sent == [first]
        assert labelling.pinned_rules(s, "c" * 16)["ontology"] == second != first and queue.sent == [first, second]
    with connect(Settings(home=tmp_path / "home")) as s:
        queue = Queue(s)
        assert labelling.pinned_rules(s, "b" * 16) == rules
        assert labelling.pinned_rules(s, "d" * 16) == {} and queue.sent == [first]
    with connect(Settings(home=tmp_path / "home", review=asking)) as s:
        Queue(s)
        assert labelling.pinned_rules(s, "d" * 16) == {}, "the batch was opened without labels"


def test_what_is_wrong_with_the_ontology_is_one_line(tmp_path, file, monkeypatch):
    with pytest.raises(ValueError, match="label_at is verify: set ontology"):
        ReviewSettings(label_at="verify")
    monkeypatch.chdir(tmp_path)
    assert ReviewSettings(ontology="ontology.toml").ontology == file, "other processes start in other folders"
    file.write_text("[[classes]]")
    with connect(Settings(home=tmp_path / "home", review=ReviewSettings(ontology=file))) as s:
        with pytest.raises(OntologyError, match="classes, number 1, name: Field required") as caught:
            s.ontology_of("")
        assert "\n" not in str(caught.value)


def test_doctor_says_which_ontology_there_is(tmp_path, file):
    asking = ReviewSettings(ontology=file, label_at="select")
    with connect(Settings(home=tmp_path / "home", review=asking)) as s:
        assert doctor._ontology(s) == f"2 classes, version {ontology.read(file).version}, asked at select"
    with connect(Settings(home=tmp_path / "home")) as s:
        assert doctor._ontology(s) == "not set: objects get no labels"


@pytest.fixture
def settings(settings, file):
    return settings.model_copy(update={"review": ReviewSettings(ontology=file, label_at="verify", select=True)})


@pytest.fixture
def opened(queue, monkeypatch):
    """A batch whose candidates are the true masklets, which the verifier would accept alone. One is an imported cat."""

    def truths(s, video, *_):
        found = admitted.truths(s.blobs, video)
        new = {"batch_id": video.batch_id, "kind": "auto", "phase": "auto", "verdict": None}
        made = [replace(m, masklet_id=f"c{m.masklet_id}", **new) for m in found]
        return [replace(made[0], label="cat", attributes='{"pose": "lies"}'), *made[1:]]

    monkeypatch.setattr(propose, "propose_video", truths)
    accepted = routing.Route(Verdict.ACCEPT, "verifier-0001-00000000", 0)
    monkeypatch.setattr(routing, "of_batch", lambda s, batch_id, rows: {row.masklet_id: accepted for row in rows})
    batch_id = admit_batch(queue)
    propose.propose_batch(queue, batch_id)
    review.open_batch(queue, batch_id, "3")
    return batch_id


def test_simulated_people_label_what_they_accept_and_the_release_has_the_labels(queue, opened):
    tickets, _ = queue.open_queue()
    verify = tickets.find(kind=Kind.VERIFY, batch_id=opened, limit=500)
    assert {ticket.state for ticket in verify} == {State.OPEN}, "people see them: they must be asked for a label"
    simulated_people.work(
        queue, simulated_review.hire(queue, simulated_review.team(queue.settings.queue)), batch_id=opened
    )
    review.collect(queue, opened)
    release = releases.load(queue.blobs, publish.publish_batch(queue, opened))
    labels = [(m.label, m.attributes) for m in release.iter_masklets()]
    assert len(labels) == len(verify) and set(labels) == {("dog", '{"pose": "stands"}'), ("cat", '{"pose": "lies"}')}
    assert {m.label for m in queue.tables.masklets()} == {"dog", "cat"}
    assert "label" in {o.kind for o in queue.tables.operations()}
    assert (batches.facts(queue.blobs, opened, batches.ONTOLOGY) or {})["label_at"] == "verify"


def test_gold_asks_for_a_label_as_new_tickets_do_and_comes_with_the_label_of_its_candidate(queue, opened):
    tickets, accounts = queue.open_queue()
    accounts.add("vera", [Role.VERIFIER])
    accounts.add("victor", [Role.VERIFIER])
    payloads = {each.payload for each in tickets.find(kind=Kind.VERIFY, batch_id=opened, limit=500)}
    with QueueClient(queue.settings.queue_url, token=accounts.issue_token("vera")) as vera:
        while held := vera.claim([Kind.VERIFY]):
            vera.label(held, "dog", {"pose": "lies"})
            vera.finish(held, verdict=Verdict.ACCEPT)
    gold = gold_tickets(queue, tickets.batch_result(opened), "3")
    assert {each.ticket.payload for each in gold} == payloads
    tickets.add_gold(opened, gold, by=Person(name="lea", roles=frozenset({Role.LEAD})))
    tickets.policy = QueuePolicy(gold_share=1.0)
    victor = Person(name="victor", roles=frozenset({Role.VERIFIER}))
    dealt = [tickets.claim(victor, claim_id=str(n)) for n in range(len(gold))]
    assert {(each.label, tickets.masklet(each.ticket_id).label) for each in dealt} == {(None, None), ("cat", "cat")}
