"""The trainer: runs a recipe's stages one after the other, and goes on after a kill at any step.

Read `train` from top to bottom: it is the whole loop. The clips of a step follow from the recipe's seed, the stage and
the step alone. A resumed run therefore sees the same data as an uninterrupted one. Knows nothing of releases, gates or
registries: clips come from a function, and progress goes to a function.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor
from transformers import Sam2VideoModel

from model import architecture, checkpoints
from model.clips import DrawClip
from model.training import clip_forward, parallel, parameter_groups, run_state
from model.training.losses import step_losses
from model.training.parallel import Team
from model.training.recipe import Recipe, TrainingStage
from model.training.samples import Batch, batches, hash_seed
from storage.wording import counted

MOST_LOST = 20  # consecutive steps without a finite gradient, after which a run stops
TERMS = ("total", "focal", "dice", "iou", "occlusion")


class Diverged(ValueError):
    """Many consecutive steps had no finite gradient. Such steps change nothing, so the saved state is good."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run takes place, and how often it saves and reports.

    It is not part of the recipe, but two fields change the weights: on a GPU the model computes in bfloat16, and
    without `share_batch` each further process makes the batch of a step larger.
    """

    device: str = "cpu"
    workers: int = 1  # processes that draw clips, to which the clip function is pickled; 0: this process draws them
    save_every: int = 100  # steps
    report_every: int = 20  # steps
    look_every: int = 0  # steps; 0: never
    share_batch: bool = False  # several processes share the batch of a step; False: each adds a batch of its own


@dataclass(frozen=True)
class TrainingProgress:
    """How far a run is, for a progress bar and a curve."""

    stage: str
    step: int  # over all stages
    steps: int
    losses: dict[str, float]  # means over the steps since the last report
    lr: float
    seconds: float  # of this process


def train(
    model: Sam2VideoModel,
    clips_of: Callable[[TrainingStage], DrawClip],
    recipe: Recipe,
    folder: Path,
    options: RunOptions = RunOptions(),  # noqa: B008  frozen
    *,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
    look: Callable[[Sam2VideoModel, int], None] = lambda model, step: None,
) -> Sam2VideoModel:
    """Trains through every stage and returns the trained model, at the image size of the last stage.

    model: the weights to begin with.  clips_of: draws the clips of a stage.  folder: keeps state.pt, from which a run
    resumes, and curve.jsonl.  report: gets the progress every `report_every` steps.  look: gets the model, in
    evaluation mode, and the step, every `look_every` steps. It must not change the model.
    Under torchrun every process calls this with the same arguments; the first one writes and reports.
    Raises ValueError if the folder holds the state of another recipe, or if the processes cannot share a batch equally;
    Diverged.
    """
    with parallel.team(options.device) as team, _stopping(at_once=team.size > 1) as is_stopped:
        folder.mkdir(parents=True, exist_ok=True)
        saved = _resume(model, recipe, folder, team)
        model = _to_train(model, options.device)
        done = 0 if saved is None else saved.step
        total, started = sum(stage.steps for stage in recipe.stages), time.monotonic()
        means, last = _Means(), 0
        for number, stage in enumerate(recipe.stages):
            first, last = last, last + stage.steps  # the stage's steps, counted over all stages
            if done >= last:
                continue
            model = _to_train(architecture.resized(model, stage.image_size), options.device)
            optimiser = _optimiser(model, stage, recipe)
            begin = max(done, first)
            if saved is not None and begin > first:  # each stage begins with an optimiser of its own
                optimiser.load_state_dict(saved.optimiser)
            own = _own_part(stage, team) if options.share_batch else stage
            drawn = batches(clips_of(stage), own, recipe, number, begin - first, options.workers, team)
            for step, clips in zip(range(begin, last), drawn, strict=False):
                means.add(_step(model, optimiser, clips, recipe, number, step - first, team))
                if means.lost == MOST_LOST:
                    raise Diverged(
                        f"{MOST_LOST} consecutive steps of {stage.name!r} had no finite gradient: "
                        "lower its learning rate"
                    )
                if team.leads and options.look_every and (step + 1) % options.look_every == 0:
                    look(model.train(False), step + 1)
                    model.train()
                if (step + 1) % options.report_every == 0 and means.steps:
                    mean, lr = means.take(team), stage.lr * _schedule(stage, step - first)
                    if team.leads:
                        seconds = time.monotonic() - started
                        progress = TrainingProgress(stage.name, step + 1, total, mean, lr, seconds)
                        with (folder / "curve.jsonl").open("a") as file:
                            file.write(json.dumps(asdict(progress)) + "\n")
                        report(progress)
                stops = is_stopped()
                if team.leads and ((step + 1) % options.save_every == 0 or step + 1 == last or stops):
                    run_state.save(folder, model, optimiser, step + 1, recipe)
                if stops:
                    raise KeyboardInterrupt
        return checkpoints.wrap(architecture.resized(model, recipe.stages[-1].image_size), name="trained").model


def _own_part(stage: TrainingStage, team: Team) -> TrainingStage:
    """The stage with the clips of one process, where all share a batch. Raises ValueError if they do not divide it."""
    if stage.batch % team.size:
        raise ValueError(
            f"{team.size} processes cannot share the {counted(stage.batch, 'clip')} of a step of {stage.name!r} equally"
        )
    return replace(stage, batch=stage.batch // team.size)


@contextmanager
def _stopping(*, at_once: bool) -> Iterator[Callable[[], bool]]:
    """Delays Ctrl-C and SIGTERM to the end of a step; yields a function that says whether one of them came.

    The state is saved first, and no library that is at work can swallow the signal. A second one takes effect at once.
    at_once: leaves the signals alone. Several processes need this: one that waits would block the others. SIGTERM is
    delayed only if the program handles it.
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
        if stopped:  # the signal came after the last step
            raise KeyboardInterrupt
    finally:
        for number in listening:
            signal.signal(number, before[number])


