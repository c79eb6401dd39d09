"""Judges one file of a source: admitted, refused with a typed reason, ignored, or postponed.

The content decides, not the name. Errors of the machine (a full disk, a store that does not answer) are raised; what is
wrong with the file is a result. Knows nothing of batches and tables.
"""

from __future__ import annotations

import errno
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from engine.services import Services
from engine.settings import IngestSettings
from engine.stages import admitted, attempts, overrides
from engine.stages.readers import Annotation, Reader
from engine.stages.sources import SourceFile, as_utf8
from storage.blobs.base import BlobError, BlobMissing, Blobs, BlobUnreachable, check_key
from storage.formats import sav
from storage.formats.imported import AnnotationError, Description
from storage.normalise import Limits, Normalised, normalise
from storage.records import Quarantined, Refusal, Video
from storage.source_file import Refused


class _Changed(Exception):
    """The file changed or went away while it was judged."""


class _BadSector(BlobError):
    """The disk cannot read the file."""


@dataclass(frozen=True)
class FileResult:
    """What became of a file. With nothing set, an earlier run has admitted it from the same address."""

    video: Video | None = None
    refused: Quarantined | None = None
    ignored: bool = False  # no video, and its suffix does not claim that it is one
    again: bool = False  # no marker is written: the next run judges the file again

    @property
    def known(self) -> bool:
        return self == FileResult()


def judge(
    s: Services,
    source: Blobs,
    file: SourceFile,
    work: Path,
    reader: Reader | None,
    lifted: frozenset[str] = frozenset(),
    project: str = "",
) -> FileResult:
    """What becomes of a file. An admitted video is in the store when this returns.

    work: a folder for temporary files. reader: of the import that takes the file, so no model may propose for it.
    lifted: the reasons for which it is not refused, because a person has released it.
    project: that the video is admitted for.
    Raises BlobUnreachable, OSError and MemoryError: errors of the machine.
    """
    try:
        check_key(file.key)
    except ValueError:
        return FileResult(ignored=True) if file.usually_no_video else _refuse(file, Refusal.FAILED, _unfit(file.key))
    with ExitStack() as stack:
        try:
            if file.usually_no_video and not _begins_as_video(source.read(file.key, 512)):
                return FileResult(ignored=True)
            path = stack.enter_context(source.local(file.key))
            truth = source.read(file.truth) if file.truth else None
            note = reader.open(file.key, lambda: {key: source.read(key) for key in file.notes}) if reader else None
        except BlobMissing:
            return FileResult(again=True)
        except BlobUnreachable:
            raise
        except BlobError as error:  # permission denied, a bad sector, a missing decryption key
            return _unreadable(file, error)
        try:
            return _admit(s, file, path, truth, note, work, lifted, project)
        except _Changed:
            return FileResult(again=True)
        except _BadSector as error:
            return _unreadable(file, error)
        except AnnotationError as error:
            return _refuse(file, Refusal.FAILED, str(error))
        except Refused as refused:
            if file.usually_no_video and refused.reason in (Refusal.NO_VIDEO_STREAM, Refusal.UNREADABLE):
                return FileResult(ignored=True)
            return _refuse(file, refused.reason, refused.detail)


def quarantine_record(uri: str, reason: Refusal, detail: str) -> Quarantined:
    """The record of a refusal, its detail in one line; the batch is filled in when it is committed."""
    line = as_utf8(" ".join(detail.split()))
    return Quarantined(stage="ingest", subject=uri, reason=reason.value, detail=line, batch_id="")


def _unfit(key: str) -> str:
    """Why the store cannot hold a file of this name, for the person who can rename it."""
    what = "a backslash" if "\\" in key else "a line end, a control character or bytes that are not UTF-8"
    return f"{key.rsplit('/', 1)[-1]!r}: its name or its folder's has {what}: rename it"


def _begins_as_video(head: bytes) -> bool:
    """Do the first bytes belong to a video container? Text, pictures and most sound files begin otherwise.

    Source: the signatures in FFmpeg's demuxers (libavformat).
    """
    return (
        head[4:8] in (b"moov", b"mdat", b"wide", b"skip", b"free")
        or (head[4:8] == b"ftyp" and head[8:12] not in (b"heic", b"heix", b"mif1", b"avif"))  # those are pictures
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head[:377:188] == b"GGG"  # MPEG-TS
        or head.startswith((b"\x1aE\xdf\xa3", b"OggS", b"FLV\x01", b"0&\xb2u\x8ef\xcf\x11", b"\x06\x0e+4", b".RMF"))
        or head.startswith((b"\0\0\1\xba", b"\0\0\1\xb3", b"DKIF"))
    )


