"""Ingest: the videos of a folder or a bucket are admitted in batches; what is unfit gets a quarantine record.

A source is cut into pieces, and the videos of a piece become a batch. `admit` does all pieces in this process; `plan`
and `admit_piece` are for workers on any machines. Each file is judged once: a marker names its address and fingerprint,
so a second run over the same source does nothing. Machines that ingest the same source at once may judge a file twice,
but admit it once.

An error of the machine (a full disk, a store that does not answer) ends the run; what is judged is kept, and the next
run judges the rest. A file that the source cannot give is quarantined, and every run tries it again. A file that a
person has released is judged once more (`overrides.py`).
"""

from __future__ import annotations

import itertools
import json
import logging
import platform
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from annotation_queue.pipeline_records import QuarantineAct
from engine import attempts, trouble
from engine.files import alone
from engine.ingest import admitted, overrides, refusals
from engine.ingest.hash_index import HashIndex
from engine.ingest.judge import POSTPONED, FileResult, Judging, Outcome, judge, quarantine_record
from engine.ingest.metadata import Row
from engine.ingest.readers import Reader
from engine.ingest.sources import NoSource, SourceFile, bad_tables, list_files, open_source
from engine.progress import Progress
from engine.services import Services
from storage import log_ids
from storage.blobs.base import BlobDamaged, BlobMissing, Blobs, check_create_only, read_json
from storage.lease import InUse
from storage.records import Quarantined, Refusal, Video, content_id
from storage.wording import counted

MAX_PIECES = 500  # of one plan: Airflow maps a task to at most 1,024; the next run plans the rest
_OTHERS = 10  # files that are usually no videos, for each video of a piece
_READERS = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestReport:
    """What a run did, over all its pieces."""

    batch_ids: tuple[str, ...] = ()  # the new batches
    admitted: int = 0
    quarantined: int = 0
    unchanged: int = 0  # files that an earlier run judged with the same result
    ignored: int = 0  # files that are no videos and do not claim to be any
    # files that changed while they were read, may be read elsewhere now, or are below a table that cannot be read: the
    # next run judges them
    postponed: int = 0
    video_s: float = 0.0  # length of the admitted videos
    cpu_s: float = 0.0  # of this process, for all files, also for those that were refused
    notes: tuple[str, ...] = ()  # lines about rows of metadata without a video, and videos without a row
    changed: int = 0  # admitted videos whose picture or times were changed
    changes: Mapping[str, int] = field(default_factory=dict)  # kind of change, such as "deinterlaced" -> videos

    @property
    def batch_id(self) -> str | None:
        """The last of the new batches; None when nothing new was admitted."""
        return self.batch_ids[-1] if self.batch_ids else None

    @property
    def hours_a_day_a_core(self) -> float | None:
        """Hours of video that one core admits in a day; None if nothing was admitted."""
        return 24 * self.video_s / self.cpu_s if self.video_s and self.cpu_s else None

    @property
    def found(self) -> int:
        """The number of files below the source, of any kind."""
        return self.admitted + self.quarantined + self.unchanged + self.ignored + self.postponed


def admit(
    s: Services,
    source: str | None = None,
    progress: Progress | None = None,
    for_import: Reader | None = None,
    project: str = "",
) -> IngestReport:
    """Judges every new file below `source` (default: the setting) and commits the admitted videos, batch by batch.

    project: that the batch belongs to; "": the unnamed one. Its limits of videos hold, and its source is the default.
    for_import: which files an import takes, and what is said about them. Their videos are marked as imported before
    anybody can see them, so no model proposes for them, even if the import fails.
    Raises NoSource; NoSuchProject; NotCreateOnly for a store where workers could overwrite each other; BlobError or
    OSError if the source or the store fails. Of one home, only one such run works at a time.
    """
    with trouble.recorded(s.blobs, *_subject(project)), alone(s.home / "ingest.lock"), _workplace(s) as work:
        opened = open_source(s, _chosen(s, source, project), work)
        new, report, left = _begin(s, opened, for_import, project)
        by = Judging(
            s=s,
            source=opened,
            work=work,
            project=project,
            index=HashIndex(s.blobs, admitted.WAITING),
            reader=for_import,
        )
        reports, judged = [report], 0
        since = time.process_time()

        def advance(file: SourceFile) -> None:
            nonlocal judged
            judged += 1
            if progress:
                progress(judged, len(new), file.key)

        for piece in _rotated(_pieces(new, s.settings.of_project(project).ingest.batch_videos), s.home):
            reports.append(_judge_piece(by, piece, advance, left))
        reports.append(IngestReport(cpu_s=time.process_time() - since))
    return _total(reports)


