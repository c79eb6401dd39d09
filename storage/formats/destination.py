"""The folder that an export writes into: it holds one release in one format, and no name leads out of it.

Ids come from releases, and a release may come from a stranger. Each file appears under its own name only when it is
complete. A note is written for each video that is done, so an export that was killed goes on with the next video.

    .masklets-export.json           which release is in the folder, in which format, on which timeline
    .masklets-export/<name>.json    what was written of one video
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from storage.dataset.batch_manifests import ReleaseError, check_id
from storage.dataset.releases import Release
from storage.formats import timeline
from storage.formats.timeline import Frame, Frames, Timeline
from storage.records import Masklet, Video
from storage.videos.video import FrameReader, jpeg
from storage.whole_files import complete

MARK = ".masklets-export.json"  # says which release is in the folder, in which format, on which timeline
DONE = ".masklets-export"  # folder of the notes
Progress = Callable[[int, int, str], None]  # videos done, of how many, the name of the last one


class WrongFolder(ValueError):
    """The folder holds something else."""


class CannotHold(ValueError):
    """The format has no place for this."""


@dataclass(frozen=True)
class Agreement:
    """How well the shapes of a format agree with the masks: IoU after the shapes are drawn again."""

    masks: int = 0
    sum: float = 0.0
    least: float = 1.0

    @classmethod
    def of(cls, ious: Iterable[float]) -> Agreement:
        found = list(ious)
        return cls(len(found), sum(found), min(found, default=1.0))

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.masks + other.masks, self.sum + other.sum, min(self.least, other.least))

    @property
    def mean(self) -> float:
        return self.sum / self.masks if self.masks else 1.0


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    files: list[Path]
    lost_px: int = 0  # pixels of masklets that a picture with one id a pixel cannot show; 0 if the format shows all
    repeats: int = 0  # annotated frames that another one stands for: both show the same source frame
    agreement: Agreement = Agreement()  # of formats without masks; no masks if the format holds them as they are


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written of one video."""

    files: Sequence[str]  # relative to the folder
    lost_px: int = 0
    repeats: int = 0
    agreement: Agreement = Agreement()
    rows: Any = None  # JSON: its share of a file about all videos


@dataclass(frozen=True, kw_only=True)
class Job:
    """One video that an exporter has to write."""

    folder: Path
    name: str  # of its files
    video: Video
    masklets: list[Masklet]
    frames: Frames
    release: Release

    def place(self, *names: str) -> Path:
        """A path in the folder of the export. Raises ReleaseError for a name that could lead out of it."""
        return place(self.folder, *names)

    def shows(self, masklet: Masklet) -> bool:
        """Whether an exported frame shows the object: of frames that repeat a source frame, one is exported."""
        seen = {k for k, area in zip(masklet.frame_idx, masklet.area_px, strict=True) if area}
        return any(frame.frame_idx in seen for frame in self.frames.annotated)

    def write_pictures(self, *names: str) -> None:
        """Writes each annotated frame as a JPEG into this folder of the export, named by its number."""
        with FrameReader(self.release.blobs.fetch(self.video.video_key), keep=1) as reader:
            for frame in self.frames.annotated:
                with complete(self.place(*names, picture_name(frame))) as temporary:
                    temporary.write_bytes(jpeg(reader.read(frame.frame_idx), 95))

    def written(self, files: Iterable[Path], **facts: Any) -> Written:
        """The report of the exporter. files: in the folder."""
        relative = [path.relative_to(self.folder).as_posix() for path in files]
        return Written(files=relative, repeats=self.frames.repeats, **facts)


def each_video(
    folder: Path,
    form: str,
    release: Release,
    line: Timeline,
    write: Callable[[Job], Written],
    *,
    media: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[Video, str, Written]]:
    """Writes the videos of a release one after the other: (video, name of its files, what was written).

    Keeps one video in memory. A video whose files an earlier run has written is skipped.
    media: whether the files of the videos include pictures or videos where the format leaves the choice.
    Raises WrongFolder, ReleaseError, TimelineUnknown, and what `write` raises.
    """
    open_folder(folder, form, release, line)
    videos = release.videos()
    named = names(videos)
    for n, video in enumerate(videos, 1):
        name = named[video.video_id]
        note = _note(folder, name, media)
        written = _noted(note)
        if written is None or not all((folder / file).is_file() for file in written.files):
            frames = timeline.of(video, release.blobs, line)
            masklets = release.masklets({video.video_id})
            written = write(
                Job(folder=folder, name=name, video=video, masklets=masklets, frames=frames, release=release)
            )
            with complete(note) as path:
                path.write_text(json.dumps(dataclasses.asdict(written)))
        yield video, name, written
        if progress:
            progress(n, len(videos), name)


