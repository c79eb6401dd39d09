"""SA-V's JSON: `{video_id}_manual.json` and `{video_id}_auto.json`, with the 20 keys of the original in its order.

Knows the format and our records. Reaches blobs only through a release. The format has no place for scores, operations
and checkpoints, so they are not exported. The fields that SA-V derives from the masks are computed on export; an import
compares them (`sav_figures.py`). What else an annotation says about its video is kept by `describe`, what else it says
about a masklet by `from_sav`; both are exported again.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from storage import rle
from storage.dataset.releases import Release
from storage.formats import by_frame, destination, imported, labels, sav_figures, sav_times, timeline, video_metadata
from storage.formats.by_frame import ByFrame
from storage.formats.destination import CannotHold, Exported, Job, Progress, Written
from storage.formats.imported import MAX_METADATA, AnnotationError, Description
from storage.formats.sav_times import Timing, timing_of
from storage.formats.timeline import Frames, Timeline
from storage.masklet_rules import TERMS
from storage.records import FPS, STRIDE, Masklet, Video, content_id
from storage.whole_files import complete
from storage.wording import counted

KEYS = (
    "video_id",
    "video_duration",
    "video_frame_count",
    "video_height",
    "video_width",
    "video_resolution",
    "video_environment",
    "video_split",
    "masklet",
    "masklet_id",
    "masklet_size_rel",
    "masklet_size_abs",
    "masklet_size_bucket",
    "masklet_visibility_changes",
    "masklet_first_appeared_frame",
    "masklet_frame_count",
    "masklet_edited_frame_count",
    "masklet_type",
    "masklet_stability_score",
    "masklet_num",
)

#: Our own fields, on the timeline of the source: the frame of the file that each annotated frame is, and its time, s.
TIMES = ("video_frame_idx", "video_frame_time_s")
NOTES = ("_manual.json", "_auto.json")  # the ends of the names of annotations; NAME.mp4 is beside them
ENVIRONMENT = "Unknown"  # SA-V has Indoor or Outdoor; a video that was not imported has no label
FRAMES = "frames"  # in a masklet's metadata: object of the fields with one value for each annotated frame


class SavError(AnnotationError):
    """This is not an SA-V annotation that we can read."""


def describe(annotation: dict[str, Any]) -> Description:
    """What an annotation says about its video. Fields with a value for each masklet are skipped: `from_sav` keeps them.

    Raises SavError for more than MAX_METADATA characters.
    """
    name = str(annotation.get("video_id") or "").encode(errors="backslashreplace").decode()
    skipped = {*KEYS, *TIMES, *_masklet_fields(annotation)} - {video_metadata.ENVIRONMENT}
    metadata = {key: value for key, value in annotation.items() if value is not None and key not in skipped}
    text = json.dumps(metadata)
    if len(name) + len(text) > MAX_METADATA:
        raise SavError(f"{name:.80}: more than {MAX_METADATA} characters of name and metadata")
    split = annotation.get("video_split")
    return Description(
        name=name or None,
        split=split if split in TERMS["split"] else None,
        metadata=text if metadata else None,
    )


def to_sav(video: Video, masklets: Sequence[Masklet], frames: Frames | None = None) -> dict[str, Any]:
    """The SA-V annotation of a video's masklets, all manual or all auto. A missing frame gets an empty mask.

    frames: of the video, on the timeline of the annotation; default: the stored video. On the timeline of the source,
    two fields that SA-V does not have say which frames were annotated: see TIMES.
    An imported video keeps the name and the metadata of its source, an imported masklet its metadata.
    Raises ValueError for no masklets, both kinds at once, a masklet of another video or size, or one without an object.
    """
    return by_frame.whole(_fields_of(video, masklets, frames))


def _fields_of(video: Video, masklets: Sequence[Masklet], frames: Frames | None) -> dict[str, Any]:
    """`to_sav`, with a `ByFrame` for each list over the annotated frames."""
    kinds = {masklet.kind for masklet in masklets}
    if len(kinds) != 1:
        raise ValueError(f"an SA-V file holds masklets of one kind, not {sorted(kinds)}")
    kind = kinds.pop()
    height, width = video.height, video.width
    on, nothing = frames or timeline.stored(video), rle.empty(height, width)
    indices = [frame.frame_idx for frame in on.annotated]
    places: list[dict[int, int]] = []  # of each masklet: frame_idx -> position in its lists
    derived: list[sav_figures.Derived] = []
    for masklet in masklets:
        if masklet.video_id != video.video_id or (masklet.height, masklet.width) != (height, width):
            raise ValueError(
                f"masklet {masklet.masklet_id} is of {masklet.video_id} at {masklet.height} x {masklet.width}, "
                f"not of {video.video_id} at {height} x {width}"
            )
        at = {frame_idx: t for t, frame_idx in enumerate(masklet.frame_idx)}
        places.append(at)
        derived.append(sav_figures.derive([masklet.area_px[at[i]] if i in at else 0 for i in indices], height, width))

    def at_frame(name: str, t: int, absent: Any) -> list[Any]:
        i = indices[t]
        return [getattr(m, name)[at[i]] if i in at else absent for m, at in zip(masklets, places, strict=True)]

    def masks(t: int) -> list[dict[str, Any]]:
        return [{"size": [height, width], "counts": c.decode("ascii")} for c in at_frame("rle", t, nothing)]

    manual, metadata = kind == "manual", _metadata(video)
    values = (
        video.source_name or video.video_id,
        on.duration_s,
        float(on.frame_count),
        float(height),
        float(width),
        float(height * width),
        metadata.pop(video_metadata.ENVIRONMENT, ENVIRONMENT),
        video.split,
        ByFrame(len(indices), masks),
        list(range(len(masklets))),
        [d.size_rel for d in derived],
        [d.size_abs for d in derived],
        [d.size_bucket for d in derived],
        [d.visibility_changes for d in derived],
        [float(d.first_appeared) if manual else d.first_appeared for d in derived],  # as in the original's files
        [len(indices)] * len(masklets),
        [masklet.edited_frame_count for masklet in masklets],
        [kind] * len(masklets),
        [None] * len(masklets) if manual else ByFrame(len(indices), lambda t: at_frame("stability", t, 1.0)),
        len(masklets),
    )
    found = dict(zip(KEYS, values, strict=True)) | metadata | _restored(masklets, places, indices)
    if on.timeline is Timeline.SOURCE:
        numbers, times = TIMES
        found |= {numbers: [frame.number for frame in on.annotated], times: [frame.time_s for frame in on.annotated]}
    return found


def from_sav(
    annotation: dict[str, Any],
    *,
    video: Video | None = None,
    hw: tuple[int, int] | None = None,
    source_s: Sequence[float] = (),
    batch_id: str = "sav",
) -> list[Masklet]:
    """The masklets of an SA-V annotation, in its order, as accepted masklets of batch `batch_id`.

    Masks are placed on the frames of the video at 24 fps that show what they were made on: see `sav_times`.

    Accepts what real files have: numbers as floats or strings, missing derived fields. SA-V has neither predicted IoU
    nor presence: `score` is 1.0, `object_score` is 10 or -10. A null mask is refused: an absent object has an empty
    mask in SA-V, and its training code takes a null for an unknown one.
    video: the stored video, if it is known. It gives id and split, and its duration must agree; one annotated frame
    past its end is skipped. Its masks must be on every 4th frame at 24 fps. Only masklets of a known video keep their
    metadata: the fields with a value for each masklet that SA-V does not define.
    hw: height and width of the video; default: those of `video`. Masks of an odd side lose their last row or column, as
    the stored video does.
    source_s: (N,) s from the first frame, of each frame of the video's file. Without it, and without a video, the
    annotation must state its frames and duration, and the rate is taken to be constant.
    Raises SavError, in one line.
    """
    sav_id = str(annotation.get("video_id") or "")
    name = sav_id or "annotation"
    frames = _frames(name, annotation)
    if not sav_id and video is None:
        raise SavError("annotation without 'video_id', and no video given")
    made_hw = _size(name, annotation, frames)
    timing = timing_of(video, source_s) if video else Timing.of(source_s) if source_s else None
    if TIMES[0] in annotation:
        annotation = _on_stored(name, annotation, timing)
        frames = annotation["masklet"]
    hw = hw or ((video.height, video.width) if video else made_hw)
    if not imported.fits(hw, made_hw):
        raise SavError(f"{name}: masks of {made_hw[0]} x {made_hw[1]}, the video is {hw[0]} x {hw[1]}")
    try:
        placed = _placed(name, annotation, video, timing)
    except SavError as error:
        if video is None or not video.variable_rate:
            raise
        rate = f"the rate of the video varies, {video.source_fps:.2f} frames a second on average"
        raise SavError(f"{error}; {rate}, {FPS} without change are needed") from None
    _no_repeats(name, annotation.get("masklet_id"))
    fields = _masklet_fields(annotation) if video else {}
    masklets = []
    for n in range(len(frames[0])):
        found = [_counts(name, frames[t][n], *made_hw, t, n) for t in placed]
        masks = [imported.fitted(counts, made_hw, hw) for counts, _ in found]
        areas = [area for _, area in found] if made_hw == hw else None
        made = _masklet(name, annotation, n, placed, masks, hw, areas)
        masklets.append(
            replace(
                made,
                masklet_id=content_id("sav", video.video_id if video else sav_id, made.kind, str(n), *masks),
                video_id=video.video_id if video else sav_id,
                batch_id=batch_id,
                split=video.split if video else str(annotation.get("video_split") or "train"),
                source_metadata=_masklet_metadata(name, annotation, fields, placed, n),
            )
        )
    return [labels.from_sav_fields(masklet) for masklet in masklets]


def _masklet(
    name: str,
    annotation: dict[str, Any],
    n: int,
    placed: Mapping[int, int],
    masks: Sequence[bytes],
    hw: tuple[int, int],
    areas: Sequence[int] | None,
) -> Masklet:
    """The n-th masklet of an annotation, without its id and its video. masks: COCO counts on the frames of `placed`."""
    kind = str(_at(annotation, "masklet_type", n) or "manual")
    if kind not in ("manual", "auto"):
        raise SavError(f"{name}: masklet {n} is of type {kind!r}")
    return imported.accepted(
        dict(zip(placed.values(), masks, strict=True)),
        hw,
        areas=areas,
        position=n,
        kind=kind,
        checkpoint="sa-v",
        stability=[_stability(annotation, t, n) for t in placed],
        edited_frame_count=_whole(name, _at(annotation, "masklet_edited_frame_count", n) or 0),
    )


def load(text: bytes) -> dict[str, Any]:
    """An annotation from the bytes of a file; its fields are not checked. Raises SavError if it is no JSON object."""
    try:
        annotation = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SavError(f"not JSON: {error}") from error
    if not isinstance(annotation, dict):
        raise SavError(f"an annotation is a JSON object, not {type(annotation).__name__}")
    return annotation


def read(
    path: Path,
    *,
    video: Video | None = None,
    hw: tuple[int, int] | None = None,
    source_s: Sequence[float] = (),
    batch_id: str = "sav",
) -> list[Masklet]:
    """`from_sav` of a file. Raises SavError also if it cannot be read."""
    try:
        return from_sav(load(path.read_bytes()), video=video, hw=hw, source_s=source_s, batch_id=batch_id)
    except (SavError, OSError) as error:
        raise SavError(f"{path.name}: {error}") from error


def export(
    release: Release,
    folder: Path,
    *,
    media: bool = False,
    line: Timeline = Timeline.STORED,
    progress: Progress | None = None,
) -> Exported:
    """Writes a release as SA-V files. media: the videos too, as `{video_id}.mp4`. An imported video keeps its name.

    Raises CannotHold for videos on the timeline of their source, WrongFolder, ReleaseError.
    """
    if media and line is not Timeline.STORED:
        raise CannotHold("the videos of a release are at 24 fps: on the timeline of the source, export without them")

    def write(job: Job) -> Written:
        written = []
        for kind in ("manual", "auto"):
            chosen = [row for row in job.masklets if row.kind == kind and job.shows(row)]
            if chosen:
                path = job.place(f"{job.name}_{kind}.json")
                with complete(path) as temporary, temporary.open("w") as file:
                    by_frame.write(file, _fields_of(job.video, chosen, job.frames))
                written.append(path)
        if media:
            path = job.place(f"{job.name}.mp4")
            with complete(path) as temporary:
                shutil.copyfile(release.blobs.fetch(job.video.video_key), temporary)
            written.append(path)
        return job.written(written)

    return destination.total(
        folder, destination.each_video(folder, "sa-v", release, line, write, media=media, progress=progress)
    )


def _metadata(video: Video) -> dict[str, Any]:
    """What `describe` kept, without the fields that `to_sav` writes itself."""
    metadata = video_metadata.of(video)
    return {key: value for key, value in metadata.items() if key == video_metadata.ENVIRONMENT or key not in KEYS}


def _masklet_fields(annotation: dict[str, Any]) -> dict[str, bool]:
    """The lists over masklets that SA-V does not define: key -> True for (T, N), False for (N,)."""
    frames = annotation.get("masklet")
    if not isinstance(frames, list) or not frames or not isinstance(frames[0], list):
        return {}
    number, objects = len(frames), len(frames[0])
    found = {}
    for key, value in annotation.items():
        if key in KEYS or not key.startswith("masklet") or not isinstance(value, list):
            continue
        if len(value) == number and all(isinstance(row, list) and len(row) == objects for row in value):
            found[key] = True
        elif len(value) == objects:
            found[key] = False
    return found


def _masklet_metadata(
    name: str, annotation: dict[str, Any], fields: dict[str, bool], placed: dict[int, int], n: int
) -> str | None:
    """What an annotation says about masklet n in these fields, as a JSON object; None without any field."""
    kept: dict[str, Any] = {key: annotation[key][n] for key, of_frames in fields.items() if not of_frames}
    by_frame = {key: [annotation[key][t][n] for t in placed] for key, of_frames in fields.items() if of_frames}
    text = json.dumps(kept | {FRAMES: by_frame} if by_frame else kept)
    if len(text) > MAX_METADATA:
        raise SavError(f"{name}: masklet {n}: more than {MAX_METADATA} characters of metadata")
    return text if fields else None


def _restored(masklets: Sequence[Masklet], places: Sequence[Mapping[int, int]], on: Sequence[int]) -> dict[str, Any]:
    """The fields that `_masklet_metadata` kept, as lists over masklets again. A masklet without the field has null.

    places: of each masklet, the position of a frame_idx in its lists. on: (T,) frame_idx of the exported frames.
    """
    kept = [
        video_metadata.json_object(f"masklet {m.masklet_id}", m.source_metadata) | labels.sav_fields(m)
        for m in masklets
    ]
    frames = [found if isinstance(found := of.pop(FRAMES, None), dict) else {} for of in kept]
    fields: dict[str, Any] = {key: [of.get(key) for of in kept] for of in kept for key in of}
    for key in dict.fromkeys(key for of in frames for key in of):
        columns = [[_at(of, key, at.get(i)) for i in on] for of, at in zip(frames, places, strict=True)]  # (N, T)
        fields[key] = [list(row) for row in zip(*columns, strict=True)]
    return {key: value for key, value in fields.items() if key.startswith("masklet") and key not in KEYS}


def _placed(name: str, annotation: dict[str, Any], video: Video | None, timing: Timing | None) -> dict[int, int]:
    """The place of each annotated frame in the video at 24 fps: see `sav_times`. A stored video has every 4th only."""
    count = len(annotation["masklet"])
    frame_count = _whole(name, annotation.get("video_frame_count") or 0)
    duration_s = _seconds(name, annotation.get("video_duration") or 0)
    try:
        if timing is None:
            if not frame_count or not duration_s:
                raise ValueError("no 'video_frame_count' and 'video_duration', and no video given")
            return sav_times.frame_indices(count, frame_count, duration_s)
        placed = sav_times.placed(count, frame_count, duration_s, timing)
    except ValueError as error:
        raise SavError(f"{name}: {error}") from None
    if video is not None and placed != {t: t * STRIDE for t in range(len(placed))}:
        number = f" of {frame_count}" if frame_count else ""
        rate = f"{counted(count, 'annotated frame')}{number} in {duration_s or timing.duration_s:g} s"
        raise SavError(f"{name}: {rate} are not {FPS // STRIDE} a second: they are not on every 4th frame at 24 fps")
    return {t: frame_idx for t, frame_idx in placed.items() if frame_idx < timing.frame_count}


def _on_stored(name: str, annotation: dict[str, Any], timing: Timing | None) -> dict[str, Any]:
    """An annotation that says which frames of the file it has, with the frames of the stored video instead."""
    numbers, frames = annotation[TIMES[0]], annotation["masklet"]
    if not isinstance(numbers, list) or [n for n in numbers if type(n) is not int] or len(numbers) != len(frames):
        raise SavError(f"{name}: '{TIMES[0]}' is a list of one frame number for each annotated frame")
    if numbers != sorted(set(numbers)):
        raise SavError(f"{name}: '{TIMES[0]}' is not in order")
    if timing is None or not timing.source_s:
        raise SavError(f"{name}: '{TIMES[0]}' counts frames of a file that is not known here")
    try:
        at = timeline.positions(numbers, timing)
    except ValueError as error:
        raise SavError(f"{name}: {error}") from None
    of_frames = [key for key, by_frame in _masklet_fields(annotation).items() if by_frame]
    scores = annotation.get("masklet_stability_score")
    if isinstance(scores, list) and len(scores) == len(frames) and all(isinstance(row, list) for row in scores):
        of_frames.append("masklet_stability_score")  # of a manual file, it is a list over objects
    moved = {key: [annotation[key][t] for t in at] for key in ["masklet", *of_frames]}
    figures = {"video_frame_count": float(timing.frame_count), "video_duration": timing.duration_s}
    return {key: value for key, value in annotation.items() if key not in TIMES} | figures | moved


def _frames(name: str, annotation: dict[str, Any]) -> list[list[Any]]:
    """The masks of an annotation: (T, N), not checked yet."""
    frames = annotation.get("masklet")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, list) for frame in frames):
        raise SavError(f"{name}: 'masklet' is a list over frames of lists over objects")
    if any(len(frame) != len(frames[0]) for frame in frames):
        raise SavError(f"{name}: frames with different numbers of objects")
    return frames


def _size(name: str, annotation: dict[str, Any], frames: list[list[Any]]) -> tuple[int, int]:
    """Height and width: from the first mask with a size, otherwise from the fields of the video."""
    for mask in (mask for frame in frames for mask in frame):
        if isinstance(mask, dict) and isinstance(mask.get("size"), list) and len(mask["size"]) == 2:
            return _whole(name, mask["size"][0]), _whole(name, mask["size"][1])
    return _whole(name, annotation.get("video_height")), _whole(name, annotation.get("video_width"))


def _counts(name: str, mask: Any, height: int, width: int, t: int, n: int) -> tuple[bytes, int]:
    """The compressed counts of one mask, and its area in px."""
    where = f"{name}: annotated frame {t}, masklet {n}"
    if mask is None:
        raise SavError(f"{where}: the mask is null; an absent object has an empty mask")
    if not isinstance(mask, dict):
        raise SavError(f"{where}: a mask is an object with size and counts")
    counts = mask.get("counts")
    if isinstance(counts, str) and counts.isascii():
        counts = counts.encode()
    if not isinstance(counts, bytes):
        raise SavError(f"{where}: counts are a compressed string, not {type(counts).__name__}")
    size = mask.get("size", [height, width])
    if not isinstance(size, list) or [_whole(where, side) for side in size] != [height, width]:
        raise SavError(f"{where}: size {size}, others have {[height, width]}")
    try:
        return counts, rle.area(counts, height, width)
    except rle.BadRle as error:
        raise SavError(f"{where}: {error}") from None


def _no_repeats(name: str, ids: Any) -> None:
    """Refuses an id that two masklets of a file have."""
    first = dict[str, int]()
    for n, each in enumerate(map(str, ids) if isinstance(ids, list) else ()):
        if first.setdefault(each, n) != n:
            raise SavError(f"{name}: masklets {first[each]} and {n} have the same id, {each:.80}")


def _stability(annotation: dict[str, Any], t: int, n: int) -> float:
    """The stability score of one mask; 1.0 if the file has no score, as for all manual masklets."""
    try:
        score = float(annotation["masklet_stability_score"][t][n])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return 1.0
    return score if math.isfinite(score) else 1.0


def _at(fields: dict[str, Any], key: str, n: int | None) -> Any:
    values = fields.get(key)
    return values[n] if isinstance(values, list) and n is not None and n < len(values) else None


def _seconds(name: str, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        raise SavError(f"{name}: {value!r:.40} is not a duration") from None
    if not 0 <= seconds < math.inf:
        raise SavError(f"{name}: a duration of {seconds} s")
    return seconds


def _whole(name: str, value: Any) -> int:
    """A whole number that may be written as 480, 480.0 or "480"."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise SavError(f"{name}: {value!r:.40} is not a number") from None
    if not number.is_integer() or number < 0:
        raise SavError(f"{name}: {value!r} is not a whole number")
    return int(number)