def has_source(s: Services) -> bool:
    """Whether any project has a source."""
    return bool(_with_source(s))


def plan(s: Services, source: str | None = None, project: str | None = None) -> list[str]:
    """Lists the source of each project and stores the new files in pieces, one for each worker. Returns their ids.

    source: only this one. project: that its videos belong to ("" and None: the unnamed one); without a source, only
    the source of this project. Projects take turns in the order of pieces, so none waits for a project with many files.
    Pieces of an earlier plan that nobody has completed are planned again. Raises as `admit` does; a source that fails
    only if no other has new files, because these can be admitted: the failure is recorded.
    """
    projects = _with_source(s) if source is None and project is None else [project or ""]
    planned, errors = list[list[tuple[str, bytes]]](), list[Exception]()
    with _workplace(s) as work:
        for name in projects or [""]:
            try:
                with trouble.recorded(s.blobs, *_subject(name)):
                    planned.append(_plan(s, source, name, work))
            except Exception as error:
                errors.append(error)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*planned))
    pieces = dict(itertools.islice((piece for piece in turns if piece is not None), MAX_PIECES))
    if errors and not pieces:
        raise errors[0]
    left = list(s.blobs.keys("pieces/"))
    _forget_failures(s, projects or [""], left)
    for key in left:
        s.blobs.delete(key)
    for piece_id, content in pieces.items():
        s.blobs.write(_piece_key(piece_id), content)
    return list(pieces)


def _plan(s: Services, source: str | None, project: str, work: Path) -> list[tuple[str, bytes]]:
    """The first pieces of one source: the id and the content of each."""
    opened = open_source(s, _chosen(s, source, project), work)
    new, report, _ = _begin(s, opened, None, project)
    for note in report.notes:
        _log.warning("%s", note)
    return [
        (
            content_id("piece", project, *(file.marker for file in piece)),
            json.dumps({"source": opened.uri, "project": project, "files": [asdict(f) for f in piece]}).encode(),
        )
        for piece in _pieces(new, s.settings.of_project(project).ingest.batch_videos)[:MAX_PIECES]
    ]


def admit_piece(s: Services, piece_id: str) -> list[str]:
    """Judges the files of a planned piece and commits its videos. Returns the ids of the new batches.

    A piece that is done, or that a later plan has replaced, gives none. Raises as `admit` does.
    """
    try:
        facts = read_json(s.blobs, _piece_key(piece_id))
    except BlobMissing:
        return []
    project = str(facts.get("project", ""))
    with trouble.failure_recorded(s.blobs, *_subject(project, "admission")), _workplace(s) as work:
        files = [_file(file) for file in facts["files"]]
        index, since = HashIndex(s.blobs, admitted.WAITING), time.process_time()
        source = open_source(s, facts["source"], work)
        report = _judge_piece(Judging(s=s, source=source, work=work, project=project, index=index), files)
        s.blobs.delete(_piece_key(piece_id))
        _forget_failures(s, [project], s.blobs.keys("pieces/"))
        if speed := replace(report, cpu_s=time.process_time() - since).hours_a_day_a_core:
            _log.info("%s admitted: %.0f hours of video a day and core", counted(report.admitted, "video"), speed)
        return list(report.batch_ids)


def _forget_failures(s: Services, projects: Iterable[str], left: Iterable[str]) -> None:
    """Removes the record of failed pieces of each project that has none left. left: keys of the pieces of all projects.

    A piece that fails is left, so its record stays while others succeed and while it is planned again.
    """
    failed = [name for name in projects if trouble.is_recorded(s.blobs, *_subject(name, "admission"))]
    unfinished = set[str]()
    for key in left if failed else ():
        with suppress(BlobMissing, BlobDamaged):  # completed meanwhile; damaged, which the next plan mends
            unfinished.add(str(read_json(s.blobs, key).get("project", "")))
    for name in failed:
        if name not in unfinished:
            trouble.remove(s.blobs, *_subject(name, "admission"))


def _subject(project: str, stage: str = "ingest") -> tuple[str, str]:
    """Of which batch and stage a failure is recorded.

    stage: "admission" for pieces, because each plan that succeeds removes the record of "ingest".
    """
    return trouble.NO_BATCH, f"{stage} of {project}" if project else stage


def _with_source(s: Services) -> list[str]:
    """The projects with a source."""
    return [name for name in s.settings.project_names if s.settings.of_project(name).ingest.source is not None]


def _chosen(s: Services, source: str | None, project: str) -> str:
    where = source or s.settings.of_project(project).ingest.source
    if where is None:
        of = f"[projects.{project}.ingest] source in the settings" if project else "MASKLETS_INGEST__SOURCE"
        raise NoSource(f"no source: name a folder or s3://bucket/prefix, or set {of}")
    return where


