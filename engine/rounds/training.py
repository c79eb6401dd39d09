"""Fine-tunes a checkpoint on a dataset: for rounds, for `masklets train --data` and for experiments.

`fine_tune` trains. `train_on`, which is `masklets train --data`, leaves a folder that transformers loads as a
checkpoint, with `recipe.json` beside the weights. Its subfolder `training` holds the state of an interrupted run, the
curve and the sample pictures. Under torchrun every process calls `train_on`; only the first one writes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets.clip_sampler import ClipSampler, Indexed, index
from engine.datasets.labelled import Dataset
from engine.files import alone
from engine.progress import Progress
from engine.rounds.recipes import to_json
from engine.rounds.watch import Watch
from model import architecture, checkpoints
from model.checkpoints import LoadedModel
from model.clips import DrawClip
from model.training import parallel, run_state, trainer
from model.training.recipe import Recipe, TrainingStage
from model.training.trainer import RunOptions, TrainingProgress
from storage.wording import counted

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

    from engine.registry import TrackedRun

log = logging.getLogger(__name__)

Samplers = Mapping[TrainingStage, ClipSampler]


def samplers_of(data: Dataset, known: Sequence[Indexed], recipe: Recipe) -> Samplers:
    """The clips of every stage of a recipe. known: `index` of the dataset. Raises NothingToTrainOn."""
    return {
        stage: ClipSampler(data, known, stage.frames, _hardest(stage, data, known), stage.rejected)
        for stage in recipe.stages
    }


def fine_tune(
    parent: LoadedModel,
    recipe: Recipe,
    clips: Callable[[TrainingStage], DrawClip],
    folder: Path,
    options: RunOptions,
    *,
    watch: Watch | None = None,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Sam2VideoModel:
    """Trains the parent's weights at the recipe's image size. An interrupted run continues from its last saved step.

    clips: draws those of a stage.  folder: keeps the state.  watch: gets the curves, and writes pictures.
    """
    model = architecture.resized(parent.model, recipe.stages[0].image_size)
    if watch is None:
        return trainer.train(model, clips, recipe, folder, options, report=report)
    return trainer.train(
        model,
        clips,
        recipe,
        folder,
        replace(options, look_every=watch.every),
        report=lambda progress: watch.report(progress, report),
        look=watch.look,
    )


def save(tuned: Sam2VideoModel, out: Path, parent: LoadedModel, *, card: str, meta: Mapping[str, object]) -> Path:
    """Writes fine-tuned weights as a checkpoint with the parent's preprocessing. meta: facts for `meta.json`."""
    facts = {**meta, "transformers": version("transformers")}
    return checkpoints.save(tuned, out, card=card, meta=facts, mean=parent.mean, std=parent.std)


def train_on(
    data: Dataset,
    out: Path,
    recipe: Recipe,
    parent: LoadedModel,
    *,
    device: str = "cpu",
    workers: int = 1,
    tracked: Callable[[], TrackedRun | None] = lambda: None,
    look_through: Progress = lambda done, total, name: None,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Path:
    """Trains on the dataset's videos and leaves a checkpoint in `out`. An interrupted run continues when called again.

    A finished checkpoint is not changed. tracked: opens the MLflow run for curves and pictures.  look_through and
    report: progress of indexing the dataset, and of training.
    Raises ValueError if `out` holds something else than this run, or lies in the dataset; NothingToTrainOn.
    """
    _check_place(out, data)
    begun = {"data": data.name, "split": data.split, "from": parent.name, "recipe": json.loads(to_json(recipe))}
    folder = out / "training"
    with alone(folder / "lock") if parallel.leads() else nullcontext():
        if _finished(out, begun):
            return out
        known = list(index(data, look_through))
        samplers = samplers_of(data, known, recipe)
        if parallel.leads():
            (folder / "begun.json").write_text(json.dumps(begun, indent=1))
        watch = Watch(folder, recipe, samplers[recipe.stages[-1]], tracked() if parallel.leads() else None)
        watch.begin({key: value for key, value in begun.items() if key != "recipe"})
        total = sum(stage.steps for stage in recipe.stages)
        options = RunOptions(
            device=device,
            workers=workers,
            save_every=max(1, min(500, total // 20)),
            report_every=max(1, min(20, total // 10)),
        )
        tuned = fine_tune(parent, recipe, samplers.__getitem__, folder, options, watch=watch, report=report)
        if parallel.leads():
            (out / "recipe.json").write_text(to_json(recipe))
            save(tuned, out, parent, card=_card(begun, total, len(known)), meta={**begun, "videos": len(known)})
            run_state.remove(folder)
            watch.end()
    return out


def _check_place(out: Path, data: Dataset) -> None:
    """Raises ValueError for a folder of something else, or a folder inside the dataset."""
    source = Path(data.name).expanduser()
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out} lies in the dataset {data.name}: choose another folder")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: choose a folder")
    ours = any((out / name).exists() for name in ("training", "meta.json"))
    if not ours and out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no run: choose another folder")


def _finished(out: Path, begun: Mapping[str, object]) -> bool:
    """Whether `out` holds the checkpoint of this run. Raises ValueError if it holds another run."""
    for earlier in (path for path in (out / "training" / "begun.json", out / "meta.json") if path.exists()):
        written = json.loads(earlier.read_text())
        for key in (key for key in ("data", "split", "from") if written.get(key) != begun[key]):
            raise ValueError(f"{out} holds a run with {key} {written.get(key)!r}, not {begun[key]!r}")
    if not (out / "meta.json").exists():
        return False
    if json.loads((out / "meta.json").read_text())["recipe"] != begun["recipe"]:
        raise ValueError(f"{out} holds a checkpoint of another recipe: choose another folder")
    return True


def _hardest(stage: TrainingStage, data: Dataset, known: Sequence[Indexed]) -> float:
    """The stage's share of the most edited masklets; 1 if the dataset does not record edits, as DAVIS."""
    if stage.hardest < 1 and not any(any(of.edits.values()) for of in known):
        log.warning("%s does not record edits: the stage %s trains on all masklets", data.name, stage.name)
        return 1.0
    return stage.hardest


def _card(begun: Mapping[str, object], steps: int, videos: int) -> str:
    return checkpoints.model_card(
        "Trained by Masklet Engine",
        "A SAM 2 video checkpoint, fine-tuned by Masklet Engine. `recipe.json` holds the recipe.",
        {"parent": f"`{begun['from']}`", "data": f"`{begun['data']}`, {counted(videos, 'video')}", "steps": steps},
    )
