"""Files of this machine: folders and secrets that only their owner reads, and locks between processes."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from storage.lease import InUse as InUse
from storage.whole_files import complete

log = logging.getLogger(__name__)

OTHERS = 0o077  # the permissions of other users


def private_folder(folder: Path) -> None:
    """Makes a folder that only its owner can open. Closes an existing one, and the files in it, to other users.

    Folders in it need nothing: nobody else can reach them.
    Raises ValueError for a folder that all users of the machine share, such as /tmp.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = folder.stat().st_mode
    if mode & stat.S_ISVTX:
        raise ValueError(f"{folder} is shared by all users of this machine: choose a folder of its own")
    try:
        if mode & OTHERS:
            folder.chmod(stat.S_IMODE(mode) & ~OTHERS)
            log.warning("%s was open to other users of this machine; now only its owner can open it", folder)
        for entry in os.scandir(folder):
            if entry.is_file(follow_symlinks=False) and (mode := entry.stat().st_mode) & OTHERS:
                os.chmod(entry.path, stat.S_IMODE(mode) & ~OTHERS)
    except PermissionError:
        log.warning("%s is open to other users of this machine, and this user may not change that", folder)


def private_file(path: Path) -> None:
    """Makes an empty file that only its owner can read, for a library that would make it readable for everybody.

    An existing file stays as it is.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def write_secret(path: Path, text: str) -> None:
    """Writes a file that only its owner can read. The file appears whole or not at all."""
    with complete(path, flushed=True) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")


@contextmanager
def alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds a lock file: only one process and one thread at a time is inside the block. Not reentrant.

    The lock ends with its process, even if that is killed. The file stays, and keeps what it holds.
    wait: False raises InUse at once if the lock is taken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each call has a lock object of its own, so threads exclude each other.
    # Soft locks are off: a soft lock would stay after its process was killed.
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
