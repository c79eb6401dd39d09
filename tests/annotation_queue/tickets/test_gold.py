"""Tickets with known answers: dealt, scored and kept out of everything else. On SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_queue.api.app import create_app
from annotation_queue.client import QueueClient
from annotation_queue.errors import NoSuchBatch, NotAllowed
from annotation_queue.records import Kind, NewGold, NewTicket, Reason
from annotation_queue.rules import TRAINED
from annotation_queue.tickets.ontologies import Ontologies
from annotation_queue.tickets.wilson import wilson
from storage import rle
from storage.ontology import ObjectClass, Ontology
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    ANDY,
    ANN,
    LEA,
    VALERIE,
    VERA,
    VICTOR,
    claim,
    finish,
    make,
    new_id,
    outcome,
    take_back,
    to_track,
    with_policy,
)
from tests.annotation_queue.synthetic_queue import (
    SyntheticMedia,
    add_people,
    blank,
    candidate,
    corrected,
    serving,
    verify_tickets,
)


def verify_gold(count, expected=Verdict.ACCEPT):
    return [NewGold(ticket=t, expected=expected) for t in verify_tickets(count, frame_count=8, prefix="gold")]


def track_gold():
    ticket = NewTicket(ticket_id="gold-track", kind=Kind.TRACK, video_id="video-0", phase="3")
    return NewGold(ticket=ticket, truth=candidate("truth", frame_count=8))


def opened(tickets, count=3, gold=(), **policy):
    """A batch with gold beside it, every claim dealt gold unless the policy says otherwise."""
    tickets = with_policy(tickets, **({"gold_share": 1.0} | policy))
    tickets.open_batch("b", verify_tickets(count, frame_count=8))
    tickets.add_gold("b", gold, by=LEA)
    return tickets


def test_a_gold_ticket_is_scored_and_counted_nowhere_else(tickets):
    tickets = opened(tickets, 1, verify_gold(1))
    before, figures = tickets.batch("b"), tickets.figures()
    dealt = claim(tickets, VERA)
    assert dealt.masklet_id == "gold-m0000" and dealt.video_id == "video-0"
    assert tickets.masklet(dealt.ticket_id).masklet_id == "gold-m0000"
    done = tickets.finish(dealt.ticket_id, dealt.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert (done.settled, done.batch_drained) == (Verdict.ACCEPT, False)
    assert tickets.batch("b") == before and tickets.batch_result("b").settled == ()
    assert tickets.batch_result("b").operations == () and tickets.stats().counts[0].tickets == 1
    assert [(pace.person, pace.finished) for pace in tickets.stats().paces] == [("vera", 1)], "or it would tell her"
    after = tickets.figures()
    assert (after.total, after.batches) == (figures.total, figures.batches)
    (scored,) = after.gold
    assert (scored.person, scored.accuracy.right, scored.accuracy.of, scored.score) == ("vera", 1, 1, 1.0)
    assert claim(tickets, VERA).ticket_id == "ticket-0000"  # no gold is left for her
    (gold,) = tickets.gold()
    assert (gold.gold_id, gold.done, gold.right) == ("gold-0000", 1, 1)


def test_each_person_gets_their_own_copy_of_a_gold_ticket(tickets):
    tickets = opened(tickets, 1, verify_gold(1))
    hers = claim(tickets, VERA)
    tickets.release(hers.ticket_id, hers.lease_token, VERA)
    his = claim(tickets, VICTOR)
    assert his.masklet_id == hers.masklet_id and his.ticket_id != hers.ticket_id
    assert claim(tickets, LEA, Kind.VERIFY, ticket_id=hers.ticket_id) is None
    assert claim(tickets, VERA).ticket_id == hers.ticket_id


def test_a_wrong_answer_to_gold_looks_like_any_other_answer(tickets):
    tickets = opened(tickets, 1, verify_gold(1))
    dealt = claim(tickets, VERA)
    plain = tickets.ticket("ticket-0000")
    hidden = {"gold", "expected", "lane", "reserved_for"}
    assert not hidden & set(vars(dealt)) and set(vars(dealt)) == set(vars(plain))
    done = tickets.finish(dealt.ticket_id, dealt.lease_token, VERA, outcome(Verdict.REFINE))
    assert done.next_ticket_id is not None and done.settled is None
    (scored,) = tickets.figures().gold
    assert (scored.accuracy.right, scored.score) == (0, 0.0) and scored.accuracy.high < 0.8


def test_a_gold_masklet_is_scored_by_its_iou_with_the_truth(tickets):
    tickets = opened(tickets, 1, [track_gold()])
    dealt = claim(tickets, ANN)
    assert dealt.kind is Kind.TRACK
    empty = rle.empty(360, 640)
    truth = candidate("made", frame_count=8)
    half = replace(truth, rle=(truth.rle[0], empty), area_px=(truth.area_px[0], 0))
    tickets.finish(dealt.ticket_id, dealt.lease_token, ANN, outcome(masklet=half))
    (scored,) = tickets.figures().gold
    assert (scored.kind, scored.accuracy.right, scored.score) == (Kind.TRACK, 0, 0.5)
    back = take_back(tickets, dealt.ticket_id, ANN)
    assert tickets.figures().gold == ()
    tickets.finish(dealt.ticket_id, back.lease_token, ANN, outcome(masklet=corrected(truth, "better")))
    assert tickets.figures().gold[0].score == 1.0


def test_gold_is_drawn_at_random_and_not_by_the_claim_id(tickets, monkeypatch):
    monkeypatch.setattr("annotation_queue.tickets.gold.CHANCE", random.Random(1))
    tickets = opened(tickets, 60, verify_gold(60), gold_share=0.2)
    ids = [f"claim-{i}" for i in range(30)]
    hers, his = (
        [tickets.claim(person, claim_id=i).masklet_id.startswith("gold") for i in ids] for person in (VERA, VICTOR)
    )
    assert 1 < sum(hers) < 16 and 1 < sum(his) < 16
    assert hers != his, "the same claims"


def test_a_claim_for_one_batch_gets_no_gold_of_another_batch(tickets):
    tickets = opened(tickets, 1, verify_gold(1))
    tickets.open_batch("c", verify_tickets(1, prefix="c"))
    assert claim(tickets, VERA, batch_id="c").ticket_id == "c-0000"


def test_a_new_person_gets_only_gold_until_the_warm_up_is_passed(tickets):
    tickets = opened(tickets, 3, verify_gold(5), gold_share=0.0, warmup_tickets=2, warmup_accuracy=1.0)
    with pytest.raises(NotAllowed, match="warm-up"):
        claim(tickets, VERA, ticket_id="ticket-0000")
    for verdict in (Verdict.REJECT, Verdict.ACCEPT):
        held = claim(tickets, VERA)
        assert held.masklet_id.startswith("gold")
        reasons = [Reason.OTHER] if verdict is Verdict.REJECT else []
        tickets.finish(held.ticket_id, held.lease_token, VERA, outcome(verdict, *reasons))
    held = claim(tickets, VERA)  # one of the last two was wrong
    assert held.masklet_id.startswith("gold")
    tickets.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert claim(tickets, VERA).ticket_id == "ticket-0000"
    assert claim(tickets, replace(VICTOR, skills=frozenset({TRAINED}))).ticket_id == "ticket-0001"
    assert claim(tickets, LEA, Kind.VERIFY).ticket_id == "ticket-0002"


def begin_object(tickets, ticket, person):
    return tickets.new_object(ticket.ticket_id, ticket.lease_token, person, claim_id=new_id())


def test_a_person_in_a_warm_up_cannot_open_another_object(tickets):
    tickets = opened(tickets, 1, [track_gold()], gold_share=0.0, warmup_tickets=1)
    held = claim(tickets, ANN)
    with pytest.raises(NotAllowed, match="warm-up"):
        begin_object(tickets, held, ANN)
    assert tickets.batch("b").total == 1


def test_opening_another_object_does_not_reveal_gold(tickets, monkeypatch):
    tickets = opened(tickets, 1, [track_gold()])
    held = claim(tickets, ANN)
    assert begin_object(tickets, held, ANN).ticket_id != held.ticket_id and tickets.batch("b").total == 2
    tickets.open_batch("done", [])  # only gold is left there to be dealt
    tickets.add_gold("done", [replace(track_gold(), ticket=replace(track_gold().ticket, ticket_id="late"))], by=LEA)
    late = claim(tickets, ANN, batch_id="done")
    with pytest.raises(NotAllowed) as of_gold:
        begin_object(tickets, late, ANN)
    monkeypatch.setattr("annotation_queue.tickets.objects.MAX_OBJECTS", 1)
    with pytest.raises(NotAllowed) as of_many:
        begin_object(tickets, held, ANN)
    assert str(of_gold.value) == str(of_many.value)


def test_a_warm_up_is_shorter_if_there_is_too_little_gold(tickets):
    tickets = opened(tickets, 2, [], gold_share=0.0, warmup_tickets=2)
    assert claim(tickets, VERA).ticket_id == "ticket-0000"
    tickets.add_gold("b", verify_gold(1), by=LEA)
    held = claim(tickets, VICTOR)
    assert held.masklet_id.startswith("gold") and claim(tickets, VICTOR) is None, "he has the last one in his hands"
    tickets.finish(held.ticket_id, held.lease_token, VICTOR, outcome(Verdict.ACCEPT))
    assert claim(tickets, VICTOR).ticket_id == "ticket-0001"


def test_a_failed_warm_up_without_more_gold_gives_an_error(tickets):
    tickets = opened(tickets, 1, verify_gold(1), gold_share=0.0, warmup_tickets=2)
    finish(tickets, VERA, Verdict.REFINE)
    with pytest.raises(NotAllowed, match="no gold is left"):
        claim(tickets, VERA)
    tickets.add_gold("b", verify_gold(2), by=LEA)
    assert claim(tickets, VERA).masklet_id == "gold-m0001"


def test_the_ticket_after_gold_looks_like_the_ticket_after_real_work(tickets):
    tickets, both, told = with_policy(tickets, gold_share=1.0), replace(VERA, roles=VERA.roles | ANN.roles), []
    for gold in ([], verify_gold(1)):
        batch = f"b{len(gold)}"
        tickets.open_batch(batch, verify_tickets(1, frame_count=8, prefix=batch))
        tickets.add_gold(batch, gold, by=LEA)
        for person in (VERA, both):
            held = claim(tickets, person, Kind.VERIFY, batch_id=batch)
            assert held.masklet_id.startswith("gold") == bool(gold)
            done = tickets.finish(held.ticket_id, held.lease_token, person, outcome(Verdict.REFINE))
            followed = done.next_ticket_id
            asked = [
                lambda i=followed, p=person: claim(tickets, p, ticket_id=i),
                lambda i=followed, p=person: claim(tickets, p, Kind.VERIFY, ticket_id=i),
                lambda i=followed, p=person: tickets.heartbeat(i, 1, p),
                lambda i=followed, p=person: tickets.release(i, 0, p),
                lambda i=followed, p=person: tickets.held(i, 1, p),
                lambda i=followed, p=person: tickets.append_operations(i, 1, p, []),
                lambda i=followed, p=person: tickets.finish(i, 1, p, outcome(Verdict.ACCEPT)),
                lambda i=followed, p=person: tickets.new_object(i, 1, p, claim_id=new_id()),
                lambda i=followed, p=person: take_back(tickets, i, p),
            ]
            answers = []
            for ask in asked:
                with pytest.raises(NotAllowed) as refused:
                    ask()
                answers.append(str(refused.value).replace(followed, "…"))
            listed = [t.ticket_id for t in tickets.find(seen_by=person, batch_id=batch)]
            told.append((answers, followed in listed, done.batch_drained, person is both))
            back = take_back(tickets, held.ticket_id, person)
            tickets.release(held.ticket_id, back.lease_token, person)
    assert told[:2] == told[2:]


def test_a_gold_correction_looks_as_if_it_followed_from_a_verdict(tickets):
    pinned = {"frame_idx": 8, "by": "victor", "reasons": ["drift"]}
    known = track_gold()
    about = {"payload": json.dumps({"pinned": pinned}), "masklet": candidate("m", frame_count=8)}
    known = replace(known, ticket=replace(known.ticket, **about))
    tickets = opened(tickets, 1, [known])
    dealt = claim(tickets, ANN)
    assert json.loads(dealt.payload) == {"pinned": pinned | {"verdict": "refine"}}, "as on any correction"
    assert (dealt.attempt, dealt.sent_back_by) == (2, "victor") and dealt.previous_ticket_id is not None
    plain = to_track(with_policy(tickets, gold_share=0.0))
    assert (plain.attempt, plain.sent_back_by, plain.rework) == (2, "vera", dealt.rework)
    assert {name for name, value in vars(dealt).items() if value is None} == {
        name for name, value in vars(plain).items() if value is None
    }


@pytest.mark.parametrize("stored", [("frame_idx", "by", "reasons", "text", "verdict"), ("text", "reasons", "by")])
def test_the_payload_of_a_gold_correction_is_that_of_a_real_one_to_the_letter(tickets, stored):
    tickets.open_batch("b", verify_tickets(1, frame_count=8))
    held = claim(tickets, VERA)
    said = replace(outcome(Verdict.REFINE, Reason.DRIFT), text="the ear")
    tickets.finish(held.ticket_id, held.lease_token, VERA, said)
    real = claim(tickets, ANN)
    pinned = json.loads(real.payload)["pinned"]
    moved = {"pinned": {name: pinned[name] for name in stored}} | {
        name: value for name, value in json.loads(real.payload).items() if name != "pinned"
    }
    known = replace(track_gold(), ticket=replace(track_gold().ticket, payload=json.dumps(moved)))
    tickets.add_gold("b", [known], by=LEA)
    dealt = claim(with_policy(tickets, gold_share=1.0), ANN)
    wanted = {name: value for name, value in pinned.items() if name in (*stored, "verdict")}
    assert dealt.payload == json.dumps(json.loads(real.payload) | {"pinned": wanted})


def words(tickets, label_at, *classes):
    """What a ticket's payload says under an ontology of these classes, which the queue gets."""
    content = Ontology(classes=tuple(ObjectClass(name=name) for name in classes))
    return {"label_at": label_at, "ontology": Ontologies(tickets.database, tickets.clock).add(content)}


