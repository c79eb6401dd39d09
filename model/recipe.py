"""The recipe of a training run: everything that shapes the weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from model.clip_forward import Interaction
from model.losses import LossWeights


@dataclass(frozen=True)
class TrainingStage:
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

    stages: tuple[TrainingStage, ...]
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


def parse_recipe(written: Any) -> Recipe:
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
        made = _filled(TrainingStage, stage | {"interaction": interaction}, "stage")
        for name in ("steps", "image_size", "frames", "objects", "batch", "lr"):
            if getattr(made, name) <= 0:
                raise ValueError(f"stage {made.name!r}: {name} is more than 0, not {getattr(made, name)!r}")
        filled.append(made)
    return _filled(Recipe, written | {"stages": tuple(filled), "weights": weights}, "recipe")


T = TypeVar("T")


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


def followed_part(recipe: str, step: int) -> str:
    """The part of a recipe that the first `step` steps have followed: later stages may still be changed."""
    whole = asdict(parse_recipe(json.loads(recipe)))  # one that an earlier version wrote has fewer fields
    kept, first = [], 0
    for stage in whole["stages"]:
        if first >= step:
            break
        first += stage["steps"]
        kept.append(stage)
    return json.dumps({**whole, "stages": kept}, sort_keys=True)
