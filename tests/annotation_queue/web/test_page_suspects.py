"""Suspect frames: a threshold of the score that a person can move, with an axis on the lane of the scores."""

from __future__ import annotations

import pytest

from tests.annotation_queue.browsing import FRAMES

AXIS_X = 60  # px from the left edge of the strip, where its axis of scores is


def suspects(page):
    return page.text("#suspects")


def test_the_threshold_of_suspect_frames_can_be_moved_and_is_kept(verifying):
    page = verifying()
    page.press("]")
    page.at(40)
    assert "low score" in page.text("#badges")
    page.tab.click("#view")
    assert page.tab.input_value("#threshold") == "0.75"
    page.tab.fill("#threshold", "0.5")  # the lowest score is 0.56
    page.until(lambda: "low score" not in page.text("#badges"))
    page.press("Escape", "Home", "]")
    page.until(lambda: page.named() > 40)
    page.tab.click("#view")
    page.tab.fill("#threshold", "0.99")
    page.until(lambda: "low score" in page.text("#badges") or "Absent" in page.text("#badges"))
    page.press("Escape", "Home")
    page.at(0)
    page.until(lambda: "low score" in page.text("#badges"))
    page.tab.reload()
    page.paused_at_start()
    page.until(lambda: "low score" in page.text("#badges"))
    assert page.tab.input_value("#threshold") == "0.99"


# The rows of the strip that have the dashed line of the threshold, in px of the page.
DASHES = """
(x) => {
  const strip = document.querySelector("#timeline");
  const ratio = strip.width / strip.clientWidth;
  const c = strip.getContext("2d");
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = "var(--refine)";
  const [r, g, b] = getComputedStyle(probe).color.match(/[0-9.]+/g).map(Number);
  probe.remove();
  const { data } = c.getImageData(Math.round(x * ratio), 0, 1, strip.height);
  const rows = [];
  for (let y = 0; y < strip.height; y++) {
    const at = [0, 1, 2].map((k) => Math.abs(data[4 * y + k] - [r, g, b][k]));
    if (Math.max(...at) < 40) rows.push(y / ratio);
  }
  return rows;
}
"""


DRAWN_WIDE = "document.querySelector('#timeline').width / devicePixelRatio"


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (2560, 1440)])
def test_the_threshold_is_dragged_on_the_axis_of_the_scores(verifying, size):
    page = verifying()
    page.tab.set_viewport_size({"width": size[0], "height": size[1]})
    strip = page.tab.locator("#timeline")
    large = float(page.tab.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--large')"))
    page.until(lambda: abs(page.tab.evaluate(DRAWN_WIDE) - strip.bounding_box()["width"]) < 2)
    box = strip.bounding_box()
    handle = page.tab.evaluate(DASHES, (AXIS_X + 8) * large)
    middle = box["y"] + sum(handle) / len(handle)
    page.tab.mouse.move(box["x"] + AXIS_X * large, middle)
    page.tab.mouse.down()
    page.tab.mouse.move(box["x"] + AXIS_X * large, middle - 200)
    page.until(lambda: page.tab.input_value("#threshold") == "1")
    assert page.named() == 0, "the drag is no seek"
    page.tab.mouse.move(box["x"] + AXIS_X * large, middle + 200)
    page.until(lambda: page.tab.input_value("#threshold") == "0.5")
    page.tab.mouse.up()
    page.tab.mouse.click(box["x"] + box["width"] - 20 * large, middle)
    page.until(lambda: page.named() > FRAMES - 20)
    assert page.tab.input_value("#threshold") == "0.5", "a click elsewhere seeks"
