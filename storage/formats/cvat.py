"""CVAT for video 1.1: one XML file for each video, with a track for each object.

Two ways of writing, because CVAT has no tracks of masks (its importer keeps only the first mask of such a track):
    polygons  one track an object, a polygon for each annotated frame. People can go on with these tracks in CVAT
    masks     one mask for each object and annotated frame, equal to ours; `group_id` says which are one object

Frames are counted as CVAT counts those of a video. Between annotated frames, CVAT interpolates polygons. After a frame
with `outside="1"`, the object is absent. A mask is stored as run lengths of its box, row by row, background first.
Source: "XML annotation format" of CVAT's documentation, and cvat/apps/dataset_manager/formats/cvat.py.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from storage import rle
from storage.dataset.releases import Release
from storage.formats import destination, labels, polygons
from storage.formats.destination import Agreement, CannotHold, Exported, Job, Progress, Written
from storage.formats.imported import AnnotationError, OtherFile
from storage.formats.labels import attributes_of, constant, label_of
from storage.formats.timeline import Timeline
from storage.formats.tracks import MAX_SIDE, Content, Problems, Track, TrackedVideo, filled, names_of
from storage.masklet_rules import MAX_LABEL
from storage.pixels import Mask
from storage.records import Masklet
from storage.whole_files import complete

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def export(
    release: Release,
    folder: Path,
    *,
    masks: bool = False,
    media: bool = False,
    line: Timeline = Timeline.STORED,
    progress: Progress | None = None,
) -> Exported:
    """Writes a release for CVAT, as polygons or as masks. media: the videos too, to make the tasks from.

    Raises CannotHold for videos on the timeline of their source and for a label that XML cannot hold, WrongFolder and
    ReleaseError.
    """
    if media and line is not Timeline.STORED:
        raise CannotHold("the videos of a release are at 24 fps: on the timeline of the source, export without them")
    form = "cvat-masks" if masks else "cvat"

    def write(job: Job) -> Written:
        ious: list[float] = []
        path = job.place(f"{job.name}.xml")
        files = [path]
        with complete(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(_head(job))
            for n, row in enumerate(job.masklets):
                file.writelines(_masks(job, n, row) if masks else _polygons(job, n, row, ious))
            file.write("</annotations>\n")
        if media:
            files.append(job.place(f"{job.name}.mp4"))
            with complete(files[-1]) as temporary:
                shutil.copyfile(release.blobs.fetch(job.video.video_key), temporary)
        return job.written(files, agreement=Agreement.of(ious))

    return destination.total(
        folder, destination.each_video(folder, form, release, line, write, media=media, progress=progress)
    )


def _head(job: Job) -> Iterator[str]:
    video = destination.about_video(job)
    source = f"{job.name}.mp4" if job.frames.timeline is Timeline.STORED else str(video["source"])
    yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task>\n'
    yield f"<name>{escape(_xml(job.name))}</name><size>{job.frames.frame_count}</size><mode>interpolation</mode>\n"
    yield f"<start_frame>0</start_frame><stop_frame>{job.frames.frame_count - 1}</stop_frame><frame_filter/>\n<labels>"
    yield from _classes(job.masklets)
    yield f"</labels>\n<original_size><width>{video['width']}</width><height>{video['height']}</height></original_size>"
    yield f"\n<source>{escape(_xml(source))}</source>\n</task></meta>\n"


def _classes(masklets: Iterable[Masklet]) -> Iterator[str]:
    """The classes of these masklets, each with its attributes: true and false as a checkbox, others as a choice."""
    values: dict[str, dict[str, list[Any]]] = {}
    for row in masklets:
        of_class = values.setdefault(label_of(row), {})
        for name, value in attributes_of(row).items():
            of_class.setdefault(name, []).append(value)
    for label, attributes in sorted(values.items()):
        yield f"<label><name>{escape(_xml(label))}</name><attributes>"
        for name, found in sorted(attributes.items()):
            kind = "checkbox" if all(isinstance(value, bool) for value in found) else "select"
            texts = ["true", "false"] if kind == "checkbox" else sorted({_text(value) for value in found})
            yield f"<attribute><name>{escape(_xml(name))}</name><mutable>False</mutable><input_type>{kind}</input_type>"
            yield f"<default_value>{escape(_xml(texts[-1]))}</default_value>"
            yield f"<values>{escape(_xml(chr(10).join(texts)))}</values></attribute>"
        yield "</attributes></label>"


def _attributes(row: Masklet) -> str:
    """The attributes of an object, as each of its shapes has them."""
    found = sorted(attributes_of(row).items())
    return "".join(f"<attribute name={quoteattr(_xml(name))}>{escape(_xml(_text(v)))}</attribute>" for name, v in found)


def _text(value: object) -> str:
    """The value of an attribute in CVAT, which knows only texts."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _polygons(job: Job, n: int, row: Masklet, ious: list[float]) -> Iterator[str]:
    """The track of an object. Appends the IoU of each polygon with its mask."""
    attributes = _attributes(row)
    at = row.shown()
    yield f'<track id="{n}" label={quoteattr(_xml(label_of(row)))} source="{row.kind}">\n'
    points = ""  # of the last frame that shows the object
    for frame in job.frames.annotated:
        if shown := frame.frame_idx in at:
            ring, agreed = polygons.shape_of(at[frame.frame_idx], row.height, row.width)
            ious.append(agreed)
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in ring.tolist())
        if points:
            facts = f'frame="{frame.number}" keyframe="1" outside="{int(not shown)}" occluded="0"'
            yield f'<polygon {facts} points="{points}" z_order="0">{attributes}</polygon>\n'
    yield "</track>\n"


