"""Claims and leases: who gets which ticket and for how long, on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from sqlalchemy import insert, select

from annotation_queue import schema
from annotation_queue.errors import (
    LeaseLost,
    NoSuchTicket,
    NotAllowed,
)
from annotation_queue.records import Kind, NewTicket, Person, Role, State
from annotation_queue.rules import HANDED_OUT, kinds_of, lane_of, why_not
from annotation_queue.tickets import claims
from annotation_queue.tickets.store import GRACE_S, TicketStore
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
from tests.annotation_queue.synthetic_queue import candidate, verify_tickets

ROLES = [{Role.ANNOTATOR}, {Role.VERIFIER}, {Role.ANNOTATOR, Role.VERIFIER}, {Role.LEAD}, {Role.PIPELINE, Role.ADMIN}]


def test_a_claim_by_id_gets_exactly_the_tickets_that_the_rules_permit(tickets):
    """The same rules exist as SQL (`claims`) and as a function (`rules.why_not`): every combination agrees."""
    tickets.open_batch("b", verify_tickets(1, frame_count=4))
    kinds, names = list(Kind), (None, "vera", "victor")
    combinations = itertools.product(kinds, names, names, (False, True), (None, "hands", "hair"))
    with tickets.database.write() as c:
        plain = dict(c.execute(select(schema.tickets)).one()._mapping)
        for n, (kind, made_by, sent_back_by, needs_lead, skill) in enumerate(combinations):
            lane = lane_of(needs_lead=needs_lead, skill=skill, project="")
            changed = {"ticket_id": f"t{n}", "kind": kind.value, "needs_lead": needs_lead, "skill": skill, "lane": lane}
            people = {"made_by": made_by, "sent_back_by": sent_back_by}
            c.execute(insert(schema.tickets).values(plain | changed | people))
    every = tickets.find(limit=500)
    assert len(every) == 3 * 3 * 3 * 2 * 3 + 1
    for roles in ROLES:
        vera = Person(name="vera", roles=frozenset(roles), skills=frozenset({"hands"}))
        permitted = {ticket.ticket_id for ticket in every if why_not(vera, ticket) is None}
        assert {ticket.ticket_id for ticket in every if _gets(tickets, vera, ticket.ticket_id)} == permitted


def _gets(tickets, person, ticket_id):
    """Whether a claim for this ticket leases it; the lease is rolled back."""
    allowed = tuple(kind for kind in HANDED_OUT if kind in kinds_of(person.roles))
    with tickets.database.engine.connect() as c:
        try:
            asked = claims.asked(person, allowed, claim_id="c", ticket_id=ticket_id)
            row, _ = claims.claim(c, tickets.policy, asked, 0.0, 90.0)
        except NotAllowed:
            return False
        finally:
            c.rollback()
    return row is not None


def test_claims_follow_the_priority_and_then_the_order_of_the_batch(tickets):
    first, second, urgent = verify_tickets(3)
    tickets.open_batch("b", [first, second, replace(urgent, priority=5)])
    order = [claim(tickets, VERA).ticket_id for _ in range(3)]
    assert order == [urgent.ticket_id, first.ticket_id, second.ticket_id]
    assert claim(tickets, VERA) is None


def test_a_repeated_claim_id_gives_the_same_ticket(tickets):
    tickets.open_batch("b", verify_tickets(2))
    first = tickets.claim(VERA, claim_id="c")
    assert tickets.claim(VERA, claim_id="c") == first
    assert claim(tickets, VERA).ticket_id != first.ticket_id


def test_repeating_a_claim_after_its_lease_ended_raises_lease_lost(tickets, clock):
    tickets.open_batch("b", verify_tickets(1))
    tickets.claim(VERA, claim_id="c")
    clock.advance(91)
    claim(tickets, VICTOR)
    with pytest.raises(LeaseLost):
        tickets.claim(VERA, claim_id="c")


def test_a_claim_gives_kinds_that_the_roles_permit_in_the_requested_order(tickets):
    tickets.open_batch(
        "b", [*verify_tickets(1), NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")]
    )
    with pytest.raises(NotAllowed):
        claim(tickets, ANN, Kind.VERIFY)
    with pytest.raises(NotAllowed):
        claim(tickets, Person(name="pipeline", roles=frozenset({Role.PIPELINE})))
    assert claim(tickets, LEA, Kind.TRACK, Kind.VERIFY).kind is Kind.TRACK
    assert claim(tickets, LEA, Kind.TRACK, Kind.VERIFY).kind is Kind.VERIFY


def test_a_claim_may_name_a_ticket_or_a_batch(tickets):
    tickets.open_batch("b", verify_tickets(2))
    tickets.open_batch("c", verify_tickets(1, prefix="other"))
    assert claim(tickets, VERA, ticket_id="ticket-0001").ticket_id == "ticket-0001"
    assert claim(tickets, LEA, ticket_id="ticket-0001") is None
    assert claim(tickets, VERA, batch_id="c").ticket_id == "other-0000"
    for who, ticket_id in ((VICTOR, "ticket-0001"), (ANN, "ticket-0000"), (VERA, "nothing-here")):
        with pytest.raises(
            NotAllowed, match=f"cannot have ticket {ticket_id}"
        ):  # leased, of a kind that they may not hold, unknown
            claim(tickets, who, ticket_id=ticket_id)
    with pytest.raises(NoSuchTicket):
        claim(tickets, LEA, ticket_id="nothing-here")


def test_a_lease_expires_90_s_after_its_last_heartbeat(tickets, clock):
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    for _ in range(5):
        clock.advance(89)
        assert claim(tickets, VICTOR) is None
        assert tickets.heartbeat(held.ticket_id, held.lease_token, VERA).expires_at == clock() + 90
    clock.advance(91)
    taken = claim(tickets, VICTOR)
    assert (taken.ticket_id, taken.lease_token) == (held.ticket_id, held.lease_token + 1)
    with pytest.raises(LeaseLost):
        tickets.heartbeat(held.ticket_id, held.lease_token, VERA)


def test_an_expired_lease_can_still_finish_its_ticket_if_nobody_claimed_since(tickets, clock):
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    clock.advance(3600)
    assert tickets.finish(held.ticket_id, held.lease_token, VERA, outcome(Verdict.ACCEPT)).settled is Verdict.ACCEPT


def test_a_restarted_server_ends_no_lease_during_its_grace_period(tickets, clock):
    tickets.open_batch("b", verify_tickets(2))
    stays, goes = claim(tickets, VERA), claim(tickets, VERA)
    clock.advance(1000)
    again = TicketStore(tickets.database, clock=clock, grace_s=GRACE_S)
    assert claim(again, VICTOR) is None
    clock.advance(GRACE_S - 1)
    assert claim(again, VICTOR) is None
    again.heartbeat(stays.ticket_id, stays.lease_token, VERA)
    clock.advance(1)
    assert claim(again, VICTOR).ticket_id == goes.ticket_id and claim(again, VICTOR) is None


def test_a_released_ticket_is_open_and_a_second_release_changes_nothing(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    for _ in range(2):
        assert tickets.release(held.ticket_id, held.lease_token, VERA).state is State.OPEN
    assert claim(tickets, VICTOR).lease_token == held.lease_token + 1
    with pytest.raises(LeaseLost):
        tickets.release(held.ticket_id, held.lease_token, VERA)


def test_a_person_who_never_held_the_token_is_rejected_and_nothing_is_stored(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held = claim(tickets, VERA)
    for token, person in [(held.lease_token, VICTOR), (held.lease_token + 1, VERA), (0, VERA)]:
        for act in (
            lambda t=token, p=person: tickets.heartbeat(held.ticket_id, t, p),
            lambda t=token, p=person: tickets.release(held.ticket_id, t, p),
            lambda t=token, p=person: tickets.finish(held.ticket_id, t, p, outcome(Verdict.ACCEPT)),
        ):
            with pytest.raises(NotAllowed):
                act()
    elsewhere = candidate("elsewhere", "video-9", 8)  # an error about the content would reveal what the ticket is about
    with pytest.raises(NotAllowed, match="never held"):
        tickets.finish(held.ticket_id, held.lease_token, ANN, outcome(masklet=elsewhere))
    for acts in ([replace(prompt(), kind="stroke")], []):
        with pytest.raises(NotAllowed, match="never held"):
            tickets.append_operations(held.ticket_id, held.lease_token, VICTOR, acts)
    assert tickets.operations(held.ticket_id, branch=True) == []
    assert tickets.ticket(held.ticket_id) == held


def test_a_lead_can_end_a_lease_and_its_operations_stay(tickets):
    tickets.open_batch("b", verify_tickets(1))
    held = to_track(tickets)
    act = prompt()
    tickets.append_operations(held.ticket_id, held.lease_token, ANN, [act])
    assert tickets.end_lease(held.ticket_id, held.lease_token, by=LEA).state is State.OPEN
    assert tickets.end_lease(held.ticket_id, held.lease_token, by=LEA).state is State.OPEN
    with pytest.raises(LeaseLost):
        tickets.heartbeat(held.ticket_id, held.lease_token, ANN)
    taken = claim(tickets, LEA, Kind.TRACK)
    assert [o.operation_id for o in tickets.operations(taken.ticket_id)] == [act.operation_id]
    assert tickets.end_lease(held.ticket_id, held.lease_token, by=LEA) == taken, "it is another lease now"
    with tickets.database.read() as c:
        lines = c.execute(
            select(schema.audit.c.actor, schema.audit.c.action, schema.audit.c.subject, schema.audit.c.detail)
        ).all()
    assert lines == [("lea", "end lease", held.ticket_id, '{"held_by": "ann"}')]
    with pytest.raises(NoSuchTicket):
        tickets.end_lease("nothing-here", 1, by=LEA)


def test_a_claim_reads_an_index_and_not_the_whole_table(tickets):
    """The plan of the claim's query, on a queue of which most is done."""
    tickets.open_batch("b", verify_tickets(1, frame_count=4))
    rows = [{"ticket_id": f"x{i}", "kind": "verify", "state": "done", "ordinal": i} for i in range(3000)]
    same = {"batch_id": "b", "video_id": "v", "phase": "auto", "priority": 0, "payload": "{}", "needs_lead": False}
    same |= {"attempt": 1, "created_at": 0.0, "lease_token": 0, "reasons": ""}
    with tickets.database.write() as c:
        c.execute(schema.tickets.insert(), [row | same for row in rows])
        if not tickets.database.is_sqlite:
            c.exec_driver_sql("ANALYZE tickets")
    plans = plans_of_claims(tickets)
    assert claim(tickets, VERA, Kind.VERIFY).ticket_id == "ticket-0000"
    assert any("tickets_ready" in line for line in plans), plans
    assert not any("Seq Scan on tickets" in line or "SCAN tickets'" in line for line in plans), plans


