"""The contract of the store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import func, select

from annotation_queue import schema
from annotation_queue.database import Database, DatabaseUnreachable
from annotation_queue.errors import BatchSealed, LeaseLost, NoSuchBatch, NoSuchMasklet, NoSuchTicket, NotAllowed
from annotation_queue.records import Kind, NewTicket, Person, QueuePolicy, Reason, Role, State
from annotation_queue.tickets.claims import claiming
from annotation_queue.tickets.store import GRACE_S, Store
from benchmarks.race import doubles, race
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    ANN,
    LEA,
    VERA,
    VICTOR,
    claim,
    finish,
    outcome,
    plans_of_claims,
    prompt,
    to_track,
)
from tests.annotation_queue.racing import accept_all
from tests.annotation_queue.synthetic_queue import candidate, corrected, tickets

# --- batches ---------------------------------------------------------------------------------------------------------


def test_opening_a_batch_again_changes_nothing(store):
    first = store.open_batch("b", tickets(3))
    ticket = claim(store, VERA)
    assert store.open_batch("b", tickets(3)) == first
    assert store.ticket(ticket.ticket_id) == ticket
    assert (first.total, first.remaining, first.sealed, first.drained) == (3, 3, True, False)


def test_a_batch_may_arrive_in_parts_and_drains_only_when_sealed(store):
    store.open_batch("b", tickets(1), sealed=False)
    finish(store, VERA, Verdict.ACCEPT)
    assert not store.batch("b").drained
    store.open_batch("b", tickets(2), sealed=True)
    assert (store.batch("b").total, store.batch("b").remaining) == (2, 1)
    assert finish(store, VERA, Verdict.ACCEPT).batch_drained
    assert store.drained_batches() == ["b"]


def test_a_sealed_batch_takes_no_new_ticket(store):
    store.open_batch("b", tickets(1))
    with pytest.raises(BatchSealed):
        store.open_batch("b", tickets(2))
    assert store.batch("b").total == 1


def test_a_batch_without_tickets_is_drained_at_once_and_told(store):
    assert store.open_batch("b", []).drained
    told = []
    assert store.deliver(told.append) == 1
    assert told == ["b"]


def test_a_malformed_ticket_adds_nothing(store):
    bad = replace(tickets(2)[1], masklet=replace(candidate("bad", "video-1"), rle=(b"?",) * 12))
    with pytest.raises(ValueError, match="masklet bad"):
        store.open_batch("b", [tickets(1)[0], bad])
    with pytest.raises(NoSuchBatch):
        store.batch("b")


def test_a_ticket_belongs_to_one_batch(store):
    store.open_batch("b", tickets(1))
    with pytest.raises(ValueError, match="belongs to batch b"):
        store.open_batch("c", tickets(1))


def test_two_batches_may_hold_masklets_of_the_same_id(store):
    store.open_batch("b", tickets(1))
    other = replace(tickets(1)[0], ticket_id="other")
    store.open_batch("c", [replace(other, masklet=replace(other.masklet, click_count=9))])
    assert store.masklet("ticket-0000").click_count == 0
    assert store.masklet("other").click_count == 9


def test_what_is_not_there_is_named(store):
    for error, ask in [(NoSuchTicket, store.ticket), (NoSuchBatch, store.batch), (NoSuchBatch, store.result_page)]:
        with pytest.raises(error, match="nothing-here"):
            ask("nothing-here")
    store.open_batch("b", [NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")])
    with pytest.raises(NoSuchMasklet):
        store.masklet("t")


# --- leases ----------------------------------------------------------------------------------------------------------


def test_tickets_come_by_priority_and_then_in_their_order(store):
    first, second, urgent = tickets(3)
    store.open_batch("b", [first, second, replace(urgent, priority=5)])
    order = [claim(store, VERA).ticket_id for _ in range(3)]
    assert order == [urgent.ticket_id, first.ticket_id, second.ticket_id]
    assert claim(store, VERA) is None


def test_the_same_claim_again_gives_the_same_ticket(store):
    store.open_batch("b", tickets(2))
    first = store.claim(VERA, claim_id="c")
    assert store.claim(VERA, claim_id="c") == first
    assert claim(store, VERA).ticket_id != first.ticket_id


def test_a_claim_whose_lease_is_over_is_not_answered_with_an_empty_queue(store, clock):
    store.open_batch("b", tickets(1))
    store.claim(VERA, claim_id="c")
    clock.advance(91)
    claim(store, VICTOR)
    with pytest.raises(LeaseLost):
        store.claim(VERA, claim_id="c")


def test_a_person_gets_the_kinds_of_their_roles_in_the_order_that_they_ask(store):
    store.open_batch("b", [*tickets(1), NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")])
    with pytest.raises(NotAllowed):
        claim(store, ANN, Kind.VERIFY)
    with pytest.raises(NotAllowed):
        claim(store, Person(name="pipeline", roles=frozenset({Role.PIPELINE})))
    assert claim(store, LEA, Kind.TRACK, Kind.VERIFY).kind is Kind.TRACK
    assert claim(store, LEA, Kind.TRACK, Kind.VERIFY).kind is Kind.VERIFY


def test_one_may_ask_for_one_ticket_or_one_batch(store):
    store.open_batch("b", tickets(2))
    store.open_batch("c", tickets(1, prefix="other"))
    assert claim(store, VERA, ticket_id="ticket-0001").ticket_id == "ticket-0001"
    assert claim(store, LEA, ticket_id="ticket-0001") is None
    assert claim(store, VERA, batch_id="c").ticket_id == "other-0000"
    for who, ticket_id in ((VICTOR, "ticket-0001"), (ANN, "ticket-0000"), (VERA, "nothing-here")):
        with pytest.raises(NotAllowed, match=f"cannot have ticket {ticket_id}"):  # taken, not for them, not there
            claim(store, who, ticket_id=ticket_id)
    with pytest.raises(NoSuchTicket):
        claim(store, LEA, ticket_id="nothing-here")


def test_a_lease_lives_by_its_heartbeats_and_goes_back_90_s_after_the_last(store, clock):
    store.open_batch("b", tickets(1))
    held = claim(store, VERA)
    for _ in range(5):
        clock.advance(89)
        assert claim(store, VICTOR) is None
        assert store.heartbeat(held.ticket_id, held.lease_token, VERA).expires_at == clock() + 90
    clock.advance(91)
    taken = claim(store, VICTOR)
    assert (taken.ticket_id, taken.lease_token) == (held.ticket_id, held.lease_token + 1)
    with pytest.raises(LeaseLost):
        store.heartbeat(held.ticket_id, held.lease_token, VERA)


def test_a_late_write_counts_while_nobody_asked_for_work(store, clock):
    store.open_batch("b", tickets(1))
    held = claim(store, VERA)
    clock.advance(3600)
    assert store.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.ACCEPT)).settled is Verdict.ACCEPT


def test_after_an_outage_whoever_held_a_ticket_has_time_to_come_back(store, clock):
    store.open_batch("b", tickets(2))
    stays, goes = claim(store, VERA), claim(store, VERA)
    clock.advance(1000)
    again = Store(store.database, clock=clock, grace_s=GRACE_S)
    assert claim(again, VICTOR) is None
    clock.advance(GRACE_S - 1)
    assert claim(again, VICTOR) is None
    again.heartbeat(stays.ticket_id, stays.lease_token, VERA)
    clock.advance(1)
    assert claim(again, VICTOR).ticket_id == goes.ticket_id and claim(again, VICTOR) is None


def test_a_released_ticket_is_open_again_and_releasing_twice_is_harmless(store):
    store.open_batch("b", tickets(1))
    held = claim(store, VERA)
    for _ in range(2):
        assert store.release(held.ticket_id, held.lease_token, VERA).state is State.OPEN
    assert claim(store, VICTOR).lease_token == held.lease_token + 1
    with pytest.raises(LeaseLost):
        store.release(held.ticket_id, held.lease_token, VERA)


def test_a_token_that_was_never_yours_is_not_allowed_and_leaves_nothing(store):
    store.open_batch("b", tickets(1))
    held = claim(store, VERA)
    for token, person in [(held.lease_token, VICTOR), (held.lease_token + 1, VERA), (0, VERA)]:
        for act in (
            lambda t=token, p=person: store.heartbeat(held.ticket_id, t, p),
            lambda t=token, p=person: store.release(held.ticket_id, t, p),
            lambda t=token, p=person: store.finish(held.ticket_id, t, p, outcome(Verdict.ACCEPT)),
        ):
            with pytest.raises(NotAllowed):
                act()
    elsewhere = candidate("elsewhere", "video-9", 8)  # what is wrong with it would tell what the ticket is about
    with pytest.raises(NotAllowed, match="never held"):
        store.finish(held.ticket_id, held.lease_token, ANN, outcome(masklet=elsewhere))
    for acts in ([replace(prompt(), kind="stroke")], []):
        with pytest.raises(NotAllowed, match="never held"):
            store.append_operations(held.ticket_id, held.lease_token, VICTOR, acts)
    assert store.operations(held.ticket_id, branch=True) == []
    assert store.ticket(held.ticket_id) == held


def test_a_lead_ends_a_lease_at_once_and_what_was_done_stays(store):
    store.open_batch("b", tickets(1))
    held = to_track(store)
    act = prompt()
    store.append_operations(held.ticket_id, held.lease_token, ANN, [act])
    assert store.end_lease(held.ticket_id, held.lease_token, by=LEA).state is State.OPEN
    assert store.end_lease(held.ticket_id, held.lease_token, by=LEA).state is State.OPEN
    with pytest.raises(LeaseLost):
        store.heartbeat(held.ticket_id, held.lease_token, ANN)
    taken = claim(store, LEA, Kind.TRACK)
    assert [o.operation_id for o in store.operations(taken.ticket_id)] == [act.operation_id]
    assert store.end_lease(held.ticket_id, held.lease_token, by=LEA) == taken, "it is another lease now"
    with store.database.read() as c:
        lines = c.execute(
            select(schema.audit.c.actor, schema.audit.c.action, schema.audit.c.subject, schema.audit.c.detail)
        ).all()
    assert lines == [("lea", "end lease", held.ticket_id, '{"held_by": "ann"}')]
    with pytest.raises(NoSuchTicket):
        store.end_lease("nothing-here", 1, by=LEA)


# --- operations ------------------------------------------------------------------------------------------------------


def test_operations_are_kept_in_order_with_who_and_what_they_are_about(store):
    store.open_batch("b", tickets(1))
    track = to_track(store)
    sent = [prompt(frame_idx=4 * i) for i in range(3)]
    appended = store.append_operations(track.ticket_id, track.lease_token, ANN, sent)
    assert (appended.stored, appended.repeated, appended.seq) == (3, 0, 3)
    kept = store.operations(track.ticket_id)
    assert [(o.operation_id, o.seq, o.frame_idx) for o in kept] == [
        (o.operation_id, i, o.frame_idx) for i, o in enumerate(sent, start=1)
    ]
    assert {(o.person, o.batch_id, o.video_id, o.masklet_id) for o in kept} == {
        ("ann", "b", "video-0", track.masklet_id)
    }


def test_an_operation_sent_twice_is_stored_once(store):
    store.open_batch("b", tickets(1))
    track = to_track(store)
    one, two = prompt(), prompt()
    store.append_operations(track.ticket_id, track.lease_token, ANN, [one])
    appended = store.append_operations(track.ticket_id, track.lease_token, ANN, [one, two, two])
    assert (appended.stored, appended.repeated, appended.seq) == (1, 2, 2)
    assert len(store.operations(track.ticket_id)) == 2


def test_an_operation_id_belongs_to_one_ticket(store):
    store.open_batch("b", tickets(2))
    first, second = to_track(store), to_track(store)
    one = prompt()
    store.append_operations(first.ticket_id, first.lease_token, ANN, [one])
    with pytest.raises(ValueError, match="another ticket"):
        store.append_operations(second.ticket_id, second.lease_token, ANN, [one])


def test_what_comes_after_the_lease_is_lost_is_kept_as_a_branch(store, clock):
    store.open_batch("b", tickets(1))
    track = to_track(store)
    early, late = prompt(), prompt()
    store.append_operations(track.ticket_id, track.lease_token, ANN, [early])
    clock.advance(91)
    assert claim(store, LEA, Kind.TRACK).ticket_id == track.ticket_id
    for _ in range(2):  # again: still lost, still kept once
        with pytest.raises(LeaseLost):
            store.append_operations(track.ticket_id, track.lease_token, ANN, [early, late])
    assert [o.operation_id for o in store.operations(track.ticket_id)] == [early.operation_id]
    assert [o.operation_id for o in store.operations(track.ticket_id, branch=True)] == [late.operation_id]
    again = store.append_operations(track.ticket_id, track.lease_token, ANN, [early])  # acknowledged before: still is
    assert again.repeated == 1


def test_a_masklet_that_comes_too_late_is_kept_whole(store, clock):
    store.open_batch("b", tickets(1))
    track = to_track(store)
    clock.advance(91)
    other = claim(store, LEA, Kind.TRACK)
    made = corrected(store.masklet(track.ticket_id), "late")
    with pytest.raises(LeaseLost):
        store.finish(track.ticket_id, track.lease_token, ANN, outcome(masklet=made))
    (kept,) = store.operations(track.ticket_id, branch=True)
    assert json.loads(kept.payload)["masklet"]["rle"] == [counts.decode() for counts in made.rle]
    assert store.ticket(track.ticket_id) == other


def test_operations_outlive_the_lease_under_which_they_were_made(store):
    store.open_batch("b", tickets(1))
    track = to_track(store)
    store.append_operations(track.ticket_id, track.lease_token, ANN, [prompt()])
    store.release(track.ticket_id, track.lease_token, ANN)
    again = claim(store, LEA, Kind.TRACK)
    store.append_operations(again.ticket_id, again.lease_token, LEA, [prompt()])
    assert [(o.person, o.seq) for o in store.operations(track.ticket_id)] == [("ann", 1), ("lea", 2)]


def test_a_prompt_that_the_phase_does_not_allow_is_refused_with_all_that_came_with_it(store):
    payload = '{"prompts": ["box"]}'
    track = NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="2", payload=payload)
    store.open_batch("b", [track])
    held = claim(store, ANN)
    box = replace(prompt(), payload='{"box_xyxy": [1, 2, 3, 4]}')
    with pytest.raises(NotAllowed, match="phase 2 does not allow click"):
        store.append_operations("t", held.lease_token, ANN, [box, prompt()])
    assert store.operations("t") == []
    assert store.append_operations("t", held.lease_token, ANN, [box]).stored == 1


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_accept_and_reject_settle_a_masklet(store):
    store.open_batch("b", tickets(2))
    assert finish(store, VERA, Verdict.ACCEPT).settled is Verdict.ACCEPT
    assert finish(store, VERA, Verdict.REJECT, Reason.DRIFT, Reason.DUPLICATE).settled is Verdict.REJECT
    accepted, rejected = store.batch_result("b").settled
    assert (accepted.masklet.verdict, accepted.masklet.verified_by) == ("accept", "vera")
    assert (rejected.masklet.verdict, rejected.reasons) == ("reject", (Reason.DRIFT, Reason.DUPLICATE))
    assert replace(accepted.masklet, verdict=None, verified_by=None) == tickets(1)[0].masklet


def test_refine_leads_to_track_and_then_to_somebody_else(store):
    store.open_batch("b", tickets(1))
    both = Person(name="ann", roles=frozenset({Role.ANNOTATOR, Role.VERIFIER}))
    track = to_track(store)
    made = corrected(store.masklet(track.ticket_id), "better")
    result = store.finish(track.ticket_id, track.lease_token, both, outcome(masklet=made))
    verify = store.ticket(result.next_ticket_id)
    assert (verify.kind, verify.made_by, verify.attempt) == (Kind.VERIFY, "ann", 3)
    assert verify.previous_ticket_id == track.ticket_id
    assert claim(store, both, Kind.VERIFY) is None
    with pytest.raises(NotAllowed):
        claim(store, both, Kind.VERIFY, ticket_id=verify.ticket_id)
    maker_leads = replace(both, roles=frozenset({Role.LEAD}))
    with pytest.raises(NotAllowed, match="somebody else"):
        claim(store, maker_leads, Kind.VERIFY, ticket_id=verify.ticket_id)
    assert finish(store, VICTOR, Verdict.ACCEPT).batch_drained
    (settled,) = store.batch_result("b").settled
    better = settled.masklet
    assert (better.masklet_id, better.parent_id, better.kind) == ("better", "ticket-m0000", "manual")
    assert (better.annotated_by, better.verified_by, better.click_count) == ("ann", "victor", 0), "not what she says"


def test_unsure_leads_to_a_lead_who_decides(store):
    store.open_batch("b", tickets(1))
    verify = store.ticket(finish(store, VERA, Verdict.UNSURE).next_ticket_id)
    assert verify.needs_lead
    assert claim(store, VICTOR) is None
    with pytest.raises(NotAllowed):
        claim(store, VICTOR, ticket_id=verify.ticket_id)
    assert finish(store, LEA, Verdict.ACCEPT).settled is Verdict.ACCEPT


def test_a_pin_says_what_was_said_there(store):
    store.open_batch("b", tickets(2))
    pins = []
    for verdict in (Verdict.UNSURE, Verdict.REFINE):
        pins.append(json.loads(store.ticket(finish(store, VERA, verdict).next_ticket_id).payload)["pinned"])
    assert pins == [{"frame_idx": 8, "by": "vera", "reasons": [], "verdict": said} for said in ("unsure", "refine")]
    tied = Store(store.database, policy=QueuePolicy(overlap=2, overlap_share=1.0), clock=store.clock)
    tied.open_batch("tie", tickets(1, prefix="tie"))
    finish(tied, VERA, Verdict.REFINE)
    verify = tied.ticket(finish(tied, VICTOR, Verdict.ACCEPT).next_ticket_id)
    pin = json.loads(verify.payload)["pinned"]
    assert verify.needs_lead and (pin["by"], pin["verdict"]) == ("victor", "accept")


def test_a_phase_1_ticket_starts_from_nothing_and_is_verified_by_another(store):
    store.open_batch("b", [NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")])
    finish(store, ANN, masklet=candidate("by-hand"))
    assert finish(store, VERA, Verdict.ACCEPT).batch_drained
    masklet = store.batch_result("b").settled[0].masklet
    assert (masklet.phase, masklet.kind, masklet.parent_id, masklet.annotated_by) == ("1", "manual", None, "ann")


def test_a_track_ticket_may_be_rejected_as_untrackable(store):
    store.open_batch("b", [NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")])
    assert finish(store, ANN, Verdict.REJECT, Reason.UNTRACKABLE).batch_drained
    (settled,) = store.batch_result("b").settled
    assert (settled.masklet, settled.decided_by, settled.reasons) == (None, "ann", (Reason.UNTRACKABLE,))


def test_a_select_ticket_leads_to_track(store):
    store.open_batch("b", [NewTicket(ticket_id="s", kind=Kind.SELECT, video_id="video-0")])
    picked = candidate("picked", frame_count=4)
    assert store.ticket(finish(store, ANN, masklet=picked).next_ticket_id).kind is Kind.TRACK


def test_finishing_twice_gives_the_same_answer_and_one_follower(store):
    store.open_batch("b", tickets(1))
    held = claim(store, VERA)
    refine = outcome(Verdict.REFINE)
    first = store.finish(held.ticket_id, held.lease_token, VERA, refine)
    assert store.finish(held.ticket_id, held.lease_token, VERA, refine) == first
    assert store.batch("b").total == 2
    with pytest.raises(LeaseLost):  # another answer to the same ticket
        store.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert [json.loads(o.payload)["verdict"] for o in store.operations(held.ticket_id)] == ["refine"]


def test_an_outcome_that_the_rules_refuse_changes_nothing(store):
    store.open_batch("b", tickets(1))
    held = claim(store, VERA)
    with pytest.raises(ValueError, match="reason"):
        store.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.REJECT))
    assert store.ticket(held.ticket_id) == held
    assert store.operations(held.ticket_id) == []


def test_a_verdict_is_an_operation_too(store):
    store.open_batch("b", tickets(1))
    finish(store, VERA, Verdict.REJECT, Reason.DRIFT)
    (act,) = store.batch_result("b").operations
    assert (act.kind, act.person, act.frame_idx, act.seq) == ("verdict", "vera", 8, 1)
    assert json.loads(act.payload) == {"verdict": "reject", "reasons": ["drift"], "seconds": 2.5}


def test_a_result_in_pages_is_the_whole_result(store):
    store.open_batch("b", tickets(7))
    for _ in range(7):
        finish(store, VERA, Verdict.ACCEPT)
    settled, operations, after = [], [], None
    while True:
        page = store.result_page("b", after=after, limit=2)
        settled += page.settled
        operations += page.operations
        if (after := page.next) is None:
            break
    whole = store.batch_result("b")
    assert (tuple(settled), tuple(operations)) == (whole.settled, whole.operations)
    assert (len(settled), len(operations)) == (7, 7)
    for strange in ("x", "operations:t", "operations:t:x"):
        with pytest.raises(ValueError, match="not a place"):
            store.result_page("b", after=strange)


# --- the outbox ------------------------------------------------------------------------------------------------------


def test_a_drained_batch_is_told_once(store):
    store.open_batch("b", tickets(1))
    told = []
    assert store.deliver(told.append) == 0
    finish(store, VERA, Verdict.ACCEPT)
    assert [store.deliver(told.append) for _ in range(3)] == [1, 0, 0]
    assert told == ["b"]


def test_a_delivery_that_fails_is_tried_again_later(store, clock):
    store.open_batch("b", [])
    told = []

    def fail(batch_id):
        told.append(batch_id)
        raise ConnectionError("the pipeline is away")

    assert store.deliver(fail) == 0
    assert store.deliver(fail) == 0
    assert told == ["b"]
    assert store.stats().undelivered == 1
    clock.advance(2)
    assert store.deliver(told.append) == 1
    assert store.stats().undelivered == 0


def test_several_processes_that_deliver_tell_a_batch_once(uri):
    database = Database(uri)
    store = Store(database)
    for i in range(10):
        store.open_batch(f"b{i}", [])
    told = []
    others = [Store(database) for _ in range(4)]
    threads = [threading.Thread(target=other.deliver, args=(told.append,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(told) == {f"b{i}": 1 for i in range(10)}
    database.close()


# --- many at once ----------------------------------------------------------------------------------------------------


def test_processes_that_race_for_tickets_never_hold_the_same_one(uri):
    count = 90
    database = Database(uri)
    Store(database).open_batch("b", tickets(count, frame_count=8))
    spawn = multiprocessing.get_context("spawn")
    results, start = spawn.Queue(), spawn.Event()
    processes = [spawn.Process(target=accept_all, args=(uri, f"p{i}", start, results)) for i in range(3)]
    for process in processes:
        process.start()
    start.set()
    claimed = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    everything = [lease for leases in claimed.values() for lease in leases]
    assert len(everything) == count
    assert {token for _, token in everything} == {1}
    assert len({ticket_id for ticket_id, _ in everything}) == count
    store = Store(database)
    assert (store.batch("b").remaining, store.drained_batches()) == (0, ["b"])
    with database.read() as c:
        assert c.scalar(select(func.count()).select_from(schema.outbox)) == 1
    database.close()


def test_a_few_tickets_that_go_from_hand_to_hand_are_never_in_two(uri):
    database = Database(uri)
    Store(database).open_batch("b", tickets(3, frame_count=8))
    said = []
    assert race(uri, 120, 900.0, said.append) == (120, 0) and said[-1] == 120
    with database.read() as c:
        assert c.scalar(select(func.count()).select_from(schema.leases)) == 120
    database.close()


@pytest.mark.parametrize(
    ("held", "double"),
    [
        ([[1, 1, 0, 2], [1, 2, 2, 3], [2, 1, 0, 9]], 0),
        ([[1, 1, 0, 2], [1, 2, 1, 3]], 1),  # while the first still held it
        ([[1, 1, 0, 9], [1, 2, 2, 3], [1, 3, 5, 6]], 2),  # and not the one before alone
        ([[1, 1, 0, 2], [1, 1, 3, 4]], 1),  # one lease, twice
    ],
)
def test_a_ticket_in_two_hands_is_found(held, double):
    assert doubles(np.array(held, float)) == double


def test_the_last_tickets_finished_at_the_same_moment_drain_the_batch_once(uri):
    database = Database(uri)
    store = Store(database)
    for round_ in range(5):
        store.open_batch(f"b{round_}", tickets(4, frame_count=4, prefix=f"r{round_}"))
        held = [claim(store, VERA) for _ in range(4)]
        together = threading.Barrier(4)

        def end(ticket, together=together):
            together.wait()
            store.finish(ticket.ticket_id, ticket.lease_token, VERA, outcome(Verdict.ACCEPT))

        threads = [threading.Thread(target=end, args=(ticket,)) for ticket in held]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.batch(f"b{round_}").drained
    told = []
    store.deliver(told.append)
    assert sorted(told) == [f"b{i}" for i in range(5)]
    database.close()


def test_one_claim_sent_twice_at_the_same_moment_takes_one_ticket(uri):
    database = Database(uri)
    store = Store(database)
    store.open_batch("b", tickets(8, frame_count=4))
    together = threading.Barrier(4)
    got = []

    def ask():
        together.wait()
        got.append(store.claim(VERA, claim_id="c").ticket_id)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4 and len(set(got)) == 1
    database.close()


@pytest.mark.parametrize("uri", ["postgres"], indirect=True)
def test_a_ticket_that_another_claim_looks_at_is_not_nothing(uri, monkeypatch):
    """A lead's claim locks the best ticket of each lane, and takes one."""
    database = Database(uri)
    store = Store(database)
    plain, unsure = tickets(2, frame_count=4)
    store.open_batch("b", [unsure])
    finish(store, VERA, Verdict.UNSURE)
    store.open_batch("c", [plain])
    with database.engine.connect() as other:
        how = (Kind.VERIFY, ("", "lead"), True, False, False, False)
        given = {"claim_kind": "verify", "claim_person": "lea", "claim_now": 0.0, "claim_until": 1.0}
        taken = other.execute(claiming(*how), given | {"claim_ticket": None, "claim_batch": None}).one()
        waits = []

        def commit_meanwhile(seconds):
            waits.append(seconds)
            other.commit()

        monkeypatch.setattr("annotation_queue.tickets.store.time.sleep", commit_meanwhile)
        assert taken.needs_lead and claim(store, VERA).ticket_id == plain.ticket_id
        assert len(waits) == 1
        assert claim(store, VICTOR) is None and len(waits) == 1, "nothing is there: no wait"
    database.close()


