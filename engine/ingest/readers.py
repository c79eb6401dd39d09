"""The formats that imports read: which files of a folder annotate a video, and what they say about it.

SA-V has its annotations beside each video. COCO and YouTube-VIS have files about many videos, which name them; CVAT has
a file for each video. A reader of these opens every file of its folder once, when it is made.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Protocol

from engine.ingest.sources import NO_VIDEO
from storage.formats import coco, cvat, sav, sav_figures, tracks, youtube_vis
from storage.formats.imported import AnnotationError, Description, OtherFile
from storage.formats.tracks import Content, TrackedVideo
from storage.records import Masklet, Video
from storage.wording import counted


class Annotation(Protocol):
    """What the files of a folder say about one video. Its methods raise AnnotationError in one line."""

    def describe(self) -> Description:
        """What they say besides the masks."""

    def masklets(self, video: Video, source_s: Sequence[float], batch_id: str) -> list[Masklet]:
        """The masklets. source_s: (N,) s of each frame of the source, from the first."""

    def differences(self, masklets: Sequence[Masklet]) -> list[str]:
        """Where the figures that they state of these masklets differ from those of the masks: one line each."""


class Reader(Protocol):
    """The annotations of a folder in one format. Keys are paths in the folder."""

    @property
    def wanted(self) -> str:
        """What a folder must hold, for messages."""

    @property
    def bad(self) -> Mapping[str, Sequence[str]]:
        """File -> lines about what no video of it can be blamed for."""

    def notes(self, key: str, exists: Callable[[str], bool]) -> tuple[str, ...]:
        """The files that annotate a video; empty if there is none."""

    def mark(self, key: str, marks: Mapping[str, str]) -> str:
        """Changes when the annotation of a video changes. marks: fingerprints of all files."""

    def open(self, key: str, read: Callable[[], Mapping[str, bytes]]) -> Annotation:
        """The annotation of a video that has one. read: gives its notes by their names, in order."""


class SavReader:
    """SA-V: NAME_manual.json and NAME_auto.json beside NAME.mp4."""

    wanted = "NAME.mp4 with NAME_manual.json or NAME_auto.json beside it"
    bad: Mapping[str, Sequence[str]] = MappingProxyType({})  # a bad file is blamed on its video

    def notes(self, key: str, exists: Callable[[str], bool]) -> tuple[str, ...]:
        """Those of the two files that exist."""
        beside = (str(Path(key).with_name(Path(key).stem + suffix)) for suffix in sav.NOTES)
        return tuple(note for note in beside if exists(note))

    def mark(self, key: str, marks: Mapping[str, str]) -> str:
        """The fingerprints of the two files."""
        return " ".join(marks[note] for note in self.notes(key, marks.__contains__))

    def open(self, key: str, read: Callable[[], Mapping[str, bytes]]) -> Annotation:
        """Reads both files."""
        return _SavAnnotation(read())


class _SavAnnotation:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    @cached_property
    def _loaded(self) -> dict[str, dict[str, Any]]:
        loaded = {}
        for name, data in self._files.items():
            with _blamed(name):
                loaded[name] = sav.load(data)
        return loaded

    def describe(self) -> Description:
        """Of both files, the first one that says something counts."""
        told = []
        for name, annotation in self._loaded.items():
            with _blamed(name):
                told.append(sav.describe(annotation))
        return Description(
            name=next((of.name for of in told if of.name), None),
            split=next((of.split for of in told if of.split), None),
            metadata=next((of.metadata for of in told if of.metadata), None),
        )

    def masklets(self, video: Video, source_s: Sequence[float], batch_id: str) -> list[Masklet]:
        """The manual masklets, then the auto ones."""
        rows: list[Masklet] = []
        for name, annotation in self._loaded.items():
            with _blamed(name):
                rows += sav.from_sav(annotation, video=video, source_s=source_s, batch_id=batch_id)
        return rows

    def differences(self, masklets: Sequence[Masklet]) -> list[str]:
        """Compares what SA-V states of each masklet with its masks. masklets: all that `masklets` gives."""
        lines, rest = list[str](), list(masklets)
        for name, annotation in self._loaded.items():
            count = len(annotation["masklet"][0])
            lines += [f"{name}: {line}" for line in sav_figures.differences(annotation, rest[:count])]
            rest = rest[count:]
        return lines


@contextmanager
def _blamed(name: str) -> Iterator[None]:
    """Puts the name of the file before what is wrong with it."""
    try:
        yield
    except AnnotationError as error:
        raise AnnotationError(f"{name}: {error}") from None


class TrackReader:
    """The files of a folder in a format of tracks."""

    def __init__(
        self, folder: Path, form: str, ending: str, read: Callable[[bytes, str], Content], wanted: str
    ) -> None:
        """ending: of the names of files. A file that cannot be read is kept in `bad`, another one is ignored."""
        self.form, self.wanted = form, wanted
        self.bad: dict[str, list[str]] = {}
        self._by_name: dict[str, list[tuple[str, TrackedVideo]]] = defaultdict(list)
        self._videos = Counter(path.stem for path in folder.rglob("*") if path.suffix.lower() not in {"", *NO_VIDEO})
        for path in sorted(folder.rglob(f"*{ending}")):
            file = path.relative_to(folder).as_posix()
            if file.startswith(".") or "/." in file or not path.is_file():
                continue
            try:
                content = read(path.read_bytes(), file)
            except OtherFile:
                continue
            except (AnnotationError, OSError) as error:
                self.bad[file] = [str(error)]
                continue
            if content.strays:
                self.bad[file] = content.strays
            for video in content.videos:
                for name in video.names:
                    self._by_name[name].append((file, video))

    def _of(self, key: str) -> list[tuple[str, TrackedVideo]]:
        """What is said about a video: by files that call it by its path, otherwise by those that use its name."""
        path = PurePosixPath(key)
        if path.suffix.lower() in NO_VIDEO:
            return []
        return self._by_name.get(str(path.with_suffix(""))) or self._by_name.get(path.stem) or []

    def notes(self, key: str, exists: Callable[[str], bool]) -> tuple[str, ...]:
        """The files that name the video."""
        return tuple(file for file, _ in self._of(key))

    def mark(self, key: str, marks: Mapping[str, str]) -> str:
        """Follows what the files say about this video, so a change of another video changes nothing."""
        return " ".join(found.digest() for _, found in self._of(key))

    def open(self, key: str, read: Callable[[], Mapping[str, bytes]]) -> Annotation:
        """The files were read before."""
        path = PurePosixPath(key)
        shared = str(path.with_suffix("")) not in self._by_name or path.parent == PurePosixPath()
        count = self._videos[path.stem] if shared else 1
        return _TrackAnnotation(self.form, self._of(key), path.stem, count)


@dataclass(frozen=True)
class _TrackAnnotation:
    form: str
    found: Sequence[tuple[str, TrackedVideo]]  # (file, what it says)
    name: str
    videos: int  # that the name may mean

    def describe(self) -> Description:
        """Of several files, the first one that says something counts."""
        told = [video.describe() for _, video in self.found]
        return Description(name=told[0].name, split=next((of.split for of in told if of.split), None))

    def masklets(self, video: Video, source_s: Sequence[float], batch_id: str) -> list[Masklet]:
        """The objects of all files."""
        rows: list[Masklet] = []
        for file, found in self.found:
            if self.videos > 1:
                raise AnnotationError(
                    f"{file}: {counted(self.videos, 'video')} are called {self.name}: which one is annotated?"
                )
            try:
                rows += tracks.to_masklets(
                    found, self.form, video=video, source_s=source_s, batch_id=batch_id, first=len(rows)
                )
            except AnnotationError as error:
                raise AnnotationError(f"{file}: {error}") from None
        return rows

    def differences(self, masklets: Sequence[Masklet]) -> list[str]:
        """None: these formats state areas and boxes only, which other tools measure in other ways."""
        return []


def sav_reader(_: Path) -> Reader:
    """Reads SA-V's training files."""
    return SavReader()


def coco_reader(folder: Path) -> Reader:
    """Reads every JSON file below the folder."""
    wanted = "videos, and a COCO file that names their pictures: NAME/00012.jpg is frame 12 of NAME.mp4"
    return TrackReader(folder, "coco", ".json", coco.read, wanted)


def youtube_vis_reader(folder: Path) -> Reader:
    """Reads every JSON file below the folder."""
    wanted = "videos, and a YouTube-VIS file that names their pictures: NAME/00012.jpg is frame 12 of NAME.mp4"
    return TrackReader(folder, "youtube-vis", ".json", youtube_vis.read, wanted)


def cvat_reader(folder: Path) -> Reader:
    """Reads every XML file below the folder."""
    wanted = "NAME.mp4, and an XML file of CVAT for video that is called NAME.xml or has NAME.mp4 as its source"
    return TrackReader(folder, "cvat", ".xml", cvat.read, wanted)