def test_a_ticket_with_a_skill_goes_to_a_person_with_that_skill(tickets):
    plain, birds = verify_tickets(2)
    tickets.open_batch("b", [replace(birds, skill="birds", priority=3), plain])
    assert claim(tickets, VERA).ticket_id == plain.ticket_id
    assert claim(tickets, VERA) is None
    with pytest.raises(NotAllowed):
        claim(tickets, VERA, ticket_id=birds.ticket_id)
    knows = replace(VICTOR, skills=frozenset({"birds", "fish"}))
    assert claim(tickets, knows).ticket_id == birds.ticket_id


def test_a_claim_takes_the_highest_priority_of_all_lanes(tickets):
    low, high, middle = verify_tickets(3)
    tickets.open_batch(
        "b", [replace(low, priority=1), replace(high, priority=3, skill="birds"), replace(middle, priority=2)]
    )
    knows = replace(VICTOR, skills=frozenset({"birds"}))
    assert [claim(tickets, knows).ticket_id for _ in range(3)] == [high.ticket_id, middle.ticket_id, low.ticket_id]


def test_the_next_ticket_keeps_the_skill_and_a_lead_decides_without_it(tickets):
    tickets.open_batch("b", [replace(verify_tickets(1)[0], skill="birds")])
    knows = replace(VERA, skills=frozenset({"birds"}))
    follower = tickets.ticket(finish(tickets, knows, Verdict.UNSURE).next_ticket_id)
    assert follower.skill == "birds" and claim(tickets, knows) is None
    assert finish(tickets, LEA, Verdict.ACCEPT).settled is Verdict.ACCEPT


