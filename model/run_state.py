"""The state of a training run on disk: weights, optimiser and step, written so that a kill loses nothing."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from transformers import Sam2VideoModel


def save_state(path: Path, model: Sam2VideoModel, optimiser: torch.optim.Optimizer, step: int, recipe: str) -> None:
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
