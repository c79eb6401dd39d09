"""Draws the trainer's clips from a labelled dataset. Knows nothing about formats, models or recipes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.datasets.labelled import BAD_VIDEO, Dataset, DatasetError, LabelledVideo
from storage.errors import first_line
from storage.wording import counted

if TYPE_CHECKING:
    from model.clips import Clip

log = logging.getLogger(__name__)

SMALLEST = 1 / 1000  # of the frame: the least area of an object that starts a clip; the trainer drops below 1 / 1600
MARGIN = 0.01  # of the frame's shorter side: nearer to an object, a rejected place may be a part of it
_KEPT = 64  # videos whose compressed masks are cached
_MOST = 8  # objects of a clip: more than a sample uses, few enough for memory
_DRAWS = 50  # bad videos in a row before the sampler gives up


class NothingToTrainOn(DatasetError):
    """No training video has enough frames in a row that start with a large enough object."""


Run = tuple[int, int]  # position of the first annotated frame; direction in time, 1 or -1


@dataclass(frozen=True)
class Indexed:
    """What the sampler keeps of each video: enough to choose a clip without opening the video again."""

    number: int  # in the dataset
    annotated: int  # frames
    large: Mapping[str, NDArray[np.int32]]  # object -> positions of the annotated frames where it is large enough
    edits: Mapping[str, int]

    def runs(self, frames: int, objects: Collection[str] | None = None) -> tuple[Run, ...]:
        """The runs of annotated frames, in either direction, that start with one of the objects; None: with any."""
        shown = {int(t) for name in self.large if objects is None or name in objects for t in self.large[name]}
        return tuple((t, way) for t in sorted(shown) for way in (1, -1) if 0 <= t + way * (frames - 1) < self.annotated)


def index(
    data: Dataset, progress: Callable[[int, int, str], None] = lambda done, total, word: None
) -> Iterator[Indexed]:
    """Indexes every video of the dataset: where its objects are large enough, and how often they were edited.

    Skips a bad video with a warning.
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


class ClipSampler:
    """The clips of a dataset: seed -> `model.clips.Clip`. Decodes only the frames of the clip.

    A clip is a run of consecutive annotated frames, forwards or backwards, that starts with a large enough object. The
    same seed gives the same clip in any process. A damaged video is skipped with a warning, and another one is drawn.
    """

    def __init__(
        self, data: Dataset, known: Sequence[Indexed], frames: int, hardest: float = 1.0, rejected: int = 0
    ) -> None:
        """known: `index` of the dataset.  frames: of a clip.  hardest: the share of the most edited masklets to train
        on. Below 1, a clip shows and starts with these only, and each masklet is equally likely. At 1, clips show all
        masklets, and each video is equally likely.  rejected: the most places of a clip where people saw no object.

        Source of the share: SAM 2.1's last stage trains on the most edited half (Ravi et al. 2024, second version).
        Raises NothingToTrainOn.
        """
        self.data, self.frames, self.rejected = data, frames, rejected
        self._kept: dict[int, LabelledVideo] = {}
        self._bad: set[int] = set()
        #: choices: a video, the objects that may start a clip, and the objects in the clip (None: all)
        self.places: list[tuple[Indexed, Collection[str] | None, tuple[str, ...] | None]] = []
        if hardest < 1:
            for i, names in _most_edited(known, hardest).items():
                self.places += [(known[i], (name,), names) for name in names if known[i].runs(frames, (name,))]
        else:
            self.places = [(of, None, None) for of in known if of.runs(frames)]
        if not self.places:
            of = f"{data.split} " if data.split else ""
            edited = ", edited by a person" if hardest < 1 else ""
            raise NothingToTrainOn(
                f"{data.name} has no {of}video with {counted(frames, 'annotated frame')} that start with an object of "
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
        raise NothingToTrainOn(f"{self.data.name}: {counted(_DRAWS, 'video')} in a row could not be read")

    def _clip(
        self, of: Indexed, objects: Sequence[str] | None, places: Sequence[int], rng: np.random.Generator
    ) -> Clip:
        """objects: None for all objects of the video, also those that are never large enough."""
        from model.clips import Clip

        video = self._video(of.number)
        wanted = [video.frame_idx[t] for t in places]
        names = list(objects or video.objects)
        if len(names) > _MOST:  # a sample may start at either end, with the objects visible there
            shown = [name for name in names if {wanted[0], wanted[-1]} & video.objects[name].keys()]
            shown = [shown[n] for n in rng.permutation(len(shown))]
            sure = next(name for name in shown if places[0] in of.large.get(name, ()))
            names = [sure, *(name for name in shown if name != sure)][:_MOST]
        masks = np.stack([np.stack([video.mask(name, i) for name in names]) for i in wanted])
        is_object = np.ones(len(names), np.bool_)
        if self.rejected and (rejected := self._places(video, wanted, rng)):
            masks = np.concatenate([masks, np.stack(rejected, axis=1)], axis=1)
            is_object = np.append(is_object, np.zeros(len(rejected), np.bool_))
        with video.open() as reader:
            read = {i: reader.read(i) for i in sorted(wanted)}  # decoders only read forwards
        return Clip(np.stack([read[i] for i in wanted]), masks, is_object)

    def _places(self, video: LabelledVideo, wanted: Sequence[int], rng: np.random.Generator) -> list[NDArray[np.bool_]]:
        """Some candidates that people rejected as no object, each bool (T, H, W), without what is near an object."""
        import cv2

        if not (shown := [name for name, masks in video.rejected.items() if wanted[0] in masks]):
            return []
        far = max(3, round(MARGIN * min(video.height, video.width)))
        objects = np.stack([np.any([video.mask(name, i) for name in video.objects], axis=0) for i in wanted])
        near = [cv2.dilate(of.astype(np.uint8), np.ones((2 * far + 1, 2 * far + 1), np.uint8)) > 0 for of in objects]
        found: list[NDArray[np.bool_]] = []
        for n in rng.permutation(len(shown)):
            place = np.stack([video.place(shown[n], i) for i in wanted]) & ~np.stack(near)
            if len(found) < self.rejected and place[0].sum() >= SMALLEST * video.height * video.width:
                found.append(place)
        return found

    def _video(self, number: int) -> LabelledVideo:
        if number not in self._kept:
            video = self.data.load(number)
            assert video is not None  # the index holds only this split
            self._kept[number] = video
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return self._kept[number]


def _most_edited(known: Sequence[Indexed], share: float) -> dict[int, tuple[str, ...]]:
    """The most edited share of all masklets, by the index position of their video; without unedited ones."""
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
    """One line, even if the library's message has more."""
    log.warning("video %s skipped: %s", name, first_line(error))
