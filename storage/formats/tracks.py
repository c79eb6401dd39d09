"""Tracks: what COCO, YouTube-VIS and CVAT say about the objects of a video, and how it becomes masklets.

Knows numbers of frames and masks. Does not know any file. Masks are placed by the frames that they were made on: each
annotated frame of the stored video gets the mask of the source frame that it shows. So an annotation must cover the
frames that are kept, 6 a second; it may cover more. What is bad is kept as a line, so that one bad row costs its video
and no other one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar

import numpy as np

from storage import rle
from storage.formats import imported, labels, polygons, timeline, video_metadata
from storage.formats.imported import MAX_METADATA, AnnotationError, Description, OtherFile
from storage.formats.sav_times import Timing, timing_of
from storage.formats.timeline import Timeline
from storage.masklet_rules import MAX_LABEL
from storage.records import STRIDE, Masklet, Video, content_id
from storage.wording import counted

Named = TypeVar("Named")  # what an id stands for
MAX_SIDE = 8192  # px of a picture: a larger mask is not unpacked
SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Track:
    """One object of a video."""

    where: str  # names it in messages, such as "track 3"
    label: str
    attributes: Mapping[str, Any] = field(default_factory=dict)  # by name; the same on every frame
    kind: str = "manual"
    masks: Mapping[int, bytes]  # frame number -> compressed counts; on other annotated frames, the object is absent
    gaps: tuple[tuple[int, int], ...] = ()  # (first, end): frames of which the file does not say where the object is


@dataclass(frozen=True, kw_only=True)
class TrackedVideo:
    """What a file says about one video."""

    names: tuple[str, ...]  # by which the video may be called, without the ending of a file; the first is its name
    height: int
    width: int
    numbers: Sequence[int]  # annotated frames, ascending
    timeline: Timeline | None = None  # None: the file does not say it
    frame_count: int | None = None  # of the whole video, on its timeline; None: the file does not say it
    split: str | None = None
    tracks: tuple[Track, ...] = ()
    problems: tuple[str, ...] = field(default=())  # lines about bad rows
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)  # what the file says about it, by column

    def describe(self) -> Description:
        """What is kept about the video. Raises AnnotationError for more than MAX_METADATA characters."""
        name = PurePosixPath(self.names[0]).name
        text = json.dumps(self.metadata)
        if len(name) + len(text) > MAX_METADATA:
            raise AnnotationError(f"{name:.80}: more than {MAX_METADATA} characters of name and metadata")
        return Description(name=name, split=self.split, metadata=text if self.metadata else None)

    def digest(self) -> str:
        """Changes when anything changes that an import reads."""
        rows = (
            (t.where, t.label, t.kind, sorted(t.masks.items()), t.gaps, *([t.attributes] if t.attributes else []))
            for t in self.tracks
        )
        facts = replace(self, tracks=(), numbers=tuple(self.numbers))
        said = [repr(sorted(self.metadata.items()))] if self.metadata else []  # none: as earlier versions had it
        return content_id(repr(facts), *map(repr, rows), *said)


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a file says."""

    videos: list[TrackedVideo]
    strays: list[str] = field(default_factory=list)  # lines about rows that belong to no video


