"""The trainer on a real tiny model: gradients reach every module, a killed run ends with the same weights."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model import architecture, checkpoints, clip_forward, clips, network, parallel, run_state, samples, trainer
from model.clip_forward import Interaction
from model.clips import Clip, SampleConfig, sample
from model.losses import LossWeights, step_losses
from model.parallel import Team
from model.recipe import Recipe, TrainingStage, parse_recipe

SHAPE = architecture.Shape(
    image_size=128, embed_dim=16, blocks=(1, 1, 2, 1), decoder_mlp=64, memory_mlp=128, memory_layers=1, dropout=0.0
)


def squares(seed):
    """Two bright squares that move over noise."""
    rng = np.random.default_rng(seed)
    t, side = 3, 64
    frames = rng.integers(0, 90, (t, side, side, 3), dtype=np.uint8)
    masks = np.zeros((t, 2, side, side), bool)
    for n, (x, y) in enumerate(rng.integers(2, 40, (2, 2))):
        for i in range(t):
            masks[i, n, y : y + 16, x + i : x + i + 16] = True
            frames[i][masks[i, n]] = (250, 200 - 100 * n, 90 * n)
    masks[:, 0] &= ~masks[:, 1]
    return Clip(frames, masks)


STAGE = TrainingStage(
    "tiny", 4, 128, frames=3, objects=2, batch=1, warmup=1, interaction=Interaction(mask=0.3, correction_clicks=1)
)
RECIPE = Recipe(stages=(STAGE,), seed=3)


TOGETHER = Recipe(  # for processes that train together
    stages=(
        dataclasses.replace(STAGE, steps=2, images=0.0, warmup=0, lr=1e-4),
        dataclasses.replace(STAGE, name="images", steps=2, images=1.0, warmup=0, lr=1e-4),
    ),
    seed=5,
)


def coming_and_going(seed):
    """`squares`, one of which is gone after the first frame in every second clip."""
    clip = squares(seed)
    if seed % 2:
        clip.masks[1:, 0] = False
    return clip


def forgetful():
    """A model with dropout, whose random state is a part of the run."""
    model = architecture.build(dataclasses.replace(SHAPE, dropout=0.2))
    architecture.init_weights(model, 1)
    return model


def new_model():
    model = architecture.build(SHAPE)
    architecture.init_weights(model, 1)
    return model


def run_of(model, how, seed=0):
    clip = sample(squares(1), SampleConfig(image_size=128, frames=3, objects=2), np.random.default_rng(2))
    pixels = samples.to_pixels(clip)[None]
    return clip_forward.answer_clips(
        model, pixels, torch.from_numpy(clip.masks)[None], how, torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("kind", [{"mask": 1.0}, {"mask": 0.0, "click": 1.0}, {"mask": 0.0, "click": 0.0}])
def test_gradients_reach_every_module_through_the_memory(kind):
    model = new_model().train()
    with torch.no_grad():  # the frame's object is there, so that its pointer is learned from
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


def test_corrective_clicks_fall_where_the_answer_is_wrong_and_say_what_is_true():
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
    """What kind the first prompt of a batch is, without a model."""

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
        clip_forward.answer_clips(None, pixels, masks, how, torch.Generator().manual_seed(seed))
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
    answer[:, :8, :8] = answer[:, 8:, 8:] = 5.0  # its upper half, and something on the right
    model = SimpleNamespace(prompt_encoder=SimpleNamespace(mask_input_size=(16, 16)))
    wrong = (network.upsample(model, answer)[0] > 0) != (target[0] > 0.5)
    earlier = network.Clicks(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[1]], dtype=torch.int32))

    def clicked(anywhere, times=400):
        how, generator = Interaction(click_anywhere=anywhere), torch.Generator().manual_seed(1)
        for _ in range(times):
            decoded = SimpleNamespace(logits=answer)
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
        clicks = clip_forward._boxes(target, Interaction().box_jitter, generator, Team())
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


def test_an_absent_object_teaches_presence_and_nothing_else():
    logits = torch.randn(2, 3, 16, 16, requires_grad=True)
    iou = torch.rand(2, 3)
    target = torch.zeros(2, 64, 64)
    losses = step_losses(logits, iou, torch.tensor([2.0, -2.0]), target, LossWeights())
    assert losses.focal == losses.dice == losses.iou == 0 and losses.occlusion > 0


def test_only_the_best_of_three_masks_is_corrected():
    target = torch.zeros(1, 32, 32)
    target[0, :16] = 1
    good = torch.where(target > 0.5, 4.0, -4.0)
    logits = torch.stack([good, -good, torch.zeros_like(good)], 1).requires_grad_()
    step_losses(logits, torch.zeros(1, 3), torch.tensor([1.0]), target, LossWeights()).total.backward()
    per_mask = logits.grad.abs().sum((0, 2, 3))
    assert per_mask[0] > 0 and per_mask[1] == per_mask[2] == 0


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


def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys
        sys.path[:0] = sys.argv[2:]
        import torch
        torch.set_num_threads(1)
        from test_train import RECIPE, forgetful, squares
        from model import train
        from pathlib import Path

        def report(progress):
            if progress.step == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        train.train(forgetful(), lambda stage: squares, RECIPE, Path(sys.argv[1]), workers=0, save_every=2,
                    report_every=1, report=report)
        """
    )
    here = os.path.dirname(__file__)
    root = os.path.dirname(os.path.dirname(here))
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a"), here, root], check=False)
    assert died.returncode == -signal.SIGKILL
    resumed = trainer.train(forgetful(), lambda _: squares, RECIPE, tmp_path / "a", workers=0, save_every=2)
    whole = trainer.train(forgetful(), lambda _: squares, RECIPE, tmp_path / "b", workers=0, save_every=2)
    for (name, a), b in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_takes_effect_after_the_step_whoever_swallows_it_and_loses_nothing(tmp_path, number):
    def interrupt(signal_number, frame):
        raise KeyboardInterrupt

    def report(progress):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:  # as some library might
            pytest.fail("it was not for whoever looks on")

    model = architecture.build(SHAPE)
    architecture.init_weights(model, RECIPE.seed)
    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.train(
                model, lambda stage: squares, RECIPE, tmp_path, workers=0, report_every=2, save_every=100, report=report
            )
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert run_state.restore(architecture.build(SHAPE), tmp_path) == 2


