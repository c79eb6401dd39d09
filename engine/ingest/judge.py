"""Judges one file of a source: admitted, refused with a typed reason, ignored, or postponed.

The content decides, not the name. Errors of the machine (a full disk, a store that does not answer) are raised; what is
wrong with the file is a result. Knows nothing of batches and tables.
"""

from __future__ import annotations

import errno
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import Enum, auto
from pathlib import Path

from engine import attempts
from engine.ingest import admitted, overrides, pseudonyms, splits
from engine.ingest.faces import FACES, BlurConfig, FaceBlur, FaceDetector
from engine.ingest.hash_index import HashIndex
from engine.ingest.metadata import Row
from engine.ingest.near_duplicates import Alike, Looker, Match
from engine.ingest.readers import Annotation, Reader
from engine.ingest.sources import SourceFile, as_utf8
from engine.services import Services
from engine.settings import IngestSettings
from storage import log_ids
from storage.blobs.base import BlobError, BlobMissing, Blobs, BlobUnreachable, check_key
from storage.formats import sav
from storage.formats.imported import AnnotationError, Description
from storage.formats.video_metadata import AUTHOR
from storage.records import Quarantined, Refusal, Video
from storage.videos.normalise import Limits, Normalised, Pictures, normalise
from storage.videos.source_file import Refused
from storage.wording import counted


class _Changed(Exception):
    """The file changed or went away while it was judged."""


class _BadSector(BlobError):
    """The disk or the file system cannot give the file."""


class Outcome(Enum):
    """What became of a file."""

    ADMITTED = auto()
    KNOWN = auto()  # an earlier run has admitted it from the same address
    REFUSED = auto()
    IGNORED = auto()  # no video, and its suffix does not claim that it is one
    POSTPONED = auto()


@dataclass(frozen=True)
class FileResult:
    """What became of a file."""

    outcome: Outcome
    video: Video | None = None  # if it was admitted, by this run or by an earlier one
    refused: Quarantined | None = None  # if it was refused
    again: bool = False  # no marker is written: the next run judges the file again


