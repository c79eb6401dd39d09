"""Fine-tuning of the first checkpoint: on few true masklets, or on masklets of a release.

The recipe is `quick`. That of a round is the same, with two additions: rejected candidates, and single frames among the
clips (`recipes.of_round`). So these checkpoints compare with each other, and not with those of rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from engine.datasets import clip_sampler, layouts
from engine.datasets.clip_sampler import ClipSampler, Indexed, NothingToTrainOn
from engine.datasets.labelled import Dataset
from engine.experiments import measuring
from engine.experiments.steps import Experiment, Result
from engine.rounds import general, recipes, training
from engine.rounds.general import MICRO, WithReplay
from engine.services import Services
from engine.settings import RoundSettings
from model import checkpoints, devices
from model.checkpoints import LoadedModel
from model.clips import DrawClip
from model.training import run_state
from model.training.recipe import TrainingStage
from model.training.trainer import RunOptions
from storage.dataset import releases

_ALL_CHOSEN = 0.999  # a share below 1, with which a ClipSampler takes only edited masklets, and all of them


def begin(experiment: Experiment) -> LoadedModel:
    """The checkpoint that everything begins with, in a process that uses one thread."""
    devices.set_threads(1)
    return checkpoints.load(experiment.plan.checkpoint)


def newest(s: Services) -> tuple[Dataset, list[Indexed]]:
    """The training videos of the newest release of a store. Raises NoSuchRelease."""
    data = layouts.of_release(releases.load(s.blobs, releases.names(s.blobs)[-1])).only("train")
    return data, list(clip_sampler.index(data))


def on_masklets(
    experiment: Experiment,
    name: str,
    data: Dataset,
    known: Sequence[Indexed],
    chosen: Collection[str],
    steps: int | None = None,
) -> Result:
    """`tuned` on the chosen masklets of a dataset; "left_out" says why, if they are too few.

    known: `clip_sampler.index` of the dataset.  steps: None: as many as the plan has for this many masklets.
    """
    steps = experiment.plan.steps_on(len(chosen)) if steps is None else steps

    def draw(stage: TrainingStage) -> DrawClip:
        return sampler_of(data, known, chosen, stage.frames)

    try:
        return {"trained_on": len(chosen), "steps": steps} | tuned(experiment, name, draw, steps)
    except NothingToTrainOn as error:
        return {"left_out": str(error)}


def tuned(experiment: Experiment, name: str, draw: Callable[[TrainingStage], DrawClip], steps: int) -> Result:
    """Fine-tunes the first checkpoint, saves the result and measures it. A killed run continues.

    draw: the clips of a stage. "checkpoint" is the folder of the result, relative to the experiment's.
    """
    plan, parent = experiment.plan, begin(experiment)
    quick = recipes.recipe_of("quick", parent.image_size)
    recipe = recipes.fitted(quick, steps=steps, lr=plan.lr, seed=plan.seed)
    folder = experiment.folder / "training" / name

    def clips(stage: TrainingStage) -> DrawClip:
        if plan.checkpoint != MICRO:
            return draw(stage)
        return WithReplay(draw(stage), general.clips_of_micro(stage), RoundSettings().replay)  # as in a round

    options = RunOptions(workers=0, save_every=10, report_every=10)
    model = training.fine_tune(parent, recipe, clips, folder, options)
    facts = {"experiment": name, "domain": experiment.domain, "from": parent.name}
    card = checkpoints.model_card(name, "A checkpoint of an experiment on simulated labels.", facts)
    out = training.save(model, folder / "checkpoint", parent, card=card, meta=facts)
    found = measuring.held_out(checkpoints.wrap(model, name=name), experiment)
    run_state.remove(folder)
    return {"checkpoint": str(out.relative_to(experiment.folder))} | found


def sampler_of(data: Dataset, known: Sequence[Indexed], chosen: Collection[str], frames: int) -> ClipSampler:
    """Draws clips that show only the chosen masklets. known: `clip_sampler.index` of the dataset.

    Raises NothingToTrainOn.
    """
    marked = [replace(of, edits={name: int(name in chosen) for name in of.large}) for of in known]
    return ClipSampler(data, marked, frames, hardest=_ALL_CHOSEN)
