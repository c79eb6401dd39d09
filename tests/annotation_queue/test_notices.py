"""The outbox of notices, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import event

from annotation_queue import notices
from annotation_queue.notices import DELIVERY_S, RETRY_S, Endpoint, Event, Failure
from annotation_queue.records import Kind
from storage.records import Verdict
from tests.annotation_queue.annotators import VERA, claim, finish
from tests.annotation_queue.synthetic_queue import verify_tickets

OPS = Endpoint(name="ops", events=frozenset(Event))
CHAT = Endpoint(name="chat", events=frozenset({Event.RELEASE_PUBLISHED}))


def drained(batch_id="b"):
    return notices.notice(Event.BATCH_DRAINED, batch_id, {"batch_id": batch_id}, 1_000_000.0)


def taken(database, clock):
    """The next notice that is due for ops."""
    due = notices.take(database, "ops", clock())
    assert due is not None
    return due


@pytest.fixture
def seen(tickets, clock):
    """A database whose batches were looked at before."""
    assert notices.add(tickets.database, "batches", [], [OPS, CHAT], clock()) == 0
    return tickets.database


def test_the_first_look_sends_nothing_and_later_ones_send_only_what_is_new(tickets, clock):
    database = tickets.database
    assert notices.add(database, "batches", [drained("old")], [OPS], clock()) == 0
    assert notices.add(database, "batches", [drained("old"), drained("new")], [OPS], clock()) == 1
    assert notices.add(database, "batches", [drained("old"), drained("new")], [OPS], clock()) == 0
    assert notices.take(database, "ops", clock()).notice == drained("new")
    assert notices.take(database, "ops", clock()) is None


def test_a_state_that_is_true_now_is_news_at_the_first_look_too(tickets, clock):
    assert notices.add(tickets.database, None, [drained()], [OPS], clock()) == 1


def test_an_endpoint_gets_only_its_events(seen, clock):
    release = notices.notice(Event.RELEASE_PUBLISHED, "release-0001", {}, 0.0)
    assert notices.add(seen, "batches", [drained(), release], [OPS, CHAT], clock()) == 2
    assert notices.take(seen, "chat", clock()).notice == release
    assert notices.take(seen, "chat", clock()) is None


def test_an_endpoint_of_a_project_gets_nothing_about_another(seen, clock):
    cats, dogs, plain = (
        notices.notice(Event.BATCH_DRAINED, name, {"project": name} if name else {}, 0.0)
        for name in ("cats", "dogs", "")
    )
    mine = Endpoint(name="mine", events=frozenset(Event), projects=frozenset({"cats"}))
    assert notices.add(seen, "batches", [cats, dogs, plain], [OPS, mine], clock()) == 3
    assert notices.take(seen, "mine", clock()).notice.notice_id == cats.notice_id
    assert notices.take(seen, "mine", clock()) is None
    assert len([1 for _ in range(3) if notices.take(seen, "ops", clock())]) == 3


def test_a_look_that_is_cut_off_stores_nothing(seen, clock):
    broken = notices.notice(Event.ROUND_REFUSED, "r", {}, 0.0)
    object.__setattr__(broken, "payload", None)
    with pytest.raises(Exception, match="(?i)null"):
        notices.add(seen, "batches", [drained(), broken], [OPS], clock())
    assert notices.take(seen, "ops", clock()) is None
    assert notices.add(seen, "batches", [drained()], [OPS], clock()) == 1


def test_a_notice_that_a_killed_process_had_taken_is_due_again(seen, clock):
    notices.add(seen, "batches", [drained()], [OPS], clock())
    first = notices.take(seen, "ops", clock())
    clock.advance(DELIVERY_S - 1)
    assert notices.take(seen, "ops", clock()) is None  # another process may be sending it
    clock.advance(2)
    again = taken(seen, clock)
    assert (again.notice, again.attempts) == (first.notice, 2)
    notices.delivered(seen, again, clock())
    clock.advance(DELIVERY_S + 1)
    assert notices.take(seen, "ops", clock()) is None


def test_failures_are_retried_after_growing_waits_until_it_is_received(seen, clock):
    notices.add(seen, "batches", [drained()], [OPS], clock())
    begun = clock()
    for n, wait in enumerate([*RETRY_S, RETRY_S[-1]], start=1):
        due = taken(seen, clock)
        assert due.attempts == n
        notices.failed(seen, due, Failure.ANSWER, 500, "it answered 500", clock())
        with seen.read() as c:
            (failed,) = notices.failures(c)
        assert (failed.attempts, failed.status, failed.since, failed.next_at) == (n, 500, begun, clock() + wait)
        clock.advance(wait - 0.1)
        assert notices.take(seen, "ops", clock()) is None
        clock.advance(0.2)
    notices.delivered(seen, taken(seen, clock), clock())
    with seen.read() as c:
        assert notices.failures(c) == [] and notices.counts(c) == {"ops": (1, 0)}


def test_an_endpoint_that_is_gone_is_asked_again_only_by_a_person(seen, clock):
    notices.add(seen, "batches", [drained()], [OPS], clock())
    notices.failed(seen, taken(seen, clock), Failure.GONE, 410, "gone", clock())
    clock.advance(RETRY_S[-1] * 10)
    assert notices.take(seen, "ops", clock()) is None
    assert notices.try_again(seen, clock()) == 1
    assert notices.take(seen, "ops", clock()).attempts == 2


def test_the_id_follows_from_what_happened_and_the_payload_says_it():
    assert drained("a").notice_id == drained("a").notice_id != drained("b").notice_id
    assert json.loads(drained("a").payload) == {
        "type": "batch.drained",
        "timestamp": "1970-01-12T13:46:40.000Z",
        "data": {"batch_id": "a"},
    }


def test_a_look_writes_only_what_is_new_however_much_is_known(seen, clock):
    old = [drained(f"old-{n}") for n in range(20)]
    notices.add(seen, "batches", old, [OPS], clock())
    written = []
    event.listen(seen.engine, "before_cursor_execute", lambda c, cursor, statement, *_: written.append(statement))
    assert notices.add(seen, "batches", [*old, drained("new")], [OPS], clock()) == 1
    assert len([each for each in written if each.startswith("INSERT INTO notices ")]) == 1


def test_drained_batches_and_waiting_tickets_are_read_from_the_queue(tickets, clock):
    tickets.open_batch("done", verify_tickets(1))
    finish(tickets, VERA, Verdict.ACCEPT)
    opened = clock()
    clock.advance(1)
    tickets.open_batch("left", verify_tickets(3, prefix="left"))
    claim(tickets, VERA)
    clock.advance(100)
    with tickets.database.read() as c:
        assert [(row.batch_id, row.drained_at) for row in notices.drained(c)] == [("done", opened)]
    assert notices.add(tickets.database, None, [drained("done")], [OPS], clock()) == 1
    with tickets.database.read() as c:
        assert notices.drained(c) == [], "the outbox has it"
        (old,) = notices.waiting(c, clock() - 50)
        assert (old.batch_id, old.kind, old.tickets, old.since) == ("left", Kind.VERIFY, 2, opened + 1)
        assert notices.waiting(c, clock() - 101.5) == []
