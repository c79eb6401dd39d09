"""MOSE and YouTube-VOS: a folder of pictures and a folder of palette PNGs for each video, without DAVIS's image sets.

    train/ or valid/ or test/
        JPEGImages/<video>/00000.jpg      named by the number of the frame
        Annotations/<video>/00000.png     one picture of object ids, 0 is the background
        meta.json                         YouTube-VOS only: the objects of each video, and the frames that show them

`davis.flatten` decides about overlaps. `davis` reads both formats. Source: the files of MOSE (Ding et al.) and of
YouTube-VOS 2019 (Xu et al.).
"""

from __future__ import annotations

from pathlib import Path

from storage.dataset.releases import Release
from storage.formats import davis, destination
from storage.formats.destination import Exported, Job, Progress, Written
from storage.formats.labels import label_of
from storage.formats.timeline import Timeline

FOLDERS = {"train": "train", "val": "valid", "test": "test"}  # split -> folder


def export(
    release: Release,
    folder: Path,
    *,
    youtube_vos: bool = False,
    line: Timeline = Timeline.STORED,
    progress: Progress | None = None,
) -> Exported:
    """Writes a release in the layout of MOSE, or of YouTube-VOS. The files of the result are the masks.

    Raises DavisError for a video with more than 254 masklets, before anything is written. Raises WrongFolder and
    ReleaseError.
    """
    davis.check_counts(release)
    splits = destination.splits(release)
    form = "youtube-vos" if youtube_vos else "mose"

    def write(job: Job) -> Written:
        root = FOLDERS.get(job.video.split, job.video.split)
        return davis.write_sequence(job, (root, "JPEGImages"), (root, "Annotations"), rows=_objects(job))

    done = destination.total(folder, destination.each_video(folder, form, release, line, write, progress=progress))
    for split in splits if youtube_vos else []:
        videos = {name: {"objects": written.rows} for _, name, written in destination.noted(folder, release, split)}
        path = destination.place(folder, FOLDERS.get(split, split), "meta.json")
        done.files.append(destination.write_json(path, {"videos": videos}))
    return done


def _objects(job: Job) -> dict[str, dict[str, object]]:
    """What meta.json says about the objects of a video: category, and the names of the frames that show it."""
    found: dict[str, dict[str, object]] = {}
    for n, row in enumerate(job.masklets, 1):
        seen = {k for k, area in zip(row.frame_idx, row.area_px, strict=True) if area}
        names = [f"{frame.number:05d}" for frame in job.frames.annotated if frame.frame_idx in seen]
        found[str(n)] = {"category": label_of(row), "frames": names}
    return found
