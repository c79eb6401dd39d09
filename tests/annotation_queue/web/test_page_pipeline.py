"""The page about the pipeline: why batches wait, and how a lead releases a file from quarantine by the keyboard."""

from __future__ import annotations

import time

import pytest

from annotation_queue.pipeline_records import BatchTickets, DocsOfBatch, ModelTimes, PoolUse, Serving, Workers
from annotation_queue.records import Batch, Kind, State, TicketCount
from tests.annotation_queue.pipelines import failing, refused, waiting

BATCH = "3f9c0a11d2e4b567"
LONG = "61 % of the masklets were quarantined, at most 50 % may be; see /srv/masklets/home/data-docs/" + "x" * 120


@pytest.fixture
def at_pipeline(open_page):
    """Opens the page as Lea."""

    def opened():
        page = open_page()
        page.log_in("lea")
        page.shows("message")
        page.tab.goto(f"{page.url}/web/pipeline.html")
        page.until(lambda: page.text("#age").startswith("as of"))
        return page

    return opened


def test_a_lead_reads_why_each_batch_waits_and_no_text_leaves_the_page(at_pipeline, pipeline):
    pipeline.batches += [failing(BATCH, LONG), waiting("0" * 16, name="kitchen", quarantined=2)]
    page = at_pipeline()
    first, second = page.tab.locator("#waiting .one").all()
    assert "failing" in first.get_attribute("class") and LONG in first.inner_text()
    said = second.inner_text()
    for text in ("kitchen", "20 videos · micro", "2 quarantined", "Waits for auto-masklets: 13 of 20 videos"):
        assert text in said
    bars = second.locator(".share")
    assert [bar.get_attribute("aria-label") for bar in bars.all()[:2]] == [
        "ingest: 20 of 20 videos",
        "auto-masklets: 13 of 20 videos",
    ]
    width = bars.nth(1).locator("i").evaluate("i => i.offsetWidth / i.parentElement.offsetWidth")
    assert abs(width - 13 / 20) < 0.02
    assert page.tab.locator("main").evaluate("e => e.scrollWidth <= e.clientWidth")
    assert "1 of them failing" in page.text("#facts")


def test_a_batch_of_which_nothing_is_known_shows_what_is_wrong_and_the_sums_say_what_they_cover(at_pipeline, pipeline):
    pipeline.batches.append(failing(BATCH, "no JSON", videos=0, stages=()))
    pipeline.more = 7
    page = at_pipeline()
    said = page.tab.locator("#waiting .one").inner_text()
    assert "no JSON" in said and "0 videos" not in said and page.tab.locator("#waiting .stages").count() == 0
    assert "0 held by people, of the batches below" in page.text("#facts")


def test_the_rate_of_all_reviews_is_shown_beside_the_time_that_is_left(at_pipeline, pipeline):
    for n, an_hour in enumerate((40.0, 8.4)):
        tickets = BatchTickets(
            batch=Batch(batch_id=f"{n:016x}", opened_at=0.0, sealed=True, total=9, remaining=3, drained=False),
            counts=(TicketCount(kind=Kind.VERIFY, state=State.OPEN, needs_lead=False, tickets=3),),
            oldest_open=None,
            oldest_held=None,
            an_hour=an_hour,
            expected_end=time.time() + 3600,
            delivered=False,
            delivery_error=None,
            next_delivery=None,
        )
        pipeline.batches.append(waiting(f"{n:016x}", tickets=tickets, due=tickets.expected_end))
    assert "48 tickets an hour in the last 15 minutes" in at_pipeline().text("#facts")


def test_workers_the_model_and_the_newest_checks_are_shown(at_pipeline, pipeline):
    pools = (
        PoolUse(name="gpu", slots=2, running=1, queued=5),
        PoolUse(name="default_pool", slots=-1, running=0, queued=0),
    )
    pipeline.workers = Workers(url="http://airflow", scheduler_seen=time.time() - 600, pools=pools)
    times = (ModelTimes(what="click", answers=40, mean_s=0.21, p95_s=0.5),)
    pipeline.serving = Serving(checkpoint="round-3", round=3, live="round-2", times=times)
    pipeline.docs_of = (DocsOfBatch(batch_id=BATCH, built_at=1.0, pages={"masklets": "results.html"}),)
    (pipeline.folder / "results.html").write_text("<html><head></head><body>16 of 16 hold</body></html>")
    page = at_pipeline()
    rows = [row.locator("td").all_inner_texts() for row in page.tab.locator("#workers tbody tr").all()]
    assert rows == [["gpu", "2", "1", "5"], ["default_pool", "no limit", "0", "0"]]
    assert page.tab.locator("#serving tbody tr").inner_text().split("\t") == [
        "a click",
        "40",
        "0.21",
        "0.50",
        "round-2",
    ]
    scheduler = page.tab.locator("#facts .bad").inner_text()
    assert "10 min ago" in scheduler  # it has not been seen for too long
    with page.context.expect_page() as opened:
        page.tab.click("#docs a")
    opened.value.wait_for_load_state()
    assert opened.value.inner_text("body") == "16 of 16 hold"


