"""The training loop on a real tiny model: signals, schedule, optimiser and reports."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch

from model import architecture, checkpoints
from model.training import run_state, trainer
from model.training.recipe import Interaction, Recipe, TrainingStage
from tests.model.training.small_training import RECIPE, STAGE, new_model, squares, tiny_shape, train


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_takes_effect_after_the_step_even_if_a_library_swallows_it_and_loses_nothing(tmp_path, number):
    def interrupt(signal_number, frame):
        raise KeyboardInterrupt

    def report(progress):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:  # a library that swallows it
            pytest.fail("the signal reached the code of the step")

    model = architecture.build(tiny_shape())
    architecture.init_weights(model, RECIPE.seed)
    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(model, lambda stage: squares, RECIPE, tmp_path, report_every=2, save_every=100, report=report)
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert run_state.restore(architecture.build(tiny_shape()), tmp_path) == 2


def test_ctrl_c_after_the_last_step_still_takes_effect(tmp_path, monkeypatch):
    wrap = checkpoints.wrap

    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return wrap(*args, **kwargs)

    monkeypatch.setattr(checkpoints, "wrap", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(architecture.build(tiny_shape()), lambda stage: squares, RECIPE, tmp_path)
    assert run_state.restore(architecture.build(tiny_shape()), tmp_path) == sum(stage.steps for stage in RECIPE.stages)


def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path):
    def report(progress):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("at once")

    with pytest.raises(RuntimeError, match="at once"):
        train(architecture.build(tiny_shape()), lambda stage: squares, RECIPE, tmp_path, report_every=1, report=report)
    assert not (tmp_path / "state.pt").exists()


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
        train(new_model(), lambda _: squares, recipe, tmp_path / str(clip_grad), look_every=1, look=look)
        return found[0]

    free = norm(1e9)
    assert norm(free / 4) == pytest.approx(free / 4, rel=1e-3)


def test_the_first_report_after_a_resume_is_the_mean_of_the_steps_since_the_resume(tmp_path):
    first = dataclasses.replace(STAGE, steps=1)
    both = Recipe(stages=(first, dataclasses.replace(first, name="more")), seed=3)

    def losses(folder, recipe, every):
        found = []
        train(
            new_model(),
            lambda _: squares,
            recipe,
            tmp_path / folder,
            report_every=every,
            report=lambda progress: found.append(progress.losses["total"]),
        )
        return found

    one, two = losses("each", both, 1)
    assert losses("whole", both, 2) == pytest.approx([(one + two) / 2])
    assert losses("cut", dataclasses.replace(both, stages=(first,)), 2) == []
    assert losses("cut", both, 2) == pytest.approx([two])


def test_a_step_without_a_finite_gradient_changes_nothing_and_many_in_a_row_stop_the_run(tmp_path, monkeypatch):
    loss, broken = trainer._loss, set()

    def sometimes(model, *rest):
        steps.append(len(steps))
        found = loss(model, *rest)
        return found | {"total": found["total"] * (float("nan") if steps[-1] in broken else 1.0)}

    def run(folder):
        steps.clear()
        found = []
        recipe = Recipe(stages=(dataclasses.replace(STAGE, steps=3),), seed=3)
        trained = train(new_model(), lambda _: squares, recipe, tmp_path / folder, report_every=1, report=found.append)
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
    with pytest.raises(trainer.Diverged, match="3 consecutive steps of 'tiny' had no finite gradient"):
        run("lost")
    assert not (tmp_path / "lost" / "state.pt").exists()


def test_a_frozen_encoder_stays_as_it_was_and_layer_decay_slows_its_early_blocks(tmp_path):
    def moved(stage, **recipe):
        begun, folder = new_model(), tmp_path / str(len(list(tmp_path.iterdir())))
        before = {name: p.clone() for name, p in begun.state_dict().items()}
        done = train(begun, lambda _: squares, Recipe(stages=(stage,), seed=3, **recipe), folder)
        return {name: float((p - before[name]).abs().max()) for name, p in done.state_dict().items()}

    one = dataclasses.replace(STAGE, steps=1)
    frozen = moved(dataclasses.replace(one, encoder_lr=0.0))
    assert all(change == 0 for name, change in frozen.items() if name.startswith("vision_encoder"))
    assert any(change > 0 for name, change in frozen.items() if name.startswith("mask_decoder"))
    slowed = moved(one, weight_decay=0.0, layer_decay=0.5)
    block = "vision_encoder.backbone.blocks.{}.attn.proj.weight"  # AdamW's first step is the learning rate
    assert slowed[block.format(4)] == pytest.approx(2 * slowed[block.format(3)], rel=0.05)
    assert slowed["vision_encoder.neck.convs.0.weight"] == pytest.approx(slowed[block.format(4)], rel=0.05)


@pytest.mark.parametrize(
    ("parts", "moving"),
    [
        ("memory", {"mask_decoder", "memory_attention", "memory_encoder"}),
        ("decoder", {"mask_decoder", "prompt_encoder"}),
    ],
)
def test_a_stage_changes_only_the_parts_that_it_trains(tmp_path, parts, moving):
    stage = dataclasses.replace(STAGE, parts=parts, interaction=Interaction(mask=0.0, correction_clicks=1))
    model = new_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = train(model, lambda _: squares, Recipe(stages=(stage,), seed=3), tmp_path)
    moved = {
        name.split(".")[0] for name, value in after.named_parameters() if not torch.equal(value.detach(), before[name])
    }
    assert moving <= moved
    assert not moved & ({"vision_encoder"} | ({"memory_attention", "memory_encoder"} if parts == "decoder" else set()))


def test_looking_at_a_run_does_not_change_its_weights(tmp_path):
    looked = []

    def look(model, step):
        assert not model.training
        looked.append(step)

    seen = train(new_model(), lambda _: squares, RECIPE, tmp_path / "a", look_every=2, look=look)
    plain = train(new_model(), lambda _: squares, RECIPE, tmp_path / "b")
    assert looked == [2, 4]
    for a, b in zip(seen.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_few_steps_on_one_clip_bring_the_loss_down(tmp_path):
    losses = []
    stage = TrainingStage(
        "fit", 24, 128, frames=2, objects=2, batch=1, lr=2e-3, warmup=2, interaction=Interaction(mask=1.0)
    )
    train(
        new_model(),
        lambda _: lambda seed: squares(1),
        Recipe(stages=(stage,), seed=3, time_reversal=0, horizontal_flip=0, colour_jitter=0),
        tmp_path,
        report_every=6,
        report=lambda p: losses.append(p.losses["total"]),
    )
    assert losses[-1] < 0.8 * losses[0]
