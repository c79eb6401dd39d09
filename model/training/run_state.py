"""The state of a training run on disk: weights, optimiser, step and recipe, in one file that a kill cannot damage."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Sam2VideoModel

from model.training.recipe import Recipe, parse_recipe
from storage.errors import first_line
from storage.whole_files import complete

FILE = "state.pt"


class DamagedState(ValueError):
    """The state of a run cannot be read."""


@dataclass(frozen=True)
class RunState:
    """What state.pt holds. The optimiser belongs to the stage of the last step."""

    model: dict[str, Tensor]
    optimiser: dict[str, Any]
    step: int  # steps done, over all stages
    recipe: str  # JSON


def save(folder: Path, model: Sam2VideoModel, optimiser: torch.optim.Optimizer, step: int, recipe: Recipe) -> None:
    """After a kill the old or the new state is there, and at most one temporary file, which the next save replaces."""
    state = RunState(model.state_dict(), optimiser.state_dict(), step, json.dumps(asdict(recipe), sort_keys=True))
    with complete(folder / FILE, one_writer=True, flushed=True) as temporary:
        torch.save(vars(state), temporary)


def load(folder: Path) -> RunState | None:
    """The state of a run, on the CPU; None if the folder holds none. Raises DamagedState."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return RunState(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file makes torch raise errors of many types
        why = f"{type(error).__name__}: {first_line(error)}"
        raise DamagedState(f"{path} is damaged, remove it to begin the training anew ({why:.200})") from error


def remove(folder: Path) -> None:
    """Removes the state of a finished run: by far the largest file of its folder."""
    (folder / FILE).unlink(missing_ok=True)


def restore(model: Sam2VideoModel, folder: Path) -> int:
    """Loads the weights that a run has reached into a model of its shape. Returns the number of steps done.

    Raises FileNotFoundError if the folder holds no run; DamagedState.
    """
    state = load(folder)
    if state is None:
        raise FileNotFoundError(f"no run in {folder}: {FILE} is missing")
    model.load_state_dict(state.model)
    return state.step


def check_recipe(state: RunState, recipe: Recipe, folder: Path) -> None:
    """Raises ValueError if the state was made with another recipe. Stages not yet begun may differ."""
    made_with = parse_recipe(state.recipe)  # a recipe of an earlier version has fewer fields
    if _begun(made_with, state.step) != _begun(recipe, state.step):
        raise ValueError(f"{folder} holds a run of another recipe: remove it or choose another folder")


def _begun(recipe: Recipe, step: int) -> dict[str, Any]:
    """A recipe without the stages that come after the first `step` steps."""
    kept, first = [], 0
    for stage in recipe.stages:
        if first >= step:
            break
        first += stage.steps
        kept.append(asdict(stage))
    return asdict(recipe) | {"stages": kept}