def _masks(job: Job, n: int, row: Masklet) -> Iterator[str]:
    """A track for each frame that shows the object, as CVAT writes masks: it ends in the next frame."""
    at = row.shown()
    label, attributes = quoteattr(_xml(label_of(row))), _attributes(row)
    for frame in job.frames.annotated:
        if frame.frame_idx not in at:
            continue
        left, top, width, height = rle.box_xywh(at[frame.frame_idx], row.height, row.width)
        mask = rle.decode(at[frame.frame_idx], row.height, row.width)[top : top + height, left : left + width]
        box = f'rle="{", ".join(map(str, runs_of(mask)))}" left="{left}" top="{top}" width="{width}" height="{height}"'
        yield f'<track id="{n}" label={label} source="{row.kind}" group_id="{n + 1}">\n'
        for number, outside in ((frame.number, 0), (frame.number + 1, 1)):
            if number < job.frames.frame_count:
                facts = f'frame="{number}" keyframe="1" outside="{outside}" occluded="0"'
                yield f'<mask {facts} {box} z_order="0">{attributes}</mask>\n'
        yield "</track>\n"


def runs_of(mask: Mask) -> list[int]:
    """CVAT's run lengths of a mask: row by row, background first."""
    flat = mask.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return [0, *runs] if flat[0] else runs


def _xml(text: str) -> str:
    if found := _NOT_XML.search(text):
        raise CannotHold(f"{text!r:.80}: XML has no place for the character {found[0]!r}")
    return text


def read(data: bytes, file: str) -> Content:
    """What a file says about its video: tracks of polygons, and masks that a `group_id` joins.

    file: its path in the folder that is imported. The video is called as the source of the task, the file or the task.
    Raises AnnotationError if it is no file of CVAT for video; what is wrong with one track is a problem of the video.
    """
    root = _parsed(data)
    meta = root.find("meta/task") if root.find("meta/task") is not None else root.find("meta/job")
    if root.tag != "annotations":
        raise OtherFile(f"an XML file of {root.tag:.40}, not of annotations")
    if meta is None:
        raise AnnotationError("not a task of CVAT: it has no meta/task (of a project, export each task)")
    problems = Problems()
    size, start = _number(meta.findtext("size")), _number(meta.findtext("start_frame") or "0")
    height, width = (_number(meta.findtext(f"original_size/{side}")) for side in ("height", "width"))
    if root.find("image") is not None or max(height, width) > MAX_SIDE or not min(height, width):
        raise AnnotationError("not CVAT for video: it has images, or no size of its frames")
    step = re.search(r"step\s*=\s*([1-9][0-9]{0,3})", meta.findtext("frame_filter") or "")
    every = int(step[1]) if step else 1
    numbers = range(start, start + size * every, every)
    tracks: dict[str, Track] = {}
    for n, element in enumerate(root.iter("track")):
        where = f"track {element.get('id', f'number {n}')}"
        try:
            _add_track(tracks, where, element, (height, width))
        except (AnnotationError, polygons.BadPolygon) as error:
            problems.add(f"{where}: {error}")
    whole = start == 0 and every == 1
    return Content(
        videos=[
            TrackedVideo(
                names=names_of(meta.findtext("source"), PurePosixPath(file).name, meta.findtext("name")),
                height=height,
                width=width,
                numbers=numbers,
                timeline=None,
                frame_count=size if whole else None,
                tracks=tuple(tracks.values()),
                problems=tuple(problems.lines),
            )
        ]
    )


