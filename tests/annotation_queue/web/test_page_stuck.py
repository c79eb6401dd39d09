"""The lead's page names what the pipeline is stuck at."""

from __future__ import annotations

from annotation_queue.records import Stuck

BATCH = "3f9c0a11d2e4b567"
LONG = (
    "batch 3f9c0a11d2e4b567: 61 % of the masklets were quarantined, at most 50 % may be; expect_column_values_to_be_"
    "between failed on area_px for 118 of 212 rows; see /srv/masklets/home/data-docs/3f9c0a11d2e4b567/index.html"
)


def test_a_lead_reads_what_is_stuck_and_no_text_leaves_its_row(open_page, stuck):
    stuck += [
        Stuck(batch_id="", stage="ingest", error="s3://raw/videos: the bucket does not answer", since=1764400000.0),
        Stuck(batch_id=BATCH, stage="publish", error=LONG, since=1764300000.0),
        Stuck(batch_id="0" * 16, stage="auto-masklets", error="<b>CUDA</b> out of memory", since=1764390000.0),
    ]
    page = open_page()
    page.log_in("lea")
    page.shows("message")
    page.tab.goto(f"{page.url}/web/lead.html")
    rows = page.tab.locator("#stuck tbody tr")
    page.until(lambda: rows.count() == 3)
    cells = [rows.nth(i).locator("td").all_inner_texts() for i in range(3)]
    assert [(batch, stage, error) for batch, stage, _, error in cells] == [
        ("–", "ingest", "s3://raw/videos: the bucket does not answer"),
        (BATCH, "publish", LONG),
        ("0" * 16, "auto-masklets", "<b>CUDA</b> out of memory"),
    ]
    since = [page.tab.evaluate("s => new Date(1000 * s).toLocaleString()", s.since) for s in stuck]
    assert [cell[2] for cell in cells] == since
    for section in ("#stuck", "main"):  # a long error wraps: nothing is cut off or must be scrolled to
        assert page.tab.locator(section).evaluate("e => e.scrollWidth <= e.clientWidth"), section


def test_the_leads_page_says_that_nothing_is_stuck(open_page):
    page = open_page()
    page.log_in("lea")
    page.shows("message")
    page.tab.goto(f"{page.url}/web/lead.html")
    page.until(lambda: page.text("#stuck") == "No stage fails.")
