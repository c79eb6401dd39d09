"""Releases for tests of the pages and of the API: one release, without a store."""

from __future__ import annotations

from annotation_queue.errors import NoSuchRelease, NoSuchVideo
from annotation_queue.release_records import (
    MaskletMasks,
    ReleaseFilter,
    ReleaseMasklet,
    ReleaseMasks,
    ReleaseName,
    ReleasePage,
    Releases,
    ReleaseVideo,
)
from tests.annotation_queue.synthetic_queue import SyntheticMedia, candidate

RELEASE = "release-0001"
FRAMES = 24


class FakeReleases:
    """Fulfils `annotation_queue.api.backend.ReleaseSource`: the label is the only filter, a page has two masklets."""

    def __init__(self, labels: tuple[str | None, ...], frames: int = FRAMES) -> None:
        """labels: of the masklets, which are all of one video. frames: of this video."""
        self._media = SyntheticMedia(frames)
        self._rows = [candidate(f"m{n}", "video-0", frames) for n in range(len(labels))]
        self._about = [about(row, label) for row, label in zip(self._rows, labels, strict=True)]
        self.asked: list[ReleaseFilter] = []
        self.pieces: list[tuple[int, int]] = []  # of masks, that were asked for: first frame, end
        self.withdrawn = False  # the video

    def releases(self) -> Releases:
        return Releases(alone=False, releases=(ReleaseName(name=RELEASE, videos=1, masklets=len(self._rows)),))

    def page(self, name: str, wanted: ReleaseFilter, after: str | None, limit: int) -> ReleasePage:
        if name != RELEASE:
            raise NoSuchRelease(f"there is no release {name!r}")
        self.asked.append(wanted)
        first = int((after or "0.0").split(".")[1])
        found = [each for each in self._about[first : first + 2] if wanted.label in (None, each.label)]
        more = first + 2 < len(self._about)
        return ReleasePage(masklets=tuple(found), next=f"0.{first + 2}" if more else None, looked=2)

    def video(self, name: str, video_id: str) -> ReleaseVideo:
        self.check(name, video_id)
        return ReleaseVideo(info=self._media.info(video_id), masklets=tuple(self._about))

    def masks(self, name: str, video_id: str, first: int, end: int) -> ReleaseMasks:
        self.check(name, video_id)
        self.pieces.append((first, end))
        masks = []
        for row in self._rows:
            shown = [t for t, frame in enumerate(row.frame_idx) if first <= frame < end and row.area_px[t]]
            frames, counts = (row.frame_idx[t] for t in shown), (row.rle[t].decode() for t in shown)
            masks.append(MaskletMasks(frame_idx=tuple(frames), rle=tuple(counts)))
        return ReleaseMasks(first=first, end=end, masklets=tuple(masks))

    def check(self, name: str, video_id: str) -> None:
        if video_id != "video-0" or self.withdrawn:
            raise NoSuchVideo(f"release {name} has no video {video_id}")

    def frame(self, name: str, video_id: str, frame_idx: int) -> bytes:
        self.check(name, video_id)
        return self._media.frame(video_id, frame_idx)

    def thumbnail(self, name: str, video_id: str, masklet_id: str) -> bytes:
        return self._media.frame(video_id, 0)


def about(row, label: str | None) -> ReleaseMasklet:
    """What a list shows of a masklet."""
    return ReleaseMasklet(
        masklet_id=row.masklet_id,
        video_id=row.video_id,
        kind=row.kind,
        phase=row.phase,
        label=label,
        split=row.split,
        checkpoint=row.checkpoint,
        annotated_by=None,
        verified_by="vera",
        verdict="accept",
        size="medium",
        area_px=2000.0,
        shown=5,
        frames=len(row.frame_idx),
        score=0.9,
        edited=0,
        clicks=0,
        best=row.frame_idx[2],
        disagreement=0.25,
    )
