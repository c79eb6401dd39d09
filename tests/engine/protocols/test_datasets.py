"""The protocols on datasets of every format."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from engine.datasets.layouts import open_dataset
from engine.protocols import first_frame, interactive
from engine.protocols.truth import NothingHeldOut, Truth
from model import checkpoints
from model.frame_masks import NotFinite
from model.tracker import Tracker
from storage import rle
from storage.records import Prompt
from tests.engine.labelled_folders import write_sav_frames
from validation import jf


def test_every_kind_of_dataset_can_be_measured(sav_folder, sav_val, davis_root, checkpoint):
    loaded = checkpoints.load(checkpoint)
    for folder in (sav_folder, sav_val, davis_root):
        held_out = open_dataset(folder, split="val")
        metrics = first_frame.measure(held_out, loaded, "mask")
        count = sum(len(video.objects) for video in held_out.videos())
        assert 0 <= metrics.jf <= 1 and 1 <= metrics.masklets <= count and metrics.slices
        images = interactive.measure_images(held_out, loaded, most_objects=1)
        assert images.objects == 1 and images.frames <= 9 and 0 <= images.miou_1 <= 100
    with pytest.raises(NothingHeldOut, match=r"no video of the split test; there are: val \(1\)$"):
        first_frame.measure(held_out.only("test"), loaded, "mask")
    with pytest.raises(NothingHeldOut, match="no video of the split test"):
        interactive.measure_images(held_out.only("test"), loaded)


def test_two_annotated_frames_are_too_few(tmp_path, checkpoint):
    two = open_dataset(write_sav_frames(tmp_path / "sav_val", "sav_000003", frame_count=8), split="val")
    with pytest.raises(NothingHeldOut, match="fewer than 3 annotated frames: nothing to score"):
        first_frame.measure(two, checkpoints.load(checkpoint), "mask")


def official(frames):
    """J&F of one object by SA-V's evaluator, written for this test. frames: (predicted, true) masks of the whole video.

    The first and the last frame do not count, nor do frames before the truth or the prediction shows the object.
    """
    seen, points = False, []
    for predicted, true in frames[1:-1]:
        seen = seen or predicted.any() or true.any()
        if seen:
            union = np.count_nonzero(predicted | true)
            points.append(np.count_nonzero(predicted & true) / union if union else 1.0)
            points.append(jf.boundary_f(predicted, true))
    return float(np.mean(points))


def test_objects_are_measured_on_the_frames_of_the_whole_video_as_by_the_evaluator_of_sav(tmp_path, checkpoint):
    """One object is there from the first frame, the other enters later: its prompted frame counts."""
    folder = write_sav_frames(tmp_path / "sav_val", "sav_000004", frame_count=24)
    for frame in (0, 4, 8):
        cv2.imwrite(str(folder / "Annotations_6fps/sav_000004/001" / f"{frame:05d}.png"), np.zeros((96, 128), np.uint8))
    data, loaded = open_dataset(folder, split="val"), checkpoints.load(checkpoint)
    (video,) = data.videos()
    expected = []
    for name, first in (("000", 0), ("001", 12)):
        nothing = np.zeros((96, 128), bool)
        with video.open() as reader:
            tracker = Tracker(loaded, reader.read, video_hw=(96, 128), frame_count=24)
            tracker.prompt("a", Prompt(frame_idx=first, mask_rle=rle.encode(video.mask(name, first))))
            made = {answer.frame_idx: answer.masks((96, 128))[0] for answer in tracker.propagate(first, 24)}
        expected.append(official([(made.get(i, nothing), video.mask(name, i)) for i in range(0, 24, 4)]))
    found = first_frame.measure(data, loaded, "mask")
    assert found.jf == pytest.approx(np.mean(expected), abs=1e-9) and found.masklets == 2
    cut = official([(made.get(i, nothing), video.mask("001", i)) for i in range(12, 24, 4)])
    assert abs(cut - expected[1]) > 0.01, "the old rule gives another figure: the test can tell them apart"


def test_a_model_that_gives_no_numbers_is_an_error_and_not_a_metric_of_zero(sav_folder, checkpoint):
    loaded = checkpoints.load(checkpoint)
    with torch.no_grad():
        loaded.model.memory_attention.layer_norm.weight.fill_(float("nan"))
    with pytest.raises(NotFinite, match="gave no numbers on frame"):
        first_frame.measure(open_dataset(sav_folder, split="val"), loaded, "mask")
    with pytest.raises(NotFinite):
        interactive.measure(open_dataset(sav_folder, split="val"), loaded, most_objects=1)


def test_objects_visible_only_on_the_last_annotated_frame_cannot_be_measured(sav_folder, checkpoint, monkeypatch):
    first = Truth.all_of

    def late(video):
        nothing = np.zeros((video.height, video.width), bool)
        return {
            name: replace(truth, masks=(nothing,) * (len(truth.masks) - 1) + (~nothing,))
            for name, truth in first(video).items()
        }

    monkeypatch.setattr(Truth, "all_of", staticmethod(late))
    held_out = open_dataset(sav_folder, split="val")
    with pytest.raises(NothingHeldOut, match="no object is visible between the first and the last"):
        interactive.measure(held_out, checkpoints.load(checkpoint), most_objects=1)
