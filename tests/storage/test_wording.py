"""Counts in messages: a number and its noun agree, in every text of the source."""

import ast
import re

import pytest

from storage.wording import counted
from tests.tree import MAY_IMPORT, ROOT

# A noun in the plural, after at most two adjectives, right behind a number.
NOUNS = (
    "batche|block|byte|channel|character|click|core|digit|file|frame|hour|image|key|line|mask|masklet|minute|object|"
    "operation|picture|pixel|point|prompt|problem|rank|release|round|row|second|step|tensor|ticket|time|token|track|"
    "verdict|value|video|vote|way"
)
PLURAL = re.compile(rf"^ (?:(?!(?:has|is|needs|of|and|to) )[a-z-]+ ){{0,2}}(?:{NOUNS})s\b|^ people\b")
KINDS = {
    "ticket.kind",
    "Kind.TRACK",
    "', '.join(kinds) if kinds else 'any'",
    "size",
    "self.frames.shape",
    "facts",
}  # no counts


def plurals(source):
    """The texts that have a plural behind a value. Constants in capitals are more than one; 1.0 has a plural."""
    found = []
    for text in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr)):
        for value, after in zip(text.values, text.values[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant) or value.format_spec:
                continue
            name = ast.unparse(value.value)
            no_count = name.isupper() or name.startswith("counted(") or name in KINDS
            if PLURAL.match(str(after.value)) and not no_count:
                found.append(ast.unparse(text))
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_no_text_counts_without_the_helper_for_one_and_many(folder):
    found = {path: plurals(path.read_text()) for path in sorted((ROOT / folder).rglob("*.py"))}
    assert {str(path): texts for path, texts in found.items() if texts} == {}


@pytest.mark.parametrize("text", ['f"{n} frames"', 'f"all {len(paths)} empty masks of it"', 'f"{n} people"'])
def test_the_search_for_counts_finds_one(text):
    assert plurals(text)
    assert plurals("f\"{counted(n, 'frame')} and {MOST} rounds, {s:.1f} seconds\"") == []


def test_a_count_and_its_noun_agree():
    assert [counted(n, "video") for n in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
    assert (
        counted(1, "batch") == "1 batch" and counted(2, "batch") == "2 batches" and counted(2, "person") == "2 people"
    )
