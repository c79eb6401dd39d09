"""Checks of a release: its files against their hashes, its ids, and every mask against its row and its video.

A release may come from a stranger, so nothing in it is trusted. Does not know how a release was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from storage.arrow import R
from storage.blobs.base import BlobError
from storage.dataset.batch_manifests import ReleaseError, ReleaseFile, check_id
from storage.dataset.releases import Release
from storage.records import Masklet, Video
from storage.wording import counted
from validation import masklet_checks


@dataclass(frozen=True, kw_only=True)
class ReleaseReport:
    """What a check of a release found."""

    videos: int  # with an id that is valid
    masklets: int  # rows, whether valid or not
    problems: tuple[str, ...]  # one line each


def check(release: Release) -> ReleaseReport:
    """Checks a release, one file of masklets at a time.

    A file or a batch manifest that cannot be read is a problem, not an error.
    """
    problems = release.verify()
    videos, strange = _videos(release, problems)
    problems += [f"videos: {problem}" for problem in strange]
    ids: Counter[str] = Counter()
    for row in _rows(release, Masklet, release.files("masklets", skip_damaged=True), problems):
        ids[row.masklet_id] += 1
        found = masklet_checks.problems(row, videos.get(row.video_id))
        problems += [f"{row.masklet_id}: {problem.check}: {problem.detail}" for problem in found]
        if row.video_id not in videos:
            problems.append(f"{row.masklet_id}: video: {row.video_id!r:.80} is not a video of the release")
    for masklet_id, number in ids.items():
        if number > 1:
            problems.append(f"{masklet_id}: repeated: {counted(number, 'row')} with this id")
    return ReleaseReport(videos=len(videos), masklets=ids.total(), problems=tuple(problems))


def _rows(release: Release, record: type[R], files: Iterable[ReleaseFile], problems: list[str]) -> Iterator[R]:
    """The rows of the files that can be read. Adds a line to `problems` for each other file, unless it has one."""
    for file in files:
        try:
            yield from release.rows(record, file)
        except (BlobError, ReleaseError) as error:
            if not any(problem.startswith(f"{file.key}: ") for problem in problems):
                problems.append(str(error) if isinstance(error, ReleaseError) else f"{file.key}: {error}")


def _videos(release: Release, problems: list[str]) -> tuple[dict[str, Video], list[str]]:
    """The videos that the release has files of, by id; and a line about each id that could be a path."""
    needed = {file.video_id for file in release.files("media", skip_damaged=True)}
    videos, strange = dict[str, Video](), dict[str, str]()
    for video in _rows(release, Video, release.files("videos", skip_damaged=True), problems):
        try:
            if check_id(video.video_id) in needed:
                videos.setdefault(video.video_id, video)
        except ReleaseError as error:
            strange[video.video_id] = str(error)
    return videos, list(strange.values())
