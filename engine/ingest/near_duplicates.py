"""Near duplicates: the same footage encoded, scaled, cut, mirrored or marked again, found by hashes of its pictures.

A video is looked at twelve times a second, so that one look falls on the same moment as in a copy that was cut
anywhere. Each look is a 64-bit difference hash (`dhash` of imagehash) and a small grey picture. Of an admitted video,
one look a second is kept. A new video is laid over each kept one at every distance in time: where the hashes of its
seconds are alike, the pictures decide, because a camera that does not move shows the same background on different days.
What changes from second to second must be alike, too.

Pure: numpy, no store. Finds neither footage that is cropped by a tenth, nor at another speed, nor with other borders.
`benchmarks/near_duplicates.py` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from storage.records import FPS

if TYPE_CHECKING:
    import av.video.frame

A_SECOND = 12  # looks at a new video
_EVERY = FPS // A_SECOND  # frames from one look to the next
SIDE = 16  # px, of the small pictures
_HASHED_SIDE = 64  # px, of the picture that is hashed
_FLAT = 6.0  # standard deviation of the grey levels below which a picture has no hash: it would be noise
_STILL = 2.0  # standard deviation of what changes, in grey levels, below which nothing moves
_MOST_VIDEOS = 20  # whose pictures are compared: those with the closest hashes
_MOST_LAID = 50  # ways to lay a new video over each of them whose pictures are compared: those with the closest hashes
_MOST_SECONDS = 6000  # of videos that are compared at every moment; among more, a coarse look chooses the closest ones
_COARSE = 4  # looks from one moment to the next in a coarse look
_NO_HASH = 128  # more bits than can differ

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Alike:
    """When two videos are near duplicates."""

    max_distance: int = 12  # bits of 64 that may differ between the hashes of a second
    # bits for each second that is compared, while that is less than max_distance: a short match must be exact
    few_distance: int = 4
    min_share: float = 0.8  # of the seconds of the shorter video that must be alike
    min_motion: float = 0.55  # correlation of what changes from second to second


@dataclass(frozen=True)
class Looks:
    """Looks at a video in equal intervals. N of them."""

    hashes: Hashes  # (N,)
    flat: NDArray[np.bool_]  # (N,) the picture has no hash
    pictures: NDArray[np.uint8]  # (N, SIDE, SIDE) grey
    mirrored: Hashes | None = None  # (N,) of the mirrored pictures; None for an admitted video

    def each_second(self) -> Looks:
        """One look a second, which is kept of an admitted video. Of looks at a new video."""
        return Looks(self.hashes[::A_SECOND], self.flat[::A_SECOND], self.pictures[::A_SECOND])


class Looker:
    """Looks at the pictures of a video while they are written."""

    def __init__(self) -> None:
        self._seen: list[tuple[int, int, bool, NDArray[np.uint8]]] = []

    def through(self, pictures: Iterator[av.video.frame.VideoFrame]) -> Iterator[av.video.frame.VideoFrame]:
        """Hands the pictures on as they are."""
        for n, picture in enumerate(pictures):
            if n % _EVERY == 0:
                self._seen.append(_look(picture))
            yield picture

    def looks(self) -> Looks:
        """What it saw."""
        return Looks(
            hashes=np.array([each[0] for each in self._seen], dtype=np.uint64),
            mirrored=np.array([each[1] for each in self._seen], dtype=np.uint64),
            flat=np.array([each[2] for each in self._seen], dtype=np.bool_),
            pictures=np.array([each[3] for each in self._seen], dtype=np.uint8).reshape(-1, SIDE, SIDE),
        )


def _look(picture: av.video.frame.VideoFrame) -> tuple[int, int, bool, NDArray[np.uint8]]:
    from imagehash import dhash
    from PIL import Image

    grey = picture.reformat(width=_HASHED_SIDE, height=_HASHED_SIDE, format="gray").to_ndarray()
    image = Image.fromarray(grey)
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _number(dhash(image)), _number(dhash(mirrored)), float(grey.std()) < _FLAT, np.asarray(small)


def _number(of: Any) -> int:
    """The 64 bits of a hash of imagehash."""
    return int.from_bytes(np.packbits(of.hash.flatten()).tobytes(), "big")


@dataclass(frozen=True)
class Table:
    """The hashes of admitted videos, one a second; M in all, those of a video beside each other."""

    video_ids: NDArray[np.str_]  # (V,)
    starts: NDArray[np.int64]  # (V + 1,) those of video v are starts[v] to starts[v + 1]
    seconds: NDArray[np.int64]  # (M,) from the start of the video; seconds with a flat picture are missing
    hashes: Hashes  # (M,)


@dataclass(frozen=True)
class Match:
    """A near duplicate of the video that was looked for."""

    video_id: str
    alike: int  # seconds
    of: int  # seconds of the shorter video
    offset_s: float  # time in the other video at which the new one begins; < 0: the new one begins earlier
    mirrored: bool


def find(
    new: Looks, table: Table, pictures_of: Callable[[str], Looks | None], how: Alike, but: str = ""
) -> Match | None:
    """The video of the table that shares the most seconds with a new video; None if none is alike.

    pictures_of: the kept looks at a video; None: they are erased, so that its hashes alone decide.
    but: a video that does not count.
    Its cost: 24 comparisons with each hash of the table for each second of the new video, alike or not. Where many are
    alike, as at one place with a fixed camera, a coarse look chooses which videos are compared at every moment.
    """
    laid = _laid_over(new, table, how, but)
    kept = {video: pictures_of(str(table.video_ids[video])) for video in {each.video for each in laid}}
    for each in laid:
        if _is_alike(_in_seconds(new, each.way), kept[each.video], each, how):
            return Match(
                video_id=str(table.video_ids[each.video]),
                alike=each.alike,
                of=each.of,
                offset_s=each.offset - each.way.phase / A_SECOND,
                mirrored=each.way.mirrored,
            )
    return None


@dataclass(frozen=True)
class _Way:
    """To take one look a second of a new video."""

    mirrored: bool
    phase: int  # looks that are skipped before the first one


@dataclass(frozen=True)
class _Laid:
    """A new video, laid over another one: its second i over second i + offset."""

    video: int
    offset: int
    way: _Way
    alike: int
    of: int
    distance: float  # mean of the bits that differ, in the seconds that are alike


def _in_seconds(new: Looks, way: _Way) -> Looks:
    """One look a second."""
    assert new.mirrored is not None
    each = slice(way.phase, None, A_SECOND)
    hashes, pictures = new.hashes[each], new.pictures[each]
    if way.mirrored:
        hashes, pictures = new.mirrored[each], pictures[:, :, ::-1]
    return Looks(hashes, new.flat[each], pictures)


def _laid_over(new: Looks, table: Table, how: Alike, but: str) -> list[_Laid]:
    """The best ways to lay it over videos so that enough of their seconds have hashes alike, the most seconds first."""
    videos, ways = _candidates(new, table, how, but)
    room = -(-len(new.hashes) // A_SECOND)
    if _spans(table, videos, room).sum() > _MOST_SECONDS:
        coarse = [way for way in ways if way.phase % _COARSE == 0]
        videos = _closest(new, _Line(table, videos, room), coarse, how)
    line = _Line(table, videos, room)
    found = [line.alike(_in_seconds(new, way), how) for way in ways]
    which_way = np.repeat(np.arange(len(ways)), [len(each.places) for each in found])
    every = _Places.joined(found)
    of_video = line.block[every.places]
    order = np.lexsort((of_video, every.distances))
    closest = list(dict.fromkeys(of_video[order].tolist()))[:_MOST_VIDEOS]
    best = [n for video in closest for n in order[of_video[order] == video][:_MOST_LAID].tolist()]
    laid = [
        _Laid(
            video=int(line.videos[of_video[n]]),
            offset=int(every.places[n] - line.firsts[of_video[n]]) - room,
            way=ways[which_way[n]],
            alike=int(every.alike[n]),
            of=int(every.of[n]),
            distance=float(every.distances[n]),
        )
        for n in best
    ]
    return sorted(laid, key=lambda each: (-each.alike, each.distance, each.video))


def _candidates(new: Looks, table: Table, how: Alike, but: str) -> tuple[NDArray[np.int64], list[_Way]]:
    """The videos with so many hashes alike, wherever they are, that they may be near duplicates; and in which ways."""
    lengths = np.diff(table.starts)
    filled = np.flatnonzero((lengths > 0) & (table.video_ids != but))
    found, ways = np.zeros(len(filled), np.bool_), list[_Way]()
    bounds = np.stack([table.starts[filled], table.starts[filled + 1]], axis=1).ravel()
    for way in (_Way(mirrored, phase) for mirrored in (False, True) for phase in range(A_SECOND)):
        looks = _in_seconds(new, way)
        hashes = looks.hashes[~looks.flat]
        if not len(hashes) or not len(filled):
            continue
        hits = np.zeros(len(table.hashes) + 1, np.min_scalar_type(len(hashes)))  # one more ends the last video
        for wanted in hashes:
            hits[:-1] += np.bitwise_count(table.hashes ^ wanted) <= how.max_distance
        of_videos = np.add.reduceat(hits, bounds, dtype=np.int64)[::2]
        enough = of_videos >= np.maximum(1, how.min_share * np.minimum(len(hashes), lengths[filled]))
        if enough.any():
            found |= enough
            ways.append(way)
    return filled[found], ways


def _spans(table: Table, videos: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Seconds of each video, and of a new one that begins before its start."""
    last = table.starts[videos + 1] - 1
    return np.asarray(table.seconds[last] + 1 + room)


