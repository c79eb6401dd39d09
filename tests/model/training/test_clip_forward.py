"""The simulated interaction of training: prompts, corrective clicks, gradients, and the tracker's own answers."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from transformers import Sam2VideoModel

from model import checkpoints, network
from model.clips import SampleConfig, sample
from model.training import clip_forward, samples
from model.training.losses import step_losses
from model.training.parallel import Team
from model.training.recipe import Interaction, LossWeights
from tests.model.training.small_training import new_model, squares


def run_of(model, how, seed=0):
    clip = sample(squares(1), SampleConfig(image_size=128, frames=3, objects=2), np.random.default_rng(2))
    assert clip is not None
    pixels = samples.to_pixels(clip)[None]
    return clip_forward.answer_clips(
        model, pixels, torch.from_numpy(clip.masks)[None], how, torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("kind", [{"mask": 1.0}, {"mask": 0.0, "click": 1.0}, {"mask": 0.0, "click": 0.0}])
def test_gradients_reach_every_module_through_the_memory(kind):
    model = new_model().train()
    with torch.no_grad():  # the object is visible on this frame, so its pointer gets a gradient
        model.mask_decoder.pred_obj_score_head.proj_out.bias += 3
    steps = run_of(model, Interaction(**kind, prompted_frames=1, corrected_frames=1, correction_clicks=1))
    losses = [
        step_losses(s.decoded.all_logits, s.decoded.all_iou, s.decoded.object_score, s.target, LossWeights())
        for s in steps
    ]
    torch.stack([x.total for x in losses]).sum().backward()
    for module in ("vision_encoder", "mask_decoder", "memory_attention", "memory_encoder", "object_pointer_proj"):
        grads = [p.grad for n, p in model.named_parameters() if n.startswith(module) and p.grad is not None]
        assert grads and any(g.abs().sum() > 0 for g in grads), module


def test_corrective_clicks_are_on_errors_and_carry_the_true_label():
    target = torch.zeros(1, 64, 64)
    target[0, 10:20, 10:20] = 1
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        clicks = clip_forward._clicks_in(target > 0.5, target, generator, Team())
        x, y = (int(v) for v in clicks.xy[0, 0])
        assert 10 <= x < 20 and 10 <= y < 20 and int(clicks.labels[0, 0]) == 1
    nowhere = clip_forward._clicks_in(torch.zeros(1, 64, 64, dtype=torch.bool), 0 * target, generator, Team())
    assert int(nowhere.labels[0, 0]) == 0


def first_prompt(monkeypatch, how, frames, seed):
    """The kind of the first prompt of a batch. Needs no model."""

    class Asked(Exception):
        pass

    def asked(kind):
        def stop(*_, **__):
            raise Asked(kind)

        return stop

    monkeypatch.setattr(network, "encode_images", lambda *_: SimpleNamespace(select=lambda _: None))
    monkeypatch.setattr(network, "without_memory", lambda *_: None)
    monkeypatch.setattr(network, "take_mask", asked("mask"))
    monkeypatch.setattr(clip_forward, "_clicks_in", asked("click"))
    monkeypatch.setattr(clip_forward, "_boxes", asked("box"))
    pixels, masks = torch.zeros(1, frames, 3, 8, 8), torch.ones(1, frames, 1, 8, 8, dtype=torch.bool)
    with pytest.raises(Asked) as kind:
        clip_forward.answer_clips(cast(Sam2VideoModel, None), pixels, masks, how, torch.Generator().manual_seed(seed))
    return str(kind.value)


@pytest.mark.parametrize(
    ("frames", "shares"), [(3, {"mask": 0.5, "click": 0.25, "box": 0.25}), (1, {"click": 0.5, "box": 0.5})]
)
def test_first_prompts_are_of_the_papers_kinds_and_single_frames_get_no_mask(monkeypatch, frames, shares):
    kinds = [first_prompt(monkeypatch, Interaction(), frames, seed) for seed in range(400)]
    assert set(kinds) == set(shares)
    for kind, share in shares.items():
        assert kinds.count(kind) / 400 == pytest.approx(share, abs=0.07)


def test_a_corrective_click_is_added_where_the_answer_is_wrong_and_one_of_ten_anywhere_on_the_object():
    target = torch.zeros(1, 64, 64)
    target[:, :, :32] = 1  # the left half
    answer = torch.full((1, 16, 16), -5.0)
    answer[:, :8, :8] = answer[:, 8:, 8:] = 5.0  # its upper half, and a wrong part at the lower right
    # Of the model, only the size of its masks is read.
    model = cast(Sam2VideoModel, SimpleNamespace(prompt_encoder=SimpleNamespace(mask_input_size=(16, 16))))
    wrong = (network.upsample(model, answer)[0] > 0) != (target[0] > 0.5)
    earlier = network.Clicks(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[1]], dtype=torch.int32))

    def clicked(anywhere, times=400):
        how, generator = Interaction(click_anywhere=anywhere), torch.Generator().manual_seed(1)
        for _ in range(times):
            decoded = cast(network.Decoded, SimpleNamespace(logits=answer))
            clicks = clip_forward._corrected(model, earlier, decoded, target, how, generator, Team())
            assert clicks.xy.shape == (1, 2, 2) and clicks.xy[0, 0].tolist() == [3, 4]
            x, y = (int(v) for v in clicks.xy[0, 1])
            assert int(clicks.labels[0, 1]) == int(target[0, y, x])
            yield bool(wrong[y, x]), int(target[0, y, x])

    never = list(clicked(0.0))
    assert all(is_wrong for is_wrong, _ in never) and {label for _, label in never} == {0, 1}
    assert all(label for _, label in clicked(1.0))
    right = sum(not is_wrong for is_wrong, _ in clicked(Interaction().click_anywhere))
    assert 0.02 < right / 400 < 0.09  # a tenth is drawn from the object, half of which is right


def test_boxes_are_jittered_by_a_tenth_of_their_side_and_by_twenty_pixels_at_most():
    target = torch.zeros(3, 512, 512)
    target[0, 100:140, 200:260] = 1
    target[1, 50:450, 60:460] = 1
    generator, off = torch.Generator().manual_seed(0), []
    for _ in range(200):
        are_objects = torch.ones(3, dtype=torch.bool)
        clicks = clip_forward._boxes(target, are_objects, Interaction().box_jitter, generator, Team())
        assert clicks.labels.tolist() == [[2, 3], [2, 3], [0, -10]]  # the third is absent
        exact = torch.tensor([[[200.0, 100.0], [260.0, 140.0]], [[60.0, 50.0], [460.0, 450.0]]])
        off.append((clicks.xy[:2] - exact).abs())
    most = torch.stack(off).amax((0, 2))  # (object, axis)
    for found, limit in zip(most.flatten().tolist(), (6, 4, 20, 20), strict=True):
        assert 0.9 * limit < found <= limit


def test_one_or_two_frames_are_prompted_the_first_one_always():
    generator = torch.Generator().manual_seed(0)
    drawn = [clip_forward._first_and_others(8, Interaction().prompted_frames, generator) for _ in range(300)]
    assert all(frames[0] == 0 and len(set(frames)) == len(frames) for frames in drawn)
    assert {len(frames) for frames in drawn} == {1, 2} and 110 < sum(len(frames) == 2 for frames in drawn) < 190
    assert {frames[1] for frames in drawn if len(frames) == 2} == set(range(1, 8))
    assert clip_forward._first_and_others(2, 2, generator) == clip_forward._first_and_others(1, 2, generator) == [0]


@pytest.mark.parametrize("frames", [1, 2])
def test_mask_prompts_always_leave_something_to_answer(frames):
    model = new_model().eval()
    pixels, masks = torch.zeros(1, frames, 3, 128, 128), torch.ones(1, frames, 1, 128, 128, dtype=torch.bool)
    for seed in range(4):
        how = Interaction(mask=1.0, prompted_frames=2, correction_clicks=0)
        with torch.no_grad():
            assert clip_forward.answer_clips(model, pixels, masks, how, torch.Generator().manual_seed(seed))


def test_the_forward_of_the_trainer_answers_as_the_tracker_does():
    """The same weights, the same mask prompt: training reads the memory exactly as tracking does."""
    from model.tracker import Tracker
    from storage import rle
    from storage.records import Prompt

    model = new_model().eval()
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.bias += 3
    clip = squares(1)
    loaded = checkpoints.wrap(model, name="tiny")
    big = sample(
        clip,
        SampleConfig(
            image_size=128, frames=3, objects=2, time_reversal=0, horizontal_flip=0, colour_jitter=0, grayscale=0
        ),
        np.random.default_rng(2),
    )
    assert big is not None
    tracker = Tracker(loaded, lambda i: big.frames[i], video_hw=(128, 128), frame_count=3)
    for n in range(2):
        tracker.prompt(str(n), Prompt(frame_idx=0, mask_rle=rle.encode(big.masks[0, n])))
    tracked = list(tracker.propagate(0, 3))
    with torch.no_grad():
        steps = clip_forward.answer_clips(
            model,
            samples.to_pixels(big)[None],
            torch.from_numpy(big.masks)[None],
            Interaction(mask=1.0, prompted_frames=1),
            torch.Generator().manual_seed(0),
        )
    for step in steps:
        expected = tracked[step.frame].logits
        scale = expected.abs().max()
        # The tracker binarises the prompted frame's mask for the memory and keeps memories in bfloat16.
        assert torch.allclose(step.decoded.logits, expected, atol=0.02 * float(scale)), step.frame


def decoded_with(monkeypatch, how, places, is_object):
    """The clicks and the answers on one frame of these places, bool (N, S, S), with a model that answers nothing."""
    asked = []

    def decode(_, __, ___, clicks, *____, **_____):
        asked.append(clicks)
        n = len(places)
        return SimpleNamespace(logits=torch.zeros(n, 8, 8), all_logits=None, all_iou=None, object_score=None)

    monkeypatch.setattr(network, "encode_images", lambda *_: SimpleNamespace(select=lambda _: None))
    monkeypatch.setattr(network, "without_memory", lambda *_: None)
    monkeypatch.setattr(network, "decode", decode)
    monkeypatch.setattr(network, "upsample", lambda _, logits: logits)
    answers = clip_forward.answer_clips(
        cast(Sam2VideoModel, None),
        torch.zeros(1, 1, 3, *places.shape[1:]),
        places[None, None],
        how,
        torch.Generator().manual_seed(1),
        is_object=torch.tensor([is_object]),
    )
    return asked, answers


@pytest.mark.parametrize("click", [1.0, 0.0])
def test_a_place_without_an_object_is_clicked_and_nothing_is_there(monkeypatch, click):
    places = torch.zeros(2, 16, 16, dtype=torch.bool)
    places[0, 2:6, 2:6] = places[1, 10:14, 8:15] = True
    how = Interaction(click=click, mask=0.0, correction_clicks=0)
    (clicks,), (answer,) = decoded_with(monkeypatch, how, places, [True, False])
    assert answer.target[0].any() and not answer.target[1].any()
    x, y = (int(v) for v in clicks.xy[1, 0])
    assert 8 <= x < 15 and 10 <= y < 14 and int(clicks.labels[1, 0]) == 1
    assert clicks.labels.tolist() == ([[1], [1]] if click else [[2, 3], [1, -10]])