def test_a_file_is_released_by_the_keyboard_with_a_reason(at_pipeline, pipeline):
    pipeline.rows += [refused("row-1"), refused("row-2", "copy.mp4", "duplicate", None)]
    page = at_pipeline()
    assert page.tab.locator("#release-row-2").count() == 0  # no release helps a duplicate
    page.tab.focus("#release-row-1")
    page.press("Enter")
    page.tab.wait_for_selector("#decide[open]")
    assert page.tab.evaluate("document.activeElement.id") == "decide-why"
    assert "The next ingest admits it from two frames on." in page.text("#decide-text")
    page.press("Tab", "Tab", "Enter")  # without a reason, the browser asks for one
    assert page.tab.locator("#decide[open]").count() == 1 and pipeline.rows[0].acts == ()
    page.tab.fill("#decide-why", "the only video of this animal")
    page.press("Tab", "Tab", "Enter")
    page.until(lambda: "Waits for the next ingest" in page.text("#quarantine"))
    (act,) = pipeline.rows[0].acts
    assert (act.by, act.action, act.why) == ("lea", "release", "the only video of this animal")
    assert "Released by lea" in page.text("#quarantine") and page.tab.locator("#release-row-1").count() == 0


def test_an_error_stays_in_the_dialog_and_escape_leaves_it(at_pipeline, pipeline):
    pipeline.rows.append(refused("row-1"))
    page = at_pipeline()
    page.tab.click("#seen-row-1")
    pipeline.rows.clear()  # meanwhile, another person's release was honoured
    page.tab.fill("#decide-why", "known")
    page.tab.click("#decide-yes")
    page.until(lambda: page.text("#decide-error") == "there is no row row-1 in quarantine")
    page.press("Escape")
    page.until(lambda: page.tab.locator("#decide[open]").count() == 0)


def test_the_quarantine_is_filtered_by_reason_and_by_text(at_pipeline, pipeline):
    pipeline.rows += [refused(f"row-{n}", f"clip{n}.mp4") for n in range(60)]
    pipeline.rows.append(refused("row-x", "x.mp4", "duplicate", None))
    page = at_pipeline()
    rows = page.tab.locator("#quarantine tbody tr")
    page.until(lambda: rows.count() == 50)
    assert page.text("#more") == "Show more of 61"
    page.tab.click("#more")
    page.until(lambda: rows.count() == 61)
    page.tab.select_option("#wanted [name=reason]", "duplicate")
    page.until(lambda: rows.count() == 1)
    page.tab.select_option("#wanted [name=reason]", "")
    page.tab.fill("#wanted [name=text]", "clip7.")
    page.until(lambda: rows.count() == 1 and "clip7.mp4" in rows.inner_text())


def test_after_a_decision_no_undecided_row_is_skipped(at_pipeline, pipeline):
    pipeline.rows += [refused(f"row-{n}", f"clip{n}.mp4") for n in range(60)]
    page = at_pipeline()
    page.tab.check("#wanted [name=undecided]")
    rows = page.tab.locator("#quarantine tbody tr")
    page.until(lambda: pipeline.asked["undecided"] and rows.count() == 50)
    page.tab.click("#seen-row-0")
    page.tab.fill("#decide-why", "known")
    page.tab.click("#decide-yes")
    page.until(lambda: "Seen by lea" in page.text("#quarantine"))
    page.tab.click("#more")
    page.until(lambda: page.tab.locator("#more").is_hidden())
    assert rows.count() == 60


def test_others_than_leads_are_told_that_the_page_is_not_for_them(open_page):
    page = open_page()
    page.log_in("vera")
    page.shows("message")
    page.tab.goto(f"{page.url}/web/pipeline.html")
    page.until(lambda: page.text("#error") == "This page is for leads and admins.")
