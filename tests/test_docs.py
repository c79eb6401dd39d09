"""The README is true: every command in it exists, every public command is in it, every file of the map is there."""

import re
from pathlib import Path

import typer

from engine.cli import main
from engine.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands():
    group = typer.main.get_command(main.app)
    return set(group.commands)


def test_every_command_of_the_readme_exists():
    named = set(re.findall(r"(?:^|`)(?:MASKLETS_\S+ )*masklets ([a-z-]+)", README, re.MULTILINE))
    assert len(named) > 6
    assert named <= commands()


def test_every_public_command_is_in_the_readme():
    assert commands() - set(re.findall(r"masklets ([a-z-]+)", README)) == set()


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)) <= targets


def test_every_setting_of_the_readme_exists():
    for part, name in re.findall(r"MASKLETS_([A-Z]+)__([A-Z0-9_]+)", README):
        assert name.lower() in type(getattr(Settings(), part.lower())).model_fields


def test_the_file_map_names_every_python_file_and_nothing_else():
    tree = README.partition("## Where things are")[2].partition("\n## ")[0]
    rows = [line for line in tree.splitlines() if line.startswith("| `")]
    named = set()
    for row in rows:
        folder = ""
        for word in re.findall(r"`([^`]+)`", row.split("|")[1]):
            folder = word.rpartition("/")[0] if "/" in word.rstrip("/") else folder
            named.add(word if not folder or word.startswith(folder) else f"{folder}/{word}")
    for path in named:
        assert (ROOT / path).exists(), path
    for folder in ("engine", "model", "annotation_queue", "validation", "storage"):
        for path in (ROOT / folder).glob("*.py"):
            if path.name != "__init__.py":
                assert str(path.relative_to(ROOT)) in named, f"{path.name} is not in the README's map"


def test_pictures_and_links_of_the_readme_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
