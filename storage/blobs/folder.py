"""The store in a folder: every blob is a file.

A file appears under its name only when it is complete and on the disk, so a crash leaves no half blob.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from storage.blobs.base import PARTIAL, BlobDenied, BlobError, BlobMissing, Closed, Data, check_key
from storage.blobs.cleaning import remove_empty, remove_partial


class LocalBlobs:
    """Blobs as files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        with _translated(str(self.root)):
            self.root.mkdir(parents=True, exist_ok=True)

    @property
    def uri(self) -> str:
        return str(self.root)

    def read(self, key: str, limit: int = -1, start: int = 0) -> bytes:
        with _translated(self.uri_of(key)), self._path(key).open("rb") as file:
            file.seek(start)
            return file.read(limit)

    def write(self, key: str, data: Data) -> None:
        with _translated(self.uri_of(key)), self._complete(key, data) as partial:
            os.replace(partial, self._path(key))
            _sync_folder(self._path(key).parent)

    def create(self, key: str, data: Data) -> bool:
        path = self._path(key)
        with _translated(self.uri_of(key)):
            if path.exists():
                return False
            with self._complete(key, data) as partial:
                try:
                    os.link(partial, path)  # atomic; fails if the name is taken
                except FileExistsError:
                    return False
                _sync_folder(path.parent)
        return True

    def exists(self, key: str) -> bool:
        with _translated(self.uri_of(key)):
            return self._path(key).is_file()

    def keys(self, prefix: str = "") -> Iterator[str]:
        return (key for key, _ in self.entries(prefix))

    def entries(
        self, prefix: str = "", closed: Closed | None = None, avoid: Collection[str] = ()
    ) -> Iterator[tuple[str, str]]:
        check_key(prefix, prefix=True)
        found, followed, avoided = [], set[str](), tuple(map(real_folder, avoid))

        def unless_gone(error: OSError) -> None:  # a folder that cannot be listed, or was deleted during the walk
            if isinstance(error, PermissionError):
                if closed:
                    closed(Path(error.filename).relative_to(self.root).as_posix())
            elif error.errno not in _GONE:
                raise error

        with _translated(f"{self.uri}/{prefix}"):
            top = self.root / prefix.rpartition("/")[0]
            for folder, folders, names in os.walk(top, onerror=unless_gone, followlinks=True):
                folders[:] = [name for name in folders if self._leads_on(os.path.join(folder, name), followed, avoided)]
                for path in (Path(folder, name) for name in names if not name.startswith(PARTIAL)):
                    key = path.relative_to(self.root).as_posix()
                    if key.startswith(prefix) and (fingerprint := _fingerprint(path)) is not None:
                        found.append((key, fingerprint))
        yield from sorted(found, key=lambda entry: os.fsencode(entry[0]))  # a name on disk need not be UTF-8

    def _leads_on(self, folder: str, followed: set[str], avoided: tuple[str, ...]) -> bool:
        """Whether a listing enters a folder. A linked folder is entered once, and only if it lies outside the root.

        followed: the targets of links so far. avoided: folders that no link leads into. Both as `real_folder` gives
        them.
        """
        if not os.path.islink(folder):
            return not followed or real_folder(folder) not in avoided  # the target of a link may contain one
        target, root = real_folder(folder), real_folder(self.root)
        if target in followed or root.startswith(target) or target.startswith((root, *avoided)):
            return False
        followed.add(target)
        return True

    def written(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        for key in self.keys(prefix):
            with contextlib.suppress(BlobMissing), _translated(self.uri_of(key)):
                yield key, self._path(key).stat().st_mtime

    def size(self, key: str) -> int:
        with _translated(self.uri_of(key)):
            return self._path(key).stat().st_size

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _translated(self.uri_of(key)):
            path.unlink(missing_ok=True)
        for folder in path.parents[: key.count("/")]:  # listings walk through folders, also through empty ones
            try:
                folder.rmdir()
            except OSError:  # not empty, or a link
                break

    def fetch(self, key: str) -> Path:
        if not self.exists(key):
            raise BlobMissing(f"{self.uri_of(key)}: no such blob")
        return self._path(key)

    def forget(self, key: str) -> None:
        check_key(key)  # `fetch` gives the blob itself: there are no copies

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        with _translated(self.uri_of(key)), self._path(key).open("rb"):
            pass  # raises here if it is missing or denied
        yield self._path(key)

    def tidy(self) -> int:
        """Remove the partial files of killed writers, and empty folders. Returns the number of the files."""
        with _translated(self.uri):
            removed = remove_partial(self.root)
            remove_empty(self.root)
            return removed

    def uri_of(self, key: str) -> str:
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    @contextmanager
    def _complete(self, key: str, data: Data) -> Iterator[Path]:
        """A temporary file beside the key, with all bytes flushed to the disk."""
        partial = self._path(key).parent / f"{PARTIAL}{uuid.uuid4().hex}"
        try:
            with _new_file(partial) as file:
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield partial
        finally:
            partial.unlink(missing_ok=True)


def real_folder(path: str | Path) -> str:
    """The path of a folder without links, with "/" at its end: it begins the paths of all that is in the folder."""
    return os.path.realpath(path).rstrip("/") + "/"


def _fingerprint(path: Path) -> str | None:
    """The fingerprint of a file; None if it is not a file, or was deleted."""
    try:
        found = path.stat()
    except PermissionError:
        return "denied"  # it exists: reading it raises BlobDenied
    except OSError as error:
        if error.errno in _GONE:
            return None
        if error.errno == errno.ENOMEM:
            raise
        return "unreadable"  # a damaged entry on the disk: reading it raises BlobError, and the others can be read
    return f"{found.st_size}-{found.st_mtime_ns}" if stat.S_ISREG(found.st_mode) else None


def _new_file(path: Path) -> BinaryIO:
    """Opens a new file, and makes its folder. Another process may remove the folder before there is a file in it."""
    tries = 0
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("xb")
        except (FileNotFoundError, FileExistsError):  # the second one from mkdir, if the folder goes while it looks
            tries += 1
            if tries == _TRIES:
                raise


_TRIES = 1000  # of making a folder that others remove
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # another process has deleted the blob already, and with it the folder
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Turns errors of the file system into BlobErrors."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BlobMissing(f"{_named(error, uri)}: no such blob") from error
    except PermissionError as error:
        raise BlobDenied(f"{_named(error, uri)}: permission denied") from error
    except OSError as error:
        raise BlobError(f"{_named(error, uri)}: {error.strerror or error}") from error


def _named(error: OSError, uri: str) -> str:
    """The file that the error is about: it may be the source of a copy instead of the blob."""
    name = str(error.filename) if error.filename else uri
    return uri if PARTIAL in name else name
