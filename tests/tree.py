"""The import graph of the project, read from the source: who imports whom, circles, and arrows that point up.

    python -m tests.tree          prints the graph by folder, then every circle and every arrow up (none is allowed)

Reads files only; imports nothing of the project.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: What each top-level folder may import of ours. An arrow that is not listed here points up.
MAY_IMPORT = {
    "storage": frozenset[str](),
    "model": frozenset({"storage"}),
    "validation": frozenset({"storage"}),
    "annotation_queue": frozenset({"storage"}),
    "engine": frozenset({"storage", "model", "validation", "annotation_queue"}),
    "dags": frozenset({"engine"}),
}


@dataclass(frozen=True)
class Import:
    """One import statement of a file.

    name: the full dotted name, e.g. `storage.rle` or `torch.nn`.
    at_top: outside of every function, and so run when the module is imported.
    for_types: below `if TYPE_CHECKING:`, and so never run.
    """

    name: str
    at_top: bool
    for_types: bool


def files() -> dict[str, Path]:
    """Every module of the six folders, by its dotted name. A package has the name of its folder."""
    found = {}
    for folder in MAY_IMPORT:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> Iterator[Import]:
    """All imports of one file, wherever they stand."""

    def walk(node: ast.AST, at_top: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, at_top, for_types) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module and child.level == 0:
                yield from (Import(f"{child.module}.{alias.name}", at_top, for_types) for alias in child.names)
            elif isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
                yield from walk(child, at_top, True)
            else:
                is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_top and not is_function, for_types)

    yield from walk(ast.parse(path.read_text()), True, False)


def graph(modules: Mapping[str, Path]) -> dict[str, frozenset[str]]:
    """Which modules each module imports, at the top or inside a function; imports for types alone do not count."""

    def module_of(name: str) -> str | None:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name or None

    return {
        module: frozenset(
            found
            for each in imports(path)
            if not each.for_types and (found := module_of(each.name)) and found != module
        )
        for module, path in modules.items()
    }


def circles(arrows: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (strongly connected components of more than one; Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(arrows.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return found


def arrows_up(arrows: Mapping[str, frozenset[str]]) -> list[str]:
    """Imports from one top-level folder into another that `MAY_IMPORT` does not allow."""
    return [
        f"{module} imports {other}"
        for module, others in sorted(arrows.items())
        for other in sorted(others)
        if (a := module.partition(".")[0]) != (b := other.partition(".")[0]) and b not in MAY_IMPORT[a]
    ]


def room(module: str) -> str:
    """The folder that holds a module: `engine.rounds.record` is in the room `engine.rounds`."""
    path = ROOT / module.replace(".", "/")
    return module if path.is_dir() else module.rpartition(".")[0]


def room_circles(arrows: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Groups of rooms that reach each other.

    A module directly in a top-level folder counts as a room of its own: some of them are below all rooms, as
    `engine.settings`, others above, as `engine.loop`.
    """
    between: dict[str, set[str]] = defaultdict(set)

    def place(module: str) -> str:
        return found if "." in (found := room(module)) else module

    for module, others in arrows.items():
        between[place(module)] |= {place(other) for other in others} - {place(module)}
    return circles({a: frozenset(b) for a, b in between.items()})


def rooms(arrows: Mapping[str, frozenset[str]]) -> dict[str, dict[str, int]]:
    """How many imports lead from each room to each other one. A room is a folder that holds modules."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for module, others in arrows.items():
        for other in others:
            if room(module) != room(other):
                counts[room(module)][room(other)] += 1
    return {a: dict(sorted(b.items())) for a, b in sorted(counts.items())}


def main() -> int:
    """Prints the graph; the exit status is 1 if there is a circle or an arrow up."""
    modules = files()
    arrows = graph(modules)
    for name, others in rooms(arrows).items():
        print(f"{name:28} -> " + ", ".join(f"{other} ({count})" for other, count in others.items()))
    groups, up = circles(arrows) + room_circles(arrows), arrows_up(arrows)
    print(f"\n{len(modules)} modules, {sum(map(len, arrows.values()))} imports between them")
    print(f"{len(groups)} circles", *(" <-> ".join(group) for group in groups), sep="\n  ")
    print(f"{len(up)} arrows up", *up, sep="\n  ")
    return 1 if groups or up else 0


if __name__ == "__main__":
    sys.exit(main())
