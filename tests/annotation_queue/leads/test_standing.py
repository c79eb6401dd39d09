"""Where the tickets of one batch stand, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from annotation_queue.errors import NoSuchBatch
from annotation_queue.leads import standing
from annotation_queue.records import Kind, State
from storage.records import Verdict
from tests.annotation_queue.annotators import VERA, claim, finish
from tests.annotation_queue.synthetic_queue import verify_tickets


def of(tickets, batch_id="b"):
    return standing.of_batch(tickets.database, batch_id, tickets.clock())


def test_tickets_are_counted_by_state_and_those_of_other_batches_are_not(tickets):
    tickets.open_batch("b", verify_tickets(4))
    tickets.open_batch("other", verify_tickets(2, prefix="other"))
    finish(tickets, VERA, Verdict.ACCEPT)  # the oldest, which is of "b"
    held = claim(tickets, VERA, batch_id="b")
    found = of(tickets)
    counts = {(count.kind, count.state): count.tickets for count in found.counts}
    assert counts == {(Kind.VERIFY, State.DONE): 1, (Kind.VERIFY, State.LEASED): 1, (Kind.VERIFY, State.OPEN): 2}
    assert (found.oldest_held.person, found.oldest_held.ticket_id) == ("vera", held.ticket_id)
    assert found.an_hour == 4
    assert found.expected_end == tickets.clock() + 3 * 900  # one was done in the last quarter of an hour


def test_the_oldest_open_ticket_is_the_first_one_that_nobody_holds(tickets, clock):
    first, second = verify_tickets(2)
    tickets.open_batch("b", [first], sealed=False)
    clock.now += 10
    tickets.open_batch("b", [first, second])
    assert of(tickets).oldest_open.ticket_id == first.ticket_id
    claim(tickets, VERA)
    assert of(tickets).oldest_open.ticket_id == second.ticket_id


def test_a_drained_batch_is_delivered_or_says_why_not(tickets, clock):
    tickets.open_batch("b", verify_tickets(1))
    finish(tickets, VERA, Verdict.ACCEPT)

    def refuse(batch_id):
        raise ConnectionError("no route")

    tickets.deliver(refuse)
    found = of(tickets)
    assert (found.delivered, found.delivery_error, found.oldest_open) == (False, "no route", None)
    assert found.next_delivery > clock.now
    clock.now = found.next_delivery
    tickets.deliver(lambda batch_id: None)
    found = of(tickets)
    assert (found.delivered, found.delivery_error, found.next_delivery) == (True, None, None)


def test_a_batch_that_the_queue_does_not_have_is_refused(tickets):
    with pytest.raises(NoSuchBatch):
        of(tickets, "unknown")
