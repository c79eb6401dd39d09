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

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

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


def connect(uri: str, *, cache: Path, endpoint_url: str | None = None) -> Blobs:
    """The store at `uri`: a folder (made when absent), file://… or s3://bucket/prefix.

    cache: a folder for local copies of remote blobs. endpoint_url: of an S3 that is not Amazon's.
    Raises ValueError for another scheme.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise ValueError(f"an S3 root is s3://bucket/prefix, not {uri!r}")
        return S3Blobs(parts.netloc, parts.path.strip("/"), endpoint_url=endpoint_url, cache=cache)
    if parts.scheme == "file":
        return LocalBlobs(Path(unquote(parts.path)))
    if "://" in uri or not uri:
        raise ValueError(f"a root is a folder, file://… or s3://bucket/prefix, not {uri!r}")
    return LocalBlobs(Path(uri))


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


# A folder


class LocalBlobs:
    """Blobs as files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        with _translated(str(self.root)):
            self.root.mkdir(parents=True, exist_ok=True)

    @property
    def uri(self) -> str:
        return str(self.root)

    def read(self, key: str, limit: int = -1) -> bytes:
        with _translated(self.uri_of(key)), self._path(key).open("rb") as file:
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
                    os.link(partial, path)  # atomic, and fails where the name is taken
                except FileExistsError:
                    return False
                _sync_folder(path.parent)
        return True

    def exists(self, key: str) -> bool:
        with _translated(self.uri_of(key)):
            return self._path(key).is_file()

    def keys(self, prefix: str = "") -> Iterator[str]:
        return (key for key, _ in self.entries(prefix))

    def entries(self, prefix: str = "", closed: Closed | None = None) -> Iterator[tuple[str, str]]:
        check_key(prefix, prefix=True)
        found, followed = [], set[str]()

        def unless_gone(error: OSError) -> None:  # a folder that cannot be listed, or has gone since its parent was
            if isinstance(error, PermissionError):
                if closed:
                    closed(Path(error.filename).relative_to(self.root).as_posix())
            elif error.errno not in _GONE:
                raise error

        with _translated(f"{self.uri}/{prefix}"):
            top = self.root / prefix.rpartition("/")[0]
            for folder, folders, names in os.walk(top, onerror=unless_gone, followlinks=True):
                folders[:] = [name for name in folders if self._leads_on(os.path.join(folder, name), followed)]
                for path in (Path(folder, name) for name in names if not name.startswith(_PARTIAL)):
                    key = path.relative_to(self.root).as_posix()
                    if key.startswith(prefix) and (fingerprint := _fingerprint(path)) is not None:
                        found.append((key, fingerprint))
        yield from sorted(found, key=lambda entry: os.fsencode(entry[0]))  # a name on disk need not be UTF-8

    def _leads_on(self, folder: str, followed: set[str]) -> bool:
        """Whether a listing goes into a folder: a linked one is listed once, unless it is listed without the link."""
        if not os.path.islink(folder):
            return True
        target, root = os.path.realpath(folder), os.path.realpath(self.root)
        if target in followed or f"{root}/".startswith(f"{target}/") or f"{target}/".startswith(f"{root}/"):
            return False
        followed.add(target)
        return True

    def size(self, key: str) -> int:
        with _translated(self.uri_of(key)):
            return self._path(key).stat().st_size

    def delete(self, key: str) -> None:
        with _translated(self.uri_of(key)):
            self._path(key).unlink(missing_ok=True)

    def fetch(self, key: str) -> Path:
        if not self.exists(key):
            raise BlobMissing(f"{self.uri_of(key)}: no such blob")
        return self._path(key)

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        with _translated(self.uri_of(key)), self._path(key).open("rb"):
            pass  # now is the time to say that it is missing or denied
        yield self._path(key)

    def uri_of(self, key: str) -> str:
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    @contextmanager
    def _complete(self, key: str, data: Data) -> Iterator[Path]:
        """A temporary file beside the key with all the bytes, on the disk and not only in memory."""
        folder = self._path(key).parent
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{_PARTIAL}{uuid.uuid4().hex}"
        try:
            with partial.open("xb") as file:
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


_PARTIAL = ".part-"


def _fingerprint(path: Path) -> str | None:
    """Of a file; None for what is none, or went away."""
    try:
        found = path.stat()
    except PermissionError:
        return "denied"  # it is there: who reads it is told
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    return f"{found.st_size}-{found.st_mtime_ns}" if stat.S_ISREG(found.st_mode) else None


_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Errors of the file system as ours."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BlobMissing(f"{_named(error, uri)}: no such blob") from error
    except PermissionError as error:
        raise BlobDenied(f"{_named(error, uri)}: permission denied") from error
    except OSError as error:
        raise BlobError(f"{_named(error, uri)}: {error.strerror or error}") from error


