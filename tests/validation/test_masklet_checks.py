"""Each check of a masklet finds its own fault and no other."""

from __future__ import annotations

import math

import pytest

from storage import rle
from validation import masklet_checks


def test_a_valid_masklet_has_no_problem(masklet, video):
    assert masklet_checks.problems(masklet(), video()) == []
    assert masklet_checks.problems(masklet(), None) == []


@pytest.mark.parametrize(
    ("changes", "check", "says"),
    [
        ({"score": (0.9,)}, "lists", "3 frames, but score 1"),
        ({"frame_idx": (0, 8, 4)}, "frames", "frame 4 comes after frame 8"),
        ({"frame_idx": (0, 4, 4)}, "frames", "frame 4 comes after frame 4"),
        ({"frame_idx": (-4, 0, 4)}, "frames", "frame -4 is negative"),
        ({"frame_idx": (0, 4, 6)}, "frames", "frame 6 is not an annotated frame"),
        ({"frame_idx": (0, 4, 12)}, "frames", "past the end of the video, which has 12"),
        ({"area_px": (48, 47, 0)}, "area", "frame 4: 47 px, its mask has 48"),
        ({"score": (0.9, math.nan, 0.7)}, "scores", "frame 4: score is not finite"),
        ({"object_score": (math.inf, math.inf, 0.0)}, "scores", "object_score is not finite (and 1 more)"),
        ({"stability": (0.9, 0.9, -math.inf)}, "scores", "frame 8: stability"),
        ({"score": (0.9, 1.2, 1.3)}, "scores", "frame 4: score 1.2 is not in [0, 1] (and 1 more)"),
        ({"stability": (0.9, 0.9, -0.1)}, "scores", "frame 8: stability -0.1"),
        ({"edited_frame_count": 4}, "counts", "4 edited frames of 3"),
        ({"click_count": -1}, "counts", "-1 clicks"),
        ({"kind": "robot"}, "terms", "kind is 'robot'"),
        ({"phase": "9"}, "terms", "phase is '9'"),
        ({"rle": (rle.empty(24, 32),) * 3, "area_px": (0, 0, 0)}, "empty", "in none of 3 frames"),
    ],
)
def test_each_check_finds_its_own(masklet, video, changes, check, says):
    problems = masklet_checks.problems(masklet(**changes), video())
    assert [p.check for p in problems] == [check]
    assert says in problems[0].detail
    assert "\n" not in problems[0].detail


@pytest.mark.parametrize("counts", [b"", b"\x00", b"zzzz", b"\xff", rle.empty(24, 31)])
def test_masks_that_do_not_decode_are_found_and_crash_nothing(masklet, video, counts):
    right = masklet()
    problems = masklet_checks.problems(masklet(rle=(right.rle[0], counts, counts)), video())
    assert [p.check for p in problems] == ["rle"]
    assert problems[0].detail.startswith("frame 4: ")
    assert problems[0].detail.endswith("(and 1 more)")


def test_masks_of_another_size_than_the_video_are_found(masklet, video):
    assert [p.check for p in masklet_checks.problems(masklet(), video(height=48))] == ["size"]


def test_a_masklet_without_frames_is_found(masklet):
    nothing = {name: () for name in ("frame_idx", "rle", "area_px", "score", "object_score", "stability")}
    assert [p.check for p in masklet_checks.problems(masklet(**nothing))] == ["lists", "empty"]


def test_several_problems_are_all_reported(masklet, video):
    problems = masklet_checks.problems(masklet(frame_idx=(0, 4, 10), area_px=(1, 2, 3), score=(math.nan,) * 3), video())
    assert [p.check for p in problems] == ["frames", "scores", "area"]