# --- the database ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["mysql://localhost/x", "sqlite://", "sqlite:///:memory:"])
def test_a_database_that_cannot_hold_the_queue_is_refused(bad):
    with pytest.raises(ValueError):
        Database(bad)


@pytest.mark.parametrize(
    "away", ["postgresql+psycopg://nobody@127.0.0.1:9/queue", "sqlite:////nowhere/at/all/queue.db"]
)
def test_a_database_out_of_reach_is_said_in_one_line(away):
    with pytest.raises(DatabaseUnreachable) as caught:
        Database(away)
    assert "\n" not in str(caught.value) and away.split("/")[-1] in str(caught.value)


def test_claiming_reads_an_index_and_not_the_whole_queue(store):
    """The plan of the claim's query, on a queue of which most is done."""
    store.open_batch("b", tickets(1, frame_count=4))
    rows = [{"ticket_id": f"x{i}", "kind": "verify", "state": "done", "ordinal": i} for i in range(3000)]
    same = {"batch_id": "b", "video_id": "v", "phase": "auto", "priority": 0, "payload": "{}", "needs_lead": False}
    same |= {"attempt": 1, "created_at": 0.0, "lease_token": 0, "reasons": ""}
    with store.database.write() as c:
        c.execute(schema.tickets.insert(), [row | same for row in rows])
        if not store.database.is_sqlite:
            c.exec_driver_sql("ANALYZE tickets")
    plans = plans_of_claims(store)
    assert claim(store, VERA, Kind.VERIFY).ticket_id == "ticket-0000"
    assert any("tickets_ready" in line for line in plans), plans
    assert not any("Seq Scan on tickets" in line or "SCAN tickets'" in line for line in plans), plans


def test_the_numbers_count_every_ticket_and_an_expired_lease_as_open(store, clock):
    store.open_batch("b", tickets(3))
    finish(store, VERA, Verdict.ACCEPT)
    claim(store, VERA)
    counts = {(c.kind, c.state): c.tickets for c in store.stats().counts}
    assert counts == {(Kind.VERIFY, State.OPEN): 1, (Kind.VERIFY, State.LEASED): 1, (Kind.VERIFY, State.DONE): 1}
    clock.advance(91)
    counts = {(c.kind, c.state): c.tickets for c in store.stats().counts}
    assert counts == {(Kind.VERIFY, State.OPEN): 2, (Kind.VERIFY, State.DONE): 1}
    (pace,) = store.stats().paces
    assert (pace.person, pace.finished, pace.seconds) == ("vera", 1, 2.5)
