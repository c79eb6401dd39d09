"""Who gets which ticket, who may see what, and what can be taken back: on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from sqlalchemy import event, func, insert, select

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.errors import LeaseLost, NotAllowed, TooLate
from annotation_queue.records import Kind, NewTicket, Person, Reason, Role, State
from annotation_queue.rules import is_in_share
from annotation_queue.tickets.reading import RECENT
from annotation_queue.tickets.store import Store
from storage import overlap
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    AMY,
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
    plans_of_claims,
    prompt,
    take_back,
    to_track,
    with_policy,
)
from tests.annotation_queue.synthetic_queue import blank, candidate, corrected, tickets


def sent_back_twice(store):
    """The id of a track ticket about what Ann made and Victor sent back."""
    store.open_batch("b", tickets(1))
    verify = make(store, ANN, to_track(store), "first")
    held = claim(store, VICTOR)
    assert held.ticket_id == verify.ticket_id
    done = store.finish(held.ticket_id, held.lease_token, VICTOR, outcome(Verdict.REFINE))
    return done.next_ticket_id


# --- rework ----------------------------------------------------------------------------------------------------------


def test_rework_waits_for_its_maker_and_then_goes_to_anybody(store, clock):
    again = sent_back_twice(store)
    assert store.ticket(again).rework
    assert claim(store, ANDY) is None
    with pytest.raises(NotAllowed):
        claim(store, ANDY, ticket_id=again)
    assert again not in {t.ticket_id for t in store.tickets(seen_by=ANDY)}
    clock.advance(store.policy.rework_s + 1)
    assert again in {t.ticket_id for t in store.tickets(seen_by=ANDY)}
    assert claim(store, ANDY).ticket_id == again


def test_rework_comes_to_its_maker_before_what_is_more_urgent(store):
    again = sent_back_twice(store)
    urgent = NewTicket(ticket_id="urgent", kind=Kind.TRACK, video_id="video-0", phase="1", priority=9)
    store.open_batch("c", [urgent])
    assert claim(store, ANDY).ticket_id == "urgent"
    assert claim(store, ANN).ticket_id == again


def test_rework_does_not_wait_for_somebody_who_went_home(store, clock):
    store.open_batch("b", tickets(1))
    make(store, ANN, to_track(store), "first")
    clock.advance(store.policy.rework_s + 1)
    finish(store, VICTOR, Verdict.REFINE)
    assert claim(store, ANDY) is not None


def test_a_lead_may_take_what_waits_for_another_by_its_id(store):
    again = sent_back_twice(store)
    assert claim(store, LEA, Kind.TRACK) is None
    assert claim(store, LEA, Kind.TRACK, ticket_id=again).ticket_id == again


def test_what_was_sent_back_is_verified_by_another(store):
    verify = make(store, ANN, claim(store, ANN, ticket_id=sent_back_twice(store)), "second")
    assert verify.sent_back_by == "victor" and verify.rework
    assert claim(store, VICTOR) is None
    with pytest.raises(NotAllowed):
        claim(store, VICTOR, ticket_id=verify.ticket_id)
    assert claim(store, VERA).ticket_id == verify.ticket_id


def test_a_single_verifier_may_be_asked_again_where_the_policy_says_so(store):
    store = with_policy(store, other_verifier=False)
    store.open_batch("b", tickets(1))
    verify = make(store, ANN, to_track(store), "first")
    assert claim(store, VERA).ticket_id == verify.ticket_id


# --- skills ----------------------------------------------------------------------------------------------------------


def test_a_ticket_that_asks_for_a_skill_goes_to_who_has_it(store):
    plain, birds = tickets(2)
    store.open_batch("b", [replace(birds, skill="birds", priority=3), plain])
    assert claim(store, VERA).ticket_id == plain.ticket_id
    assert claim(store, VERA) is None
    with pytest.raises(NotAllowed):
        claim(store, VERA, ticket_id=birds.ticket_id)
    knows = replace(VICTOR, skills=frozenset({"birds", "fish"}))
    assert claim(store, knows).ticket_id == birds.ticket_id


def test_the_best_ticket_of_all_lanes_comes_first(store):
    low, high, middle = tickets(3)
    store.open_batch(
        "b", [replace(low, priority=1), replace(high, priority=3, skill="birds"), replace(middle, priority=2)]
    )
    knows = replace(VICTOR, skills=frozenset({"birds"}))
    assert [claim(store, knows).ticket_id for _ in range(3)] == [high.ticket_id, middle.ticket_id, low.ticket_id]


def test_what_follows_asks_for_the_same_skill_and_a_lead_decides_without_it(store):
    store.open_batch("b", [replace(tickets(1)[0], skill="birds")])
    knows = replace(VERA, skills=frozenset({"birds"}))
    follower = store.ticket(finish(store, knows, Verdict.UNSURE).next_ticket_id)
    assert follower.skill == "birds" and claim(store, knows) is None
    assert finish(store, LEA, Verdict.ACCEPT).settled is Verdict.ACCEPT


# --- who may see what ------------------------------------------------------------------------------------------------


def test_a_ticket_is_seen_by_who_holds_it_who_finished_it_and_overseers(store, clock):
    store.open_batch("b", tickets(2))
    held = claim(store, VERA)
    first, second = (t.ticket_id for t in tickets(2))
    boss, program = (Person(name=r.value, roles=frozenset({r})) for r in (Role.ADMIN, Role.PIPELINE))
    for who in (LEA, boss, program):
        assert store.may_see(who, second) and store.may_see_video(who, "video-1")
    assert store.may_see(VERA, first) and not store.may_see(VERA, second)
    assert store.may_see_video(VERA, "video-0") and not store.may_see_video(VERA, "video-1")
    assert not store.may_see(VICTOR, first) and not store.may_see_video(VICTOR, "video-0")
    store.finish(first, held.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert store.may_see(VERA, first) and store.may_see_video(VERA, "video-0")
    lost = claim(store, VERA)
    clock.advance(91)
    claim(store, VICTOR)
    assert not store.may_see(VERA, lost.ticket_id) and store.may_see(VICTOR, lost.ticket_id)


def test_a_list_holds_only_what_one_may_be_handed(store):
    store.open_batch("b", [*tickets(2), NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")])
    held = claim(store, VERA)
    assert {t.ticket_id for t in store.tickets(seen_by=VICTOR)} == {"ticket-0001"}
    assert {t.ticket_id for t in store.tickets(seen_by=VERA)} == {held.ticket_id, "ticket-0001"}
    assert {t.ticket_id for t in store.tickets(seen_by=ANN)} == {"t"}
    assert len(store.tickets(seen_by=LEA)) == 3


# --- taking back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", Verdict)
def test_a_verdict_can_be_taken_back_and_given_again(store, verdict):
    store.open_batch("b", tickets(2))
    before, figures = store.batch("b"), store.figures()
    reasons = [Reason.DRIFT] if verdict is Verdict.REJECT else []
    done = finish(store, VERA, verdict, *reasons)
    ticket_id, operation_id = done.ticket.ticket_id, new_id()
    back = take_back(store, ticket_id, VERA, operation_id)
    assert (back.state, back.leased_by, back.lease_token, back.verdict) == (State.LEASED, "vera", 2, None)
    assert take_back(store, ticket_id, VERA, operation_id) == back
    assert store.batch("b") == before and store.recent(VERA) == []
    assert (store.figures().total, store.figures().batches[0].done) == (figures.total, 0)
    assert [o.kind for o in store.operations(ticket_id)] == ["verdict", "unsubmit"]
    final = store.finish(ticket_id, back.lease_token, VERA, outcome(Verdict.REFINE))
    assert store.ticket(final.next_ticket_id).kind is Kind.TRACK
    assert store.batch("b").total == 3


def test_a_masklet_that_was_made_can_be_taken_back_and_is_kept_in_the_operation(store):
    store.open_batch("b", tickets(2))
    track = to_track(store)
    verify = make(store, ANN, track, "made")
    back = take_back(store, track.ticket_id, ANN)
    kept = json.loads(store.operations(track.ticket_id)[-1].payload)
    assert kept["masklet"]["masklet_id"] == "made"
    assert verify.ticket_id not in {t.ticket_id for t in store.tickets(batch_id="b")}
    other = replace(candidate("made", track.video_id, 8), checkpoint="another")
    store.finish(track.ticket_id, back.lease_token, ANN, outcome(masklet=other))
    assert store.masklet(verify.ticket_id).checkpoint == "another"


def test_a_verdict_is_not_taken_back_by_who_may_not_judge_any_more(store):
    store.open_batch("b", tickets(2))
    done = finish(store, VERA, Verdict.ACCEPT)
    with pytest.raises(NotAllowed, match="no role for verify"):
        take_back(store, done.ticket.ticket_id, replace(VERA, roles=ANN.roles))
    assert take_back(store, done.ticket.ticket_id, VERA).leased_by == "vera"


def test_what_others_began_cannot_be_taken_back(store, clock):
    store.open_batch("b", tickets(2))
    done = finish(store, VERA, Verdict.REFINE)
    track = claim(store, ANN)
    with pytest.raises(TooLate):
        take_back(store, done.ticket.ticket_id, VERA)
    store.release(track.ticket_id, track.lease_token, ANN)
    with pytest.raises(TooLate):  # it was begun all the same
        take_back(store, done.ticket.ticket_id, VERA)
    assert store.ticket(done.ticket.ticket_id).verdict is Verdict.REFINE


def test_a_batch_that_was_handed_on_stays_as_it_is(store):
    store.open_batch("b", tickets(1))
    done = finish(store, VERA, Verdict.ACCEPT)
    with pytest.raises(TooLate, match="handed on"):
        take_back(store, done.ticket.ticket_id, VERA)


def test_only_ones_own_last_ten_can_be_taken_back(store, clock):
    store.open_batch("b", tickets(RECENT + 2))
    done = []
    for _ in range(RECENT + 1):
        clock.advance(1)
        done.append(finish(store, VERA, Verdict.ACCEPT).ticket.ticket_id)
    assert [r.ticket_id for r in store.recent(VERA)] == done[:0:-1]
    with pytest.raises(NotAllowed, match="last 10"):
        take_back(store, done[0], VERA)
    with pytest.raises(NotAllowed, match="last 10"):
        take_back(store, done[1], VICTOR)
    assert take_back(store, done[1], VERA).lease_token == 2


def test_a_take_back_whose_lease_is_over_says_so(store, clock):
    store.open_batch("b", tickets(2))
    ticket_id, operation_id = finish(store, VERA, Verdict.ACCEPT).ticket.ticket_id, new_id()
    back = take_back(store, ticket_id, VERA, operation_id)
    store.release(ticket_id, back.lease_token, VERA)
    with pytest.raises(LeaseLost):
        take_back(store, ticket_id, VERA, operation_id)
    assert claim(store, VICTOR).ticket_id == ticket_id


def test_a_take_back_and_the_next_claim_do_not_both_win(uri):
    database = Database(uri)
    store = Store(database)
    store.open_batch("b", tickets(9, frame_count=4))
    for _ in range(8):
        done = finish(store, VERA, Verdict.REFINE)
        together, got = threading.Barrier(2), {}

        def undo(done=done, together=together, got=got):
            together.wait()
            try:
                got["back"] = take_back(store, done.ticket.ticket_id, VERA)
            except TooLate:
                got["back"] = None

        def take(together=together, got=got):
            together.wait()
            got["taken"] = claim(store, ANN)

        threads = [threading.Thread(target=undo), threading.Thread(target=take)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (got["back"] is None) != (got["taken"] is None)
        for ticket, who in ((got["back"], VERA), (got["taken"], ANN)):
            if ticket is not None:
                reject = outcome(Verdict.REJECT, Reason.UNTRACKABLE)
                store.finish(ticket.ticket_id, ticket.lease_token, who, reject)
    assert (store.batch("b").remaining, len(store.tickets(state=State.OPEN))) == (1, 1)
    database.close()


# --- several makers --------------------------------------------------------------------------------------------------


def to_make(store, makers):
    """A store whose only ticket was sent back by Victor, and is made by so many people."""
    store = with_policy(store, makers=makers, makers_share=1.0)
    store.open_batch("b", tickets(1))
    finish(store, VICTOR, Verdict.REFINE)
    return store


def submit(store, person, masklet):
    held = claim(store, person)
    return store.finish(held.ticket_id, held.lease_token, person, outcome(masklet=masklet))


def made_by(name, spots=0):
    """A disc on 8 annotated frames, on the last `spots` of them in another place."""
    disc = corrected(candidate(f"of-{name}", "video-0", 8 * 4), f"of-{name}")
    wrong, right = blank(disc).rle, disc.rle
    return replace(disc, rle=(*right[: len(right) - spots], *wrong[len(wrong) - spots :]))


def test_several_people_make_one_masklet_and_the_one_closest_to_the_others_goes_on(store):
    store = to_make(store, 3)
    first = claim(store, ANN)
    done = submit_held(store, first, ANN, made_by("ann", spots=4))
    assert done.settled is None and not done.batch_drained
    assert claim(store, ANN) is None
    with pytest.raises(NotAllowed):
        claim(store, ANN, ticket_id=done.next_ticket_id)
    second = claim(store, ANDY)
    assert (second.ticket_id, second.kind) == (done.next_ticket_id, Kind.TRACK)
    assert second.masklet_id == first.masklet_id and second.made_by is None  # nobody sees what another one made
    told = ("kind", "payload", "phase", "attempt", "previous_ticket_id", "sent_back_by", "rework", "priority", "skill")
    assert [getattr(second, name) for name in told] == [getattr(first, name) for name in told]
    assert store.operations(second.ticket_id) == []
    submit_held(store, second, ANDY, made_by("andy"))
    assert claim(store, ANN) is None and claim(store, ANDY) is None
    assert store.figures().total.masklet_iou is None
    done = submit(store, AMY, made_by("amy", spots=1))
    verify = store.ticket(done.next_ticket_id)
    assert (verify.kind, verify.masklet_id, verify.made_by) == (Kind.VERIFY, "of-amy", "amy")
    ann, andy, amy = made_by("ann", spots=4), made_by("andy"), made_by("amy", spots=1)
    people = {work.name: work for work in store.figures().people}
    assert people["ann"].masklet_iou == pytest.approx((overlap.mean_iou(ann, andy) + overlap.mean_iou(ann, amy)) / 2)
    assert people["amy"].masklet_iou == pytest.approx((overlap.mean_iou(amy, andy) + overlap.mean_iou(ann, amy)) / 2)
    assert people["amy"].masklet_iou > people["andy"].masklet_iou > people["ann"].masklet_iou
    assert people["amy"].agreement == 1.0
    finish(store, VERA, Verdict.ACCEPT)
    (settled,) = store.batch_result("b").settled
    assert (settled.masklet.masklet_id, settled.masklet.annotated_by) == ("of-amy", "amy")
    assert store.batch("b").drained and store.batch("b").total == 5


def test_what_most_of_the_makers_call_untrackable_is_dropped(store):
    store = to_make(store, 3)
    assert finish(store, ANN, Verdict.REJECT, Reason.UNTRACKABLE).settled is None
    assert submit(store, ANDY, made_by("andy")).settled is None
    assert finish(store, AMY, Verdict.REJECT, Reason.UNTRACKABLE).settled is Verdict.REJECT
    (settled,) = store.batch_result("b").settled
    assert (settled.verdict, settled.reasons, settled.decided_by) == (Verdict.REJECT, (Reason.UNTRACKABLE,), "amy")
    assert {work.name: work.agreement for work in store.figures().people if work.name != "victor"} == {
        "amy": 0.5,
        "andy": 0.0,
        "ann": 0.5,
    }


def test_a_masklet_that_only_one_of_two_could_make_is_judged(store):
    store = to_make(store, 2)
    finish(store, ANN, Verdict.REJECT, Reason.UNTRACKABLE)
    verify = store.ticket(submit(store, ANDY, made_by("andy")).next_ticket_id)
    assert (verify.kind, verify.made_by, verify.needs_lead) == (Kind.VERIFY, "andy", False)
    assert store.figures().total.masklet_iou is None


@pytest.mark.parametrize("rejects", [False, True])
def test_a_maker_takes_back_until_the_next_one_begins(store, rejects):
    store = to_make(store, 2)
    before = store.figures()
    first = submit(store, ANN, made_by("ann"))
    back = take_back(store, first.ticket.ticket_id, ANN)
    assert without_time(store.figures()) == without_time(before) and store.batch("b").total == 2
    submit_held(store, back, ANN, made_by("ann", spots=1))
    between = store.figures()
    if rejects:
        last = finish(store, ANDY, Verdict.REJECT, Reason.UNTRACKABLE)
    else:
        last = submit(store, ANDY, made_by("andy"))
    with pytest.raises(TooLate):
        take_back(store, first.ticket.ticket_id, ANN)
    back = take_back(store, last.ticket.ticket_id, ANDY)
    assert without_time(store.figures()) == without_time(between)
    done = submit_held(store, back, ANDY, made_by("andy", spots=1))
    assert store.ticket(done.next_ticket_id).masklet_id == "of-ann"  # both alike: the first
    assert store.figures().total.masklet_iou == 1.0


def test_who_can_still_take_back_what_they_made_is_not_shown_what_another_one_made(store):
    store = with_policy(store, makers=2, makers_share=1.0)
    store.open_batch("b", [tickets(6)[0], tickets(6)[5]])  # two objects of one video
    finish(store, VICTOR, Verdict.REFINE)
    submit(store, ANN, made_by("ann"))
    last = submit(store, ANDY, made_by("andy", spots=1))
    verify = store.ticket(last.next_ticket_id)
    assert verify.masklet_id == "of-ann"
    assert store.others("ticket-0005", seen_by=ANDY) == []
    assert [o.masklet_id for o in store.others("ticket-0005", seen_by=ANN)] == ["of-ann"]
    claim(store, VERA, ticket_id=verify.ticket_id)
    assert [o.masklet_id for o in store.others("ticket-0005", seen_by=ANDY)] == ["of-ann"]
    assert [o.masklet_id for o in store.others(last.ticket.ticket_id, seen_by=ANDY)] == ["ticket-m0005"]


@pytest.mark.parametrize("kind", [Kind.TRACK, Kind.VERIFY])
def test_whom_a_ticket_is_barred_to_is_found_by_the_ticket_and_not_by_all_that_they_ever_did(store, kind):
    rows = [{"ticket_id": f"x{i}", "state": "open" if i < 9 else "done", "ordinal": i} for i in range(3000)]
    same = {"batch_id": "b", "video_id": "v", "phase": "auto", "priority": 0, "payload": "{}", "needs_lead": False}
    same |= {"attempt": 1, "created_at": 0.0, "lease_token": 1, "reasons": "", "overlap": 2, "kind": kind.value}
    ended = {"token": 1, "person": "vera", "claimed_at": 0.0, "finished_at": 1.0}
    with store.database.write() as c:
        objects = [{"object_id": f"o{i % 1000}"} if kind is Kind.TRACK else {} for i in range(3000)]
        c.execute(insert(schema.tickets), [same | row | about for row, about in zip(rows, objects, strict=True)])
        done = [row for row in rows if row["state"] == "done"]
        c.execute(
            insert(schema.leases), [ended | {"ticket_id": r["ticket_id"], "claim_id": r["ticket_id"]} for r in done]
        )
        if not store.database.is_sqlite:
            c.exec_driver_sql("ANALYZE tickets, leases")
    plans = plans_of_claims(store)
    both = replace(VERA, roles=VERA.roles | ANN.roles)
    assert (claim(store, both, kind) is None) == (kind is Kind.TRACK)
    assert any("leases" in line for line in plans), plans
    assert not any("leases_finished" in line or "Seq Scan on leases" in line for line in plans), plans


def test_only_what_nobody_has_made_is_made_by_several(store):
    store = with_policy(store, makers=2, makers_share=1.0)
    unknown = NewTicket(ticket_id="anything", kind=Kind.TRACK, video_id="video-0")  # nothing says which object
    made = replace(candidate("m", frame_count=8), annotated_by="somebody")
    store.open_batch("c", [unknown, NewTicket(ticket_id="made", kind=Kind.TRACK, video_id="video-0", masklet=made)])
    for _ in range(2):
        held = claim(store, ANN)
        done = submit_held(store, held, ANN, made_by(held.ticket_id))
        assert store.ticket(done.next_ticket_id).kind is Kind.VERIFY


def submit_held(store, held, person, masklet):
    return store.finish(held.ticket_id, held.lease_token, person, outcome(masklet=masklet))


def without_time(figures):
    """The figures but for the pace, and for who holds what."""
    to_do = (replace(b, open=b.open + b.leased, leased=0, per_hour=0, expected_s=None) for b in figures.batches)
    return replace(figures, at=0.0, batches=tuple(to_do))


# --- several verdicts ------------------------------------------------------------------------------------------------


def test_a_ticket_of_the_overlap_share_takes_several_verdicts(store):
    store = with_policy(store, overlap=3, overlap_share=1.0)
    store.open_batch("b", tickets(1))
    first = finish(store, VERA, Verdict.ACCEPT)
    assert (first.settled, first.next_ticket_id, first.ticket.state) == (None, None, State.OPEN)
    assert claim(store, VERA) is None
    finish(store, VICTOR, Verdict.REJECT, Reason.DRIFT)
    last = finish(store, VALERIE, Verdict.ACCEPT)
    assert last.settled is Verdict.ACCEPT and last.batch_drained
    (settled,) = store.batch_result("b").settled
    assert (settled.verdict, settled.decided_by, settled.reasons) == (Verdict.ACCEPT, "valerie", ())
    figures = store.figures()
    assert figures.total.agreement == pytest.approx(1 / 3)  # of three pairs one agrees
    assert {work.name: work.agreement for work in figures.people} == {"valerie": 0.5, "vera": 0.5, "victor": 0.0}
    assert (figures.batches[0].done, figures.total.answers) == (1, 3)


def test_the_pace_of_everybody_who_gave_a_verdict_is_counted(store, clock):
    store = with_policy(store, overlap=2, overlap_share=1.0)
    store.open_batch("b", tickets(4))
    for _ in range(3):
        finish(store, VERA, Verdict.ACCEPT)
    for _ in range(2):
        last = finish(store, VICTOR, Verdict.ACCEPT)
    assert [(p.person, p.finished, p.seconds) for p in store.stats().paces] == [("vera", 3, 2.5), ("victor", 2, 2.5)]
    take_back(store, last.ticket.ticket_id, VICTOR)
    assert [(p.person, p.finished) for p in store.stats().paces] == [("vera", 3), ("victor", 1)]
    clock.advance(3601)
    assert store.stats().paces == ()


def test_verdicts_that_differ_go_to_a_lead(store):
    store = with_policy(store, overlap=2, overlap_share=1.0)
    store.open_batch("b", tickets(1))
    finish(store, VERA, Verdict.ACCEPT)
    follower = store.ticket(finish(store, VICTOR, Verdict.REFINE).next_ticket_id)
    assert follower.needs_lead and follower.kind is Kind.VERIFY
    assert finish(store, LEA, Verdict.ACCEPT).settled is Verdict.ACCEPT


def test_one_of_several_verdicts_can_be_taken_back(store):
    store = with_policy(store, overlap=2, overlap_share=1.0)
    store.open_batch("b", tickets(2))
    ticket_id = finish(store, VERA, Verdict.ACCEPT).ticket.ticket_id
    back = take_back(store, ticket_id, VERA)
    store.finish(ticket_id, back.lease_token, VERA, outcome(Verdict.REFINE))
    held = claim(store, VICTOR)
    assert held.ticket_id == ticket_id
    with pytest.raises(TooLate, match="somebody else"):
        take_back(store, ticket_id, VERA)
    settled = store.finish(ticket_id, held.lease_token, VICTOR, outcome(Verdict.REFINE))
    assert settled.next_ticket_id is not None and store.figures().total.agreement == 1.0
    back = take_back(store, ticket_id, VERA)  # the decision opens again
    assert store.figures().total.agreement is None
    again = store.finish(ticket_id, back.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert store.ticket(again.next_ticket_id).needs_lead and store.figures().total.agreement == 0.0


def test_the_overlap_share_is_the_same_tickets_everywhere():
    chosen = [i for i in range(4000) if is_in_share(f"ticket-{i}", 0.1)]
    assert 300 < len(chosen) < 500
    assert not any(is_in_share(f"ticket-{i}", 0.0) for i in range(100))
    assert all(is_in_share(f"ticket-{i}", 1.0) for i in range(100))
    assert set(chosen) < {i for i in range(4000) if is_in_share(f"ticket-{i}", 0.2)}


# --- the figures -----------------------------------------------------------------------------------------------------


def test_the_figures_come_from_operations(store):
    store.open_batch("b", tickets(2))
    track = to_track(store)
    grow = [replace(prompt(frame_idx=4), payload=json.dumps({"points_xy": [[1, 1]] * n})) for n in (1, 2, 1, 3)]
    stroke = replace(prompt(frame_idx=0), kind="stroke", payload="{}")
    odd = replace(prompt(frame_idx=0), payload='{"points_xy": 3}')
    store.append_operations(track.ticket_id, track.lease_token, ANN, [*grow, stroke, odd])
    verify = make(store, ANN, track, "made")  # two annotated frames, in 2.5 s
    made = store.masklet(verify.ticket_id)
    assert (made.click_count, made.edited_frame_count) == (4, 2), "as the figures say, whatever the page does"
    finish(store, VERA, Verdict.ACCEPT)
    figures = store.figures()
    ann = next(work for work in figures.people if work.name == "ann")
    assert (ann.answers, ann.verdicts) == (1, {"made": 1})
    assert ann.clicks_per_clicked_frame == 4.0  # 1, 1, none for a point taken back, 2
    assert (ann.edited_frames_share, ann.seconds_per_frame, ann.seconds_per_ticket) == (1.0, 1.25, 2.5)
    assert (figures.total.first_pass.right, figures.total.first_pass.of) == (1, 2)
    assert {work.name for work in figures.makers} == {""} and {w.name for w in figures.checkpoints} == {"micro"}
    assert {work.name for work in figures.phases} == {"auto"}
    take_back(store, track.ticket_id, ANN)
    assert "ann" not in {work.name for work in store.figures().people}


def test_what_a_masklet_took_is_of_those_who_did_it(store):
    store.open_batch("b", tickets(2))
    track = to_track(store)
    five = [replace(prompt(frame_idx=4), payload=json.dumps({"points_xy": [[1, 1]] * n})) for n in range(1, 6)]
    store.append_operations(track.ticket_id, track.lease_token, ANN, five)
    store.release(track.ticket_id, track.lease_token, ANN)
    verify = make(store, LEA, claim(store, LEA, Kind.TRACK), "made")
    people = {work.name: work for work in store.figures().people}
    assert (people["ann"].clicks_per_clicked_frame, people["lea"].clicks_per_clicked_frame) == (5.0, None)
    assert (people["ann"].answers, people["lea"].edited_frames_share) == (0, 0.0)
    assert store.figures().total.edited_frames_share == 0.5 and store.masklet(verify.ticket_id).click_count == 5
    take_back(store, track.ticket_id, LEA)
    assert {work.name for work in store.figures().people} == {"vera"}


def test_a_masklet_counts_what_its_parent_took_too(store, clock):
    again = claim(store, ANN, ticket_id=sent_back_twice(store))
    store.append_operations(again.ticket_id, again.lease_token, ANN, [prompt(frame_idx=4)])
    second = claim(store, VERA) if (verify := make(store, ANN, again, "second")) else None
    assert second.ticket_id == verify.ticket_id
    done = store.finish(second.ticket_id, second.lease_token, VERA, outcome(Verdict.REFINE))
    third = claim(store, ANN, ticket_id=done.next_ticket_id)
    store.append_operations(third.ticket_id, third.lease_token, ANN, [prompt(frame_idx=0), prompt(frame_idx=4)])
    made = store.masklet(make(store, ANN, third, "third").ticket_id)
    assert (made.click_count, made.edited_frame_count) == (3, 2), "and no more frames than there are"


def test_a_masklet_made_again_by_another_is_compared_with_the_first(store, clock):
    again = sent_back_twice(store)
    clock.advance(store.policy.rework_s + 1)
    make(store, ANDY, claim(store, ANDY, ticket_id=again), "second")
    figures = {work.name: work for work in store.figures().people}
    assert figures["andy"].masklet_iou == 1.0 and figures["ann"].masklet_iou is None


def test_the_expected_time_follows_from_the_pace(store, clock):
    store.open_batch("b", tickets(10))
    assert store.figures().batches[0].expected_s is None
    for _ in range(3):
        clock.advance(10)
        finish(store, VERA, Verdict.ACCEPT)
    (batch,) = store.figures().batches
    assert (batch.open, batch.done, batch.per_hour) == (7, 3, 12.0)
    assert batch.expected_s == pytest.approx(7 * 300)


@pytest.mark.parametrize("analysed", [False, True])
def test_the_figures_read_no_whole_table(sqlite_uri, analysed):
    database = Database(sqlite_uri)
    store = Store(database)
    store.open_batch("b", tickets(40, frame_count=4))
    for _ in range(20):
        finish(store, VERA, Verdict.ACCEPT)
    if analysed:
        with database.write() as c:
            c.exec_driver_sql("ANALYZE")
    plans = []

    def explain(connection, cursor, statement, parameters, context, many):
        if statement.startswith("SELECT") and ("tickets" in statement or "leases" in statement):
            plans.extend(str(row) for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters))

    event.listen(database.engine, "before_cursor_execute", explain)
    store.figures()
    store.stats()
    read = [plan for plan in plans if "tickets" in plan]
    assert len(read) > 3
    assert not [plan for plan in read if "SCAN tickets" in plan and "tickets_gold" not in plan]
    assert not [plan for plan in read if not any(word in plan for word in ("tickets_gold", ">?", "ticket_id=?"))]
    assert [plan for plan in plans if "leases_lately" in plan] and not [plan for plan in plans if "SCAN leases" in plan]
    database.close()


def test_a_leads_decisions_and_take_backs_are_in_the_audit(store):
    store.open_batch("b", tickets(2))
    finish(store, VERA, Verdict.UNSURE)
    decided = claim(store, LEA, Kind.VERIFY, ticket_id=next(t.ticket_id for t in store.tickets() if t.needs_lead))
    store.finish(decided.ticket_id, decided.lease_token, LEA, outcome(Verdict.ACCEPT))
    take_back(store, decided.ticket_id, LEA)
    with store.database.read() as c:
        lines = c.execute(select(schema.audit.c.actor, schema.audit.c.action, schema.audit.c.subject)).all()
        assert c.scalar(select(func.count()).select_from(schema.audit)) == 2
    assert lines == [("lea", "decide", decided.ticket_id), ("lea", "unsubmit", decided.ticket_id)]


# --- a further object of a video that somebody corrects -----------------------------------------------------------


def begin_object(store, ticket, person=ANN, claim_id=None):
    return store.new_object(ticket.ticket_id, ticket.lease_token, person, claim_id=claim_id or new_id())


def test_who_may_not_correct_any_more_begins_no_further_object(store):
    store.open_batch("b", tickets(1, frame_count=8))
    held = to_track(store)
    with pytest.raises(NotAllowed, match="no role"):
        begin_object(store, held, replace(ANN, roles=VERA.roles))
    assert store.batch("b").total == 2
    assert store.finish(
        held.ticket_id, held.lease_token, replace(ANN, roles=VERA.roles), outcome(Verdict.REJECT, Reason.UNTRACKABLE)
    )


def test_a_further_object_is_a_ticket_of_its_own_in_the_same_hands(store):
    store.open_batch("b", tickets(1))
    held, claim_id = to_track(store), new_id()
    opened = begin_object(store, held, claim_id=claim_id)
    assert (opened.kind, opened.video_id, opened.batch_id) == (Kind.TRACK, held.video_id, "b")
    assert (opened.leased_by, opened.state, opened.masklet_id) == ("ann", State.LEASED, None)
    assert opened.ticket_id != held.ticket_id and store.ticket(held.ticket_id).leased_by == "ann", "both are held"
    assert begin_object(store, held, claim_id=claim_id) == opened, "the same request again opens nothing"
    assert store.claim(ANN, claim_id=claim_id) == opened, "as after a reload, which claims again what it held"
    assert (store.batch("b").total, store.batch("b").remaining) == (3, 2)
    verify = make(store, ANN, opened, "found")
    assert (verify.kind, verify.made_by) == (Kind.VERIFY, "ann")


def test_a_batch_waits_for_the_objects_that_were_begun_in_it(store):
    store.open_batch("b", tickets(1))
    held = to_track(store)
    opened = begin_object(store, held)
    store.finish(held.ticket_id, held.lease_token, ANN, outcome(Verdict.REJECT, Reason.UNTRACKABLE))
    assert not store.batch("b").drained
    store.finish(opened.ticket_id, opened.lease_token, ANN, outcome(Verdict.REJECT, Reason.OTHER))
    assert store.batch("b").drained and store.drained_batches() == ["b"]
    counted = [row for row in store.stats().counts if row.state is State.DONE]
    assert sum(row.tickets for row in counted) == 3 and not [r for r in store.stats().counts if r.state is State.OPEN]


def test_a_further_object_needs_a_ticket_to_correct_and_its_lease(store, clock):
    store.open_batch("b", tickets(2))
    looked_at = claim(store, VERA)
    with pytest.raises(NotAllowed, match="corrected or selected"):
        begin_object(store, looked_at, VERA)
    store.release(looked_at.ticket_id, looked_at.lease_token, VERA)
    held = to_track(store)
    with pytest.raises(NotAllowed, match="never held"):
        begin_object(store, held, ANDY)
    clock.now += store.lease_s + 1
    assert store.claim(ANDY, claim_id=new_id()).ticket_id == held.ticket_id
    with pytest.raises(LeaseLost):
        begin_object(store, held)
    assert store.batch("b").total == 3


def test_the_same_request_for_a_further_object_twice_at_once_opens_one(store):
    store.open_batch("b", tickets(1))
    held, claim_id, opened = to_track(store), new_id(), []

    def ask():
        opened.append(begin_object(store, held, claim_id=claim_id).ticket_id)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4 and len(set(opened)) == 1 and store.batch("b").total == 3


def test_a_video_takes_only_so_many_objects(store, monkeypatch):
    monkeypatch.setattr("annotation_queue.tickets.objects.MAX_OBJECTS", 3)
    store.open_batch("b", tickets(1))
    held = to_track(store)  # the second ticket of the video
    begin_object(store, held)
    with pytest.raises(NotAllowed, match="takes no further object"):
        begin_object(store, held)
