"""Labels in the queue: what a ticket asks for, what is chosen and undone, and what the settled masklet says."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from sqlalchemy import select, update

from annotation_queue import schema
from annotation_queue.errors import NotAllowed
from annotation_queue.labels import Label
from annotation_queue.records import Kind, NewGold, NewOperation, NewTicket, Reason
from annotation_queue.tickets import masklets
from annotation_queue.tickets.ontologies import Ontologies
from storage import rle
from storage.ontology import Attribute, ObjectClass, Ontology
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    ANN,
    LEA,
    VALERIE,
    VERA,
    VICTOR,
    claim,
    finish,
    new_id,
    outcome,
    take_back,
    with_policy,
)
from tests.annotation_queue.synthetic_queue import candidate, corrected, verify_tickets

POSE = Attribute(name="pose", kind="choice", values=("stands", "lies"), required=True)
PETS = Ontology(
    classes=(ObjectClass(name="dog", attributes=(POSE,)), ObjectClass(name="cat")),
    attributes=(Attribute(name="occluded", kind="boolean"),),
)


def opened(tickets, *, count=1, **changes):
    """Open a batch of verify tickets that ask for a label of PETS."""
    version = Ontologies(tickets.database, tickets.clock).add(PETS)
    payload = json.dumps({"ontology": version, "label_at": "verify"})
    tickets.open_batch("b", [replace(each, payload=payload, **changes) for each in verify_tickets(count)])


def say(tickets, ticket, person, label, **attributes):
    """Choose a label in a ticket that the person holds. Returns the id of the operation."""
    payload = json.dumps({"label": label, "attributes": attributes})
    operation = NewOperation(operation_id=new_id(), kind="label", created_at="now", payload=payload)
    tickets.append_operations(ticket.ticket_id, ticket.lease_token, person, [operation])
    return operation.operation_id


def undo(tickets, ticket, person, operation_id):
    payload = json.dumps({"operation_id": operation_id})
    operation = NewOperation(operation_id=new_id(), kind="undo", created_at="now", payload=payload)
    tickets.append_operations(ticket.ticket_id, ticket.lease_token, person, [operation])


def answer(tickets, ticket, person, *said, masklet=None):
    return tickets.finish(ticket.ticket_id, ticket.lease_token, person, outcome(*said, masklet=masklet))


def labels_of(tickets):
    """Label and attributes of each settled masklet."""
    found = [settled.masklet for settled in tickets.batch_result("b").settled]
    return [(each.label, json.loads(each.attributes or "{}")) for each in found]


def test_a_verifier_labels_what_they_accept_and_the_settled_masklet_says_it(tickets):
    opened(tickets)
    ticket = claim(tickets, VERA)
    say(tickets, ticket, VERA, "dog", pose="lies", occluded=True)
    answer(tickets, ticket, VERA, Verdict.ACCEPT)
    assert labels_of(tickets) == [("dog", {"pose": "lies", "occluded": True})]
    assert tickets.ticket(ticket.ticket_id).label == "dog"
    assert [o.kind for o in tickets.operations(ticket.ticket_id)] == ["label", "verdict"]


def test_nothing_is_accepted_without_the_label_that_the_ticket_asks_for(tickets):
    opened(tickets)
    ticket = claim(tickets, VERA)
    with pytest.raises(ValueError, match="asks for a label: choose it before you accept"):
        answer(tickets, ticket, VERA, Verdict.ACCEPT)
    said = say(tickets, ticket, VERA, "dog")
    with pytest.raises(ValueError, match="asks for the attribute pose"):
        answer(tickets, ticket, VERA, Verdict.ACCEPT)
    say(tickets, ticket, VERA, "cat")
    undo(tickets, ticket, VERA, said)
    answer(tickets, ticket, VERA, Verdict.ACCEPT)
    assert labels_of(tickets) == [("cat", {})]


def test_an_undone_label_is_not_there(tickets):
    opened(tickets)
    ticket = claim(tickets, VERA)
    undo(tickets, ticket, VERA, say(tickets, ticket, VERA, "cat"))
    with pytest.raises(ValueError, match="asks for a label"):
        answer(tickets, ticket, VERA, Verdict.ACCEPT)


def test_a_rejection_needs_no_label_and_neither_does_a_ticket_that_asks_for_none(tickets):
    opened(tickets)
    finish(tickets, VERA, Verdict.REJECT, Reason.OTHER)
    assert labels_of(tickets) == [(None, {})]
    tickets.open_batch("plain", verify_tickets(1, prefix="plain"))
    finish(tickets, VERA, Verdict.ACCEPT)


@pytest.mark.parametrize(
    ("label", "attributes", "message"),
    [
        ("dgo", {}, "the label 'dgo' is not in the ontology: dog, cat"),
        ("cat", {"pose": "lies"}, "cat has no attribute 'pose'"),
        ("dog", {"pose": "sits"}, "pose is one of stands, lies"),
        (None, {"occluded": True}, "attributes need a label"),
        (7, {}, "a label is a text or null, not 7"),
    ],
)
def test_a_label_that_the_ontology_does_not_have_is_refused_and_not_stored(tickets, label, attributes, message):
    opened(tickets)
    ticket = claim(tickets, VERA)
    with pytest.raises(ValueError, match=message):
        say(tickets, ticket, VERA, label, **attributes)
    assert tickets.operations(ticket.ticket_id) == []


def test_a_ticket_without_an_ontology_takes_no_label(tickets):
    tickets.open_batch("b", verify_tickets(1))
    ticket = claim(tickets, VERA)
    with pytest.raises(ValueError, match="takes no label"):
        say(tickets, ticket, VERA, "dog")
    with pytest.raises(NotAllowed, match="takes a verdict, not a lock"):
        operation = NewOperation(operation_id="o", kind="lock", created_at="now", frame_idx=0)
        tickets.append_operations(ticket.ticket_id, ticket.lease_token, VERA, [operation])


def test_a_ticket_under_an_unknown_ontology_is_not_opened(tickets):
    rules = json.dumps({"ontology": "0123456789abcdef", "label_at": "verify"})
    with pytest.raises(ValueError, match="no ontology 0123456789abcdef: send it before its tickets"):
        tickets.open_batch("b", [replace(each, payload=rules) for each in verify_tickets(1)])
    with pytest.raises(ValueError, match="label_at is verify, and no ontology"):
        payload = json.dumps({"label_at": "verify"})
        tickets.open_batch("b", [replace(each, payload=payload) for each in verify_tickets(1)])


def test_a_label_goes_with_the_object_through_its_correction(tickets):
    opened(tickets)
    ticket = claim(tickets, VERA)
    say(tickets, ticket, VERA, "cat", occluded=True)
    answer(tickets, ticket, VERA, Verdict.REFINE)
    track = claim(tickets, ANN)
    assert tickets.masklet(track.ticket_id).label == "cat"
    done = answer(tickets, track, ANN, masklet=corrected(candidate("made"), "made"))
    assert tickets.masklet(done.next_ticket_id).attributes == '{"occluded": true}'
    finish(tickets, VICTOR, Verdict.ACCEPT)  # the label is there already
    assert labels_of(tickets) == [("cat", {"occluded": True})]


def test_a_correction_may_change_the_label_and_a_masklet_keeps_that_of_its_maker(tickets):
    opened(tickets)
    finish(tickets, VERA, Verdict.REFINE)
    track = claim(tickets, ANN)
    say(tickets, track, ANN, "dog", pose="lies")
    answer(tickets, track, ANN, masklet=corrected(candidate("made"), "made"))
    verify = claim(tickets, VICTOR)
    assert tickets.masklet(verify.ticket_id).label == "dog"
    say(tickets, verify, VICTOR, "cat")
    answer(tickets, verify, VICTOR, Verdict.ACCEPT)
    assert labels_of(tickets) == [("cat", {})]
    assert tickets.masklet(verify.ticket_id).label == "dog"  # as the ticket came


def test_objects_that_are_picked_by_hand_get_a_label_where_selecting_asks_for_one(tickets):
    version = Ontologies(tickets.database, tickets.clock).add(PETS)
    payload = json.dumps({"ontology": version, "label_at": "select"})
    tickets.open_batch("b", [NewTicket(ticket_id="s", kind=Kind.SELECT, video_id="video-0", payload=payload)])
    ticket = claim(tickets, ANN)
    another = tickets.new_object(ticket.ticket_id, ticket.lease_token, ANN, claim_id=new_id())
    for each in (ticket, another):
        made = replace(corrected(candidate("made"), "made"), label="cat")  # a program's own word counts for nothing
        with pytest.raises(ValueError, match="choose it before you submit"):
            answer(tickets, each, ANN, masklet=made)
        say(tickets, each, ANN, "cat")
        answer(tickets, each, ANN, masklet=made)
    tracked, verify = claim(tickets, VICTOR), claim(tickets, ANN)  # of `another`, of `ticket`
    assert tickets.masklet(tracked.ticket_id).label == tickets.masklet(verify.ticket_id).label == "cat"
    answer(tickets, tracked, VICTOR, Verdict.ACCEPT)  # only picking asks for a label


def test_verifiers_of_one_ticket_do_not_see_each_others_labels_and_a_lead_decides_where_they_differ(tickets):
    tickets = with_policy(tickets, overlap=2, overlap_share=1.0)
    opened(tickets)
    for person, label in ((VERA, "cat"), (VICTOR, None)):
        ticket = claim(tickets, person)
        assert tickets.masklet(ticket.ticket_id).label is None
        if label is None:
            with pytest.raises(ValueError, match="asks for a label"):
                answer(tickets, ticket, person, Verdict.ACCEPT)
            say(tickets, ticket, person, "dog", pose="lies")
        else:
            say(tickets, ticket, person, label)
        answer(tickets, ticket, person, Verdict.ACCEPT)
    decision = claim(tickets, LEA)
    assert decision.needs_lead and tickets.masklet(decision.ticket_id).label is None


def test_several_verifiers_who_agree_on_a_label_settle_it(tickets):
    tickets = with_policy(tickets, overlap=3, overlap_share=1.0)
    opened(tickets)
    for person, label in ((VERA, "cat"), (VICTOR, "dog"), (VALERIE, "cat")):
        ticket = claim(tickets, person)
        say(tickets, ticket, person, label, **({"pose": "lies"} if label == "dog" else {}))
        answer(tickets, ticket, person, Verdict.ACCEPT)
    assert labels_of(tickets) == [("cat", {})]


@pytest.mark.parametrize("verdict", [Verdict.ACCEPT, Verdict.REFINE])
def test_a_taken_back_answer_leaves_the_label_that_the_ticket_came_with_and_no_figure(tickets, verdict):
    opened(tickets, count=2)
    before = tickets.figures()
    ticket = claim(tickets, VERA)
    say(tickets, ticket, VERA, "cat")
    answer(tickets, ticket, VERA, verdict)
    assert [(each.name, each.answers) for each in tickets.figures().labels] == [("cat", 1)]
    back = take_back(tickets, ticket.ticket_id, VERA)
    assert (back.label, tickets.figures().labels) == (None, before.labels) == (None, ())
    answer(tickets, back, VERA, Verdict.ACCEPT)  # the label that was chosen before still stands
    assert labels_of(tickets) == [("cat", {})]


def test_figures_are_counted_by_label(tickets):
    opened(tickets, count=4)
    for label in ("cat", "cat", "dog", None):
        ticket = claim(tickets, VERA)
        if label:
            say(tickets, ticket, VERA, label, pose="lies") if label == "dog" else say(tickets, ticket, VERA, label)
        answer(tickets, ticket, VERA, *((Verdict.ACCEPT,) if label else (Verdict.REJECT, Reason.OTHER)))
    found = tickets.figures()
    assert {each.name: each.verdicts for each in found.labels} == {"cat": {"accept": 2}, "dog": {"accept": 1}}
    assert found.total.answers == 4


def test_an_imported_label_that_the_ontology_does_not_have_must_be_replaced(tickets):
    masklet = replace(candidate("ticket-m0000"), label="zebra")
    opened(tickets, masklet=masklet)
    ticket = claim(tickets, VERA)
    with pytest.raises(ValueError, match="the label 'zebra' is not in the ontology: dog, cat: choose it before"):
        answer(tickets, ticket, VERA, Verdict.ACCEPT)
    say(tickets, ticket, VERA, "cat")
    answer(tickets, ticket, VERA, Verdict.ACCEPT)
    assert labels_of(tickets) == [("cat", {})]


def test_labels_that_come_after_the_lease_was_lost_count_nowhere(tickets):
    opened(tickets)
    ticket = claim(tickets, VERA)
    tickets.end_lease(ticket.ticket_id, ticket.lease_token, by=LEA)
    with pytest.raises(Exception, match="took this ticket back"):
        say(tickets, ticket, VERA, "cat")
    again = claim(tickets, VERA)
    with pytest.raises(ValueError, match="asks for a label"):
        answer(tickets, again, VERA, Verdict.ACCEPT)


def test_masklets_that_an_earlier_version_stored_are_the_same_ones(tickets):
    opened(tickets)
    stored, m = verify_tickets(1)[0].masklet, schema.masklets
    assert stored is not None
    with tickets.database.write() as c:
        record = json.loads(c.scalar(select(m.c.content)))
        del record["label"], record["attributes"]
        c.execute(update(m).values(content=json.dumps(record)))
        masklets.add(c, "b", [stored], 0.0)
        with pytest.raises(ValueError, match="a different masklet"):
            masklets.add(c, "b", [replace(stored, click_count=9)], 0.0)


def test_a_label_has_its_attributes_by_name():
    assert Label(name="cat", attributes='{"occluded": true}').values == {"occluded": True}
    assert Label().values == {}


SCENE = Ontology(
    classes=(
        ObjectClass(name="sky", instances="one"),
        ObjectClass(name="car", instances="numbered"),
        ObjectClass(name="leaf"),
    )
)


CAR_1 = {"label": "car", "attributes": '{"instance": 1}'}


def of_one_video(count, payload, prefix="ticket", **changes):
    """Verify tickets about different objects of one video. changes: of their masklets."""
    masklets = [replace(candidate(f"{prefix}-m{n}"), **changes) for n in range(count)]
    new = verify_tickets(count, prefix=prefix)
    return [replace(t, payload=payload, video_id="video-0", masklet=m) for t, m in zip(new, masklets, strict=True)]


def in_one_video(tickets, count, ontology=SCENE):
    """Open a batch of verify tickets about objects of one video; Vera and Victor hold them in turn."""
    version = Ontologies(tickets.database, tickets.clock).add(ontology)
    payload = json.dumps({"ontology": version, "label_at": "verify"})
    tickets.open_batch("b", [*of_one_video(count - 1, payload), *of_one_video(1, payload, "with-number", **CAR_1)])
    return [(claim(tickets, who), who) for who in [VERA, VICTOR] * (count // 2)]


def accept(tickets, held, label, **attributes):
    """Label and accept. held: a ticket, and the person who holds it."""
    say(tickets, held[0], held[1], label, **attributes)
    return answer(tickets, held[0], held[1], Verdict.ACCEPT)


def test_a_frame_has_one_object_of_a_class_that_says_so(tickets):
    first, second, *_ = in_one_video(tickets, 4)
    say(tickets, second[0], second[1], "sky")  # nobody is accepted yet: both may choose it
    accept(tickets, first, "sky")
    with pytest.raises(ValueError, match="a frame has one sky, and another object has the label: masklet ticket-m0"):
        answer(tickets, second[0], second[1], Verdict.ACCEPT)
    with pytest.raises(ValueError, match="a frame has one sky"):
        say(tickets, second[0], second[1], "sky")
    accept(tickets, second, "leaf")
    back = take_back(tickets, first[0].ticket_id, first[1])
    say(tickets, back, first[1], "sky")  # its own label is not in its way
    answer(tickets, back, first[1], Verdict.ACCEPT)
    assert sorted(labels_of(tickets)) == [("leaf", {}), ("sky", {})]


@pytest.mark.parametrize("only_own_frames", [False, True], ids=["shots", "windows of a long video"])
def test_on_other_frames_another_masklet_may_have_the_label_of_a_class_of_one(tickets, only_own_frames):
    version = Ontologies(tickets.database, tickets.clock).add(SCENE)
    new = of_one_video(2, json.dumps({"ontology": version, "label_at": "verify"}))
    shown = new[0].masklet
    cut, absent = len(shown.frame_idx) // 2, rle.empty(shown.height, shown.width)
    first = {"rle": shown.rle[:cut] + (absent,) * cut, "area_px": shown.area_px[:cut] + (0,) * cut}
    second = {"rle": (absent,) * cut + shown.rle[cut:], "area_px": (0,) * cut + shown.area_px[cut:]}
    if only_own_frames:  # both have the frame where the windows meet, and only one has the object there
        names = ("frame_idx", "rle", "area_px", "score", "object_score", "stability")
        every = {name: getattr(shown, name) for name in names}
        first, second = (
            {name: (every | part)[name][at] for name in names}
            for part, at in ((first, slice(0, cut + 1)), (second, slice(cut, None)))
        )
    shots = [replace(t, masklet=replace(t.masklet, **shot)) for t, shot in zip(new, (first, second), strict=True)]
    tickets.open_batch("b", shots)
    for who in (VERA, VICTOR):
        accept(tickets, (claim(tickets, who), who), "sky")
    assert labels_of(tickets) == [("sky", {}), ("sky", {})]


def test_objects_of_a_class_with_numbers_get_the_first_free_one_and_a_person_may_give_one(tickets):
    held = in_one_video(tickets, 6)
    accept(tickets, held[0], "car", instance=2)
    for each in held[1:4]:
        accept(tickets, each, "car")
    accept(tickets, held[4], "car", instance=3)  # the same car once more
    accept(tickets, held[5], "leaf")  # before, it was car 1
    numbers = [attributes.get("instance") for _, attributes in labels_of(tickets)]
    assert numbers == [2, 3, 4, 5, 3, None]


def test_two_accepts_at_once_get_neither_the_same_number_nor_a_label_of_one_object(tickets):
    def answered(held):
        ticket, person = held
        start.wait()
        try:
            answer(tickets, ticket, person, Verdict.ACCEPT)
        except ValueError:
            return False
        return True

    payload = json.dumps({"ontology": Ontologies(tickets.database, tickets.clock).add(SCENE)})
    start = Barrier(2)
    for n in range(6):
        for label in ("sky", "car"):
            tickets.open_batch(f"{label}{n}", of_one_video(2, payload, f"{label}{n}"))
            held = [(claim(tickets, who), who) for who in (VERA, VICTOR)]
            for each in held:
                say(tickets, each[0], each[1], label)
            with ThreadPoolExecutor(2) as pool:
                done = list(pool.map(answered, held))
            if label == "sky":
                assert sum(done) == 1
                (loser,) = [each for each, is_done in zip(held, done, strict=True) if not is_done]
                accept(tickets, loser, "leaf")
            else:
                numbers = [json.loads(tickets.ticket(t.ticket_id).attributes)["instance"] for t, _ in held]
                assert sorted(numbers) == [1, 2]


def test_gold_about_an_accepted_object_takes_the_same_label_as_any_other_ticket(tickets):
    (first, who), _ = in_one_video(tickets, 2)
    accept(tickets, (first, who), "sky")
    (gold,) = of_one_video(1, first.payload)
    tickets.add_gold("b", [NewGold(ticket=replace(gold, ticket_id="gold"), expected=Verdict.ACCEPT)], by=LEA)
    held = claim(with_policy(tickets, gold_share=1.0), VALERIE)
    assert held.masklet_id == first.masklet_id
    accept(tickets, (held, VALERIE), "sky")
