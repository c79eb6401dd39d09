"""Ingest: the videos of a folder or a bucket are admitted as one batch; what is unfit gets a quarantine record.

Each file is judged once: a marker names its address and fingerprint, so a second run over the same source does nothing.
An error of the machine (a full disk, a store that does not answer) ends the run and marks nothing; run it again. A file
that the source cannot give is quarantined, and every run tries it again. A file that a person has released is judged
once more (`overrides.py`).
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from engine.files import alone
from engine.progress import Progress
from engine.services import Services
from engine.stages import admitted, overrides, refusals, trouble
from engine.stages.judge import FileResult, judge, quarantine_record
from engine.stages.readers import Reader
from engine.stages.sources import NoSource, SourceFile, list_files, open_source
from storage.blobs.base import Blobs, check_create_only
from storage.records import Quarantined, Refusal, Video


@dataclass(frozen=True)
class IngestReport:
    """What a run did. batch_id: None when nothing new was admitted."""

    batch_id: str | None
    admitted: int
    quarantined: int
    unchanged: int  # files that an earlier run judged with the same result
    ignored: int  # files that are no videos and do not claim to be any
    postponed: int  # files that changed or went away while they were read: the next run judges them
    changed: int = 0  # admitted videos whose picture or times were changed
    changes: Mapping[str, int] = field(default_factory=dict)  # kind of change, such as "deinterlaced" -> videos

    @property
    def found(self) -> int:
        """The number of files below the source, of any kind."""
        return self.admitted + self.quarantined + self.unchanged + self.ignored + self.postponed


def admit(
    s: Services, source: str | None = None, progress: Progress | None = None, for_import: Reader | None = None
) -> IngestReport:
    """Judges every new file below `source` (default: the setting) and commits the admitted videos as a batch.

    for_import: which files an import takes, and what is said about them. Their videos are marked as imported before
    anybody can see them, so no model proposes for them, even if the import fails.
    Raises NoSource; NotCreateOnly for a store where workers could overwrite each other; BlobError or OSError if the
    source or the store fails. Only one run at a time works on one home.
    """
    with trouble.recorded(s.blobs, trouble.NO_BATCH, "ingest"):
        return _admit(s, source, progress, for_import)


def _admit(s: Services, source: str | None, progress: Progress | None, for_import: Reader | None) -> IngestReport:
    where = source or s.settings.ingest.source
    if where is None:
        raise NoSource("no source: name a folder or s3://bucket/prefix, or set MASKLETS_INGEST__SOURCE")
    work = s.home / "cache" / "ingest"
    opened = open_source(s, where, work)
    with alone(s.home / "ingest.lock"):
        shutil.rmtree(work, ignore_errors=True)  # left by a killed run
        work.mkdir(parents=True, exist_ok=True)
        listing = list_files(s, opened, for_import)
        seen = set(s.blobs.keys(listing.markers))
        released = overrides.waiting(s.blobs)
        new = [
            file
            for file in listing.files
            if not {file.marker, file.ignored_marker} & seen or overrides.is_in(released, file.uri)
        ]
        if new:
            check_create_only(s.blobs)
        results = _judge_all(s, opened, new, work, for_import, released, progress)
        denied = [quarantine_record(uri, Refusal.UNREADABLE, "permission denied: a folder") for uri in listing.denied]
        refused = denied + [result.refused for result in results if result.refused]
        quarantined = quarantine(s, refused)
        for file, result in zip(new, results, strict=True):
            _mark(s, file, result)
            if overrides.is_in(released, file.uri) and (not result.again or result.refused):
                overrides.conclude(s.blobs, file.uri, result.video, result.refused)
        before = seen - {file.marker for file in new}
        batch_id, videos = admitted.commit(s, {file.uri for file in listing.files})
    known = sum(result.known for result in results) + len(refused) - quarantined
    return IngestReport(
        batch_id=batch_id,
        admitted=len(videos),
        quarantined=quarantined,
        unchanged=sum(file.marker in before for file in listing.files) + known,
        ignored=listing.skipped
        + sum(file.ignored_marker in seen for file in listing.files)
        + sum(result.ignored for result in results),
        postponed=sum(result.again and not result.ignored and result.refused is None for result in results),
        changed=sum(bool(video.changes) for video in videos),
        changes=dict(sorted(Counter(kind for video in videos for kind in _kinds_of_change(video)).items())),
    )


def _kinds_of_change(video: Video) -> set[str]:
    return {change.partition(",")[0] for change in video.changes}


def _judge_all(
    s: Services,
    source: Blobs,
    files: Sequence[SourceFile],
    work: Path,
    reader: Reader | None,
    released: set[str],
    progress: Progress | None,
) -> list[FileResult]:
    def judge_one(file: SourceFile) -> FileResult:
        lifted = overrides.lifted(s.blobs, file.uri) if overrides.is_in(released, file.uri) else frozenset[str]()
        return judge(s, source, file, work, reader, lifted)

    results = []
    with ThreadPoolExecutor(s.settings.ingest.workers) as pool:
        judged = pool.map(judge_one, files)
        for file, result in zip(files, judged, strict=True):
            results.append(result)
            if progress:
                progress(len(results), len(files), file.key)
    return results


def _mark(s: Services, file: SourceFile, result: FileResult) -> None:
    if not result.again:
        facts = {"uri": file.uri} | ({"video_id": result.video.video_id} if result.video else {})
        s.blobs.create(file.ignored_marker if result.ignored else file.marker, json.dumps(facts).encode())


def quarantine(s: Services, refused: Sequence[Quarantined]) -> int:
    """Commits the records that the table does not have and returns their number: a repeated run adds nothing."""
    return refusals.commit(s, refused)
