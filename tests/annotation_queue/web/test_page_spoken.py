"""What a screen reader says by itself: tickets, verdicts, reasons and the frame that rests, but no played frame."""

from __future__ import annotations

from annotation_queue.records import State

COUNT = """
() => {
  window.said = [];
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) for (const node of addedNodes) window.said.push(node.textContent);
  }).observe(document.querySelector("#spoken"), { childList: true });
  window.painted = 0;
  document.querySelector("#screen").addEventListener("painted", () => window.painted++);
}
"""


# A key that is held: no time passes between its events, however busy the machine is.
HOLD = """
([key, times]) => {
  const press = { key, code: key, bubbles: true, cancelable: true };
  for (let n = 0; n < times; n++) dispatchEvent(new KeyboardEvent("keydown", { ...press, repeat: n > 0 }));
  dispatchEvent(new KeyboardEvent("keyup", press));
}
"""


def said(page):
    return page.tab.evaluate("window.said")


def test_frames_reasons_and_verdicts_are_said(verifying, tickets):
    page = verifying(2)
    region = page.tab.locator("#spoken")
    assert region.get_attribute("aria-live") == "polite" and region.get_attribute("role") == "log"
    page.tab.evaluate(COUNT)
    page.press("]")
    page.until(lambda: "Frame 40, score 0.60, Suspect: low score" in said(page))
    page.press("x")
    page.until(lambda: any(text.startswith("Why? 1 Not an object, 6 Same object") for text in said(page)))
    page.press("7")
    page.until(lambda: len(tickets.find(state=State.DONE)) == 1)
    page.until(lambda: "Verify: Is this mask right in every frame?" in said(page))
    texts = said(page)
    assert texts.index("Reject") < texts.index("Verify: Is this mask right in every frame?")


def test_a_held_key_says_the_last_frame_and_a_playing_video_says_none(verifying):
    page = verifying()
    page.until(lambda: "Frame 0" in page.tab.text_content("#spoken"))
    page.tab.evaluate(COUNT)
    page.tab.evaluate(HOLD, ["ArrowRight", 8])
    page.until(lambda: said(page) != [])
    assert [text[:8] for text in said(page)] == ["Frame 32"]
    before = said(page)
    page.press("Space")
    painted = page.tab.evaluate("window.painted")
    page.until(lambda: page.tab.evaluate("window.painted") > painted + 20)
    assert said(page) == before
    page.press("Space")
    page.until(lambda: said(page) != before)
    assert len(said(page)) == len(before) + 1 and said(page)[-1].startswith(f"Frame {page.named()}")
