"""The trainer: a recipe of stages over clip sources, resumable after a kill at any step.

Read `train` from top to bottom: it is the whole loop. A stage fixes the image size, the clip length and the
interaction; a source gives the clip of a seed, and the seeds follow from the recipe's seed, the stage and the step
alone, so a resumed run sees exactly the data that an uninterrupted one would have seen. Knows nothing of releases,
gates or registries.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Sam2VideoModel

from model import checkpoints, clip_forward, parallel
from model.clip_forward import Interaction
from model.clips import Clip, ClipSource, SampleConfig, sample
from model.losses import LossWeights, step_losses
from model.parallel import Team


@dataclass(frozen=True)
class Stage:
    """A stretch of training in which nothing changes but the learning rate."""

    name: str
    steps: int
    image_size: int = 256  # px
    frames: int = 8
    objects: int = 3
    batch: int = 2  # clips a step, of each process
    lr: float = 5e-4
    encoder_lr: float | None = None  # the image encoder's; None: the same; 0: it is frozen
    warmup: int = 100  # steps
    images: float = 0.0  # share of the steps that see single frames instead of clips
    final_lr: float = 1.0  # share of the learning rate left at the end; the way down is a cosine
    hardest: float = 1.0  # share of the masklets, the most edited, that the source draws from, if it knows; 1: all
    interaction: Interaction = field(default_factory=Interaction)


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes the weights; saved with them."""

    stages: tuple[Stage, ...]
    seed: int = 1
    weight_decay: float = 0.05
    clip_grad: float = 1.0  # largest L2 norm
    layer_decay: float = 1.0  # of the encoder's learning rate from each block to the one before it
    mosaic: float = 0.0  # probability; see `model.clips`
    weights: LossWeights = field(default_factory=LossWeights)
    time_reversal: float = 0.5
    horizontal_flip: float = 0.5
    colour_jitter: float = 0.15
    tone_jitter: float | None = None  # of contrast and saturation; None: as colour_jitter
    affine: float = 0.0  # strength; see `model.clips`


@dataclass(frozen=True)
class Progress:
    """Where a run is: what a progress bar and a curve need."""

    stage: str
    step: int  # over all stages
    steps: int
    losses: dict[str, float]  # means over the steps since the last report
    lr: float
    seconds: float  # of this process


def recipe_from(written: Any) -> Recipe:
    """The recipe of what `asdict` and JSON made of one; what is left out has its default.

    Raises ValueError that names a field which no recipe has, or one that is no such number or text.
    """
    stages = _fields(written, "a recipe").get("stages")
    if not isinstance(stages, list | tuple) or not stages:
        raise ValueError("a recipe has a list of 'stages'")
    weights = _filled(LossWeights, written.get("weights", {}), "weights")
    filled = []
    for stage in stages:
        interaction = _filled(Interaction, _fields(stage, "a stage").get("interaction", {}), "interaction")
        made = _filled(Stage, stage | {"interaction": interaction}, "stage")
        for name in ("steps", "image_size", "frames", "objects", "batch", "lr"):
            if getattr(made, name) <= 0:
                raise ValueError(f"stage {made.name!r}: {name} is more than 0, not {getattr(made, name)!r}")
        filled.append(made)
    return _filled(Recipe, written | {"stages": tuple(filled), "weights": weights}, "recipe")


T = TypeVar("T")
MOST_LOST = 20  # steps on end without a finite gradient


def _filled(kind: type[T], values: Any, what: str) -> T:
    """A dataclass of these values, its numbers and texts checked."""
    known = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]  # mypy does not know a dataclass
    for name, value in _fields(values, what).items():
        if name not in known:
            raise ValueError(f"{what}: unknown field {name!r}; there are {', '.join(known)}")
        kinds = {"int": int, "float": (int, float), "float | None": (int, float, type(None)), "str": str}
        if isinstance(value, bool) or not isinstance(value, kinds.get(known[name], object)):  # type: ignore[arg-type]
            raise ValueError(f"{what}: {name} is {known[name]}, not {value!r}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{what}: {error}") from error


def _fields(values: Any, what: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"{what} is an object with fields, not {values!r:.40}")
    return values


class NoObject(ValueError):
    """A source gave no clip with a visible object in twenty draws."""


class Diverged(ValueError):
    """Many steps on end had no finite gradient. Such steps change nothing, so what was saved is whole."""


