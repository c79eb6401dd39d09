"""Several projects in one queue: people get and see the tickets of theirs alone, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from annotation_queue import projects
from annotation_queue.errors import LeaseLost, NoSuchBatch, NoSuchOntology, NoSuchTicket, NotAllowed
from annotation_queue.leads.acts import Act, Action
from annotation_queue.leads.browsing import Order, Wanted
from annotation_queue.leads.overseeing import Overseeing
from annotation_queue.projects import Projects
from annotation_queue.records import Kind, NewGold, NewTicket, Person, Reason, Role, State
from annotation_queue.tickets.ontologies import Ontologies
from storage.ontology import ObjectClass, Ontology
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    ANDY,
    ANN,
    LEA,
    VERA,
    VICTOR,
    claim,
    finish,
    make,
    new_id,
    outcome,
    plans_of_claims,
    prompt,
    with_policy,
)
from tests.annotation_queue.synthetic_queue import verify_tickets

MEMBERS = Projects(
    {
        "cats": frozenset({"vera", "ann", "lea"}),
        "dogs": frozenset({"victor", "vera", "andy"}),
        "open": frozenset[str](),
    }
)
VERA, VICTOR, ANN, LEA = (MEMBERS.of(person) for person in (VERA, VICTOR, ANN, LEA))
ADMIN = MEMBERS.of(Person(name="boss", roles=frozenset({Role.ADMIN, Role.LEAD})))


def open_all(tickets, count=2, *names):
    for name in names or ("cats", "dogs"):
        tickets.open_batch(f"b-{name}", verify_tickets(count, frame_count=8, prefix=name), project=name)


def test_people_belong_to_the_projects_that_name_them_and_to_those_that_name_nobody():
    assert VERA.projects == frozenset({"", "cats", "dogs", "open"})
    assert VICTOR.projects == frozenset({"", "dogs", "open"})
    assert MEMBERS.names_of(VICTOR) == ("dogs", "open")
    assert ADMIN.projects is None and MEMBERS.names_of(ADMIN) == ("cats", "dogs", "open")
    stranger = Person(name="x", roles=frozenset({Role.VERIFIER}))
    assert Projects().of(stranger).projects is None, "without projects everybody gets everything"
    assert MEMBERS.of(stranger).projects == frozenset({"", "open"})


def test_a_claim_gives_only_tickets_of_ones_projects_and_the_tickets_name_theirs(tickets):
    open_all(tickets, 1)
    assert claim(tickets, VICTOR).project == "dogs"
    assert claim(tickets, VICTOR) is None
    with pytest.raises(NotAllowed):
        claim(tickets, VICTOR, ticket_id="cats-0000")
    with pytest.raises(NoSuchTicket):
        claim(tickets, LEA, ticket_id="dogs-0000")
    assert claim(tickets, LEA).project == "cats"


def test_no_project_starves_another_whatever_their_priorities_and_age(tickets):
    many = [replace(ticket, priority=9) for ticket in verify_tickets(6, frame_count=8, prefix="cats")]
    tickets.open_batch("b-cats", many, project="cats")
    open_all(tickets, 3, "dogs", "open")
    tickets.open_batch("plain", verify_tickets(3, frame_count=8))
    done = []
    for _ in range(12):
        done.append(finish(tickets, VERA, Verdict.ACCEPT).ticket.project)
    assert done == [*("", "cats", "dogs", "open") * 3]
    assert [finish(tickets, VERA, Verdict.ACCEPT).ticket.project for _ in range(3)] == ["cats"] * 3


def test_a_person_may_choose_one_of_their_projects(tickets):
    open_all(tickets, 2)
    assert [claim(tickets, VERA, project="dogs").project for _ in range(2)] == ["dogs", "dogs"]
    assert claim(tickets, VERA, project="dogs") is None
    with pytest.raises(NotAllowed):
        claim(tickets, VICTOR, project="cats")


def test_whoever_belongs_to_all_projects_gets_the_tickets_of_all(tickets):
    open_all(tickets, 1)
    assert {claim(tickets, ADMIN).project for _ in range(2)} == {"cats", "dogs"}


def test_all_tickets_that_follow_are_of_the_same_project(tickets):
    open_all(tickets, 1, "cats")
    finish(tickets, VERA, Verdict.REFINE)
    track = claim(tickets, ANN)
    other = tickets.new_object(track.ticket_id, track.lease_token, ANN, claim_id=new_id())
    verify = make(tickets, ANN, track, "made")
    assert {track.project, other.project, verify.project} == {"cats"}
    assert claim(tickets, VICTOR) is None
    unsure = finish(tickets, LEA, Verdict.UNSURE, kind=Kind.VERIFY)
    with pytest.raises(NotAllowed):
        claim(tickets, VICTOR, ticket_id=unsure.next_ticket_id)
    assert claim(tickets, LEA).project == "cats"


def test_whoever_left_a_project_reads_the_ontology_of_the_ticket_that_they_hold_and_then_no_longer(tickets):
    known = Ontologies(tickets.database, tickets.clock)
    version = known.add(Ontology(classes=(ObjectClass(name="cat"),)))
    (ticket,) = verify_tickets(1, frame_count=8)
    tickets.open_batch("b", [replace(ticket, payload=json.dumps({"ontology": version}))], project="cats")
    left = projects.within(VERA, "open")
    assert known.get(version, seen_by=VERA) == known.get(version, seen_by=ADMIN)
    with pytest.raises(NoSuchOntology):
        known.get(version, seen_by=left)
    held = claim(tickets, VERA)
    assert known.get(version, seen_by=left).version == version
    tickets.release(held.ticket_id, held.lease_token, VERA)
    with pytest.raises(NoSuchOntology):
        known.get(version, seen_by=left)


def test_rework_is_not_kept_for_a_person_who_left_the_project(tickets):
    open_all(tickets, 1, "cats")
    finish(tickets, VERA, Verdict.REFINE)
    make(tickets, ANN, claim(tickets, ANN), "made")
    finish(tickets, LEA, Verdict.REFINE, kind=Kind.VERIFY)
    assert tickets.find(state=State.OPEN)[0].rework
    elsewhere = projects.within(ANN, "open")
    assert claim(tickets, elsewhere) is None
    assert claim(tickets, ANN) is not None


def test_a_batch_has_its_project_for_ever(tickets):
    open_all(tickets, 1, "cats")
    open_all(tickets, 1, "cats")
    assert tickets.batch("b-cats").project == "cats"
    for other in ("dogs", ""):
        with pytest.raises(ValueError, match="is of the project 'cats'"):
            tickets.open_batch("b-cats", project=other)
    with pytest.raises(ValueError, match="the name of a project"):
        tickets.open_batch("b-x", project="Cats/..")


def test_people_see_nothing_of_another_project(tickets):
    open_all(tickets, 2)
    held = claim(tickets, VICTOR)
    for ticket_id in ("dogs-0000", "dogs-0001"):
        assert not tickets.may_see(LEA, ticket_id) and not tickets.may_see(ANN, ticket_id)
        assert tickets.may_see(ADMIN, ticket_id)
    assert tickets.may_see(LEA, "cats-0001") and tickets.may_see(VICTOR, held.ticket_id)
    assert {t.project for t in tickets.find(seen_by=LEA)} == {"cats"}
    assert [b.batch_id for b in tickets.batches(seen_by=LEA)] == ["b-cats"]
    with pytest.raises(NoSuchBatch):
        tickets.batch("b-dogs", seen_by=LEA)
    every = Overseeing(tickets)
    assert {card.ticket.project for card in every.page(Wanted(projects=LEA.projects)).cards} == {"cats"}
    with pytest.raises(NoSuchTicket):
        every.history("dogs-0000", seen_by=LEA)
    with pytest.raises(NoSuchTicket):
        tickets.end_lease(held.ticket_id, held.lease_token, by=LEA)
    (refused,) = every.act(Act(act_id="a", action=Action.PRIORITISE, by=LEA, priority=3), ["dogs-0001"])
    assert not refused.done and tickets.ticket("dogs-0001").priority == 0


def test_a_video_is_seen_by_the_people_of_its_project_alone(tickets):
    mine, other = verify_tickets(2, frame_count=8)
    tickets.open_batch("b-cats", [mine], project="cats")
    tickets.open_batch("b-dogs", [other], project="dogs")
    assert tickets.may_see_video(LEA, mine.video_id) and not tickets.may_see_video(LEA, other.video_id)
    finish(tickets, VICTOR, Verdict.ACCEPT)
    assert tickets.may_see_video(VICTOR, other.video_id)
    left = projects.within(VICTOR, "open")
    assert not tickets.may_see_video(left, other.video_id) and not tickets.may_see(left, other.ticket_id)
    assert tickets.recent(VICTOR) and not tickets.recent(left)


def test_work_that_is_kept_is_seen_by_leads_of_its_project_alone(tickets, clock):
    open_all(tickets, 1, "dogs")
    finish(tickets, VERA, Verdict.REFINE)
    andy = MEMBERS.of(ANDY)
    held = claim(tickets, andy)
    clock.advance(91)
    claim(tickets, ADMIN)
    with pytest.raises(LeaseLost):
        tickets.append_operations(held.ticket_id, held.lease_token, andy, [prompt("late")])
    every = Overseeing(tickets)
    assert every.kept(seen_by=LEA) == [] and tickets.branches(seen_by=LEA) == []
    assert every.close_kept(LEA, ["late"], applied=False) == 0
    assert [o.operation_id for o in every.kept(seen_by=ADMIN)] == ["late"] and len(tickets.branches()) == 1
    assert every.close_kept(ADMIN, ["late"], applied=False) == 1


def test_figures_count_the_work_of_ones_projects(tickets):
    open_all(tickets, 2)
    finish(tickets, VICTOR, Verdict.REJECT, Reason.DRIFT)
    finish(tickets, VERA, Verdict.ACCEPT)
    cats = tickets.figures(LEA.projects)
    assert [(work.name, work.answers) for work in cats.people] == [("vera", 1)] and cats.total.answers == 1
    assert {batch.batch_id for batch in cats.batches} == {"b-cats"}
    assert {each.person for each in cats.judging} == {"vera"}
    assert [pace.person for pace in tickets.stats(LEA.projects).paces] == ["vera"]
    assert sum(count.tickets for count in tickets.stats(LEA.projects).counts) == 2
    whole = tickets.figures()
    assert [(work.name, work.answers) for work in whole.projects] == [("cats", 1), ("dogs", 1)]
    assert whole.total.answers == 2 and len(whole.people) == 2


def gold_of(name):
    (ticket,) = verify_tickets(1, frame_count=8, prefix=f"gold-{name}")
    return NewGold(ticket=ticket, expected=Verdict.ACCEPT)


def test_gold_is_dealt_to_the_people_of_its_project_as_work_of_it(tickets):
    open_all(tickets, 1)
    tickets.add_gold("b-cats", [gold_of("cats")], by=ADMIN)
    with pytest.raises(NoSuchBatch):
        tickets.add_gold("b-dogs", [gold_of("dogs")], by=LEA)
    assert tickets.gold(seen_by=VICTOR) == [] and len(tickets.gold(seen_by=LEA)) == 1
    always = with_policy(tickets, gold_share=1.0)
    dealt = claim(always, VICTOR)
    assert dealt.ticket_id == "dogs-0000", "there is no gold of dogs"
    mine = claim(always, VERA, project="cats")
    assert mine.project == "cats" and mine.ticket_id != "cats-0000"
    tickets.finish(mine.ticket_id, mine.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert tickets.gold()[0].right == 1


def test_nobody_skips_the_warm_up_by_asking_for_a_project_without_gold(tickets):
    open_all(tickets, 1)
    tickets.add_gold("b-cats", [gold_of("cats")], by=ADMIN)
    warming = with_policy(tickets, gold_share=0.0, warmup_tickets=1)
    assert claim(warming, VERA, project="dogs") is None
    with pytest.raises(NotAllowed, match="warm-up to finish"):
        claim(warming, VERA, project="dogs", ticket_id="dogs-0000")
    gold = claim(warming, VERA, project="cats")
    warming.finish(gold.ticket_id, gold.lease_token, VERA, outcome(Verdict.ACCEPT))
    assert claim(warming, VERA, project="dogs").ticket_id == "dogs-0000"


def test_gold_is_of_a_project_in_which_there_is_work(tickets):
    """A ticket of a finished project could be nothing but gold."""
    open_all(tickets, 1)
    tickets.add_gold("b-cats", [gold_of("cats")], by=ADMIN)
    finish(tickets, LEA, Verdict.ACCEPT)
    assert tickets.batch("b-cats").drained
    assert claim(with_policy(tickets, gold_share=1.0), VERA).ticket_id == "dogs-0000"


def test_a_ticket_is_assigned_to_people_of_its_project_alone(tickets):
    open_all(tickets, 1, "cats")
    (refused,) = Overseeing(tickets).act(Act(act_id="a", action=Action.ASSIGN, by=LEA, to=VICTOR), ["cats-0000"])
    assert not refused.done and "project" in refused.said
    (done,) = Overseeing(tickets).act(Act(act_id="b", action=Action.ASSIGN, by=LEA, to=VERA), ["cats-0000"])
    assert done.done


ONLY: list[dict[str, Any]] = [{}, {"state": State.OPEN}, {"kind": Kind.VERIFY}, {"person": "victor"}]
ONLY += [{"batch_id": "b-dogs"}, {"text": "video-0"}, {"checkpoint": "micro"}, {"order": Order.SCORE}]


@pytest.mark.parametrize("only", ONLY, ids=str)
def test_the_list_of_a_small_project_looks_at_none_of_the_tickets_of_a_large_one(tickets, only):
    open_all(tickets, 300, "dogs")
    open_all(tickets, 2, "cats")
    finish(tickets, VICTOR, Verdict.ACCEPT)
    page = Overseeing(tickets).page(Wanted(projects=frozenset({"cats"}), **only))
    assert {card.ticket.project for card in page.cards} <= {"cats"}
    assert page.looked <= 2 and page.next is None


@pytest.mark.parametrize("uri", ["sqlite"], indirect=True)  # PostgreSQL reads small tables whole
def test_claims_of_people_of_some_projects_read_few_entries_of_an_index(tickets):
    open_all(tickets, 40)
    tickets.open_batch("s", [NewTicket(ticket_id="s", kind=Kind.SELECT, video_id="video-0", phase="1")])
    with tickets.database.write() as c:
        c.exec_driver_sql("ANALYZE")
    plans = plans_of_claims(tickets)
    claim(tickets, VERA)
    said = "\n".join(plans)
    assert "tickets_ready" in said and "tickets_reserved" in said and "browsed_projects" not in said, said
