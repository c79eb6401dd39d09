"""When a simulated person is satisfied with a masklet. Knows nothing about tickets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.protocols import annotator
from storage import iou, rle
from storage.records import Masklet


@dataclass(frozen=True)
class AnnotatorPolicy:
    """When a simulated person is satisfied. IoU in [0, 1]."""

    accept_mean: float = 0.80  # mean IoU over the frames that show the object or the masklet
    accept_frame: float = 0.75  # IoU above which a frame counts as right (SA-V's alignment threshold)
    accept_share: float = 0.85  # share of the frames that must be right
    same_object: float = 0.5  # lowest IoU at which a masklet counts as showing a true object
    smallest_px: int = 100  # objects that stay smaller on every frame get no masklet
    clicks_a_frame: int = 3
    corrections: int = 3  # frames to correct with the model before painting the rest
    one_each: bool = True  # a second candidate of one object is a duplicate
    attempts: int = 2  # track tickets of one object before it is rejected as untrackable

    def satisfied(self, masklet: Masklet, target: Masklet) -> bool:
        """Whether the masklet is good enough for the true object `target`."""
        ious = iou.frame_ious(masklet, aligned(target, masklet.frame_idx)).values()
        return annotator.satisfied(list(ious), mean=self.accept_mean, frame=self.accept_frame, share=self.accept_share)


def aligned(truth: Masklet, frame_idx: Sequence[int]) -> Masklet:
    """The truth on exactly these frames, with empty masks on frames without truth."""
    empty = rle.empty(truth.height, truth.width)
    counts: Mapping[int, tuple[bytes, int]] = {
        f: (c, a) for f, c, a in zip(truth.frame_idx, truth.rle, truth.area_px, strict=True)
    }
    rows = [counts.get(f, (empty, 0)) for f in frame_idx]
    return replace(truth, frame_idx=tuple(frame_idx), rle=tuple(c for c, _ in rows), area_px=tuple(a for _, a in rows))


def iou_at(a: Masklet, b: Masklet, i: int) -> float:
    """IoU at position `i` of two masklets with the same frames; 1 if both are empty there."""
    return iou.rle_iou(a.rle[i], b.rle[i], a.height, a.width)
