"""Files that appear whole or not at all: written beside their place under a temporary name, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete(path: Path, *, one_writer: bool = False, flushed: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, with the same ending. It replaces `path` after the block, or is deleted.

    A kill leaves the temporary file behind; its name begins with a dot.
    one_writer: no other process writes `path`, so the temporary name is always the same, and kills leave one file only.
    flushed: the bytes are on the disk before `path` is replaced, so that also a power cut leaves a whole file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem if one_writer else secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        if flushed:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
