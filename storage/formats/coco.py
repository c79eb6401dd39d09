"""COCO: one image for each annotated frame, one annotation for each object that it shows, masks as compressed RLE.

    annotations/instances_<split>.json
    images/<split>/<video>/00000.jpg       named by the number of the frame; only if they are wanted

The masks are equal to ours: COCO's RLE is the one of the releases. COCO knows images, not videos. So the file also has
what COCO-VID and TAO add: a list `videos`, `video_id` and `frame_id` of each image, `track_id` of each annotation. An
object that a frame does not show has no annotation there. What the source says about a video is in its field
`metadata`; its licence is also a row of `licenses`. Source: the data format at cocodataset.org, and pycocotools; for
the additions, mmtracking's CocoVID and the TAO dataset.
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
from storage.formats.labels import Categories, attributes_field, constant, label_of
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

_TRACK = ("track_id", "instance_id")


def export(
    release: Release,
    folder: Path,
    *,
    media: bool = False,
    line: Timeline = Timeline.STORED,
    progress: Progress | None = None,
) -> Exported:
    """Writes a release as COCO instances, a file for each split. media: the pictures too.

    Raises WrongFolder and ReleaseError.
    """
    splits = destination.splits(release)

    def write(job: Job) -> Written:
        if media:
            job.write_pictures("images", job.video.split, job.name)
        return job.written([], rows={"video": destination.about_video(job), "images": _images(job)})

    done = destination.total(
        folder, destination.each_video(folder, "coco", release, line, write, media=media, progress=progress)
    )
    for split in splits:
        done.files.append(_write_split(folder, release, split, line, media))
    return done


def _images(job: Job) -> list[dict[str, Any]]:
    """The annotated frames of a video, each with its annotations. Objects are numbered from 1 in the video."""
    video = job.video
    at = [dict(zip(row.frame_idx, zip(row.rle, row.area_px, strict=True), strict=True)) for row in job.masklets]
    labels = [label_of(row) for row in job.masklets]
    attributes = [attributes_field(row) for row in job.masklets]
    images = []
    for frame in job.frames.annotated:
        shown = []
        for n, masks in enumerate(at):
            counts, area = masks.get(frame.frame_idx, (b"", 0))
            if area:
                shown.append(
                    {
                        "track_id": n + 1,
                        "label": labels[n],
                        "segmentation": {"size": [video.height, video.width], "counts": counts.decode("ascii")},
                        "area": area,
                        "bbox": rle.box_xywh(counts, video.height, video.width),
                        **attributes[n],
                    }
                )
        name = f"{job.name}/{destination.picture_name(frame)}"
        images.append({"file_name": name, "frame_id": frame.number, "time_s": frame.time_s, "annotations": shown})
    return images


def _write_split(folder: Path, release: Release, split: str, line: Timeline, media: bool) -> Path:
    def rows() -> Iterator[tuple[int, int, dict[str, Any]]]:
        """(id of the video, id of the image, image) of every image of the split."""
        image_ids = count(1)
        for video_id, (_, _, written) in enumerate(destination.noted(folder, release, split, media=media), 1):
            for image in written.rows["images"]:
                yield video_id, next(image_ids), image

    licences = Licences()

    def videos() -> Iterator[dict[str, Any]]:
        for video_id, (video, _, written) in enumerate(destination.noted(folder, release, split, media=media), 1):
            yield {"id": video_id, **written.rows["video"], **licences.field(video), **video_metadata.field(video)}

    def images() -> Iterator[dict[str, Any]]:
        copied = {"width", "height", "license"}
        of_video = {row["id"]: {key: value for key, value in row.items() if key in copied} for row in videos()}
        for video_id, image_id, image in rows():
            facts = {key: value for key, value in image.items() if key != "annotations"}
            yield {"id": image_id, "video_id": video_id, **of_video[video_id], **facts}

    categories = Categories()

    def annotations() -> Iterator[dict[str, Any]]:
        ids, tracks = count(1), dict[tuple[int, int], int]()
        for video_id, image_id, image in rows():
            for found in image["annotations"]:
                facts = {key: value for key, value in found.items() if key not in ("label", "track_id")}
                track_id = tracks.setdefault((video_id, found["track_id"]), len(tracks) + 1)  # unique in the file
                category = categories.id_of(found["label"])
                yield (
                    {"id": next(ids), "image_id": image_id, "track_id": track_id, "category_id": category}
                    | facts
                    | {"iscrowd": 0}
                )

    path = destination.place(folder, "annotations", f"instances_{split}.json")
    lists = {"videos": videos(), "images": images(), "annotations": annotations()}
    later = {"categories": categories.later(), "licenses": licences.later()}
    return destination.write_json(path, {"info": destination.about(release, line)}, **lists, **later)


def read(data: bytes, file: str) -> Content:
    """What a file says about each of its videos.

    file: its path in the folder that is imported. Videos are those of the list `videos`; without it, the folders in the
    names of the pictures, otherwise one video that is called as the file is. Frames are `frame_id`, or the numbers at
    the end of the names. Objects are `track_id` or `instance_id`, also among `attributes`.
    Raises AnnotationError if it is no COCO file; what is wrong with one annotation is a problem of its video.
    """
    note = json_object(data, "images", "annotations")
    if not isinstance(note.get("images"), list) or not isinstance(note.get("annotations"), list):
        raise AnnotationError("COCO has the lists 'images' and 'annotations'")
    line = timeline_of(note)
    categories = names_by_id(note, "categories")
    called = {}
    for row in rows_of(note, "videos"):
        if type(row.get("id")) not in (int, str) or row["id"] in called:
            raise AnnotationError(f"'videos': the id {row.get('id')!r:.40} is missing or comes twice")
        called[row["id"]] = row
    videos: dict[object, _Reading] = {}
    reading_of: dict[int, tuple[_Reading, int]] = {}  # id of an image -> its video and its frame
    for image in rows_of(note, "images"):
        name = str(image.get("file_name") or "")
        about = of_id(called, image.get("video_id"))
        key = image.get("video_id") if about else str(PurePosixPath(name).parent)
        reading = videos.get(key)
        if reading is None:
            folder = PurePosixPath(name).parent
            names = [about.get("name"), about.get("source")] if about else []
            if not any(names):
                names = [folder.as_posix(), folder.name] if folder.name else [PurePosixPath(file).name]
            reading = videos[key] = _Reading(names_of(*names), metadata_in(about or {}))
        number = image.get("frame_id", number_in(name))
        reading.add_image(image, number, reading_of)
    seen: set[int] = set()
    strays = []
    for n, found in enumerate(rows_of(note, "annotations")):
        where = f"annotation {found.get('id', f'number {n}')}"
        place = of_id(reading_of, found.get("image_id"))
        if place is None:
            strays.append(f"{where}: there is no image {found.get('image_id')!r:.40}")
            continue
        reading, number = place
        try:
            if type(found.get("id")) is not int or found["id"] in seen:
                raise AnnotationError("its id is missing or comes twice")
            seen.add(found["id"])
            reading.add(found, number, categories)
        except AnnotationError as error:
            reading.problems.add(f"{where}: {error}")
    return Content(videos=[reading.video(line, split_of(file)) for reading in videos.values()], strays=strays)


class _Reading:
    """One video of a COCO file, while it is read."""

    def __init__(self, names: tuple[str, ...], metadata: dict[str, Any]) -> None:
        self.names, self.metadata, self.problems = names, metadata, Problems()
        self.hw: tuple[int, int] | None = None
        self.numbers: set[int] = set()
        self.tracks: dict[str, tuple[str, dict[int, bytes]]] = {}  # track -> label, masks
        self.attributes: dict[str, list[dict[str, Any]]] = {}  # track -> those of each of its annotations

    def add_image(self, image: dict[str, Any], number: object, reading_of: dict[int, tuple[_Reading, int]]) -> None:
        image_id, hw = image.get("id"), (image.get("height"), image.get("width"))
        where = f"image {image_id}"
        if type(image_id) is not int or image_id in reading_of:
            self.problems.add(f"{where}: its id is missing or comes twice")
            return
        if type(number) is not int or number < 0:
            self.problems.add(
                f"{where}: neither 'frame_id' nor its name {str(image.get('file_name'))[:80]} has a number"
            )
            number = -1
        elif number in self.numbers:
            self.problems.add(f"{where}: a second image of frame {number}")
        self.numbers.add(number)
        reading_of[image_id] = (self, number)
        if any(type(side) is not int or not 0 < side <= MAX_SIDE for side in hw):
            self.problems.add(f"{where}: its height and width are {list(hw)}")
        elif self.hw is None:
            self.hw = hw  # type: ignore[assignment]  # both are int: checked above
        elif self.hw != hw:
            self.problems.add(f"{where}: {list(hw)}, other images of its video are {list(self.hw)}")

    def add(self, found: dict[str, Any], number: int, categories: dict[int, str]) -> None:
        """Raises AnnotationError for an annotation that is not a mask of a known object."""
        attributes = found.get("attributes")
        places = [found, attributes] if isinstance(attributes, dict) else [found]
        track = next((of[key] for of in places for key in _TRACK if of.get(key) is not None), None)
        if track is None:
            raise AnnotationError("no 'track_id': which masks are one object is unknown")
        called = of_id(categories, found.get("category_id"))
        if called is None:
            raise AnnotationError(f"no category {found.get('category_id')!r:.40}")
        if self.hw is None:
            raise AnnotationError("its image has no size")
        counts = counts_of(found.get("segmentation"), *self.hw)
        label, masks = self.tracks.setdefault(str(track), (called, {}))
        if number in masks:
            raise AnnotationError(f"track {track} has two masks on frame {number}")
        if label != called:
            raise AnnotationError(f"track {track} is called {label!r} elsewhere")
        masks[number] = counts
        of_frame = places[1] if len(places) > 1 else {}
        own = {key: value for key, value in of_frame.items() if key not in _TRACK}
        self.attributes.setdefault(str(track), []).append(own)

    def video(self, line: Timeline | None, split: str | None) -> TrackedVideo:
        height, width = self.hw or (0, 0)
        return TrackedVideo(
            names=self.names,
            metadata=self.metadata,
            height=height,
            width=width,
            numbers=sorted(self.numbers),
            timeline=line,
            split=split,
            tracks=tuple(
                Track(where=f"track {name}", label=of[0], attributes=constant(self.attributes[name]), masks=of[1])
                for name, of in self.tracks.items()
            ),
            problems=tuple(self.problems.lines),
        )
