"""Opens labelled datasets: a release, an SA-V folder (JSON with mp4 files, or frames with PNG masks) or a DAVIS root.

Only lists the videos; each one is opened by its entry later.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from engine.datasets.labelled import Dataset, DatasetError, Entry, LabelledVideo
from engine.datasets.rejected import of_video
from storage.blobs.base import Blobs
from storage.blobs.folder import LocalBlobs
from storage.dataset import releases, withdrawal
from storage.dataset.parts import PartError
from storage.dataset.releases import Release
from storage.formats import davis, picture_folder, sav, sav_frames
from storage.formats.picture_folder import PictureReader, PictureVideo
from storage.records import STRIDE, Video
from storage.videos.source_reader import SourceReader
from storage.videos.video import FrameReader
from storage.wording import counted


def open_dataset(where: str | Path, *, blobs: Blobs | None = None, split: str | None = None) -> Dataset:
    """Opens a folder (a release, SA-V or DAVIS), or a release of the store by its name.

    blobs: the store of the releases.  split: "train", "val" or "test"; None: all.
    Raises DatasetError, NoSuchRelease, PictureError.
    """
    folder = Path(where).expanduser()
    if folder.is_dir():
        found = _opened(folder)
    elif blobs is not None and "/" not in str(where):
        found = of_release(releases.load(blobs, str(where)))
    else:
        raise DatasetError(f"{where}: no such folder")
    return found.only(split)


def _opened(folder: Path) -> Dataset:
    if (folder / "manifest.json").is_file():
        root = folder.absolute().parents[1]  # <root>/releases/<name>
        return of_release(releases.load(LocalBlobs(root), folder.absolute().name))
    if davis.is_root(folder):
        listed = davis.names(folder).items()
        entries = (Entry(name, split, partial(_of_davis, folder, name, split)) for name, split in listed)
        return Dataset(str(folder), "DAVIS", tuple(entries))
    if sav_frames.is_root(folder):
        named = sav_frames.names(folder).items()
        return Dataset(
            str(folder), "SA-V", tuple(Entry(name, of, partial(_of_sav_frames, folder, name, of)) for name, of in named)
        )
    if found := _sav_videos(folder):
        return Dataset(str(folder), "SA-V", found)
    inside = [path.name for path in sorted(folder.iterdir()) if davis.is_root(path) or sav_frames.is_root(path)]
    hint = f". Datasets inside it: {', '.join(inside)}" if inside else ""
    raise DatasetError(
        f"{folder}: neither a release (manifest.json), nor DAVIS, YouTube-VOS or MOSE (JPEGImages and Annotations), "
        "nor SA-V (NAME_manual.json or NAME_auto.json, and NAME.mp4; or JPEGImages_24fps and Annotations_6fps)"
        f"{hint}"
    )


def of_release(release: Release, videos: Iterable[Video] | None = None, *, rejected: bool = False) -> Dataset:
    """The videos of a release; None: all. The name of an object is its masklet id. Withdrawn videos are left out.

    rejected: with the candidates that people rejected as no object, which are not in the release.
    """
    release = release.without(act.video_id for act in withdrawal.held_by(release))
    chosen = release.videos() if videos is None else videos
    entries = (Entry(v.video_id, v.split, partial(_of_release, release, v, rejected)) for v in chosen)
    return Dataset(release.name, "release", tuple(entries))


def _of_release(release: Release, video: Video, rejected: bool = False) -> LabelledVideo:
    try:
        none = of_video(release.blobs, video) if rejected else {}
    except PartError as error:
        raise DatasetError(str(error)) from error
    rows = {row.masklet_id: row for row in release.masklets([video.video_id])}
    return LabelledVideo(
        video_id=video.video_id,
        split=video.split,
        height=video.height,
        width=video.width,
        frame_count=video.frame_count,
        frame_idx=tuple(range(0, video.frame_count, STRIDE)),
        objects={name: row.shown() for name, row in rows.items()},
        rejected=none,
        edits={name: row.edited_frame_count for name, row in rows.items()},
        frames=partial(_stored, release.blobs, video.video_key),
        metadata=_metadata(video.source_metadata),
    )


def _metadata(written: str | None) -> dict[str, str]:
    """The metadata of a video as text by column; lists and objects are left out."""
    found = json.loads(written or "{}")
    plain = {key: value for key, value in found.items() if isinstance(value, str | int | float | bool)}
    return {key.removeprefix("video_"): str(value) for key, value in plain.items()}


def _stored(blobs: Blobs, key: str) -> FrameReader:
    return FrameReader(blobs.fetch(key))


def _sav_videos(folder: Path) -> tuple[Entry, ...]:
    """Every annotated video below a folder. Its mp4 file is beside the annotation, or the only one with this name."""
    videos: dict[str, list[Path]] = defaultdict(list)
    for path in picture_folder.in_order(folder.rglob("*.mp4")):
        videos[path.stem].append(path)
    notes: dict[str, list[Path]] = defaultdict(list)
    for path in picture_folder.in_order(path for suffix in sav.NOTES for path in folder.rglob(f"*{suffix}")):
        notes[path.name.rpartition("_")[0]].append(path)
    found = []
    for name, of_it in sorted(notes.items()):
        beside = [path for path in videos[name] if path.parent == of_it[0].parent]
        found.append(Entry(name, None, partial(_of_sav, name, tuple(beside or videos[name]), tuple(of_it))))
    return tuple(found)


def _of_sav(name: str, videos: tuple[Path, ...], notes: tuple[Path, ...]) -> LabelledVideo:
    """Objects are named by their kind and their position in the file: `manual-3`, `auto-0`."""
    if len(videos) != 1:
        hint = "" if videos else " (`masklets export --media` writes them)"
        raise DatasetError(f"{notes[0]}: {counted(len(videos), 'video')} {name}.mp4, one is needed{hint}")
    with SourceReader(videos[0]) as reader:
        height, width, count, times = reader.height, reader.width, reader.frame_count, reader.source_s
    annotated: tuple[int, ...] | None = None
    objects: dict[str, dict[int, bytes]] = {}
    edits: dict[str, int] = {}
    split = "train"
    for path in notes:
        for n, row in enumerate(sav.read(path, hw=(height, width), source_s=times)):
            if annotated not in (None, row.frame_idx):
                raise DatasetError(
                    f"{path}: {counted(len(row.frame_idx), 'annotated frame')}, {notes[0].name} has others"
                )
            annotated = row.frame_idx
            objects[f"{row.kind}-{n}"] = row.shown()
            edits[f"{row.kind}-{n}"] = row.edited_frame_count
            split = row.split
    return LabelledVideo(
        video_id=name,
        split=split,
        height=height,
        width=width,
        frame_count=count,
        frame_idx=annotated or (),
        objects=objects,
        edits=edits,
        frames=partial(SourceReader, videos[0]),
    )


def _of_davis(root: Path, name: str, split: str) -> LabelledVideo:
    """Objects are named by their number. Edits are unknown."""
    clip = davis.open_video(root, name, split)
    objects = {str(n): of for n, of in sorted(clip.masks().items())}
    return _of_pictures(name, split, clip, [frame_idx for frame_idx, _ in clip.annotations], objects)


def _of_sav_frames(root: Path, name: str, split: str) -> LabelledVideo:
    """Objects are named by their folder. Edits are unknown."""
    clip = sav_frames.open_video(root, name)
    return _of_pictures(name, split, clip, clip.frame_idx, clip.masks())


def _of_pictures(
    name: str,
    split: str,
    clip: PictureVideo,
    frame_idx: Sequence[int],
    objects: Mapping[str, Mapping[int, bytes]],
) -> LabelledVideo:
    """A video that is a folder of pictures. frame_idx: its annotated frames.  objects: name -> frame -> counts."""
    return LabelledVideo(
        video_id=name,
        split=split,
        height=clip.height,
        width=clip.width,
        frame_count=len(clip.pictures),
        frame_idx=tuple(frame_idx),
        objects=objects,
        edits={},
        frames=partial(PictureReader, name, clip.pictures),
    )
