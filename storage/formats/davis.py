"""DAVIS: reads and writes a folder of pictures and a folder of palette PNGs for each sequence.

    JPEGImages/<resolution>/<sequence>/00000.jpg
    Annotations/<resolution>/<sequence>/00000.png    one picture of object ids, 0 is the background
    ImageSets/<year>/train.txt, val.txt              one name of a sequence a line

Knows the format and our records. Reaches blobs only through a release. The format has no times, so the index of a frame
is its place among the pictures of the sequence. Also reads DAVIS-2016, which has greyscale masks of one object instead
of a palette, and lists pictures instead of sequences. Source: the files of DAVIS 2016 and 2017 and the evaluation code
of 2017. For that code, 255 means "void", so ids go up to 254. Also reads YouTube-VOS and MOSE, which have no folders
for resolutions and no image sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage import rle
from storage.dataset.releases import Release
from storage.formats import destination, picture_folder
from storage.formats.destination import Exported, Job, Progress, Written
from storage.formats.picture_folder import PictureVideo
from storage.formats.timeline import Timeline
from storage.pixels import PictureError
from storage.records import Masklet, Video
from storage.whole_files import complete
from storage.wording import counted

Ids = NDArray[np.uint8]  # (H, W)

RESOLUTIONS = ("480p", "Full-Resolution")  # read: the first of them that exists
WRITTEN = "Full-Resolution", "2017"  # resolution and year of what we write
VOID = 255
#: names of image sets, and of the roots that have none -> split
SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test", "test-dev": "test", "test-challenge": "test"}


class DavisError(PictureError):
    """This is not a DAVIS dataset that we can read or write."""


@dataclass(frozen=True, kw_only=True)
class DavisVideo(PictureVideo):
    """One sequence on disk; no picture and no mask is decoded yet."""

    split: str  # the image set that lists it
    annotations: tuple[tuple[int, Path], ...]  # (frame_idx, PNG), ascending

    def masks(self) -> dict[int, dict[int, bytes]]:
        """id -> frame_idx -> compressed counts, of the objects and frames that are visible.

        Without a palette, a sequence shows one object, and its masks have only black and one other value.
        Raises PictureError for a PNG that cannot be read, has another size than the pictures, or holds no object ids.
        """
        found: dict[int, dict[int, bytes]] = {}
        kinds: dict[bool, Path] = {}  # whether a mask that is not black has a palette -> the first such mask
        for frame_idx, path in self.annotations:
            values, indexed = picture_folder.read_png(path)
            self.check_size(path, values)
            for n in np.unique(values[values > 0]):
                kinds.setdefault(indexed, path)
                found.setdefault(int(n), {})[frame_idx] = rle.encode(values == n)
            if False in kinds and len(kinds) + len(found) > 2:
                how = (
                    "others have one"
                    if True in kinds
                    else f"grey in {counted(len(found) + 1, 'value')} in its sequence"
                )
                raise DavisError(f"{path}: masks without a palette, and {how}: the objects are unknown")
        if False in kinds:
            return {1: found.popitem()[1]}
        if set(found) == {VOID}:
            raise DavisError(f"{kinds[True].parent}: its masks hold only id {VOID}, which is void in DAVIS: no object")
        return {n: masks for n, masks in found.items() if n != VOID}


def is_root(folder: Path) -> bool:
    """Whether a folder is laid out as DAVIS is, or as YouTube-VOS and MOSE: without resolutions and image sets."""
    return (folder / "JPEGImages").is_dir() and (folder / "Annotations").is_dir()


def names(root: Path) -> dict[str, str]:
    """The sequences of a root and the image set of each, in the order of the image sets.

    The image sets are those of the newest year. Without the folder ImageSets, all sequences; their split is the name of
    the root, such as "valid", and otherwise "train".
    Raises DavisError for a root without any sequence.
    """
    if not is_root(root):
        raise DavisError(f"{root}: a DAVIS root has the folders JPEGImages and Annotations")
    sets = sorted(path for path in (root / "ImageSets").glob("*") if any(path.glob("*.txt")))
    if not sets:
        folder = root / "JPEGImages" / _resolution(root)
        split = SPLITS.get(root.absolute().name, "train")
        if not (found := {path.name: split for path in picture_folder.in_order(folder.iterdir()) if path.is_dir()}):
            raise DavisError(f"{folder}: no folder of a sequence")
        return found
    newest = max(sets, key=lambda path: (path.name.isdigit(), path.name))
    found = {}
    for listing in (newest / f"{name}.txt" for name in SPLITS):
        for line in listing.read_text().splitlines() if listing.exists() else []:
            if word := line.split()[:1]:  # DAVIS-2016 lists a picture and its mask: /JPEGImages/480p/bear/00000.jpg …
                name = word[0].split("/")[-2] if "/" in word[0] else word[0]
                found.setdefault(name, SPLITS[listing.stem])
    if not found:
        raise DavisError(f"{newest}: {', '.join(f'{name}.txt' for name in SPLITS)} list no sequence")
    return found


def open_video(root: Path, name: str, split: str) -> DavisVideo:
    """One sequence of a root.

    Raises PictureError for a sequence without pictures, pictures of several sizes, and a mask without its picture.
    """
    resolution = _resolution(root)
    found = picture_folder.open_folder(root / "JPEGImages" / resolution / name, name)
    at = {path.stem: i for i, path in enumerate(found.pictures)}
    masks = picture_folder.in_order((root / "Annotations" / resolution / name).glob("*.png"))
    for path in masks:
        if path.stem not in at:
            raise DavisError(f"{path}: its picture {path.stem}.jpg is missing")
    return DavisVideo(**vars(found), split=split, annotations=tuple((at[path.stem], path) for path in masks))


def write_ids(path: Path, ids: Ids) -> None:
    """Object ids as a PNG with the palette of DAVIS."""
    image = Image.fromarray(ids)
    image.putpalette(palette().tobytes())
    image.save(path)


def palette() -> NDArray[np.uint8]:
    """The 256 colours of DAVIS, which are Pascal VOC's: uint8 (256, 3) RGB."""
    colours = np.zeros((256, 3), np.uint8)
    left = np.arange(256)
    for bit in range(7, -1, -1):
        for channel in range(3):
            colours[:, channel] |= ((left >> channel & 1) << bit).astype(np.uint8)
        left >>= 3
    return colours


