"""The lead's page names what the pipeline is stuck at, and where the campaign stands."""

from __future__ import annotations

from annotation_queue.records import PlannedPhase, Stuck

BATCH = "3f9c0a11d2e4b567"
LONG = (
    "batch 3f9c0a11d2e4b567: 61 % of the masklets were quarantined, at most 50 % may be; expect_column_values_to_be_"
    "between failed on area_px for 118 of 212 rows; see /srv/masklets/home/data-docs/3f9c0a11d2e4b567/index.html"
)


def on_the_leads_page(open_page):
    page = open_page()
    page.log_in("lea")
    page.shows("message")
    page.tab.goto(f"{page.url}/web/lead.html")
    return page


def test_a_lead_reads_what_is_stuck_and_no_text_leaves_its_row(open_page, stuck):
    stuck += [
        Stuck(batch_id="", stage="ingest", error="s3://raw/videos: the bucket does not answer", since=1764400000.0),
        Stuck(batch_id=BATCH, stage="publish", error=LONG, since=1764300000.0),
        Stuck(batch_id="0" * 16, stage="auto-masklets", error="<b>CUDA</b> out of memory", since=1764390000.0),
    ]
    page = on_the_leads_page(open_page)
    rows = page.tab.locator("#stuck tbody tr")
    page.until(lambda: rows.count() == 3)
    cells = [rows.nth(i).locator("td").all_inner_texts() for i in range(3)]
    assert [(batch, stage, error) for batch, stage, _, error in cells] == [
        ("–", "ingest", "s3://raw/videos: the bucket does not answer"),
        (f"{BATCH[:8]}…", "publish", LONG),
        ("00000000…", "auto-masklets", "<b>CUDA</b> out of memory"),
    ]
    since = [page.tab.evaluate("s => new Date(1000 * s).toLocaleString()", s.since) for s in stuck]
    assert [cell[2] for cell in cells] == since
    for section in ("#stuck", "main"):  # a long error wraps: nothing is cut off or must be scrolled to
        assert page.tab.locator(section).evaluate("e => e.scrollWidth <= e.clientWidth"), section


def test_the_leads_page_says_that_nothing_is_stuck(open_page):
    page = on_the_leads_page(open_page)
    page.until(lambda: page.text("#stuck") == "No stage fails.")
    assert not page.tab.locator("#campaign-title").is_visible()  # no campaign is planned


def test_a_lead_reads_where_the_campaign_stands(open_page, plan):
    for phase, state, masklets, planned, retrainings, planned_retrainings in (
        ("1", "done", 430, 400, 0, 0),
        ("2", "current", 7, None, 1, 2),
        ("3", "planned", 0, 900, 0, 5),
    ):
        plan.append(
            PlannedPhase(
                phase=phase,
                state=state,
                masklets=masklets,
                planned_masklets=planned,
                retrainings=retrainings,
                planned_retrainings=planned_retrainings,
            )
        )
    page = on_the_leads_page(open_page)
    rows = page.tab.locator("#campaign tbody tr")
    page.until(lambda: rows.count() == 3)
    assert [rows.nth(i).locator("td").all_inner_texts() for i in range(3)] == [
        ["1", "done", "430 of 400", "–"],
        ["2", "current", "–", "1 of 2"],
        ["3", "planned", "0 of 900", "0 of 5"],
    ]
    assert page.tab.locator("#campaign-title").is_visible()
