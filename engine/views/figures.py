"""The figures of a release: SA-V's own tables, and what people and checkpoints did.

Each figure is defined once, in `DEFINITIONS`. Reads the columns that it needs, one file at a time, and never a mask:
only the list of videos grows with the release. Does not know how figures are shown: see `tables` and `report`.

Source: Ravi et al. 2024, section 5.2 and table 3, and the files of SA-V.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from annotation_queue.given_verdicts import ONLY, standing_verdicts
from engine.progress import Progress
from engine.verifier.keeping import is_verifier
from storage import arrow
from storage.blobs.base import Blobs
from storage.dataset import parts
from storage.dataset.batch_manifests import ReleaseError
from storage.dataset.releases import Release
from storage.errors import first_line
from storage.formats import imported, sav_figures
from storage.masklet_rules import TERMS
from storage.records import FPS, STRIDE, Masklet, Operation, Video

if TYPE_CHECKING:
    from storage.iceberg.tables import Tables

DEFINITIONS = {
    "videos": "videos with at least one masklet of the group",
    "hours": "duration of these videos",
    "masklets": "objects, each followed through its video",
    "masks": "an object on an annotated frame; frames that do not show it are not counted",
    "frames": f"annotated frames of these videos: every {STRIDE}th at {FPS} a second",
    "disappearance_rate": "share of the masklets whose object is absent on an annotated frame and visible again later",
    "masklets_a_video": "masklets of the group over its videos",
    "duration_s": "seconds of a video: mean, shortest, longest",
    "size_px": "width and height of the videos: mean, fewest and most pixels",
    "sizes": "masklets by mean area of their masks: small below 32² px, medium below 96² px, large",
    "area_share": "masks by their share of the frame's area",
    "small_masks": "share of the masks that cover less than a tenth of their frame",
    "visibility_changes": "masklets by how often the object vanishes or comes back, after it appeared first",
    "first_frame": "share of the masklets whose object is visible on the first annotated frame",
    "edited_share": "manual masklets by the share of their annotated frames that a person edited",
    "edited_frames": "edited frames over annotated frames, mean over the manual masklets",
    "clicks": "clicks of people, mean over the manual masklets",
    "makers": "masklets by the checkpoint that proposed or propagated them: unchanged, and with edited frames",
    "verdicts": "answers of people about candidates, by the checkpoint that made the candidate; a candidate may have "
    "several, and answers that were taken back are not counted",
    "held_out_with_model": "masklets of the splits val and test that people did not mask by hand (phase 1); without "
    "imported ones, of which this is not known",
    "phases": "masklets by the phase in which people worked on them; auto: a candidate that was accepted unchanged",
    "labels": "masklets by the label of their object, as people or an import gave it",
    "people": "how many people annotated and reviewed; no names",
    "decided_alone": "masklets whose last verdict is the verifier's, a program that learned from people's verdicts",
}

#: What SA-V publishes of itself: videos, hours, masklets, masks, frames, disappearance rate.
SA_V = {
    "manual": (50_900, 196.0, 190_900, 10_000_000, 4_200_000, 0.425),
    "manual + auto": (50_900, 196.0, 642_600, 35_500_000, 4_200_000, 0.277),
}

ALL = "manual + auto"
AREA_EDGES = (0.0, 0.0001, 0.001, 0.01, 0.1, 1.0)  # shares of a frame
EDIT_EDGES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)  # shares of a masklet's annotated frames, after the group of 0
MOST_CHANGES = 6  # visibility changes that have a bar of their own; the last bar holds more
BY_HAND = "1"  # the phase in which no model propagates
SMALL_MASK = 0.1  # of the frame

_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Masklet)}
_COLUMNS = (
    "masklet_id",
    "video_id",
    "batch_id",
    "height",
    "width",
    "frame_idx",
    "area_px",
    "kind",
    "phase",
    "checkpoint",
    "edited_frame_count",
    "click_count",
    "verified_by",
    "annotated_by",
    "split",
    "label",
)


@dataclass(frozen=True, kw_only=True)
class Group:
    """One row of SA-V's table."""

    videos: int
    hours: float
    masklets: int
    masks: int
    frames: int
    disappearance_rate: float  # 0 to 1; 0 without masklets

    @property
    def masklets_a_video(self) -> float:
        return self.masklets / self.videos if self.videos else 0.0


