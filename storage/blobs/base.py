"""Blobs: named bytes below one root, which is a folder or a bucket. The protocol, its errors, and what a key is.

Knows keys and bytes. Does not know the content of a blob. A key is a relative POSIX path without "..". There are two
ways to write. `write` replaces a blob. `create` makes only a new blob, and returns whether it did: an exclusive link on
disk, `If-None-Match: *` on S3. Every race in this project is decided by `create`. A reader never sees half a blob.

Errors:
    BlobError
    ├── BlobMissing         there is no such blob
    ├── BlobDamaged         it is not the JSON that was written
    ├── BlobDenied          the store denies access
    ├── NotCreateOnly       the store ignores `If-None-Match`
    └── BlobUnreachable     the store does not answer: retry
"""

from __future__ import annotations

import json
import secrets
import unicodedata
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

Data = bytes | Path  # bytes, or a local file that holds them
Closed = Callable[[str], None]  # called with a key


class BlobError(Exception):
    """The blob store failed."""


class BlobMissing(BlobError):
    """There is no such blob."""


class BlobDamaged(BlobError):
    """A blob is not the JSON that was written."""


class BlobDenied(BlobError):
    """The store denies access."""


class NotCreateOnly(BlobError):
    """The store replaces blobs that `create` must keep."""


class BlobUnreachable(BlobError):
    """The store does not answer."""


class Blobs(Protocol):
    """Named bytes below one root. Every method raises ValueError for a malformed key, BlobError for the store."""

    def __hash__(self) -> int: ...

    @property
    def uri(self) -> str:
        """The address of the root: an absolute path or s3://bucket/prefix, without a slash at the end."""

    def read(self, key: str, limit: int = -1, start: int = 0) -> bytes:
        """The bytes of a blob from byte `start` on, all or at most `limit` of them. Raises BlobMissing.

        start: less than the size, unless it is 0.
        """

    def write(self, key: str, data: Data) -> None:
        """Make a blob, or replace it."""

    def create(self, key: str, data: Data) -> bool:
        """Make a blob unless it exists. True if this call made it; of several racing callers exactly one gets True."""

    def exists(self, key: str) -> bool: ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with `prefix`, in the order of their UTF-8 bytes.

        A blob that another tool wrote may have a malformed key. It is listed, but every other method refuses it.
        """

    def entries(
        self, prefix: str = "", closed: Closed | None = None, avoid: Collection[str] = ()
    ) -> Iterator[tuple[str, str]]:
        """`keys`, each with its fingerprint. A fingerprint changes when the content may have changed. Reads no content.

        closed: called with the key of each folder that cannot be listed for lack of permission; its blobs are skipped.
        avoid: paths of folders on this machine. Where a link leads to one of them, its blobs are skipped.
        """

    def written(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        """`keys`, each with the time when it was written, s since 1970. Reads no content."""

    def size(self, key: str) -> int:
        """Bytes. Raises BlobMissing."""

    def delete(self, key: str) -> None:
        """Remove a blob. A missing blob is no error."""

    def fetch(self, key: str) -> Path:
        """A local file with the bytes of the blob. It stays; do not change it. Raises BlobMissing."""

    def forget(self, key: str) -> None:
        """Remove the local copies of a blob that `fetch` made on this machine, also after the blob itself is gone."""

    def local(self, key: str) -> AbstractContextManager[Path]:
        """`fetch` for one block: a downloaded copy is deleted at the end of the block. The file has the key's suffix.

        Raises BlobMissing and BlobDenied when the block begins.
        """

    def tidy(self) -> int:
        """Remove what killed writers left behind more than a day ago: never a blob. Returns the number."""

    def uri_of(self, key: str) -> str:
        """The address of the blob, for tools that read it directly."""


def check_create_only(blobs: Blobs) -> None:
    """Tries `create` twice on a new key. Raises NotCreateOnly for a store where two workers could overwrite each other.

    Costs four requests.
    """
    key = f"probes/{secrets.token_hex(8)}"
    try:
        if not blobs.create(key, b"first") or blobs.create(key, b"second") or blobs.read(key) != b"first":
            raise NotCreateOnly(f"{blobs.uri} ignores If-None-Match: two workers could overwrite each other")
    finally:
        blobs.delete(key)


def check_key(key: str, *, prefix: bool = False) -> str:
    """The key itself. Raises ValueError unless it is a relative POSIX path that stays below its root.

    prefix: also allow "" and a slash at the end.
    """
    path = key.removesuffix("/") if prefix else key
    if prefix and not path:
        if key == "":
            return key
    elif (
        path
        and path == PurePosixPath(path).as_posix()
        and not path.startswith("/")
        and not {".", ".."} & set(path.split("/"))
        and (path.isprintable() or not any(unicodedata.category(character) in _UNFIT for character in path))
        and "\\" not in path
    ):
        return key
    raise ValueError(f"{key!r}: a key is a relative path without '..', backslashes, line ends and control characters")


_UNFIT = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line ends


PARTIAL = ".part-"


def read_json(blobs: Blobs, key: str) -> dict[str, Any]:
    """The JSON object in a blob. Raises BlobMissing, and BlobDamaged with the key."""
    data = blobs.read(key)
    try:
        found = json.loads(data)
    except ValueError as error:
        raise BlobDamaged(f"{key}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise BlobDamaged(f"{key}: not a JSON object")
    return found
