"""The recipe of a training run: everything that shapes the weights. Saved with the weights, read from JSON.

Knows nothing of files or of how a run is executed.
"""

from __future__ import annotations

from dataclasses import field

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

_CHECKED = ConfigDict(extra="forbid", strict=True)  # unknown fields and other types are errors


@dataclass(frozen=True, config=_CHECKED)
class Interaction:
    """How annotators are simulated in training. Probabilities are in [0, 1]."""

    mask: float = (
        0.5  # probability that the first prompt is the true mask; never on single frames: nothing is left to ask
    )
    click: float = 0.25  # probability of one positive click; otherwise a box. Single frames keep the ratio of the two
    box_jitter: float = 0.1  # of the side, at most 20 px
    prompted_frames: int = 2  # from 1 to this many, drawn uniformly; the first frame is always one
    corrected_frames: int = 2  # from 1 to this many, drawn uniformly; the first frame is always one
    correction_clicks: int = 7  # on each corrected frame
    click_anywhere: float = (
        0.1  # probability that a corrective click is drawn from the whole object, not from the error
    )


@dataclass(frozen=True, config=_CHECKED)
class LossWeights:
    """The weight of each term of the loss (Ravi et al. 2024, appendix C)."""

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    occlusion: float = 1.0


@dataclass(frozen=True, config=_CHECKED)
class TrainingStage:
    """A part of the training in which only the learning rate changes."""

    name: str
    steps: int
    image_size: int = 256  # px
    frames: int = 8
    objects: int = 3
    batch: int = 2  # clips a step, in each process
    lr: float = 5e-4
    encoder_lr: float | None = None  # of the image encoder; None: the same as lr; 0: the encoder is frozen
    warmup: int = 100  # steps
    images: float = 0.0  # share of the steps that see single frames instead of clips
    final_lr: float = 1.0  # share of the learning rate left at the end of the cosine
    hardest: float = 1.0  # share of the masklets to draw from, the most edited first; 1: all
    interaction: Interaction = field(default_factory=Interaction)


@dataclass(frozen=True, config=_CHECKED)
class Recipe:
    """The stages, and what is the same in all of them."""

    stages: tuple[TrainingStage, ...]
    seed: int = 1
    weight_decay: float = 0.05
    clip_grad: float = 1.0  # largest L2 norm
    layer_decay: float = 1.0  # factor of the encoder's learning rate from each block to the one before it
    mosaic: float = 0.0  # probability; see `model.clips`
    weights: LossWeights = field(default_factory=LossWeights)
    time_reversal: float = 0.5  # probability
    horizontal_flip: float = 0.5  # probability
    colour_jitter: float = 0.15
    tone_jitter: float | None = None  # of contrast and saturation; None: the same as colour_jitter
    affine: float = 0.0  # strength; see `model.clips`


_POSITIVE = ("steps", "image_size", "frames", "objects", "batch", "lr")


def parse_recipe(text: str) -> Recipe:
    """A recipe from JSON, as `json.dumps(asdict(recipe))` writes it. Missing fields have their defaults.

    Raises ValueError, in one line, that names the first unknown, missing or invalid field.
    """
    try:
        recipe = TypeAdapter(Recipe).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise ValueError(f"{place}: {first['msg']}, got {first['input']!r:.40}") from error
    if not recipe.stages:
        raise ValueError("stages: a recipe needs at least one stage")
    for stage in recipe.stages:
        for name in _POSITIVE:
            if getattr(stage, name) <= 0:
                raise ValueError(f"stage {stage.name!r}: {name} must be more than 0, got {getattr(stage, name)!r}")
    return recipe
