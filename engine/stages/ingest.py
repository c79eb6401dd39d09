"""Ingest: a folder or a bucket of raw videos becomes admitted videos, and everything else a quarantine record.

Each file is judged by its content, whatever its name: probed, refused with a typed reason or normalised, under an id
made from its bytes. Two kinds of name are believed: hidden files and unfinished downloads are passed over, and a file
with the suffix of what lies beside videos (text, pictures, sound) is a candidate only if it begins as a video does. A
marker a file (its address and its fingerprint) makes a second run over the same source do nothing. The videos that a
run admits are one batch, committed to the table `videos` once.

What is the machine's trouble (a full disk, a store that does not answer) ends the run and marks nothing; what is the
file's own fault never does. A file that the source does not give is quarantined, and tried again by every run.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from engine.files import alone
from engine.services import Services
from engine.stages import batches
from engine.stages.batches import BatchStage
from storage import parts
from storage.blobs import stores
from storage.blobs.base import BlobError, BlobMissing, Blobs, BlobUnreachable, check_key
from storage.formats import sav
from storage.normalise import Limits, Normalised, Refused, normalise
from storage.records import Quarantined, Refusal, Video, content_id

TRUTH = ".truth.json"  # beside clip.mp4, clip.truth.json holds its true masklets as SA-V JSON
_BESIDE = {
    ".json", ".jsonl", ".txt", ".md", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".toml", ".html", ".pdf", ".srt", ".vtt",
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".zip", ".tar", ".gz", ".py", ".sh", ".log",
    ".mp3", ".wav", ".flac", ".aac", ".ogg", ".parquet", ".npy",
}  # fmt: skip
_IMPORTED = "imported"  # beside a video's record: an import has admitted it
_UNFINISHED = {".part", ".tmp", ".crdownload"}

Progress = Callable[[int, int, str], None]  # done, of, name of what was just done
Only = Callable[[str, Collection[str]], bool]  # whether a run takes a key, given all keys of the source


class NoSource(Exception):
    """There is nothing to ingest from."""


class _Changed(Exception):
    """The file changed or went away while it was judged."""


class _BadSector(BlobError):
    """The disk does not give the file."""


@dataclass(frozen=True)
class IngestReport:
    """What a run did. batch_id: None when nothing new was admitted."""

    batch_id: str | None
    admitted: int
    quarantined: int
    unchanged: int  # files of which an earlier run has said the same
    ignored: int  # files that are no videos and do not pass for any
    postponed: int  # files that changed or went away while they were read: the next run judges them


@dataclass(frozen=True)
class _File:
    key: str
    uri: str
    fingerprint: str  # of its truth as well: mending that is another chance
    truth: str | None  # key
    beside: bool  # by its suffix it is no video

    @property
    def marker(self) -> str:
        return f"sources/{content_id(self.uri, self.fingerprint)}.json"

    @property
    def ignored_marker(self) -> str:
        return f"sources/{content_id(self.uri, self.fingerprint)}.ignored"


@dataclass(frozen=True)
class _Outcome:
    """What became of a file; with nothing set, it was admitted before under the same address."""

    video: Video | None = None
    refused: Quarantined | None = None
    ignored: bool = False
    again: bool = False  # the next run judges it again: there is no marker


def admit(
    s: Services, source: str | None = None, progress: Progress | None = None, for_import: Only | None = None
) -> IngestReport:
    """Judges every new file below `source` (the setting by default) and commits the admitted ones as a batch.

    for_import: which files an import takes. What it admits is marked as the import's before it is seen by anybody, and
    no model proposes for it, whatever becomes of the import.
    Raises NoSource, and BlobError or OSError where the source or the store fails: run it again. Only one run works at a
    time on one home.
    """
    where = source or s.settings.ingest.source
    if where is None:
        raise NoSource("no source: name a folder or s3://bucket/prefix, or set MASKLETS_INGEST__SOURCE")
    work = s.home / "cache" / "ingest"
    origin = _open_source(s, where, work)
    with alone(s.home / "ingest.lock"):
        shutil.rmtree(work, ignore_errors=True)  # what a killed run left
        work.mkdir(parents=True, exist_ok=True)
        files, passed_over, closed = _list(origin, _own(s, origin), for_import)
        seen = set(s.blobs.keys("sources/"))
        new = [file for file in files if not {file.marker, file.ignored_marker} & seen]
        outcomes: list[_Outcome] = []
        with ThreadPoolExecutor(s.settings.ingest.workers) as pool:
            judged = pool.map(lambda file: _judge(s, origin, file, work, for_import is not None), new)
            for done, (file, outcome) in enumerate(zip(new, judged, strict=True), 1):
                outcomes.append(outcome)
                if progress:
                    progress(done, len(new), file.key)
        refused = closed + [outcome.refused for outcome in outcomes if outcome.refused]
        quarantined = _commit_quarantine(s, refused)
        for file, outcome in zip(new, outcomes, strict=True):
            fact = {"uri": file.uri, "video_id": outcome.video.video_id} if outcome.video else {"uri": file.uri}
            if not outcome.again:
                s.blobs.create(file.ignored_marker if outcome.ignored else file.marker, json.dumps(fact).encode())
        batch_id, admitted = _commit(s, {file.uri for file in files})
    known = sum(outcome == _Outcome() for outcome in outcomes) + len(refused) - quarantined
    return IngestReport(
        batch_id=batch_id,
        admitted=admitted,
        quarantined=quarantined,
        unchanged=sum(file.marker in seen for file in files) + known,
        ignored=passed_over + sum(file.ignored_marker in seen for file in files) + sum(o.ignored for o in outcomes),
        postponed=sum(o.again and not o.ignored and o.refused is None for o in outcomes),
    )


def look(s: Services, source: str) -> bool:
    """Whether there is a file to judge. Raises NoSource, BlobError."""
    origin = _open_source(s, source, s.home / "cache" / "ingest")
    return bool(_list(origin, _own(s, origin), None)[0])


def _open_source(s: Services, where: str, cache: Path) -> Blobs:
    if not where.startswith("s3://") and not Path(where).is_dir():
        raise NoSource(f"no such folder: {where}")
    path = where if where.startswith("s3://") else os.path.abspath(where)  # one folder, one address: no ".." in it
    return stores.connect(path, cache=cache, endpoint_url=s.settings.storage.s3_endpoint)


def _own(s: Services, origin: Blobs) -> tuple[str, ...]:
    """Where below the source the engine itself writes, as prefixes of keys. Raises NoSource for its own store."""
    here, store, home = (_place(uri) for uri in (origin.uri, s.blobs.uri, str(s.home)))
    if here.startswith(store) or here == home:
        raise NoSource(f"the engine keeps its own data in {origin.uri}: name another source")
    return tuple(own.removeprefix(here) for own in (store, home) if own.startswith(here))


def _place(uri: str) -> str:
    return (uri if uri.startswith("s3://") else str(Path(uri).resolve())).rstrip("/") + "/"


def _list(origin: Blobs, own: tuple[str, ...], only: Only | None) -> tuple[list[_File], int, list[Quarantined]]:
    """The files to judge, how many are passed over by their names, and the folders that nobody lets us look into."""
    closed: list[str] = []
    entries = origin.entries(closed=closed.append)
    found = {key: fingerprint for key, fingerprint in entries if not key.startswith(own)}
    files, passed_over = [], 0
    for key, fingerprint in found.items():
        name, suffix = key.rsplit("/", 1)[-1], Path(key).suffix.lower()
        if name.startswith(".") or suffix in _UNFINISHED:
            passed_over += 1
        elif only is None or only(key, found.keys()):
            truth = str(Path(key).with_suffix(TRUTH))
            mark = f"{fingerprint} {found[truth]}" if truth in found else fingerprint
            uri = _uri(origin, key)
            files.append(_File(key, uri, mark, truth if truth in found else None, suffix in _BESIDE))
    if "." in closed:
        raise NoSource(f"{origin.uri}: permission denied")
    refused = [_quarantined(_uri(origin, key), Refusal.UNREADABLE, "permission denied: a folder") for key in closed]
    return files, passed_over, refused


def _uri(origin: Blobs, key: str) -> str:
    return _utf8(f"{origin.uri.rstrip('/')}/{key}")


def _judge(s: Services, origin: Blobs, file: _File, work: Path, imported: bool) -> _Outcome:
    """What becomes of a file. Raises what is the machine's trouble and not the file's."""
    try:
        check_key(file.key)
    except ValueError as error:
        return _Outcome(ignored=True) if file.beside else _refused(file, Refusal.FAILED, str(error))
    with ExitStack() as stack:
        try:
            if file.beside and not _begins_as_video(origin.read(file.key, 512)):
                return _Outcome(ignored=True)
            path = stack.enter_context(origin.local(file.key))
            truth = origin.read(file.truth) if file.truth else None
        except BlobMissing:
            return _Outcome(again=True)
        except BlobUnreachable:
            raise
        except BlobError as error:  # denied, a bad sector, a key that decrypts it no more
            return _not_given(file, error)
        try:
            return _admit(s, file, path, truth, work, imported)
        except _Changed:
            return _Outcome(again=True)
        except _BadSector as error:
            return _not_given(file, error)
        except sav.SavError as error:
            return _refused(file, Refusal.FAILED, str(error))
        except Refused as refused:
            if file.beside and refused.reason in (Refusal.NO_VIDEO_STREAM, Refusal.UNREADABLE):
                return _Outcome(ignored=True)
            return _refused(file, refused.reason, refused.detail)


def _begins_as_video(head: bytes) -> bool:
    """Whether the first bytes are those of a container of videos; text, pictures and most sound begin otherwise.

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