def noted(
    folder: Path, release: Release, split: str | None = None, *, media: bool = False
) -> Iterator[tuple[Video, str, Written]]:
    """What `each_video` gave, for files about all videos: read from its notes, one video in memory.

    split: only the videos of this split.
    """
    videos = release.videos()
    named = names(videos)
    for video in videos:
        if split in (None, video.split):
            written = _noted(_note(folder, named[video.video_id], media))
            assert written is not None, "each_video was not run to its end"
            yield video, named[video.video_id], written


def splits(release: Release) -> list[str]:
    """The splits that a release has. Raises ReleaseError for one that could be a path."""
    return sorted({check_id(video.split) for video in release.videos()})


def picture_name(frame: Frame) -> str:
    """The name of an annotated frame's JPEG."""
    return f"{frame.number:05d}.jpg"


def write_json(path: Path, head: Mapping[str, Any], **lists: Iterable[Mapping[str, Any]]) -> Path:
    """Writes a JSON object of `head` and these lists, one row in memory. Returns the path."""
    with complete(path) as temporary, temporary.open("w") as file:
        file.write("{" + json.dumps(head)[1:-1])
        for key, rows in lists.items():
            file.write(f", {json.dumps(key)}: [")
            for n, row in enumerate(rows):
                file.write((",\n" if n else "\n") + json.dumps(row))
            file.write("]")
        file.write("}")
    return path


def about(release: Release, line: Timeline) -> dict[str, str]:
    """What a file about all videos says about itself."""
    return {"description": f"{release.name}, made by masklet-engine", "timeline": line.value}


def about_video(job: Job) -> dict[str, Any]:
    """What such a file says about one video, besides its id: also the name of the file that was handed in."""
    return {
        "name": job.name,
        "source": PurePosixPath(job.video.source_uri).name,
        "width": job.video.width,
        "height": job.video.height,
    }


def _note(folder: Path, name: str, media: bool) -> Path:
    return place(folder / DONE, "media" if media else "alone", f"{name}.json")


def total(folder: Path, done: Iterable[tuple[Video, str, Written]], also: Iterable[Path] = ()) -> Exported:
    """The result of an export of these videos. also: files about all videos."""
    files, lost, repeats, agreement = list[Path](), 0, 0, Agreement()
    for _, _, written in done:
        files += [folder / name for name in written.files]
        lost, repeats, agreement = lost + written.lost_px, repeats + written.repeats, agreement + written.agreement
    return Exported([*files, *also], lost, repeats, agreement)


def _noted(note: Path) -> Written | None:
    """What an earlier run has noted about a video; None if it has noted nothing, or other fields."""
    try:
        found = json.loads(note.read_text())
        return Written(**found | {"agreement": Agreement(**found["agreement"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def open_folder(folder: Path, form: str, release: Release, line: Timeline = Timeline.STORED) -> None:
    """Makes the folder, or takes it again for the same release, format and timeline.

    Raises WrongFolder for a folder with other files: two releases in one folder could not be told apart.
    """
    told = {"format": form, "release": release.name, "manifest": release.digest}
    if line is not Timeline.STORED:
        told["timeline"] = line.value
    mark = folder / MARK
    if folder.exists() and not folder.is_dir():
        raise WrongFolder(f"{folder} is a file: choose a folder")
    if mark.is_file():
        held = json.loads(mark.read_text())
        if held != told:
            on = f" on the timeline {held['timeline']}" if "timeline" in held else ""
            raise WrongFolder(
                f"{folder} holds {held.get('release')} as {held.get('format')}{on}: choose another folder"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise WrongFolder(f"{folder} is not empty, and no export made it: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with complete(mark) as path:
        path.write_text(json.dumps(told))


def place(folder: Path, *names: str) -> Path:
    """A path below the folder. Raises ReleaseError for a name that could lead out of it."""
    return folder.joinpath(*(check_id(name) for name in names))


def names(videos: Sequence[Video]) -> dict[str, str]:
    """The name of each video's files, by video id: the name in its source, if no other video of the release has it.

    Names that differ only in case count as the same: some file systems cannot hold both. A name that could lead out of
    the folder is not used.
    """
    taken = Counter(video.video_id.lower() for video in videos)
    taken.update(v.source_name.lower() for v in videos if v.source_name and v.source_name != v.video_id)
    found = {}
    for video in videos:
        try:
            name = check_id(video.source_name or "")
        except ReleaseError:
            name = video.video_id
        found[video.video_id] = name if taken[name.lower()] == 1 else video.video_id
    return found
