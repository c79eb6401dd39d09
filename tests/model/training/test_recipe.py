"""Recipes: read from JSON, and refused in one line."""

import dataclasses
import json

import pytest

from model.training.recipe import Recipe, TrainingStage, parse_recipe
from tests.model.training.small_training import STAGE


def test_a_saved_recipe_reads_back_the_same_and_missing_fields_have_their_defaults():
    recipe = Recipe(stages=(STAGE, dataclasses.replace(STAGE, encoder_lr=0.0, hardest=0.5)), affine=0.3)
    assert parse_recipe(json.dumps(dataclasses.asdict(recipe))) == recipe
    assert parse_recipe('{"stages": [{"name": "a", "steps": 3}]}') == Recipe(stages=(TrainingStage("a", 3),))


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ([], "recipe: "),
        ({"seed": 3}, "stages: Field required"),
        ({"stages": []}, "stages: a recipe needs at least one stage"),
        ({"stages": [3]}, "stages.0: .*got 3"),
        ({"stages": [{"name": "a"}]}, "stages.0.steps: Field required"),
        ({"stages": [{"name": "a", "steps": "3"}]}, "stages.0.steps: Input should be a valid integer, got '3'"),
        ({"stages": [{"name": "a", "steps": 3, "speed": 1}]}, "stages.0.speed: Unexpected keyword argument"),
        ({"stages": [{"name": "a", "steps": 0}]}, "stages.0.steps: Input should be greater than or equal to 1, got 0"),
        ({"stages": [{"name": "a", "steps": 3, "lr": -0.1}]}, "stages.0.lr: Input should be greater than 0, got -0.1"),
        (
            {"stages": [{"name": "a", "steps": 3, "lr": float("nan")}]},
            "stages.0.lr: Input should be a finite number, got nan",
        ),
        ({"stages": [{"name": "a", "steps": 3}], "clip_grad": float("inf")}, "clip_grad: .* finite number, got inf"),
        ({"stages": [{"name": "a", "steps": 3}], "mosaic": 1.5}, "mosaic: .* less than or equal to 1, got 1.5"),
        ({"stages": [{"name": "a", "steps": 3}], "seed": -1}, "seed: .* greater than or equal to 0, got -1"),
        ({"stages": [{"name": "a", "steps": 3, "interaction": {"mask": True}}]}, "interaction.mask: .* got True"),
        ({"stages": [{"name": "a", "steps": 3}], "weights": {"dice": None}}, "weights.dice: .* got None"),
    ],
)
def test_an_invalid_recipe_is_refused_in_one_line_that_names_the_field(written, line):
    with pytest.raises(ValueError, match=line) as refused:
        parse_recipe(json.dumps(written))
    assert "\n" not in str(refused.value)


def test_text_that_is_not_json_is_refused_in_one_line():
    with pytest.raises(ValueError, match="recipe: Invalid JSON") as refused:
        parse_recipe("stages: []")
    assert "\n" not in str(refused.value)
