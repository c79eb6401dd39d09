"""When a simulated person is satisfied with a masklet, and how often they err. Knows nothing about the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp

from engine.protocols import annotator
from storage import iou, rle
from storage.records import Masklet, Verdict, content_id

_WRONG = {Verdict.ACCEPT: Verdict.REFINE, Verdict.REFINE: Verdict.ACCEPT, Verdict.REJECT: Verdict.REFINE}


@dataclass(frozen=True)
class HumanNoise:
    """How often a simulated reviewer errs.

    Right at the threshold, the verdict is a matter of chance. Away from it, errors fade, but some remain everywhere:
    wrong keys and lapses of attention. The probability of an error is lapse + (even - lapse) * exp(-|margin| / width).
    """

    lapse: float = 0.01  # probability of an error far from the threshold
    even: float = 0.5  # at the threshold
    width: float = 0.03  # distance, in IoU, in which the difference between the two falls to 37 %

    def verdict(self, right: Verdict, margin: float, ticket_id: str, person: str) -> Verdict:
        """The verdict of a person who should say `right`. The same person on the same ticket says the same again.

        margin: how far the masklet is from the threshold, in IoU.
        An error turns accept into refine, and the other verdicts as `_WRONG` says.
        """
        error = self.lapse + (self.even - self.lapse) * exp(-abs(margin) / self.width)
        drawn = int(content_id("human noise", ticket_id, person), 16) / 16**16
        return _WRONG[right] if drawn < error else right


EXACT = HumanNoise(lapse=0.0, even=0.0)  # verdicts follow the truth


@dataclass(frozen=True)
class AnnotatorPolicy:
    """When a simulated person is satisfied. IoU in [0, 1]."""

    accept_mean: float = 0.80  # mean IoU over the frames that show the object or the masklet
    accept_frame: float = annotator.GOOD  # IoU above which a frame counts as right
    accept_share: float = 0.85  # share of the frames that must be right
    same_object: float = 0.5  # lowest IoU at which a masklet counts as showing a true object
    smallest_px: int = 100  # objects that stay smaller on every frame get no masklet
    clicks_a_frame: int = 7  # at most; fewer if the frame is right before
    one_each: bool = True  # a second candidate of one object is a duplicate
    attempts: int = 2  # track tickets of one object before it is rejected as untrackable
    noise: HumanNoise = EXACT  # of verdicts; HumanNoise() for experiments that measure how well verdicts are predicted

    def margin(self, masklet: Masklet, target: Masklet) -> float:
        """How far the masklet is above what satisfies; negative below it. In IoU, or in shares of the frames."""
        ious = iou.frame_ious(masklet, aligned(target, masklet.frame_idx)).values()
        return annotator.margin(list(ious), mean=self.accept_mean, frame=self.accept_frame, share=self.accept_share)


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
