"""Batches: opening, reading and delivering them, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import pytest

from annotation_queue.database import Database
from annotation_queue.errors import (
    BatchSealed,
    NoSuchBatch,
    NoSuchMasklet,
    NoSuchTicket,
)
from annotation_queue.records import Kind, NewTicket
from annotation_queue.tickets.store import TicketStore
from storage.records import Verdict
from tests.annotation_queue.annotators import (
    VERA,
    claim,
    finish,
)
from tests.annotation_queue.synthetic_queue import candidate, verify_tickets


def test_opening_a_batch_again_changes_nothing(tickets):
    first = tickets.open_batch("b", verify_tickets(3))
    ticket = claim(tickets, VERA)
    assert tickets.open_batch("b", verify_tickets(3)) == first
    assert tickets.ticket(ticket.ticket_id) == ticket
    assert (first.total, first.remaining, first.sealed, first.drained) == (3, 3, True, False)


def test_a_batch_may_be_opened_in_parts_and_drains_only_when_sealed(tickets):
    tickets.open_batch("b", verify_tickets(1), sealed=False)
    finish(tickets, VERA, Verdict.ACCEPT)
    assert not tickets.batch("b").drained
    tickets.open_batch("b", verify_tickets(2), sealed=True)
    assert (tickets.batch("b").total, tickets.batch("b").remaining) == (2, 1)
    assert finish(tickets, VERA, Verdict.ACCEPT).batch_drained
    assert [batch.batch_id for batch in tickets.batches(drained=True)] == ["b"]


def test_a_sealed_batch_rejects_new_tickets(tickets):
    tickets.open_batch("b", verify_tickets(1))
    with pytest.raises(BatchSealed):
        tickets.open_batch("b", verify_tickets(2))
    assert tickets.batch("b").total == 1


def decided(count, verdict=Verdict.ACCEPT):
    """Verify tickets that a program has decided."""
    return [replace(ticket, decided=verdict, decided_by="verifier-1") for ticket in verify_tickets(count)]


def test_a_ticket_that_a_program_decided_is_settled_and_nobody_gets_it(tickets):
    accepted, rejected, waiting = verify_tickets(3)
    accepted, rejected = decided(1)[0], replace(rejected, decided=Verdict.REJECT, decided_by="verifier-1")
    first = tickets.open_batch("b", [accepted, rejected, waiting])
    assert (first.total, first.remaining, first.drained) == (3, 1, False)
    assert tickets.open_batch("b", [accepted, rejected, waiting]) == first
    assert finish(tickets, VERA, Verdict.REFINE).ticket.ticket_id == waiting.ticket_id
    assert claim(tickets, VERA) is None
    by_id = {one.ticket_id: one for one in tickets.batch_result("b").settled}
    assert by_id.keys() == {accepted.ticket_id, rejected.ticket_id}
    assert {one.decided_by for one in by_id.values()} == {"verifier-1"}
    made = by_id[accepted.ticket_id].masklet
    assert (made.verdict, made.verified_by) == ("accept", "verifier-1")
    assert by_id[rejected.ticket_id].verdict is Verdict.REJECT
    (counted,) = [f for f in tickets.figures().batches if f.kind is Kind.VERIFY]
    assert (counted.open, counted.leased, counted.done) == (0, 0, 3)
    assert not [f for f in tickets.figures().people if f.name == "verifier-1"]


def test_a_batch_that_a_program_decided_entirely_is_drained_and_delivered(tickets):
    assert not tickets.open_batch("b", decided(150), sealed=False).drained
    assert tickets.open_batch("b", [], sealed=True).drained
    told = []
    assert tickets.deliver(told.append) == 1 and told == ["b"]


@pytest.mark.parametrize(
    "changes",
    [
        {"decided_by": None},
        {"decided": None},
        {"decided_by": "not/an/id"},
        {"decided": Verdict.REFINE},
        {"kind": Kind.TRACK},
    ],
)
def test_only_a_verify_ticket_is_opened_decided_and_by_somebody(tickets, changes):
    with pytest.raises(ValueError, match=r"decided|decided_by"):
        tickets.open_batch("b", [replace(decided(1)[0], **changes)])


def test_a_batch_without_tickets_is_drained_and_delivered_at_once(tickets):
    assert tickets.open_batch("b", []).drained
    told = []
    assert tickets.deliver(told.append) == 1
    assert told == ["b"]


def test_a_batch_with_a_malformed_ticket_is_not_stored(tickets):
    bad = replace(verify_tickets(2)[1], masklet=replace(candidate("bad", "video-1"), rle=(b"?",) * 12))
    with pytest.raises(ValueError, match="masklet bad"):
        tickets.open_batch("b", [verify_tickets(1)[0], bad])
    with pytest.raises(NoSuchBatch):
        tickets.batch("b")


def test_a_ticket_belongs_to_one_batch(tickets):
    tickets.open_batch("b", verify_tickets(1))
    with pytest.raises(ValueError, match="belongs to batch b"):
        tickets.open_batch("c", verify_tickets(1))


def test_two_batches_may_hold_masklets_with_the_same_id(tickets):
    tickets.open_batch("b", verify_tickets(1))
    other = replace(verify_tickets(1)[0], ticket_id="other")
    assert other.masklet is not None
    tickets.open_batch("c", [replace(other, masklet=replace(other.masklet, click_count=9))])
    assert tickets.masklet("ticket-0000").click_count == 0
    assert tickets.masklet("other").click_count == 9


def test_errors_name_the_missing_ticket_or_batch(tickets):
    for error, ask in [
        (NoSuchTicket, tickets.ticket),
        (NoSuchBatch, tickets.batch),
        (NoSuchBatch, tickets.result_page),
    ]:
        with pytest.raises(error, match="nothing-here"):
            ask("nothing-here")
    tickets.open_batch("b", [NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1")])
    with pytest.raises(NoSuchMasklet):
        tickets.masklet("t")


def test_the_pages_of_a_result_add_up_to_the_whole_result(tickets):
    tickets.open_batch("b", verify_tickets(7))
    for _ in range(7):
        finish(tickets, VERA, Verdict.ACCEPT)
    settled, operations, after = [], [], None
    while True:
        page = tickets.result_page("b", after=after, limit=2)
        settled += page.settled
        operations += page.operations
        if (after := page.next) is None:
            break
    whole = tickets.batch_result("b")
    assert (tuple(settled), tuple(operations)) == (whole.settled, whole.operations)
    assert (len(settled), len(operations)) == (7, 7)
    for strange in ("x", "operations:t", "operations:t:x"):
        with pytest.raises(ValueError, match="not a place"):
            tickets.result_page("b", after=strange)


def test_a_drained_batch_is_delivered_once(tickets):
    tickets.open_batch("b", verify_tickets(1))
    told = []
    assert tickets.deliver(told.append) == 0
    finish(tickets, VERA, Verdict.ACCEPT)
    assert [tickets.deliver(told.append) for _ in range(3)] == [1, 0, 0]
    assert told == ["b"]


def test_a_failed_delivery_is_retried_later(tickets, clock):
    tickets.open_batch("b", [])
    told = []

    def fail(batch_id):
        told.append(batch_id)
        raise ConnectionError("the pipeline is away")

    assert tickets.deliver(fail) == 0
    assert tickets.deliver(fail) == 0
    assert told == ["b"]
    assert tickets.stats().undelivered == 1
    clock.advance(2)
    assert tickets.deliver(told.append) == 1
    assert tickets.stats().undelivered == 0


def test_concurrent_deliveries_deliver_each_batch_once(uri):
    database = Database(uri)
    tickets = TicketStore(database)
    for i in range(10):
        tickets.open_batch(f"b{i}", [])
    told = []
    others = [TicketStore(database) for _ in range(4)]
    threads = [threading.Thread(target=other.deliver, args=(told.append,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(told) == {f"b{i}": 1 for i in range(10)}
    database.close()