IGNORED = FileResult(Outcome.IGNORED)
POSTPONED = FileResult(Outcome.POSTPONED, again=True)


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What the files of a source are judged with."""

    s: Services
    source: Blobs
    work: Path  # a folder for temporary files
    project: str = ""  # that the videos are admitted for
    index: HashIndex | None = None  # of the admitted videos; None: near duplicates are not looked for
    reader: Reader | None = None  # of the import that takes the files, so no model may propose for them

    @property
    def settings(self) -> IngestSettings:
        """Those of the project."""
        return self.s.settings.of_project(self.project).ingest


def judge(by: Judging, file: SourceFile, lifted: frozenset[str] = frozenset()) -> FileResult:
    """What becomes of a file. An admitted video is in the store when this returns.

    lifted: the reasons for which it is not refused, because a person has released it.
    Raises BlobUnreachable, OSError and MemoryError: errors of the machine. Raises BadDetector for faces to blur.
    """
    source = by.source
    try:
        check_key(file.key)
    except ValueError:
        return IGNORED if file.usually_no_video else _refuse(file, Refusal.FAILED, _unfit(file.key))
    if file.row and file.row.problem:
        return _refuse(file, Refusal.METADATA, f"{file.row.at}: {file.row.problem}")
    with ExitStack() as stack:
        try:
            if file.usually_no_video and not _begins_as_video(source.read(file.key, 512)):
                return IGNORED
            path = stack.enter_context(source.local(file.key))
            truth = source.read(file.truth) if file.truth else None
            reader, texts = by.reader, lambda: {key: source.read(key) for key in file.notes}
            notes = reader.open(file.key, texts) if reader else None
        except BlobMissing:
            return POSTPONED
        except BlobUnreachable:
            raise
        except BlobError as error:  # permission denied, a bad sector, a missing decryption key
            return _unreadable(file, error)
        try:
            return _admit(by, file, path, truth, notes, lifted)
        except _Changed:
            return POSTPONED
        except _BadSector as error:
            return _unreadable(file, error)
        except AnnotationError as error:
            return _refuse(file, Refusal.FAILED, str(error))
        except Refused as refused:
            if file.usually_no_video and refused.reason in (Refusal.NO_VIDEO_STREAM, Refusal.UNREADABLE):
                return IGNORED
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
        return replace(IGNORED, again=True)
    return replace(_refuse(file, Refusal.UNREADABLE, str(error)), again=True)


def _refuse(file: SourceFile, reason: Refusal, detail: str) -> FileResult:
    return FileResult(Outcome.REFUSED, refused=quarantine_record(file.uri, reason, detail))


def _admit(
    by: Judging, file: SourceFile, path: Path, truth: bytes | None, notes: Annotation | None, lifted: frozenset[str]
) -> FileResult:
    """Admits a file. Raises Refused, AnnotationError, _Changed and _BadSector, and the errors of the machine."""
    s, settings, index = by.s, by.settings, by.index
    looker, blur = Looker(), _blur(settings)
    with tempfile.TemporaryDirectory(dir=by.work) as temporary:
        target = Path(temporary) / "video.mp4"
        with _unchanged(path):
            digest = _sha256(path)
            if (first := admitted.read_record(s.blobs, digest[:16])) is not None:
                return _known(s, file, first)
            with attempts.attempt(s.blobs, "ingest", file.file_id):
                made = _normalise(path, target, settings, lifted, looker, blur)
        record = _record(file, digest, made, _sha256(target), has_truth=truth is not None)
        record = _with_row(s.blobs, record, file, settings)
        if notes is not None:
            record = _described(s.blobs, record, file, notes.describe())
            notes.masklets(record, made.source_s, "")  # refuse a malformed one now, not at its first use
        if blur is not None:
            record = _told(record, {FACES: asdict(blur.blurred)})
            record = replace(record, changes=tuple(sorted((*record.changes, *blur.blurred.changes))))
        if truth is not None:
            sav.from_sav(sav.load(truth), video=record, source_s=made.source_s)  # refuse a malformed one now, too
        looks = looker.looks()
        if index is not None:
            lifts = Refusal.NEAR_DUPLICATE in lifted
            # large videos, large tables: memory may end
            with log_ids.about(video_id=record.video_id), attempts.attempt(s.blobs, "ingest", file.file_id):
                found = index.check_in(record.video_id, looks, _alike(settings, notes is not None), keep=lifts)
            if found and not lifts:
                raise Refused(Refusal.NEAR_DUPLICATE, _how_alike(s.blobs, found))
            if found:
                record = _told(record, {splits.NEAR_DUPLICATE_OF: found.video_id})
        if admitted.write(s.blobs, record, target, made, truth, notes is not None, by.project, looks.each_second()):
            return FileResult(Outcome.ADMITTED, video=record)
    first = admitted.read_record(s.blobs, record.video_id)
    assert first is not None  # records are never deleted
    return _known(s, file, first)


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


def _described(blobs: Blobs, record: Video, file: SourceFile, told: Description) -> Video:
    """The row with what its annotation says about the video."""
    return replace(
        record,
        source_name=told.name or as_utf8(Path(file.key).stem),
        source_metadata=_joined(record.source_metadata, _kept(blobs, told.metadata)),
        split=told.split or record.split,
    )


def _kept(blobs: Blobs, metadata: str | None) -> str | None:
    """What a dataset says about a video, as this store keeps it: without the name of its author, and without the id
    that a near duplicate has in another store."""
    said = json.loads(metadata or "{}")
    stays = said.pop(splits.NEAR_DUPLICATE_OF, None) is None
    author = said.get(AUTHOR)
    if author and not pseudonyms.is_author(str(author)):
        said[AUTHOR], stays = splits.pseudonym(blobs, str(author)), False
    return metadata if stays else json.dumps(said) if said else None


def _joined(*texts: str | None) -> str | None:
    """JSON objects as one, of which the last one wins; the same text, if there is only one."""
    given = [text for text in texts if text]
    if len(given) < 2:
        return given[0] if given else None
    return json.dumps(dict(pair for text in given for pair in json.loads(text).items()))


def _with_row(blobs: Blobs, record: Video, file: SourceFile, settings: IngestSettings) -> Video:
    """The row with what a table says about the video. Raises Refused for a split that its author or place is not in."""
    if file.row is None:
        return record
    said = _said(blobs, file.row)
    group = splits.frozen(blobs, said, settings)
    if group and file.row.split not in (None, group[2]):
        column, value, split = group
        detail = f"{file.row.at}: split {file.row.split!r}, but the {column} {value!r} is in {split!r} for ever"
        raise Refused(Refusal.METADATA, detail)
    return replace(record, source_metadata=json.dumps(said) if said else None, split=file.row.split or "")


def _said(blobs: Blobs, row: Row) -> dict[str, object]:
    """The values of a row, with a pseudonym for the author."""
    said: dict[str, object] = json.loads(row.values)
    if author := said.get(AUTHOR):
        said[AUTHOR] = splits.pseudonym(blobs, str(author))
    return said


def _blur(settings: IngestSettings) -> FaceBlur | None:
    """What blurs the faces of one video; None if nobody asked for that. Raises BadDetector."""
    if not settings.blur_faces or settings.face_detector is None:
        return None
    config = BlurConfig()
    detector = FaceDetector(settings.face_detector, config.min_score)
    return FaceBlur(detector, detector.name, config)


def _told(record: Video, more: Mapping[str, object]) -> Video:
    """The row with more metadata."""
    return replace(record, source_metadata=_joined(record.source_metadata, json.dumps(more)))


def _alike(settings: IngestSettings, imported: bool) -> Alike | None:
    """What counts as a near duplicate; None: nothing, because a dataset that is imported must be complete."""
    if imported or not settings.near_duplicates:
        return None
    return Alike(max_distance=settings.near_distance, min_share=settings.near_share)


def _how_alike(blobs: Blobs, found: Match) -> str:
    """Which video is alike, where and how."""
    other = admitted.read_record(blobs, found.video_id)
    where = f"{other.source_uri} ({found.video_id})" if other else found.video_id
    mirrored = ", mirrored" if found.mirrored else ""
    share = f"{found.alike} of {counted(found.of, 'second')} are alike"
    return f"shows what {where} shows{mirrored}: {share}, from {max(0.0, found.offset_s):.1f} s of that video on"


def _known(s: Services, file: SourceFile, first: Video) -> FileResult:
    """The same bytes were admitted before: from this address, or from another one. A row that changed is reported."""
    if first.source_uri != file.uri:
        return _refuse(file, Refusal.DUPLICATE, f"the same bytes as {first.source_uri}")
    known = FileResult(Outcome.KNOWN, video=first)
    if file.row is None:
        return known
    kept = json.loads(first.source_metadata or "{}")
    late = sorted(key for key, value in _said(s.blobs, file.row).items() if str(kept.get(key)) != str(value))
    if file.row.split not in (None, first.split):
        decided = {row.split for row in s.tables.videos_by_id([first.video_id])}  # by its batch; the record is older
        late += [] if file.row.split in decided else ["split"]
    if not late:
        return known
    detail = f"{file.row.at}: it came after the video was admitted, so nothing changes: {', '.join(late)}"
    return _refuse(file, Refusal.METADATA, detail)


def _normalise(
    source: Path,
    target: Path,
    settings: IngestSettings,
    lifted: frozenset[str],
    looker: Looker,
    blur: FaceBlur | None,
) -> Normalised:
    """`normalise`; any error of libav counts as the file's fault, too. Raises Refused, OSError, MemoryError."""
    limits = Limits(
        min_s=settings.min_s,
        max_s=settings.max_s,
        min_side_px=settings.min_side_px,
        max_side_px=settings.max_side_px,
    )

    def through(pictures: Pictures) -> Pictures:
        return looker.through(blur.through(pictures) if blur else pictures)

    try:
        return normalise(source, target, limits=overrides.without(limits, lifted), through=through)
    except (Refused, OSError, MemoryError):
        raise
    except Exception as error:
        line = " ".join((str(error) or type(error).__name__).split())
        raise Refused(Refusal.FAILED, f"{source.name}: {line}") from error


@contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    """Raises _Changed, instead of any other error, if the file changes meanwhile: it is still being copied.

    Raises _BadSector.
    """

    def state() -> tuple[int, int, int] | None:
        with _reading(path), suppress(FileNotFoundError):
            found = path.stat()
            return found.st_ino, found.st_size, found.st_mtime_ns
        return None

    before = state()
    try:
        yield
    finally:
        if before is None or state() != before:
            raise _Changed


def _sha256(path: Path) -> str:
    with _reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises _BadSector for an error of this file: it must not cost the other files their run."""
    try:
        yield
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise
        raise _BadSector(f"{path}: {error.strerror or error}") from error


_SHORTAGES = {errno.ENOMEM, errno.EMFILE, errno.ENFILE}  # of memory and open files: errors of the machine