def _file(facts: dict[str, Any]) -> SourceFile:
    """A file of a planned piece."""
    row = facts.get("row")
    return SourceFile(**(facts | {"notes": tuple(facts["notes"]), "row": Row(**row) if row else None}))


def _begin(
    s: Services, source: Blobs, for_import: Reader | None, project: str
) -> tuple[list[SourceFile], IngestReport, set[str]]:
    """Lists the source, and commits the videos that killed runs left.

    Returns the files that no run has judged, or that a person has released, a report of all others, and the addresses
    of the videos that were left.
    """
    listing = list_files(s, source, for_import, s.settings.of_project(project).ingest)
    seen = set(s.blobs.keys(listing.markers))
    released = overrides.waiting(s.blobs)
    new = [
        file
        for file in listing.files
        if not {file.marker, file.ignored_marker} & seen or overrides.is_in(released, file.uri)
    ]
    judged = seen - {file.marker for file in new}
    if new:
        check_create_only(s.blobs)
    denied = [quarantine_record(uri, Refusal.UNREADABLE, "permission denied: a folder") for uri in listing.denied]
    quarantined = quarantine(s, denied) if denied else 0
    tables = [quarantine_record(uri, Refusal.METADATA, line) for uri, line in bad_tables(source, listing)]
    bad = quarantine(s, tables) if tables else 0
    batch_ids, videos = admitted.commit(s, {file.uri for file in listing.files})
    report = IngestReport(
        batch_ids=tuple(batch_ids),
        admitted=len(videos),
        quarantined=quarantined + bad,
        unchanged=sum(file.marker in judged for file in listing.files) + len(denied) - quarantined,
        ignored=listing.skipped + sum(file.ignored_marker in seen for file in listing.files),
        postponed=listing.waiting,
        video_s=sum(video.duration_s for video in videos),
        notes=tuple(listing.metadata.notes),
        changed=sum(bool(video.changes) for video in videos),
        changes=_changes(videos),
    )
    return new, report, {video.source_uri for video in videos}


def _pieces(files: Sequence[SourceFile], videos: int) -> list[list[SourceFile]]:
    """The files in pieces with at most so many videos."""
    pieces, count = [list[SourceFile]()], 0
    for file in files:
        if count == videos or len(pieces[-1]) == (1 + _OTHERS) * videos:
            pieces.append([])
            count = 0
        pieces[-1].append(file)
        count += not file.usually_no_video
    return [piece for piece in pieces if piece]


def _rotated(pieces: list[list[SourceFile]], home: Path) -> list[list[SourceFile]]:
    """Each machine begins elsewhere: those that ingest the same source share its pieces instead of repeating them."""
    at = int(content_id(platform.node(), str(home)), 16) % max(1, len(pieces))
    return pieces[at:] + pieces[:at]


def _judge_piece(
    by: Judging,
    files: Sequence[SourceFile],
    advance: Callable[[SourceFile], None] = lambda file: None,
    reported: Collection[str] = (),
) -> IngestReport:
    """Judges files, commits the admitted videos, and marks the files. Files that are marked meanwhile are unchanged.

    advance: called with each file that was judged. reported: addresses of videos that are in another report.
    A file that a killed run has not marked is judged again, and its video committed. If the file has gone since, the
    next plan commits its video.
    """
    s = by.s
    with ThreadPoolExecutor(_READERS) as pool:
        is_done = pool.map(lambda file: s.blobs.exists(file.marker) or s.blobs.exists(file.ignored_marker), files)
        released = overrides.waiting(s.blobs)
        new = [
            file for file, done in zip(files, is_done, strict=True) if not done or overrides.is_in(released, file.uri)
        ]
    kills = attempts.killed(s.blobs, "ingest", {file.file_id for file in new}) if new else Counter[str]()
    new.sort(key=lambda file: kills[file.file_id])
    acts = {file.uri: overrides.releases_of(s.blobs, file.uri) for file in new if overrides.is_in(released, file.uri)}
    results = _judge_all(by, new, kills, acts, advance)
    refused = [result.refused for result in results if result.refused]
    quarantined = quarantine(s, refused)
    ours = {result.video.video_id for result in results if result.video}
    batch_ids, videos = admitted.commit(s, {file.uri for file in new}, only=ours)
    for file, result in zip(new, results, strict=True):
        if kills[file.file_id] and not result.again:  # before the mark: a release that follows must not meet them
            attempts.forget(s.blobs, "ingest", file.file_id)
        _mark(s, file, result)
        if file.uri in acts and (not result.again or result.refused):
            overrides.conclude(s.blobs, file.uri, acts[file.uri], result.video, result.refused)
        _log_outcome(file, result)
    outcomes = Counter(result.outcome for result in results)
    known = sum(
        result.outcome is Outcome.KNOWN and file.uri not in reported for file, result in zip(new, results, strict=True)
    )
    return IngestReport(
        batch_ids=tuple(batch_ids),
        admitted=len(videos),
        quarantined=quarantined,
        unchanged=len(files) - len(new) + known + len(refused) - quarantined,
        ignored=outcomes[Outcome.IGNORED],
        postponed=outcomes[Outcome.POSTPONED],
        video_s=sum(video.duration_s for video in videos),
        changed=sum(bool(video.changes) for video in videos),
        changes=_changes(videos),
    )


