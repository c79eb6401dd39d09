"""Room for the video, and help: the panel and the time line fold, the page fills the screen, keys are searched."""

from __future__ import annotations

from annotation_queue.records import State

STAGE = "() => { const b = document.querySelector('#stage').getBoundingClientRect(); return [b.width, b.height]; }"


def test_panel_and_time_line_fold_and_stay_folded(verifying, tickets):
    page = verifying(2)
    wide, tall = page.tab.evaluate(STAGE)
    page.tab.click("#fold-panel")
    page.until(lambda: page.tab.evaluate(STAGE)[0] > wide + 250)
    assert (
        not page.tab.is_visible("#verdict-accept") and page.tab.get_attribute("#fold-panel", "aria-pressed") == "true"
    )
    page.press("Shift+D")
    page.until(lambda: page.tab.evaluate(STAGE)[1] > tall + 100)
    assert not page.tab.is_visible("#timeline") and page.tab.is_visible("#play")
    page.tab.reload()
    page.paused_at_start()
    assert not page.tab.is_visible("#timeline") and not page.tab.is_visible("#verdict-accept")
    assert page.look()["mask"] is not None
    page.press("x")
    page.tab.wait_for_selector(".reason")  # reasons must be read to be chosen
    page.press("Escape", "Shift+P", "Shift+D")
    page.until(lambda: page.tab.is_visible("#verdict-accept") and page.tab.is_visible("#timeline"))
    page.until(lambda: page.tab.evaluate(STAGE) == [wide, tall])
    page.press("Shift+P", "a")
    page.until(lambda: len(tickets.find(state=State.DONE)) == 1)  # the keys work without the panel


def test_the_page_fills_the_screen_and_leaves_it(verifying):
    page = verifying()
    page.press("Shift+F")
    page.until(lambda: page.tab.evaluate("document.fullscreenElement === document.documentElement"))
    page.until(lambda: page.tab.get_attribute("#full-screen", "aria-pressed") == "true")
    page.tab.click("#full-screen")
    page.until(lambda: page.tab.evaluate("document.fullscreenElement === null"))
    page.until(lambda: page.tab.get_attribute("#full-screen", "aria-pressed") == "false")


ROWS = "[...document.querySelectorAll('#keys h3, #keys > span')].map((e) => `${e.tagName} ${e.textContent}`)"


def test_keys_are_grouped_and_found_by_what_they_do(verifying, tickets):
    page = verifying()
    page.press("?")
    page.tab.wait_for_selector("#help[open]")
    rows = page.tab.evaluate(ROWS)
    groups = [row for row in rows if row.startswith("H3")]
    chosen, fixed = (
        ("Answers", "Undo", "Label", "Time", "Masks", "Picture", "Page"),
        ("On the sheet", "In the comments"),
    )
    assert groups == [f"H3 {title}" for title in (*chosen, *fixed)]
    assert rows[0] == "H3 Answers" and "SPAN accept: right in every frame" in rows
    page.tab.keyboard.type("frame back")
    page.until(lambda: len(page.tab.evaluate(ROWS)) == 4)
    assert {row for row in page.tab.evaluate(ROWS) if row.startswith("SPAN")} == {
        "SPAN one annotated frame back",
        "SPAN one frame back, also between annotated frames",
        "SPAN ten annotated frames back",
    }
    assert tickets.find(state=State.DONE) == [], "what is typed is no key of the page"
    page.tab.fill("#find-key", "ctrl enter")
    page.until(lambda: "SPAN send the comment" in page.tab.evaluate(ROWS))
    page.tab.fill("#find-key", "retraining")
    page.until(lambda: page.tab.locator("#help dd:visible").count() == 1)
    assert page.tab.locator("#help dt:visible").all_inner_texts() == ["Round"]
    assert "No key" in page.text("#keys")
    page.tab.fill("#find-key", "opacity")
    page.tab.click("#rebind-opacity")
    page.press("r")
    page.until(lambda: page.text("#rebind-opacity") == "R")
    page.press("Escape")
    page.until(lambda: not page.tab.is_visible("#help"))
    page.press("?")
    page.until(lambda: len(page.tab.evaluate(ROWS)) == len(rows))
    assert page.tab.input_value("#find-key") == ""