def _not_given(file: _File, error: BlobError) -> _Outcome:
    """Without a marker: what is mended, or opened to us, later changes no fingerprint."""
    if file.beside:
        return _Outcome(ignored=True, again=True)
    return replace(_refused(file, Refusal.UNREADABLE, str(error)), again=True)


def _refused(file: _File, reason: Refusal, detail: str) -> _Outcome:
    return _Outcome(refused=_quarantined(file.uri, reason, detail))


def _quarantined(uri: str, reason: Refusal, detail: str) -> Quarantined:
    line = _utf8(" ".join(detail.split()))
    return Quarantined(stage="ingest", subject=uri, reason=reason.value, detail=line, batch_id="")


def _utf8(text: str) -> str:
    """The text with escapes for what UTF-8 cannot say: names on disk are bytes, and JSON may hold half a character."""
    return text.encode(errors="backslashreplace").decode()


def _admit(s: Services, file: _File, path: Path, truth: bytes | None, work: Path, imported: bool) -> _Outcome:
    """Admits a file. Raises Refused, SavError and _Changed, and whatever the machine or the store is troubled by."""
    limits = s.settings.ingest
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        target = Path(temporary) / "video.mp4"
        with _steady(path):
            digest = _sha256(path)
            known = _record(s.blobs, digest[:16])
            if known is None:
                made = _normalise(
                    path,
                    target,
                    Limits(
                        min_s=limits.min_s,
                        max_s=limits.max_s,
                        min_side_px=limits.min_side_px,
                        max_side_px=limits.max_side_px,
                    ),
                )
        if known is not None:
            return _known(file, known)
        video_id = digest[:16]
        folder = f"videos/{video_id}"
        record = Video(
            video_id=video_id,
            source_uri=file.uri,
            source_sha256=digest,
            video_key=f"{folder}/video.mp4",
            video_sha256=_sha256(target),
            frames_key=f"{folder}/frames.json",
            height=made.height,
            width=made.width,
            frame_count=made.frame_count,
            duration_s=made.duration_s,
            source_fps=made.source_fps,
            variable_rate=made.variable_rate,
            rotation=made.rotation,
            split="",
            batch_id="",
            truth_key=f"{folder}/truth.json" if truth is not None else None,
        )
        if truth is not None:
            sav.parse(truth, video=record)  # refuse a truth that cannot be read now, not in the middle
            s.blobs.write(f"{folder}/truth.json", truth)
        s.blobs.write(f"{folder}/video.mp4", target)
        s.blobs.write(f"{folder}/frames.json", json.dumps({"source_s": made.timestamps}).encode())
    if imported:
        s.blobs.create(f"{folder}/{_IMPORTED}", b"")
    if s.blobs.create(f"{folder}/record.json", json.dumps(asdict(record)).encode()):
        return _Outcome(video=record)
    first = _record(s.blobs, video_id)
    assert first is not None  # records are never deleted
    return _known(file, first)