@dataclass(frozen=True, kw_only=True)
class Videos:
    """The videos of a release."""

    duration_s: tuple[float, float, float]  # mean, shortest, longest
    size_px: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]  # (width, height): mean, fewest and most pixels


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of a release. `DEFINITIONS` says what each one means."""

    release: str
    digest: str  # sha256 of its manifest
    groups: Mapping[str, Group]  # "manual", "auto" and ALL
    splits: Mapping[str, Group]
    videos: Videos
    sizes: Mapping[str, int]
    area_share: Mapping[str, int]  # upper edge as text -> masks
    small_masks: float
    visibility_changes: Mapping[str, int]
    first_frame: float
    edited_share: Mapping[str, int]
    edited_frames: float | None  # None: no manual masklet
    clicks: float | None
    makers: Mapping[str, Mapping[str, int]]  # checkpoint -> "unchanged", "edited"
    verdicts: Mapping[str, Mapping[str, int]]  # checkpoint -> verdict -> answers
    phases: Mapping[str, int]
    labels: Mapping[str, int]  # without the masklets that have no label
    people: Mapping[str, int]  # "annotators", "reviewers"
    decided_alone: int
    held_out_with_model: int

    def as_json(self) -> dict[str, Any]:
        """The figures with their definitions, for programs."""
        return dataclasses.asdict(self) | {"definitions": DEFINITIONS}


def of(release: Release, tables: Tables | None = None, progress: Progress | None = None) -> Figures:
    """The figures of a release.

    tables: for the verdicts of people, which a release does not hold; None leaves them out.
    Raises ReleaseError, also for a release without masklets; BlobError.
    """
    videos = {video.video_id: video for video in release.videos()}
    tally = _Tally(videos)
    files = list(release.files("masklets"))
    for n, file in enumerate(files):
        table = _read(release.blobs, file.key)
        if release.hidden:  # a large file holds many videos
            shown = [video_id not in release.hidden for video_id in table["video_id"].to_pylist()]
            table = table.filter(pa.array(shown, pa.bool_()))
        tally.add(table)
        if progress:
            progress(n + 1, len(files), file.video_id or "")
    if not tally.masklets:
        raise ReleaseError(f"release {release.name} has no masklets")
    verdicts = {} if tables is None else verdicts_of(release.blobs, tables, sorted(tally.batches))
    return tally.figures(release, verdicts)


def of_masklets(release: Release, videos: Iterable[Video], masklets: Sequence[Masklet]) -> Figures:
    """The figures of some masklets of a release, which are in memory, without people's verdicts. Reads nothing.

    Raises ValueError for no masklets.
    """
    if not masklets:
        raise ValueError("figures of no masklets")
    tally = _Tally({video.video_id: video for video in videos})
    tally.add(arrow.to_arrow(Masklet, masklets, _COLUMNS))  # without the masks, which are large
    return tally.figures(release, {})


def _read(blobs: Blobs, key: str) -> pa.Table:
    try:
        table = arrow.read_parquet(blobs.read(key), _COLUMNS)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ReleaseError(f"{key}: cannot be read ({first_line(error)})") from error
    needed = {name for name in _COLUMNS if _DEFAULTS[name] is dataclasses.MISSING}
    if missing := sorted(needed - set(table.column_names)):
        raise ReleaseError(f"{key}: cannot be read (no column {missing[0]!r})")
    return table


@dataclass
class _Sums:
    """What is counted of one group."""

    videos: set[str] = field(default_factory=set)
    masklets: int = 0
    masks: int = 0
    reappearing: int = 0

    def group(self, videos: Mapping[str, Video]) -> Group:
        known = [videos[video_id] for video_id in self.videos if video_id in videos]
        return Group(
            videos=len(self.videos),
            hours=sum(video.duration_s for video in known) / 3600,
            masklets=self.masklets,
            masks=self.masks,
            frames=sum(annotated(video) for video in known),
            disappearance_rate=self.reappearing / self.masklets if self.masklets else 0.0,
        )


def annotated(video: Video) -> int:
    """The number of annotated frames of a video."""
    return -(-video.frame_count // STRIDE)


class _Tally:
    """Counts masklets, one table at a time."""

    def __init__(self, videos: Mapping[str, Video]) -> None:
        self.masklets = 0
        self.batches: set[str] = set()
        self._videos = videos
        self._sums = {name: _Sums() for name in ("manual", "auto", ALL)}
        self._splits: dict[str, _Sums] = {}
        self._sizes = Counter[str]()
        self._areas = np.zeros(len(AREA_EDGES) - 1, np.int64)
        self._small = 0
        self._changes = Counter[str]()
        self._on_first = 0
        self._edits = Counter[str]()
        self._edited = 0.0  # sum of the shares of edited frames
        self._clicks = self._manual = 0
        self._makers: dict[str, Counter[str]] = {}
        self._phases = Counter[str]()
        self._labels = Counter[str]()
        self._annotators: set[str] = set()
        self._reviewers: set[str] = set()
        self._decided_alone = self._held_out_with_model = 0

    def add(self, table: pa.Table) -> None:
        rows = {name: _values(table, name) for name in _COLUMNS if name not in ("frame_idx", "area_px")}
        for masklet_id, kind, height, width in zip(
            *(rows[name] for name in ("masklet_id", "kind", "height", "width")), strict=True
        ):
            if kind not in TERMS["kind"] or height < 1 or width < 1:
                raise ReleaseError(f"masklet {masklet_id}: {kind!r:.40}, {height} x {width} px: see masklets validate")
        length = [annotated(self._videos[v]) if v in self._videos else 0 for v in rows["video_id"]]
        seen = Seen.of(table, np.array(length, np.int64))
        frame_px = np.array(rows["height"], np.float64) * np.array(rows["width"], np.float64)
        share = seen.area_px / frame_px[seen.owner]
        self.masklets += table.num_rows
        self.batches.update(rows["batch_id"])
        self._areas += np.histogram(share, AREA_EDGES)[0]
        self._small += int((share < SMALL_MASK).sum())
        self._on_first += int((seen.first == 0).sum())
        self._phases.update(rows["phase"])
        self._labels.update(filter(None, rows["label"]))
        self._annotators.update(filter(None, rows["annotated_by"]))
        by_verifier = [is_verifier(name) for name in rows["verified_by"] if name]
        self._decided_alone += sum(by_verifier)
        self._reviewers.update(name for name in rows["verified_by"] if name and not is_verifier(name))
        for n, kind in enumerate(rows["kind"]):
            split = self._splits.setdefault(rows["split"][n], _Sums())
            for sums in (self._sums[kind], self._sums[ALL], split):
                sums.videos.add(rows["video_id"][n])
                sums.masklets += 1
                sums.masks += int(seen.masks[n])
                sums.reappearing += bool(seen.gaps[n])
            if seen.masks[n]:
                self._sizes[size_bucket(seen.area_sum[n] / seen.masks[n])] += 1
                self._changes[_up_to(int(seen.changes[n]))] += 1
            by_hand, from_file = rows["phase"][n] == BY_HAND, rows["checkpoint"][n] in imported.CHECKPOINTS
            self._held_out_with_model += rows["split"][n] != "train" and not by_hand and not from_file
            edited = rows["edited_frame_count"][n]
            made = self._makers.setdefault(rows["checkpoint"][n], Counter())
            made["edited" if edited else "unchanged"] += 1
            if kind == "manual":
                frames = length[n] or int(seen.length[n])
                part = min(1.0, edited / frames) if frames else 0.0
                self._edits[_edit_group(part)] += 1
                self._edited += part
                self._clicks += rows["click_count"][n]
                self._manual += 1

    def figures(self, release: Release, verdicts: Mapping[str, Mapping[str, int]]) -> Figures:
        used = [self._videos[video_id] for video_id in sorted(self._sums[ALL].videos) if video_id in self._videos]
        manual = self._manual
        masks = max(1, self._sums[ALL].masks)
        return Figures(
            release=release.name,
            digest=release.digest,
            groups={name: sums.group(self._videos) for name, sums in self._sums.items()},
            splits={name: self._splits[name].group(self._videos) for name in sorted(self._splits)},
            videos=_of_videos(used),
            sizes={name: self._sizes[name] for name in (*sav_figures.SIZES, sav_figures.LARGE)},
            area_share={f"{top:g}": int(n) for top, n in zip(AREA_EDGES[1:], self._areas, strict=True)},
            small_masks=self._small / masks,
            visibility_changes={_up_to(n): self._changes[_up_to(n)] for n in range(MOST_CHANGES + 1)},
            first_frame=self._on_first / self.masklets,
            edited_share={name: self._edits[name] for name in map(_edit_group, (0.0, *EDIT_EDGES[1:]))},
            edited_frames=self._edited / manual if manual else None,
            clicks=self._clicks / manual if manual else None,
            makers={name: dict(self._makers[name]) for name in sorted(self._makers)},
            verdicts=verdicts,
            phases={name: self._phases[name] for name in sorted(self._phases)},
            labels=dict(sorted(self._labels.items(), key=lambda of: (-of[1], of[0]))),
            people={"annotators": len(self._annotators), "reviewers": len(self._reviewers)},
            decided_alone=self._decided_alone,
            held_out_with_model=self._held_out_with_model,
        )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Where the objects of N masklets are visible. Frames without a row count as absent, as in an export."""

    owner: NDArray[np.int64]  # (M,) masklet of each mask
    area_px: NDArray[np.int64]  # (M,)
    masks: NDArray[np.int64]  # (N,)
    area_sum: NDArray[np.float64]  # (N,) px
    gaps: NDArray[np.int64]  # (N,) absences that the object comes back from
    changes: NDArray[np.int64]  # (N,) visibility changes
    first: NDArray[np.int64]  # (N,) annotated frame of the first mask; -1: none
    length: NDArray[np.int64]  # (N,) rows of the masklet, visible or not

    @classmethod
    def of(cls, table: pa.Table, frames: NDArray[np.int64]) -> Seen:
        """frames: (N,) annotated frames of the masklet's video. Raises ReleaseError for lists of different lengths."""
        count = table.num_rows
        frame_idx, lengths = _lists(table, "frame_idx")
        area, others = _lists(table, "area_px")
        if not np.array_equal(lengths, others):
            odd = table.column("masklet_id")[int(np.flatnonzero(lengths != others)[0])].as_py()
            raise ReleaseError(f"masklet {odd}: frame_idx and area_px differ in length")
        visible = area > 0
        owner = np.repeat(np.arange(count), lengths)[visible]
        place = frame_idx[visible] // STRIDE
        gap = (owner[1:] == owner[:-1]) & (np.diff(place) > 1)
        gaps = np.bincount(owner[1:][gap], minlength=count)
        first, last = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
        first[owner[::-1]] = place[::-1]  # the last assignment wins
        last[owner] = place
        leaves = (last >= 0) & (last < frames - 1)
        return cls(
            owner=owner,
            area_px=area[visible],
            masks=np.bincount(owner, minlength=count),
            area_sum=np.bincount(owner, weights=area[visible], minlength=count).astype(np.float64),
            gaps=gaps,
            changes=2 * gaps + leaves,
            first=first,
            length=lengths,
        )