@pytest.mark.parametrize("now", ["none", "others"])
def test_gold_of_an_old_ontology_asks_for_labels_as_the_tickets_of_today_do(tickets, clock, now):
    base, pin = {"prompts": ["click"], "memory": False}, {"frame_idx": 4, "by": "victor", "reasons": []}
    old, new = words(tickets, "select", "dog"), words(tickets, "verify", "cat") if now == "others" else {}
    known = replace(track_gold().ticket, payload=json.dumps(base | old | {"pinned": pin}))
    for n, rules in enumerate([old, new]):
        clock.advance(1)
        real = replace(known, ticket_id=f"real-{n}", payload=json.dumps(base | rules))
        tickets.open_batch(f"b{n}", [real])
    clock.advance(1)
    tickets.add_gold("b0", [replace(track_gold(), ticket=known)], by=LEA)
    dealt = claim(with_policy(tickets, gold_share=1.0), ANN)
    assert dealt.payload == json.dumps(base | new | {"pinned": pin | {"verdict": "refine"}})


@pytest.mark.server
def test_operations_in_gold_look_like_operations_in_real_work(tickets):
    known = replace(track_gold(), ticket=replace(track_gold().ticket, masklet=candidate("m", frame_count=8)))
    tickets.open_batch("b", verify_tickets(1, frame_count=8))
    tickets.add_gold("b", [known], by=LEA)
    real = to_track(tickets)
    dealt = claim(with_policy(tickets, gold_share=1.0), ANN)
    accounts = add_people(tickets.database)
    told = []
    with serving(create_app(tickets, SyntheticMedia(8), accounts=accounts)) as url:
        for held in (real, dealt):
            made = blank(candidate(f"of-{held.ticket_id}", held.video_id, 8))
            tickets.finish(held.ticket_id, held.lease_token, ANN, outcome(masklet=made))
            back = take_back(tickets, held.ticket_id, ANN)
            again = replace(made, masklet_id=f"again-{held.ticket_id}")
            tickets.finish(held.ticket_id, back.lease_token, ANN, outcome(masklet=again))
            with QueueClient(url, token=accounts.issue_token("ann")) as client:
                done = [(o.kind, json.loads(o.payload)) for o in client.operations(held.ticket_id)]
            told.append([(kind, said.keys(), said.get("masks")) for kind, said in done])
    assert told[0] == told[1] and told[0][0][2]


