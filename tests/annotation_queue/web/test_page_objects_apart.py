"""Many objects of a video are told apart: by colours, by numbers, and by pointing at one of them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from annotation_queue.records import Reason, State
from storage import rle
from tests.annotation_queue.browsing import FRAMES
from tests.annotation_queue.synthetic_queue import HEIGHT, WIDTH, track_ticket, verify_tickets

# How people see colours: linear RGB times one of these. Machado, Oliveira and Fernandes (2009), severity 1.
SIGHTS = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
WHITE = [0.95047, 1.0, 1.08883]
APART = 15  # CIELAB; a just noticeable difference is 2.3


def lab(colours, sight):
    """Colours 0 to 255, (N, 3), in CIELAB as a person sees them."""
    share = np.asarray(colours) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.asarray(SIGHTS[sight]).T, 0, 1) @ np.transpose(XYZ) / WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@pytest.mark.parametrize("sight", SIGHTS)
def test_twelve_colours_differ_for_every_kind_of_colour_vision(open_page, sight):
    colours = open_page().tab.evaluate(
        """async () => {
          const { colourOf, OWN } = await import("/web/canvas/palette.js");
          return [OWN[0].fill, ...Array.from({ length: 12 }, (_, n) => colourOf(n))];
        }"""
    )
    places = lab(colours, sight)
    near = [(i, j) for i, j in combinations(range(13), 2) if np.linalg.norm(places[i] - places[j]) < APART]
    assert near == []


def square(n):
    """The mask of the n-th of some objects in a row."""
    canvas = np.zeros((HEIGHT, WIDTH), bool)
    canvas[100:140, 20 + 70 * n : 60 + 70 * n] = True
    return canvas


@pytest.fixture
def among_others(open_page, tickets):
    """Opens a tab in which Ann corrects one object beside `count` others, and sees their lanes."""

    def at(count):
        mine = track_ticket(frame_count=FRAMES)
        made = verify_tickets(1, FRAMES)[0]
        assert made.masklet is not None
        others = []
        for n in range(count):
            masks = (rle.encode(square(n)),) * len(made.masklet.frame_idx)
            areas = (1600,) * len(masks)
            masklet = replace(made.masklet, masklet_id=f"other-m{n}", rle=masks, area_px=areas)
            others.append(replace(made, ticket_id=f"other-{n}", masklet=masklet))
        tickets.open_batch("b", [mine, *others])
        page = open_page()
        page.log_in("ann")
        page.correcting(0)
        page.press("v")
        page.until(lambda: page.tab.locator("#other-objects .other").count() == count)
        page.until(lambda: page.outlined(20, 120) != set())
        return page

    return at


def lit(page):
    """The lanes that are lit, by number."""
    return page.tab.evaluate("[...document.querySelectorAll('.other.lit')].map((row) => parseInt(row.innerText))")


# How many pixels of the screen the outline is wide, across a point of the window.
WIDE = """
([x, y]) => {
  const canvas = document.querySelector("#outline");
  const { left, top } = canvas.getBoundingClientRect();
  const { data } = canvas.getContext("2d").getImageData(Math.round(x - left) - 5, Math.round(y - top), 11, 1);
  return data.filter((value, i) => i % 4 === 3 && value === 255).length;
}
"""


def test_an_object_on_the_picture_lights_its_lane_and_a_lane_its_object(among_others):
    page = among_others(7)
    assert lit(page) == []
    page.tab.mouse.move(*page.on_screen(40 + 70 * 5, 120))
    page.until(lambda: lit(page) == [6])
    box, holder = (page.tab.locator(s).bounding_box() for s in ("#other-5", "#other-objects"))
    assert holder["y"] <= box["y"] + 1 and box["y"] + box["height"] <= holder["y"] + holder["height"] + 1, "in view"
    narrow = page.tab.evaluate(WIDE, list(page.on_screen(20, 120)))
    assert page.tab.evaluate(WIDE, list(page.on_screen(20 + 70 * 5, 120))) > narrow
    page.tab.mouse.move(*page.on_screen(40, 300))
    page.until(lambda: lit(page) == [])
    page.tab.hover("#other-1")
    page.until(lambda: lit(page) == [2])
    page.until(lambda: page.tab.evaluate(WIDE, list(page.on_screen(20 + 70, 120))) > narrow)
    page.tab.hover("#play")
    page.until(lambda: lit(page) == [])
    page.tab.focus("#other-3")
    page.until(lambda: lit(page) == [4])


def test_every_object_has_its_number_on_the_picture(among_others):
    page = among_others(8)
    places = [page.on_screen(40 + 70 * n, 120) for n in range(8)]
    badges = [page.tab.evaluate(BADGE, list(place)) for place in places]
    assert all(badge["dark"] > 60 for badge in badges), "a dark ground"
    assert len({badge["ink"] for badge in badges}) == 8, "a number of its own on each"
    assert page.tab.evaluate(BADGE, list(page.on_screen(40, 300))) == {"dark": 0, "ink": ""}


# The number around a point of the window: its dark pixels, and which pixels are light.
BADGE = """
([x, y]) => {
  const canvas = document.querySelector("#outline");
  const { left, top } = canvas.getBoundingClientRect();
  const { data } = canvas.getContext("2d").getImageData(Math.round(x - left) - 7, Math.round(y - top) - 7, 15, 15);
  let [dark, ink] = [0, ""];
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 150 && data[i] < 60) dark++;
    if (data[i + 3] > 150 && data[i] > 180) ink += `${i / 4} `;
  }
  return { dark, ink };
}
"""


def test_beside_an_object_that_one_has_begun_each_choice_keeps_the_number_on_the_picture(among_others, tickets):
    page = among_others(2)
    page.press("n")
    page.until(lambda: "A new object" in page.text("#notice"))
    page.press("b")
    page.drag((300, 200), (360, 220))
    page.settled()
    page.press("m")
    page.until(lambda: page.tab.locator("#other-objects .other").count() == 3)
    page.press("x", str(1 + list(Reason).index(Reason.DUPLICATE)))
    page.until(lambda: page.tab.locator("#verdicts .objects .reason").count() == 2)
    assert page.tab.locator("#verdicts .objects span").all_inner_texts() == ["Object 2", "Object 3"]
    page.press("1")  # it is one's own, and has no masklet yet
    page.press("3")
    page.until(lambda: tickets.ticket("track-1").state is State.DONE)
    assert json.loads(tickets.operations("track-1")[-1].payload)["same_as"] == "other-m1"
