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
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets.clip_sampler import ClipSampler, Indexed, index
from engine.datasets.labelled import Dataset
from engine.files import alone
from engine.rounds.recipes import to_json
from engine.rounds.watch import Watch
from model import architecture, checkpoints, parallel, trainer
from model.checkpoints import LoadedModel
from model.recipe import Recipe, TrainingStage
from model.trainer import TrainingProgress

if TYPE_CHECKING:
    from engine.registry import Tracked

log = logging.getLogger(__name__)


def train_on(
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
    begun = {"data": data.name, "split": data.split, "from": parent.name, "recipe": json.loads(to_json(recipe))}
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
            stage: ClipSampler(data, known, stage.frames, _hardest(stage, data, known)) for stage in recipe.stages
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
            (out / "recipe.json").write_text(to_json(recipe))
            meta = {**begun, "videos": len(known), "transformers": version("transformers")}
            checkpoints.save(
                tuned, out, card=_card(begun, total, len(known)), meta=meta, mean=parent.mean, std=parent.std
            )
            (folder / "state.pt").unlink(missing_ok=True)
            watch.end()
    return out


def _hardest(stage: TrainingStage, data: Dataset, known: Sequence[Indexed]) -> float:
    """The share of a stage; 1 where nobody knows what was edited, as in DAVIS."""
    if stage.hardest < 1 and not any(any(of.edits.values()) for of in known):
        log.warning("%s does not say what was edited: the stage %s is of all masklets", data.name, stage.name)
        return 1.0
    return stage.hardest


def _card(begun: dict[str, object], steps: int, videos: int) -> str:
    return checkpoints.model_card(
        "Trained by Masklet Engine",
        "A SAM 2 video checkpoint, fine-tuned by Masklet Engine. `recipe.json` holds the recipe.",
        {"parent": f"`{begun['from']}`", "data": f"`{begun['data']}`, {videos} videos", "steps": steps},
    )