def _known(file: _File, record: Video) -> _Outcome:
    if record.source_uri == file.uri:
        return _Outcome()
    return _refused(file, Refusal.DUPLICATE, f"the same bytes as {record.source_uri}")


def _normalise(source: Path, target: Path, limits: Limits) -> Normalised:
    """`normalise`, where what libav stumbles over is the file's fault as well. Raises Refused."""
    try:
        return normalise(source, target, limits=limits)
    except (Refused, OSError, MemoryError):
        raise
    except Exception as error:
        raise Refused(Refusal.FAILED, f"{source.name}: {str(error) or type(error).__name__}") from error


@contextmanager
def _steady(path: Path) -> Iterator[None]:
    """Raises _Changed, in place of any error, if the file is not what it was: somebody is still copying it."""

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


def _record(blobs: Blobs, video_id: str) -> Video | None:
    try:
        return Video(**json.loads(blobs.read(f"videos/{video_id}/record.json")))
    except BlobMissing:
        return None


def _commit_quarantine(s: Services, refused: Sequence[Quarantined]) -> int:
    """Commits the refusals that are not in the table, and says how many: a run that is repeated adds nothing."""
    if not refused:
        return 0
    said = {(q.subject, q.reason, q.detail) for q in s.tables.quarantine(where="stage == 'ingest'")}
    new = [q for q in refused if (q.subject, q.reason, q.detail) not in said]
    if new:
        batch_id = content_id("quarantine", *sorted(f"{q.subject} {q.reason} {q.detail}" for q in new))
        rows = [replace(q, batch_id=batch_id) for q in new]
        parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id="ingest", rows=rows)
        parts.commit_batch(s.blobs, s.tables, "quarantine", batch_id)
    return len(new)


