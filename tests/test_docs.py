"""The documentation is true: the commands, make targets, settings, links and files that it names exist."""

import re
from pathlib import Path

import pytest
import typer
import typer.core

from docs import experiment_table, file_map
from engine.cli import main
from engine.ingest import overrides
from engine.settings import Settings
from storage.records import Refusal

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def commands():
    group = typer.main.get_command(main.app)
    assert isinstance(group, typer.core.TyperGroup)
    return set(group.commands)


def test_every_command_of_the_readme_exists():
    named = set(re.findall(r"(?:^|`)(?:MASKLETS_\S+ )*masklets ([a-z-]+)", README, re.MULTILINE))
    assert len(named) > 6
    assert named <= commands()


def test_every_command_of_the_page_about_operations_exists():
    named = set(re.findall(r"`masklets ([a-z-]+)", OPERATIONS))
    assert named and named <= commands()


def test_the_page_about_operations_says_of_every_reason_what_a_release_does():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+)[^|]* \| ([^|]+) \|$", OPERATIONS, re.MULTILINE)
    said = {reason: does for reasons, does in rows for reason in re.findall(r"`(\w+)`", reasons)}
    assert {reason.value for reason in Refusal} <= set(said)
    for reason, does in overrides.RELEASES.items():
        assert said[reason].startswith(does.partition(",")[0]), reason


def test_every_public_command_has_a_row_on_the_page_about_commands():
    rows = re.findall(r"^\| `masklets ([a-z-]+)` \|", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(commands())


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)) <= targets


def test_every_setting_of_the_readme_exists():
    for part, name in re.findall(r"MASKLETS_([A-Z]+)__([A-Z0-9_]+)", README):
        assert name.lower() in type(getattr(Settings(), part.lower())).model_fields


def test_the_map_of_the_architecture_page_is_made_of_the_files_as_they_are():
    assert file_map.PAGE.read_text() == file_map.page(), "run `python -m docs.file_map`"


def test_the_table_of_the_readme_shows_the_results_of_the_last_full_run():
    assert experiment_table.PAGE.read_text() == experiment_table.page(), "run `python -m docs.experiment_table`"


def test_the_readme_says_how_saved_reviews_were_measured():
    def cell(**more):
        *_, (_, read, _) = experiment_table.ROWS
        return read({"verifier_auroc": 0.9, "verifier_ece": 0.05, "reviews_saved": 0.5} | more)

    assert cell() == "0.90, 0.050, 50 % at best (cuts chosen on the same verdicts)"
    assert cell(reviews_saved_precision=0.97) == "0.90, 0.050, 50 % (97 % of them right)"
    assert cell(reviews_saved=0.0, reviews_saved_precision=None) == "0.90, 0.050, 0 %"


def test_every_file_that_the_architecture_page_mentions_exists():
    text = file_map.PAGE.read_text().partition("## The map")[0]
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|js))`", text)
    assert len(named) > 20
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "annotation_queue" / name).exists(), name


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "deploy/README.md",
        "docs/operations.md",
        "docs/commands.md",
    ],
)
def test_pictures_and_links_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target