class Problems:
    """Collects lines about the bad rows of one video."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(" ".join(line.split()))


def to_masklets(
    found: TrackedVideo, form: str, *, video: Video, source_s: Sequence[float], batch_id: str, first: int = 0
) -> list[Masklet]:
    """The masklets of a video, in the order of the file, as accepted masklets of batch `batch_id`.

    form: the name of the format; it stands for the checkpoint.  source_s: (N,) s of each frame of the source, from the
    first.  first: the position of the first object.
    Raises AnnotationError, in one line: also if the masks do not cover the frames that are kept.
    """
    if found.problems:
        more = len(found.problems) - 1
        raise AnnotationError(found.problems[0] + (f" (and {more} more)" if more else ""))
    hw, made_hw = (video.height, video.width), (found.height, found.width)
    if not imported.fits(hw, made_hw):
        raise AnnotationError(f"masks of {made_hw[0]} x {made_hw[1]}, the video is {hw[0]} x {hw[1]}")
    numbers = _kept(found, timing_of(video, source_s))
    rows = []
    for n, track in enumerate(found.tracks):
        masks = {}
        for frame_idx, number in zip(range(0, video.frame_count, STRIDE), numbers, strict=False):
            if gap := next((gap for gap in track.gaps if gap[0] <= number < gap[1]), None):
                raise AnnotationError(f"{track.where}: no shape on frame {number}, the last one is on {gap[0] - 1}")
            counts = track.masks.get(number)
            masks[frame_idx] = rle.empty(*hw) if counts is None else imported.fitted(counts, made_hw, hw)
        row = imported.accepted(masks, hw, position=first + n, kind=track.kind, checkpoint=form)
        masklet_id = content_id(form, video.video_id, track.kind, str(first + n), *masks.values())
        label = None if track.label == labels.NONE else track.label
        row = replace(
            row, masklet_id=masklet_id, label=label, attributes=labels.attributes_text(dict(track.attributes))
        )
        rows.append(replace(row, video_id=video.video_id, batch_id=batch_id, split=video.split))
    return rows


def _kept(found: TrackedVideo, timing: Timing) -> list[int]:
    """The number, on the timeline of the file, of each annotated frame of the stored video.

    Raises AnnotationError if the file lacks one of them, or if it is of a version of the video with other frames.
    """
    source, stored = len(timing.source_s), timing.frame_count
    line = found.timeline
    if line is None and found.frame_count is not None:
        fits = [Timeline.SOURCE] * (found.frame_count == source) + [Timeline.STORED] * (found.frame_count == stored)
        if not fits:
            raise AnnotationError(
                f"{counted(found.frame_count, 'frame')}; the file of the video has {source}, the stored video {stored}"
            )
        if len(fits) > 1 and timing.variable_rate:
            raise AnnotationError(f"{counted(source, 'frame')} at a variable rate and at 24 fps: whose are annotated?")
        line = fits[0]
    if line is Timeline.STORED:
        timing = Timing(frame_count=stored, source_s=[k / 24 for k in range(stored)], variable_rate=False)
    elif not source:
        raise AnnotationError("an earlier version ingested the video and kept no source frames")
    last = found.numbers[-1] if found.numbers else -1
    if last >= len(timing.source_s):
        raise AnnotationError(f"frame {last} is annotated, the video has {counted(len(timing.source_s), 'frame')}")
    try:
        at = timeline.positions(found.numbers, timing)
    except ValueError as error:
        raise AnnotationError(str(error)) from None
    return [found.numbers[t] for t in at]


def counts_of(segmentation: Any, height: int, width: int) -> bytes:
    """The compressed counts of a COCO segmentation: RLE, compressed or not, or a list of polygons.

    Raises AnnotationError in one line.
    """
    if isinstance(segmentation, list):
        try:
            rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in segmentation]
            return polygons.drawn(rings, height, width)
        except (ValueError, TypeError) as error:
            raise AnnotationError(f"its polygon cannot be read ({error})") from None
    if not isinstance(segmentation, dict):
        raise AnnotationError(f"its segmentation is {'null' if segmentation is None else type(segmentation).__name__}")
    if (size := segmentation.get("size")) != [height, width]:
        raise AnnotationError(f"its mask has the size {size}, its picture {[height, width]}")
    counts = segmentation.get("counts")
    if isinstance(counts, str) and counts.isascii():
        compressed = counts.encode()
        if (problem := rle.problem(compressed, height, width)) is not None:
            raise AnnotationError(f"its RLE is malformed: {problem}")
        return compressed
    if isinstance(counts, list):
        return rle.encode(filled(counts, height * width).reshape(width, height).T)
    raise AnnotationError(f"its RLE has counts of type {type(counts).__name__}")


def filled(runs: Sequence[Any], size: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The values of run lengths, background first: bool (size,). Raises AnnotationError unless they fill it exactly."""
    if any(type(run) is not int or not 0 <= run <= size for run in runs) or sum(runs) != size:
        raise AnnotationError(f"its run lengths are not whole numbers that fill {size} px")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def split_of(file: str) -> str | None:
    """The split that the path of a file names, as in instances_val.json or valid/instances.json."""
    path = PurePosixPath(file)
    words = [path.parent.name, path.stem, path.stem.rpartition("_")[2]]
    return next((SPLITS[word] for word in reversed(words) if word in SPLITS), None)


def number_in(file_name: str) -> int | None:
    """The number at the end of a picture's name, as in clip/00012.jpg or frame_000012.png."""
    stem = PurePosixPath(file_name.replace("\\", "/")).stem
    digits = stem[len(stem.rstrip("0123456789")) :]
    return int(digits) if digits and digits.isascii() and len(digits) < 10 else None


def names_of(*found: Any) -> tuple[str, ...]:
    """The names that are given, without endings of files, each once. Raises AnnotationError for no name."""
    names = [str(name).removesuffix("/") for name in found if isinstance(name, str) and name]
    known = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".ts", ".mpg", ".mpeg", ".json", ".xml"}
    cut = [name[: -len(end)] if (end := PurePosixPath(name).suffix).lower() in known else name for name in names]
    if not cut:
        raise AnnotationError("the video has no name")
    return tuple(dict.fromkeys(cut))


def metadata_in(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says about a video in the field that our exports write; empty in files of others."""
    said = row.get(video_metadata.FIELD)
    return said if isinstance(said, dict) else {}


def json_object(data: bytes, *keys: str) -> dict[str, Any]:
    """A file of COCO's style. Raises AnnotationError for bytes that are not JSON, OtherFile for one without any key."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"not JSON: {error}") from None
    if not isinstance(found, dict) or not any(key in found for key in keys):
        raise OtherFile(f"not a JSON object with {' and '.join(map(repr, keys))}")
    return found


def rows_of(note: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of objects in a file of COCO's style; empty if it is missing. Raises AnnotationError for anything else."""
    rows = note.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise AnnotationError(f"'{key}' is not a list of objects")
    return rows


def names_by_id(note: dict[str, Any], key: str) -> dict[Any, str]:
    """id -> name of such a list. Raises AnnotationError for an id that is missing or comes twice."""
    found: dict[Any, str] = {}
    for row in rows_of(note, key):
        if type(row.get("id")) is not int or row["id"] in found:
            raise AnnotationError(f"'{key}': the id {row.get('id')!r} is missing or comes twice")
        found[row["id"]] = str(row.get("name") or labels.NONE)[:MAX_LABEL]
    return found


def of_id(found: Mapping[Any, Named], wanted: Any) -> Named | None:
    """What a file calls by this id. None if there is nothing, also for ids that are no number and no word."""
    return found.get(wanted) if type(wanted) in (int, str) else None


def timeline_of(note: dict[str, Any]) -> Timeline | None:
    """The timeline that our exports write; None in files of others. Raises AnnotationError for another word."""
    info = note.get("info")
    word = info.get("timeline") if isinstance(info, dict) else None
    try:
        return None if word is None else Timeline(word)
    except ValueError:
        raise AnnotationError(f"'info' has the timeline {word!r:.40}") from None
