"""YouTube-VIS: the frames of each video as a list, and for each object a mask or null for each of these frames.

    <split>/instances.json
    <split>/JPEGImages/<video>/00000.jpg    named by the number of the frame; only if they are wanted

The masks are equal to ours: compressed RLE. The frames of a video are the annotated ones. Beside their names, we write
their numbers and times (`frame_ids`, `times_s`), and what the source says about the video (`metadata`). Source: the
data format of YouTube-VIS 2021 (Yang et al., "Video Instance Segmentation") and its API.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from storage import rle
from storage.dataset.releases import Release
from storage.formats import destination, video_metadata
from storage.formats.destination import Exported, Job, Progress, Written
from storage.formats.imported import AnnotationError
from storage.formats.labels import Categories, attributes_field, label_of
from storage.formats.timeline import Timeline
from storage.formats.tracks import (
    MAX_SIDE,
    Content,
    Problems,
    Track,
    TrackedVideo,
    counts_of,
    json_object,
    metadata_in,
    names_by_id,
    names_of,
    number_in,
    of_id,
    rows_of,
    split_of,
    timeline_of,
)
from storage.formats.video_metadata import Licences
from storage.records import Masklet


def export(
    release: Release,
    folder: Path,
    *,
    media: bool = False,
    line: Timeline = Timeline.STORED,
    progress: Progress | None = None,
) -> Exported:
    """Writes a release as YouTube-VIS, a file for each split. media: the pictures too.

    Raises WrongFolder and ReleaseError.
    """
    splits = destination.splits(release)

    def write(job: Job) -> Written:
        if media:
            job.write_pictures(job.video.split, "JPEGImages", job.name)
        frames = {
            "length": len(job.frames.annotated),
            "file_names": [f"{job.name}/{destination.picture_name(frame)}" for frame in job.frames.annotated],
            "frame_ids": [frame.number for frame in job.frames.annotated],
            "times_s": [frame.time_s for frame in job.frames.annotated],
        }
        objects = [_object(job, row) for row in job.masklets]
        return job.written([], rows={"video": destination.about_video(job) | frames, "objects": objects})

    done = destination.total(
        folder, destination.each_video(folder, "youtube-vis", release, line, write, media=media, progress=progress)
    )
    for split in splits:
        done.files.append(_write_split(folder, release, split, line, media))
    return done


def _object(job: Job, row: Masklet) -> dict[str, Any]:
    size = [job.video.height, job.video.width]
    at = {k: (counts, area) for k, counts, area in zip(row.frame_idx, row.rle, row.area_px, strict=True) if area}
    shown = [at.get(frame.frame_idx) for frame in job.frames.annotated]
    return {
        "label": label_of(row),
        "height": job.video.height,
        "width": job.video.width,
        "length": len(shown),
        "segmentations": [found and {"size": size, "counts": found[0].decode("ascii")} for found in shown],
        "bboxes": [found and rle.box_xywh(found[0], *size) for found in shown],
        "areas": [found and found[1] for found in shown],
        "iscrowd": 0,
        **attributes_field(row),
    }


def _write_split(folder: Path, release: Release, split: str, line: Timeline, media: bool) -> Path:
    categories, licences = Categories(), Licences()

    def videos() -> Iterator[dict[str, Any]]:
        for video_id, (video, _, written) in enumerate(destination.noted(folder, release, split, media=media), 1):
            yield {"id": video_id, **written.rows["video"], **licences.field(video), **video_metadata.field(video)}

    def annotations() -> Iterator[dict[str, Any]]:
        ids = count(1)
        for video_id, (_, _, written) in enumerate(destination.noted(folder, release, split, media=media), 1):
            for found in written.rows["objects"]:
                facts = {key: value for key, value in found.items() if key != "label"}
                category = categories.id_of(found["label"])
                yield {"id": next(ids), "video_id": video_id, "category_id": category} | facts

    path = destination.place(folder, split, "instances.json")
    lists = {"videos": videos(), "annotations": annotations()}
    later = {"categories": categories.later(), "licenses": licences.later()}
    return destination.write_json(path, {"info": destination.about(release, line)}, **lists, **later)


def read(data: bytes, file: str) -> Content:
    """What a file says about each of its videos.

    file: its path in the folder that is imported. Frames are `frame_ids`, or the numbers at the end of the names. A
    video is called as it says (`name`), or as the folder of its pictures.
    Raises AnnotationError if it is no YouTube-VIS file; what is wrong with one object is a problem of its video.
    """
    note = json_object(data, "videos", "annotations")
    if not isinstance(note.get("videos"), list) or not isinstance(note.get("annotations"), list):
        raise AnnotationError("YouTube-VIS has the lists 'videos' and 'annotations'")
    line, categories = timeline_of(note), names_by_id(note, "categories")
    rows: dict[int, tuple[dict[str, Any], Problems, list[Track]]] = {}
    for row in rows_of(note, "videos"):
        if type(row.get("id")) is not int or row["id"] in rows:
            raise AnnotationError(f"the id {row.get('id')!r} of a video is missing or comes twice")
        rows[row["id"]] = (row, Problems(), [])
    seen: set[object] = set()
    strays = []
    for n, found in enumerate(rows_of(note, "annotations")):
        where = f"annotation {found.get('id', f'number {n}')}"
        about = of_id(rows, found.get("video_id"))
        if about is None:
            strays.append(f"{where}: there is no video {found.get('video_id')!r:.40}")
            continue
        row, problems, tracks = about
        try:
            if type(found.get("id")) is not int or found["id"] in seen:
                raise AnnotationError("its id is missing or comes twice")
            seen.add(found["id"])
            tracks.append(_track(row, found, where, categories))
        except AnnotationError as error:
            problems.add(f"{where}: {error}")
    return Content(videos=[_video(*about, line, split_of(file)) for about in rows.values()], strays=strays)


def _numbers(row: dict[str, Any]) -> list[int]:
    """The frames of a video. Raises AnnotationError."""
    names = row.get("file_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AnnotationError("'file_names' is not a list of names")
    numbers = row.get("frame_ids", [number_in(name) for name in names])
    if (
        not isinstance(numbers, list)
        or [n for n in numbers if type(n) is not int or n < 0]
        or len(numbers) != len(names)
    ):
        raise AnnotationError("the names of its pictures do not end in numbers, or 'frame_ids' does not fit them")
    if numbers != sorted(set(numbers)):
        raise AnnotationError("its frames are not in order")
    return numbers


def _size(row: dict[str, Any]) -> tuple[int, int]:
    height, width = row.get("height"), row.get("width")
    if type(height) is not int or type(width) is not int or not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
        raise AnnotationError(f"its height and width are {[height, width]}")
    return height, width


def _track(row: dict[str, Any], found: dict[str, Any], where: str, categories: dict[int, str]) -> Track:
    numbers, hw, masks = _numbers(row), _size(row), found.get("segmentations")
    if not isinstance(masks, list) or len(masks) != len(numbers):
        raise AnnotationError(f"'segmentations' is not a list of {len(numbers)}, one for each frame")
    label = of_id(categories, found.get("category_id"))
    if label is None:
        raise AnnotationError(f"no category {found.get('category_id')!r:.40}")
    shown = {}
    for number, mask in zip(numbers, masks, strict=True):
        if mask:  # null or an empty list: absent
            try:
                shown[number] = counts_of(mask, *hw)
            except AnnotationError as error:
                raise AnnotationError(f"frame {number}: {error}") from None
    said = found.get("attributes")
    attributes = said if isinstance(said, dict) else {}
    return Track(where=where, label=label, attributes=attributes, masks=shown)


def _video(
    row: dict[str, Any], problems: Problems, tracks: list[Track], line: Timeline | None, split: str | None
) -> TrackedVideo:
    numbers: list[int] = []
    hw = (0, 0)
    try:
        numbers, hw = _numbers(row), _size(row)
    except AnnotationError as error:
        problems.lines.insert(0, f"video {row['id']}: {error}")
    pictures = row.get("file_names")
    folder = PurePosixPath(str(pictures[0])).parent if isinstance(pictures, list) and pictures else PurePosixPath()
    names = [row.get("name"), row.get("source")]
    if not any(names):
        names = [folder.as_posix(), folder.name] if folder.name else [str(row["id"])]
    return TrackedVideo(
        names=names_of(*names),
        metadata=metadata_in(row),
        height=hw[0],
        width=hw[1],
        numbers=numbers,
        timeline=line,
        split=split,
        tracks=tuple(tracks),
        problems=tuple(problems.lines),
    )
