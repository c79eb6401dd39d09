"""What killed processes leave behind, and a local cache that keeps below its limit. Only deletes what nobody uses.

A file counts as left behind when it is older than a day: no writer takes that long for one file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from storage.blobs.base import PARTIAL

LEFT_S = 24 * 3600.0  # age of a partial file that no living process writes
FOLDER = "download-"  # how the temporary folders in a cache begin
IN_USE_S = 3600.0  # a cached file that was used since then is not evicted


def remove_partial(root: Path) -> int:
    """Remove the partial files below a folder whose writers were killed. Returns their number."""
    removed = 0
    oldest = time.time() - LEFT_S
    for folder, _, names in os.walk(root):
        for name in names:
            if name.startswith(PARTIAL):
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < oldest:
                        path.unlink()
                        removed += 1
    return removed


def remove_empty(root: Path) -> None:
    """Remove the empty folders below a folder: those of killed processes, and of earlier versions, which left all."""
    for folder, _, names in os.walk(root, topdown=False):
        if not names and folder != os.fspath(root):
            with contextlib.suppress(OSError):  # it holds a folder that is not empty
                os.rmdir(folder)


def trim(cache: Path, limit: int) -> int:
    """Evict the files of a cache that were unused for longest, until the others take at most `limit` bytes.

    Also removes what killed processes left in it. Returns the bytes that were freed. Files that somebody used within
    the last hour stay, even above the limit.
    """
    freed, total, files = 0, 0, []
    now = time.time()
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(cache):
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    if entry.name.startswith(FOLDER) and found.st_mtime < now - LEFT_S:
                        shutil.rmtree(entry.path, ignore_errors=True)
                elif entry.name.startswith(PARTIAL):
                    if found.st_mtime < now - LEFT_S:
                        os.unlink(entry.path)
                        freed += found.st_size
                else:
                    files.append((found.st_mtime, found.st_size, entry.path))
                    total += found.st_size
    for used_at, size, path in sorted(files):
        if total <= limit or used_at > now - IN_USE_S:
            break
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        freed, total = freed + size, total - size
    return freed
