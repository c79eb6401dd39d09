"""Records of a release as people browse it: which masklets pass a filter, and all masklets of one video."""

from __future__ import annotations

from dataclasses import dataclass

from annotation_queue.records import VideoInfo


@dataclass(frozen=True, kw_only=True)
class ReleaseName:
    """A release that can be browsed."""

    name: str
    videos: int
    masklets: int


@dataclass(frozen=True, kw_only=True)
class Releases:
    """The releases, the newest first."""

    alone: bool  # this server shows releases only: there is no queue, and nobody logs in
    releases: tuple[ReleaseName, ...]


@dataclass(frozen=True, kw_only=True)
class ReleaseFilter:
    """Which masklets of a release are wanted; None: any."""

    text: str | None = None  # in the id of the masklet or of its video
    video_id: str | None = None  # exactly; without it, files are looked through in their order
    label: str | None = None  # exactly; "": masklets without a label
    size: str | None = None  # "small", "medium" or "large", as SA-V calls masklets
    kind: str | None = None
    phase: str | None = None
    split: str | None = None
    person: str | None = None  # who annotated or verified it: a pseudonym, or a name in this queue
    checkpoint: str | None = None
    score_from: float | None = None  # of the mean score, in [0, 1]
    score_to: float | None = None
    disagreement_from: float | None = None  # above 0: only masklets about which people's verdicts differ


@dataclass(frozen=True, kw_only=True)
class ReleaseMasklet:
    """What a list shows of a masklet."""

    masklet_id: str
    video_id: str
    kind: str
    phase: str
    label: str | None
    split: str
    checkpoint: str
    annotated_by: str | None
    verified_by: str | None
    verdict: str | None
    size: str  # "small", "medium", "large", or "" if no frame shows the object
    area_px: float  # mean over the frames that show the object
    shown: int  # annotated frames that show the object
    frames: int  # annotated frames
    score: float | None  # mean over the frames that show the object
    edited: int  # frames
    clicks: int
    best: int  # frame_idx of the largest mask
    disagreement: float | None = None  # share of people's verdicts that differ from the most frequent; None: no verdict


@dataclass(frozen=True, kw_only=True)
class ReleasePage:
    """A page of the masklets that pass a filter."""

    masklets: tuple[ReleaseMasklet, ...]
    next: str | None  # where the next page begins; None: this was the last one
    looked: int  # masklets that were looked at for this page


@dataclass(frozen=True, kw_only=True)
class ReleaseVideo:
    """A video of a release with all its masklets; their masks come in pieces (`ReleaseMasks`)."""

    info: VideoInfo
    masklets: tuple[ReleaseMasklet, ...]


@dataclass(frozen=True, kw_only=True)
class MaskletMasks:
    """The masks of a masklet on some frames, without frames that do not show the object."""

    frame_idx: tuple[int, ...]
    rle: tuple[str, ...]  # COCO compressed counts


@dataclass(frozen=True, kw_only=True)
class ReleaseMasks:
    """The masks of a video on its frames from `first` to before `end`, in the order of the masklets of the video."""

    first: int  # frame_idx
    end: int
    masklets: tuple[MaskletMasks, ...]
