"""What every command shows on a terminal: output, progress bars, JSON, errors in one line, and stopping.

Knows nothing of what the commands do.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError
from rich import progress as rich_progress
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

from engine import setting_names
from engine.progress import Progress
from engine.settings import Settings, settings_file

# Printed text holds names of files and people, so none of it is parsed as markup.
# No line is broken to fit the terminal: a name that is broken in two cannot be copied.
out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

STOPPED = 130  # exit status of a stopped command
LAST_COLUMN = 24  # characters that the last column of a table needs at least
LINE_S = 30.0  # how often long work prints a line where there is no terminal to draw a bar on

OURS = ("engine", "storage", "model", "validation", "annotation_queue")
WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Project = Annotated[str, typer.Option(help="Its name in the settings' [projects]. Default: the unnamed one.")]
Word = TypeVar("Word", bound=StrEnum)


def run(app: typer.Typer) -> None:
    """Runs the command that the arguments name and ends the process. A mistake is one line and status 2."""
    try:
        status = app(standalone_mode=False)  # None, or the status of a typer.Exit; Typer turns Ctrl-C into one, too
        if status == STOPPED:
            raise KeyboardInterrupt
        sys.exit(status)
    except (typer.Abort, KeyboardInterrupt):
        err.print("stopped; run it again to go on")
        sys.exit(STOPPED)
    except Exception as error:
        if isinstance(error, ValidationError) and error.title == Settings.__name__:
            for line in setting_names.problems(error, os.environ, settings_file()):
                err.print(f"masklets: {line}", style="red")
            sys.exit(2)
        if type(error).__module__.partition(".")[0] in ("typer", "click"):
            show = getattr(error, "show", None)
            if show:
                show()
            sys.exit(getattr(error, "exit_code", 2))
        if not _is_expected(error):
            raise
        line = (str(error).strip() or (type(error).__doc__ or type(error).__name__)).splitlines()[0]
        err.print(f"masklets: {line}", style="red")
        sys.exit(2)


def _is_expected(error: Exception) -> bool:
    """Is this one of our named outcomes or a mistake of the caller? Anything else is a bug and keeps its traceback."""
    ours = type(error).__module__.partition(".")[0] in OURS
    return ours or isinstance(error, (ValueError, ConnectionError, *WRONG_PATH))


def print_json(value: object) -> None:
    """Prints one JSON value on standard output; a dataclass as an object of its fields."""
    print(json.dumps(value, default=_as_json), flush=True)


def _as_json(value: object) -> object:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)


def print_rows(header: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Prints a table where a terminal is wide enough, and elsewhere one line a row with tabs between the cells.

    No cell is cut; in a table the last column may take several lines. header: empty for rows of a name and a value.
    """
    every = [list(header), *rows] if header else list(rows)
    widths = [max(cell_len(cell) for cell in column) for column in zip(*every, strict=True)]
    needed = sum(widths[:-1]) + min(widths[-1], LAST_COLUMN) + 3 * len(widths) + 1
    if not out.is_terminal or needed > out.width:
        for line in ([title] if title else []) + ["\t".join(" ".join(cell.split()) for cell in row) for row in every]:
            print(line, file=out.file)  # the console would replace the tabs
        return
    *names, last = header or [""] * len(widths)
    columns = [*(Column(name, no_wrap=True) for name in names), Column(last, overflow="fold")]
    table = Table(*columns, title=title, show_header=bool(header))
    for row in rows:
        table.add_row(*row)
    out.print(table, soft_wrap=False)


def print_dim(line: str) -> None:
    """A `Tell`: one grey line on standard error."""
    err.print(line, style="dim")


@contextmanager
def bar(label: str, shown: bool = True) -> Iterator[Progress]:
    """A progress bar on a terminal; elsewhere a line every LINE_S seconds. shown: False prints nothing."""
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[word]}", markup=False),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(
        *columns, console=err, disable=not (shown and err.is_terminal), transient=True
    ) as drawn:
        task = drawn.add_task(label, total=None, word="")
        printed = time.monotonic()

        def show(done: int, total: int, name: str) -> None:
            nonlocal printed
            drawn.update(task, completed=done, total=total, word=name)
            if shown and drawn.disable and time.monotonic() - printed >= LINE_S:
                printed = time.monotonic()
                print_dim(f"{label}: {done}/{total} {name}")

        yield show


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, so that the processes that it started are stopped."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def local_time(seconds: float) -> str:
    """`2026-11-29 14:00`, of seconds since the epoch."""
    return datetime.fromtimestamp(seconds).isoformat(" ", "minutes")


def member(word: str, words: type[Word], what: str) -> Word:
    """The member that a word names. Raises ValueError."""
    if word not in {known.value for known in words}:
        raise ValueError(f"the {what} are {', '.join(known.value for known in words)}, not {word!r}")
    return words(word)
