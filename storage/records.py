"""The records that every folder shares: frozen data, the order of masklets, and the function that makes ids.

Does not know files, tables or the network. A mask is a COCO compressed RLE (`bytes` counts, column-major);
`frame_idx` counts frames of the stored 24 fps video, and annotated frames are every 4th.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

FPS = 24  # frames per second of every stored video
STRIDE = 4  # annotated frames are every 4th stored frame: 6 fps


class Verdict(StrEnum):
    """A decision about a masklet: of a person, or of the verifier that learned from people."""

    ACCEPT = "accept"  # satisfactory in all frames
    REFINE = "refine"  # a clear object, a wrong masklet
    REJECT = "reject"  # not a well-defined object
    UNSURE = "unsure"  # a lead decides


class Refusal(StrEnum):
    """Why a video was not admitted, or has no candidates."""

    UNREADABLE = "unreadable"  # no decoder opens the file, or it is empty
    NO_VIDEO_STREAM = "no_video_stream"  # audio, subtitles or a still picture
    ENCRYPTED = "encrypted"  # its pictures need a key
    TRUNCATED = "truncated"  # decoding ended well before the announced duration
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    KILLS_WORKER = "kills_worker"  # two processes were killed while they worked on it
    DUPLICATE = "duplicate"  # the same bytes were admitted under another name
    NEAR_DUPLICATE = "near_duplicate"  # the same footage was admitted: encoded, scaled, cut or mirrored
    METADATA = "metadata"  # what a table beside the videos says about it cannot be, or came too late
    FAILED = "failed"  # any other reason, with its message


@dataclass(frozen=True, kw_only=True)
class Video:
    """An admitted video, normalised to constant 24 fps H.264."""

    video_id: str  # the first 16 hex digits of source_sha256
    source_uri: str
    source_sha256: str
    video_key: str  # blob of the normalised file
    video_sha256: str  # of the normalised file
    frames_key: str  # blob of the frame-to-timestamp table (JSON)
    height: int  # px, rotation applied
    width: int  # px
    frame_count: int  # frames of the normalised file
    duration_s: float
    source_fps: float  # average of the source
    variable_rate: bool  # the source's frame intervals differed
    rotation: int  # degrees that were applied, clockwise
    split: str  # "train", "val" or "test": a video never changes side
    batch_id: str  # that has the video for ever; "" until it is committed
    truth_key: str | None = None  # blob of an SA-V JSON with ground truth, if the source has one
    source_name: str | None = None  # of an imported video: its id in its dataset
    source_metadata: str | None = None  # JSON object of what its dataset or the table beside it says about it
    changes: tuple[str, ...] = ()  # what ingest did to the picture or its times; a detail follows a comma


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """An input or a row that was refused, with the reason."""

    stage: str  # "ingest", "import", "auto-masklets", "review", "collect" or "publish"
    subject: str  # source uri, video_id or masklet_id
    reason: str  # a Refusal, or the name of the check that failed
    detail: str  # one line
    batch_id: str


@dataclass(frozen=True, kw_only=True)
class Masklet:
    """The masks of one object through a video, with their origin. One row of the table `masklets`.

    The lists run over the annotated frames, in order: all have the same length T.
    """

    masklet_id: str
    video_id: str
    batch_id: str
    height: int
    width: int
    frame_idx: tuple[int, ...]  # (T,) strictly increasing multiples of STRIDE
    rle: tuple[bytes, ...]  # (T,) COCO compressed counts; an absent object is an all-zero mask
    area_px: tuple[int, ...]  # (T,)
    score: tuple[float, ...]  # (T,) predicted IoU, the model's own estimate
    object_score: tuple[float, ...]  # (T,) presence logit, > 0 is present
    stability: tuple[float, ...]  # (T,) stability score; 1.0 on empty frames
    kind: str  # "auto" or "manual", as SA-V's masklet_type
    phase: str  # "auto", "1", "2", "3"
    round: int  # the retraining round of the checkpoint that made it; 0 before the first
    checkpoint: str  # name or id of the checkpoint that made it
    prompt: str  # JSON of the first prompt
    # the masklet that this one corrects. Of a candidate (phase "auto") that shows a part of an object: the candidate
    # that shows the whole
    parent_id: str | None = None
    edited_frame_count: int = 0  # frames that an annotator touched
    click_count: int = 0
    verdict: str | None = None  # None for a candidate
    verified_by: str | None = None
    annotated_by: str | None = None
    split: str = "train"
    source_position: int | None = None  # of an imported masklet: its place among the objects of its file
    source_metadata: str | None = None  # of an imported masklet: JSON object of what its dataset says about it
    label: str | None = None  # the class of the object; None: nobody was asked, or nobody said it
    attributes: str | None = None  # JSON object of the object's attributes, with sorted keys; None: there are none

    def shown(self) -> dict[int, bytes]:
        """The masks on the frames that show the object: frame_idx -> compressed counts."""
        return {i: c for i, c, area in zip(self.frame_idx, self.rle, self.area_px, strict=True) if area}

    @property
    def corrected_id(self) -> str | None:
        """The masklet that this one corrects; None for a candidate."""
        return None if self.phase == "auto" else self.parent_id


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One recorded act in a ticket. One row of the table `operations`."""

    operation_id: str  # made by the client
    ticket_id: str
    batch_id: str
    video_id: str
    masklet_id: str  # the masklet that the ticket was about
    person: str
    kind: str  # one of OPERATION_KINDS in annotation_queue/rules.py, or "verdict", "submit", "unsubmit"
    frame_idx: int | None
    payload: str  # JSON
    created_at: str  # ISO 8601, UTC
    seq: int = 0  # order within the ticket


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The input of an annotator or a grid to the model on one frame, in pixels of the stored video."""

    frame_idx: int
    points_xy: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()  # 1 positive, 0 negative
    box_xyxy: tuple[float, float, float, float] | None = None
    mask_rle: bytes | None = field(default=None)  # COCO counts at the video's size


def in_order(masklets: Iterable[Masklet]) -> list[Masklet]:
    """Sorted by video. In a video, imported masklets come first, in the order of their files; the others by id."""

    def place(masklet: Masklet) -> tuple[str, bool, bool, int, str]:
        position = masklet.source_position
        if position is None:
            return (masklet.video_id, True, False, 0, masklet.masklet_id)
        return (masklet.video_id, False, masklet.kind == "auto", position, masklet.masklet_id)

    return sorted(masklets, key=place)


def content_id(*parts: str | bytes, length: int = 16) -> str:
    """A short id made from content: the same parts always give the same id, on any machine.

    Parts are length-prefixed before hashing, so ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:length]


def unique_videos(rows: Iterable[Video]) -> list[Video]:
    """Every video once, sorted by id; of several rows, the row with the first batch id."""
    ordered = sorted(rows, key=lambda row: (row.video_id, row.batch_id), reverse=True)
    return list({row.video_id: row for row in ordered}.values())[::-1]
