"""What differs between two releases, and between two versions of a masklet.

Goes through the videos one at a time, so memory follows one video and the list of files. A file that both releases hold
with the same hash is counted and not read. Masklets are paired by their id, then a correction with what it corrects
(`parent_id`), then by their masks: what is left of a video is paired greedily by mean IoU, from OVERLAP up.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.progress import Progress
from storage import iou
from storage.dataset.batch_manifests import ReleaseFile
from storage.dataset.releases import Release
from storage.records import Masklet

OVERLAP = 0.5  # least mean IoU of masklets that are paired by their masks
WORST = 12  # frames to look at
_KEPT = 8  # files with several videos that stay in memory
_OWN = {"frame_idx", "rle", "area_px", "batch_id"}  # compared as masks, or no part of the content
_VALUES = ("kind", "phase", "checkpoint", "verdict", "split")  # columns with few values: which became which


class Paired(StrEnum):
    """Why two masklets are compared."""

    ID = "same id"
    CORRECTION = "correction"  # the second one corrects the first
    MASKS = "similar masks"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A masklet before and after. `frames` has every frame that shows the object in one of them."""

    before: Masklet
    after: Masklet
    paired: Paired
    frames: Mapping[int, float]  # frame_idx -> IoU
    columns: Mapping[str, tuple[Any, Any]]  # that differ, without those of the masks and the batch

    @property
    def mean_iou(self) -> float:
        return sum(self.frames.values()) / len(self.frames) if self.frames else 1.0

    @property
    def differing(self) -> int:
        """The number of frames whose masks differ."""
        return sum(value < 1 for value in self.frames.values())


@dataclass(frozen=True, kw_only=True)
class Look:
    """A frame to look at. iou: 0 for a masklet that only one release has."""

    video_id: str
    frame_idx: int
    iou: float
    before: Masklet | None
    after: Masklet | None

    @property
    def what(self) -> str:
        if self.before is None:
            return "added"
        return "removed" if self.after is None else f"IoU {self.iou:.2f}"

    def place(self) -> tuple[bool, float, int, str, str]:
        """Sorts looks: changed masklets first, then the lowest IoU, then the largest mask."""
        lone = self.before is None or self.after is None
        area = max(_area(row, self.frame_idx) for row in (self.before, self.after) if row is not None)
        ids = [row.masklet_id if row is not None else "" for row in (self.before, self.after)]
        return (lone, self.iou, -area, ids[0], ids[1])