@dataclass(frozen=True)
class _Places:
    """Where a new video may lie in a line of others: N places, those with enough seconds alike."""

    places: NDArray[np.int64]  # (N,)
    alike: NDArray[np.int64]  # (N,) seconds
    of: NDArray[np.int64]  # (N,) seconds of the shorter video
    distances: NDArray[np.float64]  # (N,) mean of the bits that differ, in the seconds that are alike

    @staticmethod
    def joined(several: Sequence[_Places]) -> _Places:
        """All of these."""
        none = np.zeros(0, np.int64)
        each = [_Places(none, none, none, none.astype(np.float64)), *several]
        columns = zip(*((one.places, one.alike, one.of, one.distances) for one in each), strict=True)
        return _Places(*(np.concatenate(column) for column in columns))


class _Line:
    """The hashes of V videos in one line, a second a place, P places in all. Each video has a block, with room at its
    end for a new video that begins before it.

    A new video lies at the place `firsts + room + offset` if it begins at second `offset` of a video, which may be < 0:
    so every place where it overlaps that video is in the block of that video.
    """

    def __init__(self, table: Table, videos: NDArray[np.int64], room: int) -> None:
        """room: seconds of the new video."""
        spans = _spans(table, videos, room)
        self.videos, self.room, self.lengths = videos, room, np.diff(table.starts)[videos]
        self.firsts = np.cumsum(spans) - spans  # (V,) the first place of each block
        self.block = np.repeat(np.arange(len(videos)), spans)  # (P,) the number of the video that has each place
        self._hashes = np.zeros(len(self.block), np.uint64)
        self._none = np.full(len(self.block), _NO_HASH, np.uint8)
        of_videos = [np.arange(*table.starts[video : video + 2]) for video in videos]
        rows = np.concatenate([np.zeros(0, np.int64), *of_videos])
        at = np.repeat(self.firsts, self.lengths) + table.seconds[rows]
        self._hashes[at], self._none[at] = table.hashes[rows], 0

    def alike(self, looks: Looks, how: Alike) -> _Places:
        """Where enough seconds are alike. looks: one a second of the new video."""
        end, seconds = len(self.block) - self.room, np.flatnonzero(~looks.flat)
        counts, bits = np.zeros(len(self.block), np.int32), np.zeros(len(self.block), np.int32)
        for second in seconds.tolist():
            differ = np.bitwise_count(self._hashes[:end] ^ looks.hashes[second]) | self._none[:end]
            near = differ <= how.max_distance
            here = slice(self.room - second, self.room - second + end)
            counts[here] += near
            bits[here] += differ * near
        shorter = np.minimum(len(seconds), self.lengths)[self.block]
        enough = (counts >= np.maximum(1, how.min_share * shorter)) & (bits <= how.few_distance * counts * counts)
        at = np.flatnonzero(enough)
        return _Places(at, counts[at].astype(np.int64), shorter[at], bits[at] / counts[at])


