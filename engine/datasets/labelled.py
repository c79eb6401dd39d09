"""Labelled videos, wherever they are: a release of our store, a folder in one of SA-V's layouts, a DAVIS root.

Training and evaluation take a `Dataset` and know nothing of formats. A dataset is a list of videos that are opened one
at a time: masks stay compressed, frames are decoded when they are read, and nothing but the list grows with the number
of videos. `ClipSource` makes a trainer's clips of one.

Errors:
    DatasetError            one line: what is wrong with a dataset or with one of its videos
    └── NothingToTrainOn    no training video has a run of frames that begins with an object large enough to learn from
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from storage import releases, rle
from storage.blobs.base import BlobMissing, Blobs
from storage.blobs.folder import LocalBlobs
from storage.errors import first_line
from storage.formats import davis, sav, sav_frames
from storage.formats.picture_folder import PictureReader
from storage.pixels import PictureError
from storage.records import STRIDE, Masklet, Video
from storage.releases import Release
from storage.video import FrameReader, VideoError

if TYPE_CHECKING:
    from model.clips import Clip

log = logging.getLogger(__name__)

SMALLEST = 1 / 1000  # of the frame: what a clip's first frame must show; the trainer takes no object below 1 / 1600
NOTES = ("_manual.json", "_auto.json")  # what SA-V's annotations end with
_KEPT = 64  # videos whose compressed masks a clip source keeps
_MOST = 8  # objects of a clip: more than a sample has, and few enough that their masks fit into memory
_DRAWS = 50  # videos that a clip source tries before it gives up


class DatasetError(ValueError):
    """This is not a labelled dataset that we can open."""


class NothingToTrainOn(DatasetError):
    """No training video has a run of frames that begins with an object large enough to learn from."""


# What a video that cannot be used raises: anything else is a bug. A blob that cannot be reached is not the video's.
BAD_VIDEO = (DatasetError, PictureError, sav.SavError, rle.BadRle, VideoError, BlobMissing, OSError)


class Reader(Protocol):
    """Frames by their index."""

    def read(self, frame_idx: int) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, kw_only=True)
class LabelledVideo:
    """A video and the masks of its objects. An object is absent from an annotated frame that has no mask of it."""

    video_id: str
    split: str  # "train", "val" or "test"
    height: int
    width: int
    frame_count: int
    frame_idx: tuple[int, ...]  # annotated frames, ascending
    objects: Mapping[str, Mapping[int, bytes]]  # object -> frame_idx -> compressed counts
    edits: Mapping[str, int]  # object -> frames that an annotator edited, where that is known
    frames: Callable[[], AbstractContextManager[Reader]] = field(repr=False, compare=False)

    @contextmanager
    def open(self) -> Iterator[Reader]:
        """The frames: `read(frame_idx)` gives uint8 (H, W, 3) RGB. Nothing is decoded before it is read."""
        with self.frames() as reader:
            yield reader

    def mask(self, name: str, frame_idx: int) -> NDArray[np.bool_]:
        """bool (H, W). Raises KeyError for an object that the video has not, BadRle for malformed counts."""
        counts = self.objects[name].get(frame_idx)
        return rle.decode(counts, self.height, self.width) if counts else np.zeros((self.height, self.width), bool)

    def area_px(self, name: str) -> dict[int, int]:
        """The pixels of an object on each annotated frame."""
        found = self.objects[name]
        return {i: rle.area(found[i], self.height, self.width) if i in found else 0 for i in self.frame_idx}


@dataclass(frozen=True)
class Entry:
    """A video of a dataset before it is opened."""

    video_id: str
    split: str | None  # None: only its annotation says
    load: Callable[[], LabelledVideo]


@dataclass(frozen=True)
class Dataset:
    """Videos to be opened one at a time. Can be pickled, so that processes may share it."""

    name: str
    kind: str  # "release", "SA-V" or "DAVIS"
    entries: tuple[Entry, ...] = field(repr=False)
    split: str | None = None  # the only one that is given; None: all

    def __len__(self) -> int:
        """Videos of all splits."""
        return len(self.entries)

    def load(self, number: int) -> LabelledVideo | None:
        """One video; None where it is of another split. Raises one of BAD_VIDEO for one that cannot be used."""
        entry = self.entries[number]
        if self.split and entry.split and entry.split != self.split:
            return None
        video = entry.load()
        return video if self.split in (None, video.split) else None

    def videos(self) -> Iterator[LabelledVideo]:
        """The videos of the split. Raises one of BAD_VIDEO for one that cannot be used: an exam leaves none out."""
        for number in range(len(self)):
            if (video := self.load(number)) is not None:
                yield video

    def only(self, split: str | None) -> Dataset:
        """The same videos, those of a split."""
        return replace(self, split=split)


def open_dataset(where: str | Path, *, blobs: Blobs | None = None, split: str | None = None) -> Dataset:
    """Opens a folder (a release's with its manifest, SA-V's, a DAVIS root), or a release of a store by its name.

    blobs: the store of the releases.  split: "train", "val" or "test"; None: all.
    Raises DatasetError that says what was looked for, NoSuchRelease, PictureError.
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
    raise DatasetError(
        f"{folder}: neither a release (manifest.json), nor a DAVIS root (JPEGImages and Annotations), "
        "nor SA-V (NAME_manual.json or NAME_auto.json, and NAME.mp4; or JPEGImages_24fps and Annotations_6fps)"
    )


