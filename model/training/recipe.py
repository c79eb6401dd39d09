"""The recipe of a training run: everything that shapes the weights. Saved with the weights, read from JSON.

Knows nothing of files or of how a run is executed.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from model.training.parameter_groups import TrainedParts

# Unknown fields, other types, NaN and infinity are errors.
_CHECKED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]  # a probability, too


@dataclass(frozen=True, config=_CHECKED)
class Interaction:
    """How annotators are simulated in training. Probabilities are in [0, 1]."""

    mask: Share = (
        0.5  # probability that the first prompt is the true mask; never on single frames: nothing is left to ask
    )
    click: Share = 0.25  # probability of one positive click; otherwise a box. Single frames keep the ratio of the two
    box_jitter: Number = 0.1  # of the side, at most 20 px
    prompted_frames: Count = 2  # from 1 to this many, drawn uniformly; the first frame is always one
    corrected_frames: Count = 2  # from 1 to this many, drawn uniformly; the first frame is always one
    correction_clicks: Natural = 7  # on each corrected frame
    click_anywhere: Share = (
        0.1  # probability that a corrective click is drawn from the whole object, not from the error
    )


@dataclass(frozen=True, config=_CHECKED)
class LossWeights:
    """The weight of each term of the loss (Ravi et al. 2024, appendix C)."""

    focal: Number = 20.0
    dice: Number = 1.0
    iou: Number = 1.0
    occlusion: Number = 1.0


@dataclass(frozen=True, config=_CHECKED)
class TrainingStage:
    """A part of the training in which only the learning rate changes."""

    name: str
    steps: Count
    image_size: Count = 256  # px
    frames: Count = 8
    objects: Count = 3
    rejected: Natural = 0  # places in a single frame where people saw no object, beside its objects
    batch: Count = 2  # clips a step, in each process; or in all together, see `trainer.RunOptions`
    lr: Positive = 5e-4
    parts: TrainedParts = "all"  # which weights change; see `model.training.parameter_groups`
    encoder_lr: Number | None = None  # of the image encoder; None: the same as lr; 0: the encoder is frozen
    warmup: Natural = 100  # steps
    images: Share = 0.0  # share of the steps that see single frames instead of clips
    final_lr: Share = 1.0  # share of the learning rate left at the end of the cosine
    hardest: Share = 1.0  # share of the masklets to draw from, the most edited first; 1: all
    interaction: Interaction = field(default_factory=Interaction)


@dataclass(frozen=True, config=_CHECKED)
class Recipe:
    """The stages, and what is the same in all of them."""

    stages: tuple[TrainingStage, ...]
    seed: Natural = 1
    weight_decay: Number = 0.05
    clip_grad: Positive = 1.0  # largest L2 norm
    layer_decay: Positive = 1.0  # factor of the encoder's learning rate from each block to the one before it
    mosaic: Share = 0.0  # probability; see `model.clips`
    weights: LossWeights = field(default_factory=LossWeights)
    time_reversal: Share = 0.5  # probability
    horizontal_flip: Share = 0.5  # probability
    colour_jitter: Number = 0.15
    tone_jitter: Number | None = None  # of contrast and saturation; None: the same as colour_jitter
    affine: Number = 0.0  # strength; see `model.clips`


def parse_recipe(text: str) -> Recipe:
    """A recipe from JSON, as `json.dumps(asdict(recipe))` writes it. Missing fields have their defaults.

    Raises ValueError, in one line, that names the first unknown, missing or invalid field.
    """
    try:
        recipe = TypeAdapter(Recipe).validate_json(text)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error
    if not recipe.stages:
        raise ValueError("stages: a recipe needs at least one stage")
    return recipe


def first_problem(error: ValidationError) -> str:
    """The first invalid field of a recipe, in one line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "recipe"
    return f"{place}: {first['msg']}, got {first['input']!r:.40}"