def test_a_gold_ticket_does_not_show_the_decision_about_its_own_object(tickets):
    """About the candidate, about the candidate to be corrected, and from nothing."""
    tickets.open_batch("b", verify_tickets(6, frame_count=8))
    other = claim(tickets, VERA, ticket_id="ticket-0005")
    tickets.finish(other.ticket_id, other.lease_token, VERA, outcome(Verdict.ACCEPT))
    verify = make(tickets, ANN, to_track(tickets), "made")
    assert claim(tickets, VICTOR, ticket_id=verify.ticket_id).video_id == other.video_id
    tickets.finish(verify.ticket_id, 1, VICTOR, outcome(Verdict.ACCEPT))
    assert {(o.masklet_id, o.settled) for o in tickets.others("ticket-0005")} == {(verify.masklet_id, Verdict.ACCEPT)}
    (plain,), truth = verify_tickets(1, frame_count=8), tickets.masklet(verify.ticket_id)
    tickets.add_gold("b", [NewGold(ticket=replace(plain, ticket_id="judge"), expected=Verdict.REFINE)], by=LEA)
    for name, masklet in (("correct", plain.masklet), ("begin", None)):
        correct = replace(track_gold().ticket, ticket_id=name, masklet=masklet)
        tickets.add_gold("b", [NewGold(ticket=correct, truth=truth)], by=LEA)
    tickets = with_policy(tickets, gold_share=1.0)
    for person in (VALERIE, ANDY, ANDY):
        dealt = claim(tickets, person)
        assert dealt.video_id == other.video_id
        shown = [(o.masklet_id, o.settled) for o in tickets.others(dealt.ticket_id, seen_by=person)]
        assert shown == [("ticket-m0005", None)], dealt.kind


