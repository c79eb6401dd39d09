"""SA-V's validation and test sets: pictures at 24 fps, and a PNG of each object on every fourth picture.

    sav_val.txt or sav_test.txt                    one name of a video a line
    JPEGImages_24fps/<video>/00000.jpg             named by the index in the video
    Annotations_6fps/<video>/<object>/00000.png    one object each: objects may overlap

Reads and writes the format. Every object has a PNG on every annotated frame, which is black where the
object is absent. A missing PNG is therefore damage, not an absent object. Source: sav_dataset/README.md of SAM 2's
repository, and its evaluator, which counts every value that is not black.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from storage import rle
from storage.dataset.releases import Release
from storage.formats import destination, picture_folder
from storage.formats.destination import CannotHold, Exported, Job, Progress, Written
from storage.formats.picture_folder import PictureVideo
from storage.formats.timeline import Timeline
from storage.pixels import PictureError
from storage.records import STRIDE
from storage.videos.video import FrameReader, jpeg
from storage.whole_files import complete
from storage.wording import counted

PICTURES, MASKS = "JPEGImages_24fps", "Annotations_6fps"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class SavFramesVideo(PictureVideo):
    """One video on disk; no picture and no mask is decoded yet."""

    frame_idx: tuple[int, ...]  # annotated frames, ascending
    objects: Mapping[str, tuple[Path, ...]] = field(repr=False)  # object -> a PNG for each annotated frame

    def masks(self) -> dict[str, dict[int, bytes]]:
        """object -> frame_idx -> compressed counts, of the frames that show the object.

        Raises PictureError for a PNG that cannot be read, has another size than the pictures or shows several objects,
        and for an object that no frame shows.
        """
        found: dict[str, dict[int, bytes]] = {}
        for name, paths in self.objects.items():
            found[name] = {}
            for frame_idx, path in zip(self.frame_idx, paths, strict=True):
                values, _ = picture_folder.read_png(path)
                self.check_size(path, values)
                if len(seen := set(np.unique(values).tolist()) - {0}) > 1:
                    raise PictureError(f"{path}: {counted(len(seen) + 1, 'value')}, the mask of one object has 2")
                if seen:
                    found[name][frame_idx] = rle.encode(values > 0)
            if not found[name]:
                raise PictureError(f"{paths[0].parent}: no object in {counted(len(paths), 'mask')}")
        return found


def export(
    release: Release, folder: Path, *, line: Timeline = Timeline.STORED, progress: Progress | None = None
) -> Exported:
    """Writes a release in this layout: every frame as a JPEG. The files of the result are the masks.

    Objects are numbered from 0 in the order of the release. An object that no frame shows gets no folder.
    Raises CannotHold for the timeline of the source, WrongFolder and ReleaseError.
    """
    if line is not Timeline.STORED:
        raise CannotHold("this layout of SA-V is at 24 frames a second: export sa-v on the timeline of the source")

    def write(job: Job) -> Written:
        with FrameReader(release.blobs.fetch(job.video.video_key), keep=1) as reader:
            for frame_idx in range(job.video.frame_count):
                with complete(job.place(PICTURES, job.name, f"{frame_idx:05d}.jpg")) as temporary:
                    temporary.write_bytes(jpeg(reader.read(frame_idx), 95))
        written = []
        for n, row in enumerate(row for row in job.masklets if any(row.area_px)):
            at = dict(zip(row.frame_idx, row.rle, strict=True))
            for frame in job.frames.annotated:
                path = job.place(MASKS, job.name, f"{n:03d}", f"{frame.number:05d}.png")
                counts = at.get(frame.frame_idx, rle.empty(row.height, row.width))
                with complete(path) as temporary:
                    Image.fromarray(rle.decode(counts, row.height, row.width).astype(np.uint8) * 255).save(temporary)
                written.append(path)
        return job.written(written)

    splits = destination.splits(release)
    done = destination.total(
        folder, destination.each_video(folder, "sa-v-frames", release, line, write, progress=progress)
    )
    for split in splits:
        listed = [name for _, name, _ in destination.noted(folder, release, split)]
        with complete(destination.place(folder, f"sav_{split}.txt")) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in listed))
    return done


def is_root(folder: Path) -> bool:
    """Whether a folder is laid out as these sets are."""
    return (folder / PICTURES).is_dir() and (folder / MASKS).is_dir()


def names(root: Path) -> dict[str, str]:
    """The videos of a root and the split of each, in the order of the lists.

    Without a list, all videos that have masks. Their split is the end of the folder's name, or "val".
    Raises PictureError for a root without any video.
    """
    found: dict[str, str] = {}
    lists = {split: root / f"sav_{split}.txt" for split in SPLITS}
    there = {split: path for split, path in lists.items() if path.is_file()}
    for split, path in there.items():
        found |= {line.strip(): split for line in path.read_text().splitlines() if line.strip()}
    if not there:
        split = next((split for split in SPLITS if root.absolute().name.endswith(split)), "val")
        found = {path.name: split for path in picture_folder.in_order((root / MASKS).iterdir()) if path.is_dir()}
    if not found:
        raise PictureError(f"{root}: {', '.join(p.name for p in there.values()) or MASKS} names no video")
    return found


def open_video(root: Path, name: str) -> SavFramesVideo:
    """One video of a root. Raises PictureError for pictures or masks that are missing, too many or of several sizes."""
    found = picture_folder.open_folder(root / PICTURES / name, name)
    for i, path in enumerate(found.pictures):
        if path.stem != f"{i:05d}":
            raise PictureError(f"{path}: the picture {i:05d}.jpg before it is missing")
    masks = root / MASKS / name
    folders = picture_folder.in_order(path for path in masks.glob("*") if path.is_dir())
    if not folders:
        raise PictureError(f"{masks}: no masks of the video {name}")
    objects = {
        folder.name: {path.stem: path for path in picture_folder.in_order(folder.glob("*.png"))} for folder in folders
    }
    expected = [f"{i:05d}" for i in range(0, len(found.pictures), STRIDE)]
    if len(expected) > 1 and not any(expected[-1] in of for of in objects.values()):
        del expected[-1]  # the last frame was not annotated
    for folder in folders:
        of = objects[folder.name]
        if extra := sorted(of.keys() - set(expected)):
            raise PictureError(
                f"{of[extra[0]]}: not a mask of every fourth of {counted(len(found.pictures), 'picture')}"
            )
        if missing := sorted(set(expected) - of.keys()):
            raise PictureError(f"{folder / missing[0]}.png is missing: every object has a mask on every fourth picture")
    return SavFramesVideo(
        **vars(found),
        frame_idx=tuple(map(int, expected)),
        objects={name: tuple(of[stem] for stem in expected) for name, of in objects.items()},
    )
