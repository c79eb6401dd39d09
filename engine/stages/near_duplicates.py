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

from collections.abc import Callable, Iterable, Iterator, Sequence
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
# ways to lay a new video over others, for each look that is the first one: those with the closest hashes
_MOST_LAID = 1000

_FAR = 1 << 24  # more than the seconds of any video
_COUNTED = 1 << 22  # pairs of seconds with hashes alike that are counted together; it bounds the memory of a search

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

    @property
    def videos(self) -> NDArray[np.int64]:
        """(M,) the video of each hash."""
        return np.repeat(np.arange(len(self.video_ids)), np.diff(self.starts))


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
    Its cost: 24 comparisons with each hash of the table for each second of the new video.
    """
    laid = sorted(_laid_over(new, table, how), key=lambda each: (each.distance, each.video))
    videos = list(dict.fromkeys(each.video for each in laid if table.video_ids[each.video] != but))[:_MOST_VIDEOS]
    laid.sort(key=lambda each: -each.alike)
    kept = {video: pictures_of(str(table.video_ids[video])) for video in videos}
    for each in laid:
        if each.video in kept and _is_alike(new, kept[each.video], each, how):
            return Match(
                video_id=str(table.video_ids[each.video]),
                alike=each.alike,
                of=each.of,
                offset_s=each.offset - each.phase / A_SECOND,
                mirrored=each.mirrored,
            )
    return None


@dataclass(frozen=True)
class _Laid:
    """A new video, laid over another one: its second i, from look `phase` on, over second i + offset."""

    video: int
    offset: int
    phase: int  # looks of the new video that are skipped
    mirrored: bool
    alike: int
    of: int
    distance: float  # mean of the bits that differ, in the seconds that are alike


def _laid_over(new: Looks, table: Table, how: Alike) -> Iterator[_Laid]:
    """Every way to lay it over a video so that enough of their seconds have hashes alike."""
    assert new.mirrored is not None
    lengths, videos = np.diff(table.starts), table.videos
    for mirrored, hashes in ((False, new.hashes), (True, new.mirrored)):
        for phase in range(min(A_SECOND, len(hashes))):
            looks = [i for i in range(phase, len(hashes), A_SECOND) if not new.flat[i]]
            every, counts, bits = _counted(_near(table, videos, hashes[look], look // A_SECOND, how) for look in looks)
            means = bits / np.maximum(counts, 1)
            shorter = np.minimum(len(looks), lengths[every // _FAR])
            enough = np.flatnonzero((counts >= how.min_share * shorter) & (means <= how.few_distance * counts))
            # videos of one place are all alike: without a limit, there would be as many as hashes
            for n in enough[np.argsort(means[enough], kind="stable")][:_MOST_LAID].tolist():
                video, offset = divmod(int(every[n]), _FAR)
                its = int(counts[n]), int(shorter[n]), float(means[n])
                yield _Laid(video, offset - _FAR // 2, phase, mirrored, *its)


# places where one video may lie over another one, how many seconds are alike there, and the sum of the bits that differ
_Places = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _near(table: Table, videos: NDArray[np.int64], wanted: np.uint64, second: int, how: Alike) -> _Places:
    """The places at which a second of the new video, with the hash `wanted`, lies over one that is alike.

    videos: of each hash of the table.
    """
    differ = np.bitwise_count(table.hashes ^ wanted)
    at = np.flatnonzero(differ <= how.max_distance)
    places = videos[at] * _FAR + table.seconds[at] - second + _FAR // 2
    return places, np.ones(len(at)), differ[at].astype(np.float64)


def _counted(found: Iterable[_Places]) -> _Places:
    """All of these places, each once."""
    kept, waiting = [(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))], 0
    for each in found:
        kept.append(each)
        waiting += len(each[0])
        if waiting > _COUNTED:
            kept, waiting = [_joined(kept)], 0
    return _joined(kept)


def _joined(several: Sequence[_Places]) -> _Places:
    places, counts, bits = (np.concatenate(each) for each in zip(*several, strict=True))
    every, which = np.unique(places, return_inverse=True)
    sums = [np.bincount(which, each, len(every)).astype(np.float64, copy=False) for each in (counts, bits)]
    return every, sums[0], sums[1]


def _is_alike(new: Looks, kept: Looks | None, laid: _Laid, how: Alike) -> bool:
    """Whether what changes from second to second is alike in both. Where nothing moves, the hashes must be closer."""
    if kept is None:
        return laid.distance <= how.few_distance
    mine = new.pictures[laid.phase :: A_SECOND].astype(np.float32)
    if laid.mirrored:
        mine = mine[:, :, ::-1]
    first = max(0, -laid.offset)
    length = min(len(mine), len(kept.pictures) - laid.offset) - first
    theirs = kept.pictures[first + laid.offset : first + laid.offset + length].astype(np.float32)
    moves = np.stack(
        [np.diff(pictures, axis=0).ravel() for pictures in (mine[first : first + length], theirs)]
    )  # (2, …)
    if length < 2 or moves.std(axis=1).min() < _STILL:
        return laid.distance <= how.few_distance
    return float(np.asarray(np.corrcoef(moves))[0, 1]) >= how.min_motion
