"""Leases compared with a simple model: after any sequence of actions, both agree."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.errors import LeaseLost, NotAllowed, TooLate
from annotation_queue.records import LEASE_S, Kind, NewOperation, Person, Reason, Role, State, Submission
from annotation_queue.tickets.store import TicketStore
from storage.records import Verdict
from tests.annotation_queue.clock import Clock
from tests.annotation_queue.synthetic_queue import candidate, corrected, verify_tickets

TICKETS = 3
PEOPLE = [
    Person(name="both", roles=frozenset({Role.ANNOTATOR, Role.VERIFIER})),
    Person(name="verifier", roles=frozenset({Role.VERIFIER})),
    Person(name="lead", roles=frozenset({Role.LEAD})),
]
people = st.sampled_from(PEOPLE)


class Leases(RuleBasedStateMachine):
    """The model: who holds what under which token until when, and what the queue has acknowledged."""

    @initialize()
    def open(self):
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.database = Database(f"sqlite:///{Path(self.folder.name) / 'queue.db'}")
        self.tickets = TicketStore(self.database, clock=self.clock)
        self.tickets.open_batch("b", verify_tickets(TICKETS, frame_count=4))
        # About the tickets that are not done:
        self.kinds = {t.ticket_id: Kind.VERIFY for t in verify_tickets(TICKETS, frame_count=4)}
        self.makers = dict.fromkeys(self.kinds)
        self.for_lead = set()
        self.sent_back = dict.fromkeys(self.kinds)  # ticket_id → the verifier who asked for what it is about
        self.reserved = {}  # ticket_id → (person, until)
        self.finished = []  # (ticket_id, person, what its finishing changed): in order
        self.last_finish = {}  # person → when they last finished a ticket
        self.holders = {}  # ticket_id → (person, token, expires_at)
        self.tokens = dict.fromkeys(self.kinds, 0)
        self.past = []  # every lease that ever was: (ticket_id, person, token)
        self.acknowledged = {}  # operation_id → ticket_id
        self.branches = {}
        self.done = 0
        self.serial = 0
        self.told = []

    def teardown(self):
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()

    def id(self):
        self.serial += 1
        return f"id-{self.serial}"

    def may(self, person, ticket_id):
        kind = self.kinds[ticket_id]
        if Role.LEAD not in person.roles:
            if ticket_id in self.for_lead:
                return False
            if (Role.VERIFIER if kind is Kind.VERIFY else Role.ANNOTATOR) not in person.roles:
                return False
            if kind is Kind.VERIFY and self.sent_back[ticket_id] == person.name:
                return False
        maker, until = self.reserved.get(ticket_id, (person.name, 0))
        if maker != person.name and until >= self.clock():
            return False
        return kind is not Kind.VERIFY or self.makers[ticket_id] != person.name

    def held(self, lease):
        ticket_id, person, token = lease
        return self.holders.get(ticket_id, (None, 0, 0))[:2] == (person, token)

    @rule(person=people)
    def claim(self, person):
        self.holders = {t: held for t, held in self.holders.items() if held[2] >= self.clock()}
        free = {t for t in self.kinds if t not in self.holders and self.may(person, t)}
        ticket = self.tickets.claim(person, claim_id=self.id())
        if ticket is None:
            assert not free
            return
        assert ticket.ticket_id in free
        mine = {t for t in free if self.kinds[t] is ticket.kind and self.reserved.get(t, ("", 0))[0] == person.name}
        assert not mine or ticket.ticket_id in mine  # rework goes to its maker before anything else
        self.hold(ticket, person)

    def hold(self, ticket, person):
        assert ticket.lease_token == self.tokens[ticket.ticket_id] + 1
        self.tokens[ticket.ticket_id] += 1
        self.holders[ticket.ticket_id] = (person, ticket.lease_token, self.clock() + LEASE_S)
        self.past.append((ticket.ticket_id, person, ticket.lease_token))

    @rule(seconds=st.sampled_from([1, 20, 60, 89, 91, 200, 2000]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    def lease(self, data):
        return data.draw(st.sampled_from(self.past))

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def heartbeat(self, data):
        lease = ticket_id, person, token = self.lease(data)
        try:
            self.tickets.heartbeat(ticket_id, token, person)
        except LeaseLost:
            assert not self.held(lease)
        else:
            assert self.held(lease)
            self.holders[ticket_id] = (person, token, self.clock() + LEASE_S)

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def release(self, data):
        lease = ticket_id, person, token = self.lease(data)
        again = ticket_id in self.kinds and ticket_id not in self.holders and self.tokens[ticket_id] == token
        try:
            self.tickets.release(ticket_id, token, person)
        except LeaseLost:
            assert not self.held(lease) and not again
        else:
            assert self.held(lease) or again
            self.holders.pop(ticket_id, None)

    @precondition(lambda self: any(self.kinds.get(t) is Kind.TRACK for t, _, _ in self.past))
    @rule(data=st.data(), repeat=st.booleans())
    def prompt(self, data, repeat):
        lease = data.draw(st.sampled_from([p for p in self.past if self.kinds.get(p[0]) is Kind.TRACK]))
        ticket_id, person, token = lease
        mine = [o for o, t in self.acknowledged.items() if t == ticket_id and o.startswith("id-")]
        operation_id = data.draw(st.sampled_from(mine)) if repeat and mine else self.id()
        payload = '{"points_xy": [[1, 2]]}'
        operation = NewOperation(operation_id=operation_id, kind="prompt", created_at="", payload=payload)
        try:
            self.tickets.append_operations(ticket_id, token, person, [operation])
        except LeaseLost:
            assert not self.held(lease)
            self.branches[operation_id] = ticket_id
        else:
            assert self.held(lease) or operation_id in self.acknowledged
            self.acknowledged[operation_id] = ticket_id

    @precondition(lambda self: self.past)
    @rule(data=st.data(), verdict=st.sampled_from(Verdict), made=st.booleans(), twice=st.booleans())
    def finish(self, data, verdict, made, twice):
        lease = ticket_id, person, token = self.lease(data)
        kind = self.tickets.ticket(ticket_id).kind
        lead_decides = self.tickets.ticket(ticket_id).needs_lead
        masklet = None
        if kind is Kind.TRACK:
            verdict = None if made else Verdict.REJECT
            masklet = corrected(candidate("m", self.tickets.ticket(ticket_id).video_id, 4), self.id()) if made else None
        elif lead_decides and verdict is Verdict.UNSURE:
            verdict = Verdict.ACCEPT
        reasons = (Reason.OTHER,) if verdict is Verdict.REJECT else ()
        outcome = Submission(operation_id=self.id(), created_at="", verdict=verdict, reasons=reasons, masklet=masklet)
        try:
            finished = self.tickets.finish(ticket_id, token, person, outcome)
        except LeaseLost:
            assert not self.held(lease)
            self.branches[outcome.operation_id] = ticket_id
            return
        assert self.held(lease)
        if twice:
            assert self.tickets.finish(ticket_id, token, person, outcome) == finished
        self.acknowledged[outcome.operation_id] = ticket_id
        del self.holders[ticket_id]
        self.done += 1
        follower = finished.next_ticket_id
        self.finished.append((ticket_id, person, self.kinds.pop(ticket_id), follower))
        if follower is not None:
            self.kinds[follower] = Kind.TRACK if verdict is Verdict.REFINE else Kind.VERIFY
            self.makers[follower] = person.name if masklet is not None else self.makers[ticket_id]
            self.sent_back[follower] = person.name if verdict is Verdict.REFINE else self.sent_back[ticket_id]
            self.tokens[follower] = 0
            self.for_lead.discard(follower)
            if verdict is Verdict.UNSURE:
                self.for_lead.add(follower)
            self.reserved.pop(follower, None)
            maker = self.makers[ticket_id]
            rework_s = self.tickets.policy.rework_s
            at_work = any(p.name == maker for _, p, _, _ in self.finished)
            if verdict is Verdict.REFINE and at_work and self.last_finish[maker] > self.clock() - rework_s:
                self.reserved[follower] = (maker, self.clock() + rework_s)
        self.last_finish[person.name] = self.clock()
        assert (finished.settled is None) == (follower is not None)

    @precondition(lambda self: self.finished)
    @rule(data=st.data(), twice=st.booleans())
    def unsubmit(self, data, twice):
        index = data.draw(st.integers(0, len(self.finished) - 1))
        ticket_id, person, kind, follower = self.finished[index]
        operation_id = self.id()
        untouched = follower is None or (self.tokens[follower] == 0 and follower in self.kinds)
        recent = [t for t, p, _, _ in self.finished if p == person][-10:]
        try:
            ticket = self.tickets.unsubmit(ticket_id, person, operation_id=operation_id, created_at="")
        except NotAllowed:
            assert ticket_id not in recent
            return
        except TooLate:
            assert not untouched or not self.kinds
            return
        assert untouched and self.kinds and ticket_id in recent
        if twice:
            again = self.tickets.unsubmit(ticket_id, person, operation_id=operation_id, created_at="")
            assert again == ticket
        del self.finished[index]
        self.done -= 1
        self.kinds[ticket_id] = kind
        if follower is not None:
            del self.kinds[follower], self.tokens[follower]
        self.acknowledged[operation_id] = ticket_id
        self.hold(ticket, person)
        mine = [when for when, name in self.finish_times() if name == person.name]
        self.last_finish[person.name] = max(mine, default=float("-inf"))

    def finish_times(self):
        with self.database.read() as c:
            return c.execute(
                select(schema.leases.c.finished_at, schema.leases.c.person).where(schema.HAS_FINISHED)
            ).all()

    @rule()
    def deliver(self):
        self.tickets.deliver(self.told.append)
        assert self.told == ([] if self.kinds else ["b"])  # a batch that was announced is never opened again

    @invariant()
    def the_queue_and_the_model_agree(self):
        if not hasattr(self, "tickets"):
            return
        found = {t.ticket_id: t for t in self.tickets.find(batch_id="b", limit=500)}
        for ticket_id, ticket in found.items():
            assert (ticket.state is State.DONE) == (ticket_id not in self.kinds)
            if ticket_id in self.holders:
                person, token, _ = self.holders[ticket_id]
                assert (ticket.state, ticket.leased_by, ticket.lease_token) == (State.LEASED, person.name, token)
        batch = self.tickets.batch("b")
        assert (batch.total, batch.remaining) == (len(found), len(self.kinds))
        assert batch.total == self.done + len(self.kinds)
        assert batch.drained == (not self.kinds)
        counts = Counter((t.kind, t.state) for t in found.values())
        leased = [(t, t.expires_at) for t in found.values() if t.state is State.LEASED]
        for ticket, expires_at in leased:
            assert expires_at is not None
            if expires_at >= self.clock():
                continue  # an expired lease counts as open
            counts[ticket.kind, State.LEASED] -= 1
            counts[ticket.kind, State.OPEN] += 1
        figures = self.tickets.figures()
        for b in figures.batches:  # the running sums equal a count of the rows
            found_here = tuple(counts[b.kind, state] for state in (State.OPEN, State.LEASED, State.DONE))
            assert (b.open, b.leased, b.done) == found_here
        assert figures.total.answers == self.done
        assert sum(b.open + b.leased + b.done for b in figures.batches) == len(found)

    @invariant()
    def tokens_only_grow_and_each_lease_is_one_persons(self):
        if not hasattr(self, "tickets"):
            return
        with self.database.read() as c:
            leases = c.execute(select(schema.leases.c.ticket_id, schema.leases.c.token, schema.leases.c.person)).all()
        assert sorted((t, token, p.name) for t, p, token in self.past) == sorted(map(tuple, leases))
        assert len({lease[:2] for lease in leases}) == len(leases)

    @invariant()
    def nothing_that_was_sent_is_lost(self):
        if not hasattr(self, "tickets"):
            return
        for branch, expected in ((False, self.acknowledged), (True, self.branches)):
            for ticket_id in {*expected.values()}:
                kept = {o.operation_id for o in self.tickets.operations(ticket_id, branch=branch)}
                assert kept == {o for o, t in expected.items() if t == ticket_id}


TestLeases = Leases.TestCase
TestLeases.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
