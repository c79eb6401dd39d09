"""Publish: checks on rows and on masks, then one commit and one release manifest.

A masklet that fails a check is quarantined with the check's name; the others are published. A masklet whose id was
published before, or comes twice, is quarantined as "repeated": ids are unique over the whole store. A row that breaks a
rule about its table is quarantined as "table". If a rule cannot be checked, or too many masklets of a batch of the
model and its annotators fail, nothing of the batch is published. An import has no such limit: its annotations are
independent files of others, and nobody here can repair them. A lead can lift the limit (`leave_out`). Nothing is
visible before every check has run.

A batch that was collected in increments (`storage/increments.py`) is published so: each has its own checks, commits and
release, as a batch of these videos would have.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.locks import Held
from engine.services import Services
from engine.stages import batches, review, trouble, withdrawing
from engine.stages.batches import BatchStage
from engine.views import card
from storage import increments, parts, release_names, release_numbers, releases, table_upkeep, unreleased, withdrawn
from storage.increments import Increment
from storage.records import Masklet, Quarantined, Video
from validation import gate

if TYPE_CHECKING:
    from storage.releases import Release
    from validation import table_checks
    from validation.masklet_checks import Problem

STAGE = "publish"  # its name in the records of trouble and of quarantine
_READERS = 8
EXPIRED_TOGETHER = 20  # snapshots of a table: fewer are not worth a commit
MAX_QUARANTINED_SHARE = 0.5  # above this share a batch of the model and its annotators is broken itself
BREAKS_TABLE = "table"  # the reason for a row that breaks a rule about the whole table
WAY_OUT = "masklets publish {} --without-refused --why REASON"
_OF_INCREMENT = re.compile(rf"(?:{review.STAGE}|{STAGE})(?:-\d{{4,}})?")  # parts in which they are quarantined
LEAST_JUDGED = 20  # masklets: the share in fewer of a batch says little while the rest follows


class PublishStopped(Exception):
    """The publish gate did not pass: nothing of the batch, or of its increment, was published."""

    def __init__(self, message: str, number: int = 0) -> None:
        """number: of the increment; 0: `leave_out` cannot help."""
        super().__init__(message)
        self.number = number


def pending(s: Services) -> list[str]:
    """The batches that are collected and not published, and those with such an increment."""
    begun = increments.begun(s.blobs)
    taken = {of for of, numbers in begun.items() if any(increments.is_taken(s.blobs, of, n) for n in numbers)}
    return sorted(taken.union(batches.pending(s.blobs, BatchStage.PUBLISHED)))


def publish_batch(s: Services, batch_id: str) -> str:
    """Publishes what is collected of a batch and returns the name of its release, "" if there is no masklet to release.

    Can run again at any time. Raises PublishStopped, UnknownBatch, PartDamaged, CommitFailed and CommitUnknown;
    LockLost, NumberTaken if it was paused for so long that another process took its place: run it again.
    """
    # alone, because each release contains everything that was published before it
    with trouble.recorded(s.blobs, batch_id, STAGE), s.alone(withdrawing.LOCK) as held:
        done = batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED)
        if done is None:
            return _publish_collected(s, batch_id, held)
        batches.mark(s.blobs, batch_id, BatchStage.PUBLISHED, done)  # removes what a paused process wrote below open/
        return str(done["release"])


def leave_out(s: Services, batch_id: str, *, by: str, why: str) -> str:
    """Publishes a batch like `publish_batch`, also if most rows of what is collected are refused: these stay out.

    Who decided it and why is recorded. It holds for the rows that are refused now: what is collected later is stopped
    again. Raises as `publish_batch` does; ValueError without a reason.
    """
    why = " ".join(why.split())
    if not why:
        raise ValueError("say why: the reason is recorded")
    try:
        return publish_batch(s, batch_id)
    except PublishStopped as stopped:
        if not stopped.number:
            raise
        at = datetime.now(UTC).isoformat(timespec="seconds")
        batches.mark(s.blobs, batch_id, _left_out(stopped.number), {"by": by, "at": at, "why": why})
    return publish_batch(s, batch_id)


def _left_out(number: int) -> str:
    return f"{batches.LEFT_OUT}-{number:04d}"


def docs_folder(s: Services) -> Path:
    """The folder of all batches' Data Docs."""
    return s.home / "data-docs"


