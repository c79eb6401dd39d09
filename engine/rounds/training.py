"""Training outside of rounds: a named recipe over any labelled dataset, from any checkpoint, into a folder.

When it is done, the folder is a checkpoint that transformers loads, with `recipe.json` beside the weights. Its folder
`training` holds what an interrupted run goes on from, the curve and the pictures. Runs under torchrun as it is: every
process calls `run`, the first one writes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.datasets.labelled import ClipSource, Dataset, Indexed, index
from engine.files import alone
from model import architecture, checkpoints, parallel, trainer
from model.checkpoints import LoadedModel
from model.recipe import Interaction, Recipe, TrainingStage, parse_recipe
from model.tracker import Tracker
from model.trainer import TrainingProgress
from storage import rle
from storage.records import Prompt

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

    from engine.registry import Tracked

log = logging.getLogger(__name__)

_PICTURED = (1, 2)  # seeds of the clips that the pictures show
_ROW_PX = 240  # height of a row of a picture

# A clip source turns its runs around itself, and knows what shows at either end: no recipe here reverses time again.
FULL = Recipe(
    stages=(
        TrainingStage(
            "clips",
            steps=200_000,
            image_size=1024,
            frames=8,
            objects=3,
            batch=1,
            lr=3e-4,
            encoder_lr=6e-5,
            warmup=15_000,
            images=0.15,
            final_lr=0.0,
            interaction=Interaction(mask=0.5, click=0.25, prompted_frames=2, corrected_frames=2, correction_clicks=7),
        ),
        TrainingStage(
            "hard",
            steps=50_000,
            image_size=1024,
            frames=16,
            objects=3,
            batch=1,
            lr=1.5e-4,
            encoder_lr=0.0,
            warmup=0,
            final_lr=0.0,
            hardest=0.5,
        ),
    ),
    weight_decay=0.1,
    clip_grad=0.1,
    layer_decay=0.9,
    mosaic=0.1,
    time_reversal=0.0,
    colour_jitter=0.1,
    tone_jitter=0.03,
    affine=1.0,
)
QUICK = Recipe(
    stages=(
        TrainingStage(
            "fine-tune",
            steps=200,
            frames=6,
            batch=2,
            lr=1e-4,
            encoder_lr=6e-5,  # the ratio of the released fine-tuning configuration
            warmup=20,
            final_lr=0.1,
            interaction=Interaction(correction_clicks=3),
        ),
    ),
    weight_decay=0.1,
    clip_grad=0.1,
    time_reversal=0.0,
)

#: `full`: the model of phase 3, as SAM 2.1 was trained on video: clips of 8 frames, then the most edited half of the
#: masklets in 16 with the encoder frozen. Steps and rates are for a batch of 256 clips over all processes.
#: `mask-only`: the model of phase 2, which takes masks and propagates.  `quick`: what a round does, for small machines.
#: Source of the first two: Ravi et al. 2024, appendix C.2, and its second version. Differs: layer decay is that of B+
#: for every size; no drop path; no further jitter of each frame; single frames of the videos stand for SA-1B's images.
RECIPES: dict[str, Recipe] = {
    "full": FULL,
    "mask-only": replace(
        FULL,
        stages=(
            replace(FULL.stages[0], images=0.0, interaction=Interaction(mask=1.0, click=0.0, correction_clicks=0)),
        ),
    ),
    "quick": QUICK,
}


def recipe_of(name: str, image_size: int) -> Recipe:
    """A recipe by its name, at the image size of the checkpoint that it begins with, or from a JSON file as it is.

    Raises ValueError for an unknown name and for a file that is no recipe.
    """
    if (named := RECIPES.get(name)) is not None:
        return replace(named, stages=tuple(replace(stage, image_size=image_size) for stage in named.stages))
    if not name.endswith(".json"):
        raise ValueError(f"the recipes are {', '.join(RECIPES)} or a FILE.json, not {name!r}")
    try:
        return parse_recipe(Path(name).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def fitted(recipe: Recipe, *, steps: int | None = None, lr: float | None = None, seed: int | None = None) -> Recipe:
    """The recipe in another length or at another rate; its stages keep their proportions. None: as it is.

    steps: over all stages.  lr: of the first stage.
    """
    total = sum(stage.steps for stage in recipe.stages)
    length = 1.0 if steps is None else steps / total
    rate = 1.0 if lr is None else lr / recipe.stages[0].lr
    stages = tuple(
        replace(
            stage,
            steps=max(1, round(stage.steps * length)),
            warmup=round(stage.warmup * length),
            lr=stage.lr * rate,
            encoder_lr=None if stage.encoder_lr is None else stage.encoder_lr * rate,
        )
        for stage in recipe.stages
    )
    return replace(recipe, stages=stages, seed=recipe.seed if seed is None else seed)


def run(
    data: Dataset,
    out: Path,
    recipe: Recipe,
    parent: LoadedModel,
    *,
    device: str = "cpu",
    workers: int = 1,
    tracked: Callable[[], Tracked | None] = lambda: None,
    look_through: Callable[[int, int, str], None] = lambda done, total, word: None,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Path:
    """Trains on the dataset's videos and leaves a checkpoint in `out`; interrupted and run again it goes on.

    What is whole already stays as it is. tracked: opens the run that gets the curves and pictures.  look_through and
    report: progress of looking through the dataset, and of training.
    Raises ValueError where the folder holds the run of another recipe, dataset or checkpoint; NothingToTrainOn.
    """
    begun = {"data": data.name, "split": data.split, "from": parent.name, "recipe": json.loads(_json(recipe))}
    folder = out / "training"
    with alone(folder / "lock") if parallel.leads() else nullcontext():
        for earlier in (path for path in (folder / "begun.json", out / "meta.json") if path.exists()):
            written = json.loads(earlier.read_text())
            for key in (key for key in ("data", "split", "from") if written.get(key) != begun[key]):
                raise ValueError(f"{out} holds a run with {key} {written.get(key)!r}, not {begun[key]!r}")
        if (out / "meta.json").exists():
            if written["recipe"] != begun["recipe"]:
                raise ValueError(f"{out} holds a checkpoint of another recipe: choose another folder")
            return out
        known = list(index(data, look_through))
        sources = {
            stage: ClipSource(data, known, stage.frames, _hardest(stage, data, known)) for stage in recipe.stages
        }
        if parallel.leads():
            (folder / "begun.json").write_text(json.dumps(begun, indent=1))
        watch = Watch(folder, recipe, sources[recipe.stages[0]], tracked() if parallel.leads() else None)
        watch.begin({key: value for key, value in begun.items() if key != "recipe"})
        total = sum(stage.steps for stage in recipe.stages)
        tuned = trainer.train(
            architecture.resized(parent.model, recipe.stages[0].image_size),
            sources.__getitem__,
            recipe,
            folder,
            trainer.RunOptions(
                device=device,
                workers=workers,
                save_every=max(1, min(500, total // 20)),
                report_every=max(1, min(20, total // 10)),
                look_every=watch.every,
            ),
            report=lambda progress: watch.report(progress, report),
            look=watch.look,
        )
        if parallel.leads():
            (out / "recipe.json").write_text(_json(recipe))
            meta = {**begun, "videos": len(known), "transformers": version("transformers")}
            checkpoints.save(
                tuned, out, card=_card(begun, total, len(known)), meta=meta, mean=parent.mean, std=parent.std
            )
            (folder / "state.pt").unlink(missing_ok=True)
            watch.end()
    return out


class Watch:
    """What people see of a training: its curves in MLflow, and a picture every so often. Keeps nothing else."""

    def __init__(self, folder: Path, recipe: Recipe, source: ClipSource, tracked: Tracked | None) -> None:
        self._folder, self._recipe, self._source, self._tracked = folder / "samples", recipe, source, tracked
        self.every = max(1, min(1000, sum(stage.steps for stage in recipe.stages) // 4))

    def begin(self, facts: dict[str, object]) -> None:
        if self._tracked:
            self._tracked.parameters({**facts, "recipe": _json(self._recipe)})

    def report(self, progress: TrainingProgress, further: Callable[[TrainingProgress], None]) -> None:
        """Passes a report on, and keeps it."""
        if self._tracked:
            curves = {f"loss_{name}": value for name, value in progress.losses.items()}
            self._tracked.metrics(progress.step, {**curves, "lr": progress.lr})
        further(progress)

    def look(self, model: Sam2VideoModel, step: int) -> None:
        """Leaves a picture of what the model makes of the same clips as ever."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{step:07d}.jpg"
        sheet = picture(checkpoints.wrap(model, name=f"step {step}"), self._source)
        cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        if self._tracked:
            self._tracked.picture(path)

    def end(self) -> None:
        if self._tracked:
            self._tracked.end()


