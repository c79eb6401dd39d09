"""Files of this machine: secrets that only their owner reads, and locks between processes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class InUse(Exception):
    """Another process or another thread holds the lock."""


def write_secret(path: Path, text: str) -> None:
    """Writes a file that only its owner can read. The file appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds a lock file: only one process and one thread at a time is inside the block. Not reentrant.

    The lock ends with its process, even if that is killed. The file stays, and keeps what it holds.
    wait: False raises InUse at once if the lock is taken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lock of our own for each call, so threads exclude each other. Without flock there is no lock that ends with its
    # process, so no soft lock instead.
    lock = FileLock(path, blocking=wait, thread_local=False, fallback_to_soft=False, preserve_lock_file=True)
    try:
        lock.acquire()
    except Timeout:
        raise InUse(f"{path} is locked by another process") from None
    try:
        yield
    finally:
        lock.release()


def held(path: Path) -> bool:
    """Whether another process or thread is inside `alone(path)`. Creates no file."""
    if not path.exists():
        return False
    try:
        with alone(path, wait=False):
            return False
    except InUse:
        return True
