"""The protocols on datasets of every format."""

from dataclasses import replace

import numpy as np
import pytest

from engine.datasets.layouts import open_dataset
from engine.protocols import first_frame, interactive
from engine.protocols.truth import NothingHeldOut, Truth
from model import checkpoints


def test_every_kind_of_dataset_can_be_measured(sav_folder, sav_val, davis_root, checkpoint):
    loaded = checkpoints.load(checkpoint)
    for folder in (sav_folder, sav_val, davis_root):
        held_out = open_dataset(folder, split="val")
        metrics = first_frame.measure(held_out, loaded, "mask")
        count = sum(len(video.objects) for video in held_out.videos())
        assert 0 <= metrics.jf <= 1 and 1 <= metrics.masklets <= count and metrics.slices
        images = interactive.measure_images(held_out, loaded, most_objects=1)
        assert images.objects == 1 and images.frames <= 9 and 0 <= images.miou_1 <= 100
    with pytest.raises(NothingHeldOut, match="split test"):
        first_frame.measure(held_out.only("test"), loaded, "mask")
    with pytest.raises(NothingHeldOut, match="split test"):
        interactive.measure_images(held_out.only("test"), loaded)


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
    with pytest.raises(NothingHeldOut, match="no object for longer than a frame"):
        interactive.measure(held_out, checkpoints.load(checkpoint), most_objects=1)
