"""The trainer: a recipe of stages over clip sources, resumable after a kill at any step.

Read `train` from top to bottom: it is the whole loop. A stage fixes the image size, the clip length and the
interaction; a source gives the clip of a seed, and the seeds follow from the recipe's seed, the stage and the step
alone, so a resumed run sees exactly the data that an uninterrupted one would have seen. Knows nothing of releases,
gates or registries.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from transformers import Sam2VideoModel

from model import architecture, checkpoints, clip_forward, parallel
from model.clips import DrawClip
from model.losses import step_losses
from model.parallel import Team
from model.recipe import Recipe, TrainingStage, followed_part
from model.run_state import save_state
from model.samples import batches, hash_seed


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run is: what a progress bar and a curve need."""

    stage: str
    step: int  # over all stages
    steps: int
    losses: dict[str, float]  # means over the steps since the last report
    lr: float
    seconds: float  # of this process


MOST_LOST = 20  # steps on end without a finite gradient


class Diverged(ValueError):
    """Many steps on end had no finite gradient. Such steps change nothing, so what was saved is whole."""


def train(
    model: Sam2VideoModel,
    source: Callable[[TrainingStage], DrawClip],
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    save_every: int = 100,
    report_every: int = 20,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
    look_every: int = 0,
    look: Callable[[Sam2VideoModel, int], None] = lambda model, step: None,
) -> Sam2VideoModel:
    """Trains through every stage and returns the trained model, at the image size of the last stage.

    model: the weights to begin with.  source: the clips of a stage.  folder: keeps state.pt (resumed when it is there)
    and curve.jsonl.  workers: processes that make clips, to which the source is pickled; 0 makes them here.
    look: gets the model, in evaluation mode, and the step, every `look_every` steps (0: never); it may only look.
    Under torchrun every process calls this with the same arguments; the first one writes and reports.
    Raises ValueError if the folder holds the state of another recipe, and Diverged.
    """
    with parallel.team(device) as team, _stopping(at_once=team.size > 1) as is_stopped:
        return _train(
            model,
            source,
            recipe,
            folder,
            device,
            workers,
            save_every,
            report_every,
            report,
            look_every,
            look,
            team,
            is_stopped,
        )