def _publish_collected(s: Services, batch_id: str, held: Held) -> str:
    """Publishes the increments that are collected, and the batch if all of it is. Returns the last release."""
    of_batch, released = increments.of_batch(s.blobs, batch_id), ""
    done = increments.published(s.blobs, batch_id) if of_batch else {}
    for one in of_batch:
        if not one.is_last and one.number not in done:
            done[one.number] = _publish(s, one, held, list(done.values()))
            increments.mark_published(s.blobs, one, done[one.number])
            released = str(done[one.number]["release"])
        elif not one.is_last:
            increments.end(s.blobs, batch_id, one.number)  # a publish was killed after its mark
            released = str(done[one.number]["release"])
    collected = batches.facts(s.blobs, batch_id, BatchStage.COLLECTED)
    if collected is None and not of_batch:
        raise batches.UnknownBatch(f"batch {batch_id} is not collected: there is nothing to publish")
    if collected is None or (of_batch and not of_batch[-1].is_last):
        return released
    whole = Increment(batch_id=batch_id, number=1, video_ids=(), is_last=True, facts=collected)
    facts = _publish(s, of_batch[-1] if of_batch else whole, held, list(done.values()))
    batches.mark(s.blobs, batch_id, BatchStage.PUBLISHED, facts)
    return str(facts["release"])


