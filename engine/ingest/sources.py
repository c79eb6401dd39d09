"""A source of raw videos: a folder or an S3 prefix, and its files that ingest has to judge.

Knows names and fingerprints; opens no file. Hidden files, the files in hidden folders and unfinished downloads are
skipped by their names. A file with the suffix of text, pictures or sound is listed with `usually_no_video` set: its
content decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine.ingest import metadata
from engine.ingest.metadata import Metadata, Row
from engine.services import Services
from engine.settings import IngestSettings
from storage.blobs import stores
from storage.blobs.base import Blobs
from storage.blobs.folder import real_folder
from storage.records import content_id

TRUTH = ".truth.json"  # clip.truth.json beside clip.mp4 holds its true masklets as SA-V JSON
NO_VIDEO = {
    ".json", ".jsonl", ".txt", ".md", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".toml", ".html", ".pdf", ".srt", ".vtt",
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".zip", ".tar", ".gz", ".py", ".sh", ".log",
    ".mp3", ".wav", ".flac", ".aac", ".ogg", ".parquet", ".npy",
}  # fmt: skip
UNFINISHED = {".part", ".tmp", ".crdownload"}


class Only(Protocol):
    """Which files a run takes. Keys are paths below the source."""

    def notes(self, key: str, exists: Callable[[str], bool]) -> tuple[str, ...]:
        """The files that annotate a video; a run takes a file that has any."""

    def mark(self, key: str, marks: Mapping[str, str]) -> str:
        """Changes when the annotation of a video changes. marks: fingerprints of all files."""


class NoSource(Exception):
    """There is nothing to ingest from."""


@dataclass(frozen=True)
class SourceFile:
    """A file to judge. Its two markers in the store say that an earlier run has judged these bytes at this address."""

    key: str  # below the source
    uri: str
    markers: str  # where the markers of the source's files are
    fingerprint: str  # includes the ground-truth file's, so a corrected truth retries the video
    truth: str | None  # key of the ground-truth file
    usually_no_video: bool  # by its suffix
    notes: tuple[str, ...] = ()  # keys of its annotations, in an import; the fingerprint follows them as well
    row: Row | None = None  # what a table beside it says about it; the fingerprint follows it as well

    @property
    def file_id(self) -> str:
        """Changes with the file's content."""
        return content_id(self.uri, self.fingerprint)

    @property
    def marker(self) -> str:
        return f"{self.markers}{self.file_id}.json"

    @property
    def ignored_marker(self) -> str:
        return f"{self.markers}{self.file_id}.ignored"


@dataclass(frozen=True)
class Listing:
    """What a source holds."""

    markers: str  # the prefix of the markers of its files: a run lists those of no other source
    files: list[SourceFile]
    skipped: int  # files skipped by their names
    denied: list[str]  # addresses of folders that we may not list
    metadata: Metadata = field(default_factory=Metadata)  # what the tables of the source say
    waiting: int = 0  # files below a table that cannot be read


def open_source(s: Services, where: str, cache: Path) -> Blobs:
    """The source, to read from. Raises NoSource for a folder that does not exist."""
    if not where.startswith("s3://") and not Path(where).is_dir():
        raise NoSource(f"{where} is a file: name a folder" if Path(where).exists() else f"no such folder: {where}")
    path = where if where.startswith("s3://") else os.path.abspath(where)  # without "..": one folder has one address
    its = s.settings.storage
    return stores.connect(path, cache=cache, endpoint_url=its.s3_endpoint, timeout_s=its.s3_timeout_s)


def has_files(s: Services, where: str) -> bool:
    """Is there any file to judge? Raises NoSource and BlobError."""
    return bool(list_files(s, open_source(s, where, s.home / "cache" / "ingest")).files)


def list_files(s: Services, source: Blobs, only: Only | None = None, settings: IngestSettings | None = None) -> Listing:
    """Everything below the source, except what the engine itself has written there. Raises NoSource and BlobError.

    settings: of the project, which say how its tables are read.
    """
    own, folders = _own_places(s, source)
    denied: list[str] = []
    entries = source.entries(closed=denied.append, avoid=folders)
    found = {key: mark for key, mark in entries if not key.startswith(own)}
    if "." in denied:
        raise NoSource(f"{source.uri}: permission denied")
    seen = {key for key in found if not _is_hidden(key)}
    told = metadata.read(source, seen, settings or s.settings.ingest, _is_called_video)
    files, skipped, waiting, markers = [], 0, 0, f"sources/{content_id(source.uri)}/"
    for key, fingerprint in found.items():
        suffix = Path(key).suffix.lower()
        if key not in seen or suffix in UNFINISHED:
            skipped += 1
            continue
        if told.waits(key) and suffix not in NO_VIDEO:
            waiting += 1
            continue
        notes = only.notes(key, found.__contains__) if only else ()
        if only is None or notes:
            truth = str(Path(key).with_suffix(TRUTH))
            beside = ([found[truth]] if truth in found else []) + ([only.mark(key, found)] if only else [])
            row = told.rows.get(key)
            files.append(
                SourceFile(
                    key,
                    _address(source, key),
                    markers,
                    " ".join([fingerprint, *beside, *([row.digest] if row else [])]),
                    truth if truth in found else None,
                    suffix in NO_VIDEO,
                    notes,
                    row,
                )
            )
    return Listing(markers, files, skipped, [_address(source, key) for key in denied], told, waiting)


def _is_hidden(key: str) -> bool:
    """Whether a file, or a folder above it below the source, is hidden: such as those of a trash or of snapshots."""
    return any(part.startswith(".") for part in key.split("/"))


def _is_called_video(key: str) -> bool:
    """Whether a file that is not hidden is named like a video: with a suffix that no other kind of file has."""
    suffix = Path(key).suffix.lower()
    return suffix not in UNFINISHED and suffix not in {"", *NO_VIDEO}


def bad_tables(source: Blobs, listing: Listing) -> list[tuple[str, str]]:
    """The address of each table with an error, and one line about it."""
    return [(_address(source, key), line) for key, line in listing.metadata.bad]


def as_utf8(text: str) -> str:
    """The text with escapes for what UTF-8 cannot encode: file names are bytes, and JSON may hold half a character."""
    return text.encode(errors="backslashreplace").decode()


def _own_places(s: Services, source: Blobs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where the engine itself writes: as prefixes of keys below the source, and as folders that no link may lead into.

    Raises NoSource for its own store or home. A home may contain the source: then links may lead into the home.
    """
    here, store, home = (_place(uri) for uri in (source.uri, s.blobs.uri, str(s.home)))
    if here.startswith(store) or here == home:
        raise NoSource(f"the engine keeps its own data in {source.uri}: name another source")
    own = [place for place in (store, home) if not here.startswith(place)]
    prefixes = tuple(place.removeprefix(here) for place in own if place.startswith(here))
    return prefixes, tuple(place for place in own if not place.startswith("s3://"))


def _place(uri: str) -> str:
    return uri.rstrip("/") + "/" if uri.startswith("s3://") else real_folder(uri)


def _address(source: Blobs, key: str) -> str:
    return as_utf8(f"{source.uri.rstrip('/')}/{key}")
