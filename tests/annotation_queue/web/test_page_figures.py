"""How the lead's page writes figures: aligned, with units and legends, each thing once."""

from __future__ import annotations

import pytest

from annotation_queue.records import Reason
from storage.records import Verdict
from tests.annotation_queue.annotators import VERA, VICTOR, finish
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import track_ticket, verify_tickets


@pytest.fixture
def figures(open_page, tickets):
    """The lead's page over a batch of two kinds, in which Vera and Victor have given verdicts."""
    tickets.open_batch("b", [*verify_tickets(12, FRAMES), track_ticket(frame_count=FRAMES)])
    for _ in range(10):
        finish(tickets, VERA, Verdict.ACCEPT)
    finish(tickets, VICTOR, Verdict.REJECT, Reason.DUPLICATE)
    page = open_page()
    page.log_in("lea")
    page.shows("work")
    page.tab.goto(f"{page.url}/web/lead.html")
    page.until(lambda: page.tab.locator("#judging tbody tr").count() == 2)
    return page


def cells(page, rows):
    return [row.locator("td").all_inner_texts() for row in page.tab.locator(rows).all()]


def test_a_batch_is_named_once_and_leads_to_its_tickets(figures):
    names = figures.tab.locator("#batches td.first")
    figures.until(lambda: names.first.inner_text().startswith("b · "))  # with its date, which is asked for
    assert names.count() == 1 and names.first.get_attribute("rowspan") == "2"
    figures.tab.click("#batches a")
    figures.until(lambda: figures.tab.locator(".card-of").count() == 13)


def test_the_sum_of_all_people_is_a_line_of_its_own_unless_there_is_one_person(figures):
    assert [row[:2] for row in cells(figures, "#figures tbody tr")] == [["vera", "10"], ["victor", "1"]]
    assert [row[:2] for row in cells(figures, "#figures tfoot tr")] == [["everybody", "11"]]
    figures.tab.click("#by [value=phases]")
    figures.until(lambda: cells(figures, "#figures tbody tr")[0][0] == "auto")
    assert cells(figures, "#figures tfoot tr") == []


RIGHT_EDGES = """
(table) => [...table.querySelectorAll("tbody tr, tfoot tr")].map((row) => [...row.querySelectorAll("td.number")]
  .map((cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return Math.round(range.getBoundingClientRect().right);
  }))
"""


def test_the_numbers_of_a_column_end_at_the_same_place(figures):
    ends = figures.tab.locator("#figures table").evaluate(RIGHT_EDGES)
    assert len(ends) == 3 and len(ends[0]) == 8
    assert all(len({row[n] for row in ends}) == 1 for n in range(8)), ends


def test_every_bar_has_a_legend_and_every_measure_its_unit(figures):
    heads = [" ".join(text.split()) for text in figures.tab.locator("#figures th").all_inner_texts()]
    assert "Time s a ticket" in heads and "Frames edited %" in heads
    for section in ("#batches", "#figures", "#judging"):
        keys = figures.tab.locator(f"{section} .legend .key")
        assert keys.count() >= 2, section
        clear = "keys => keys.filter(key => getComputedStyle(key).backgroundColor === 'rgba(0, 0, 0, 0)').length"
        assert keys.evaluate_all(clear) == 0, "each key has its colour"


def test_figures_that_have_not_changed_are_not_drawn_again(figures):
    figures.tab.focus("#judging a")
    age = figures.text("#age")
    figures.until(lambda: figures.text("#age") != age)  # the figures were asked for again
    assert figures.tab.evaluate("document.activeElement.closest('#judging') !== null")
    assert figures.tab.evaluate("document.activeElement.tagName") == "A"
