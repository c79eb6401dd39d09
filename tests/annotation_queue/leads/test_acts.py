"""What leads do to tickets: assign, take back, prioritise, reopen."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from sqlalchemy import select

from annotation_queue import schema
from annotation_queue.errors import NotAllowed, TakenBack, TooLate
from annotation_queue.leads.acts import Act, Action
from annotation_queue.leads.overseeing import Overseeing
from annotation_queue.people.accounts import Accounts
from annotation_queue.records import Kind, NewGold, Person, Reason, Role, State
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    AMY,
    ANDY,
    ANN,
    LEA,
    VERA,
    VICTOR,
    claim,
    finish,
    new_id,
    outcome,
    plans_of_claims,
    prompt,
    take_back,
    to_track,
    with_policy,
)
from tests.annotation_queue.synthetic_queue import candidate, track_ticket, verify_tickets


def act(tickets, action, *ticket_ids, by=LEA, act_id=None, **what):
    """The results of an act of Lea: for each ticket, whether it was done and what was said."""
    done = Overseeing(tickets).act(Act(act_id=act_id or new_id(), action=action, by=by, **what), ticket_ids)
    assert [result.ticket_id for result in done] == list(ticket_ids)
    return [(result.done, result.said) for result in done]


def column(tickets, ticket_id, name):
    with tickets.database.read() as c:
        return c.scalar(select(schema.tickets.c[name]).where(schema.tickets.c.ticket_id == ticket_id))


def audited(tickets, ticket_id):
    """(who, what, when) of each line of the audit about a ticket."""
    a = schema.audit
    with tickets.database.read() as c:
        return [tuple(row) for row in c.execute(select(a.c.actor, a.c.action, a.c.at).where(a.c.subject == ticket_id))]


# --- assigning -----------------------------------------------------------------------------------------------------


def test_only_the_person_that_a_ticket_is_assigned_to_may_claim_it(tickets, clock):
    tickets.open_batch("b", verify_tickets(1))
    assert act(tickets, Action.ASSIGN, "ticket-0000", to=VICTOR) == [(True, "assigned to victor")]
    clock.advance(1e7)
    assert claim(tickets, VERA) is None and claim(tickets, LEA) is None
    with pytest.raises(NotAllowed, match="lea assigned this ticket to victor: take it back first"):
        claim(tickets, LEA, ticket_id="ticket-0000")
    with pytest.raises(NotAllowed):
        claim(tickets, VERA, ticket_id="ticket-0000")
    assert claim(tickets, VICTOR).ticket_id == "ticket-0000"
    assert audited(tickets, "ticket-0000") == [("lea", "assign", clock.now - 1e7)]


def test_an_assigned_ticket_comes_before_all_others(tickets):
    tickets.open_batch("b", [*verify_tickets(3), *[replace(t, priority=9) for t in verify_tickets(2, prefix="high")]])
    act(tickets, Action.ASSIGN, "ticket-0002", to=VICTOR)
    assert claim(tickets, VICTOR).ticket_id == "ticket-0002"


def test_an_assignment_outlasts_a_lease(tickets, clock):
    tickets.open_batch("b", verify_tickets(1))
    act(tickets, Action.ASSIGN, "ticket-0000", to=VICTOR)
    held = claim(tickets, VICTOR)
    tickets.release(held.ticket_id, held.lease_token, VICTOR)
    assert claim(tickets, VERA) is None
    claim(tickets, VICTOR)
    clock.advance(1e4)
    assert claim(tickets, VERA) is None and claim(tickets, VICTOR) is not None


def test_a_ticket_that_is_taken_back_goes_to_anybody(tickets):
    tickets.open_batch("b", verify_tickets(2))
    act(tickets, Action.ASSIGN, "ticket-0000", "ticket-0001", to=VICTOR)
    held = claim(tickets, VICTOR)
    back = act(tickets, Action.TAKE_BACK, "ticket-0000", "ticket-0001")
    assert back == [(True, "taken back from victor")] * 2
    with pytest.raises(TakenBack):
        tickets.heartbeat(held.ticket_id, held.lease_token, VICTOR)
    assert {claim(tickets, VERA).ticket_id for _ in range(2)} == {"ticket-0000", "ticket-0001"}
    nobody = act(tickets, Action.TAKE_BACK, "nothing")
    assert nobody == [(False, "no ticket nothing")]


def test_a_ticket_that_is_done_is_not_taken_back(tickets):
    tickets.open_batch("b", verify_tickets(2))
    act(tickets, Action.ASSIGN, "ticket-0000", to=VICTOR)
    finish(tickets, VICTOR, Verdict.ACCEPT)
    assert act(tickets, Action.TAKE_BACK, "ticket-0000") == [(False, "it is done: nobody holds it")]


def test_assigning_a_ticket_that_another_person_holds_ends_their_lease_and_keeps_their_work(tickets):
    tickets.open_batch("b", [track_ticket()])
    held = claim(tickets, ANN)
    tickets.append_operations(held.ticket_id, held.lease_token, ANN, [prompt("p")])
    assert act(tickets, Action.ASSIGN, held.ticket_id, to=ANDY) == [(True, "assigned to andy, taken back from ann")]
    with pytest.raises(TakenBack, match="lea took this ticket back"):
        tickets.append_operations(held.ticket_id, held.lease_token, ANN, [prompt("late")])
    assert claim(tickets, ANN) is None and claim(tickets, ANDY).ticket_id == held.ticket_id
    assert [o.operation_id for o in tickets.operations(held.ticket_id)] == ["p"]


def test_assigning_a_ticket_to_its_holder_leaves_the_lease(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VICTOR)
    assert act(tickets, Action.ASSIGN, held.ticket_id, to=VICTOR) == [(True, "assigned to victor")]
    assert tickets.heartbeat(held.ticket_id, held.lease_token, VICTOR).leased_by == "victor"


@pytest.mark.parametrize(
    ("to", "why"),
    [
        (ANN, "ann has no role for verify tickets"),
        (Person(name="vera", roles=frozenset({Role.ADMIN})), "vera has no role for verify tickets"),
    ],
)
def test_a_ticket_is_not_assigned_to_a_person_who_may_not_hold_it(tickets, to, why):
    tickets.open_batch("b", verify_tickets(1))
    assert act(tickets, Action.ASSIGN, "ticket-0000", to=to) == [(False, why)]
    assert column(tickets, "ticket-0000", "reserved_for") is None


def test_a_ticket_is_not_assigned_to_its_maker_nor_to_a_person_who_answered_it(tickets):
    tickets = with_policy(tickets, overlap=2, overlap_share=1.0)
    tickets.open_batch("b", verify_tickets(1))
    finish(tickets, VERA, Verdict.ACCEPT)
    refused = act(tickets, Action.ASSIGN, "ticket-0000", to=VERA)
    assert refused == [(False, "vera has given an answer about this object already: another person must answer it")]
    assert act(tickets, Action.ASSIGN, "ticket-0000", to=VICTOR)[0][0]


def test_a_ticket_that_takes_more_answers_is_free_again_after_the_one_it_was_assigned_for(tickets):
    tickets = with_policy(tickets, overlap=2, overlap_share=1.0)
    tickets.open_batch("b", verify_tickets(1))
    act(tickets, Action.ASSIGN, "ticket-0000", to=VERA)
    finish(tickets, VERA, Verdict.ACCEPT)
    assert claim(tickets, VICTOR).ticket_id == "ticket-0000"


@pytest.mark.parametrize(
    "end",
    [
        lambda accounts: accounts.disable("vera"),
        lambda accounts: accounts.remove("vera"),
        lambda accounts: accounts.add("vera", [Role.ANNOTATOR]),
        lambda accounts: accounts.add("vera", [Role.VERIFIER], skills=["birds"]),
    ],
    ids=["disabled", "removed", "another role", "another skill"],
)
def test_what_is_assigned_to_a_person_who_can_no_longer_do_it_goes_to_anybody(tickets, end):
    victor = replace(VICTOR, skills=frozenset({"fish"}))
    accounts = Accounts(tickets.database)
    accounts.add("vera", [Role.VERIFIER], skills=["fish", "birds"])
    tickets.open_batch("b", [replace(each, skill="fish") for each in verify_tickets(2)])
    able = replace(VERA, skills=frozenset({"fish"}))
    act(tickets, Action.ASSIGN, "ticket-0000", "ticket-0001", to=able)
    held = claim(tickets, able)
    accounts.add("vera", [Role.VERIFIER, Role.ANNOTATOR], skills=["fish"])
    assert claim(tickets, victor) is None, "she may still work on it"
    end(accounts)
    assert claim(tickets, victor).ticket_id == "ticket-0001"
    assert audited(tickets, "ticket-0001")[-1][:2] == ("(operator)", "take back")
    tickets.release(held.ticket_id, held.lease_token, able)
    assert claim(tickets, victor).ticket_id == "ticket-0000"


def add_gold(tickets):
    [ticket] = verify_tickets(1, prefix="gold")
    tickets.add_gold("b", [NewGold(ticket=replace(ticket, masklet=candidate("g")), expected=Verdict.ACCEPT)], by=LEA)


def test_gold_is_dealt_to_a_person_with_assigned_tickets_too(tickets, clock):
    tickets.open_batch("b", verify_tickets(2))
    act(tickets, Action.PRIORITISE, "ticket-0000", "ticket-0001", priority=5)
    act(tickets, Action.ASSIGN, "ticket-0000", "ticket-0001", to=VERA)
    clock.advance(1)
    add_gold(tickets)
    golden = with_policy(tickets, gold_share=1.0)
    assert claim(golden, VERA).masklet_id == "g"
    assert claim(golden, VERA).ticket_id == "ticket-0000", "no gold is left for her"


def test_nothing_is_assigned_to_a_person_in_their_warm_up(tickets):
    tickets.open_batch("b", verify_tickets(1))
    add_gold(tickets)
    strict = with_policy(tickets, warmup_tickets=1)
    [(done, said)] = act(strict, Action.ASSIGN, "ticket-0000", to=VERA)
    assert not done and said == "vera has not passed the warm-up, so nothing can be assigned to them"


def test_claims_read_assigned_tickets_by_an_index_in_their_order(tickets):
    tickets.open_batch("b", verify_tickets(3))
    act(tickets, Action.ASSIGN, "ticket-0000", "ticket-0001", to=VERA)
    plans = plans_of_claims(tickets)
    assert claim(tickets, VERA).ticket_id == "ticket-0000"
    if tickets.database.is_sqlite:
        assert any("USING INDEX tickets_reserved (reserved_for=? AND kind=?)" in line for line in plans), plans


# --- priority ------------------------------------------------------------------------------------------------------


def test_a_ticket_with_a_higher_priority_is_handed_out_first(tickets, clock):
    tickets.open_batch("b", verify_tickets(3))
    assert act(tickets, Action.PRIORITISE, "ticket-0002", priority=5) == [(True, "priority 5, before 0")]
    assert act(tickets, Action.PRIORITISE, "ticket-0002", priority=5) == [(True, "it has the priority 5 already")]
    assert claim(tickets, VERA).ticket_id == "ticket-0002"
    assert audited(tickets, "ticket-0002") == [("lea", "prioritise", clock.now)]


def test_the_successor_of_a_ticket_has_its_priority(tickets):
    tickets.open_batch("b", verify_tickets(1))
    act(tickets, Action.PRIORITISE, "ticket-0000", priority=7)
    assert to_track(tickets).priority == 7


@pytest.mark.parametrize("priority", [None, 1001, -1001])
def test_an_impossible_priority_is_refused_before_any_ticket(tickets, priority):
    with pytest.raises(ValueError, match="a priority is between"):
        act(tickets, Action.PRIORITISE, "ticket-0000", priority=priority)


# --- reopening -----------------------------------------------------------------------------------------------------


def settled(tickets, verdict=Verdict.ACCEPT, *reasons):
    """A batch of two tickets, the first one settled by Vera."""
    tickets.open_batch("b", verify_tickets(2))
    finish(tickets, VERA, verdict, *reasons)
    return "ticket-0000"


@pytest.mark.parametrize("kind", [None, Kind.VERIFY, Kind.TRACK])
def test_a_reopened_ticket_gets_a_successor_and_its_decision_no_longer_stands(tickets, clock, kind):
    ticket_id = settled(tickets)
    clock.advance(5)
    assert [s.ticket_id for s in tickets.batch_result("b").settled] == [ticket_id]
    [(done, said)] = act(tickets, Action.REOPEN, ticket_id, kind=kind)
    before, batch = tickets.ticket(ticket_id), tickets.batch("b")
    follower = tickets.ticket(before.next_ticket_id)
    assert done and follower.ticket_id in said and "it was settled with accept" in said
    assert (follower.kind, follower.state, follower.masklet_id) == (kind or Kind.VERIFY, State.OPEN, before.masklet_id)
    assert (batch.total, batch.remaining) == (3, 2)
    assert tickets.batch_result("b").settled == ()
    assert (before.verdict, before.finished_by, before.state) == (Verdict.ACCEPT, "vera", State.DONE), "it stays"
    assert audited(tickets, ticket_id)[-1] == ("lea", "reopen", clock.now)
    pinned = json.loads(follower.payload).get("pinned")
    assert pinned is None if kind is not Kind.TRACK else pinned["by"] == "lea"


def test_a_reopened_ticket_points_to_a_frame(tickets):
    ticket_id = settled(tickets)
    act(tickets, Action.REOPEN, ticket_id, kind=Kind.TRACK, frame_idx=24)
    follower = tickets.ticket(tickets.ticket(ticket_id).next_ticket_id)
    assert json.loads(follower.payload)["pinned"]["frame_idx"] == 24


def test_the_second_decision_on_a_reopened_ticket_is_the_one_that_counts(tickets):
    ticket_id = settled(tickets)
    act(tickets, Action.REOPEN, ticket_id)
    follower_id = tickets.ticket(ticket_id).next_ticket_id
    act(tickets, Action.ASSIGN, follower_id, to=VICTOR)
    finish(tickets, VICTOR, Verdict.REJECT, Reason.DUPLICATE)
    finish(tickets, VERA, Verdict.ACCEPT)
    assert tickets.batch("b").drained
    decided = {s.ticket_id: s.verdict for s in tickets.batch_result("b").settled}
    assert decided == {follower_id: Verdict.REJECT, "ticket-0001": Verdict.ACCEPT}


def test_a_reopened_verdict_is_given_by_another_verifier_and_is_no_second_first_review(tickets):
    ticket_id = settled(tickets)
    before = tickets.figures().total.first_pass
    act(tickets, Action.REOPEN, ticket_id)
    assert claim(tickets, VERA).ticket_id == "ticket-0001", "hers was doubted"
    assert finish(tickets, VICTOR, Verdict.ACCEPT).ticket.previous_ticket_id == ticket_id
    assert tickets.figures().total.first_pass == before


def test_nothing_of_a_batch_that_went_to_the_pipeline_is_reopened(tickets):
    tickets.open_batch("b", verify_tickets(1))
    finish(tickets, VERA, Verdict.ACCEPT)
    assert tickets.batch("b").drained
    [(done, said)] = act(tickets, Action.REOPEN, "ticket-0000")
    assert not done and "in batch b went to the pipeline" in said and "what is published is never changed" in said
    assert tickets.ticket("ticket-0000").next_ticket_id is None and tickets.batch("b").remaining == 0
    assert [s.verdict for s in tickets.batch_result("b").settled] == [Verdict.ACCEPT]


def test_only_a_settled_ticket_is_reopened_and_only_as_a_kind_that_fits(tickets):
    tickets.open_batch("b", [*verify_tickets(1), track_ticket()])
    [(done, said)] = act(tickets, Action.REOPEN, "ticket-0000")
    assert not done and said == "it is not settled, it is still to be done"
    held = claim(tickets, ANN)
    tickets.finish(held.ticket_id, held.lease_token, ANN, outcome(Verdict.REJECT, Reason.UNTRACKABLE))
    [(done, said)] = act(tickets, Action.REOPEN, held.ticket_id, kind=Kind.VERIFY)
    assert not done and said == "a settled track ticket is reopened as track, not as verify"
    assert act(tickets, Action.REOPEN, held.ticket_id)[0][0]
    [(done, said)] = act(tickets, Action.REOPEN, held.ticket_id)
    assert not done and "it is not settled: ticket" in said


def test_an_answer_cannot_be_taken_back_once_a_lead_has_reopened_or_given_away_what_followed(tickets):
    ticket_id = settled(tickets)
    act(tickets, Action.REOPEN, ticket_id)
    with pytest.raises(TooLate, match="a lead has decided"):
        take_back(tickets, ticket_id, VERA)
    finish(tickets, VERA, Verdict.REFINE)
    done = next(t for t in tickets.find(state=State.DONE) if t.verdict is Verdict.REFINE)
    act(tickets, Action.ASSIGN, done.next_ticket_id, to=AMY)
    with pytest.raises(TooLate, match="a lead has decided"):
        take_back(tickets, done.ticket_id, VERA)


def test_an_answer_cannot_be_taken_back_once_a_lead_has_done_something_to_the_ticket_that_follows(tickets):
    tickets.open_batch("b", verify_tickets(1))
    first = finish(tickets, VERA, Verdict.REFINE)
    act(tickets, Action.PRIORITISE, first.next_ticket_id, priority=5)
    with pytest.raises(TooLate, match="another priority"):
        take_back(tickets, first.ticket.ticket_id, VERA)


def test_a_vote_cannot_be_taken_back_once_the_ticket_is_assigned_to_another_person(tickets):
    tickets = with_policy(tickets, overlap=2, overlap_share=1.0)
    tickets.open_batch("b", verify_tickets(1))
    finish(tickets, VERA, Verdict.ACCEPT)
    act(tickets, Action.ASSIGN, "ticket-0000", to=VICTOR)
    with pytest.raises(TooLate, match="given this ticket to another person"):
        take_back(tickets, "ticket-0000", VERA)
    assert claim(tickets, VICTOR).ticket_id == "ticket-0000"


# --- many tickets, and the same act twice ----------------------------------------------------------------------------


def test_one_refusal_does_not_stop_the_others(tickets):
    tickets.open_batch("b", verify_tickets(3))
    finish(tickets, VERA, Verdict.ACCEPT)
    done = act(tickets, Action.ASSIGN, "ticket-0000", "ticket-0001", "nothing", "ticket-0002", to=VICTOR)
    assert [result for result, _ in done] == [False, True, False, True]
    assert done[0][1] == "it is done: reopen it first" and done[2][1] == "no ticket nothing"


@pytest.mark.parametrize(
    ("action", "what"),
    [
        (Action.ASSIGN, {"to": VICTOR}),
        (Action.PRIORITISE, {"priority": 3}),
        (Action.TAKE_BACK, {}),
        (Action.REOPEN, {}),
    ],
)
def test_the_same_act_again_gives_the_same_answer_and_changes_nothing(tickets, clock, action, what):
    ticket_id = settled(tickets) if action is Action.REOPEN else "ticket-0000"
    if action is not Action.REOPEN:
        tickets.open_batch("b", verify_tickets(1))
    if action is Action.TAKE_BACK:
        claim(tickets, VERA)
    first = act(tickets, action, ticket_id, act_id="a", **what)
    clock.advance(3)
    lines = audited(tickets, ticket_id)
    assert first[0][0] and act(tickets, action, ticket_id, act_id="a", **what) == first
    assert audited(tickets, ticket_id) == lines
    if action is Action.TAKE_BACK:  # also after another person has claimed it
        claim(tickets, VICTOR)
        assert act(tickets, action, ticket_id, act_id="a") == first
        assert tickets.ticket(ticket_id).leased_by == "victor"


def test_acts_on_gold_are_refused_apart_from_taking_it_back(tickets):
    tickets = with_policy(tickets, gold_share=1.0)
    tickets.open_batch("b", verify_tickets(1))
    add_gold(tickets)
    held = claim(tickets, VERA)
    for action, what in ((Action.ASSIGN, {"to": VICTOR}), (Action.PRIORITISE, {"priority": 1}), (Action.REOPEN, {})):
        [(done, said)] = act(tickets, action, held.ticket_id, **what)
        assert not done and "gold" in said
    assert act(tickets, Action.TAKE_BACK, held.ticket_id) == [(True, "taken back from vera")]
    assert column(tickets, held.ticket_id, "reserved_for") == "vera", "it stays the copy of one person"


# --- races ---------------------------------------------------------------------------------------------------------


@pytest.mark.server
def test_a_ticket_that_is_assigned_while_others_claim_it_ends_with_one_holder_who_may_have_it(tickets):
    rounds = 12
    tickets.open_batch("b", verify_tickets(rounds, frame_count=4))
    for _ in range(rounds):
        together, got = threading.Barrier(3), []
        target = next(t.ticket_id for t in tickets.find(kind=Kind.VERIFY, state=State.OPEN))

        def take(person=VERA, together=together, got=got):
            together.wait()
            got.append(claim(tickets, person))

        def give(together=together, target=target):
            together.wait()
            assert act(tickets, Action.ASSIGN, target, to=VICTOR)[0][0]

        threads = [threading.Thread(target=run) for run in (take, take, give)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        now = tickets.ticket(target)
        assert column(tickets, target, "reserved_for") == "victor"
        assert now.state is State.OPEN, "whoever claimed it first has lost it"
        for held in got:
            if held is not None and held.ticket_id == target:
                with pytest.raises(TakenBack):
                    tickets.heartbeat(target, held.lease_token, VERA)
            elif held is not None:
                tickets.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.ACCEPT))
        mine = claim(tickets, VICTOR)
        assert mine.ticket_id == target
        tickets.finish(target, mine.lease_token, VICTOR, outcome(Verdict.ACCEPT))
        if not tickets.find(kind=Kind.VERIFY, state=State.OPEN):
            break