def _parsed(data: bytes) -> Element:
    """The root. A file with declarations of its own, which could make it grow without limit, is refused."""
    try:
        text = data.decode("utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise AnnotationError("an XML file with declarations of its own (DOCTYPE) is not read")
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise AnnotationError(f"not XML: {error}") from None


def _add_track(tracks: dict[str, Track], where: str, element: Element, hw: tuple[int, int]) -> None:
    """Adds a track, or a mask to the object of its group. Raises AnnotationError and BadPolygon."""
    label = (element.get("label") or labels.NONE)[:MAX_LABEL]
    kind = "auto" if element.get("source") in ("auto", "semi-auto") else "manual"
    shapes = sorted(element, key=lambda shape: _number(shape.get("frame")))
    if strange := next((shape.tag for shape in shapes if shape.tag not in ("polygon", "mask")), None):
        raise AnnotationError(f"a {strange} is not a mask: polygons and masks are read")
    masks: dict[int, bytes] = {}
    gaps = []
    before: tuple[int, bool] | None = None  # frame of the shape before, and whether the object is there
    for shape in shapes:
        number, shown = _number(shape.get("frame")), shape.get("outside") != "1"
        if before and number == before[0]:
            raise AnnotationError(f"two shapes on frame {number}")
        if shown:
            masks[number] = _mask(shape, *hw) if shape.tag == "mask" else _polygon(shape, *hw)
        if before and before[1] and number > before[0] + 1:
            gaps.append((before[0] + 1, number))
        before = number, shown
    if before and before[1] and shapes[-1].tag == "polygon":
        gaps.append((before[0] + 1, 2**31))  # CVAT goes on with the last shape
    attributes = constant(map(_said, shapes))
    if not any(shape.tag == "mask" for shape in shapes):
        about = Track(where=where, label=label, attributes=attributes, kind=kind, masks=masks, gaps=tuple(gaps))
        tracks[where] = about
        return
    group = element.get("group_id", "0")
    if group == "0":
        raise AnnotationError("a mask without 'group_id': which masks are one object is unknown")
    name = f"group {group}"
    known = tracks.get(name, Track(where=name, label=label, attributes=attributes, kind=kind, masks={}))
    if twice := known.masks.keys() & masks.keys():
        raise AnnotationError(f"{name} has two masks on frame {min(twice)}")
    if known.label != label:
        raise AnnotationError(f"{name} is called {known.label!r} elsewhere")
    same = {key: value for key, value in known.attributes.items() if attributes.get(key, value) == value}
    tracks[name] = replace(known, attributes=same, masks={**known.masks, **masks})


def _said(shape: Element) -> dict[str, Any]:
    """The attributes of a shape. CVAT knows only texts; of these, true and false stand for themselves."""
    words = {"true": True, "false": False}
    found = {each.get("name", ""): (each.text or "").strip() for each in shape.iter("attribute")}
    return {name: words.get(text.lower(), text) for name, text in found.items() if name and text}


def _polygon(shape: Element, height: int, width: int) -> bytes:
    try:
        points = [[float(side) for side in point.split(",")] for point in (shape.get("points") or "").split(";")]
    except ValueError:
        raise AnnotationError(f"frame {shape.get('frame')}: its points are not numbers") from None
    if any(len(point) != 2 for point in points):
        raise AnnotationError(f"frame {shape.get('frame')}: its points are not pairs x,y")
    return polygons.drawn([points], height, width)


def _mask(shape: Element, height: int, width: int) -> bytes:
    left, top, w, h = (_number(shape.get(name)) for name in ("left", "top", "width", "height"))
    if left + w > width or top + h > height or not w or not h:
        raise AnnotationError(f"frame {shape.get('frame')}: its mask does not lie in {width} x {height} px")
    runs = [_number(run.strip()) for run in (shape.get("rle") or "").split(",")]
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + h, left : left + w] = filled(runs, w * h).reshape(h, w)
    return rle.encode(mask)


def _number(text: str | None) -> int:
    if text is None or not re.fullmatch("[0-9]{1,9}", text):
        raise AnnotationError(f"{text!r:.40} is not a whole number")
    return int(text)
