"""The store in a bucket: every blob is an object. Keeps a local cache of the objects that were fetched.

The cache is a folder of files named by address, ETag and size, so a changed object is downloaded again. Above its
limit, the files that were unused for longest are evicted.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef
from storage.blobs.base import PARTIAL, BlobDenied, BlobError, BlobMissing, BlobUnreachable, Closed, Data, check_key
from storage.blobs.cleaning import FOLDER, LEFT_S, remove_partial, trim
from storage.errors import first_line

TIMEOUT_S = 60.0


class S3Blobs:
    """Blobs as objects below a prefix of a bucket; any S3 with conditional writes.

    Credentials and region come from the environment, as for every S3 tool.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        endpoint_url: str | None = None,
        cache: Path,
        cache_limit: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """cache_limit: bytes that the cached files may take; None: any number.

        timeout_s: seconds without an answer after which a request is sent again.
        """
        self.bucket = bucket
        self.prefix = f"{check_key(prefix)}/" if prefix else ""
        self.endpoint_url = endpoint_url
        self.cache = cache
        self.cache_limit = cache_limit
        self.timeout_s = timeout_s
        self._unchecked = 0  # bytes that were downloaded since the cache was last compared with its limit
        self._connected: S3Client | None = None
        self._pid = 0

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, key: str, limit: int = -1, start: int = 0) -> bytes:
        wanted = {"Bucket": self.bucket, "Key": self._key(key)}
        if start:
            wanted["Range"] = f"bytes={start}-{'' if limit < 0 else start + limit - 1}"
        with self._errors(key):
            for left in reversed(range(_READS)):  # the client retries a request, but not a body that breaks off
                body = self._client().get_object(**wanted)["Body"]  # type: ignore[arg-type]
                try:
                    with closing(body):  # the rest, beyond the limit, is not downloaded
                        return body.read(None if limit < 0 else limit)
                except _broken():
                    if not left:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def write(self, key: str, data: Data) -> None:
        with self._errors(key):
            if isinstance(data, Path):
                self._client().upload_file(str(data), self.bucket, self._key(key))
            else:
                self._client().put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def create(self, key: str, data: Data) -> bool:
        from botocore.exceptions import ClientError

        writer = uuid.uuid4().hex  # of this call
        with self._errors(key):
            for _ in range(_CONFLICTS):
                try:
                    if isinstance(data, Path):
                        with data.open("rb") as body:
                            self._put_new(key, body, writer)
                    else:
                        self._put_new(key, data, writer)
                except ClientError as error:
                    status, code = _status(error)
                    if status == 412 or code == "PreconditionFailed":
                        return _was_repeated(error) and self._writer(key) == writer
                    if status != 409:  # 409: another writer has begun, and may still fail
                        raise
                else:
                    return True
        raise BlobUnreachable(f"{self.uri_of(key)}: other writers conflicted {_CONFLICTS} times")

    def _put_new(self, key: str, body: object, writer: str) -> None:
        of = {"Bucket": self.bucket, "Key": self._key(key), "Metadata": {_WRITER: writer}}
        self._client().put_object(**of, Body=body, IfNoneMatch="*")  # type: ignore[arg-type]

    def _writer(self, key: str) -> str | None:
        """Which call of `create` made a blob; None for any other blob, and if it was deleted meanwhile."""
        from botocore.exceptions import ClientError

        try:
            found = self._client().head_object(Bucket=self.bucket, Key=self._key(key))
        except ClientError as error:
            if _status(error)[0] == 404:
                return None
            raise
        return found["Metadata"].get(_WRITER)

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except BlobMissing:
            return False
        return True

    def keys(self, prefix: str = "") -> Iterator[str]:
        return (key for key, _ in self.entries(prefix))

    def entries(
        self, prefix: str = "", closed: Closed | None = None, avoid: Collection[str] = ()
    ) -> Iterator[tuple[str, str]]:
        for key, found in self._listed(prefix):
            yield key, f"{found['Size']}-{found['ETag'].strip(chr(34))}"

    def written(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        for key, found in self._listed(prefix):
            yield key, found["LastModified"].timestamp()

    def _listed(self, prefix: str) -> Iterator[tuple[str, ObjectTypeDef]]:
        check_key(prefix, prefix=True)
        with self._errors(prefix):
            pages = (
                self._client()
                .get_paginator("list_objects_v2")
                .paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
            )
            for page in pages:
                for found in page.get("Contents", []):
                    key = found["Key"].removeprefix(self.prefix)
                    if key and not key.endswith("/"):  # a console makes a folder like this; it is not a blob
                        yield key, found

    def size(self, key: str) -> int:
        with self._errors(key):
            return self._client().head_object(Bucket=self.bucket, Key=self._key(key))["ContentLength"]

    def delete(self, key: str) -> None:
        with self._errors(key):
            self._client().delete_object(Bucket=self.bucket, Key=self._key(key))

    def fetch(self, key: str) -> Path:
        """The cached copy of the current content; downloads it if it is not cached. A cached copy costs one request."""
        with self._errors(key):
            head = self._client().head_object(Bucket=self.bucket, Key=self._key(key))
            content = hashlib.sha256(f"{head['ETag']}\n{head['ContentLength']}".encode()).hexdigest()[:32]
            path = self.cache / f"{self._copies(key)}{content}{PurePosixPath(key).suffix}"
            if path.is_file() and path.stat().st_size == head["ContentLength"]:  # a power cut may have shortened it
                os.utime(path)  # the file that was unused for longest is evicted first
                return path
            self.cache.mkdir(parents=True, exist_ok=True)
            partial = self.cache / f"{PARTIAL}{uuid.uuid4().hex}"
            try:
                self._client().download_file(self.bucket, self._key(key), str(partial))
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        self._unchecked += head["ContentLength"]
        if self.cache_limit is not None and self._unchecked > self.cache_limit * _SLACK:
            self._unchecked = 0
            trim(self.cache, self.cache_limit)
        return path

    def forget(self, key: str) -> None:
        for path in self.cache.glob(f"{self._copies(key)}*"):
            path.unlink(missing_ok=True)

    def _copies(self, key: str) -> str:
        """How the names of the cached copies of a blob begin."""
        return hashlib.sha256(f"{self.endpoint_url}\n{self.uri_of(key)}".encode()).hexdigest()[:32] + "-"

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        self.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=FOLDER) as folder:
            path = Path(folder) / PurePosixPath(key).name[-60:]  # a key may be longer than a file name
            with self._errors(key):
                self._client().download_file(self.bucket, self._key(key), str(path))
            yield path

    def tidy(self) -> int:
        """Remove what killed processes left: uploads that nobody completes, and partial files in the cache."""
        removed = 0
        oldest = datetime.now(UTC) - timedelta(seconds=LEFT_S)
        with self._errors(""):
            pages = self._client().get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix):
                for upload in page.get("Uploads", []):
                    if upload["Initiated"] < oldest:
                        self._client().abort_multipart_upload(
                            Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        removed += 1
        return removed + remove_partial(self.cache)

    def uri_of(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._key(key)}"

    def _key(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _client(self) -> S3Client:
        """One client for each process: a forked process must not share the connections of its parent."""
        if self._connected is None or self._pid != os.getpid():
            import boto3
            from botocore.config import Config

            config = Config(
                connect_timeout=min(10.0, self.timeout_s),
                read_timeout=self.timeout_s,
                retries={"max_attempts": 5, "mode": "standard"},
                s3={"addressing_style": "path" if self.endpoint_url else "auto"},
            )
            self._connected = boto3.Session().client("s3", endpoint_url=self.endpoint_url, config=config)
            self._pid = os.getpid()
        return self._connected

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_connected": None}

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turns errors of the client into BlobErrors."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

        uri = f"s3://{self.bucket}/{self.prefix}{key}"
        try:
            yield
        except ClientError as error:
            status, code = _status(error)
            if code == "NoSuchBucket":
                raise BlobMissing(f"s3://{self.bucket}: no such bucket") from error
            if status == 404:
                raise BlobMissing(f"{uri}: no such blob") from error
            if status in (401, 403):
                raise BlobDenied(f"{uri}: {code}") from error
            if status >= 500 or status in (409, 429):
                raise BlobUnreachable(f"{uri}: {status} {code}") from error
            raise BlobError(f"{uri}: {status} {code}") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise BlobDenied(f"{uri}: {error}") from error
        except Boto3Error as error:
            raise BlobUnreachable(f"{uri}: {error}") from error
        except _broken() as error:
            raise BlobUnreachable(f"{uri}: {first_line(error)}") from error
        except FileNotFoundError as error:
            raise BlobMissing(f"{error.filename}: no such file") from error


_WRITER = "writer"  # metadata of a blob that `create` made: a random id of the call
_CONFLICTS = 20
_SLACK = 0.05  # share of the limit that may be downloaded before the cache is looked at again
_READS = 3  # attempts to read a body


def _broken() -> tuple[type[Exception], ...]:
    """What a body raises that breaks off while it is read. Not every one is botocore's own error."""
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    return BotoCoreError, HTTPError, ConnectionError, TimeoutError


def _was_repeated(error: Exception) -> bool:
    """Whether the client sent a request again, because an answer was lost: the first one may have been served."""
    response: dict[str, dict[str, object]] = getattr(error, "response", {})
    return bool(response.get("ResponseMetadata", {}).get("RetryAttempts"))


def _status(error: Exception) -> tuple[int, str]:
    """HTTP status and S3 code of a client error."""
    response: dict[str, dict[str, object]] = getattr(error, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(str(status)), str(response.get("Error", {}).get("Code", ""))