def flatten(video: Video, masklets: Sequence[Masklet], frame_idx: int) -> tuple[Ids, int]:
    """One picture of ids, uint8 (H, W): id n is the n-th masklet. Where masklets overlap, the smaller one is on top.

    The size is the mean area over the frames that show the object. So the order is the same in the whole video, and a
    hand stays visible in front of its person. Of two masklets of equal size, the later is on top.
    Also returns how many pixels of masklets another one hides. Raises DavisError for more masklets than ids.
    """
    _check_count(video.video_id, len(masklets))
    ids, drawn = np.zeros((video.height, video.width), np.uint8), 0
    for n in sorted(range(len(masklets)), key=lambda n: -_mean_area(masklets[n])):
        row = masklets[n]
        if frame_idx in row.frame_idx:
            mask = rle.decode(row.rle[row.frame_idx.index(frame_idx)], video.height, video.width)
            ids[mask] = n + 1
            drawn += int(np.count_nonzero(mask))
    return ids, drawn - int(np.count_nonzero(ids))


def export(
    release: Release, root: Path, *, line: Timeline = Timeline.STORED, progress: Progress | None = None
) -> Exported:
    """Writes a release as a DAVIS root. The files of the result are the masks.

    Writes a PNG and a JPEG for each annotated frame, named by its number on the timeline. An imported video keeps
    its name. Object n of a sequence is the n-th masklet of the video in the order of the release; `flatten` decides
    about overlaps.
    Raises DavisError for a video with more than 254 masklets, before anything is written. Raises WrongFolder and
    ReleaseError.
    """
    check_counts(release)
    resolution, year = WRITTEN

    def write(job: Job) -> Written:
        return write_sequence(job, ("JPEGImages", resolution), ("Annotations", resolution))

    listed: dict[str, list[str]] = {"train": [], "val": []}

    def each() -> Iterator[tuple[Video, str, Written]]:
        for video, name, written in destination.each_video(root, "davis", release, line, write, progress=progress):
            listed.setdefault(video.split, []).append(name)
            yield video, name, written

    done = destination.total(root, each())
    for split, members in listed.items():  # last: a root without its lists is not a finished export
        with complete(destination.place(root, "ImageSets", year, f"{split}.txt")) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in members))
    return done


def write_sequence(job: Job, pictures: Sequence[str], masks: Sequence[str], rows: object = None) -> Written:
    """Writes the JPEGs and palette PNGs of one video into these folders, named by their numbers. Its files: the masks.

    rows: noted for a file about all videos.
    Raises DavisError for more masklets than ids.
    """
    job.write_pictures(*pictures, job.name)
    lost, written = 0, []
    for frame in job.frames.annotated:
        ids, hidden = flatten(job.video, job.masklets, frame.frame_idx)
        lost += hidden
        path = job.place(*masks, job.name, f"{frame.number:05d}.png")
        with complete(path) as temporary:
            write_ids(temporary, ids)
        written.append(path)
    return job.written(written, lost_px=lost, rows=rows)


def check_counts(release: Release) -> None:
    """Raises DavisError for a video with more masklets than ids."""
    for video_id, count in release.masklet_counts().items():
        _check_count(video_id, count)


def _check_count(video_id: str, masklets: int) -> None:
    if masklets >= VOID:
        raise DavisError(f"video {video_id}: {counted(masklets, 'masklet')}, DAVIS has ids for {VOID - 1}")


def _resolution(root: Path) -> str:
    """The name of the folder between JPEGImages or Annotations and the sequence; "" where sequences follow at once."""
    pictures, masks = root / "JPEGImages", root / "Annotations"
    if known := [name for name in RESOLUTIONS if (pictures / name).is_dir() and (masks / name).is_dir()]:
        return known[0]
    first = next((path for path in pictures.iterdir() if path.is_dir()), None)
    if first is not None and any(path.is_file() and not path.name.startswith(".") for path in first.iterdir()):
        return ""
    there = [path.name for path in picture_folder.in_order(pictures.iterdir()) if (masks / path.name).is_dir()]
    if not there:
        raise DavisError(f"{root}: JPEGImages and Annotations have no resolution in common")
    return there[0]


def _mean_area(masklet: Masklet) -> float:
    seen = [area for area in masklet.area_px if area]
    return sum(seen) / len(seen) if seen else 0.0