def of_release(release: Release) -> Dataset:
    """The videos of a release. An object is a masklet by its id."""
    entries = (Entry(v.video_id, v.split, partial(_of_release, release, v)) for v in release.videos())
    return Dataset(release.name, "release", tuple(entries))


def _of_release(release: Release, video: Video) -> LabelledVideo:
    rows = {row.masklet_id: row for row in release.masklets([video.video_id])}
    return LabelledVideo(
        video_id=video.video_id,
        split=video.split,
        height=video.height,
        width=video.width,
        frame_count=video.frame_count,
        frame_idx=tuple(range(0, video.frame_count, STRIDE)),
        objects={name: _seen(row) for name, row in rows.items()},
        edits={name: row.edited_frame_count for name, row in rows.items()},
        frames=partial(_stored, release.blobs, video.video_key),
    )


def _stored(blobs: Blobs, key: str) -> FrameReader:
    return FrameReader(blobs.fetch(key))


def _sav_videos(folder: Path) -> tuple[Entry, ...]:
    """Every annotated video below a folder. Its file lies beside the annotations, or is the only one of its name."""
    videos: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.mp4")):
        videos[path.stem].append(path)
    notes: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for suffix in NOTES for path in folder.rglob(f"*{suffix}")):
        notes[path.name.rpartition("_")[0]].append(path)
    found = []
    for name, of_it in sorted(notes.items()):
        beside = [path for path in videos[name] if path.parent == of_it[0].parent]
        found.append(Entry(name, None, partial(_of_sav, name, tuple(beside or videos[name]), tuple(of_it))))
    return tuple(found)


def _of_sav(name: str, videos: tuple[Path, ...], notes: tuple[Path, ...]) -> LabelledVideo:
    """An object is `manual-3` or `auto-0`: its kind and its place in the file."""
    if len(videos) != 1:
        hint = "" if videos else " (`masklets export --media` writes them)"
        raise DatasetError(f"{notes[0]}: {len(videos)} videos {name}.mp4, one is needed{hint}")
    with FrameReader(videos[0]) as reader:
        height, width, count = reader.height, reader.width, reader.frame_count
    annotated = tuple(range(0, count, STRIDE))
    objects: dict[str, dict[int, bytes]] = {}
    edits: dict[str, int] = {}
    split = "train"
    for path in notes:
        for n, row in enumerate(sav.read(path)):
            if (row.height, row.width) != (height, width):
                raise DatasetError(f"{path}: masks of {row.height} x {row.width}, the video is {height} x {width}")
            if abs(len(row.frame_idx) - len(annotated)) > 1:
                raise DatasetError(f"{path}: {len(row.frame_idx)} annotated frames, the video has {len(annotated)}")
            objects[f"{row.kind}-{n}"] = {i: c for i, c in _seen(row).items() if i < count}
            edits[f"{row.kind}-{n}"] = row.edited_frame_count
            split = row.split
    return LabelledVideo(
        video_id=name,
        split=split,
        height=height,
        width=width,
        frame_count=count,
        frame_idx=annotated,
        objects=objects,
        edits=edits,
        frames=partial(FrameReader, videos[0]),
    )