def test_gold_that_the_roles_no_longer_permit_does_not_block_real_work(tickets):
    tickets = opened(tickets, 1, verify_gold(1), gold_share=0.0, warmup_tickets=2)
    tickets.open_batch("c", [NewTicket(ticket_id="work", kind=Kind.TRACK, video_id="video-0", phase="3")])
    both = replace(ANN, roles=ANN.roles | VERA.roles)
    held = claim(tickets, both, Kind.VERIFY)
    assert held.masklet_id == "gold-m0000"
    tickets.release(held.ticket_id, held.lease_token, both)
    assert claim(tickets, ANN).ticket_id == "work"


def test_in_a_warm_up_a_claim_for_another_kind_or_batch_gets_nothing(tickets):
    tickets = opened(tickets, 1, verify_gold(1), gold_share=0.0, warmup_tickets=2)
    tickets.open_batch("c", verify_tickets(1, prefix="c"))
    both = replace(ANN, roles=ANN.roles | VERA.roles)
    assert claim(tickets, both, Kind.TRACK) is None and claim(tickets, both, batch_id="c") is None
    held = claim(tickets, both, Kind.VERIFY)
    tickets.release(held.ticket_id, held.lease_token, both)
    assert claim(tickets, both, Kind.TRACK) is None and claim(tickets, both, batch_id="c") is None
    assert claim(tickets, both).ticket_id == held.ticket_id


