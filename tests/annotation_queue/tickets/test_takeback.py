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
from tests.annotation_queue.synthetic_queue import blank, candidate, tickets


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


def test_a_masklet_that_is_taken_back_is_kept_in_the_operation(store):
    store.open_batch("b", tickets(2))
    track = to_track(store)
    verify = make(store, ANN, track, "made")
    back = take_back(store, track.ticket_id, ANN)
    kept = json.loads(store.operations(track.ticket_id)[-1].payload)
    assert kept["masklet"]["masklet_id"] == verify.masklet_id
    assert verify.ticket_id not in {t.ticket_id for t in store.tickets(batch_id="b")}
    other = blank(candidate("made", track.video_id, 8))
    store.finish(track.ticket_id, back.lease_token, ANN, outcome(masklet=other))
    assert store.masklet(verify.ticket_id).rle == other.rle


def test_a_person_who_lost_the_role_cannot_take_back_a_verdict(store):
    store.open_batch("b", tickets(2))
    done = finish(store, VERA, Verdict.ACCEPT)
    with pytest.raises(NotAllowed, match="no role for verify"):
        take_back(store, done.ticket.ticket_id, replace(VERA, roles=ANN.roles))
    assert take_back(store, done.ticket.ticket_id, VERA).leased_by == "vera"


def test_an_answer_cannot_be_taken_back_once_the_next_ticket_was_claimed(store, clock):
    store.open_batch("b", tickets(2))
    done = finish(store, VERA, Verdict.REFINE)
    track = claim(store, ANN)
    with pytest.raises(TooLate):
        take_back(store, done.ticket.ticket_id, VERA)
    store.release(track.ticket_id, track.lease_token, ANN)
    with pytest.raises(TooLate):  # the next ticket was begun
        take_back(store, done.ticket.ticket_id, VERA)
    assert store.ticket(done.ticket.ticket_id).verdict is Verdict.REFINE


def test_an_answer_in_a_drained_batch_cannot_be_taken_back(store):
    store.open_batch("b", tickets(1))
    done = finish(store, VERA, Verdict.ACCEPT)
    with pytest.raises(TooLate, match="was delivered"):
        take_back(store, done.ticket.ticket_id, VERA)


def test_only_a_persons_own_last_ten_answers_can_be_taken_back(store, clock):
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


def test_repeating_a_take_back_after_its_lease_ended_raises_lease_lost(store, clock):
    store.open_batch("b", tickets(2))
    ticket_id, operation_id = finish(store, VERA, Verdict.ACCEPT).ticket.ticket_id, new_id()
    back = take_back(store, ticket_id, VERA, operation_id)
    store.release(ticket_id, back.lease_token, VERA)
    with pytest.raises(LeaseLost):
        take_back(store, ticket_id, VERA, operation_id)
    assert claim(store, VICTOR).ticket_id == ticket_id


def test_a_take_back_and_a_concurrent_claim_cannot_both_succeed(uri):
    database = Database(uri)
    store = TicketStore(database)
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
