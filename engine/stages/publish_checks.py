"""What is checked of a batch, or of an increment of it, before it is published, and whether the rest of it may be.

Reads the store and writes Data Docs, nothing else. See `engine/stages/publish.py` for the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import batches
from engine.services import Services
from storage.dataset import parts, releases, withdrawn
from storage.dataset.increments import Increment
from storage.records import Masklet, Video
from validation import gate
from validation.gate import GateDecision

if TYPE_CHECKING:
    from validation import table_checks
    from validation.masklet_checks import Problem

MAX_QUARANTINED_SHARE = 0.5  # above this share a batch of the model and its annotators is broken itself
LEAST_JUDGED = 20  # masklets: the share in fewer of a batch says little while the rest follows
BREAKS_TABLE = "table"  # the reason for a row that breaks a rule about the whole table
WITHDRAWN = "withdrawn"  # the reason for a row whose video was withdrawn
_READERS = 8


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The rows of an increment, and what is wrong with each."""

    rows: Sequence[Masklet]
    videos: Sequence[Video]
    problems: Sequence[Sequence[Problem]]  # of each row; a row without one is published
    broken: Mapping[str, str]  # video_id -> the rule about its table that it breaks
    gone: Collection[str]  # the withdrawn videos of the increment
    report: table_checks.Report

    @property
    def good(self) -> list[Masklet]:
        """The rows that are published."""
        return [row for row, found in zip(self.rows, self.problems, strict=True) if not found]

    @property
    def offered(self) -> int:
        """The rows that were not published before: these do not make a batch a broken one."""
        from validation.masklet_checks import REPEATED

        return sum(all(problem.check != REPEATED for problem in found) for found in self.problems)

    @property
    def bad(self) -> int:
        """The rows that say that a batch is a broken one: not those that were published before or withdrawn."""
        from validation.masklet_checks import REPEATED

        return sum(any(problem.check not in (REPEATED, WITHDRAWN) for problem in found) for found in self.problems)

    @property
    def places(self) -> set[tuple[str, int]]:
        """Where the good rows are: video, and number in the part of that video."""
        found, seen = set[tuple[str, int]](), Counter[str]()
        for row, problems in zip(self.rows, self.problems, strict=True):
            if not problems:
                found.add((row.video_id, seen[row.video_id]))
            seen[row.video_id] += 1
        return found

    def reasons(self) -> list[tuple[str, str, str]]:
        """(masklet or video, check, detail) of everything that is refused."""
        of_rows = [
            (row.masklet_id, problem.check, problem.detail)
            for row, found in zip(self.rows, self.problems, strict=True)
            for problem in found
        ]
        return of_rows + [(video_id, BREAKS_TABLE, f"it breaks {rule}") for video_id, rule in self.broken.items()]

    def decision(self, earlier: Sequence[Mapping[str, Any]], *, is_limited: bool) -> GateDecision:
        """Whether the good rows may be published.

        earlier: the facts of the increments that were published; the share of bad rows is that of all together.
        is_limited: whether too many bad rows stop it.
        """
        return gate.publish(
            offered=self.offered + sum(map(offered_in, earlier)),
            quarantined=self.bad + sum(int(facts.get("bad", facts["quarantined"])) for facts in earlier),
            tables_passed=not self.report.unchecked,
            max_quarantined_share=MAX_QUARANTINED_SHARE if is_limited else 1.0,
        )


def offered_in(facts: Mapping[str, Any]) -> int:
    """The rows that an increment had, as its facts say: those of an earlier version do not tell all of them."""
    return int(facts.get("offered", facts["quarantined"] + facts["masklets"]))


def check(s: Services, increment: Increment, known: Sequence[str], docs: Path) -> Checked:
    """Checks everything that is collected of an increment.

    known: the names of all releases. docs: the folder of the Data Docs. Raises PartDamaged.
    """
    from validation import masklet_checks

    batch_id = increment.batch_id
    only = None if increment.is_whole else increment.video_ids
    rows: list[Masklet] = list(parts.rows(s.blobs, "masklets", batch_id, only))
    videos = batches.videos(s, batch_id, only)
    by_id = {video.video_id: video for video in videos}
    problems = [masklet_checks.problems(row, by_id.get(row.video_id)) for row in rows]

    valid = {n: row.masklet_id for n, row in enumerate(rows) if not problems[n]}
    published = _published_before(s, batch_id, {rows[n].video_id for n in valid}, known)
    for n, repeat in masklet_checks.repeats(valid, published).items():
        problems[n].append(repeat)

    members = batches.video_ids(s.blobs, batch_id) if only is None else only  # also erased videos, which have no row
    gone = withdrawn.among(s.blobs, {row.video_id for row in rows}.union(members))
    for n in valid:
        if rows[n].video_id in gone and not problems[n]:
            problems[n].append(masklet_checks.Problem(check=WITHDRAWN, detail="its video was withdrawn"))

    report, broken = _check_tables(rows, problems, videos, docs, increment.id)
    return Checked(rows=rows, videos=videos, problems=problems, broken=broken, gone=gone, report=report)


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
