"""Ingest: a folder or a bucket of raw videos becomes admitted videos, and everything else a quarantine record.

Each file is judged by its content, whatever its name: probed, refused with a typed reason or normalised, under an id
made from its bytes. A marker a file (its address and its fingerprint) makes a second run over the same source do
nothing. The videos that a run admits are one batch, committed to the table `videos` once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from engine import batches
from engine.batches import Stage
from engine.services import Services
from storage import blobs as blobs_module
from storage import masklets, video
from storage.blobs import BlobMissing, Blobs
from storage.formats import sav
from storage.records import Quarantined, Refusal, Video, content_id

TRUTH = ".truth.json"  # beside clip.mp4, clip.truth.json holds its true masklets as SA-V JSON
_NOT_MEDIA = {
    ".json", ".jsonl", ".txt", ".md", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".toml", ".html", ".pdf", ".srt", ".vtt",
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".zip", ".tar", ".gz", ".py", ".sh", ".log",
    ".part", ".tmp", ".crdownload", ".mp3", ".wav", ".flac", ".aac", ".ogg", ".parquet", ".npy",
}  # fmt: skip

Progress = Callable[[int, int, str], None]  # done, of, name of what was just done


class NoSource(Exception):
    """There is nothing to ingest from."""


@dataclass(frozen=True)
class IngestReport:
    """What a run did. batch_id: None when nothing new was admitted."""

    batch_id: str | None
    admitted: int
    quarantined: int
    unchanged: int  # files that an earlier run has judged
    ignored: int  # files that are not media by their suffix


@dataclass(frozen=True)
class _File:
    key: str
    uri: str
    fingerprint: str

    @property
    def marker(self) -> str:
        return f"sources/{content_id(self.uri, self.fingerprint)}.json"


def run(s: Services, source: str | None = None, progress: Progress | None = None) -> IngestReport:
    """Judges every new file below `source` (the setting by default) and commits the admitted ones as a batch.

    Raises NoSource, and BlobError where the source cannot be read. Only one run works at a time on one home.
    """
    where = source or s.settings.ingest.source
    if where is None:
        raise NoSource("no source: name a folder or s3://bucket/prefix, or set MASKLETS_INGEST__SOURCE")
    origin = _open_source(s, where)
    with _alone(s.home / "ingest.lock"):
        files, ignored = _list(origin)
        if not files and not ignored and not where.startswith("s3://") and not Path(where).is_dir():
            raise NoSource(f"no such folder: {where}")
        seen = set(s.blobs.keys("sources/"))
        new = [file for file in files if file.marker not in seen]
        names = {file.key for file in files} | set(ignored)
        outcomes: list[Video | Quarantined | None] = []
        with ThreadPoolExecutor(s.settings.ingest.workers) as pool:
            judged = pool.map(lambda file: _judge(s, origin, file, names), new)
            for done, (file, outcome) in enumerate(zip(new, judged, strict=True), 1):
                outcomes.append(outcome)
                if progress:
                    progress(done, len(new), file.key)
        refused = [q for q in outcomes if isinstance(q, Quarantined)]
        _commit_quarantine(s, refused)
        for file, outcome in zip(new, outcomes, strict=True):
            fact = {"uri": file.uri, "video_id": outcome.video_id} if isinstance(outcome, Video) else {"uri": file.uri}
            s.blobs.create(file.marker, json.dumps(fact).encode())
        batch_id, admitted = _commit(s)
    return IngestReport(
        batch_id=batch_id,
        admitted=admitted,
        quarantined=len(refused),
        unchanged=len(files) - len(new) + sum(outcome is None for outcome in outcomes),
        ignored=len(ignored),
    )


def _open_source(s: Services, where: str) -> Blobs:
    if not where.startswith("s3://") and not Path(where).is_dir():
        raise NoSource(f"no such folder: {where}")
    path = where if where.startswith("s3://") else str(Path(where).absolute())
    return blobs_module.connect(path, cache=s.home / "cache" / "sources", endpoint_url=s.settings.storage.s3_endpoint)


def _list(origin: Blobs) -> tuple[list[_File], list[str]]:
    files, ignored = [], []
    for key in origin.keys():
        name = key.rsplit("/", 1)[-1]
        if name.startswith(".") or Path(name).suffix.lower() in _NOT_MEDIA:
            ignored.append(key)
        else:
            files.append(_File(key, origin.uri_of(key), origin.fingerprint(key)))
    return files, ignored


def _judge(s: Services, origin: Blobs, file: _File, names: set[str]) -> Video | Quarantined | None:
    """Admits a file, or says why not; None if it was admitted before under the same address."""
    try:
        return _admit(s, origin, file, names)
    except video.Refused as refused:
        return _quarantined(file, refused.reason, refused.detail)
    except BlobMissing:
        return _quarantined(file, Refusal.UNREADABLE, "it went away while it was read")
    except (sav.SavError, OSError, ValueError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        return _quarantined(file, Refusal.FAILED, line)


def _quarantined(file: _File, reason: Refusal, detail: str) -> Quarantined:
    return Quarantined(stage="ingest", subject=file.uri, reason=reason.value, detail=detail, batch_id="")


def _admit(s: Services, origin: Blobs, file: _File, names: set[str]) -> Video | Quarantined | None:
    path = origin.fetch(file.key)
    digest = _sha256(path)
    video_id = digest[:16]
    folder = f"videos/{video_id}"
    known = _record(s.blobs, video_id)
    if known is not None:
        if known.source_uri == file.uri:
            return None
        return _quarantined(file, Refusal.DUPLICATE, f"the same bytes as {known.source_uri}")
    limits = s.settings.ingest
    with tempfile.TemporaryDirectory(dir=s.home, prefix="ingest-") as temporary:
        target = Path(temporary) / "video.mp4"
        made = video.normalise(
            path,
            target,
            limits=video.Limits(
                min_s=limits.min_s,
                max_s=limits.max_s,
                min_side_px=limits.min_side_px,
                max_side_px=limits.max_side_px,
            ),
        )
        s.blobs.write(f"{folder}/video.mp4", target)
        s.blobs.write(f"{folder}/frames.json", json.dumps({"source_s": made.timestamps}).encode())
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
            truth_key=None,
        )
    truth = str(Path(file.key).with_suffix(TRUTH))
    if truth in names:
        text = origin.read(truth)
        sav.from_sav(json.loads(text), video=record)  # refuse a truth that cannot be read now, not in the middle
        s.blobs.write(f"{folder}/truth.json", text)
        record = replace(record, truth_key=f"{folder}/truth.json")
    if s.blobs.create(f"{folder}/record.json", json.dumps(asdict(record)).encode()):
        return record
    first = _record(s.blobs, video_id)
    assert first is not None  # records are never deleted
    return _quarantined(file, Refusal.DUPLICATE, f"the same bytes as {first.source_uri}")


def _record(blobs: Blobs, video_id: str) -> Video | None:
    try:
        return Video(**json.loads(blobs.read(f"videos/{video_id}/record.json")))
    except BlobMissing:
        return None


def _commit_quarantine(s: Services, refused: Sequence[Quarantined]) -> None:
    """Commits the refusals of a run under an id made of them: a run that is repeated adds nothing."""
    if not refused:
        return
    batch_id = content_id("quarantine", *sorted(f"{q.subject} {q.reason} {q.detail}" for q in refused))
    rows = [replace(q, batch_id=batch_id) for q in refused]
    masklets.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id="ingest", rows=rows)
    masklets.commit_batch(s.blobs, s.tables, "quarantine", batch_id)


def _commit(s: Services) -> tuple[str | None, int]:
    """Commits every admitted video that no table has yet, as one batch; repairs a batch whose mark was lost."""
    table = s.tables.scan("videos", columns=["video_id", "batch_id", "split"])
    batch_of = dict(zip(table["video_id"].to_pylist(), table["batch_id"].to_pylist(), strict=True))
    marked = batches.reached(s.blobs)
    for batch_id in sorted(set(batch_of.values()) - set(marked)):
        videos = sorted(v for v, b in batch_of.items() if b == batch_id)
        batches.mark(s.blobs, batch_id, Stage.INGESTED, {"videos": videos})
    keys = (key.split("/") for key in s.blobs.keys("videos/"))
    waiting = sorted(key[1] for key in keys if key[-1] == "record.json" and key[1] not in batch_of)
    if not waiting:
        return None, 0
    batch_id = content_id("batch", *waiting)
    held_out = _held_out(waiting, table["split"].to_pylist(), s.settings.ingest.held_out_share)
    for video_id in waiting:
        record = _record(s.blobs, video_id)
        assert record is not None
        row = replace(record, batch_id=batch_id, split="val" if video_id in held_out else "train")
        masklets.write_part(s.blobs, kind="videos", batch_id=batch_id, video_id=video_id, rows=[row])
    masklets.commit_batch(s.blobs, s.tables, "videos", batch_id)
    batches.mark(s.blobs, batch_id, Stage.INGESTED, {"videos": waiting})
    return batch_id, len(waiting)


def _held_out(new: Sequence[str], splits: Sequence[str], share: float) -> set[str]:
    """Which of the new videos are held out, so that the share holds over all; those before keep their side.

    The choice follows from the ids alone, which follow from the bytes: it cannot favour anything.
    """
    wanted = math.floor(share * (len(new) + len(splits)) + 0.5) - sum(split == "val" for split in splits)
    by_hash = sorted(new, key=lambda video_id: content_id("split", video_id))
    return set(by_hash[: max(0, wanted)])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One ingest at a time on one home; the lock goes with the process, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
