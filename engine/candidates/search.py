"""The search for objects in one window of a video, and their masks on its frames.

Objects are searched in the whole first frame, and on later keyframes where no tracked object is. A new object is on
probation: it counts when a later keyframe finds it again. All objects are tracked forward together, each with its own
memory; no frame is tracked twice. At the end of the window, the late objects that count are tracked back to its start.

Knows nothing of how objects are found (`Finder`), of other windows and of records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from engine.candidates.config import SearchConfig
from engine.candidates.shots import Window
from model.checkpoints import LoadedModel
from model.frame_masks import FrameMasks
from model.masks import clean
from model.tracker import Tracker
from storage import rle
from storage.iou import mask_table
from storage.pixels import Mask, Rgb
from storage.records import FPS, STRIDE, Prompt


@dataclass(frozen=True, kw_only=True)
class Seed:
    """An object that was found on one frame."""

    mask: Mask
    rank: float  # a better seed has a higher one
    score: float  # estimated IoU
    stability: float
    object_score: float
    found_by: Mapping[str, object]  # what it was found with, for the candidate's provenance
    label: str | None = None


Finder = Callable[[Rgb, Mask | None], list[Seed]]
"""Finds objects on a frame, best first: in all of it, or only where the mask, bool (H, W), is set."""


@dataclass(frozen=True, slots=True)
class MaskOnFrame:
    """What the tracker gave for one object on one frame."""

    rle: bytes
    area_px: int
    score: float
    object_score: float
    stability: float


@dataclass(frozen=True)
class Carried:
    """An object of the window before, on the frame that both windows share."""

    object_id: str
    seed: Seed  # its mask is that of the shared frame


@dataclass
class Track:
    """An object in one window. Until it is `confirmed`, it is on probation."""

    name: str
    seed: Seed
    place: int  # of the frame of its prompt, among the window's frames
    confirmed: bool
    continues: str | None = None  # the object of the window before
    keyframes: int = 0  # since it was found
    found_again: int = 0  # at these keyframes
    masks: dict[int, MaskOnFrame] = field(default_factory=dict)  # frame_idx -> mask, on annotated frames


@dataclass(frozen=True)
class Searched:
    """The objects of one window, and what the search cost."""

    tracks: list[Track]
    keyframes: list[int]  # frame_idx of the frames on which objects were searched
    object_frames: int  # frames times objects that the tracker propagated


@dataclass
class _Pair:
    """Two objects, on the annotated frames that were tracked forward with both."""

    frames: int = 0
    both: float = 0.0  # px in both masks
    either: float = 0.0  # px in one of the masks or in both

    def add(self, iou: float, areas: int) -> None:
        """Adds a frame. areas: of both masks together, px."""
        both = iou * areas / (1 + iou)
        self.frames, self.both, self.either = self.frames + 1, self.both + both, self.either + areas - both

    @property
    def iou(self) -> float:
        return self.both / self.either if self.either else 0.0


class WindowSearch:
    """The search in one window. It runs once."""

    def __init__(
        self,
        loaded: LoadedModel,
        read: Callable[[int], Rgb],
        hw: tuple[int, int],
        window: Window,
        find: Finder,
        config: SearchConfig,
        *,
        change: Mapping[int, float],
        speck_px: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Prepares it.

        read: gives the frame of an index, uint8 (H, W, 3) RGB.  change: how much each frame differs from the one
        before.  speck_px: smaller specks and holes are removed from masks.  progress: called with each frame_idx that
        is tracked forward.
        """
        self._read, self._hw, self._frames = read, hw, window.frames
        self._find, self._config, self._progress = find, config, progress
        self._speck_px = speck_px
        self._change = [change.get(i, 0.0) for i in window.frames]
        self._usual_change = float(np.median(self._change))
        self._tracker = Tracker(
            loaded, lambda place: read(window.frames[place]), video_hw=hw, frame_count=len(window.frames)
        )
        self._last = len(window.frames) - 1
        self._live: list[Track] = []
        self._drawn: dict[str, Mask] = {}  # the newest masks of the live tracks
        self._uncovered = 1.0  # share of the frame at the last keyframe
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._made = 0
        self._keyframes: list[int] = []
        self._object_frames = 0

    def run(self, carried: Sequence[Carried] = ()) -> Searched:
        """carried: the objects of the window before, best first.  Raises NotFinite if the model gives no numbers."""
        self._begin(carried)
        place = 0
        while place < self._last and (self._live or self._config.keyframe_s is not None):
            place = self._forward(place)
            if self._config.keyframe_s is not None:
                self._keyframe(place)
        self._backward()
        return Searched(self._live, self._keyframes, self._object_frames)

    # The first frame

    def _begin(self, carried: Sequence[Carried]) -> None:
        """Starts the objects of the window before, with the mask found anew if there is one, and the other ones."""
        self._keyframes.append(self._frames[0])
        found = self._find(self._read(self._frames[0]), None)
        table = self._ious([c.seed.mask for c in carried], found)
        known: list[tuple[str | None, Seed]] = []
        taken: set[int] = set()
        for row, each in enumerate(carried):
            free = [i for i in range(len(found)) if i not in taken]
            best = max(free, key=lambda i: table[row, i], default=None)
            if best is not None and table[row, best] >= self._config.same_object:
                taken.add(best)
                known.append((each.object_id, found[best]))
            else:
                known.append((each.object_id, each.seed))
        others = [seed for i, seed in enumerate(found) if i not in taken]
        new = self._new_among(others, [seed.mask for _, seed in known]) if known else others
        chosen = [*known, *((None, seed) for seed in new)][: self._config.max_objects]
        self._start(0, chosen, confirmed=True)
        self._uncovered = self._share_uncovered()

    def _start(self, place: int, seeds: Sequence[tuple[str | None, Seed]], *, confirmed: bool) -> None:
        """Prompts the tracker with the masks of new objects, in one batch."""
        if not seeds:
            return
        tracks = []
        for continues, seed in seeds:
            tracks.append(Track(f"{self._made:03d}", seed, place, confirmed, continues))
            self._made += 1
        prompts = {t.name: Prompt(frame_idx=place, mask_rle=rle.encode(t.seed.mask)) for t in tracks}
        answer = self._tracker.prompt_all(prompts)
        self._live += tracks
        self._keep(answer)
        frame_idx = self._frames[place]
        for track in tracks:  # the tracker rates its own prompt with 1
            if (mask := track.masks.get(frame_idx)) is not None:
                seed = track.seed
                track.masks[frame_idx] = MaskOnFrame(
                    mask.rle, mask.area_px, seed.score, seed.object_score, seed.stability
                )

    # The way forward

    def _forward(self, start: int) -> int:
        """Tracks from a place to the next keyframe or the last frame, and returns its place."""
        if not self._live:
            places = range(start + 1, self._last + 1)
            return next((p for p in places if self._is_keyframe(p, start)), self._last)
        place = start
        while place < self._last:
            for answer in self._tracker.propagate(place + 1, self._last + 1, objects=[t.name for t in self._live]):
                place = answer.frame_idx
                self._object_frames += len(self._live)
                self._keep(answer)
                if self._progress:
                    self._progress(self._frames[place])
                dropped = self._drop_duplicates(place)
                if self._is_keyframe(place, start):
                    return place
                if dropped:
                    break  # the others go on
        return self._last

    def _drop_duplicates(self, place: int) -> bool:
        """Drops one of two objects whose masks were nearly the same so far: the newer one, or that of lower rank."""
        if self._frames[place] % STRIDE:
            return False
        tracks = sorted(self._live, key=lambda t: (not t.confirmed, t.place, -t.seed.rank))
        drawn = np.stack([self._drawn[t.name] for t in tracks])
        ious, areas = mask_table(drawn, drawn), drawn.sum((1, 2))
        dropped: set[str] = set()
        for i, first in enumerate(tracks):
            for j in range(i + 1, len(tracks)):
                names = min(first.name, tracks[j].name), max(first.name, tracks[j].name)
                pair = self._pairs.setdefault(names, _Pair())
                pair.add(ious[i, j], int(areas[i] + areas[j]))
                alike = pair.frames >= self._config.alike_frames and pair.iou > self._config.same_masklet
                if alike and first.name not in dropped:
                    dropped.add(tracks[j].name)
        for track in [t for t in self._live if t.name in dropped]:
            self._drop(track)
        return bool(dropped)

    def _is_keyframe(self, place: int, last: int) -> bool:
        """Whether objects are searched on this frame. last: the place of the keyframe before."""
        config, passed = self._config, self._frames[place] - self._frames[last]
        if config.keyframe_s is None or self._frames[place] % STRIDE or passed < config.least_gap_s * FPS:
            return False
        if passed >= config.keyframe_s * FPS:
            return True
        recent = self._change[max(last + 1, place - STRIDE // self._frames.step + 1) : place + 1]
        if self._usual_change and max(recent) > config.change_jump * self._usual_change:
            return True
        return bool(self._live) and self._share_uncovered() > self._uncovered + config.uncovered_jump

    def _keyframe(self, place: int) -> None:
        """Searches where nothing is tracked: confirms or drops objects on probation, and puts new ones on it."""
        waiting = [t for t in self._live if not t.confirmed]
        if place == self._last and not waiting:
            return
        covered = self._covered()
        found: list[Seed] = []
        if 1 - covered.mean() >= self._config.least_uncovered:
            self._keyframes.append(self._frames[place])
            found = self._find(self._read(self._frames[place]), ~covered)
        table = self._ious([self._drawn[t.name] for t in waiting], found) >= self._config.same_object
        for row, track in enumerate(waiting):
            track.keyframes += 1
            track.found_again += bool(table[row].any())
        others = [s for i, s in enumerate(found) if s.rank >= self._config.late_rank and not table[:, i].any()]
        new = self._new_among(others, list(self._drawn.values()))
        for track in waiting:
            if track.found_again >= self._config.survive:
                self._confirm(track)
            elif track.keyframes >= self._config.within or place == self._last:
                self._drop(track)
        if place < self._last:
            room = self._config.on_probation - sum(not t.confirmed for t in self._live)
            better = [(None, seed) for seed in new if seed.rank > self._least_rank()]
            self._start(place, better[: max(0, room)], confirmed=False)
        self._uncovered = self._share_uncovered()

    def _confirm(self, track: Track) -> None:
        """Lets an object count. If there are too many, the one with the lowest rank goes."""
        track.confirmed = True
        counting = [t for t in self._live if t.confirmed]
        if len(counting) > self._config.max_objects:
            self._drop(min(counting, key=lambda t: t.seed.rank))

    def _least_rank(self) -> float:
        """The rank that a new object must exceed to find a place."""
        counting = [t.seed.rank for t in self._live if t.confirmed]
        return min(counting) if len(counting) >= self._config.max_objects else -np.inf

    def _drop(self, track: Track) -> None:
        self._live.remove(track)
        del self._drawn[track.name]
        self._tracker.remove(track.name)

    # The way back

    def _backward(self) -> None:
        """Tracks the late objects from their keyframes to the first frame, all of them in one pass."""
        late = sorted((t for t in self._live if t.place), key=lambda t: -t.place)
        groups = [(place, [t.name for t in group]) for place, group in groupby(late, key=lambda t: t.place)]
        until = [*(place for place, _ in groups[1:]), 0]  # where the next ones join, or the first frame
        walking: list[str] = []
        for (place, names), stop in zip(groups, until, strict=False):
            walking += names
            for answer in self._tracker.propagate(place - 1, stop - 1, reverse=True, objects=walking):
                self._object_frames += len(walking)
                self._keep(answer)

    # Shared

    def _keep(self, answer: FrameMasks) -> None:
        """Stores the masks of an annotated frame, and draws those of the last one."""
        frame_idx = self._frames[answer.frame_idx]
        if frame_idx % STRIDE and answer.frame_idx != self._last:
            return
        by_name = {t.name: t for t in self._live}
        estimates = answer.estimates()
        for row, (name, drawn) in enumerate(zip(answer.object_ids, answer.masks(self._hw), strict=True)):
            mask = clean(drawn, self._speck_px)
            self._drawn[name] = mask
            area = int(mask.sum())
            if frame_idx % STRIDE == 0:
                by_name[name].masks[frame_idx] = MaskOnFrame(
                    rle=rle.encode(mask),
                    area_px=area,
                    score=estimates.iou[row],
                    object_score=estimates.object_score[row],
                    stability=estimates.stability[row] if area else 1.0,
                )

    def _covered(self) -> Mask:
        """Where objects that count are, background apart: bool (H, W)."""
        covered = np.zeros(self._hw, np.bool_)
        for track in self._live:
            if track.confirmed and (mask := self._drawn.get(track.name)) is not None and self._hides(mask):
                covered |= mask
        return covered

    def _share_uncovered(self) -> float:
        return 1 - float(self._covered().mean())

    def _hides(self, mask: Mask) -> bool:
        return bool(mask.mean() <= self._config.background)

    def _new_among(self, seeds: Sequence[Seed], known: Sequence[Mask]) -> list[Seed]:
        """The seeds that show no object of these masks, and no part of one."""
        return [seed for seed in seeds if not any(self._is_known(seed.mask, mask) for mask in known)]

    def _is_known(self, mask: Mask, other: Mask) -> bool:
        both = np.count_nonzero(mask & other)
        area, union = np.count_nonzero(mask), np.count_nonzero(mask | other)
        if both >= self._config.same_object * union:
            return True
        return bool(both >= self._config.inside * area) and self._hides(other)

    def _ious(self, masks: Sequence[Mask], seeds: Sequence[Seed]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """IoU of every mask with every seed, float (N, M)."""
        if not masks or not seeds:
            return np.zeros((len(masks), len(seeds)))
        return mask_table(np.stack(masks), np.stack([seed.mask for seed in seeds]))
