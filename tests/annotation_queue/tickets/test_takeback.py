"""Taking back an answer, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from sqlalchemy import func, select

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.errors import (
    LeaseLost,
    NotAllowed,
    TooLate,
)
from annotation_queue.records import Kind, Reason, State
from annotation_queue.tickets.reading import RECENT
from annotation_queue.tickets.store import TicketStore
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    ANN,
    LEA,
    VERA,
    VICTOR,
    claim,
    finish,
    make,
    new_id,
    outcome,
    take_back,
    to_track,
)
from tests.annotation_queue.synthetic_queue import blank, candidate, verify_tickets


@pytest.mark.parametrize("verdict", Verdict)
def test_a_verdict_can_be_taken_back_and_given_again(tickets, verdict):
    tickets.open_batch("b", verify_tickets(2))
    before, figures = tickets.batch("b"), tickets.figures()
    reasons = [Reason.DRIFT] if verdict is Verdict.REJECT else []
    done = finish(tickets, VERA, verdict, *reasons)
    ticket_id, operation_id = done.ticket.ticket_id, new_id()
    back = take_back(tickets, ticket_id, VERA, operation_id)
    assert (back.state, back.leased_by, back.lease_token, back.verdict) == (State.LEASED, "vera", 2, None)
    assert take_back(tickets, ticket_id, VERA, operation_id) == back
    assert tickets.batch("b") == before and tickets.recent(VERA) == []
    assert (tickets.figures().total, tickets.figures().batches[0].done) == (figures.total, 0)
    assert [o.kind for o in tickets.operations(ticket_id)] == ["verdict", "unsubmit"]
    final = tickets.finish(ticket_id, back.lease_token, VERA, outcome(Verdict.REFINE))
    assert tickets.ticket(final.next_ticket_id).kind is Kind.TRACK
    assert tickets.batch("b").total == 3


def test_a_masklet_that_is_taken_back_is_kept_in_the_operation(tickets):
    tickets.open_batch("b", verify_tickets(2))
    track = to_track(tickets)
    verify = make(tickets, ANN, track, "made")
    back = take_back(tickets, track.ticket_id, ANN)
    kept = json.loads(tickets.operations(track.ticket_id)[-1].payload)
    assert kept["masklet"]["masklet_id"] == verify.masklet_id
    assert verify.ticket_id not in {t.ticket_id for t in tickets.find(batch_id="b")}
    other = blank(candidate("made", track.video_id, 8))
    tickets.finish(track.ticket_id, back.lease_token, ANN, outcome(masklet=other))
    assert tickets.masklet(verify.ticket_id).rle == other.rle


def test_a_person_who_lost_the_role_cannot_take_back_a_verdict(tickets):
    tickets.open_batch("b", verify_tickets(2))
    done = finish(tickets, VERA, Verdict.ACCEPT)
    with pytest.raises(NotAllowed, match="no role for verify"):
        take_back(tickets, done.ticket.ticket_id, replace(VERA, roles=ANN.roles))
    assert take_back(tickets, done.ticket.ticket_id, VERA).leased_by == "vera"


def test_an_answer_cannot_be_taken_back_once_the_next_ticket_was_claimed(tickets, clock):
    tickets.open_batch("b", verify_tickets(2))
    done = finish(tickets, VERA, Verdict.REFINE)
    track = claim(tickets, ANN)
    with pytest.raises(TooLate):
        take_back(tickets, done.ticket.ticket_id, VERA)
    tickets.release(track.ticket_id, track.lease_token, ANN)
    with pytest.raises(TooLate):  # the next ticket was begun
        take_back(tickets, done.ticket.ticket_id, VERA)
    assert tickets.ticket(done.ticket.ticket_id).verdict is Verdict.REFINE


def test_an_answer_in_a_drained_batch_cannot_be_taken_back(tickets):
    tickets.open_batch("b", verify_tickets(1))
    done = finish(tickets, VERA, Verdict.ACCEPT)
    with pytest.raises(TooLate, match="was delivered"):
        take_back(tickets, done.ticket.ticket_id, VERA)


def test_only_a_persons_own_last_ten_answers_can_be_taken_back(tickets, clock):
    tickets.open_batch("b", verify_tickets(RECENT + 2))
    done = []
    for _ in range(RECENT + 1):
        clock.advance(1)
        done.append(finish(tickets, VERA, Verdict.ACCEPT).ticket.ticket_id)
    assert [r.ticket_id for r in tickets.recent(VERA)] == done[:0:-1]
    with pytest.raises(NotAllowed, match="last 10"):
        take_back(tickets, done[0], VERA)
    with pytest.raises(NotAllowed, match="last 10"):
        take_back(tickets, done[1], VICTOR)
    assert take_back(tickets, done[1], VERA).lease_token == 2


def test_repeating_a_take_back_after_its_lease_ended_raises_lease_lost(tickets, clock):
    tickets.open_batch("b", verify_tickets(2))
    ticket_id, operation_id = finish(tickets, VERA, Verdict.ACCEPT).ticket.ticket_id, new_id()
    back = take_back(tickets, ticket_id, VERA, operation_id)
    tickets.release(ticket_id, back.lease_token, VERA)
    with pytest.raises(LeaseLost):
        take_back(tickets, ticket_id, VERA, operation_id)
    assert claim(tickets, VICTOR).ticket_id == ticket_id


def test_a_take_back_and_a_concurrent_claim_cannot_both_succeed(uri):
    database = Database(uri)
    tickets = TicketStore(database)
    tickets.open_batch("b", verify_tickets(9, frame_count=4))
    for _ in range(8):
        done = finish(tickets, VERA, Verdict.REFINE)
        together, got = threading.Barrier(2), {}

        def undo(done=done, together=together, got=got):
            together.wait()
            try:
                got["back"] = take_back(tickets, done.ticket.ticket_id, VERA)
            except TooLate:
                got["back"] = None

        def take(together=together, got=got):
            together.wait()
            got["taken"] = claim(tickets, ANN)

        threads = [threading.Thread(target=undo), threading.Thread(target=take)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (got["back"] is None) != (got["taken"] is None)
        for ticket, who in ((got["back"], VERA), (got["taken"], ANN)):
            if ticket is not None:
                reject = outcome(Verdict.REJECT, Reason.UNTRACKABLE)
                tickets.finish(ticket.ticket_id, ticket.lease_token, who, reject)
    assert (tickets.batch("b").remaining, len(tickets.find(state=State.OPEN))) == (1, 1)
    database.close()


def test_a_leads_decisions_and_take_backs_are_in_the_audit(tickets):
    tickets.open_batch("b", verify_tickets(2))
    finish(tickets, VERA, Verdict.UNSURE)
    decided = claim(tickets, LEA, Kind.VERIFY, ticket_id=next(t.ticket_id for t in tickets.find() if t.needs_lead))
    tickets.finish(decided.ticket_id, decided.lease_token, LEA, outcome(Verdict.ACCEPT))
    take_back(tickets, decided.ticket_id, LEA)
    with tickets.database.read() as c:
        lines = c.execute(select(schema.audit.c.actor, schema.audit.c.action, schema.audit.c.subject)).all()
        assert c.scalar(select(func.count()).select_from(schema.audit)) == 2
    assert lines == [("lea", "decide", decided.ticket_id), ("lea", "unsubmit", decided.ticket_id)]
