"""How the masks look on the page: their outlines, colours and opacity, many objects told apart."""

from __future__ import annotations

import numpy as np
import pytest

from storage import rle
from tests.annotation_queue.browsing import shapes
from tests.annotation_queue.synthetic_queue import RADIUS, centre

LINE = (214, 196, 255)  # the colour of the outline


def bordered(inside: np.ndarray, scale: int, thick: int) -> np.ndarray:
    """Where the outline of a mask is, at `scale` pixels of the screen for each of the mask, bool.

    Around each edge between a pixel inside and one outside, `thick` px wide; the frame's border is no edge.
    """
    height, width = inside.shape
    found = np.zeros((height * scale, width * scale), bool)

    def box(y0: int, y1: int, x0: int, x1: int) -> None:
        found[max(0, y0 - thick // 2) : y1 + thick // 2, max(0, x0 - thick // 2) : x1 + thick // 2] = True

    for y, x in np.argwhere(inside[1:] != inside[:-1]):
        box((y + 1) * scale, (y + 1) * scale, x * scale, (x + 1) * scale)
    for y, x in np.argwhere(inside[:, 1:] != inside[:, :-1]):
        box(y * scale, (y + 1) * scale, (x + 1) * scale, (x + 1) * scale)
    return found


DRAW = """
async ([sent, scale, thick]) => {
  const { Outline } = await import("/web/canvas/outline.js");
  const { runs, spans } = await import("/web/shared/rle.js");
  const canvas = document.createElement("canvas");
  document.body.append(canvas);
  const outline = new Outline(canvas);
  const place = { left: 0, top: 0, scale };
  return sent.map(([counts, height, width]) => {
    Object.assign(canvas.style, { position: "fixed", width: `${width * scale}px`, height: `${height * scale}px` });
    const line = (counts) => ({ spans: spans(runs(counts), height, width), colour: [1, 2, 3], thick });
    outline.draw([line(counts)], [], place, height);
    outline.draw([line(counts)], [], place, height); // what was drawn before leaves no trace
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((_, i) => i % 4 === 0).join("");
  });
}
"""


@pytest.mark.parametrize(("scale", "thick"), [(1, 2), (3, 2), (4, 4)])
def test_an_outline_follows_the_edges_of_a_mask(open_page, scale, thick):
    masks = shapes(4)
    drawn = open_page().tab.evaluate(DRAW, [[[rle.encode(m).decode(), *m.shape] for m in masks], scale, thick])
    for inside, pixels in zip(masks, drawn, strict=True):
        expected = bordered(inside, scale, thick).astype(int)
        assert pixels == "".join(map(str, expected.ravel())), inside.shape


# The lengths of the stretches of the outline's colour along a row of screen pixels through a point of the video.
ACROSS = """
([x, y, colour]) => {
  const [screen, outline] = ["#screen", "#outline"].map((id) => document.querySelector(id));
  const [picture, stage] = [screen, outline].map((canvas) => canvas.getBoundingClientRect());
  const scale = Math.min(picture.width / screen.width, picture.height / screen.height);
  const top = picture.top + (picture.height - screen.height * scale) / 2 - stage.top;
  const row = Math.round((top + y * scale) * (outline.width / stage.width));
  const { data } = outline.getContext("2d").getImageData(0, row, outline.width, 1);
  const found = [];
  for (let i = 0, run = 0; i <= data.length; i += 4) {
    if (colour.every((value, k) => data[i + k] === value) && data[i + 3] === 255) run++;
    else if (run) { found.push(run); run = 0; }
  }
  return found;
}
"""


ZOOM = "new DOMMatrix(getComputedStyle(document.querySelector('#screen')).transform).a"


@pytest.mark.parametrize("ratio", [1, 2])
def test_an_outline_is_as_thin_at_every_zoom(verifying, ratio):
    page = verifying()
    session = page.context.new_cdp_session(page.tab)
    size = {"width": 1280, "height": 720, "deviceScaleFactor": ratio, "mobile": False}
    session.send("Emulation.setDeviceMetricsOverride", size)
    page.press("ArrowRight", "Home")  # drawn again, for the new ratio
    page.at(0)
    x, y = centre(0)[0] + RADIUS, centre(0)[1]
    page.tab.mouse.move(*page.on_screen(x, y))
    zoom = 0.0
    while zoom < 7:
        page.until(lambda before=zoom: page.tab.evaluate(ZOOM) > before)
        zoom = page.tab.evaluate(ZOOM)
        widths = page.tab.evaluate(ACROSS, [x, y + 0.5, LINE])
        # where two rows of the mask meet, both edges show
        assert widths and max(widths) <= 2 * ratio + 2, (zoom, widths)
        page.tab.mouse.wheel(0, -180)


PIXEL = "c => [...document.querySelector('#screen').getContext('2d').getImageData(c[0], c[1], 1, 1).data]"


def test_the_opacity_of_the_masks_is_chosen_and_kept(verifying):
    page = verifying()
    at = list(centre(0))
    page.tab.keyboard.down("h")
    bare = page.tab.evaluate(PIXEL, at)
    page.tab.keyboard.up("h")
    page.until(lambda: page.tab.evaluate(PIXEL, at) != bare)
    usual = page.tab.evaluate(PIXEL, at)
    page.tab.click("#view")
    page.tab.fill("#opacity", "1")
    page.until(lambda: page.tab.evaluate(PIXEL, at) == [165, 123, 255, 255])
    page.tab.fill("#opacity", "0")
    page.until(lambda: page.tab.evaluate(PIXEL, at) == bare)
    assert page.look()["mask"] is not None, "the outline stays"
    page.tab.fill("#opacity", "1")
    page.tab.reload()
    page.paused_at_start()
    page.until(lambda: page.tab.evaluate(PIXEL, at) == [165, 123, 255, 255] != usual)
    page.press("Shift+O")
    page.until(lambda: page.tab.evaluate(PIXEL, at) == bare)
