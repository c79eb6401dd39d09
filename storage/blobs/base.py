"""Blobs: named bytes below one root, a folder or a bucket.

Knows keys and bytes; nothing about what is in them. A key is a relative POSIX path without "..". Two kinds of writing:
`write` replaces, `create` makes only what is not there yet and says whether it did, which is what every race in this
project is decided by (an exclusive link on disk, `If-None-Match: *` on S3). Readers never see half a blob.

Errors:
    BlobError
    ├── BlobMissing         there is no such blob
    ├── BlobDenied          the store does not let us
    └── BlobUnreachable     the store does not answer: worth another try
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Protocol

Data = bytes | Path  # bytes, or a local file that holds them
Closed = Callable[[str], None]  # is told a key


class BlobError(Exception):
    """The blob store failed."""


class BlobMissing(BlobError):
    """There is no such blob."""


class BlobDenied(BlobError):
    """The store does not let us."""


class BlobUnreachable(BlobError):
    """The store does not answer."""


class Blobs(Protocol):
    """Named bytes below one root. Every verb raises ValueError for a malformed key and BlobError for the store."""

    @property
    def uri(self) -> str:
        """Where the root is: an absolute path or s3://bucket/prefix, without a slash at the end."""

    def read(self, key: str, limit: int = -1) -> bytes:
        """The bytes of a blob, or its first `limit` bytes. Raises BlobMissing."""

    def write(self, key: str, data: Data) -> None:
        """Make or replace a blob."""

    def create(self, key: str, data: Data) -> bool:
        """Make a blob unless it is there. True if this call made it; among racing callers exactly one gets True."""

    def exists(self, key: str) -> bool: ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with `prefix`, in the order of their UTF-8 bytes.

        What other tools put there may have a malformed key: it is listed, and no other verb takes it.
        """

    def entries(self, prefix: str = "", closed: Closed | None = None) -> Iterator[tuple[str, str]]:
        """`keys`, each with its fingerprint, which changes when the content may have changed; asks for no content.

        closed: called with the key of each folder that may not be listed; what is in it is left out.
        """

    def size(self, key: str) -> int:
        """Bytes. Raises BlobMissing."""

    def delete(self, key: str) -> None:
        """Remove a blob; nothing happens if there is none."""

    def fetch(self, key: str) -> Path:
        """A local file with the blob's bytes, to read and not to change; it stays. Raises BlobMissing."""

    def local(self, key: str) -> AbstractContextManager[Path]:
        """`fetch` for once: a downloaded copy goes when the block is left. Raises BlobMissing, BlobDenied on entering.

        The file has the suffix of the key.
        """

    def uri_of(self, key: str) -> str:
        """The blob's own address, for tools that read it without us."""


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
    raise ValueError(f"a key is a relative path without '..', not {key!r}")


_UNFIT = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of a character, line ends; odd spaces and joiners may be


PARTIAL = ".part-"
