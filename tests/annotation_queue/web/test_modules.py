"""The page's modules import downwards only, between folders and within, and are small enough to read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import annotation_queue
from tests import tree

WEB = Path(annotation_queue.__file__).parent / "web"
MOST_LINES = 500
MODULES = sorted(WEB.rglob("*.js"))
# What each folder may import from, besides itself.
BELOW = {
    "shared": set(),
    "canvas": {"shared"},
    "ticket": {"canvas", "shared"},
    "leads": {"canvas", "shared"},
    "release": {"canvas", "shared"},
}
# import … from "./x.js"; import "./x.js"; import("./x.js"). Not the type imports in comments, which load nothing.
IMPORT = re.compile(r"""^\s*(?:import|export)\b[^;"']*?["'](\.[\w./]+)["']|\bimport\(\s*["'](\.[\w./]+)["']""", re.M)
COMMENT = re.compile(r"/\*.*?\*/|^\s*//[^\n]*", re.S | re.M)


def named(path: Path) -> str:
    """A module's path in the folder of the page, such as "canvas/desk.js"."""
    return path.resolve().relative_to(WEB.resolve()).as_posix()


def imports() -> dict[str, set[str]]:
    """For each module of the page, those that it loads."""
    found = {}
    for path in MODULES:
        text = COMMENT.sub("", path.read_text())
        found[named(path)] = {named(path.parent / (one or other)) for one, other in IMPORT.findall(text)}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, or none."""
    done: set[str] = set()

    def walk(name: str, above: list[str]) -> list[str]:
        if name in above:
            return above[above.index(name) :] + [name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := walk(other, [*above, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_every_module_is_found_and_loaded_by_a_page():
    graph = imports()
    pages = [set(re.findall(r'src="/web/([\w/]+\.js)"', path.read_text())) for path in WEB.glob("*.html")]
    loaded, todo = set(), set().union(*pages)
    while todo:
        name = todo.pop()
        loaded.add(name)
        todo |= graph[name] - loaded
    assert {"ticket/main.js", "leads/lead.js", "shared/session.js", "shared/draft.js"} <= loaded
    assert loaded == set(graph), "modules that no page loads, or that are missing"


def test_a_folder_imports_only_from_those_below_it():
    used = {folder: set() for folder in BELOW}
    for module, others in imports().items():
        folder = module.partition("/")[0]
        used[folder] |= {other.partition("/")[0] for other in others} - {folder}
    assert used == BELOW


def test_no_module_imports_itself_through_others():
    assert circle(imports()) == []


def test_the_search_for_circles_finds_one():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


# `${n} frames`, n + " frames", `${n || "no"} frames`: a number before a noun in the plural. `many` writes both.
PLURAL = re.compile(
    r"""(?:\}|\+\s*["'`]) ?((?:annotator|answer|batche|change|click|frame|hour|mask|masklet|minute|object|operation|"""
    r"""person|point|round|second|suspect|ticket|token|verdict|video)s|people)\b"""
)


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_no_text_counts_without_the_helper_for_one_and_many(path):
    assert PLURAL.findall(COMMENT.sub("", path.read_text())) == []


@pytest.mark.parametrize("text", ["`${n} frames`", 'n + " tickets"', '`${length || "no"} suspects`'])
def test_the_search_for_counts_finds_one(text):
    assert PLURAL.search(text)
    assert not PLURAL.search('`${many(n, "frame")} propagated`')


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_no_module_is_long(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_every_action_of_the_key_table_does_something_and_has_its_own_key():
    keys, shortcuts = (WEB / "shared/keys.js").read_text(), (WEB / "ticket/shortcuts.js").read_text()
    rows = re.findall(r'\{ id: "(\w+)", title: "[^"]+", keys: \[([^\]]*)\](?:, view: "(\w+)")?', keys)
    assert len(rows) > 30
    run = shortcuts.partition("const RUN = {")[2].partition("\n};")[0]
    assert {id for id, _, _ in rows} == set(re.findall(r"^  (\w+)(?::|\(|,)", run, re.M))
    for view in ("verify", "track"):
        used = [key for _, of, where in rows if where in ("", view) for key in re.findall(r'"([^"]+)"', of)]
        assert sorted(used) == sorted(set(used)), "two actions have the same default key"


def refusing_stages() -> set[str]:
    """The stages that the engine writes into records of quarantine."""
    found = set()
    for path in (tree.ROOT / "engine").rglob("*.py"):
        if "uarantined(" not in (text := path.read_text()):
            continue
        constants = dict(re.findall(r'^([A-Z_]+) = "([^"]*)"', text, re.M))
        for call in ast.walk(ast.parse(text)):
            if not isinstance(call, ast.Call) or ast.unparse(call.func) not in ("Quarantined", "_quarantined"):
                continue
            (stage,) = [k.value for k in call.keywords if k.arg == "stage"] or call.args[:1]
            if (said := ast.unparse(stage)) != "stage":  # that would be what the function was given
                found.add(constants[said] if said in constants else ast.literal_eval(said))
    return found


def test_the_page_names_every_stage_that_refuses_something():
    table = (WEB / "leads/quarantine.js").read_text().partition("const STAGES = {")[2].partition("};")[0]
    named = re.findall(r'([\w-]+)"?: "', table)
    assert set(named) == refusing_stages() and len(named) == len(set(named)) > 4