class _Means:
    """The means of the losses since the last report, and the number of consecutive steps without a finite gradient."""

    def __init__(self) -> None:
        self.lost = 0
        self._restart()

    def _restart(self) -> None:
        self.steps, self._sums = 0, dict.fromkeys(TERMS, 0.0)

    def add(self, losses: Sequence[float] | None) -> None:
        """Counts one step. losses: in the order of TERMS; None: the gradient was not finite."""
        if losses is None:
            self.lost += 1
            return
        self.lost = 0
        for name, value in zip(TERMS, losses, strict=True):
            self._sums[name] += value
        self.steps += 1

    def take(self, team: Team) -> dict[str, float]:
        """The means over the steps and the processes; starts anew."""
        found = {k: float(team.total(torch.tensor(v))) / team.size / self.steps for k, v in self._sums.items()}
        self._restart()
        return found


def _resume(model: Sam2VideoModel, recipe: Recipe, folder: Path, team: Team) -> run_state.RunState | None:
    """Loads the weights of the saved state, if the folder holds one, into the model; returns the state.

    Without one, the processes of a team begin with the weights of the first process.
    """
    own = run_state.load(folder) if team.leads else None
    saved: run_state.RunState | None = team.share(own)  # machines may not share a disk
    if saved is not None:
        run_state.check_recipe(saved, recipe, folder)
        model.load_state_dict(saved.model)
    elif team.size > 1:
        model.load_state_dict(team.share(model.state_dict()))
    return saved


def _to_train(model: Sam2VideoModel, device: str) -> Sam2VideoModel:
    """The model on a device, in training mode."""
    model.to(torch.device(device))  # type: ignore[arg-type]  # the library's stub of `to` lost its `self`
    model.train()
    return model


def _step(
    model: Sam2VideoModel,
    optimiser: torch.optim.Optimizer,
    clips: Batch,
    recipe: Recipe,
    number: int,
    step: int,
    team: Team,
) -> list[float] | None:
    """One step of stage `number`: returns its losses in the order of TERMS.

    step: counted within the stage.
    Returns None if the gradient is not finite. The weights stay as they were; such a gradient would make them all NaN.
    """
    stage = recipe.stages[number]
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * _schedule(stage, step)
    # Random numbers follow from the step, so that a resumed run draws the same ones.
    torch.manual_seed(hash_seed(recipe.seed, number, step, 13, team.rank))  # for dropout
    generator = torch.Generator().manual_seed(hash_seed(recipe.seed, number, step, 7))
    pixels, masks, is_object = (part.to(model.device) for part in clips)
    losses = _loss(model, (pixels, masks, is_object), stage, recipe, generator, team)
    optimiser.zero_grad(set_to_none=True)
    losses["total"].backward()  # type: ignore[no-untyped-call]  # torch has no type for it
    team.average_gradients(model)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
    length, *values = torch.stack([norm, *(losses[name].detach() for name in TERMS)]).tolist()  # reads once
    if not math.isfinite(length):
        return None
    optimiser.step()
    return values


def _loss(
    model: Sam2VideoModel,
    clips: Batch,
    stage: TrainingStage,
    recipe: Recipe,
    generator: torch.Generator,
    team: Team,
) -> dict[str, Tensor]:
    """The mean of each loss term over the model's answers. On a GPU the model runs in bfloat16, the losses do not."""
    pixels, masks, is_object = clips
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.device.type == "cuda"):
        steps = clip_forward.answer_clips(model, pixels, masks, stage.interaction, generator, team, is_object)
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
    return {name: torch.stack([getattr(x, name) for x in each]).mean() for name in TERMS}


def _schedule(stage: TrainingStage, step: int) -> float:
    """The share of the learning rate at a step of the stage: linear warm-up, then a cosine down to `final_lr`."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    way = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.final_lr + (1 - stage.final_lr) * 0.5 * (1 + math.cos(math.pi * way))


def _optimiser(model: Sam2VideoModel, stage: TrainingStage, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over the weights that the stage trains; the others are frozen. Biases, norms and embeddings do not decay.

    The encoder may have a rate of its own, lower in earlier blocks.
    """
    encoder_lr = stage.lr if stage.encoder_lr is None else stage.encoder_lr
    blocks = len(model.vision_encoder.backbone.blocks)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = stage.lr
        if parameter_groups.in_encoder(name):
            rate = encoder_lr * recipe.layer_decay ** (blocks - _depth(name, blocks))
        if not parameter_groups.is_trained(name, stage.parts):
            rate = 0.0
        decay = recipe.weight_decay if parameter.ndim >= 2 and "embed" not in name else 0.0
        parameter.requires_grad_(rate > 0)
        if rate > 0:
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": of, "weight_decay": decay, "base_lr": lr, "lr": lr} for (lr, decay), of in groups.items()],
        betas=(0.9, 0.999),
    )


def _depth(name: str, blocks: int) -> int:
    """The number of encoder blocks up to and with the one of this parameter: 0 for the stem, all for the neck."""
    if ".blocks." in name:
        return int(name.split(".blocks.")[1].split(".")[0]) + 1
    return blocks if ".neck." in name else 0
