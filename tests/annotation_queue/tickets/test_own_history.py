"""A person's own finished tickets, page by page, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from annotation_queue.tickets import own_history
from storage.records import Verdict
from tests.annotation_queue.annotators import VERA, VICTOR, claim, finish, take_back
from tests.annotation_queue.synthetic_queue import verify_tickets


def pages(tickets, person, limit):
    found, after = [], None
    while True:
        page = own_history.page(tickets.database, person, after=after, limit=limit)
        found.append([answer.ticket_id for answer in page.answers])
        if page.next is None:
            return found
        after = page.next


def test_the_pages_have_every_answer_once_and_the_latest_first(tickets, clock):
    tickets.open_batch("b", verify_tickets(7, frame_count=4))
    done = []
    for n in range(5):
        done.append(finish(tickets, VERA, Verdict.ACCEPT).ticket.ticket_id)
        clock.advance(0 if n in (1, 2) else 1)  # three of them at the same moment
    finish(tickets, VICTOR, Verdict.ACCEPT)
    found = pages(tickets, VERA, 2)
    assert [len(page) for page in found] == [2, 2, 1]
    assert sorted(sum(found, [])) == sorted(done) and found[0][0] == done[-1] and found[-1][-1] == done[0]
    assert pages(tickets, VERA, 5) == [sum(found, [])], "a full last page has no next one"


def test_an_answer_that_was_taken_back_is_not_in_it(tickets):
    tickets.open_batch("b", verify_tickets(1))
    done = finish(tickets, VERA, Verdict.REFINE)
    take_back(tickets, done.ticket.ticket_id, VERA)
    assert pages(tickets, VERA, 5) == [[]]


@pytest.mark.parametrize("after", ["", "x:y", ":", "y"])
def test_an_invalid_place_is_refused(tickets, after):
    with pytest.raises(ValueError, match="not a place"):
        own_history.page(tickets.database, VERA, after=after, limit=5)


def test_a_page_is_read_from_the_index_of_finished_leases(tickets):
    """Without it, the cost would follow everything that the person has ever done."""
    tickets.open_batch("b", verify_tickets(1))
    finish(tickets, VERA, Verdict.ACCEPT)
    plans = []

    def explain(connection, cursor, statement, parameters, context, many):
        if "finished_at <=" in statement and not statement.startswith("EXPLAIN"):
            prefix = "EXPLAIN QUERY PLAN " if tickets.database.is_sqlite else "EXPLAIN "
            if not tickets.database.is_sqlite:
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # a small table is read whole otherwise
            plans.extend(str(row) for row in connection.exec_driver_sql(prefix + statement, parameters))

    event.listen(tickets.database.engine, "before_cursor_execute", explain)
    own_history.page(tickets.database, VERA, after="2000000000.0:x", limit=5)
    text = "\n".join(plans)
    assert "leases_finished" in text and "FOR ORDER BY" not in text, text


def test_the_video_of_any_finished_ticket_can_be_seen(tickets):
    tickets.open_batch("b", verify_tickets(14, frame_count=4))  # videos 0 to 4 in turn
    finish(tickets, VERA, Verdict.ACCEPT)
    for _ in range(12):
        claim(tickets, VICTOR)
    assert tickets.may_see_video(VERA, "video-0")
    assert not tickets.may_see_video(VERA, "video-1")
