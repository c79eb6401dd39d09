"""The search in a video: which objects are found when, and how much is tracked. `micro` tracks plain shapes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from engine.candidates import finding, shots
from engine.candidates.config import SearchConfig
from engine.candidates.search import Seed
from engine.synthetic import video_files
from model import checkpoints
from model.clips import Clip
from storage import iou
from storage.records import STRIDE

H, W, T = 96, 160, 49
CONFIG = SearchConfig(max_objects=6, step=STRIDE, keyframe_s=0.5, uncovered_jump=1.0, change_jump=1000.0)


@pytest.fixture(scope="module")
def loaded():
    return checkpoints.load("micro")


@pytest.fixture(scope="module")
def clip():
    """A disc that is always there, and a box that comes in after 18 frames."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 120, (H // 8, W // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    y, x = np.mgrid[:H, :W]
    masks = np.zeros((T, 2, H, W), dtype=bool)
    frames = np.repeat(ground[None], T, 0)
    for i in range(T):
        masks[i, 0] = (x - 40 - i // 2) ** 2 + (y - 40) ** 2 < 18**2
        masks[i, 1] = (abs(x - 130) < 14) & (abs(y - 70) < 16) & (i >= 18)
        frames[i][masks[i, 1]] = (40, 200, 80)
        frames[i][masks[i, 0]] = (220, 60, 50)
    return Clip(frames, masks)


class TrueFinder:
    """Finds the true objects of which more than half is asked for. asked: the frames, and where it searched."""

    def __init__(self, clip, also=None):
        self.clip, self.also = clip, also or {}
        self.asked = []

    def __call__(self, rgb, where):
        frame_idx = next(i for i, frame in enumerate(self.clip.frames) if frame is rgb or np.array_equal(frame, rgb))
        self.asked.append((frame_idx, where))
        shown = [mask for mask in self.clip.masks[frame_idx] if mask.any()] + self.also.get(frame_idx, [])
        return [
            Seed(mask=mask, rank=0.9 - 0.1 * n, score=0.7, stability=0.6, object_score=2.0, found_by={"points_xy": []})
            for n, mask in enumerate(shown)
            if where is None or (mask & where).mean() > 0.5 * mask.mean()
        ]


def search(loaded, clip, finder, config=CONFIG, read=None):
    video = video_files.video_of(clip, "clip")
    found = finding.find_candidates(
        video, loaded, read or clip.frames.__getitem__, finder, config, checkpoint="micro", round_number=0
    )
    return found, video_files.true_masklets(clip, "clip")


def test_a_late_object_is_found_on_a_keyframe_where_nothing_is_tracked_and_tracked_both_ways(loaded, clip):
    finder = TrueFinder(clip)
    found, (disc, box) = search(loaded, clip, finder)
    first, late = found.masklets
    assert iou.tube_iou(first, disc) > 0.7 and iou.tube_iou(late, box) > 0.7
    assert [json.loads(row.prompt)["frame_idx"] for row in found.masklets] == [0, 24]
    assert late.area_px[5] > 2 * late.area_px[3], "on frame 20, before the keyframe that found it, and not on 12"
    assert [frame_idx for frame_idx, _ in finder.asked] == found.keyframes == [0, 12, 24, 36]
    for frame_idx, where in finder.asked[1:]:
        assert where is not None and (where & clip.masks[frame_idx, 0]).sum() < 0.1 * clip.masks[frame_idx, 0].sum()
    assert found.object_frames == 12 + 6 + 6 == found.least_object_frames, "each frame once for each object"
    assert (late.score[6], late.stability[6], late.object_score[6]) == (0.7, 0.6, 2.0), "what the finder thought of it"


def test_the_thresholds_are_saved_with_each_candidate(loaded, clip):
    found, _ = search(loaded, clip, TrueFinder(clip))
    for row in found.masklets:
        assert SearchConfig(**json.loads(row.prompt)["search"]) == CONFIG


def test_an_object_that_the_next_keyframe_does_not_find_again_does_not_count(loaded, clip):
    ghost = np.zeros((H, W), bool)
    ghost[60:90, 20:50] = True
    found, _ = search(loaded, clip, TrueFinder(clip, {12: [ghost]}))
    assert len(found.masklets) == 2
    assert found.object_frames == found.least_object_frames + 3, "it was tracked up to the next keyframe"
    found, _ = search(loaded, clip, TrueFinder(clip, {12: [ghost], 24: [ghost]}), replace(CONFIG, same_object=0.1))
    assert len(found.masklets) == 3


def test_if_there_is_no_place_only_a_better_object_is_tracked_and_the_worst_one_goes(loaded, clip):
    found, (disc, box) = search(loaded, clip, TrueFinder(clip), replace(CONFIG, max_objects=1))
    assert len(found.masklets) == 1 and iou.tube_iou(found.masklets[0], disc) > 0.7 and found.object_frames == 12

    class Reversed(TrueFinder):
        def __call__(self, rgb, where):
            return [replace(seed, rank=1 - seed.rank) for seed in super().__call__(rgb, where)]

    found, _ = search(loaded, clip, Reversed(clip), replace(CONFIG, max_objects=1))
    assert len(found.masklets) == 1 and iou.tube_iou(found.masklets[0], box) > 0.7


def test_without_keyframes_only_the_first_frame_is_searched(loaded, clip):
    finder = TrueFinder(clip)
    found, _ = search(loaded, clip, finder, replace(CONFIG, keyframe_s=None))
    assert len(found.masklets) == 1 and [frame_idx for frame_idx, _ in finder.asked] == [0]


@pytest.mark.parametrize("step", [1, 2, 4])
def test_only_the_frames_of_the_chosen_rate_are_read_and_the_masks_are_of_the_annotated_ones(loaded, clip, step):
    short = Clip(clip.frames[:13], clip.masks[:13])
    seen = set()

    def read(frame_idx):
        seen.add(frame_idx)
        return short.frames[frame_idx]

    found, _ = search(loaded, short, TrueFinder(short), replace(CONFIG, step=step), read)
    assert seen == set(range(0, 13, step))
    assert [row.frame_idx for row in found.masklets] == [(0, 4, 8, 12)]


def test_an_object_goes_on_in_the_next_window_of_its_shot(loaded, clip):
    finder = TrueFinder(clip)
    found, (disc, _) = search(loaded, clip, finder, replace(CONFIG, window_s=1.0))
    assert [where is None for _, where in finder.asked] == [True, False, True, False, True]
    assert len(found.masklets) == 2 and iou.tube_iou(found.masklets[0], disc) > 0.7
    assert all(found.masklets[0].area_px)


def test_an_object_that_is_not_found_again_goes_on_with_its_own_mask(loaded, clip):
    class Once(TrueFinder):
        def __call__(self, rgb, where):
            return super().__call__(rgb, where)[:1] if not self.asked else []

    found, (disc, _) = search(loaded, clip, Once(clip), replace(CONFIG, window_s=1.0))
    assert len(found.masklets) == 1 and iou.tube_iou(found.masklets[0], disc) > 0.7


def test_in_a_long_video_a_candidate_has_the_frames_of_its_windows_alone(loaded, clip, monkeypatch):
    monkeypatch.setattr(finding, "LONG_S", 1)
    monkeypatch.setattr(finding, "glance", lambda read, frames: shots.Glance((24,), dict.fromkeys(frames, 1.0)))
    found, _ = search(loaded, clip, TrueFinder(clip))
    spans = {(row.frame_idx[0], row.frame_idx[-1]) for row in found.masklets}
    assert spans == {(0, 20), (24, 48)} and len(found.masklets) == 3
    again = finding.with_cycles(loaded, clip.frames.__getitem__, found.masklets)
    monkeypatch.setattr(finding, "LONG_S", 600)
    whole, _ = search(loaded, clip, TrueFinder(clip))
    wanted = finding.with_cycles(loaded, clip.frames.__getitem__, whole.masklets)
    ways_back = [[json.loads(row.prompt)["cycle_iou"] for row in rows] for rows in (again, wanted)]
    assert ways_back[0] == pytest.approx(ways_back[1], abs=0.02)
    assert iou.tube_iou(again[2], wanted[2]) == 1


def test_a_cut_ends_all_objects(loaded, clip, monkeypatch):
    monkeypatch.setattr(finding, "glance", lambda read, frames: shots.Glance((24,), dict.fromkeys(frames, 1.0)))
    found, _ = search(loaded, clip, TrueFinder(clip))
    shown = [{i for i, area in zip(row.frame_idx, row.area_px, strict=True) if area} for row in found.masklets]
    assert len(shown) == 3 and shown[0] <= set(range(24))
    assert all(frames <= set(range(24, 49)) for frames in shown[1:])


def test_two_objects_whose_masks_become_one_are_not_both_tracked_on(loaded, clip):
    finder = TrueFinder(clip, {0: [clip.masks[0, 0] & (np.arange(W) > 28)]})
    config = replace(CONFIG, same_masklet=0.7)
    found, (disc, _) = search(loaded, clip, finder, config)
    assert iou.tube_iou(found.masklets[0], disc) > 0.7 and len(found.masklets) == 2
    assert found.object_frames <= found.least_object_frames + config.alike_frames