def _closest(new: Looks, line: _Line, ways: Sequence[_Way], how: Alike) -> NDArray[np.int64]:
    """The videos of a line that are closest to a new one, in some of the ways."""
    distances = np.full(len(line.videos), np.inf)
    for way in ways:
        found = line.alike(_in_seconds(new, way), how)
        np.minimum.at(distances, line.block[found.places], found.distances)
    order = np.argsort(distances, kind="stable")
    spans = np.diff(np.append(line.firsts, len(line.block)))[order]
    few = max(_MOST_VIDEOS, int((np.cumsum(spans) <= _MOST_SECONDS).sum()))
    return np.sort(line.videos[order[:few]])


def _is_alike(new: Looks, kept: Looks | None, laid: _Laid, how: Alike) -> bool:
    """Whether what changes from second to second is alike in both. Where nothing moves, the hashes must be closer.

    new: one look a second, as kept.
    """
    if kept is None:
        return laid.distance <= how.few_distance
    first = max(0, -laid.offset)
    length = min(len(new.pictures), len(kept.pictures) - laid.offset) - first
    if length < 2:
        return laid.distance <= how.few_distance
    mine = _changes(new.pictures[first : first + length])
    theirs = _changes(kept.pictures[first + laid.offset : first + laid.offset + length])
    power = float(mine @ mine), float(theirs @ theirs)
    if min(power) < _STILL**2 * len(mine):
        return laid.distance <= how.few_distance
    return float(mine @ theirs) >= how.min_motion * math.sqrt(power[0] * power[1])


def _changes(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What changes from each second to the next one, less its mean: in grey levels, in one row."""
    changes = np.diff(pictures.astype(np.int16), axis=0).astype(np.float32).ravel()
    return np.asarray(changes - changes.mean())
