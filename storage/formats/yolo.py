"""YOLO segmentation: for each annotated frame a picture, and a text file with a polygon for each object.

    data.yaml
    images/<split>/<video>/00000.jpg    named by the number of the frame
    labels/<split>/<video>/00000.txt    "class x y x y ...", of the width and height of the picture

The format has neither masks nor identities: which polygons of two frames are one object is lost, and so are the times.
Source: Ultralytics' page "Instance Segmentation Datasets Overview".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from storage.dataset.releases import Release
from storage.formats import destination, polygons
from storage.formats.destination import Agreement, Exported, Job, Progress, Written
from storage.formats.labels import label_of
from storage.formats.timeline import Timeline
from storage.whole_files import complete


def export(
    release: Release, folder: Path, *, line: Timeline = Timeline.STORED, progress: Progress | None = None
) -> Exported:
    """Writes a release for YOLO. The files of the result are the labels, and data.yaml.

    Reads the masklets twice: the classes of all must be known first. Raises WrongFolder and ReleaseError.
    """
    splits = destination.splits(release)
    classes = {label: n for n, label in enumerate(sorted({label_of(row) for row in release.iter_masklets()}))}

    def write(job: Job) -> Written:
        return _write(job, classes)

    done = destination.total(folder, destination.each_video(folder, "yolo", release, line, write, progress=progress))
    path = destination.place(folder, "data.yaml")
    with complete(path) as temporary:
        temporary.write_text(_yaml(splits, classes))
    done.files.append(path)
    return done


def _write(job: Job, classes: Mapping[str, int]) -> Written:
    height, width = job.video.height, job.video.width
    job.write_pictures("images", job.video.split, job.name)
    at = [dict(zip(row.frame_idx, zip(row.rle, row.area_px, strict=True), strict=True)) for row in job.masklets]
    written, ious = [], []
    for frame in job.frames.annotated:
        lines = []
        for row, masks in zip(job.masklets, at, strict=True):
            counts, area = masks.get(frame.frame_idx, (b"", 0))
            if area:
                ring, agreed = polygons.shape_of(counts, height, width)
                ious.append(agreed)
                shares = (ring / (width, height)).reshape(-1)
                lines.append(f"{classes[label_of(row)]} " + " ".join(f"{share:.6f}" for share in shares))
        path = job.place("labels", job.video.split, job.name, f"{frame.number:05d}.txt")
        with complete(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines))
        written.append(path)
    return job.written(written, agreement=Agreement.of(ious))


def _yaml(splits: Iterable[str], classes: Mapping[str, int]) -> str:
    """Strings are written as JSON: that is YAML, too. YOLO asks for `train` and `val`, also where one has no video."""
    lines = ["path: ."] + [f"{split}: images/{split}" for split in sorted({*splits, "train", "val"})]
    return "\n".join([*lines, "names:", *(f"  {n}: {json.dumps(label)}" for label, n in classes.items())]) + "\n"