def train(
    model: Sam2VideoModel,
    source: Callable[[Stage], ClipSource],
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    save_every: int = 100,
    report_every: int = 20,
    report: Callable[[Progress], None] = lambda progress: None,
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
    source: Callable[[Stage], ClipSource],
    recipe: Recipe,
    folder: Path,
    device: str,
    workers: int,
    save_every: int,
    report_every: int,
    report: Callable[[Progress], None],
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
        if _prefix(state["recipe"], state["step"]) != _prefix(fingerprint, state["step"]):
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
        model = _on(checkpoints.resized(model, stage.image_size), device)
        optimiser = _optimiser(model, stage, recipe)
        if done > first:  # in the middle of this stage; each stage begins with an optimiser of its own
            optimiser.load_state_dict(state["optimiser"])
        begin = max(done, first)
        for step, (pixels, masks) in zip(
            range(begin, last),
            _batches(source(stage), stage, recipe, number, begin - first, workers, team),
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
                    progress = Progress(stage.name, step + 1, total, means, stage.lr * scale, seconds)
                    with (folder / "curve.jsonl").open("a") as file:
                        file.write(json.dumps(asdict(progress)) + "\n")
                    report(progress)
            stops = is_stopped()
            if team.leads and ((step + 1) % save_every == 0 or step + 1 == last or stops):
                _save_state(state_path, model, optimiser, step + 1, fingerprint)
            if stops:
                raise KeyboardInterrupt
        first = last
    return checkpoints.wrap(checkpoints.resized(model, recipe.stages[-1].image_size), name="trained").model


def _on(model: Sam2VideoModel, device: str) -> Sam2VideoModel:
    """The model on a device, in training mode."""
    model.to(torch.device(device))  # type: ignore[arg-type]  # the library's stub of `to` lost its `self`
    model.train()
    return model


def _loss(
    model: Sam2VideoModel,
    pixels: Tensor,
    masks: Tensor,
    stage: Stage,
    recipe: Recipe,
    generator: torch.Generator,
    team: Team = Team(),  # noqa: B008  frozen
) -> dict[str, Tensor]:
    """The mean over the model's answers of each term. On a GPU the model runs in bfloat16, the losses do not."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.device.type == "cuda"):
        steps = clip_forward.run(model, pixels, masks, stage.interaction, generator, team)
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


def _schedule(stage: Stage, step: int) -> float:
    """The learning rate's share at a step of the stage: linear warm-up, then a cosine down to `final_lr`."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    way = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.final_lr + (1 - stage.final_lr) * 0.5 * (1 + math.cos(math.pi * way))


def _optimiser(model: Sam2VideoModel, stage: Stage, recipe: Recipe) -> torch.optim.Optimizer:
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


def _save_state(path: Path, model: Sam2VideoModel, optimiser: torch.optim.Optimizer, step: int, recipe: str) -> None:
    """Writes beside and renames: a kill leaves the old state or the new one, and a rest that the next save replaces."""
    temporary = path.with_suffix(".tmp")
    torch.save(
        {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "recipe": recipe}, temporary
    )
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def restore(model: Sam2VideoModel, folder: Path) -> int:
    """Puts the weights that a run has reached into a model of its shape, and returns the steps that it has done."""
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    return int(state["step"])


def _prefix(recipe: str, step: int) -> str:
    """The part of a recipe that the first `step` steps have followed: later stages may still be changed."""
    whole = asdict(recipe_from(json.loads(recipe)))  # one that an earlier version wrote has fewer fields
    kept, first = [], 0
    for stage in whole["stages"]:
        if first >= step:
            break
        first += stage["steps"]
        kept.append(stage)
    return json.dumps({**whole, "stages": kept}, sort_keys=True)


def hash_seed(*parts: int) -> int:
    """One 62-bit seed from several numbers, well mixed."""
    words = np.random.SeedSequence([p & 0xFFFFFFFF for p in parts]).generate_state(2, np.uint32)
    return int(words[0]) << 30 | int(words[1]) >> 2


class _Samples(Dataset[tuple[Tensor, Tensor]]):
    """The samples of a stage by index; everything about one follows from the recipe's seed and the index."""

    def __init__(
        self,
        source: ClipSource,
        stage: Stage,
        recipe: Recipe,
        number: int,
        first: int,
        team: Team = Team(),  # noqa: B008  frozen
    ) -> None:
        self.source, self.stage, self.recipe, self.number, self.first = source, stage, recipe, number, first
        self.team = team
        self.config = SampleConfig(
            image_size=stage.image_size,
            frames=stage.frames,
            objects=stage.objects,
            time_reversal=recipe.time_reversal,
            horizontal_flip=recipe.horizontal_flip,
            colour_jitter=recipe.colour_jitter,
            tone_jitter=recipe.tone_jitter,
            mosaic=recipe.mosaic,
            affine=recipe.affine,
            min_area_px=max(12, stage.image_size**2 // 1600),
        )

    def __len__(self) -> int:
        return (self.stage.steps * self.stage.batch) - self.first

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        step, row = divmod(self.first + index, self.stage.batch)
        place = (step * self.team.size + self.team.rank) * self.stage.batch + row  # among the samples of all processes
        images = np.random.default_rng(hash_seed(self.recipe.seed, self.number, step, 11)).random() < self.stage.images
        config = replace(self.config, frames=1) if images else self.config
        for attempt in range(20):
            seed = hash_seed(self.recipe.seed, self.number, place, attempt)
            clip = sample(self.source(seed), config, np.random.default_rng(seed + 1))
            if clip is not None:
                return to_pixels(clip), torch.from_numpy(clip.masks)
        raise NoObject(f"no clip with a visible object in twenty draws: sample {place} of {self.stage.name}")


def to_pixels(clip: Clip) -> Tensor:
    """A clip's frames as the model wants them: float (T, 3, S, S), normalised."""
    frames = torch.from_numpy(np.ascontiguousarray(clip.frames)).permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.tensor(checkpoints.IMAGENET_MEAN).view(3, 1, 1),
        torch.tensor(checkpoints.IMAGENET_STD).view(3, 1, 1),
    )
    return (frames - mean) / std


def _batches(
    source: ClipSource, stage: Stage, recipe: Recipe, number: int, begin: int, workers: int, team: Team
) -> Iterator[tuple[Tensor, Tensor]]:
    samples = _Samples(source, stage, recipe, number, begin * stage.batch, team)
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        samples,
        batch_size=stage.batch,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        multiprocessing_context="spawn" if workers else None,  # a fork of a process with threads can hang for ever
    )
    yield from loader


def _one_thread(_: int) -> None:
    """What a process that makes clips begins with: Ctrl-C is for the trainer, which ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
