"""What imports of all formats have in common: the error, what is said about a video, and the masklets that come of it.

Does not know any format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage import rle
from storage.records import Masklet, Verdict

#: The checkpoint of masklets that come from a file, and the name of its format.
CHECKPOINTS = {"sa-v": "SA-V", "coco": "COCO", "youtube-vis": "YouTube-VIS", "cvat": "CVAT"}
MAX_METADATA = 65_536  # characters of a video's name and metadata, and of a masklet's metadata


class AnnotationError(ValueError):
    """This is not an annotation that we can read."""


class OtherFile(AnnotationError):
    """This file does not claim to be an annotation of this format."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What an annotation says about its video, besides its masks and its measures."""

    name: str | None
    split: str | None  # "train", "val" or "test"
    metadata: str | None = None  # JSON object


def accepted(
    masks: Mapping[int, bytes],
    hw: tuple[int, int],
    *,
    position: int,
    areas: Sequence[int] | None = None,
    kind: str = "manual",
    checkpoint: str,
    stability: Sequence[float] = (),
    edited_frame_count: int = 0,
) -> Masklet:
    """An accepted masklet, without its id and its video. It has neither predicted IoU nor presence.

    masks: frame_idx -> compressed counts, valid, ascending.  hw: of the masks.  position: among the file's objects.
    areas: px of each mask, if they are known.
    stability: of each mask; default: 1.0.
    """
    areas = tuple(areas) if areas is not None else tuple(rle.area(counts, *hw) for counts in masks.values())
    return Masklet(
        masklet_id="",
        video_id="",
        batch_id="",
        height=hw[0],
        width=hw[1],
        frame_idx=tuple(masks),
        rle=tuple(masks.values()),
        area_px=areas,
        score=(1.0,) * len(masks),
        object_score=tuple(10.0 if area else -10.0 for area in areas),
        stability=tuple(stability) or (1.0,) * len(masks),
        kind=kind,
        phase="auto" if kind == "auto" else "3",
        round=0,
        checkpoint=checkpoint,
        prompt="{}",
        edited_frame_count=edited_frame_count,
        verdict=Verdict.ACCEPT.value,
        source_position=position,
    )


def fits(hw: tuple[int, int], made_hw: tuple[int, int]) -> bool:
    """Whether masks of `made_hw` are of a stored video of `hw`: an odd side has lost its last row or column."""
    return all(side in (made, made - made % 2) for side, made in zip(hw, made_hw, strict=True))


def fitted(counts: bytes, made_hw: tuple[int, int], hw: tuple[int, int]) -> bytes:
    """The mask without the last row or column of an odd side."""
    return counts if made_hw == hw else rle.encode(rle.decode(counts, *made_hw)[: hw[0], : hw[1]])
