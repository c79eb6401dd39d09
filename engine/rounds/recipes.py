"""The named training recipes, and recipes from JSON files."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path

from pydantic import ValidationError

from engine.rounds.record import Round
from model.training.parameter_groups import TrainedParts
from model.training.recipe import Interaction, Recipe, TrainingStage, first_problem, parse_recipe

# The clip sampler already reverses time, so these recipes do not.
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


# Single frames come first: they teach a new kind of object at a quarter of the cost of a clip, and a model that finds
# objects from one click also proposes them. Clips follow, for tracking and corrections; they teach more in the same
# time. benchmarks/little_data.py compares other shares, clicks and rates.
QUICK = Recipe(
    stages=(
        TrainingStage(
            "images",
            steps=60,
            frames=1,
            batch=4,
            lr=1e-4,
            encoder_lr=6e-5,  # the ratio of the released fine-tuning configuration
            warmup=6,
            final_lr=0.3,
            interaction=Interaction(mask=0.0, click=0.75, correction_clicks=5),
        ),
        TrainingStage(
            "clips",
            steps=90,
            frames=6,
            batch=2,
            lr=7e-5,
            encoder_lr=4.2e-5,
            warmup=4,
            final_lr=0.1,
            interaction=Interaction(mask=0.25, click=0.5, correction_clicks=5),  # people correct by clicks
        ),
    ),
    weight_decay=0.1,
    clip_grad=0.1,
    time_reversal=0.0,
)


# A round's steps with `quick`. What counts is how many clips of new masklets it sees. On pond, the held-out J&F was 37
# at first, 41 after 90 steps with such clips (10 or 30 true masklets), 45 after 120 (100 of them) and 48 after 180 (42
# made by people). A round also replays the general set, learns from rejected candidates and sees single frames, so only
# a third of its steps have such clips: rounds of 150 steps gave 37 and 38, and rounds of 300 gave 39 and 37
# (benchmarks/results/pond-steps.json). On cells, 300 masklets gave 68.5 in 150 steps and 73.8 in 600.
LEAST_STEPS, MOST_STEPS = 600, 10_000
STEPS_RULE = (LEAST_STEPS, 4, MOST_STEPS)  # four steps a masklet, within these bounds

# A round's peak learning rate. `micro` learns new domains with 3e-4, the rate of the experiment and the demo. Published
# checkpoints have seen far more than a round shows them, and a high rate would undo that: 5e-6 is the rate of the
# released configuration for fine-tuning (sam2.1_hiera_b+_MOSE_finetune.yaml). It was not measured here.
MICRO_LR, PUBLISHED_LR = 3e-4, 5e-6

IMAGES_AMONG_CLIPS = 0.3  # share of a round's steps after the single frames that see single frames again

#: `full`: the model of phase 3, as SAM 2.1 was trained on video: clips of 8 frames, then clips of 16 frames of the most
#: edited half of the masklets with the encoder frozen. Steps and rates are for a batch of 256 clips over all processes.
#: `mask-only`: the model of phase 2, which takes mask prompts and propagates.  `quick`: for rounds and small machines.
#: Source of the first two: Ravi et al. 2024, appendix C.2, and its second version. Differs: the layer decay of B+ for
#: every size; no drop path; no jitter of single frames; single frames of the videos replace SA-1B's images.
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
    """A named recipe at this image size (that of the parent checkpoint), or the recipe of a JSON file, unchanged.

    Raises ValueError for an unknown name and for an invalid file.
    """
    if (named := RECIPES.get(name)) is not None:
        return replace(named, stages=tuple(replace(stage, image_size=image_size) for stage in named.stages))
    if not name.endswith(".json"):
        raise ValueError(f"the recipes are {', '.join(RECIPES)} or a FILE.json, not {name!r}")
    try:
        return parse_recipe(Path(name).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def fitted(
    recipe: Recipe,
    *,
    steps: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    parts: TrainedParts | None = None,
) -> Recipe:
    """The recipe with other steps, learning rate, seed or parts; its stages keep their proportions. None: unchanged.

    With fewer steps than stages, the last stages get them.

    steps: over all stages.  lr: of the first stage.  parts: which weights change, in all stages.
    Raises ValueError, in one line, for an invalid number.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"steps: at least 1, got {steps}")
    total = sum(stage.steps for stage in recipe.stages)
    wanted = total if steps is None else steps
    ends = [wanted * end // total for end in accumulate(stage.steps for stage in recipe.stages)]
    rate = 1.0 if lr is None else lr / recipe.stages[0].lr
    try:
        stages = tuple(
            replace(
                stage,
                steps=end - begin,
                warmup=round(stage.warmup * wanted / total),
                lr=stage.lr * rate,
                encoder_lr=None if stage.encoder_lr is None else stage.encoder_lr * rate,
                parts=stage.parts if parts is None else parts,
            )
            for stage, begin, end in zip(recipe.stages, [0, *ends], ends, strict=False)
            if end > begin
        )
        return replace(recipe, stages=stages, seed=recipe.seed if seed is None else seed)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error


def steps_for(masklets: int, rule: tuple[int, int, int] = STEPS_RULE) -> int:
    """Training steps of a round on this many masklets, unless the settings or its caller say another number.

    rule: the least steps, the steps a masklet, the most steps.
    """
    least, each, most = rule
    return min(max(least, each * masklets), most)


def lr_for(*, micro: bool) -> float:
    """Peak learning rate of a round, unless the settings or its caller say another one.

    micro: whether the rounds began with `micro`.
    """
    return MICRO_LR if micro else PUBLISHED_LR


def of_round(begun: Round, image_size: int) -> Recipe:
    """The recipe of a round: `quick` with the round's steps, rate, seed and parts, at this image size (px).

    If the round learns from rejected candidates, its single frames are clicked there, too, and come among the clips as
    well. A model that has learned that nothing is there proposes fewer of them; clips alone made it forget that.
    Raises ValueError, in one line, for an invalid number.
    """
    quick = fitted(recipe_of("quick", image_size), steps=begun.steps, lr=begun.lr, seed=begun.seed, parts=begun.parts)
    if not begun.rejected:
        return quick
    return replace(quick, stages=tuple(replace(of, rejected=1, images=IMAGES_AMONG_CLIPS) for of in quick.stages))


def to_json(recipe: Recipe) -> str:
    """The recipe as JSON, which `recipe_of` reads from a file."""
    return json.dumps(asdict(recipe), indent=1)
