"""The Hugging Face Hub: Parquet files with a masklet a row, and the videos beside them.

    data/<split>/00000.parquet
    videos/<split>/<video>.mp4    only if they are wanted

Masks are equal to ours: compressed COCO counts, as texts. No file names a person: people are `person-1`, `person-2`, …
in the order of their first masklet id. Such a pseudonym holds in one export only. The author of a video keeps the
pseudonym that the store gave. Knows neither the card nor Croissant: see `engine/views/hub.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import make_dataclass
from itertools import count
from pathlib import Path
from typing import Any

from storage import arrow
from storage.arrow import ROWS_A_GROUP
from storage.dataset.releases import Release
from storage.formats import destination, video_metadata
from storage.formats.destination import CannotHold, Exported, Job, Progress, Written
from storage.formats.labels import NONE, label_of
from storage.formats.timeline import Timeline
from storage.formats.video_metadata import AUTHOR, ENVIRONMENT
from storage.records import FPS, Masklet, Video
from storage.whole_files import complete

FORM = "hf"  # the name of the format
DATA, VIDEOS = "data", "videos"
FILE_BYTES = 256 * 2**20  # of masks: a file that has so many is full

_TEXT, _TEXTS, _INTS, _FLOATS = str | None, tuple[str, ...], tuple[int, ...], tuple[float, ...]

#: The columns: name -> type, meaning. Lists run over the annotated frames.
COLUMNS: dict[str, tuple[Any, str]] = {
    "masklet_id": (str, "id of the masklet"),
    "video_id": (str, "id of its video"),
    "split": (str, "split of the video: all masklets of a video are in one"),
    "name": (str, "name of the video's file, without its ending"),
    "file_name": (_TEXT, "path of the video in this dataset; null if the videos are not part of it"),
    "width": (int, "px"),
    "height": (int, "px"),
    "fps": (float, "frames a second of the video whose frames are counted"),
    "video_frame_count": (int, "frames of this video"),
    "duration_s": (float, "seconds of this video"),
    "frame_idx": (_INTS, "numbers of the annotated frames, from 0"),
    "time_s": (_FLOATS, "their times, seconds"),
    "rle": (_TEXTS, "a mask a frame: COCO compressed counts of height x width; all zero where the object is absent"),
    "area_px": (_INTS, "area of each mask, px; 0 where the object is absent"),
    "score": (_FLOATS, "IoU of each mask as the model estimates it"),
    "object_score": (_FLOATS, "the model's logit that the object is present; above 0 it is"),
    "stability": (_FLOATS, "stability score of each mask"),
    "label": (_TEXT, "class of the object; null if nobody said it"),
    "attributes": (_TEXT, "JSON object of the object's attributes; null if it has none"),
    "kind": (str, "auto: a model's mask that people accepted unchanged; manual: people made or corrected it"),
    "phase": (str, "how people worked: auto, 1 (by hand), 2 (masks propagated), 3 (clicks on any frame)"),
    "verdict": (_TEXT, "decision about the masklet"),
    "checkpoint": (str, "the model that proposed or propagated it"),
    "round": (int, "retraining round of this model; 0 before the first"),
    "edited_frame_count": (int, "frames that a person edited"),
    "click_count": (int, "clicks of people"),
    "annotated_by": (_TEXT, "pseudonym of the person who made or corrected it"),
    "verified_by": (_TEXT, "pseudonym of the person, or id of the verifier model, that accepted it"),
    "parent_id": (_TEXT, "masklet that it corrects; of an auto masklet that shows a part, the one of the whole"),
    "author": (_TEXT, "pseudonym of who filmed the video; null if its source does not say it"),
    "place": (_TEXT, "where it was filmed"),
    "environment": (_TEXT, "Indoor or Outdoor, as in SA-V"),
    "country": (_TEXT, "country where it was filmed"),
    "license": (_TEXT, "licence that the source of the video states"),
    "metadata": (_TEXT, "JSON object of everything that the source says about the video; null for nothing"),
}
ROW: type[Any] = make_dataclass("Row", [(name, type_) for name, (type_, _) in COLUMNS.items()], frozen=True)


def export(
    release: Release,
    folder: Path,
    *,
    media: bool = False,
    line: Timeline = Timeline.STORED,
    progress: Progress | None = None,
    is_person: Callable[[str], bool] = lambda _: True,
) -> Exported:
    """Writes a release as Parquet files. media: the videos too.

    Files of videos that an earlier run wrote, and that are no longer in the release, are removed.
    is_person: whether a name belongs to a person. Other names are written as they are.
    Reads the masklets twice: a pseudonym follows from all of them.
    Raises CannotHold for videos on the timeline of their source, WrongFolder, ReleaseError.
    """
    if media and line is not Timeline.STORED:
        raise CannotHold("the videos of a release are at 24 fps: on the timeline of the source, export without them")
    splits = destination.splits(release)

    def write(job: Job) -> Written:
        written = []
        if media:
            path = job.place(VIDEOS, job.video.split, f"{job.name}.mp4")
            with complete(path) as temporary:
                shutil.copyfile(job.release.blobs.fetch(job.video.video_key), temporary)
            written.append(path)
        return job.written(written, rows=[_row(job, masklet, media) for masklet in job.masklets if job.shows(masklet)])

    done = destination.total(
        folder, destination.each_video(folder, FORM, release, line, write, media=media, progress=progress)
    )
    people = _people(release, is_person)
    tables = [path for split in splits for path in _write_split(folder, release, split, media, people)]
    for path in folder.glob(f"{DATA}/*/*.parquet"):
        if path not in tables:
            path.unlink()
    kept = {destination.place(folder, *path.split("/")) for path in video_paths(release)}
    for path in folder.glob(f"{VIDEOS}/*/*.mp4"):
        if path not in kept:
            path.unlink()
    return Exported([*done.files, *tables], repeats=done.repeats)


def video_paths(release: Release) -> list[str]:
    """Where the videos of a release lie in the dataset, also if it is written without them."""
    videos = release.videos()
    named = destination.names(videos)
    return [f"{VIDEOS}/{video.split}/{named[video.video_id]}.mp4" for video in videos]


def _row(job: Job, masklet: Masklet, media: bool) -> dict[str, Any]:
    """A row as JSON, without the names of people."""
    video, frames, label = job.video, job.frames, label_of(masklet)
    at = {k: t for t, k in enumerate(masklet.frame_idx)}
    shown = [(frame, at[frame.frame_idx]) for frame in frames.annotated if frame.frame_idx in at]
    return {
        "masklet_id": masklet.masklet_id,
        "video_id": video.video_id,
        "split": video.split,
        "name": job.name,
        "file_name": f"{VIDEOS}/{video.split}/{job.name}.mp4" if media else None,
        "width": video.width,
        "height": video.height,
        "fps": float(FPS) if frames.timeline is Timeline.STORED else video.source_fps,
        "video_frame_count": frames.frame_count,
        "duration_s": frames.duration_s,
        "frame_idx": [frame.number for frame, _ in shown],
        "time_s": [frame.time_s for frame, _ in shown],
        "rle": [masklet.rle[t].decode("ascii") for _, t in shown],
        "area_px": [masklet.area_px[t] for _, t in shown],
        "score": [masklet.score[t] for _, t in shown],
        "object_score": [masklet.object_score[t] for _, t in shown],
        "stability": [masklet.stability[t] for _, t in shown],
        "label": masklet.label if label == NONE else label,
        "attributes": masklet.attributes,
        "kind": masklet.kind,
        "phase": masklet.phase,
        "verdict": masklet.verdict,
        "checkpoint": masklet.checkpoint,
        "round": masklet.round,
        "edited_frame_count": masklet.edited_frame_count,
        "click_count": masklet.click_count,
        "parent_id": masklet.parent_id,
    }


People = dict[str, tuple[str | None, str | None]]  # masklet id -> pseudonyms of who annotated and who verified it


def _people(release: Release, is_person: Callable[[str], bool]) -> People:
    """The pseudonyms of people, by masklet. A hash of a name would be no pseudonym: a guessed name could be checked."""
    names = {row.masklet_id: (row.annotated_by, row.verified_by) for row in release.iter_masklets()}
    called: dict[str | None, str | None] = {None: None}
    numbers = count(1)
    for masklet_id in sorted(names):
        for name in names[masklet_id]:
            if name is not None and name not in called:
                called[name] = f"person-{next(numbers)}" if is_person(name) else name
    return {masklet_id: (called[made], called[verified]) for masklet_id, (made, verified) in names.items()}


def _rows(folder: Path, release: Release, split: str, media: bool, people: People) -> Iterator[dict[str, Any]]:
    for video, _, written in destination.noted(folder, release, split, media=media):
        said = _said(video)
        for row in written.rows:
            made, verified = people[row["masklet_id"]]
            yield row | {"annotated_by": made, "verified_by": verified} | said


def _said(video: Video) -> dict[str, str | None]:
    """The columns of what the source says about a video."""
    found = video_metadata.of(video)
    columns = {"author": AUTHOR, "place": "place", "environment": ENVIRONMENT, "country": "country"}
    said = {column: video_metadata.text_of(found.get(key)) for column, key in columns.items()}
    return said | {
        "license": video_metadata.licence_of(found),
        "metadata": json.dumps(found, ensure_ascii=False) if found else None,
    }


def _write_split(folder: Path, release: Release, split: str, media: bool, people: People) -> list[Path]:
    """The Parquet files of a split, one row group in memory. A split without a masklet has one file without a row."""
    rows = _rows(folder, release, split, media, people)
    row = next(rows, None)
    paths: list[Path] = []
    while row is not None or not paths:
        path = destination.place(folder, DATA, split, f"{len(paths):05d}.parquet")
        size = 0
        with complete(path) as temporary, arrow.writer(ROW, temporary) as file:
            while row is not None and size < FILE_BYTES:
                group: list[Any] = []
                while row is not None and len(group) < ROWS_A_GROUP and size < FILE_BYTES:
                    size += sum(map(len, row["rle"]))
                    group.append(ROW(**row))
                    row = next(rows, None)
                file.write_table(arrow.to_arrow(ROW, group))
        paths.append(path)
    return paths