@dataclass
class Difference:
    """What differs between two releases."""

    before: str
    after: str
    videos: Counter[str] = field(default_factory=Counter)  # "before", "after", "both"
    masklets: Counter[str] = field(default_factory=Counter)  # "before", "after", "same", "changed", "added", "removed"
    paired: Counter[str] = field(default_factory=Counter)  # of the changed masklets
    redrawn: int = 0  # changed masklets whose masks differ
    mean_iou: float | None = None  # mean over these masklets of the mean over frames
    frames: Counter[str] = field(
        default_factory=Counter
    )  # of these: "shown" in one of both, "differing", "appeared", …
    columns: dict[str, Counter[str]] = field(default_factory=dict)  # column -> "masklets", and "a -> b" for few values
    worst: list[Look] = field(default_factory=list)  # at most WORST

    def as_json(self) -> dict[str, Any]:
        """For programs: masklets by their ids."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "worst"}
        return plain | {"worst": [_as_json(look) for look in self.worst]}


def of(before: Release, after: Release, progress: Progress | None = None) -> Difference:
    """Compares two releases, of one store or of two. Raises ReleaseError, BlobError."""
    found = Difference(before=before.name, after=after.name)
    sides = _Side(before), _Side(after)
    worst = _Worst()
    total = 0.0  # of the mean IoUs
    video_ids = sorted(sides[0].files.keys() | sides[1].files.keys())
    for n, video_id in enumerate(video_ids):
        total += _of_video(found, sides, video_id, worst)
        if progress:
            progress(n + 1, len(video_ids), video_id)
    found.mean_iou = total / found.redrawn if found.redrawn else None
    found.worst = worst.sorted()
    return found


def _of_video(found: Difference, sides: tuple[_Side, _Side], video_id: str, worst: _Worst) -> float:
    """Adds a video. Returns the sum of the mean IoUs of its masklets whose masks differ."""
    files = [side.files.get(video_id, []) for side in sides]
    known = {file.sha256 for file in files[0]} & {file.sha256 for file in files[1]}
    rows = []
    for side, its, name in zip(sides, files, ("before", "after"), strict=True):
        same = sum(side.count(file, video_id) for file in its if file.sha256 in known)
        read = [row for file in its if file.sha256 not in known for row in side.rows(file, video_id)]
        found.videos[name] += bool(its)
        found.masklets[name] += same + len(read)
        if name == "after":
            found.masklets["same"] += same
        rows.append(read)
    found.videos["both"] += all(files)
    changes, removed, added = compare(*rows)
    total = 0.0
    for change in changes:
        if not change.columns and not change.differing and change.before.frame_idx == change.after.frame_idx:
            found.masklets["same"] += 1
            continue
        found.masklets["changed"] += 1
        found.paired[change.paired.value] += 1
        _count(found, change)
        if change.differing:
            total += change.mean_iou
            worst.add(worst_of(change, 1)[0])
    found.masklets["removed"] += len(removed)
    found.masklets["added"] += len(added)
    for row in removed:
        worst.add(_lone(row, before=row))
    for row in added:
        worst.add(_lone(row, after=row))
    return total


def compare(before: Sequence[Masklet], after: Sequence[Masklet]) -> tuple[list[Change], list[Masklet], list[Masklet]]:
    """The masklets of one video: the pairs, changed or not; those without a partner before, and after."""
    changes = []
    old, new = {row.masklet_id: row for row in before}, {row.masklet_id: row for row in after}
    for masklet_id in sorted(old.keys() & new.keys()):
        changes.append(change_of(old.pop(masklet_id), new.pop(masklet_id), Paired.ID))
    for row in sorted(new.values(), key=lambda row: row.masklet_id):
        if row.corrected_id in old:
            changes.append(change_of(old.pop(row.corrected_id), new.pop(row.masklet_id), Paired.CORRECTION))
    left, right = ([of[key] for key in sorted(of)] for of in (old, new))
    if left and right:
        table = iou.mean_table(left, right)
        ranked = sorted((-table[i, j], i, j) for i in range(len(left)) for j in range(len(right)))
        for negative, i, j in ranked:
            if -negative >= OVERLAP and left[i].masklet_id in old and right[j].masklet_id in new:
                first, second = old.pop(left[i].masklet_id), new.pop(right[j].masklet_id)
                changes.append(change_of(first, second, Paired.MASKS))
    return changes, list(old.values()), list(new.values())


def change_of(before: Masklet, after: Masklet, paired: Paired = Paired.ID) -> Change:
    """Compares two masklets of one video. Masks of another size have an IoU of 0. Raises BadRle."""
    skipped = _OWN if paired is Paired.ID else _OWN | {"masklet_id", "parent_id"}
    columns = {}
    for f in dataclasses.fields(Masklet):
        values = getattr(before, f.name), getattr(after, f.name)
        if f.name not in skipped and values[0] != values[1]:
            columns[f.name] = values
    if (before.height, before.width) == (after.height, after.width):
        frames = iou.frame_ious(before, after)
    else:
        seen = (f for row in (before, after) for f, area in zip(row.frame_idx, row.area_px, strict=True) if area)
        frames = dict.fromkeys(sorted(seen), 0.0)
    return Change(before=before, after=after, paired=paired, frames=frames, columns=columns)


def worst_of(change: Change, most: int) -> list[Look]:
    """The frames of a change that differ most, the worst first."""
    looks = [
        Look(video_id=change.after.video_id, frame_idx=f, iou=value, before=change.before, after=change.after)
        for f, value in change.frames.items()
        if value < 1
    ]
    return sorted(looks, key=lambda look: (*look.place(), look.frame_idx))[:most]


def _lone(row: Masklet, before: Masklet | None = None, after: Masklet | None = None) -> Look:
    """The frame that shows the most of a masklet without a partner."""
    largest = max(range(len(row.area_px)), key=lambda t: row.area_px[t], default=0)
    at = row.frame_idx[largest] if row.frame_idx else 0
    return Look(video_id=row.video_id, frame_idx=at, iou=0.0, before=before, after=after)


def _count(found: Difference, change: Change) -> None:
    if change.differing:
        found.redrawn += 1
        found.frames["shown"] += len(change.frames)
        found.frames["differing"] += change.differing
        for frame_idx, value in change.frames.items():
            if value == 0:
                areas = _area(change.before, frame_idx), _area(change.after, frame_idx)
                found.frames["appeared"] += areas[0] == 0
                found.frames["vanished"] += areas[1] == 0
    for name, (old, new) in change.columns.items():
        counts = found.columns.setdefault(name, Counter())
        counts["masklets"] += 1
        if name in _VALUES:
            counts[f"{old} -> {new}"] += 1


def _area(row: Masklet, frame_idx: int) -> int:
    return row.area_px[row.frame_idx.index(frame_idx)] if frame_idx in row.frame_idx else 0


class _Worst:
    """Keeps the WORST looks of any number: a heap whose first one is the least bad."""

    def __init__(self) -> None:
        self._heap: list[tuple[_Reversed, int, Look]] = []
        self._seen = 0

    def add(self, look: Look) -> None:
        self._seen += 1  # decides between equal places
        item = (_Reversed(look.place()), -self._seen, look)
        if len(self._heap) < WORST:
            heapq.heappush(self._heap, item)
        elif self._heap[0] < item:
            heapq.heapreplace(self._heap, item)

    def sorted(self) -> list[Look]:
        return [look for _, _, look in sorted(self._heap, reverse=True)]


@dataclass(frozen=True)
class _Reversed:
    """Sorts the other way round."""

    key: tuple[bool, float, int, str, str]

    def __lt__(self, other: _Reversed) -> bool:
        return self.key > other.key


class _Side:
    """The files of one release by video, and their rows."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._kept: dict[str, list[Masklet]] = {}  # files with several videos, by key; the oldest first
        self.files: dict[str, list[ReleaseFile]] = defaultdict(list)
        for file in release.files("masklets"):
            for video_id in [file.video_id] if file.video_id is not None else self._videos(file):
                self.files[video_id].append(file)

    def rows(self, file: ReleaseFile, video_id: str) -> Iterator[Masklet]:
        """The masklets of a video in a file."""
        rows = self._release.rows(Masklet, file) if file.video_id is not None else self._shared(file)
        return (row for row in rows if row.video_id == video_id)

    def count(self, file: ReleaseFile, video_id: str) -> int:
        """The number of masklets of a video in a file."""
        if file.video_id is not None and file.rows is not None:
            return file.rows
        return sum(1 for _ in self.rows(file, video_id))

    def _videos(self, file: ReleaseFile) -> Iterable[str]:
        return sorted({row.video_id for row in self._shared(file)})

    def _shared(self, file: ReleaseFile) -> list[Masklet]:
        rows = self._kept.pop(file.key, None)
        self._kept[file.key] = rows = self._release.rows(Masklet, file) if rows is None else rows
        if len(self._kept) > _KEPT:
            self._kept.pop(next(iter(self._kept)))
        return rows


def _as_json(look: Look) -> dict[str, Any]:
    ids = [None if row is None else row.masklet_id for row in (look.before, look.after)]
    return {
        "video_id": look.video_id,
        "frame_idx": look.frame_idx,
        "iou": look.iou,
        "before": ids[0],
        "after": ids[1],
    }