def test_ctrl_c_after_the_last_step_is_not_forgotten(tmp_path, monkeypatch):
    wrap = checkpoints.wrap

    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return wrap(*args, **kwargs)

    monkeypatch.setattr(checkpoints, "wrap", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(architecture.build(SHAPE), lambda stage: squares, RECIPE, tmp_path, workers=0)
    assert run_state.restore(architecture.build(SHAPE), tmp_path) == sum(stage.steps for stage in RECIPE.stages)


def test_ctrl_c_pressed_again_does_not_wait_for_the_step(tmp_path):
    def report(progress):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("at once")

    with pytest.raises(RuntimeError, match="at once"):
        trainer.train(
            architecture.build(SHAPE), lambda stage: squares, RECIPE, tmp_path, workers=0, report_every=1, report=report
        )
    assert not (tmp_path / "state.pt").exists()


def test_two_processes_do_what_one_does_with_the_double_batch(tmp_path):
    """Real processes under torchrun, over gloo, on images and clips, with objects that are absent in some."""
    script = tmp_path / "part.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            sys.path[:0] = sys.argv[2:]
            import torch
            torch.set_num_threads(1)
            from test_train import TOGETHER, coming_and_going, new_model
            from model import train
            from pathlib import Path

            train.train(new_model(), lambda stage: coming_and_going, TOGETHER, Path(sys.argv[1]), workers=0,
                        save_every=2, report_every=1)
            """
        )
    )
    here = os.path.dirname(__file__)
    root = os.path.dirname(os.path.dirname(here))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    together = [*launch, str(script), str(tmp_path / "two"), here, root]
    subprocess.run(together, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=240)
    double = dataclasses.replace(
        TOGETHER, stages=tuple(dataclasses.replace(s, batch=2 * s.batch) for s in TOGETHER.stages)
    )
    alone = trainer.train(
        new_model(), lambda _: coming_and_going, double, tmp_path / "one", workers=0, save_every=2, report_every=1
    )
    curves = [
        [json.loads(line)["losses"] for line in (tmp_path / of / "curve.jsonl").read_text().splitlines()]
        for of in ("two", "one")
    ]
    assert len(curves[0]) == len(curves[1]) == 4  # the first process alone writes
    for two, one in zip(*curves, strict=True):
        assert two == pytest.approx(one, rel=2e-3, abs=2e-5)
    assert curves[1][0] != pytest.approx(curves[1][2], rel=1e-2)  # steps do differ
    reached = new_model()
    run_state.restore(reached, tmp_path / "two")
    two, one, begun = (torch.nn.utils.parameters_to_vector(m.parameters()) for m in (reached, alone, new_model()))
    assert (two - one).norm() < 0.02 * (one - begun).norm()  # AdamW makes much of rounding where gradients are zero


def test_the_learning_rate_warms_up_and_comes_down_on_a_cosine():
    stage = dataclasses.replace(STAGE, steps=110, warmup=10, final_lr=0.1)
    scale = [trainer._schedule(stage, step) for step in range(111)]
    assert scale[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert scale[10] == 1 and scale[60] == pytest.approx(0.55) and scale[110] == pytest.approx(0.1)
    assert scale[35] == pytest.approx(0.1 + 0.9 * (0.5 + 0.5**1.5))
    assert trainer._schedule(dataclasses.replace(stage, final_lr=1.0), 80) == 1


def test_gradients_are_clipped_by_their_norm(tmp_path):
    def norm(clip_grad):
        found = []

        def look(model, _):
            found.append(float(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()))

        recipe = Recipe(stages=(dataclasses.replace(STAGE, steps=1),), seed=3, clip_grad=clip_grad)
        trainer.train(
            new_model(), lambda _: squares, recipe, tmp_path / str(clip_grad), workers=0, look_every=1, look=look
        )
        return found[0]

    free = norm(1e9)
    assert norm(free / 4) == pytest.approx(free / 4, rel=1e-3)


def test_the_first_report_after_a_resume_is_the_mean_of_the_steps_that_it_saw(tmp_path):
    first = dataclasses.replace(STAGE, steps=1)
    both = Recipe(stages=(first, dataclasses.replace(first, name="more")), seed=3)

    def losses(folder, recipe, every):
        found = []
        trainer.train(
            new_model(),
            lambda _: squares,
            recipe,
            tmp_path / folder,
            workers=0,
            report_every=every,
            report=lambda progress: found.append(progress.losses["total"]),
        )
        return found

    one, two = losses("each", both, 1)
    assert losses("whole", both, 2) == pytest.approx([(one + two) / 2])
    assert losses("cut", dataclasses.replace(both, stages=(first,)), 2) == []
    assert losses("cut", both, 2) == pytest.approx([two])


def test_a_step_without_a_finite_gradient_changes_nothing_and_many_on_end_are_told(tmp_path, monkeypatch):
    loss, broken = trainer._loss, set()

    def sometimes(model, *rest):
        steps.append(len(steps))
        found = loss(model, *rest)
        return found | {"total": found["total"] * (float("nan") if steps[-1] in broken else 1.0)}

    def run(folder):
        steps.clear()
        found = []
        recipe = Recipe(stages=(dataclasses.replace(STAGE, steps=3),), seed=3)
        trained = trainer.train(
            new_model(), lambda _: squares, recipe, tmp_path / folder, workers=0, report_every=1, report=found.append
        )
        return trained.state_dict(), [progress.step for progress in found]

    steps = []
    monkeypatch.setattr(trainer, "_loss", sometimes)
    whole, _ = run("whole")
    broken.add(1)
    weights, reported = run("broken")
    assert reported == [1, 3] and all(value.isfinite().all() for value in weights.values())
    assert any(not torch.equal(value, whole[name]) for name, value in weights.items())
    broken |= {0, 1, 2}
    monkeypatch.setattr(trainer, "MOST_LOST", 3)
    with pytest.raises(trainer.Diverged, match="3 steps of 'tiny' on end had no finite gradient"):
        run("lost")
    assert not (tmp_path / "lost" / "state.pt").exists()


def test_what_a_kill_leaves_of_a_state_is_replaced_by_the_next_one(tmp_path, monkeypatch):
    model = torch.nn.Linear(2, 2)
    optimiser, whole = torch.optim.AdamW(model.parameters()), torch.save

    def killed(_, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    for number, save in enumerate((killed, whole)):  # two processes, one after the other
        monkeypatch.setattr(os, "getpid", lambda number=number: number)
        monkeypatch.setattr(torch, "save", save)
        try:
            run_state.save_state(tmp_path / "state.pt", model, optimiser, number, "")
        except KeyboardInterrupt:
            assert not (tmp_path / "state.pt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_losses_are_shared_from_the_cpu_also_where_the_model_is_on_a_gpu():
    """No GPU is needed to see which backend would carry what."""
    carried = torch.distributed.distributed_c10d.BackendConfig(parallel._backend("cuda:1")).get_device_backend_map()
    assert carried["cpu"] == "gloo" and carried["cuda"] == "nccl" and parallel._backend("cpu") == "gloo"


def test_a_frozen_encoder_stays_as_it_was_and_layer_decay_slows_its_early_blocks(tmp_path):
    def moved(stage, **recipe):
        begun, folder = new_model(), tmp_path / str(len(list(tmp_path.iterdir())))
        before = {name: p.clone() for name, p in begun.state_dict().items()}
        done = trainer.train(begun, lambda _: squares, Recipe(stages=(stage,), seed=3, **recipe), folder, workers=0)
        return {name: float((p - before[name]).abs().max()) for name, p in done.state_dict().items()}

    one = dataclasses.replace(STAGE, steps=1)
    frozen = moved(dataclasses.replace(one, encoder_lr=0.0))
    assert all(change == 0 for name, change in frozen.items() if name.startswith("vision_encoder"))
    assert any(change > 0 for name, change in frozen.items() if name.startswith("mask_decoder"))
    slowed = moved(one, weight_decay=0.0, layer_decay=0.5)
    block = "vision_encoder.backbone.blocks.{}.attn.proj.weight"  # AdamW's first step moves by the rate itself
    assert slowed[block.format(4)] == pytest.approx(2 * slowed[block.format(3)], rel=0.05)
    assert slowed["vision_encoder.neck.convs.0.weight"] == pytest.approx(slowed[block.format(4)], rel=0.05)


def test_a_share_of_the_steps_sees_single_frames():
    stage = dataclasses.replace(STAGE, steps=40, batch=2, images=0.5)
    drawn = samples.Samples(squares, stage, Recipe(stages=(stage,), seed=3), 0, 0, Team())
    lengths = [[len(drawn[2 * step + row][0]) for row in range(2)] for step in range(20)]
    assert all(a == b for a, b in lengths)  # of one step all
    assert {1, 3} == {a for a, _ in lengths} and 4 < sum(a == 1 for a, _ in lengths) < 16


def test_a_mosaic_shows_the_clip_four_times_and_asks_for_one():
    config = SampleConfig(image_size=128, frames=3, objects=2, mosaic=1.0, colour_jitter=0.0, grayscale=0.0)
    clip = sample(squares(1), config, np.random.default_rng(2))
    quarters = [clip.frames[:, y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64)]
    assert all(np.array_equal(quarters[0], other) for other in quarters[1:])
    asked = [clip.masks[..., y : y + 64, x : x + 64].any() for y in (0, 64) for x in (0, 64)]
    assert sum(asked) == 1


def test_a_clip_may_run_backwards_frames_and_masks_alike():
    config = SampleConfig(image_size=64, frames=3, objects=2, time_reversal=0.0, colour_jitter=0.0, grayscale=0.0)
    for seed in range(4):
        there, back = (
            sample(squares(1), dataclasses.replace(config, time_reversal=p), np.random.default_rng(seed))
            for p in (0, 1)
        )
        assert np.array_equal(there.frames[::-1], back.frames) and not np.array_equal(there.frames, back.frames)
        assert np.array_equal(there.masks[::-1], back.masks)
    forwards = [
        np.array_equal(
            sample(squares(1), dataclasses.replace(config, time_reversal=0.5), np.random.default_rng(seed)).masks,
            sample(squares(1), config, np.random.default_rng(seed)).masks,
        )
        for seed in range(60)
    ]
    assert 18 < sum(forwards) < 42


def test_brightness_and_tone_may_jitter_by_different_amounts():
    clip = Clip(np.full((1, 8, 8, 3), (60, 120, 180), np.uint8), np.ones((1, 1, 8, 8), bool))
    config = SampleConfig(image_size=8, frames=1, objects=1, min_area_px=1, colour_jitter=0.3, grayscale=0.0)

    def spread(config):
        """How far the colours are apart, which brightness alone moves by as much as it moves them."""
        found = [sample(clip, config, np.random.default_rng(seed)).frames[0, 0, 0].astype(float) for seed in range(60)]
        return np.std([(colour.max() - colour.min()) / colour.mean() for colour in found])

    assert spread(dataclasses.replace(config, tone_jitter=0.0)) < 0.01 < spread(config)


def test_one_turn_moves_frames_and_masks_of_a_clip_alike_and_no_strength_draws_nothing():
    plain = SampleConfig(image_size=128, frames=3, objects=2, colour_jitter=0.0, grayscale=0.0, horizontal_flip=0.0)
    turned = dataclasses.replace(plain, affine=1.0)
    clip = squares(1)
    for seed in range(6):
        before, after = (sample(clip, config, np.random.default_rng(seed)) for config in (plain, turned))
        for i in range(3):
            for n in range(2):  # the squares are bright, the ground is not
                inside = after.frames[i][after.masks[i, n]]
                assert inside.size == 0 or np.mean(inside[:, 0] > 180) > 0.9
        assert not np.array_equal(after.masks, before.masks)
    maps = []
    for i in range(3):  # the one map of the clip, from the corners of a square that does not move
        still = Clip(np.repeat(clip.frames[:1], 3, 0), np.repeat(clip.masks[:1], 3, 0))
        maps.append(sample(still, turned, np.random.default_rng(9)).masks[i])
    assert np.array_equal(maps[0], maps[1]) and np.array_equal(maps[1], maps[2])
    again = sample(clip, dataclasses.replace(plain, affine=0.0), np.random.default_rng(3))
    assert np.array_equal(again.frames, sample(clip, plain, np.random.default_rng(3)).frames)


def test_a_turn_is_about_the_middle_and_shears_along_the_rows():
    masks = np.zeros((1, 1, 65, 65), bool)
    masks[..., 30:35, 50:55] = True  # right of the middle
    frames = np.zeros((1, 65, 65, 3), np.uint8)

    def centre(turn, shear):
        moved_frames, moved = clips._turned(frames, masks, turn, shear)
        assert tuple(moved_frames[0, 32, 32]) == (0, 0, 0)
        assert (tuple(moved_frames[0, 0, 0]) == clips._BEYOND) == (turn != 90)  # the corner comes from outside
        return np.argwhere(moved[0, 0]).mean(0)

    assert centre(90, 0) == pytest.approx([52, 32], abs=0.6)
    assert centre(45, 0) == pytest.approx([32 + 20 * 0.5**0.5, 32 + 20 * 0.5**0.5], abs=0.6)
    assert centre(0, 20) == pytest.approx([32, 52], abs=0.6)
    masks[:] = False
    masks[..., 10:15, 30:35] = True  # above it
    assert centre(0, 20) == pytest.approx([12, 32 + 20 * np.tan(np.deg2rad(20))], abs=0.6)


def test_a_recipe_is_read_from_what_was_written_of_it():
    recipe = Recipe(stages=(STAGE, dataclasses.replace(STAGE, encoder_lr=0.0, hardest=0.5)), affine=0.3)
    assert parse_recipe(json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe
    assert parse_recipe({"stages": [{"name": "a", "steps": 3}]}) == Recipe(stages=(TrainingStage("a", 3),))


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ([], "a recipe is an object"),
        ({"stages": []}, "a list of 'stages'"),
        ({"stages": [3]}, "a stage is an object"),
        ({"stages": [{"name": "a"}]}, "stage: .*steps"),
        ({"stages": [{"name": "a", "steps": "3"}]}, "stage: steps is int, not '3'"),
        ({"stages": [{"name": "a", "steps": 3, "speed": 1}]}, "stage: unknown field 'speed'"),
        ({"stages": [{"name": "a", "steps": 0}]}, "stage 'a': steps is more than 0, not 0"),
        ({"stages": [{"name": "a", "steps": 3, "lr": -0.1}]}, "stage 'a': lr is more than 0, not -0.1"),
        (
            {"stages": [{"name": "a", "steps": 3, "interaction": {"mask": True}}]},
            "interaction: mask is float, not True",
        ),
        ({"stages": [{"name": "a", "steps": 3}], "weights": {"dice": None}}, "weights: dice is float"),
    ],
)
def test_a_recipe_that_is_none_is_one_line(written, line):
    with pytest.raises(ValueError, match=line):
        parse_recipe(written)


def test_a_run_that_an_earlier_version_began_goes_on(tmp_path):
    """A field that is new has its default in what was begun without it."""
    one = Recipe(stages=(dataclasses.replace(STAGE, steps=2),), seed=3)
    trainer.train(new_model(), lambda _: squares, one, tmp_path, workers=0)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    older = json.loads(state["recipe"])
    del older["affine"], older["stages"][0]["hardest"]
    torch.save(state | {"recipe": json.dumps(older)}, tmp_path / "state.pt")
    more = dataclasses.replace(one, stages=(*one.stages, dataclasses.replace(STAGE, name="more", steps=1)))
    trainer.train(new_model(), lambda _: squares, more, tmp_path, workers=0)
    assert run_state.restore(new_model(), tmp_path) == 3
    with pytest.raises(ValueError, match="another recipe"):
        trainer.train(new_model(), lambda _: squares, dataclasses.replace(more, affine=0.5), tmp_path, workers=0)


def test_who_looks_at_a_run_changes_nothing(tmp_path):
    looked = []

    def look(model, step):
        assert not model.training
        looked.append(step)

    seen = trainer.train(new_model(), lambda _: squares, RECIPE, tmp_path / "a", workers=0, look_every=2, look=look)
    plain = trainer.train(new_model(), lambda _: squares, RECIPE, tmp_path / "b", workers=0)
    assert looked == [2, 4]
    for a, b in zip(seen.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_folder_with_another_recipes_run_is_refused(tmp_path):
    one = Recipe(stages=(dataclasses.replace(STAGE, steps=1),), seed=3)
    trainer.train(new_model(), lambda _: squares, one, tmp_path, workers=0)
    with pytest.raises(ValueError, match="another recipe"):
        trainer.train(new_model(), lambda _: squares, dataclasses.replace(one, seed=4), tmp_path, workers=0)


def test_later_stages_may_be_changed_while_an_earlier_one_is_done(tmp_path):
    first = dataclasses.replace(STAGE, steps=1)
    trainer.train(new_model(), lambda _: squares, Recipe(stages=(first,), seed=3), tmp_path / "a", workers=0)
    more = Recipe(stages=(first, dataclasses.replace(first, name="more", lr=1e-6)), seed=3)
    resumed = trainer.train(new_model(), lambda _: squares, more, tmp_path / "a", workers=0)
    whole = trainer.train(new_model(), lambda _: squares, more, tmp_path / "b", workers=0)
    for a, b in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_few_steps_on_one_clip_bring_the_loss_down(tmp_path):
    losses = []
    stage = TrainingStage(
        "fit", 24, 128, frames=2, objects=2, batch=1, lr=2e-3, warmup=2, interaction=Interaction(mask=1.0)
    )
    trainer.train(
        new_model(),
        lambda _: lambda seed: squares(1),
        Recipe(stages=(stage,), seed=3, time_reversal=0, horizontal_flip=0, colour_jitter=0),
        tmp_path,
        workers=0,
        report_every=6,
        report=lambda p: losses.append(p.losses["total"]),
    )
    assert losses[-1] < 0.8 * losses[0]


def test_samples_have_one_shape_and_repeat_objects_where_there_are_too_few():
    config = SampleConfig(image_size=128, frames=2, objects=5)
    got = sample(squares(2), config, np.random.default_rng(0))
    assert got.frames.shape == (2, 128, 128, 3) and got.masks.shape == (2, 5, 128, 128)
    empty = Clip(np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 1, 64, 64), bool))
    assert sample(empty, config, np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match="3 frames, the sample wants 4"):
        sample(squares(2), SampleConfig(frames=4), np.random.default_rng(0))


def test_seeds_of_different_places_differ():
    seeds = {samples.hash_seed(a, b, c) for a in range(3) for b in range(3) for c in range(200)}
    assert len(seeds) == 1800
