"""The form of a masklet: each rule finds its own fault and names it in one line."""

from __future__ import annotations

import math

import pytest

from storage.masklet_rules import form_problems


def test_a_masklet_of_valid_form_has_no_problem(masklet):
    assert form_problems(masklet()) == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {name: () for name in ("frame_idx", "rle", "area_px", "score", "object_score", "stability")},
            {"lists": "no frames"},
        ),
        ({"stability": (1.0,)}, {"lists": "3 frames, but stability 1"}),
        ({"frame_idx": (-4, 0, 4)}, {"frames": "frame -4 is negative"}),
        ({"frame_idx": (0, 8, 8)}, {"frames": "frame 8 comes after frame 8"}),
        ({"frame_idx": (0, 4, 7)}, {"frames": "frame 7 is not an annotated frame: those are every 4th"}),
        ({"rle": (b"", b"", b"")}, {"rle": "frame 0: no counts (and 2 more)"}),
        ({"object_score": (0.0, math.nan, 0.0)}, {"scores": "frame 4: object_score is not finite"}),
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
    assert form_problems(masklet(**changes)) == expected