def test_finishing_gold_does_not_reveal_that_its_batch_is_drained(tickets):
    tickets = opened(tickets, 0, verify_gold(1))
    assert tickets.batch("b").drained
    assert not finish(tickets, VERA, Verdict.ACCEPT).batch_drained


def test_a_person_gets_no_gold_about_a_masklet_that_they_have_judged(tickets):
    known = [
        NewGold(ticket=replace(t, ticket_id="again"), expected=Verdict.ACCEPT) for t in verify_tickets(1, frame_count=8)
    ]
    tickets = opened(tickets, 2)
    finish(tickets, VERA, Verdict.ACCEPT)
    tickets.add_gold("b", known, by=LEA)
    assert claim(tickets, VERA).ticket_id == "ticket-0001"
    assert claim(tickets, VICTOR).masklet_id == "ticket-m0000"


def test_gold_is_added_once_and_needs_an_answer(tickets):
    tickets = opened(tickets, 1, verify_gold(2))
    assert tickets.add_gold("b", verify_gold(3), by=LEA) == 1
    with pytest.raises(NoSuchBatch):
        tickets.add_gold("nothing-here", verify_gold(1), by=LEA)
    (plain,) = verify_tickets(1, prefix="odd")
    for wrong in ({}, {"expected": Verdict.UNSURE}, {"truth": candidate("t"), "expected": Verdict.ACCEPT}):
        with pytest.raises(ValueError, match="gold odd"):
            tickets.add_gold("b", [NewGold(ticket=plain, **wrong)], by=LEA)
    with pytest.raises(ValueError, match="gold gold-track"):
        tickets.add_gold("b", [replace(track_gold(), truth=None)], by=LEA)
    assert len(tickets.gold()) == 3


def test_a_repeated_claim_id_gives_the_same_gold_ticket(tickets):
    tickets = opened(tickets, 1, verify_gold(2))
    first = tickets.claim(VERA, claim_id="c")
    assert tickets.claim(VERA, claim_id="c") == first and finish(tickets, VERA, Verdict.ACCEPT) is not None
    assert tickets.claim(VERA, claim_id=new_id()).ticket_id == "ticket-0000"


# --- the maths -------------------------------------------------------------------------------------------------------


@given(of=st.integers(1, 10_000), data=st.data())
def test_the_interval_contains_the_proportion_and_narrows_with_more_samples(of, data):
    right = data.draw(st.integers(0, of))
    share = wilson(right, of)
    assert 0 <= share.low <= right / of + 1e-12 and right / of - 1e-12 <= share.high <= 1
    wider, narrower = share.high - share.low, wilson(right * 4, of * 4)
    assert narrower.high - narrower.low < wider


def test_the_interval_matches_published_values():
    share = wilson(8, 10)
    assert (round(share.low, 4), round(share.high, 4)) == (0.4902, 0.9433)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