@contextmanager
def _stopping(*, at_once: bool) -> Iterator[Callable[[], bool]]:
    """Gives what says whether Ctrl-C was pressed, which takes effect after the step: its state is saved then, and no
    library that is at work swallows it. Pressed again, it takes effect at once, as it does for one of several
    processes, which would wait for each other. So does SIGTERM, where somebody listens to it.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped:
            handler = before[signal.Signals(number)]
            assert callable(handler)
            handler(number, frame)
        stopped = True

    here = not at_once and threading.current_thread() is threading.main_thread()
    listening = [number for number, handler in before.items() if here and callable(handler)]
    for number in listening:
        signal.signal(number, stop)
    try:
        yield lambda: stopped
        if stopped:  # it came after the last step
            raise KeyboardInterrupt
    finally:
        for number in listening:
            signal.signal(number, before[number])


def _train(
    model: Sam2VideoModel,
    source: Callable[[TrainingStage], DrawClip],
    recipe: Recipe,
    folder: Path,
    device: str,
    workers: int,
    save_every: int,
    report_every: int,
    report: Callable[[TrainingProgress], None],
    look_every: int,
    look: Callable[[Sam2VideoModel, int], None],
    team: Team,
    is_stopped: Callable[[], bool],
) -> Sam2VideoModel:
    folder.mkdir(parents=True, exist_ok=True)
    state_path, total = folder / "state.pt", sum(stage.steps for stage in recipe.stages)
    fingerprint = json.dumps(asdict(recipe), sort_keys=True)
    state: dict[str, Any] = {}
    if team.leads and state_path.exists():
        state = torch.load(state_path, map_location="cpu", weights_only=True)
    state = team.share(state)  # machines may not share a disk
    if state:
        if followed_part(state["recipe"], state["step"]) != followed_part(fingerprint, state["step"]):
            raise ValueError(f"{folder} holds a run of another recipe: remove it or choose another folder")
        model.load_state_dict(state["model"])
    elif team.size > 1:
        model.load_state_dict(team.share(model.state_dict()))
    done, begun = int(state.get("step", 0)), time.monotonic()
    model = _on(model, device)
    optimiser: torch.optim.Optimizer | None = None
    sums: dict[str, float] = {}
    summed = 0  # steps: fewer than `report_every` after a run has been resumed
    lost = 0  # steps on end

    first = 0  # the step at which the stage begins
    for number, stage in enumerate(recipe.stages):
        last = first + stage.steps
        if done >= last:
            first = last
            continue
        model = _on(architecture.resized(model, stage.image_size), device)
        optimiser = _optimiser(model, stage, recipe)
        if done > first:  # in the middle of this stage; each stage begins with an optimiser of its own
            optimiser.load_state_dict(state["optimiser"])
        begin = max(done, first)
        for step, (pixels, masks) in zip(
            range(begin, last),
            batches(source(stage), stage, recipe, number, begin - first, workers, team),
            strict=False,
        ):
            scale = _schedule(stage, step - first)
            for group in optimiser.param_groups:
                group["lr"] = group["base_lr"] * scale
            torch.manual_seed(
                hash_seed(recipe.seed, number, step - first, 13, team.rank)
            )  # dropout's, also when resumed
            generator = torch.Generator().manual_seed(hash_seed(recipe.seed, number, step - first, 7))
            losses = _loss(model, pixels.to(device), masks.to(device), stage, recipe, generator, team)
            optimiser.zero_grad(set_to_none=True)
            losses["total"].backward()  # type: ignore[no-untyped-call]
            team.average_gradients(model)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
            lost = 0 if norm.isfinite() else lost + 1
            if lost == MOST_LOST:
                raise Diverged(f"{lost} steps of {stage.name!r} on end had no finite gradient: lower its learning rate")
            if not lost:  # a step with such a gradient would leave no weight a number
                optimiser.step()
                for key, value in losses.items():
                    sums[key] = sums.get(key, 0.0) + float(value.detach())
                summed += 1
            if team.leads and look_every and (step + 1) % look_every == 0:
                look(model.train(False), step + 1)
                model.train()
            if (step + 1) % report_every == 0 and summed:
                means = {k: float(team.total(torch.tensor(v))) / team.size / summed for k, v in sums.items()}
                sums, summed = {}, 0
                if team.leads:
                    seconds = time.monotonic() - begun
                    progress = TrainingProgress(stage.name, step + 1, total, means, stage.lr * scale, seconds)
                    with (folder / "curve.jsonl").open("a") as file:
                        file.write(json.dumps(asdict(progress)) + "\n")
                    report(progress)
            stops = is_stopped()
            if team.leads and ((step + 1) % save_every == 0 or step + 1 == last or stops):
                save_state(state_path, model, optimiser, step + 1, fingerprint)
            if stops:
                raise KeyboardInterrupt
        first = last
    return checkpoints.wrap(architecture.resized(model, recipe.stages[-1].image_size), name="trained").model


def _on(model: Sam2VideoModel, device: str) -> Sam2VideoModel:
    """The model on a device, in training mode."""
    model.to(torch.device(device))  # type: ignore[arg-type]  # the library's stub of `to` lost its `self`
    model.train()
    return model


def _loss(
    model: Sam2VideoModel,
    pixels: Tensor,
    masks: Tensor,
    stage: TrainingStage,
    recipe: Recipe,
    generator: torch.Generator,
    team: Team = Team(),  # noqa: B008  frozen
) -> dict[str, Tensor]:
    """The mean over the model's answers of each term. On a GPU the model runs in bfloat16, the losses do not."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.device.type == "cuda"):
        steps = clip_forward.answer_clips(model, pixels, masks, stage.interaction, generator, team)
    each = [
        step_losses(
            s.decoded.all_logits.float(),
            s.decoded.all_iou.float(),
            s.decoded.object_score.float(),
            s.target,
            recipe.weights,
            team,
        )
        for s in steps
    ]
    return {
        name: torch.stack([getattr(x, name) for x in each]).mean()
        for name in ("total", "focal", "dice", "iou", "occlusion")
    }


def _schedule(stage: TrainingStage, step: int) -> float:
    """The learning rate's share at a step of the stage: linear warm-up, then a cosine down to `final_lr`."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    way = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.final_lr + (1 - stage.final_lr) * 0.5 * (1 + math.cos(math.pi * way))


def _optimiser(model: Sam2VideoModel, stage: TrainingStage, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW. Biases, norms and embeddings do not decay; the encoder may have its own rate, lower in earlier blocks."""
    encoder_lr = stage.lr if stage.encoder_lr is None else stage.encoder_lr
    blocks = len(model.vision_encoder.backbone.blocks)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        in_encoder = name.startswith("vision_encoder")
        rate = encoder_lr * recipe.layer_decay ** (blocks - _depth(name, blocks)) if in_encoder else stage.lr
        decay = recipe.weight_decay if parameter.ndim >= 2 and "embed" not in name else 0.0
        parameter.requires_grad_(rate > 0)
        if rate > 0:
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": of, "weight_decay": decay, "base_lr": lr, "lr": lr} for (lr, decay), of in groups.items()],
        betas=(0.9, 0.999),
    )


def _depth(name: str, blocks: int) -> int:
    """How many of the encoder's blocks come before a parameter of it, and itself: 0 for the stem, all for the neck."""
    if ".blocks." in name:
        return int(name.split(".blocks.")[1].split(".")[0]) + 1
    return blocks if ".neck." in name else 0
