"""The rules of a valid masklet: each finds its own fault and names it in one line."""

from __future__ import annotations

import math

import pytest

from storage import rle
from storage.masklet_rules import MAX_COUNT, RULES, masklet_problems


def test_a_valid_masklet_breaks_no_rule(masklet):
    assert masklet_problems(masklet()) == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {name: () for name in ("frame_idx", "rle", "area_px", "score", "object_score", "stability")},
            {"lists": "no frames", "empty": "the object is in none of 0 frames"},
        ),
        ({"stability": (1.0,)}, {"lists": "3 frames, but stability 1"}),
        ({"frame_idx": (-4, 0, 4)}, {"frames": "frame -4 is negative"}),
        ({"frame_idx": (0, 8, 8)}, {"frames": "frame 8 comes after frame 8"}),
        ({"frame_idx": (0, 4, 7)}, {"frames": "frame 7 is not an annotated frame: those are every 4th"}),
        ({"rle": (b"", b"", b"")}, {"rle": "frame 0: no counts (and 2 more)"}),
        ({"object_score": (0.0, math.nan, 0.0)}, {"scores": "frame 4: object_score is not finite"}),
        ({"round": -1}, {"round": f"round -1 is not between 0 and {MAX_COUNT}"}),
        ({"round": 2**70}, {"round": f"round {2**70} is not between 0 and {MAX_COUNT}"}),
        ({"click_count": 2**40}, {"counts": f"0 edited frames of 3, {2**40} clicks"}),
        ({"frame_idx": (0, 4, 2**40)}, {"frames": f"frame {2**40} is past the end of any video"}),
        ({"area_px": (48, 2**40, 0)}, {"area": f"frame 4: {2**40} px, its mask has 48"}),
        ({"label": "x" * 201}, {"label": f"its label '{'x' * 79} is empty, or longer than 200 characters"}),
        ({"attributes": "[]"}, {"label": "its attributes are not a JSON object: '[]'"}),
        ({"attributes": '{"a": [1]}'}, {"label": "its attribute 'a' is not a text, a number, true or false"}),
        ({"attributes": '{"a": NaN}'}, {"label": "its attribute 'a' is not a text, a number, true or false"}),
        (
            {"frame_idx": (0, 4), "rle": (b"",) * 3},
            {
                "lists": "2 frames, but rle 3, area_px 3, score 3, object_score 3, stability 3",
                "rle": "frame 0: no counts (and 2 more)",
            },
        ),
    ],
)
def test_each_rule_says_what_is_wrong(masklet, changes, expected):
    assert masklet_problems(masklet(**changes)) == expected


def test_every_rule_has_a_meaning_that_people_can_read(masklet, video):
    """`RULES` is what the card of a release says: a rule without a meaning would be missing there."""
    broken = {
        "frame_idx": (-4, 0, 4),
        "stability": (1.0,),
        "score": (math.nan, 0.0, 0.0),
        "height": 12,
        "round": -1,
        "click_count": -1,
        "kind": "other",
        "label": " ",
    }
    wrong_area = {"area_px": (1, 2, 3)}
    no_object = {"rle": (rle.empty(24, 32),) * 3, "area_px": (0, 0, 0)}
    found = [masklet_problems(masklet(**changes), video()) for changes in (broken, wrong_area, no_object)]
    assert {name for of in found for name in of} == set(RULES)
