"""The page about the keyboard says what the benchmark counted, and documents name the keys that the review page has."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.keystrokes import modelled_s

ROOT = Path(__file__).parents[1]
KEYS = (ROOT / "annotation_queue/web/shared/keys.js").read_text()
PAGE = (ROOT / "docs/keyboard.md").read_text()
ACTS = json.loads((ROOT / "benchmarks/results/keystrokes.json").read_text())["acts"]


def rows():
    """The second and the third cell of each row of the page's table, by its first cell."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")
    ]
    return {cell[0]: (cell[1], cell[2]) for cell in cells[1:]}


def counts_of(text):
    """`2 keys + 1 modifier, 1 click` as numbers."""
    found = {name: re.search(rf"(\d+) {name}", text) for name in ("key", "modifier", "click")}
    return {f"{name}s": int(match[1]) if match else 0 for name, match in found.items()}


def test_the_page_has_each_act_of_the_benchmark_and_no_other():
    assert rows().keys() == ACTS.keys()


@pytest.mark.parametrize("name", ACTS)
def test_the_page_says_what_was_counted(name):
    counted, (said, seconds) = ACTS[name], rows()[name]
    assert counts_of(said) == {key: counted[key] for key in ("keys", "modifiers", "clicks")}
    assert float(seconds) == counted["modelled_s"]
    presses = {key: counted[key] for key in ("keys", "modifiers", "clicks", "hands")}
    assert modelled_s(**presses) == counted["modelled_s"]


@pytest.mark.parametrize(
    ("said", "presses"),
    [
        ("1 key, 1.63 s", {"keys": 1, "modifiers": 0, "clicks": 0, "hands": 0}),  # Prodigy
        ("3 clicks, 5.65 s", {"keys": 0, "modifiers": 0, "clicks": 3, "hands": 1}),  # CVAT: the state of a job
        ("2 clicks, 4.35 s", {"keys": 0, "modifiers": 0, "clicks": 2, "hands": 1}),  # CVAT: a quick issue
        ("4 clicks: 8.87 s", {"keys": 3, "modifiers": 1, "clicks": 4, "hands": 3}),  # CVAT: the tracker
        ("1 click, 3.73 s", {"keys": 1, "modifiers": 0, "clicks": 1, "hands": 2}),  # the SAM 2 demo
    ],
)
def test_the_seconds_of_other_tools_follow_from_the_same_model(said, presses):
    assert said in PAGE and f"{modelled_s(**presses):.2f}" in said


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (
            "README.md",
            "**{accept}** accept, **{refine}** refine, **{reject}** reject",
        ),
        ("README.md", "**{forward}** propagates the mask forward, **{both}** both ways"),
        ("README.md", "while you hold **{every}**, every frame plays"),
        ("README.md", "**{comment}** writes a comment"),
        ("docs/review.md", "By choice ({sheet}), up to twelve"),
        ("docs/labels.md", "**{label}** goes to the classes"),
        ("docs/labels.md", "**{guidelines}** opens the guidelines; **{undo}** undoes"),
    ],
)
def test_pages_name_the_keys_that_the_review_page_has(page, said):
    found = re.findall(r'\{ id: "(\w+)", .*?keys: \["([^"]+)"', KEYS)
    names = {action: re.sub(r"\b[a-z]$", lambda last: last[0].upper(), key) for action, key in found}
    assert said.format(**names) in " ".join((ROOT / page).read_text().split())
