"""The interactive protocols: which frames are clicked on and how often, the modelled time; micro plays them all."""

from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest

import model.tracker
from engine import pictures
from engine.datasets import layouts
from engine.protocols import annotator, effort, first_frame, interactive
from engine.protocols.interactive import Reached
from engine.protocols.truth import Truth
from engine.synthetic.rendering import render
from engine.synthetic.scene import Scene
from model import checkpoints
from model.checkpoints import LoadedModel
from model.features import FeatureCache
from storage.iou import mask_iou
from validation import jf

T, HW = 9, (32, 32)
# The fixture `forgetful` replaces the tracker; nothing else uses the model and its features.
NO_MODEL, NO_FEATURES = cast(LoadedModel, None), cast(FeatureCache, None)


def square(x):
    mask = np.zeros(HW, bool)
    mask[8:24, x : x + 12] = True
    return mask


TRUTH = Truth(tuple(range(0, T, 2)), tuple(square(4 + i) for i in range(5)))  # frames 0, 2, 4, 6, 8


class Forgetful:
    """A tracker for tests. It is right on all frames but some, where it is wrong until somebody clicks there."""

    wrong = {4: 2, 6: 6}  # frame_idx -> pixels that the mask is off

    def __init__(self, *_, **__):
        self.clicked = {}
        self.asked = []
        self.tracked = []

    def _mask(self, name, frame):
        truth = square(4 + frame // 2)
        return truth if frame in self.clicked[name] else np.roll(truth, self.wrong.get(frame, 0), axis=0)

    def prompt(self, name, prompt):
        self.asked.append(prompt)
        of = self.clicked.setdefault(name, [])
        if len(prompt.points_xy) == 2:  # two clicks make it right
            of.append(prompt.frame_idx)
        return self._answer([name], prompt.frame_idx)

    def copy(self, name, new):
        self.clicked[new] = list(self.clicked[name])

    def propagate(self, start, stop, objects=None):
        for frame in range(start, stop):
            self.tracked.append(frame)
            yield self._answer(objects or list(self.clicked), frame)

    def _answer(self, names, frame):
        return SimpleNamespace(
            frame_idx=frame,
            masks=lambda hw: np.stack([self._mask(name, frame) for name in names]),
        )


@pytest.fixture
def forgetful(monkeypatch):
    made = []

    def new(*args, **kwargs):
        made.append(Forgetful())
        return made[-1]

    monkeypatch.setattr(model.tracker, "Tracker", new)
    return made


def test_offline_clicks_the_worst_frame_of_each_pass_and_stops_when_nothing_is_wrong(forgetful):
    passes = list(interactive.offline(NO_MODEL, NO_FEATURES, HW, T, TRUTH))
    frames = [prompt.frame_idx for prompt in forgetful[0].asked]
    assert list(dict.fromkeys(frames)) == [0, 6, 4]  # the first frame, then the worst, then the other
    assert [p.frames for p in passes] == [1, 2, 3]
    assert passes[-1].metric.j == pytest.approx(1) and passes[0].metric.j < passes[1].metric.j < 1
    assert passes[-1].clicks == len(forgetful[0].asked)
    for p in passes:  # nine frames are watched in every pass
        assert p.modelled_s == pytest.approx(p.frames * (9 * 30 / 300 + 1) + 1.5 * p.clicks)


def test_offline_gives_at_most_so_many_passes(forgetful):
    assert [p.frames for p in interactive.offline(NO_MODEL, NO_FEATURES, HW, T, TRUTH, most=2)] == [1, 2]


def test_online_stops_only_where_the_mask_is_too_bad_and_never_goes_back(forgetful):
    once, twice = interactive.online(NO_MODEL, NO_FEATURES, HW, T, TRUTH)
    assert mask_iou(np.roll(square(4), 2, 0), square(4)) > annotator.GOOD  # good enough to go on
    assert list(dict.fromkeys(prompt.frame_idx for prompt in forgetful[0].asked)) == [0, 6]
    assert (once.frames, twice.frames) == (1, 2) and once.clicks < twice.clicks == len(forgetful[0].asked)
    for reached in (once, twice):
        assert reached.modelled_s == pytest.approx(9 * 30 / 300 + reached.frames * 1 + 1.5 * reached.clicks)
    assert once.metric.j < twice.metric.j
    assert forgetful[0].tracked == [*range(7), 6, 7, 8]  # one pass; the corrected frame is answered for its copy
    assert interactive.online(NO_MODEL, NO_FEATURES, HW, T, TRUTH, most=1) == [once]


def test_an_object_that_is_never_shown_is_not_asked_for():
    nothing = Truth((0, 2), (np.zeros(HW, bool),) * 2)
    assert list(interactive.offline(NO_MODEL, NO_FEATURES, HW, T, nothing)) == []
    assert interactive.online(NO_MODEL, NO_FEATURES, HW, T, nothing) == []


def test_a_curve_keeps_what_an_object_has_that_needed_fewer_frames():
    def reached(frames, j):
        return Reached(frames, 3 * frames, jf.JF(j=j, f=j, count=1), 0.0)

    found = interactive.curve([[reached(1, 0.5), reached(2, 0.7)], [reached(1, 0.9)]], most=3)
    assert found == pytest.approx([70, 80, 80])


def test_micro_plays_all_protocols():
    clip = render(5, Scene(height=64, width=96, frames=6, objects=(1, 1), clutter=(0, 0), size=(0.25, 0.3), leave=0.0))
    loaded = checkpoints.load("micro")
    truth = Truth((0, 2, 4), tuple(clip.masks[i, 0] for i in (0, 2, 4)))
    features = FeatureCache(loaded, clip.frames.__getitem__, size=6)
    passes = list(interactive.offline(loaded, features, (64, 96), 6, truth, most=2))
    assert 1 <= len(passes) <= 2 and all(0 <= p.metric.j <= 1 for p in passes)
    once = interactive.online(loaded, features, (64, 96), 6, truth)
    assert [reached.frames for reached in once] == list(range(1, len(once) + 1))
    assert interactive.online(loaded, features, (64, 96), 6, truth, most=1) == once[:1]  # not changed by others
    images = interactive.on_images(loaded, clip.frames.__getitem__, truth)
    assert {count: len(found) for count, found in images.items()} == {1: 3, 5: 3}
    boxed = first_frame.semi_supervised(loaded, clip.frames.__getitem__, (64, 96), 6, {"a": truth}, "box")["a"][0]
    assert boxed is not None and 0 <= boxed.j <= 1


def test_the_interactive_exam_asks_for_held_out_objects_only_and_draws_its_curve(s, true_release, tmp_path):
    asked = []
    exam = interactive.measure(
        layouts.of_release(true_release).only("val"),
        s.model(s.checkpoint()),
        most_objects=1,
        progress=lambda done, total, word: asked.append(word),
    )
    assert exam.objects == 1 and len(exam.offline_jf) == len(exam.online_jf) == interactive.FRAMES
    assert exam.online_mean_jf == pytest.approx(np.mean(exam.online_jf))
    (video,) = (v for v in true_release.videos() if v.video_id == asked[0])
    assert video.split == "val"
    assert all(0 <= points <= 100 for points in (*exam.offline_jf, *exam.online_jf, exam.image_miou_1))
    assert exam.offline_modelled_s >= effort.modelled_s(watched=video.frame_count)
    drawn = cv2.imread(str(pictures.draw_curves(exam.offline_jf, exam.online_jf, "tiny", tmp_path / "curve.png")))
    assert drawn.shape[0] > 300 and drawn.std() > 5
