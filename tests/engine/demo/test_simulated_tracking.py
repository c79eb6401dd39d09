"""How a simulated annotator corrects: with a tracker that fails where the test says, so that every act is known."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.demo.annotator_policy import AnnotatorPolicy
from engine.demo.simulated_tracking import Correction, blank
from engine.registry import Checkpoint
from engine.stages import work
from storage import rle
from storage.records import STRIDE, Operation, Prompt

HW = (32, 32)
FRAMES = tuple(range(0, 40, STRIDE))  # ten places
VIDEO: Any = SimpleNamespace(
    video_id="video", batch_id="batch", height=HW[0], width=HW[1], frame_count=40, fps=24.0, split="train"
)


def square(size):
    mask = np.zeros(HW, bool)
    mask[4 : 4 + size, 4 : 4 + size] = True
    return mask


class Answer(SimpleNamespace):
    """What a tracker answers: `masks` and `estimates` as of FrameMasks."""

    def masks(self, hw):
        return self.mask[None]

    def estimates(self):
        return SimpleNamespace(iou=[0.5], object_score=[1.0], stability=[0.5])


class Tracker:
    """Tracks rightly up to `holds` places from a prompt, and finds nothing after that.

    A click gives the truth, if clicks help. `by_clicks` gives the mask after each number of clicks instead.
    """

    reach = 6

    def __init__(self, truth, holds=100, clicks_help=True, by_clicks=()):
        self.truth, self.holds, self.clicks_help, self.by_clicks = truth, holds, clicks_help, by_clicks
        self.prompts, self.remembered = [], {}

    def prompt(self, name, prompt):
        self.prompts.append(prompt)
        if prompt.mask_rle is not None:
            return Answer(frame_idx=prompt.frame_idx, mask=rle.decode(prompt.mask_rle, *HW))
        if self.by_clicks:
            return Answer(frame_idx=prompt.frame_idx, mask=self.by_clicks[len(prompt.labels) - 1])
        return Answer(frame_idx=prompt.frame_idx, mask=self.truth[prompt.frame_idx] if self.clicks_help else square(2))

    def propagate(self, start, stop, *, reverse):
        for place in range(start, stop, -1 if reverse else 1):
            holds = min(abs(place - prompt.frame_idx) for prompt in self.prompts) <= self.holds
            yield Answer(frame_idx=place, mask=self.truth[place] if holds else np.zeros(HW, bool))

    def recalling(self, name, known, *, about):
        self.remembered = known
        yield


pytestmark = pytest.mark.slow  # clicks and cleaned masks import torch

TICKET: Any = SimpleNamespace(ticket_id="ticket", phase="3")


def masklet_of(masks):
    areas = tuple(int(mask.sum()) for mask in masks)
    return replace(blank(VIDEO, TICKET), rle=tuple(map(rle.encode, masks)), area_px=areas)


def corrected(tracker, target, candidate=None, *, clicking=True):
    begun = blank(VIDEO, TICKET) if candidate is None else masklet_of(candidate)
    correction = Correction(tracker, VIDEO, begun, masklet_of(target), AnnotatorPolicy(), clicking=clicking)
    correction.correct()
    made = correction.result(TICKET, Checkpoint(name="c", round=1, key=None))
    acts = [
        Operation(
            operation_id=str(seq),
            ticket_id="ticket",
            batch_id="batch",
            video_id="video",
            masklet_id="m",
            person="ann",
            kind=act.kind,
            frame_idx=act.frame_idx,
            payload=act.payload,
            created_at=act.created_at,
            seq=seq,
        )
        for seq, act in enumerate(made.operations)
    ]
    assert work.of_operations(acts, {"video": 40}) == made.tally.work  # the log shows the same work
    return made


def acts_of(made):
    return [(act.kind, act.frame_idx) for act in made.operations]


def test_people_stop_at_the_first_wrong_mask_correct_it_and_go_on_from_there():
    target = [square(16)] * 10
    made = corrected(Tracker(target, holds=3), target)
    assert acts_of(made) == [
        ("prompt", 0),
        ("propagate", 0),
        ("prompt", 16),
        ("propagate", 16),
        ("prompt", 32),
        ("propagate", 32),
    ]
    assert [json.loads(act.payload)["last"] for act in made.operations if act.kind == "propagate"] == [16, 32, 36]
    assert made.tally.work == work.Work(watched_frames=36, clicks=3, clicked_frames=3)
    assert made.masklet.rle == tuple(map(rle.encode, target))
    assert made.masklet.edited_frame_count == made.masklet.click_count == 3


def test_frames_that_are_all_just_right_are_improved_until_a_reviewer_accepts_them():
    """Each mask has an IoU of 0.766, above what counts as right: the mean is below what reviewers ask for."""
    target, rough = [square(16)] * 10, [square(14)] * 10
    made = corrected(Tracker(target), target, rough)
    assert AnnotatorPolicy().margin(made.masklet, masklet_of(target)) >= 0
    assert acts_of(made) == [("prompt", 0), ("prompt", 4)], "the worst frames, and no more of them than needed"
    painted = corrected(Tracker(target, clicks_help=False), target, rough)
    assert AnnotatorPolicy().margin(painted.masklet, masklet_of(target)) >= 0
    assert [kind for kind, _ in acts_of(painted)].count("stroke") == 2


def test_an_object_that_comes_late_is_followed_both_ways_from_where_it_is_well_seen():
    target = [square(0)] * 3 + [square(6)] + [square(16)] * 6
    made = corrected(Tracker(target), target)
    assert acts_of(made) == [("prompt", 16), ("propagate", 16), ("propagate", 16)]
    assert [json.loads(act.payload) for act in made.operations[1:]] == [
        {"direction": "forward", "last": 36},
        {"direction": "backward", "last": 0},
    ]
    assert made.masklet.rle == tuple(map(rle.encode, target))


def test_an_absent_stretch_is_marked_once_and_not_painted():
    target = [square(16)] * 3 + [square(0)] * 4 + [square(16)] * 3
    tracker = Tracker([square(16)] * 10)  # it never believes that the object is gone
    made = corrected(tracker, target)
    assert acts_of(made) == [("prompt", 0), ("propagate", 0), ("absent", None), ("propagate", 24)]
    assert json.loads(made.operations[2].payload) == {"first": 12, "last": 24}
    assert made.tally.work == work.Work(watched_frames=24, clicks=1, clicked_frames=1, absent_stretches=1)
    assert made.tally.work.modelled_s == pytest.approx(2.4 + 1.5 + 2 * 1.0)
    assert made.masklet.rle == tuple(map(rle.encode, target))
    assert made.masklet.edited_frame_count == 5  # as `effort_of` counts it


def test_the_right_frames_of_a_candidate_before_the_first_wrong_one_stay_and_are_remembered():
    target = [square(16)] * 10
    candidate = [square(15)] * 8 + [square(4)] * 2
    tracker = Tracker(target)
    made = corrected(tracker, target, candidate)
    assert acts_of(made) == [("prompt", 32), ("propagate", 32)]
    assert tracker.remembered.keys() == set(range(2, 9))
    assert made.masklet.rle == tuple(map(rle.encode, [square(15)] * 8 + [square(16)] * 2))


def test_a_right_candidate_is_handed_in_as_it_is():
    target = [square(16)] * 10
    made = corrected(Tracker(target), target, target)
    assert not made.operations and made.masklet.rle == tuple(map(rle.encode, target))


def test_a_click_that_makes_a_good_mask_worse_is_taken_back_and_still_counts():
    target = [square(16)] * 10
    good, worse = square(14), square(8)  # IoU 0.77 and 0.25
    tracker = Tracker(target, by_clicks=[square(8), good, worse, square(16)])
    made = corrected(tracker, target)
    assert acts_of(made) == [("prompt", 0)] * 4 + [("propagate", 0)]
    assert [len(json.loads(act.payload)["labels"]) for act in made.operations[:4]] == [1, 2, 3, 2]
    assert made.masklet.rle[0] == tracker.prompts[-1].mask_rle == rle.encode(good)
    assert made.tally.work == work.Work(watched_frames=36, clicks=3, clicked_frames=1)


def test_people_paint_at_once_where_clicks_were_not_enough_twice_in_a_row():
    target = [square(16)] * 10
    made = corrected(Tracker(target, holds=0, clicks_help=False), target)
    clicked = [act.frame_idx for act in made.operations if act.kind == "prompt"]
    assert sorted(set(clicked)) == [0, 4] and len(clicked) == 14  # seven on each
    assert [act.frame_idx for act in made.operations if act.kind == "stroke"] == list(FRAMES)
    assert made.tally.work.painted_frames == 10


def test_phase_2_never_clicks():
    target = [square(16)] * 10
    tracker = Tracker(target, holds=4)
    made = corrected(tracker, target, clicking=False)
    assert acts_of(made) == [("stroke", 0), ("propagate", 0), ("stroke", 20), ("propagate", 20)]
    assert all(isinstance(prompt, Prompt) and prompt.mask_rle is not None for prompt in tracker.prompts)