def picture(loaded: LoadedModel, source: ClipSource) -> NDArray[np.uint8]:
    """The last frame of some clips, a row each: as it is, with its truth, and with what the model tracked there.

    The model got the true masks on the clip's first frame. Returns uint8 (H, W, 3) RGB.
    """
    from engine.demo.report import overlay

    rows = []
    for seed in _PICTURED:
        clip = source(seed)
        shown = [n for n in range(clip.masks.shape[1]) if clip.masks[0, n].any()]
        t, hw = len(clip.frames), (clip.masks.shape[2], clip.masks.shape[3])
        tracker = Tracker(loaded, clip.frames.__getitem__, video_hw=hw, frame_count=t)
        for n in shown:
            tracker.prompt(str(n), Prompt(frame_idx=0, mask_rle=rle.encode(clip.masks[0, n])))
        (made,) = [answer.masks(hw) for answer in tracker.propagate(0, t) if answer.frame_idx == t - 1]
        last = clip.frames[-1]
        cells = [last, overlay(last, [clip.masks[-1, n] for n in shown]), overlay(last, list(made))]
        size = (round(_ROW_PX * hw[1] / hw[0]), _ROW_PX)
        rows.append(np.concatenate([cv2.resize(cell, size, interpolation=cv2.INTER_AREA) for cell in cells], 1))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return np.asarray(np.concatenate(padded), np.uint8)


def _hardest(stage: TrainingStage, data: Dataset, known: Sequence[Indexed]) -> float:
    """The share of a stage; 1 where nobody knows what was edited, as in DAVIS."""
    if stage.hardest < 1 and not any(any(of.edits.values()) for of in known):
        log.warning("%s does not say what was edited: the stage %s is of all masklets", data.name, stage.name)
        return 1.0
    return stage.hardest


def _json(recipe: Recipe) -> str:
    return json.dumps(asdict(recipe), indent=1)


def _card(begun: dict[str, object], steps: int, videos: int) -> str:
    return checkpoints.model_card(
        "Trained by Masklet Engine",
        "A SAM 2 video checkpoint, fine-tuned by Masklet Engine. `recipe.json` holds the recipe.",
        {"parent": f"`{begun['from']}`", "data": f"`{begun['data']}`, {videos} videos", "steps": steps},
    )