def _commit(s: Services, uris: set[str]) -> tuple[str | None, int]:
    """Commits every admitted video that no table has yet; repairs a batch whose mark was lost.

    The videos from `uris` are one batch, and those that a run over another source left when it died are another, and an
    import's are apart: what is done with a batch as a whole is done with its own videos. Returns the id of the first
    (of another one where there are none), and the number of videos.
    """
    keys = [key.split("/") for key in s.blobs.keys("videos/")]
    imported = {key[1] for key in keys if key[-1] == _IMPORTED}
    table = s.tables.scan("videos", columns=["video_id", "batch_id", "split"])
    batch_of = dict(zip(table["video_id"].to_pylist(), table["batch_id"].to_pylist(), strict=True))
    marked = batches.reached(s.blobs)
    for batch_id in sorted(set(batch_of.values()) - set(marked)):
        videos = sorted(v for v, b in batch_of.items() if b == batch_id)
        _mark(s, batch_id, videos, imported.issuperset(videos))
    splits = table["split"].to_pylist()
    waiting = sorted(key[1] for key in keys if key[-1] == "record.json" and key[1] not in batch_of)
    records = [record for video_id in waiting if (record := _record(s.blobs, video_id)) is not None]
    committed = None
    for kind in itertools.product((False, True), (False, True)):
        group = [r for r in records if (r.source_uri in uris, r.video_id in imported) == kind]
        if group:
            committed = _commit_batch(s, group, splits, imported=kind[1])
    return committed, len(records)


def _commit_batch(s: Services, records: Sequence[Video], splits: list[str], imported: bool) -> str:
    """Commits videos as a batch, and returns its id. splits: of the videos before; these are appended."""
    video_ids = [record.video_id for record in records]
    batch_id = content_id("batch", *video_ids)
    held_out = _held_out(video_ids, splits, s.settings.ingest.held_out_share)
    for record in records:
        row = replace(record, batch_id=batch_id, split="val" if record.video_id in held_out else "train")
        parts.write_part(s.blobs, kind="videos", batch_id=batch_id, video_id=record.video_id, rows=[row])
        splits.append(row.split)
    parts.commit_batch(s.blobs, s.tables, "videos", batch_id)
    _mark(s, batch_id, video_ids, imported)
    return batch_id


def _mark(s: Services, batch_id: str, video_ids: Sequence[str], imported: bool) -> None:
    facts = {"videos": video_ids} | ({"imported": True} if imported else {})
    batches.mark(s.blobs, batch_id, BatchStage.INGESTED, facts)


def _held_out(new: Sequence[str], splits: Sequence[str], share: float) -> set[str]:
    """Which of the new videos are held out, so that the share holds over all; those before keep their side.

    The choice follows from the ids alone, which follow from the bytes: it cannot favour anything.
    """
    wanted = math.floor(share * (len(new) + len(splits)) + 0.5) - sum(split == "val" for split in splits)
    by_hash = sorted(new, key=lambda video_id: content_id("split", video_id))
    return set(by_hash[: max(0, wanted)])


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if error.errno == errno.EIO:
            raise _BadSector(f"{path}: {error.strerror}") from error
        raise