def _lists(table: pa.Table, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The values of a list column one after the other, and the length of each list."""
    column = table.column(name).combine_chunks()
    lists = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    lengths = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False), np.int64)
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.int64), lengths


def _values(table: pa.Table, name: str) -> list[Any]:
    """A column as a list; a missing column or a null gives the record's default."""
    default = _DEFAULTS[name]
    if name not in table.column_names:
        return [default] * table.num_rows
    return [default if value is None else value for value in table.column(name).to_pylist()]


def size_bucket(size_px: float) -> str:
    """small, medium or large, from the mean area of a masklet's masks."""
    return next((name for name, below in sav_figures.SIZES.items() if size_px < below), sav_figures.LARGE)


def _up_to(changes: int) -> str:
    return str(changes) if changes < MOST_CHANGES else f"{MOST_CHANGES} or more"


def _edit_group(share: float) -> str:
    if share == 0:
        return "none"
    top = next(edge for edge in EDIT_EDGES[1:] if share <= edge)
    return f"up to {top:.0%}"


def _of_videos(videos: Sequence[Video]) -> Videos:
    if not videos:
        return Videos(duration_s=(0.0, 0.0, 0.0), size_px=((0, 0), (0, 0), (0, 0)))
    seconds = [video.duration_s for video in videos]
    by_size = sorted(((video.width, video.height) for video in videos), key=lambda wh: wh[0] * wh[1])
    mean = (round(sum(wh[0] for wh in by_size) / len(by_size)), round(sum(wh[1] for wh in by_size) / len(by_size)))
    return Videos(
        duration_s=(sum(seconds) / len(seconds), min(seconds), max(seconds)),
        size_px=(mean, by_size[0], by_size[-1]),
    )


def verdicts_of(blobs: Blobs, tables: Tables, batch_ids: Collection[str]) -> dict[str, dict[str, int]]:
    """checkpoint -> verdict -> answers of people about the candidates of these batches. Imported batches have none."""
    found: dict[str, Counter[str]] = {}
    for batch_id in batch_ids:
        if not batch_id.replace("-", "").isalnum():  # from a stranger's release; no batch of this store
            continue
        made_by = dict(_checkpoints(blobs, batch_id))
        if not made_by:
            continue
        acts = tables.operations(where=f"batch_id == '{batch_id}' and {ONLY}")
        for masklet_id, verdicts in verdicts_by_masklet(acts).items():
            if (checkpoint := made_by.get(masklet_id)) is not None:
                found.setdefault(checkpoint, Counter()).update(verdicts)
    return {name: dict(found[name]) for name in sorted(found)}


def verdicts_by_masklet(operations: Iterable[Operation]) -> dict[str, list[str]]:
    """masklet_id -> the verdicts of people about it that stand. operations: as for `standing_verdicts`."""
    found: dict[str, list[str]] = {}
    for act in standing_verdicts(operations):
        found.setdefault(act.masklet_id, []).append(str(json.loads(act.payload)["verdict"]))
    return found


def _checkpoints(blobs: Blobs, batch_id: str) -> Iterator[tuple[str, str]]:
    """Each candidate of a batch, and the checkpoint that made it."""
    for marker in parts.markers(blobs, "candidates", batch_id):
        table = arrow.read_parquet(blobs.read(marker.key), ("masklet_id", "checkpoint"))
        yield from zip(table.column("masklet_id").to_pylist(), table.column("checkpoint").to_pylist(), strict=True)