def _named(error: OSError, uri: str) -> str:
    """What the error is about: the source of a copy is not the blob."""
    name = str(error.filename) if error.filename else uri
    return uri if _PARTIAL in name else name


# A bucket


class S3Blobs:
    """Blobs as objects below a prefix of a bucket; any S3 with conditional writes.

    Credentials and region come from the environment, as for every S3 tool.
    """

    def __init__(self, bucket: str, prefix: str, *, endpoint_url: str | None = None, cache: Path) -> None:
        self.bucket = bucket
        self.prefix = f"{check_key(prefix)}/" if prefix else ""
        self.endpoint_url = endpoint_url
        self.cache = cache
        self._connected: S3Client | None = None
        self._pid = 0

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, key: str, limit: int = -1) -> bytes:
        with self._errors(key):
            body = self._client().get_object(Bucket=self.bucket, Key=self._key(key))["Body"]
            with closing(body):  # what is beyond the limit is not received
                return body.read(None if limit < 0 else limit)

    def write(self, key: str, data: Data) -> None:
        with self._errors(key):
            if isinstance(data, Path):
                self._client().upload_file(str(data), self.bucket, self._key(key))
            else:
                self._client().put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def create(self, key: str, data: Data) -> bool:
        from botocore.exceptions import ClientError

        with self._errors(key):
            for _ in range(_CONFLICTS):
                try:
                    if isinstance(data, Path):
                        with data.open("rb") as body:
                            self._put_new(key, body)
                    else:
                        self._put_new(key, data)
                except ClientError as error:
                    status, code = _status(error)
                    if status == 412 or code == "PreconditionFailed":
                        return False
                    if status != 409:  # 409: another writer is at it, and may yet fail
                        raise
                else:
                    return True
        raise BlobUnreachable(f"{self.uri_of(key)}: other writers kept it busy")

    def _put_new(self, key: str, body: object) -> None:
        self._client().put_object(Bucket=self.bucket, Key=self._key(key), Body=body, IfNoneMatch="*")  # type: ignore[arg-type]

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except BlobMissing:
            return False
        return True

    def keys(self, prefix: str = "") -> Iterator[str]:
        return (key for key, _ in self.entries(prefix))

    def entries(self, prefix: str = "", closed: Closed | None = None) -> Iterator[tuple[str, str]]:
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
                    if key and not key.endswith("/"):  # that is how consoles make folders, not a blob
                        yield key, f"{found['Size']}-{found['ETag'].strip(chr(34))}"

    def size(self, key: str) -> int:
        with self._errors(key):
            return self._client().head_object(Bucket=self.bucket, Key=self._key(key))["ContentLength"]

    def delete(self, key: str) -> None:
        with self._errors(key):
            self._client().delete_object(Bucket=self.bucket, Key=self._key(key))

    def fetch(self, key: str) -> Path:
        """The cached copy of this content, which is downloaded when there is none. One request when there is."""
        with self._errors(key):
            head = self._client().head_object(Bucket=self.bucket, Key=self._key(key))
            named = f"{self.endpoint_url}\n{self.uri_of(key)}\n{head['ETag']}\n{head['ContentLength']}"
            path = self.cache / (hashlib.sha256(named.encode()).hexdigest() + PurePosixPath(key).suffix)
            if path.is_file() and path.stat().st_size == head["ContentLength"]:  # a power cut may have left less
                return path
            self.cache.mkdir(parents=True, exist_ok=True)
            partial = self.cache / f"{_PARTIAL}{uuid.uuid4().hex}"
            try:
                self._client().download_file(self.bucket, self._key(key), str(partial))
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        return path

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        self.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache) as folder:
            path = Path(folder) / PurePosixPath(key).name[-60:]  # a key may be longer than a file's name
            with self._errors(key):
                self._client().download_file(self.bucket, self._key(key), str(path))
            yield path

    def uri_of(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._key(key)}"

    def _key(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _client(self) -> S3Client:
        """One client a process: a forked one must not share its parent's connections."""
        if self._connected is None or self._pid != os.getpid():
            import boto3
            from botocore.config import Config

            config = Config(
                connect_timeout=10,
                read_timeout=60,
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
        """Errors of the client as ours."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

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
        except (BotoCoreError, Boto3Error) as error:
            raise BlobUnreachable(f"{uri}: {error}") from error
        except FileNotFoundError as error:
            raise BlobMissing(f"{error.filename}: no such file") from error


_CONFLICTS = 20


def _status(error: Exception) -> tuple[int, str]:
    """HTTP status and S3 code of a client error."""
    response: dict[str, dict[str, object]] = getattr(error, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(str(status)), str(response.get("Error", {}).get("Code", ""))
