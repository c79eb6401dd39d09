"""How often the host waits for the device: exact counts, on a device that exists only here."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from model import devices, image, masks, memory_attention, network, proposals
from model.frame_masks import FrameMasks, NotFinite
from model.proposals import GridConfig
from model.tracker import Tracker, TrackerConfig
from model.training import clip_forward
from model.training.parallel import Team
from storage import rle
from storage.records import Prompt
from tests.model.pretend_device import MixedPlaces, PretendDevice
from tests.model.training import small_training

HW = (96, 160)


@pytest.fixture
def device(monkeypatch):
    """The pretend device; the code takes the ways that it takes on a GPU."""
    monkeypatch.setattr(memory_attention, "can_read", lambda model: False)
    return PretendDevice()


def test_the_pretend_device_sees_what_a_gpu_would_wait_for(device):
    on_device = torch.arange(4.0)
    with device:
        host = torch.tensor([1.0, 2.0, 3.0, 4.0])
        moved = host.to(on_device.device)
        assert bool(on_device.sum() > 1) and (on_device + moved).tolist() and host.tolist()
        assert on_device[on_device > 1].cpu().numpy().tolist() == [2, 3]
        on_device.nonzero()
        with pytest.raises(MixedPlaces):
            on_device + host
        with pytest.raises(MixedPlaces):
            on_device.numpy()
    assert device.reads == {"__bool__": 1, "tolist": 1, "bool index": 1, "cpu": 1, "nonzero": 1, "numpy": 1}
    assert device.uploads == 1


def test_rows_of_flags_are_read_once(device):
    flags = torch.tensor([False, True, True, False, True])
    with device:
        rows, index = devices.rows_of(flags)
    assert rows == index.tolist() == [1, 2, 4] and device.reads == {"tolist": 1}


@pytest.mark.parametrize("objects", [1, 2, 5])
def test_a_tracked_frame_is_read_four_times_whatever_the_number_of_objects(device, doubtful, clip, objects):
    """Who is present, whether all is finite, the estimates, and the masks. One upload a frame."""
    frames, truth = clip
    config = TrackerConfig(object_batch=64)
    tracker = Tracker(doubtful, lambda i: frames[i], video_hw=HW, frame_count=len(frames), config=config)
    prompts = {str(n): Prompt(frame_idx=0, mask_rle=rle.encode(truth[0, n % 2])) for n in range(objects)}
    tracker.prompt_all(prompts)
    tracked = tracker.propagate(1, len(frames))
    present = set()
    for _ in range(5):
        device.reads.clear()
        device.uploads = 0
        with device:
            answer = next(tracked)
            assert device.reads == {"tolist": 1}
            drawn, estimates = answer.masks(HW), answer.estimates()
        assert device.reads == {"tolist": 2, "__bool__": 1, "cpu": 1}
        assert device.uploads == 1, "the picture: no constant is copied again, and no age of a memory"
        assert drawn.shape == (objects, *HW) and len(estimates.iou) == objects
        present |= {score > 0 for score in estimates.object_score}
    assert objects < 5 or present == {True, False}, "some are present and some are absent"


def test_prompts_are_answered_without_a_read(device, loaded, clip):
    frames, truth = clip
    tracker = Tracker(loaded, lambda i: frames[i], video_hw=HW, frame_count=len(frames))
    assert loaded.normalisation[0].shape == (3, 1, 1)  # copied before: once for each model
    with device:
        tracker.prompt_all({n: Prompt(frame_idx=0, points_xy=((40.0, 40.0),), labels=(1,)) for n in "abc"})
        assert device.uploads == 3, "the picture, the points, the labels"
        tracker.prompt_all({n: Prompt(frame_idx=3, mask_rle=rle.encode(truth[3, 0])) for n in "abc"})
    assert device.reads == {} and device.uploads == 5, "the picture and the masks"


def test_ages_of_memories_are_coded_on_the_device_and_the_same_within_a_gradient(device, loaded):
    ages, span = [3, -2, 0, 15, 3], 16
    network._age_sine.cache_clear()
    with torch.inference_mode(), device:
        first = network.pointer_code(loaded.model, ages, span)
    assert device.uploads == 0 and first.shape == (5, loaded.model.mem_dim)
    code = network.pointer_code(loaded.model, ages, span)
    code.sum().backward()
    assert torch.equal(code, first) and torch.equal(code[0], code[4]) and not torch.equal(code[0], code[1])
    assert network.pointer_code(loaded.model, [], span).shape == (0, loaded.model.mem_dim)
    loaded.model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("objects", [1, 3])
def test_a_correction_is_read_twice_whatever_the_number_of_objects(device, loaded, clip, objects):
    """Where the clicks are, and where the masks are."""
    frames, truth = clip
    config = TrackerConfig(object_batch=64, history_frames=None)
    tracker = Tracker(loaded, lambda i: frames[i], video_hw=HW, frame_count=len(frames), config=config)
    names = [str(n) for n in range(objects)]
    tracker.prompt_all({name: Prompt(frame_idx=0, mask_rle=rle.encode(truth[0, 1])) for name in names})
    list(tracker.propagate(0, 3))
    with device:
        tracker.prompt_all({n: Prompt(frame_idx=2, points_xy=((60.0, 50.0),), labels=(1,)) for n in names})
    assert device.reads == {"tolist": 1, "cpu": 1}


def test_a_grid_of_clicks_is_read_once_a_batch_and_once_more_and_its_filter_four_times(device, loaded, clip):
    predictor, config = image.ImagePredictor(loaded), GridConfig(min_iou=0.0, min_stability=0.0, max_box_overlap=1.0)
    with device:
        predictor.set_image(clip[0][0])
        points = proposals.grid_points(8, (0, 0, HW[1], HW[0]))
        rows, answer = predictor.predict_points(points)
        assert device.reads == {"tolist": len(points) // 8, "__bool__": 1}  # 8 clicks at once on a CPU, 64 on a GPU
        device.reads.clear()
        rough = proposals.trusted(answer, points[rows], config)
        assert device.reads == {"tolist": 2, "cpu": 2} and len(rough) > 1
        device.reads.clear()
        predictor.predict([Prompt(frame_idx=0, points_xy=((40.0, 40.0),), labels=(1,)) for _ in range(5)])
    assert device.reads == {"__bool__": 1}


@pytest.mark.parametrize("objects", [1, 4])
def test_boxes_of_all_objects_are_made_without_a_read(device, objects):
    target = torch.zeros(objects, 64, 64)
    target[0, 10:20, 5:40] = 1
    is_object = torch.ones(objects, dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    with device:
        clicks = clip_forward._boxes(target, is_object, 0.0, generator, Team())
    assert device.reads == {} and device.uploads == 2  # random numbers
    assert clicks.xy[0].tolist() == [[5, 10], [40, 20]] and clicks.labels[0].tolist() == [2, 3]


def test_a_training_step_is_read_once(device, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)  # torch's own; on a GPU it reads nothing
    stage = dataclasses.replace(small_training.STAGE, steps=2, objects=2)
    recipe = dataclasses.replace(small_training.RECIPE, stages=(stage,))
    model = small_training.new_model()
    with device:
        small_training.train(model, lambda stage: small_training.squares, recipe, tmp_path)
    assert device.reads == {"tolist": 2}


def numbers(*, logits=0.0, iou=0.5, object_score=1.0):
    """An answer for two objects; the second one has these numbers."""
    drawn = torch.zeros(2, 8, 8)
    drawn[1, 3, 3] = logits
    return FrameMasks(7, ("a", "b"), drawn, torch.tensor([0.5, iou]), torch.tensor([1.0, object_score]))


@pytest.mark.parametrize("what", ["logits", "iou", "object_score"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_masks_are_not_cut_from_numbers_that_are_not_finite(what, bad):
    with pytest.raises(NotFinite, match="no numbers on frame 7"):
        numbers(**{what: bad}).masks((16, 16))
    assert numbers().masks((16, 16)).shape == (2, 16, 16)


def test_image_mode_refuses_masks_that_are_not_finite(loaded, clip):
    """The estimates follow from the tokens alone: they stay finite when only the picture's fine maps are not."""
    predictor = image.ImagePredictor(loaded)
    predictor.set_image(clip[0][0])
    features = predictor._features
    fine, mid = features.high_res
    fine = fine.clone()
    fine[0, 0, 0, 0] = float("nan")
    predictor._features = network.Features((fine, mid), features.top, features.top_position)
    with pytest.raises(NotFinite):
        predictor.predict([Prompt(frame_idx=0, points_xy=((40.0, 40.0),), labels=(1,))])
    with pytest.raises(NotFinite):
        predictor.predict_points(np.array([[40.0, 40.0]]))


def test_masks_leave_the_device_together(device):
    logits = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(0))
    one_by_one = np.concatenate([masks.enlarge(logits[i : i + 1], (24, 32)) for i in range(5)])
    with device:
        assert (masks.enlarge(logits, (24, 32)) == one_by_one).all()
    assert device.reads == {"cpu": 1}
