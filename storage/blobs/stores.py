"""Opens the store at an address: a folder or a bucket."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.blobs.base import Blobs
from storage.blobs.folder import LocalBlobs
from storage.blobs.s3 import TIMEOUT_S, S3Blobs


def connect(
    uri: str,
    *,
    cache: Path,
    endpoint_url: str | None = None,
    cache_limit: int | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Blobs:
    """The store at `uri`: a folder (made if it is missing), file://… or s3://bucket/prefix.

    cache: a folder for local copies of remote blobs. cache_limit: their bytes; None: no limit.
    endpoint_url: the address of an S3 server other than Amazon's. timeout_s: without an answer from a bucket.
    Raises ValueError for another scheme.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise ValueError(f"an S3 root is s3://bucket/prefix, not {uri!r}")
        return S3Blobs(
            parts.netloc,
            parts.path.strip("/"),
            endpoint_url=endpoint_url,
            cache=cache,
            cache_limit=cache_limit,
            timeout_s=timeout_s,
        )
    if parts.scheme == "file":
        return LocalBlobs(Path(unquote(parts.path)))
    if "://" in uri or not uri:
        raise ValueError(f"a root is a folder, file://… or s3://bucket/prefix, not {uri!r}")
    return LocalBlobs(Path(uri))