def _publish(s: Services, increment: Increment, held: Held, earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Publishes the videos of an increment, or the whole batch if it is the only one. Returns the facts of its mark.

    earlier: the facts of the batch's published increments; the share of bad masklets is that of all of them together.
    """
    from validation import masklet_checks

    batch_id, commit_id = increment.batch_id, increment.id
    only = None if increment.is_whole else increment.video_ids
    rows: list[Masklet] = list(parts.rows(s.blobs, "masklets", batch_id, only))
    videos = batches.videos(s, batch_id, only)
    by_id = {video.video_id: video for video in videos}
    problems = [masklet_checks.problems(row, by_id.get(row.video_id)) for row in rows]
    failing = {n for n, found in enumerate(problems) if found}
    valid = {n: row.masklet_id for n, row in enumerate(rows) if n not in failing}
    known = releases.names(s.blobs)
    repeats = masklet_checks.repeats(valid, _published_before(s, batch_id, {rows[n].video_id for n in valid}, known))
    for n, repeat in repeats.items():
        problems[n].append(repeat)
    members = batches.video_ids(s.blobs, batch_id) if only is None else only  # also erased videos, which have no row
    gone = withdrawn.among(s.blobs, {row.video_id for row in rows}.union(members))
    for n in valid:
        if rows[n].video_id in gone and not problems[n]:
            problems[n].append(masklet_checks.Problem(check="withdrawn", detail="its video was withdrawn"))
    docs = docs_folder(s) / batch_id
    report, broken = _check_tables(rows, problems, videos, docs, commit_id)
    refused = [
        Quarantined(stage=STAGE, subject=row.masklet_id, reason=p.check, detail=p.detail, batch_id=batch_id)
        for row, found in zip(rows, problems, strict=True)
        for p in found
    ]
    refused += [
        Quarantined(stage=STAGE, subject=video_id, reason=BREAKS_TABLE, detail=f"it breaks {rule}", batch_id=batch_id)
        for video_id, rule in broken.items()
    ]
    good = [row for row, found in zip(rows, problems, strict=True) if not found]
    failing |= {n for n, found in enumerate(problems) if any(p.check == BREAKS_TABLE for p in found)}
    lifted = batches.facts(s.blobs, batch_id, _left_out(increment.number))
    judged = [facts for facts in earlier if "left_out" not in facts]
    # a batch that was published before is not a broken one
    offered = len(rows) - len(repeats) + sum(facts["quarantined"] + facts["masklets"] for facts in judged)
    has_no_limit = batches.is_import(s.blobs, batch_id) or (not increment.is_last and offered < LEAST_JUDGED)
    decision = gate.publish(
        offered=offered,
        quarantined=len(failing) + sum(facts["quarantined"] for facts in judged),
        tables_passed=not report.unchecked,
        max_quarantined_share=1.0 if has_no_limit or lifted else MAX_QUARANTINED_SHARE,
    )
    if refused:
        name = increment.quarantine_part(STAGE)
        parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id=name, rows=refused)

    def commit_rows(kind: str, videos: Collection[str] | None, keep: Callable[[Any, int], bool] | None = None) -> bool:
        report = parts.commit_batch(s.blobs, s.tables, kind, batch_id, keep, only=videos, commit_id=commit_id)
        return report.already

    with_refused = _quarantine_parts(s, increment, earlier)
    commit_rows("quarantine", with_refused)
    if not decision.passed:
        why = "; ".join([*decision.reasons, *report.failures])
        way = "" if report.unchecked else f"; `{WAY_OUT.format(batch_id)}` publishes the rest"
        number = 0 if report.unchecked else increment.number
        raise PublishStopped(f"batch {batch_id}: {why}; see {report.docs_index}{way}", number)
    commit_rows("operations", only, lambda row, n: row.video_id not in gone)
    kept = _places(rows, problems)
    held.check()
    already = commit_rows("masklets", only, lambda row, n: (row.video_id, n) in kept)
    release = _release(s, commit_id, known)
    if already:  # by a process that was paused before, while a video of the batch was withdrawn
        for video_id in sorted(gone):
            withdrawing.take_out(s, withdrawn.of(s.blobs, video_id))
    held.check()  # without the lock, another process may not have seen what this one did: the next run looks again
    if release is not None:
        added = card.Added(
            batch=commit_id, videos=videos, masklets=good, refused=Counter(record.reason for record in refused)
        )
        card.keep(release, _beside(release, known), added)
    facts = {
        "release": "" if release is None else release.name,
        "masklets": len(good),
        "quarantined": len(rows) - len(good),
        "gate": list(decision.reasons),
        "checkpoints": dict(sorted(Counter(row.checkpoint for row in good).items())),
        "annotated_frames": sum(len(row.frame_idx) for row in good),
        "work": increment.facts.get("work"),
        **({} if with_refused is None else {"quarantine_parts": sorted(with_refused)}),
        **({"left_out": lifted} if lifted else {}),
        **(batches.facts(s.blobs, batch_id, batches.PHASE) or {}),
    }
    released = release.snapshots["masklets"] if release is not None and release.is_end else None
    table_upkeep.expire_all(s.tables, released, least=EXPIRED_TOGETHER)
    return facts


def _beside(release: Release, known: Sequence[str]) -> str:
    """What a new release is beside the one before. known: the names of the releases that were there before."""
    place, project = releases.place(release.name), releases.project_of(release.name)
    before = [name for name in known if releases.project_of(name) == project and releases.place(name) < place]
    return f"It adds to {before[-1]}." if before else "It adds to no other release."


def _check_tables(
    rows: Sequence[Masklet], problems: Sequence[list[Problem]], videos: Sequence[Video], docs: Path, run_name: str
) -> tuple[table_checks.Report, dict[str, str]]:
    """Checks the tables of the rows without a problem. A row that breaks a rule, or whose video does, gets a problem.

    docs: the folder of the Data Docs. Returns also the videos that break a rule, with this rule.
    """
    from validation import masklet_checks, table_checks

    places = [n for n, found in enumerate(problems) if not found]
    report = table_checks.check_tables(table_checks.frames([rows[n] for n in places], videos), docs, run_name=run_name)
    of_video = {videos[n].video_id: rule for n, rule in report.broken("videos").items()}
    of_row = {places[n]: rule for n, rule in report.broken("masklets").items()}
    for n in places:
        if n in of_row:
            problems[n].append(masklet_checks.Problem(check=BREAKS_TABLE, detail=f"it breaks {of_row[n]}"))
        elif (rule := of_video.get(rows[n].video_id)) is not None:
            problems[n].append(masklet_checks.Problem(check=BREAKS_TABLE, detail=f"its video breaks {rule}"))
    return report, of_video


def _quarantine_parts(
    s: Services, increment: Increment, earlier: Sequence[Mapping[str, Any]]
) -> Collection[str] | None:
    """The parts with what was refused that are committed with an increment; None: all of the batch.

    What propose and open review refused goes with the first one; the last one has what no other has.
    """
    if increment.is_whole:
        return None

    def own(of: Increment) -> set[str]:
        return {of.quarantine_part(stage) for stage in (review.STAGE, STAGE)}

    done = set[str]()
    for number, facts in enumerate(earlier, 1):  # an earlier version committed its own parts only
        done |= set(facts.get("quarantine_parts", own(replace(increment, number=number, is_last=False))))
    left = parts.marked(s.blobs, "quarantine", increment.batch_id) - done
    if increment.is_last:
        return left
    mine = own(increment)
    return {name for name in left if name in mine or not _OF_INCREMENT.fullmatch(name)}


def _published_before(s: Services, batch_id: str, video_ids: Collection[str], known: Sequence[str]) -> dict[str, str]:
    """The masklets of these videos that other batches have published, with their batch.

    The id of a masklet contains that of its video, so nothing else is searched. A video has one batch; only batches of
    earlier versions shared videos, so the table is rarely asked. known: the names of all releases.
    """
    unnamed = [name for name in known if not releases.project_of(name)]  # earlier versions knew no projects
    earlier = releases.load(s.blobs, unnamed[-1]) if unnamed else None

    def is_shared(video_id: str) -> bool:
        others = parts.published_in(s.blobs, video_id) - {batch_id}
        return bool(others) or (earlier is not None and earlier.is_in_first(video_id))

    with ThreadPoolExecutor(_READERS) as pool:
        videos = sorted(video_ids)
        shared = [video_id for video_id, found in zip(videos, pool.map(is_shared, videos), strict=True) if found]
    return s.tables.published_masklets(shared, but=batch_id)


def _places(rows: Sequence[Masklet], problems: Sequence[Collection[Problem]]) -> set[tuple[str, int]]:
    """Where the rows without a problem are: video, and number in the part of that video."""
    found, seen = set[tuple[str, int]](), Counter[str]()
    for row, problem in zip(rows, problems, strict=True):
        if not problem:
            found.add((row.video_id, seen[row.video_id]))
        seen[row.video_id] += 1
    return found


def _release(s: Services, commit_id: str, known: Sequence[str]) -> Release | None:
    """Writes the manifest of the project's release. The name holds a number and the commit, so a rerun finds it.

    commit_id: the batch, or its increment. known: the names of all releases. None: so far every candidate of the
    project was rejected.

    Afterwards everything that is committed is in a release of its project: the next release of any project looks no
    further back. So it first makes those of other projects whose publish was killed between its commit and its release.
    """
    project = batches.project_of(s.blobs, increments.batch_of(commit_id))
    ends = release_names.ends(s.blobs, known)
    several = any(map(releases.project_of, known))
    of_project: dict[str, list[str]] = {}
    for name in known:
        if releases.place(name)[0] or not several:  # else a person gave it to a release of any project
            of_project.setdefault(releases.project_of(name), []).append(name)
    while True:
        current = s.tables.snapshot_id("masklets")
        waiting = [] if current is None else unreleased.since(s.tables, current, ends)
        owners = {each.batch_id: _owner(s, each.batch_id) for each in waiting}
        if project not in of_project and project not in owners.values():
            return None
        last = {of: its for its, of in owners.items() if its is not None and of != project} | {project: commit_id}
        names = {of: _name(s, of_project.get(of, []), its, of) for of, its in last.items()}
        # otherwise, another process may have taken a number for less than this release would leave out
        if s.tables.snapshot_id("masklets") == current:
            break
    made: Release | None = None
    for of, its in last.items():
        extra = {"batch_id": increments.batch_of(its)} | ({"project": of} if of else {})
        if of != project:
            extra[releases.AHEAD_OF] = increments.batch_of(commit_id)
        try:
            made = releases.make(
                s.blobs,
                s.tables,
                names[of],
                extra=extra,
                known=of_project.get(of, []),
                ends=ends,
                mine={found for found, owner in owners.items() if owner == of}.__contains__,
                snapshot=current,
            )
        except releases.NothingPublished:
            return None
    return made


def _owner(s: Services, commit_id: str | None) -> str:
    """The project of a commit's batch; what another tool has added to the table is of the unnamed one."""
    return "" if commit_id is None else batches.project_of(s.blobs, increments.batch_of(commit_id))


def _name(s: Services, known: Sequence[str], commit_id: str, project: str) -> str:
    """The name of the release that a commit gets: the one that it has, or a new one. known: of the project."""
    mine = next((name for name in known if name.endswith(commit_id)), None)
    if mine and any(commit_id in (ref.batch_id, *ref.covers) for ref in releases.load(s.blobs, known[-1]).batches):
        return mine
    # also if a process that was paused made it, and the newest release is without the commit
    return release_numbers.new_name(s.blobs, known, commit_id, project)