@pytest.mark.parametrize("kind", [Kind.TRACK, Kind.VERIFY])
def test_a_claim_looks_up_earlier_answers_by_ticket_and_not_by_person(tickets, kind):
    rows = [{"ticket_id": f"x{i}", "state": "open" if i < 9 else "done", "ordinal": i} for i in range(3000)]
    same = {"batch_id": "b", "video_id": "v", "phase": "auto", "priority": 0, "payload": "{}", "needs_lead": False}
    same |= {"attempt": 1, "created_at": 0.0, "lease_token": 1, "reasons": "", "overlap": 2, "kind": kind.value}
    ended = {"token": 1, "person": "vera", "claimed_at": 0.0, "finished_at": 1.0}
    with tickets.database.write() as c:
        objects = [{"object_id": f"o{i % 1000}"} if kind is Kind.TRACK else {} for i in range(3000)]
        c.execute(insert(schema.tickets), [same | row | about for row, about in zip(rows, objects, strict=True)])
        done = [row for row in rows if row["state"] == "done"]
        c.execute(
            insert(schema.leases), [ended | {"ticket_id": r["ticket_id"], "claim_id": r["ticket_id"]} for r in done]
        )
        if not tickets.database.is_sqlite:
            c.exec_driver_sql("ANALYZE tickets, leases")
    plans = plans_of_claims(tickets)
    both = replace(VERA, roles=VERA.roles | ANN.roles)
    assert (claim(tickets, both, kind) is None) == (kind is Kind.TRACK)
    assert any("leases" in line for line in plans), plans
    assert not any("leases_finished" in line or "Seq Scan on leases" in line for line in plans), plans