def _log_outcome(file: SourceFile, result: FileResult) -> None:
    outcome = result.outcome.name.lower()
    level = logging.DEBUG if result.outcome in (Outcome.KNOWN, Outcome.IGNORED) else logging.INFO
    with log_ids.about(video_id=result.video.video_id if result.video else ""):
        if result.refused:
            _log.log(level, "%s %s: %s, %s", outcome, file.uri, result.refused.reason, result.refused.detail)
        else:
            _log.log(level, "%s %s", outcome, file.uri)


def _judge_all(
    by: Judging,
    files: Sequence[SourceFile],
    kills: Counter[str],
    acts: Mapping[str, Collection[QuarantineAct]],
    advance: Callable[[SourceFile], None],
) -> list[FileResult]:
    """Judges files. Those that may have killed a worker are the last, and judged one at a time: so the others are not
    lost with them, and not suspected too. After two kills a file is refused, or postponed while another machine may be
    at it.

    kills: workers that each file may have killed.  acts: the releases of each file that people have released.
    """

    def judge_one(file: SourceFile) -> FileResult:
        return judge(by, file, frozenset(act.reason for act in acts.get(file.uri, ())))

    calm = [file for file in files if not kills[file.file_id]]
    results = []
    with ThreadPoolExecutor(by.settings.workers) as pool, attempts.stoppable():
        for file, result in zip(calm, pool.map(judge_one, calm), strict=True):
            results.append(result)
            advance(file)
        for file in files[len(calm) :]:
            if kills[file.file_id] < attempts.MOST:
                results.append(pool.submit(judge_one, file).result())
            elif (
                dead := attempts.killed(by.s.blobs, "ingest", {file.file_id}, surely=True)[file.file_id]
            ) < attempts.MOST:
                results.append(POSTPONED)
            else:
                record = quarantine_record(file.uri, Refusal.KILLS_WORKER, attempts.detail(dead))
                results.append(FileResult(Outcome.REFUSED, refused=record))
            advance(file)
    return results


def _changes(videos: Iterable[Video]) -> dict[str, int]:
    """How many videos were changed in which way. A detail after a comma does not count."""
    return dict(Counter(kind for video in videos for kind in {change.partition(",")[0] for change in video.changes}))


def _total(reports: Sequence[IngestReport]) -> IngestReport:
    """The sums of reports."""
    numbers = [field.name for field in fields(IngestReport) if isinstance(field.default, int | float)]
    sums: dict[str, Any] = {name: sum(getattr(report, name) for report in reports) for name in numbers}
    return IngestReport(
        batch_ids=tuple(batch_id for report in reports for batch_id in report.batch_ids),
        notes=tuple(note for report in reports for note in report.notes),
        changes=dict(sorted(sum((Counter(report.changes) for report in reports), Counter()).items())),
        **sums,
    )


@contextmanager
def _workplace(s: Services) -> Iterator[Path]:
    """A folder for the temporary files of this process. Removes those of killed processes of this home."""
    here = s.home / "cache" / "ingest"
    here.mkdir(parents=True, exist_ok=True)
    for lock in here.glob("*.lock"):
        with suppress(InUse), alone(lock, wait=False):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
    mine = here / uuid.uuid4().hex
    lock = mine.with_suffix(".lock")
    with alone(lock):
        mine.mkdir()
        try:
            yield mine
        finally:
            shutil.rmtree(mine, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _piece_key(piece_id: str) -> str:
    return f"pieces/{piece_id}.json"


def _mark(s: Services, file: SourceFile, result: FileResult) -> None:
    if not result.again:
        facts = {"uri": file.uri} | ({"video_id": result.video.video_id} if result.video else {})
        s.blobs.create(
            file.ignored_marker if result.outcome is Outcome.IGNORED else file.marker, json.dumps(facts).encode()
        )


def quarantine(s: Services, refused: Sequence[Quarantined]) -> int:
    """Commits the records that the table does not have and returns their number: a repeated run adds nothing."""
    return refusals.commit(s, refused)
