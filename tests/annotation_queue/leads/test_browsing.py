"""The list of tickets that leads look through: its filters, its order, its pages and what a page costs."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from sqlalchemy import event, insert, select

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.leads import browsing
from annotation_queue.leads.acts import Act, Action
from annotation_queue.leads.browsing import Order, Wanted
from annotation_queue.leads.overseeing import Overseeing
from annotation_queue.records import Kind, Reason, State
from annotation_queue.tickets.store import TicketStore
from storage import rle
from storage.records import Verdict
from tests.annotation_queue.annotators import ANN, LEA, VERA, VICTOR, claim, finish, make, to_track, with_policy
from tests.annotation_queue.synthetic_queue import verify_tickets

REASONS = ("", "drift", "wrong_boundary,drift", "duplicate", "other")
PEOPLE = ("vera", "victor", "ann")


def fill(tickets, count, begin=0):
    """Adds tickets of which each column has several values, in all combinations."""
    rows = []
    for n in range(begin, begin + count):
        state = (State.OPEN, State.DONE, State.DONE, State.LEASED)[n % 4]
        done, kind = state is State.DONE, (Kind.VERIFY, Kind.TRACK, Kind.VERIFY)[n % 3]
        verdict = None if not done else (Verdict.ACCEPT, Verdict.REJECT, Verdict.REFINE)[n % 7 % 3]
        reserved = PEOPLE[n % 3] if state is State.OPEN and n % 8 == 0 else None
        rows.append(
            {
                "ticket_id": f"t{n * 7919 % 1_000_003:07d}",
                "batch_id": f"b{n % 11 % 3}",
                "kind": kind.value,
                "video_id": f"v{n % 13}",
                "phase": "auto",
                "priority": 0,
                "payload": "{}",
                "needs_lead": False,
                "attempt": 1,
                "created_at": float(n // 5),
                "ordinal": 0,
                "state": state.value,
                "lease_token": 0,
                "verdict": verdict,
                "reasons": REASONS[n % 5] if verdict not in (None, Verdict.ACCEPT) else "",
                "finished_by": PEOPLE[n % 3] if done else None,
                "leased_by": PEOPLE[n % 3] if state is State.LEASED and n < 60 else None,  # a person holds few
                "reserved_for": reserved,
                "assigned_by": None if reserved is None else "lea",
                "checkpoint": ("micro", "round-1")[n % 9 % 2],
                "label": (None, "cat", "dog")[n % 8 % 3],
                "mean_score": None if n % 10 == 9 else (n * 37 % 100) / 100,
                "agreement": (n % 6) / 5 if done and n % 5 == 0 else None,
            }
        )
    with tickets.database.write() as c:
        c.execute(insert(schema.tickets), rows)


def everything(tickets, wanted, limit=7):
    """The ids of all tickets that are wanted, page by page, and the number of pages."""
    ids, after, pages = [], None, 0
    while True:
        page = Overseeing(tickets).page(wanted, after=after, limit=limit)
        assert len(page.cards) <= limit and page.looked <= browsing.LOOKED
        ids += [card.ticket.ticket_id for card in page.cards]
        after, pages = page.next, pages + 1
        if after is None:
            return ids


def is_wanted(row, wanted):
    """The filters once more, as a person would say them."""
    person = {"open": row.reserved_for, "leased": row.leased_by, "done": row.finished_by}[row.state]
    value = {Order.NEWEST: 0, Order.SCORE: row.mean_score, Order.AGREEMENT: row.agreement}[wanted.order]
    return all(
        (
            value is not None,
            wanted.text in (None, row.ticket_id, row.video_id),
            wanted.state in (None, row.state),
            wanted.kind in (None, row.kind),
            wanted.person in (None, person),
            wanted.batch_id in (None, row.batch_id),
            wanted.verdict in (None, row.verdict),
            wanted.reason is None or wanted.reason in row.reasons.split(","),
            wanted.checkpoint in (None, row.checkpoint),
            wanted.label in (None, row.label),
            wanted.score_from is None or (row.mean_score is not None and row.mean_score >= wanted.score_from),
            wanted.score_to is None or (row.mean_score is not None and row.mean_score <= wanted.score_to),
            wanted.agreement_from is None or (row.agreement is not None and row.agreement >= wanted.agreement_from),
            wanted.agreement_to is None or (row.agreement is not None and row.agreement <= wanted.agreement_to),
        )
    )


FILTERS: dict[str, Any] = {
    "text": "v3",
    "state": State.DONE,
    "kind": Kind.VERIFY,
    "person": "victor",
    "batch_id": "b1",
    "verdict": Verdict.REJECT,
    "reason": Reason.DRIFT,
    "checkpoint": "round-1",
    "label": "dog",
    "score_from": 0.3,
    "score_to": 0.6,
    "agreement_from": 0.2,
    "agreement_to": 0.8,
}
PAIRS: list[dict[str, Any]] = [{a: FILTERS[a], b: FILTERS[b]} for a, b in product(FILTERS, FILTERS) if a <= b]
MORE: list[dict[str, Any]] = [
    {},
    *({"state": state} for state in State),
    {"kind": Kind.SELECT},
    {"state": State.OPEN, "person": "vera"},
]


def test_every_filter_alone_and_with_another_one_finds_the_right_tickets_in_each_order(tickets, monkeypatch):
    monkeypatch.setattr(browsing, "LOOKED", 40)  # so that pages end for this reason, too
    fill(tickets, 240)
    with tickets.database.read() as c:
        rows = list(c.execute(select(schema.tickets)))
    for order, given in product(Order, [*PAIRS, *MORE]):
        wanted = Wanted(order=order, **given)
        key = {Order.NEWEST: "created_at", Order.SCORE: "mean_score", Order.AGREEMENT: "agreement"}[order]
        right = [row for row in rows if is_wanted(row, wanted)]
        right.sort(key=lambda row: (row._mapping[key], row.ticket_id), reverse=order is Order.NEWEST)
        assert everything(tickets, wanted) == [row.ticket_id for row in right], wanted


def test_a_page_goes_on_behind_the_last_one_although_tickets_came_in_between(tickets):
    fill(tickets, 40)
    first = Overseeing(tickets).page(Wanted(), limit=10)
    fill(tickets, 40, begin=40)  # newer ones: before the first page
    second = Overseeing(tickets).page(Wanted(), after=first.next, limit=10)
    seen = [card.ticket.ticket_id for card in (*first.cards, *second.cards)]
    with tickets.database.read() as c:
        t = schema.tickets
        ids = c.scalars(
            select(t.c.ticket_id).where(t.c.created_at < 8).order_by(t.c.created_at.desc(), t.c.ticket_id.desc())
        )
        assert seen == list(ids)[:20]


@pytest.mark.parametrize("after", ["", "x:t", ":", "one"])
def test_an_invalid_place_in_the_list_is_refused(tickets, after):
    with pytest.raises(ValueError, match="not a place in a list"):
        Overseeing(tickets).page(Wanted(), after=after)


COSTS: list[dict[str, Any]] = [
    {},
    {"state": State.OPEN},
    *({name: value} for name, value in FILTERS.items()),
    *PAIRS[::3],
]
ORDERED: list[tuple[Order, dict[str, Any]]] = [(Order.NEWEST, given) for given in COSTS] + [
    (order, {}) for order in (Order.SCORE, Order.AGREEMENT)
]


def steps(database, wanted):
    """How many hundreds of instructions SQLite takes for the second page of a list."""
    taken = []
    with database.read() as c:
        after = browsing.page(c, wanted, None, 20).next
        connection = c.connection.dbapi_connection
        connection.set_progress_handler(lambda: taken.append(1), 100)
        browsing.page(c, wanted, after, 20)
        connection.set_progress_handler(None, 0)
    return len(taken)


def test_a_page_costs_the_same_however_many_tickets_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(browsing, "LOOKED", 200)
    database = Database(f"sqlite:///{tmp_path}/queue.db")
    tickets = TicketStore(database)
    fill(tickets, 8000)  # enough for two pages of the rarest video
    few = [steps(database, Wanted(order=order, **given)) for order, given in ORDERED]
    fill(tickets, 24_000, begin=8000)
    for (order, given), before in zip(ORDERED, few, strict=True):
        now = steps(database, Wanted(order=order, **given))
        assert now <= 1.3 * before + 30, (order, given, before, now)
    database.close()


def test_every_part_of_a_list_reads_an_index_in_the_order_of_the_list(tickets):
    fill(tickets, 300)
    plans = {}

    def explain(connection, cursor, statement, parameters, context, many):
        if "ORDER BY" in statement and not statement.startswith("EXPLAIN"):
            prefix = "EXPLAIN QUERY PLAN " if tickets.database.is_sqlite else "EXPLAIN "
            if not tickets.database.is_sqlite:
                connection.exec_driver_sql("SET enable_seqscan = off")  # a small table is read as a whole otherwise
                connection.exec_driver_sql("SET enable_bitmapscan = off")
            plans[str(given)] = [str(row) for row in connection.exec_driver_sql(prefix + statement, parameters)]

    event.listen(tickets.database.engine, "before_cursor_execute", explain)
    for _, given in ORDERED:
        if "text" not in given:  # two indexes, and few tickets: they are sorted
            Overseeing(tickets).page(Wanted(**given), after="50.0:t", limit=5)
    event.remove(tickets.database.engine, "before_cursor_execute", explain)
    assert len(plans) > 20
    for filters, plan in plans.items():
        assert not any("SCAN tickets" in line and "USING INDEX" not in line for line in plan), (filters, plan)
        assert not any("Seq Scan on tickets" in line for line in plan), (filters, plan)


# --- what a card says ----------------------------------------------------------------------------------------------


def cards(tickets, **wanted):
    return {card.ticket.ticket_id: card for card in Overseeing(tickets).page(Wanted(**wanted)).cards}


def test_a_card_says_who_a_ticket_is_assigned_to_and_who_reopened_it(tickets):
    tickets.open_batch("b", verify_tickets(2))
    finish(tickets, VERA, Verdict.ACCEPT)
    oversee = Overseeing(tickets)
    oversee.act(Act(act_id="r", action=Action.REOPEN, by=LEA), ["ticket-0000"])
    oversee.act(Act(act_id="a", action=Action.ASSIGN, by=LEA, to=VICTOR), ["ticket-0001"])
    follower_id = tickets.ticket("ticket-0000").next_ticket_id
    found = cards(tickets)
    assert (found["ticket-0001"].assigned_to, found["ticket-0001"].assigned_by) == ("victor", "lea")
    assert found[follower_id].reopened_by == "lea" and found["ticket-0000"].settled is None
    finish(tickets, VICTOR, Verdict.ACCEPT)
    assert cards(tickets)["ticket-0001"].assigned_to is None, "it is done"


def test_a_ticket_has_the_mean_score_of_its_masklet_also_after_a_correction(tickets):
    [ticket] = verify_tickets(1)
    assert ticket.masklet is not None
    masklet, nothing = ticket.masklet, rle.empty(ticket.masklet.height, ticket.masklet.width)
    absent = replace(masklet, rle=(nothing, *masklet.rle[1:]), area_px=(0, *masklet.area_px[1:]))
    absent = replace(absent, score=(0.0, *(0.5,) * 11))
    tickets.open_batch("b", [replace(ticket, masklet=absent)])
    assert cards(tickets)["ticket-0000"].score == pytest.approx(0.5), "where the object is absent, no score counts"
    track = to_track(tickets)
    assert cards(tickets)[track.ticket_id].score == pytest.approx(0.5)
    verify = make(tickets, ANN, track, "made")
    assert cards(tickets)[verify.ticket_id].score == pytest.approx(0.75), "one of two masks is drawn"


def test_tickets_with_several_answers_have_an_agreement(tickets):
    tickets = with_policy(tickets, overlap=3, overlap_share=1.0)
    tickets.open_batch("b", verify_tickets(1))
    for person, verdict in ((VERA, Verdict.ACCEPT), (VICTOR, Verdict.ACCEPT)):
        finish(tickets, person, verdict)
        assert cards(tickets)["ticket-0000"].agreement is None, "an answer is missing"
    finish(tickets, LEA, Verdict.REFINE)
    assert cards(tickets)["ticket-0000"].agreement == pytest.approx(1 / 3), "one of three pairs agrees"


def test_masklets_of_several_makers_have_their_mean_iou_as_agreement(tickets):
    tickets = with_policy(tickets, makers=2, makers_share=1.0)
    tickets.open_batch("b", verify_tickets(1))
    finish(tickets, VERA, Verdict.REFINE)
    last = None
    for name in ("ann", "andy"):
        person = replace(ANN, name=name)
        held = claim(tickets, person)
        last = held.ticket_id
        make(tickets, person, held, f"by-{name}")
    assert cards(tickets)[last].agreement == pytest.approx(1.0), "both made the same masks"
