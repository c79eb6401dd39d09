"""Writes the map of `docs/architecture.md`: every source file with the first sentence of its docstring.

    python -m docs.file_map

A test compares the page with what this would write, so the docstring is the only place to describe a file.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
FOLDERS = ("dags", "engine", "annotation_queue", "model", "validation", "storage", "benchmarks")
BEGIN, END = "<!-- map -->", "<!-- end of map -->"


def sources() -> list[Path]:
    """Python and JavaScript files of the project that hold code, relative to the root, by folder and name."""
    found = [
        path.relative_to(ROOT)
        for folder in FOLDERS
        for pattern in ("*.py", "*.js")
        for path in (ROOT / folder).rglob(pattern)
        if path.read_text().strip() and "__pycache__" not in path.parts
    ]
    return sorted(found, key=lambda path: (FOLDERS.index(path.parts[0]), path.parent.parts, path.name))


def sentence(path: Path) -> str:
    """The first sentence of the docstring or, in JavaScript, of the first comment; ValueError if it is missing."""
    text = (ROOT / path).read_text()
    if path.suffix == ".js":
        match = re.match(r"(?:/\*\*|//)(.*?)(?:\*/|\n(?!\s*(?://|\*)))", text, re.DOTALL)
        said = re.sub(r"\n\s*(?://|\*) ?", "\n", match[1]).replace("// @ts-check", "") if match else ""
    else:
        said = ast.get_docstring(ast.parse(text)) or ""
    first = re.split(r"(?<=[^.]\.)\s+(?=[A-Z`(])|\n\n|:\n|:$", said.strip(), maxsplit=1)[0]
    if not first:
        raise ValueError(f"{path} does not say what it holds")
    return " ".join(first.split()).rstrip(".").replace("|", "\\|")


def table() -> str:
    """One Markdown table a folder."""
    out: list[str] = []
    folder = None
    for path in sources():
        if path.parent != folder:
            folder = path.parent
            out.append(f"\n### {folder}/\n\n| file | what it holds |\n|---|---|")
        out.append(f"| `{path.name}` | {sentence(path)} |")
    return "\n".join(out) + "\n"


def page() -> str:
    """The page with today's map in it."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page())