def _of_davis(root: Path, name: str, split: str) -> LabelledVideo:
    """An object is its number. Nobody knows which frames were edited."""
    clip = davis.open_video(root, name, split)
    return LabelledVideo(
        video_id=name,
        split=split,
        height=clip.height,
        width=clip.width,
        frame_count=len(clip.pictures),
        frame_idx=tuple(frame_idx for frame_idx, _ in clip.annotations),
        objects={str(n): of for n, of in sorted(clip.masks().items())},
        edits={},
        frames=partial(PictureReader, name, clip.pictures),
    )


def _of_sav_frames(root: Path, name: str, split: str) -> LabelledVideo:
    """An object is the name of its folder. Nobody knows which frames were edited."""
    clip = sav_frames.open_video(root, name)
    return LabelledVideo(
        video_id=name,
        split=split,
        height=clip.height,
        width=clip.width,
        frame_count=len(clip.pictures),
        frame_idx=clip.frame_idx,
        objects=clip.masks(),
        edits={},
        frames=partial(PictureReader, name, clip.pictures),
    )


def _seen(row: Masklet) -> dict[int, bytes]:
    """The masks of the frames that show a masklet."""
    return {i: c for i, c, area in zip(row.frame_idx, row.rle, row.area_px, strict=True) if area}


# ---------------------------------------------------------------------------------------------------- clips to train on


Run = tuple[int, int]  # place of its first annotated frame, and 1 or -1: its direction in time


@dataclass(frozen=True)
class Indexed:
    """What a clip source must know of a video before it is opened again."""

    number: int  # in the dataset
    annotated: int  # frames
    large: Mapping[str, NDArray[np.int32]]  # object -> places of the annotated frames that show it large enough
    edits: Mapping[str, int]

    def runs(self, frames: int, objects: Collection[str] | None = None) -> tuple[Run, ...]:
        """The runs of annotated frames, in either direction, that begin with one of the objects; None: with any."""
        shown = {int(t) for name in self.large if objects is None or name in objects for t in self.large[name]}
        return tuple((t, way) for t in sorted(shown) for way in (1, -1) if 0 <= t + way * (frames - 1) < self.annotated)


def index(
    data: Dataset, progress: Callable[[int, int, str], None] = lambda done, total, word: None
) -> Iterator[Indexed]:
    """Looks through a dataset once: where which object is large enough to begin a clip with, how often it was edited.

    A video that cannot be used is left out with a warning.
    """
    for number, entry in enumerate(data.entries):
        progress(number, len(data), entry.video_id)
        try:
            if (video := data.load(number)) is None:
                continue
            least = SMALLEST * video.height * video.width
            large = {
                name: np.array([t for t, area in enumerate(video.area_px(name).values()) if area >= least], np.int32)
                for name in video.objects
            }
        except BAD_VIDEO as error:
            _warn(entry.video_id, error)
            continue
        yield Indexed(number, len(video.frame_idx), {k: v for k, v in large.items() if v.size}, video.edits)


