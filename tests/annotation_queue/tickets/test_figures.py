"""The figures and the stats of the queue, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlalchemy import event

from annotation_queue.database import Database
from annotation_queue.records import Kind, State
from annotation_queue.tickets.figures import DRAINED_SHOWN
from annotation_queue.tickets.store import TicketStore
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
    outcome,
    prompt,
    sent_back_twice,
    take_back,
    to_track,
    with_policy,
)
from tests.annotation_queue.synthetic_queue import verify_tickets


def test_the_stats_count_every_ticket_and_an_expired_lease_as_open(tickets, clock):
    tickets.open_batch("b", verify_tickets(3))
    finish(tickets, VERA, Verdict.ACCEPT)
    claim(tickets, VERA)
    counts = {(c.kind, c.state): c.tickets for c in tickets.stats().counts}
    assert counts == {(Kind.VERIFY, State.OPEN): 1, (Kind.VERIFY, State.LEASED): 1, (Kind.VERIFY, State.DONE): 1}
    clock.advance(91)
    counts = {(c.kind, c.state): c.tickets for c in tickets.stats().counts}
    assert counts == {(Kind.VERIFY, State.OPEN): 2, (Kind.VERIFY, State.DONE): 1}
    (pace,) = tickets.stats().paces
    assert (pace.person, pace.finished, pace.seconds) == ("vera", 1, 2.5)


def test_the_pace_counts_every_person_who_gave_a_verdict(tickets, clock):
    tickets = with_policy(tickets, overlap=2, overlap_share=1.0)
    tickets.open_batch("b", verify_tickets(4))
    for _ in range(3):
        finish(tickets, VERA, Verdict.ACCEPT)
    for _ in range(2):
        last = finish(tickets, VICTOR, Verdict.ACCEPT)
    assert [(p.person, p.finished, p.seconds) for p in tickets.stats().paces] == [("vera", 3, 2.5), ("victor", 2, 2.5)]
    take_back(tickets, last.ticket.ticket_id, VICTOR)
    assert [(p.person, p.finished) for p in tickets.stats().paces] == [("vera", 3), ("victor", 1)]
    clock.advance(3601)
    assert tickets.stats().paces == ()


def test_clicks_and_edited_frames_are_counted_from_operations(tickets):
    tickets.open_batch("b", verify_tickets(2))
    track = to_track(tickets)
    grow = [replace(prompt(frame_idx=4), payload=json.dumps({"points_xy": [[1, 1]] * n})) for n in (1, 2, 1, 3)]
    stroke = replace(prompt(frame_idx=0), kind="stroke", payload="{}")
    odd = replace(prompt(frame_idx=0), payload='{"points_xy": 3}')
    tickets.append_operations(track.ticket_id, track.lease_token, ANN, [*grow, stroke, odd])
    verify = make(tickets, ANN, track, "made")  # two annotated frames, in 2.5 s
    made = tickets.masklet(verify.ticket_id)
    assert (made.click_count, made.edited_frame_count) == (4, 2), "as the figures say, whatever the page does"
    finish(tickets, VERA, Verdict.ACCEPT)
    figures = tickets.figures()
    ann = next(work for work in figures.people if work.name == "ann")
    assert (ann.answers, ann.verdicts) == (1, {"made": 1})
    assert ann.clicks_per_clicked_frame == 4.0  # 1, 1, none for a point taken back, 2
    assert (ann.edited_frames_share, ann.seconds_per_frame, ann.seconds_per_ticket) == (1.0, 1.25, 2.5)
    assert (figures.total.first_pass.right, figures.total.first_pass.of) == (1, 2)
    assert {work.name for work in figures.makers} == {""} and {w.name for w in figures.checkpoints} == {"micro"}
    assert {work.name for work in figures.phases} == {"auto"}
    take_back(tickets, track.ticket_id, ANN)
    assert "ann" not in {work.name for work in tickets.figures().people}


def test_clicks_count_for_the_person_who_made_them(tickets):
    tickets.open_batch("b", verify_tickets(2))
    track = to_track(tickets)
    five = [replace(prompt(frame_idx=4), payload=json.dumps({"points_xy": [[1, 1]] * n})) for n in range(1, 6)]
    tickets.append_operations(track.ticket_id, track.lease_token, ANN, five)
    tickets.release(track.ticket_id, track.lease_token, ANN)
    verify = make(tickets, LEA, claim(tickets, LEA, Kind.TRACK), "made")
    people = {work.name: work for work in tickets.figures().people}
    assert (people["ann"].clicks_per_clicked_frame, people["lea"].clicks_per_clicked_frame) == (5.0, None)
    assert (people["ann"].answers, people["lea"].edited_frames_share) == (0, 0.0)
    assert tickets.figures().total.edited_frames_share == 0.5 and tickets.masklet(verify.ticket_id).click_count == 5
    take_back(tickets, track.ticket_id, LEA)
    assert {work.name for work in tickets.figures().people} == {"vera"}


def test_a_masklet_includes_the_clicks_and_edits_of_its_parent(tickets, clock):
    again = claim(tickets, ANN, ticket_id=sent_back_twice(tickets))
    tickets.append_operations(again.ticket_id, again.lease_token, ANN, [prompt(frame_idx=4)])
    second = claim(tickets, VERA) if (verify := make(tickets, ANN, again, "second")) else None
    assert second.ticket_id == verify.ticket_id
    done = tickets.finish(second.ticket_id, second.lease_token, VERA, outcome(Verdict.REFINE))
    third = claim(tickets, ANN, ticket_id=done.next_ticket_id)
    tickets.append_operations(third.ticket_id, third.lease_token, ANN, [prompt(frame_idx=0), prompt(frame_idx=4)])
    made = tickets.masklet(make(tickets, ANN, third, "third").ticket_id)
    assert (made.click_count, made.edited_frame_count) == (3, 2), "and no more frames than there are"


def test_a_masklet_corrected_by_another_person_is_compared_with_the_first(tickets, clock):
    again = sent_back_twice(tickets)
    clock.advance(tickets.policy.rework_s + 1)
    make(tickets, ANDY, claim(tickets, ANDY, ticket_id=again), "second")
    figures = {work.name: work for work in tickets.figures().people}
    assert figures["andy"].masklet_iou == 1.0 and figures["ann"].masklet_iou is None


def test_the_expected_time_follows_from_the_pace(tickets, clock):
    tickets.open_batch("b", verify_tickets(10))
    assert tickets.figures().batches[0].expected_s is None
    for _ in range(3):
        clock.advance(10)
        finish(tickets, VERA, Verdict.ACCEPT)
    (batch,) = tickets.figures().batches
    assert (batch.open, batch.done, batch.per_hour) == (7, 3, 12.0)
    assert batch.expected_s == pytest.approx(7 * 300)


def test_the_figures_leave_out_batches_that_were_drained_long_ago(tickets, clock):
    for n in range(DRAINED_SHOWN + 2):
        clock.advance(1)
        tickets.open_batch(f"drained-{n}", [replace(each, ticket_id=f"t-{n}") for each in verify_tickets(1)])
        finish(tickets, VERA, Verdict.ACCEPT)
    tickets.open_batch("open", verify_tickets(3))
    found = {batch.batch_id: (batch.done, batch.open) for batch in tickets.figures().batches}
    assert found == {f"drained-{n}": (1, 0) for n in range(2, DRAINED_SHOWN + 2)} | {"open": (0, 3)}
    assert sum(c.tickets for c in tickets.stats().counts) == DRAINED_SHOWN + 5, "the stats count all"


@pytest.mark.parametrize("analysed", [False, True])
def test_the_figures_scan_no_table(sqlite_uri, analysed):
    database = Database(sqlite_uri)
    tickets = TicketStore(database)
    tickets.open_batch("b", verify_tickets(40, frame_count=4))
    for _ in range(20):
        finish(tickets, VERA, Verdict.ACCEPT)
    claim(tickets, VERA)  # SQLite knows nothing of an index without a row
    if analysed:
        with database.write() as c:
            c.exec_driver_sql("ANALYZE")
    plans = []

    def explain(connection, cursor, statement, parameters, context, many):
        if statement.startswith("SELECT") and any(name in statement for name in ("tickets", "leases", "batches")):
            plans.extend(str(row) for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters))

    event.listen(database.engine, "before_cursor_execute", explain)
    tickets.figures()
    tickets.stats()
    read = [plan for plan in plans if "tickets" in plan]
    assert len(read) > 3
    assert not [plan for plan in read if "SCAN tickets" in plan and "tickets_gold" not in plan]
    assert not [plan for plan in read if not any(word in plan for word in ("tickets_gold", ">?", "ticket_id=?"))]
    of_batches = [plan for plan in plans if "tallies" in plan]
    assert of_batches and all("batch_id=?" in plan for plan in of_batches), "nothing of batches that are not shown"
    assert [plan for plan in plans if "leases_lately" in plan] and not [plan for plan in plans if "SCAN leases" in plan]
    database.close()