def _unreadable(file: SourceFile, error: BlobError) -> FileResult:
    """A file that the source cannot give. Repairing it changes no fingerprint, so every run tries it again."""
    if file.usually_no_video:
        return FileResult(ignored=True, again=True)
    return replace(_refuse(file, Refusal.UNREADABLE, str(error)), again=True)


def _refuse(file: SourceFile, reason: Refusal, detail: str) -> FileResult:
    return FileResult(refused=quarantine_record(file.uri, reason, detail))


def _admit(
    s: Services,
    file: SourceFile,
    path: Path,
    truth: bytes | None,
    note: Annotation | None,
    work: Path,
    lifted: frozenset[str],
    project: str,
) -> FileResult:
    """Admits a file. Raises Refused, AnnotationError, _Changed and _BadSector, and the errors of the machine."""
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        target = Path(temporary) / "video.mp4"
        with _unchanged(path):
            digest = _sha256(path)
            if (first := admitted.read_record(s.blobs, digest[:16])) is not None:
                return _known(file, first)
            with attempts.attempt(s.blobs, "ingest", file.file_id):
                made = _normalise(path, target, s.settings.of_project(project).ingest, lifted)
        record = _record(file, digest, made, _sha256(target), has_truth=truth is not None)
        if note is not None:
            record = _described(record, file, note.describe())
            note.masklets(record, made.source_s, "")  # refuse a malformed one now, not at its first use
        if truth is not None:
            sav.from_sav(sav.load(truth), video=record, source_s=made.source_s)  # as well
        if admitted.write(s.blobs, record, target, made, truth, note is not None, project):
            return FileResult(video=record)
    first = admitted.read_record(s.blobs, record.video_id)
    assert first is not None  # records are never deleted
    return _known(file, first)


def _record(file: SourceFile, digest: str, made: Normalised, video_sha256: str, has_truth: bool) -> Video:
    """The row of a new video. Its id is the start of the source's sha256; batch and split are set later."""
    video_id = digest[:16]
    here = admitted.folder(video_id)
    return Video(
        video_id=video_id,
        source_uri=file.uri,
        source_sha256=digest,
        video_key=f"{here}/video.mp4",
        video_sha256=video_sha256,
        frames_key=f"{here}/frames.json",
        height=made.height,
        width=made.width,
        frame_count=made.frame_count,
        duration_s=made.duration_s,
        source_fps=made.source_fps,
        variable_rate=made.variable_rate,
        rotation=made.rotation,
        changes=made.changes,
        split="",
        batch_id="",
        truth_key=f"{here}/truth.json" if has_truth else None,
    )


def _described(record: Video, file: SourceFile, told: Description) -> Video:
    """The row with what its annotation says about the video."""
    return replace(
        record,
        source_name=told.name or as_utf8(Path(file.key).stem),
        source_metadata=told.metadata,
        split=told.split or "",
    )


def _known(file: SourceFile, first: Video) -> FileResult:
    if first.source_uri == file.uri:
        return FileResult()
    return _refuse(file, Refusal.DUPLICATE, f"the same bytes as {first.source_uri}")


def _normalise(source: Path, target: Path, settings: IngestSettings, lifted: frozenset[str]) -> Normalised:
    """`normalise`; any error of libav counts as the file's fault, too. Raises Refused, OSError, MemoryError."""
    limits = Limits(
        min_s=settings.min_s,
        max_s=settings.max_s,
        min_side_px=settings.min_side_px,
        max_side_px=settings.max_side_px,
    )
    try:
        return normalise(source, target, limits=overrides.without(limits, lifted))
    except (Refused, OSError, MemoryError):
        raise
    except Exception as error:
        line = " ".join((str(error) or type(error).__name__).split())
        raise Refused(Refusal.FAILED, f"{source.name}: {line}") from error


@contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    """Raises _Changed, instead of any other error, if the file changes meanwhile: it is still being copied."""

    def state() -> tuple[int, int, int] | None:
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    before = state()
    try:
        yield
    finally:
        if before is None or state() != before:
            raise _Changed


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if error.errno == errno.EIO:
            raise _BadSector(f"{path}: {error.strerror}") from error
        raise