class ClipSource:
    """The clips of a dataset: seed -> `model.clips.Clip`. Decodes only the frames that a clip has.

    A clip is a run of consecutive annotated frames, forwards or backwards, that begins with an object large enough to
    learn from. The same seed gives the same clip, in any process. A video that turns out to be damaged is passed over
    with a warning and another one is drawn.
    """

    def __init__(self, data: Dataset, known: Sequence[Indexed], frames: int, hardest: float = 1.0) -> None:
        """known: `index` of the dataset.  frames: of a clip.  hardest: share of the masklets, the most edited, that
        clips are of and begin with, each as likely as another; 1: all of them, and each video is as likely.

        Source of the share: SAM 2.1's last stage, which trains on the most edited half (Ravi et al. 2024, second
        version).
        Raises NothingToTrainOn.
        """
        self.data, self.frames = data, frames
        self._kept: dict[int, LabelledVideo] = {}
        self._bad: set[int] = set()
        #: what a clip may be of: a video, the objects that it may begin with, and those that are in it (None: all)
        self.places: list[tuple[Indexed, Collection[str] | None, tuple[str, ...] | None]] = []
        if hardest < 1:
            for i, names in _most_edited(known, hardest).items():
                self.places += [(known[i], (name,), names) for name in names if known[i].runs(frames, (name,))]
        else:
            self.places = [(of, None, None) for of in known if of.runs(frames)]
        if not self.places:
            of = f"{data.split} " if data.split else ""
            edited = ", edited by somebody" if hardest < 1 else ""
            raise NothingToTrainOn(
                f"{data.name} has no {of}video with {frames} annotated frames that begin with an object of "
                f"{SMALLEST:.1%} of the frame{edited}"
            )

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": {}}

    def __call__(self, seed: int) -> Clip:
        rng = np.random.default_rng(seed)
        for _ in range(_DRAWS):
            of, firsts, objects = self.places[int(rng.integers(len(self.places)))]
            runs = of.runs(self.frames, firsts)
            at, way = runs[int(rng.integers(len(runs)))]
            if of.number in self._bad:
                continue
            try:
                return self._clip(of, objects, [at + way * i for i in range(self.frames)], rng)
            except BAD_VIDEO as error:
                self._bad.add(of.number)
                _warn(self.data.entries[of.number].video_id, error)
        raise NothingToTrainOn(f"{self.data.name}: {_DRAWS} videos in a row could not be read")

    def _clip(
        self, of: Indexed, objects: Sequence[str] | None, places: Sequence[int], rng: np.random.Generator
    ) -> Clip:
        """objects: None for all of the video's, those that are never large enough included."""
        from model.clips import Clip

        video = self._video(of.number)
        wanted = [video.frame_idx[t] for t in places]
        names = list(objects or video.objects)
        if len(names) > _MOST:  # a sample may begin at either end, and is of what shows there
            shown = [name for name in names if {wanted[0], wanted[-1]} & video.objects[name].keys()]
            shown = [shown[n] for n in rng.permutation(len(shown))]
            sure = next(name for name in shown if places[0] in of.large.get(name, ()))
            names = [sure, *(name for name in shown if name != sure)][:_MOST]
        masks = np.stack([np.stack([video.mask(name, i) for name in names]) for i in wanted])
        with video.open() as reader:
            read = {i: reader.read(i) for i in sorted(wanted)}  # decoders only go forwards
        return Clip(np.stack([read[i] for i in wanted]), masks)

    def _video(self, number: int) -> LabelledVideo:
        if number not in self._kept:
            video = self.data.load(number)
            assert video is not None  # the index has none of another split
            self._kept[number] = video
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return self._kept[number]


def _most_edited(known: Sequence[Indexed], share: float) -> dict[int, tuple[str, ...]]:
    """The most edited share of all masklets that were edited at all, by their video's place in the index."""
    ranked = sorted(
        ((of.edits.get(name, 0), i, name) for i, of in enumerate(known) for name in of.large),
        key=lambda found: (-found[0], found[1], found[2]),
    )
    kept: dict[int, tuple[str, ...]] = {}
    for edits, i, name in ranked[: max(1, round(share * len(ranked)))]:
        if edits:
            kept[i] = (*kept.get(i, ()), name)
    return kept


def _warn(name: str, error: Exception) -> None:
    """One line, whatever the library said."""
    log.warning("video %s is left out: %s", name, first_line(error))
